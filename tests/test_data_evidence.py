"""Readers of evidence on effects and causes: hand-worked cases on our own texts, and what is known of the distributed files."""

from __future__ import annotations

from functools import partial

import pytest
from corpora import read_corpus, separate
from distributed import distributed
from formats import causal_language as causal_format
from formats import evidence_inference as evidence_format
from refusal import SECRET, refused

from staf.data.example import dedup_key
from staf.data.read_report import ReadReport
from staf.data.splits import split_of
from staf.errors import BadData

# ---- Evidence Inference ----------------------------------------------------------------------------------------------


def small_corpus(text: str = "ABSTRACT:  Hay made it\n heavier. Straw did not.") -> evidence_format.Corpus:
    corpus = evidence_format.Corpus()
    corpus.article("900", text)
    return corpus


def test_a_prompt_gives_its_effect_and_the_words_that_tell_it(tmp_path):
    corpus = small_corpus()
    corpus.annotate("900", "1", "1", "Hay made it\n heavier", **{"Valid Reasoning": False})
    corpus.annotate("900", "1", "1", "made it\n heavier")
    corpus.annotate("900", "1", "0", "Straw did not", **{"Valid Label": False})
    corpus.write(tmp_path)
    report = ReadReport()
    effect, evidence = read_corpus("evidence-inference", tmp_path, report)
    asked = "Outcome: weight of beast 1 Intervention: hay Comparator: straw"
    assert (effect.id, effect.split) == ("evidence-inference/effect/1", split_of("evidence-inference/900", (57, 15, 28)))
    assert effect.context == f"{asked} Evidence: made it heavier"
    assert effect.answer == "significantly increased"
    assert (evidence.id, evidence.output_type, evidence.labels) == ("evidence-inference/evidence/1", "span", ())
    assert evidence.context == f"{asked} Report: ABSTRACT: Hay made it heavier. Straw did not."
    assert evidence.answer == "made it heavier"
    assert effect.group == evidence.group == "evidence-inference/900"
    assert dedup_key("evidence-inference document 900") in effect.dedup_keys


def test_the_report_is_a_piece_around_the_evidence(tmp_path):
    corpus = small_corpus("We fed it. " * 400 + "Hay made it heavier. " + "We fed it. " * 400)
    corpus.annotate("900", "1", "-1", "Hay made it heavier")
    corpus.write(tmp_path)
    _, evidence = read_corpus("evidence-inference", tmp_path, ReadReport())
    shown = evidence.context.partition(" Report: ")[2]
    assert 1_900 < len(shown) <= 2_000
    assert evidence.answer in shown


def test_prompts_without_an_agreed_label_or_evidence_are_left_out(tmp_path):
    corpus = small_corpus()
    corpus.annotate("900", "1", "1", "heavier")
    corpus.annotate("900", "1", "0", "Straw did not")
    corpus.annotate("900", "2", "1", "heavier", **{"Valid Label": False})
    corpus.annotate("900", "3", "1", "heavier", **{"Valid Reasoning": False})
    corpus.annotate("900", "4", "1", "heavier", **{"Evidence Start": -1, "Evidence End": -1})
    corpus.write(tmp_path)
    report = ReadReport()
    assert list(read_corpus("evidence-inference", tmp_path, report)) == []
    assert report.skipped == {
        "a prompt with contradicting labels": 1,
        "a prompt without a valid label": 1,
        "a prompt without valid evidence that stands at its offsets": 2,
    }


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"Label Code": "2"}, r"v2_annotations\.csv, line 3: the label code must be -1, 0 or 1"),
        ({"Valid Label": "secret"}, "line 3: the label code must be -1, 0 or 1, and what is valid True or False"),
        ({"Evidence End": "secret"}, "line 3: the start or the end of the evidence is no number"),
        ({"Annotations": " "}, "line 3: the evidence is empty"),
        ({"PMCID": "secret"}, "line 3: its prompt is not among the prompts on its article"),
        ({"PromptID": "secret"}, "line 3: its prompt is not among the prompts"),
    ],
)
def test_an_annotation_that_does_not_fit_is_refused(tmp_path, changed, message):
    corpus = small_corpus()
    corpus.annotate("900", "1", "1", "heavier")
    corpus.annotate("900", "2", "1", "heavier", **changed)
    corpus.write(tmp_path)
    refused(partial(read_corpus, "evidence-inference"), tmp_path, message)


def test_an_article_or_a_column_that_is_not_there_is_named(tmp_path):
    corpus = small_corpus()
    corpus.annotate("900", "1", "1", "heavier")
    corpus.article("901", "Hay.")
    corpus.annotate("901", "2", "1", "Hay")
    corpus.write(tmp_path)
    whole = (tmp_path / "txt_files.tar.gz").read_bytes()
    evidence_format.Corpus().write(tmp_path / "other")
    (tmp_path / "txt_files.tar.gz").write_bytes((tmp_path / "other" / "txt_files.tar.gz").read_bytes())
    with pytest.raises(BadData, match="does not hold 2 of the articles"):
        list(read_corpus("evidence-inference", tmp_path, ReadReport()))
    (tmp_path / "txt_files.tar.gz").write_bytes(whole)
    path = tmp_path / "v2_annotations.csv"
    path.write_text(path.read_text().replace("Label Code", "Code"))
    with pytest.raises(BadData, match="column Label Code is missing"):
        list(read_corpus("evidence-inference", tmp_path, ReadReport()))


def test_evidence_inference_has_what_is_known_of_it():
    report = ReadReport()
    examples = list(read_corpus("evidence-inference", distributed("evidence-inference"), report))
    assert len(examples) / 2 + sum(report.skipped.values()) == 2_444
    assert sum(e.split == "test" for e in examples) / 2 >= 600
    assert separate(examples)[1] == 0
    assert max(len(e.context) for e in examples) < 3_000


# ---- causal language -------------------------------------------------------------------------------------------------


def test_a_sentence_is_used_once_and_not_at_all_with_two_labels(tmp_path):
    rows = [("Hay causes  joy.", "1"), ("Hay may cause joy.", "2"), ("Hay causes joy", "1"), ("Rain, as is.", "0")]
    causal_format.write_rows(tmp_path, [*rows, ("Straw and joy.", "3"), ("Straw and joy.", "0"), ("Rain, as is.", "0")])
    report = ReadReport()
    examples = list(read_corpus("pubmed-causal-language", tmp_path, report))
    assert [(e.id.rpartition("/")[2], e.context, e.answer) for e in examples] == [
        ("2", "Hay causes joy.", "direct causation"),
        ("3", "Hay may cause joy.", "conditional causation"),
        ("5", "Rain, as is.", "no causation"),
    ]
    assert report.skipped == {"a sentence with contradicting labels": 2, "a repeated sentence": 2}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((SECRET, "4"), r"pubmed_causal_language_use\.csv, line 2: the field 'label' must be one of 0, 1, 2, 3"),
        ((" ", "1"), "line 2: field 'sentence' is missing"),
        ((SECRET, "1", "0"), "line 2: 2 cells are expected, found 3"),
    ],
)
def test_a_sentence_that_does_not_fit_is_refused(tmp_path, row, message):
    causal_format.write_rows(tmp_path, [row, ("Hay causes joy.", "1")])
    refused(partial(read_corpus, "pubmed-causal-language"), tmp_path, message)


def test_a_file_of_sentences_without_labels_is_refused(tmp_path):
    (tmp_path / causal_format.NAME).write_text("sentence\nHay.\n")
    with pytest.raises(BadData, match="column label is missing"):
        list(read_corpus("pubmed-causal-language", tmp_path, ReadReport()))


def test_causal_language_has_what_is_known_of_it():
    report = ReadReport()
    examples = list(read_corpus("pubmed-causal-language", distributed("pubmed-causal-language"), report))
    assert len(examples) + sum(report.skipped.values()) == 3_061
    assert sum(e.split == "test" for e in examples) >= 600
    assert separate(examples)[1] == 0
