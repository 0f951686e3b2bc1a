"""Readers of text classification: hand-worked cases on texts that we wrote, and what is known of the distributed files."""

from __future__ import annotations

import json
from collections import Counter
from functools import partial

import pytest
from corpora import read_corpus, separate, write_lines
from distributed import distributed
from formats import hallmarks as hallmarks_format
from formats import mednli as mednli_format
from formats import rqe as rqe_format
from formats import wikimed as wikimed_format
from refusal import SECRET, refused

from staf.data.example import dedup_key
from staf.data.read_report import ReadReport
from staf.data.readers.documents import COARSE, HALLMARKS, TYPES
from staf.data.readers.shapes import WINDOW
from staf.errors import BadData

# ---- Hallmarks of Cancer ---------------------------------------------------------------------------------------------


def test_an_abstract_has_the_top_hallmarks_of_all_its_slots_in_the_order_of_the_labels(tmp_path):
    first, second = "It grows .\nIt spreads .\n", "Nothing .\n"
    labels = "<Inducing angiogenesis--<Genomic instability and mutation--DNA damage--Adducts ANDResisting cell death--< "
    hallmarks_format.write_archive(
        tmp_path, {"7": (first + second, labels), "8": (second, "<NULL"), "9": (second + first, "< < < ")}
    )
    report = ReadReport()
    one, null, nothing = read_corpus("hallmarks-of-cancer", tmp_path, report)
    assert (one.id, one.context) == ("hallmarks-of-cancer/7", "It grows . It spreads . Nothing .")
    assert one.answer == "resisting cell death; inducing angiogenesis; genomic instability and mutation"
    assert (null.answer, nothing.answer) == ("none", "none")


@pytest.mark.parametrize(
    ("text", "labels", "message"),
    [
        (f"{SECRET} .\n", "< < ", "text/7.txt: 1 sentences are here, and 2 slots"),
        (f"{SECRET} .\n", "<The secret--hoof", "text/7.txt: 1 of its labels lie under none of the 10"),
        (f"{SECRET} .\n", "Cellular energetics--", "text/7.txt: its label file does not begin with '<'"),
        (f"{SECRET} .\n\n", "< < ", "text/7.txt: it is empty, or one of its lines is"),
        ("", "", "text/7.txt: it is empty"),
    ],
)
def test_an_abstract_that_does_not_fit_its_labels_is_refused(tmp_path, text, labels, message):
    hallmarks_format.write_archive(tmp_path, {"7": (text, labels), "8": ("It grows .\n", "< ")})
    refused(partial(read_corpus, "hallmarks-of-cancer"), tmp_path, message)


def test_an_archive_of_abstracts_that_is_cut_short_is_refused(tmp_path):
    hallmarks_format.write(tmp_path)
    path = tmp_path / "Hallmarks-of-Cancer-master.tar.gz"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(BadData, match="is damaged or"):
        list(read_corpus("hallmarks-of-cancer", tmp_path, ReadReport()))


def test_hallmarks_of_cancer_has_what_is_known_of_it():
    report = ReadReport()
    examples = list(read_corpus("hallmarks-of-cancer", distributed("hallmarks-of-cancer"), report))
    assert len(examples) == 1_852
    assert {label for e in examples for label in e.answer.split("; ")} == {*HALLMARKS, "none"}
    assert separate(examples)[1] == 0


# ---- WikiMed ---------------------------------------------------------------------------------------------------------


def test_a_page_has_the_coarse_types_of_the_concepts_that_its_shown_part_mentions(tmp_path):
    text = "The horn\naches. " + "Salve helps. " * 200 + "It is the croup."
    mentions = [
        wikimed_format.mention(text, "horn", "C0000001"),
        wikimed_format.mention(text, "Salve", "C0000003|C0000009"),
        wikimed_format.mention(text, "croup", "C0000002"),
    ]
    write_lines(tmp_path / "WikiMed.json", [wikimed_format.page("5", text, *mentions, split="valid")])
    wikimed_format.write_types(tmp_path)
    report = ReadReport()
    (example,) = read_corpus("wikimed", tmp_path, report)
    assert (example.id, example.split, example.output_type) == ("wikimed/5", "adaptation", "multi_label")
    assert example.answer == "anatomy; organic chemical; pharmacologic substance"
    assert example.context.startswith("The horn aches. Salve")
    assert 1_980 < len(example.context) <= WINDOW
    assert example.context.endswith((" Salve", " helps."))


def test_a_page_of_unknown_concepts_is_left_out_and_one_without_mentions_has_none(tmp_path):
    unknown = wikimed_format.page("1", "A horn.", wikimed_format.mention("A horn.", "horn", "C0000009"))
    bare = wikimed_format.page("2", "A hoof.")
    del bare["split"]
    write_lines(tmp_path / "WikiMed.json", [unknown, bare])
    wikimed_format.write_types(tmp_path)
    report = ReadReport()
    (example,) = read_corpus("wikimed", tmp_path, report)
    assert (example.id, example.answer) == ("wikimed/2", "none")
    assert report.skipped == {
        "a mention of concepts that the UMLS file does not list": 1,
        "a page all of whose mentions are left out": 1,
    }


def test_a_mention_that_the_cut_goes_through_is_not_counted(tmp_path):
    text = "x" * 1_990 + " hornpipe of a beast that is long"
    write_lines(
        tmp_path / "WikiMed.json", [wikimed_format.page("1", text, wikimed_format.mention(text, "hornpipe of", "C0000001"))]
    )
    wikimed_format.write_types(tmp_path)
    (example,) = read_corpus("wikimed", tmp_path, ReadReport())
    assert (len(example.context), example.answer) == (1_999, "none")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"text": ""}, "line 2: field 'text' is missing"),
        ({"_id": 7}, "line 2: field '_id' is missing"),
        ({"split": "secret"}, "line 2: the field 'split' must be one of train, valid, test"),
        ({"mentions": {}}, "line 2: field 'mentions' is missing or not a list"),
        ({"mentions": [{"start_offset": 2, "end_offset": 900, "link_id": "C0000001"}]}, "line 2: a mention has no offsets"),
        ({"mentions": [{"start_offset": 2, "end_offset": 6, "link_id": "secret"}]}, "line 2: the 'link_id' of a mention"),
    ],
)
def test_a_page_that_does_not_fit_is_refused(tmp_path, changed, message):
    page = wikimed_format.page("1", SECRET) | changed
    write_lines(tmp_path / "WikiMed.json", [wikimed_format.page("2", "A hoof."), page])
    wikimed_format.write_types(tmp_path)
    refused(partial(read_corpus, "wikimed"), tmp_path, message)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            "C0000004|T999|A1|Secret Type|AT1||",
            r"MRSTY\.RRF, line 5: no concept id, or a semantic type that is none of the 127",
        ),
        ("secret|T047|A1|Disease or Syndrome|AT1||", r"MRSTY\.RRF, line 5: no concept id"),
        ("C0000004|T047|Disease or Syndrome|", r"MRSTY\.RRF, line 5: 7 cells are expected, found 4"),
    ],
)
def test_a_row_of_semantic_types_that_does_not_fit_is_refused(tmp_path, row, message):
    write_lines(tmp_path / "WikiMed.json", [wikimed_format.page("2", "A hoof.")])
    wikimed_format.write_types(tmp_path, row)
    refused(partial(read_corpus, "wikimed"), tmp_path, message)


def test_the_127_semantic_types_fall_into_24_coarse_ones():
    assert (len(COARSE), len(TYPES)) == (127, 24)
    assert COARSE["Clinical Drug"] == "pharmacologic substance"
    assert COARSE["Geographic Area"] == "objects"


# ---- question entailment ---------------------------------------------------------------------------------------------


def test_pairs_that_tell_nothing_leave_the_training_part_and_stay_in_the_test(tmp_path):
    asked, short = "Why does it  limp?", "What makes beasts limp?"
    same = rqe_format.pair(1, "true", asked, "Why does it limp")
    kept = rqe_format.pair(2, "true", asked, short)
    again = rqe_format.pair(3, "true", asked, short)
    yes, no = (rqe_format.pair(n, value, "Is hay good?", short) for n, value in ((4, "true"), (5, "false")))
    empty = rqe_format.pair(6, "true", asked, "")
    rqe_format.write_files(tmp_path, [same, kept, again, yes, no, empty], [yes, no, same])
    report = ReadReport()
    examples = list(read_corpus("rqe-amia2016", tmp_path, report))
    assert [(e.id.removeprefix("rqe-amia2016/"), e.answer) for e in examples] == [
        ("train/2", "yes"),
        ("test/4", "yes"),
        ("test/5", "no"),
        ("test/1", "yes"),
    ]
    assert examples[0].context == "First question: Why does it limp? Second question: What makes beasts limp?"
    assert examples[0].group == dedup_key("why does it limp")
    assert report.skipped == {
        "a pair of the same text": 1,
        "a repeated pair": 1,
        "a pair with contradicting labels": 2,
        "a pair with an empty question": 1,
    }


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (rqe_format.pair(2, "perhaps", SECRET, "Is it?"), "pair 2: pid, chq or faq is missing, or the value"),
        (f'<pair pid="2" value="true"><chq>{SECRET}</chq></pair>', "pair 2: pid, chq or faq is missing"),
        (f'<pair value="true"><chq>{SECRET}</chq><faq>Is it?</faq></pair>', "pair 2: pid, chq or faq is missing"),
    ],
)
def test_a_pair_that_does_not_fit_is_refused(tmp_path, pair, message):
    whole = rqe_format.pair(1, "true", "Why does it limp?", "What makes beasts limp?")
    rqe_format.write_files(tmp_path, [whole, pair], [whole])
    refused(partial(read_corpus, "rqe-amia2016"), tmp_path, message)


def test_pairs_that_are_cut_short_are_refused(tmp_path):
    rqe_format.write(tmp_path)
    path = tmp_path / rqe_format.TRAIN
    path.write_text(path.read_text()[:-30])
    with pytest.raises(BadData, match=r"line \d+: not valid XML"):
        list(read_corpus("rqe-amia2016", tmp_path, ReadReport()))


def test_question_entailment_has_what_is_known_of_it():
    report = ReadReport()
    examples = list(read_corpus("rqe-amia2016", distributed("rqe-amia2016"), report))
    assert Counter(e.answer for e in examples if e.split == "test") == {"yes": 129, "no": 173}
    assert len(examples) + sum(report.skipped.values()) == 8_588 + 302
    assert separate(examples)[1] == 0


# ---- MedNLI ----------------------------------------------------------------------------------------------------------


def test_pairs_of_one_premise_stay_together_in_the_part_of_their_file(tmp_path):
    mednli_format.write(tmp_path)
    report = ReadReport()
    examples = list(read_corpus("mednli", tmp_path, report))
    assert Counter(e.split for e in examples) == {"train": 12, "adaptation": 12, "test": 12}
    assert {len([e for e in examples if e.group == group]) for group in {e.group for e in examples}} == {3}
    assert examples[0].id == "mednli/train-red-0"
    assert examples[0].context == "Premise: The red train beast limps since spring. Hypothesis: It walks 0 steps."
    assert examples[0].answer == "entailment"
    assert examples[0].labels == ("entailment", "neutral", "contradiction")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"gold_label": "-"}, "mli_dev_v1.jsonl, line 13: the field 'gold_label' must be one of entailment"),
        ({"sentence2": " "}, "mli_dev_v1.jsonl, line 13: field 'sentence2' is missing"),
        ({"pairID": None}, "mli_dev_v1.jsonl, line 13: field 'pairID' is missing"),
    ],
)
def test_a_pair_of_sentences_that_does_not_fit_is_refused(tmp_path, changed, message):
    mednli_format.write(tmp_path)
    with (tmp_path / "mli_dev_v1.jsonl").open("a") as stream:
        stream.write(json.dumps(mednli_format.record("x", "neutral", SECRET, SECRET) | changed) + "\n")
    refused(partial(read_corpus, "mednli"), tmp_path, message)
