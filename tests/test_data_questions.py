"""Question answering: MedQuAD, MMLU, MedQA's own folder, all parts of PubMedQA."""

from __future__ import annotations

import json
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from corpora import corpus_files, read_corpus, separate, write_lines
from distributed import distributed
from formats import examinations
from formats import medquad as pages
from formats import mmlu as tables
from formats import pubmedqa as abstracts
from refusal import SECRET, refused

from staf.data.card import builtin_cards
from staf.data.example import Example, dedup_key, normalise
from staf.data.prepare import prepare
from staf.data.read_report import ReadReport
from staf.data.readers import medquad
from staf.errors import BadData, MissingData


def by_id(examples) -> dict[str, Example]:
    return {example.id: example for example in examples}


# ---- MedQuAD ---------------------------------------------------------------------------------------------------------


def write_pages(folder: Path, **texts: str) -> Path:
    """A folder of one site with these pages."""
    site = folder / "1_CancerGov_QA"
    site.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (site / f"{name}.xml").write_text(text, encoding="utf-8")
    return folder


def asked(focus: str, *concepts: str) -> str:
    """A page with one question about its focus."""
    return pages.document(focus, [("information", f"What is {focus}?", f"{focus} is a beast.")], concepts)


def test_a_page_gives_its_full_answers_and_their_first_sentences_among_five(own):
    found = by_id(read_corpus("medquad", own / "medquad", ReadReport()))
    whole = found["medquad/3_GHR_QA/0000001/1"]
    assert (whole.task_type, whole.output_type, whole.labels) == ("question_answering", "generate_until", ())
    assert whole.context == "What is (are) Red hoof fever ?"
    assert whole.answer == "Red hoof fever is illness 0; it itches. It passes in 0 days."
    choice = found["medquad/3_GHR_QA/0000001/1/choice"]
    assert (choice.task_type, choice.output_type, len(choice.labels)) == ("multiple_choice", "multiple_choice", 5)
    assert choice.context == whole.context
    assert choice.answer == "Red hoof fever is illness 0, it itches. It passes in 0 days"
    assert choice.query.endswith("; ".join(choice.labels))
    assert found["medquad/3_GHR_QA/0000001/2/choice"].answer == "Rest for 0 days. Then run"


def test_wrong_options_answer_the_same_kind_of_question_about_another_disease_of_the_split(own):
    found = by_id(read_corpus("medquad", own / "medquad", ReadReport()))
    choices = [e for e in found.values() if e.task_type == "multiple_choice"]
    giver = {(medquad.opening(found[e.id.removesuffix("/choice")].answer)): e for e in choices}
    assert {e.split for e in choices} == {"train", "adaptation", "test"}
    for example in choices:
        for option in set(example.labels) - {example.answer}:
            other = giver[option]
            assert (other.split, other.id.split("/")[3]) == (example.split, example.id.split("/")[3])
            assert other.group != example.group


def test_quirks_of_the_files_are_counted(own):
    report = ReadReport()
    found = by_id(read_corpus("medquad", own / "medquad", report))
    assert report.skipped == {
        "the answer is removed for copyright": 2,
        "the answer is empty": 1,
        "the same question with the same answer is there already": 1,
        "fewer than four other answers to the same kind of question in its split": 1,
    }
    assert found["medquad/6_NINDS_QA/0000007/1"].answer == "A bald mane has no hair left."
    assert found["medquad/9_CDC_QA/0000397/1"].answer == "Wash it."
    assert "medquad/9_CDC_QA/0000397/1/choice" not in found


def test_the_archive_and_its_unpacked_folders_give_the_same_examples(own, tmp_path):
    pages.write_unpacked(tmp_path / "MedQuAD-master")
    unpacked = by_id(read_corpus("medquad", tmp_path, ReadReport()))
    assert unpacked == by_id(read_corpus("medquad", own / "medquad", ReadReport()))
    assert len(corpus_files("medquad", tmp_path)) == 85
    pages.write(tmp_path)
    assert [path.name for path in corpus_files("medquad", tmp_path)] == ["MedQuAD-master.tar.gz"]
    (tmp_path / "MedQuAD-old.tar.gz").write_bytes(b"")
    with pytest.raises(BadData, match="2 files where one is expected"):
        corpus_files("medquad", tmp_path)


def test_names_of_one_disease_lie_in_one_group_but_not_all_that_is_cancer(tmp_path):
    texts = {f"{n:07}": asked(f"beast {n}", "C1", f"C2{n}") for n in range(6)}
    texts |= {"0000007": asked("Horned toad", "C20", "C3"), "0000008": asked("toad with horns", "C3")}
    texts |= {"0000009": pages.document("BEAST 5", [("causes", "What is BEAST 5 from?", "From eggs.")])}
    found = list(read_corpus("medquad", write_pages(tmp_path, **texts), ReadReport()))
    groups = {e.context: e.group for e in found if e.task_type == "question_answering"}
    assert len(set(groups.values())) == 6
    assert groups["What is beast 0?"] == groups["What is Horned toad?"] == groups["What is toad with horns?"]
    assert groups["What is beast 5?"] == groups["What is BEAST 5 from?"]
    assert all(len({e.split for e in found if e.group == group}) == 1 for group in groups.values())


@pytest.mark.parametrize(
    ("answer", "option"),
    [
        ("It is; it was.", "It is, it was"),
        ("What is it? How so? It is a horn.", "It is a horn"),
        ("Is it?", "Is it?"),
        ("A first sentence that says a little more. " + "b" * 190 + ".", "A first sentence that says a little more"),
        ("It is. " + "word " * 60, "It is. " + ("word " * 38).strip()),
        ("w" * 300, "w" * 200),
        ("It costs 2.5 crowns " + "and then " * 40, ("It costs 2.5 crowns " + "and then " * 20).strip()),
    ],
)
def test_an_option_is_whole_sentences_where_they_fit_and_else_whole_words(answer, option):
    assert medquad.opening(answer) == option
    assert len(option) <= medquad.LONGEST_OPTION


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("</QAPairs>", "", "2.xml: line 12 is not valid XML"),
        ("Document", "Page", "2.xml: the root must be one of Document, DiseaseFile, doc"),
        (' pid="1"', "", "2.xml: a pair has no number 'pid', no Question or no Answer"),
        ("Answer>", "Reply>", "2.xml: a pair has no number 'pid', no Question or no Answer"),
        (f">What is {SECRET}?<", "> <", "2.xml: the question of pair 1 is empty or has no 'qtype'"),
        (' qtype="information"', "", "2.xml: the question of pair 1 is empty or has no 'qtype'"),
    ],
)
def test_a_page_that_does_not_fit_is_refused_as_a_whole(tmp_path, old, new, message):
    text = asked(SECRET)
    assert old in text
    folder = write_pages(tmp_path, **{"1": asked("Griffin"), "2": text.replace(old, new), "3": asked("Kraken")})
    refused(partial(read_corpus, "medquad"), folder, message)
    assert len(list(read_corpus("medquad", folder, ReadReport(skip_rejected=True)))) == 2


def test_an_archive_that_is_cut_short_is_refused(tmp_path):
    pages.write(tmp_path)
    path = tmp_path / "MedQuAD-master.tar.gz"
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(BadData, match=r"MedQuAD-master\.tar\.gz is damaged"):
        list(read_corpus("medquad", tmp_path, ReadReport()))


# ---- MMLU ------------------------------------------------------------------------------------------------------------


def test_a_question_of_mmlu_keeps_the_order_of_options_that_speak_of_others(own):
    found = by_id(read_corpus("mmlu-medical", own / "mmlu-medical", ReadReport()))
    example = found["mmlu-medical/test/anatomy/1"]
    assert example.context == "What ails the anatomy beast 0 of test?"
    assert example.labels == ("Its horn", "Its hoof, both of them", "Its tail", "Both A and C")
    assert (example.answer, example.split, example.task_type) == ("Its horn", "test", "multiple_choice")
    genotypes = next(e for e in found.values() if e.context == "Which cross gives a horn?")
    assert sorted(genotypes.labels) == ["HH HH", "HH hh", "Hh Hh", "hh hh"]


def test_a_question_of_mmlu_is_in_one_split_once(own):
    report = ReadReport()
    examples = list(read_corpus("mmlu-medical", own / "mmlu-medical", report))
    assert Counter(e.split for e in examples) == {"test": 21, "adaptation": 10, "train": 6}
    assert report.skipped == {
        "the same question with the same options is there already": 8,
        "an option is listed twice": 1,
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"{SECRET},a,b,c,d", r"anatomy_test\.csv, line 2: 6 cells are expected, found 5"),
        (f"{SECRET},a,b,c,d,E", r"anatomy_test\.csv, line 2: the field 'answer' must be one of A, B, C, D"),
        (f"{SECRET},a,,c,d,A", r"anatomy_test\.csv, line 2: field 'B' is missing, empty or not text"),
        (f'"{SECRET},a,b,c,d,A', r"anatomy_test\.csv, line 2: not a row of this format"),
    ],
)
def test_a_row_of_mmlu_that_does_not_fit_is_refused(tmp_path, line, message):
    tables.write(tmp_path)
    (tmp_path / "data" / "test" / "anatomy_test.csv").write_text(f"Good?,a,b,c,d,A\n{line}\n", encoding="utf-8")
    refused(partial(read_corpus, "mmlu-medical"), tmp_path, message)


def test_mmlu_without_one_of_its_splits_is_not_there(tmp_path):
    tables.write(tmp_path)
    for path in (tmp_path / "data" / "val").iterdir():
        path.unlink()
    with pytest.raises(MissingData, match=r"data/val/\*_val\.csv"):
        corpus_files("mmlu-medical", tmp_path)


# ---- MedQA -----------------------------------------------------------------------------------------------------------


def test_the_authors_folder_is_read_in_its_own_split_with_four_options(tmp_path):
    examinations.write_medqa_whole(tmp_path)
    report = ReadReport()
    found = by_id(read_corpus("medqa-usmle", tmp_path, report))
    assert Counter(e.split for e in found.values()) == {"train": 6, "adaptation": 3, "test": 4}
    assert {len(e.labels) for e in found.values()} == {4}
    example = found["medqa-usmle/dev/2"]
    assert (example.answer, example.context) == ("B of dev 1", "A unicorn of 1 years, seen in dev, limps. Why?")
    assert [path.parent.name for path in corpus_files("medqa-usmle", tmp_path)] == ["4_options"] * 3


def test_the_questions_with_five_options_are_read_where_those_with_four_are_not(tmp_path):
    examinations.write_medqa_whole(tmp_path)
    for path in (tmp_path / "data_clean" / "questions" / "US" / "4_options").iterdir():
        path.unlink()
    examples = list(read_corpus("medqa-usmle", tmp_path, ReadReport()))
    assert Counter(e.split for e in examples) == {"train": 6, "adaptation": 3, "test": 4}
    assert {len(e.labels) for e in examples} == {5}


def test_a_single_test_file_and_the_one_in_the_authors_folder_give_the_same_examples(tmp_path, own):
    examinations.write_medqa_whole(tmp_path)
    whole = by_id(read_corpus("medqa-usmle", tmp_path, ReadReport()))
    four = tmp_path / "data_clean" / "questions" / "US" / "4_options"
    (tmp_path / "single").mkdir()
    (four / "phrases_no_exclude_test.jsonl").rename(tmp_path / "single" / "test.jsonl")
    single = by_id(read_corpus("medqa-usmle", tmp_path / "single", ReadReport()))
    assert single == {name: e for name, e in whole.items() if e.split == "test"}


# ---- PubMedQA --------------------------------------------------------------------------------------------------------


def test_without_the_other_parts_the_labelled_one_trains_on_its_conclusions_too(own):
    found = by_id(read_corpus("pubmedqa", own / "pubmedqa", ReadReport()))
    counts = Counter((e.output_type, e.split) for e in found.values())
    assert counts[("multiple_choice", "test")] == 20
    assert (
        counts[("multiple_choice", "train")]
        == counts[("generate_until", "train")]
        == 20 - counts[("multiple_choice", "adaptation")]
    )
    assert {split for output_type, split in counts if output_type == "generate_until"} == {"train"}
    example = next(e for e in found.values() if e.output_type == "generate_until")
    number = example.id.split("/")[1]
    assert example.id == f"pubmedqa/{number}/conclusion"
    assert (example.context, example.answer) == (f"Is {number} even? We looked. It is.", f"In all, {number} may be even.")
    choice = found[f"pubmedqa/{number}"]
    assert (example.labels, example.group, example.dedup_keys) == ((), choice.group, choice.dedup_keys)


def test_with_all_parts_the_labelled_rest_adapts_and_the_others_train(tmp_path):
    abstracts.write_whole(tmp_path)
    report = ReadReport()
    found = by_id(read_corpus("pubmedqa", tmp_path, report))
    counts = Counter((e.output_type, e.split) for e in found.values())
    assert counts == {
        ("multiple_choice", "test"): 20,
        ("multiple_choice", "adaptation"): 20,
        ("multiple_choice", "train"): 20,
        ("generate_until", "train"): 28,
    }
    assert report.skipped == {"the conclusion is empty": 2}
    assert found["pubmedqa/artificial/100"].answer == "yes"
    assert found["pubmedqa/unlabelled/200/conclusion"].answer == "In all, 200 may be even."
    assert "pubmedqa/unlabelled/200" not in found


def test_a_question_of_the_official_test_among_the_artificial_ones_does_not_train(tmp_path):
    abstracts.write_whole(tmp_path)
    records = {"9": abstracts.record(0, final_decision="yes"), "10": abstracts.record(500, final_decision="yes")}
    (tmp_path / "ori_pqaa.json").write_text(json.dumps(records))
    kept, dropped = separate(list(read_corpus("pubmedqa", tmp_path, ReadReport())))
    assert dropped == 2
    assert {e.id for e in kept if "artificial" in e.id} == {"pubmedqa/artificial/10", "pubmedqa/artificial/10/conclusion"}


@pytest.mark.parametrize(
    ("name", "record", "message"),
    [
        (
            "ori_pqaa.json",
            {"final_decision": SECRET},
            "pqaa.json, record 2: the field 'final_decision' must be one of yes, no, maybe",
        ),
        ("ori_pqaa.json", {}, "pqaa.json, record 2: field 'final_decision' is missing"),
        ("ori_pqau.json", {"LONG_ANSWER": None}, "pqau.json, record 2: field 'LONG_ANSWER' is missing or not text"),
        ("ori_pqau.json", {"CONTEXTS": SECRET}, "pqau.json, record 2: field 'CONTEXTS' is missing or not a list of texts"),
        ("ori_pqau.json", {"QUESTION": " "}, "pqau.json, record 2: field 'QUESTION' is missing, empty or not text"),
    ],
)
def test_a_record_of_the_other_parts_that_does_not_fit_is_refused(tmp_path, name, record, message):
    abstracts.write_whole(tmp_path)
    good = abstracts.record(500, final_decision="yes")
    (tmp_path / name).write_text(json.dumps({"1": good, "2": abstracts.record(501, MESHES=[SECRET]) | record, "3": good}))
    refused(partial(read_corpus, "pubmedqa"), tmp_path, message)


# ---- the distributed files, where they are there ---------------------------------------------------------------------


def overlap(example: Example) -> float:
    """How much of the right option plain counting of words shared with the question finds: 1 divided among the best."""
    words = set(normalise(example.context).split())
    shared = {option: len(words & set(normalise(option).split())) for option in example.labels}
    best = [option for option, count in shared.items() if count == max(shared.values())]
    return (example.answer in best) / len(best)


@pytest.mark.slow
def test_medquad_has_the_documents_and_pairs_that_are_known_of_it():
    report = ReadReport()
    examples = list(read_corpus("medquad", distributed("medquad"), report))
    assert report.skipped == {
        "the answer is removed for copyright": 31_029,
        "the answer is empty": 5,
        "the same question with the same answer is there already": 48,
        "fewer than four other answers to the same kind of question in its split": 7,
    }
    assert Counter(e.task_type for e in examples) == {"question_answering": 16_375, "multiple_choice": 16_368}
    assert separate(examples)[1] < 0.03 * len(examples)
    choices = [e for e in examples if e.task_type == "multiple_choice"]
    assert max(len(option) for e in choices for option in e.labels) <= medquad.LONGEST_OPTION
    positions = Counter(e.labels.index(e.answer) for e in choices)
    assert all(0.18 < positions[place] / len(choices) < 0.22 for place in range(5))
    own = {(e.id.split("/")[1], medquad.opening(e.answer)) for e in examples if e.task_type == "question_answering"}
    elsewhere = sum((e.id.split("/")[1], option) not in own for e in choices for option in e.labels)
    assert elsewhere < 0.01 * 5 * len(choices)
    tested = [e for e in choices if e.split == "test"]
    assert sum(map(overlap, tested)) / len(tested) == pytest.approx(0.788, abs=0.001)


def test_mmlu_has_the_questions_that_are_known_of_it():
    report = ReadReport()
    folder = distributed("mmlu-medical")
    examples = list(read_corpus("mmlu-medical", folder, report))
    assert len(corpus_files("mmlu-medical", folder)) == 33
    assert report.skipped == {
        "the same question with the same options is there already": 99,
        "an option is listed twice": 1,
    }
    assert Counter(e.split for e in examples) == {"test": 2_160, "adaptation": 230, "train": 49}
    assert separate(examples)[1] == 4


def authors(question: str, right: object) -> dict[str, object]:
    return {"question": question, "opa": "one.", "opb": "two", "opc": "three", "opd": "four", "cop": right, "exp": "So."}


def test_medmcqa_is_read_as_its_authors_distribute_it(tmp_path):
    write_lines(tmp_path / "train.json", [authors(f"How many hooves has beast {n}?", 1 + n % 4) for n in range(40)])
    write_lines(tmp_path / "dev.json", [authors("How many horns?", 1), authors("How many tails?", 4)])
    write_lines(tmp_path / "test.json", [{"question": "Unanswered?"}])
    examples = {e.id: e for e in read_corpus("medmcqa", tmp_path, ReadReport())}
    assert [examples[f"medmcqa/dev/{line}"].answer for line in (1, 2)] == ["one", "four"]
    assert {e.split for i, e in examples.items() if i.startswith("medmcqa/dev")} == {"test"}
    assert {e.split for i, e in examples.items() if i.startswith("medmcqa/train")} == {"train", "adaptation"}
    assert len(examples) == 42


@pytest.mark.parametrize("right", [0, 5, "1", None])
def test_a_medmcqa_answer_outside_the_four_options_is_refused(tmp_path, right):
    write_lines(tmp_path / "dev.json", [authors("How many horns?", right)])
    with pytest.raises(BadData, match=r"dev\.json, line 1: field 'cop' must be"):
        list(read_corpus("medmcqa", tmp_path, ReadReport()))


def test_medqa_has_1273_test_questions():
    examples = list(read_corpus("medqa-usmle", distributed("medqa-usmle"), ReadReport()))
    assert Counter(e.split for e in examples) == {"test": 1_273}


def test_pubmedqa_has_1000_questions_500_of_them_official():
    report = ReadReport()
    examples = list(read_corpus("pubmedqa", distributed("pubmedqa"), report))
    assert Counter((e.output_type, e.split) for e in examples) == {
        ("multiple_choice", "test"): 500,
        ("multiple_choice", "train"): 447,
        ("multiple_choice", "adaptation"): 53,
        ("generate_until", "train"): 447,
    }
    assert not any(dedup_key(e.answer) in e.dedup_keys for e in examples)


@pytest.mark.parametrize(("name", "tests"), [pytest.param("medquad", 1_273, marks=pytest.mark.slow), ("pubmedqa", 500)])
def test_the_sizes_of_table_2_cut_no_official_test(name, tests):
    kind = next(iter(builtin_cards()[name].sizes))
    assert prepare(name, distributed(name).parent).counts[kind]["test"] == tests
