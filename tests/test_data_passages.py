"""Answers that stand in a text: COVID-QA, emrQA and CliCR."""

from __future__ import annotations

import json
from collections import Counter
from functools import partial

import pytest
from corpora import read_corpus, separate
from distributed import distributed
from formats import clicr as reports
from formats import covid_qa as articles
from formats import emrqa as charts

from staf.data.answers import check_answer
from staf.data.read_report import ReadReport
from staf.data.readers import passages
from staf.data.readers.shapes import WINDOW, spaced
from staf.errors import BadData


def refused(read, folder, message):
    """The reader stops with this message and no text of the record; with bad rows skipped it goes on."""
    with pytest.raises(BadData, match=message) as caught:
        list(read(folder, ReadReport()))
    assert "secret" not in str(caught.value)
    report = ReadReport(skip_rejected=True)
    left = list(read(folder, report))
    assert len(report.rejected) == 1
    return left


@pytest.mark.parametrize(
    ("text", "words"),
    [("two  red\n\nhoofs ", "red"), ("\n two red", "two"), ("two \n red", " red"), ("two red", "o r"), ("  two", "two")],
)
def test_a_place_is_found_again_in_the_single_spaced_text(text, words):
    start = text.index(words)
    after, (first, last) = spaced(text, start, start + len(words))
    assert after == " ".join(text.split())
    assert after[first:last] == words.strip()


# ---- COVID-QA --------------------------------------------------------------------------------------------------------


def test_a_question_stands_before_its_article_and_a_wrong_offset_is_mended(own):
    report = ReadReport()
    first, second, *rest = read_corpus("covid-qa", own / "covid-qa", report)
    assert first.context == "Which colour has the hoof? Beast 0 Its hoof is red 0. It sleeps by day 0."
    assert (first.id, first.answer, first.output_type, first.labels) == ("covid-qa/0", "red 0", "span", ())
    assert second.answer == "by day 0"
    assert first.group == second.group
    assert {e.split for e in (first, second, *rest)} == {"train", "adaptation", "test"}


def test_a_long_article_is_cut_around_its_answer(tmp_path):
    context = "far away " * 500 + "the red hoof " + "far away " * 500
    articles.write_articles(tmp_path, [(context, [articles.question(1, "What?", "red hoof", context.index("red"))])])
    (example,) = read_corpus("covid-qa", tmp_path, ReadReport())
    assert "the red hoof far" in example.context
    assert 1900 < len(example.context) <= WINDOW + len("What? ")


def test_a_question_without_an_answer_is_counted(tmp_path):
    question = articles.question(1, "What?", "x", 0) | {"answers": [], "is_impossible": True}
    articles.write_articles(tmp_path, [("red hoof", [question])])
    report = ReadReport()
    assert not list(read_corpus("covid-qa", tmp_path, report))
    assert report.skipped == {"the question has no answer in the article": 1}


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (articles.question(1, "What?", "secret", 99), "article 1, question 1: the answer does not stand within 5 characters"),
        (articles.question(1, "What?", " ", 0), "article 1, question 1: an answer needs 'text'"),
        (articles.question(1, "", "secret", 0), "article 1, question 1: field 'question' is missing, empty"),
        ({"question": "secret", "id": 1}, "article 1, question 1: field 'answers' is missing"),
        (articles.question("secret", "What?", "secret", 0), "article 1, question 1: field 'id' is missing"),
    ],
)
def test_a_bad_question_is_named_by_number(tmp_path, question, message):
    good = articles.question(2, "What?", "hoof", 7)
    articles.write_articles(tmp_path, [("secret hoof", [question, good])])
    assert [e.id for e in refused(partial(read_corpus, "covid-qa"), tmp_path, message)] == ["covid-qa/2"]


def test_an_article_without_text_is_refused_with_all_its_questions(tmp_path):
    question = articles.question(2, "What?", "hoof", 0)
    articles.write_articles(tmp_path, [("", [question]), ("hoof", [question])])
    assert len(refused(partial(read_corpus, "covid-qa"), tmp_path, "article 1: field 'context' is missing, empty")) == 1


def test_a_file_that_is_cut_short_is_refused(own, tmp_path):
    whole = (own / "covid-qa" / articles.FILE).read_bytes()
    (tmp_path / articles.FILE).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadData, match="not valid JSON"):
        list(read_corpus("covid-qa", tmp_path, ReadReport()))


# ---- emrQA -----------------------------------------------------------------------------------------------------------


def test_answers_are_words_of_the_evidence_or_the_evidence_itself(own):
    report = ReadReport()
    examples = {e.id: e for e in read_corpus("emrqa", own / "emrqa", report)}
    dose, given = examples["emrqa/medication/3/1"], examples["emrqa/medication/3/2"]
    text = "Note 2 Salve 2 mg on the tail for blue itch . Next day the same ."
    assert dose.context in (f"What is the dose 2? {text}", f"How much salve 2? {text}")
    assert (dose.answer, dose.output_type) == ("2 mg", "span")
    assert (given.context, given.answer) == (f"Has it had salve? {text}", "Salve 2 mg on the tail")
    assert examples["emrqa/risk-dataset/1/1"].answer == "itch"
    assert {e.split for e in examples.values()} == {"train", "adaptation", "test"}
    assert len({e.split for e in examples.values() if e.group == dose.group}) == 1
    assert +report.skipped == {
        "the answer is composed of several passages": 30,
        "the answer is a judgement of the note": 2,
    }


def one_note(folder, lines, questions, part="medication"):
    charts.write_parts(folder, {part: [{"note_id": "1", "context": lines, "qas": questions}]})
    report = ReadReport()
    return list(read_corpus("emrqa", folder, report)), report


@pytest.mark.parametrize(("line", "before"), [(1, 0), (3, 1), (5, 2)])
def test_evidence_that_stands_several_times_is_taken_at_its_line(line, before):
    lines = ["Salve 2 mg\n", "then dust\n"] * 3
    note = passages.read_note({"title": "medication", "context": lines})
    found = passages.find_answer(note, [charts.answer("2 MG", "Salve 2 mg\n", line)])
    assert found == (21 * before + 6, 21 * before + 10)


@pytest.mark.parametrize("before", [0, 1, 2])
def test_evidence_by_character_is_taken_at_its_line(before):
    note = passages.read_note({"title": "risk-dataset", "context": ["Salve  2 mg", "then dust"] * 3})
    assert passages.find_answer(note, [charts.answer("", "Salve  2 mg", 22 * before)]) == (21 * before, 21 * before + 10)


def test_the_first_answer_that_can_be_found_is_taken(tmp_path):
    answers = [charts.answer("x", "gone\n", 1), charts.answer("dust", "Salve\n", 1), charts.answer("Dust", "red dust\n", 2)]
    examples, _ = one_note(tmp_path, ["Salve\n", "red dust\n"], [charts.asked(["What?"], answers)])
    assert [e.answer for e in examples] == ["dust"]


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([], "the question has no answer"),
        ([charts.answer("x", "gone\n", 1)], "the evidence does not stand in the note"),
        ([charts.answer("sal", "Salve\n", 1)], "the answer does not stand in its evidence"),
        ([charts.judgement("yes")], "the answer is a judgement of the note"),
    ],
)
def test_a_question_whose_answer_is_not_in_the_note_is_counted(tmp_path, answers, reason):
    examples, report = one_note(tmp_path, ["Salve\n"], [charts.asked(["What?"], answers)])
    assert not examples
    assert +report.skipped == {reason: 1}


def test_eight_questions_of_a_note_are_kept_the_same_again(tmp_path):
    questions = [charts.asked([f"What {n}?"], [charts.answer("Salve", "Salve\n", 1)]) for n in range(20)]
    examples, report = one_note(tmp_path, ["Salve\n"], questions)
    assert len(examples) == 8
    assert report.skipped["beyond 8 questions of a note"] == 12
    assert one_note(tmp_path, ["Salve\n"], questions)[0] == examples


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({"question": "secret", "answers": []}, "medication note 1: question 1: field 'question' is missing, or not a list"),
        ({"question": ["secret"]}, "medication note 1: question 1: field 'answers' is missing"),
        ({"question": ["secret"], "answers": [{"text": "x"}]}, "question 1: 'text' or 'evidence' of an answer is missing"),
        (
            charts.asked(["secret"], [charts.answer("x", "x", 1, "odd")]),
            "question 1: an answer has an unknown 'answer_entity_type'",
        ),
        (charts.asked(["secret"], [charts.answer("x", "x", "1")]), "question 1: an answer has an unknown 'answer_entity_type'"),
    ],
)
def test_a_bad_question_of_a_note_is_named_by_part_and_numbers(tmp_path, question, message):
    good = {"note_id": "2", "context": ["hoof\n"], "qas": [charts.asked(["What?"], [charts.answer("hoof", "hoof\n", 1)])]}
    charts.write_parts(tmp_path, {"medication": [{"note_id": "1", "context": ["secret\n"], "qas": [question]}, good]})
    assert [e.id for e in refused(partial(read_corpus, "emrqa"), tmp_path, message)] == ["emrqa/medication/2/1"]


def test_a_note_without_text_and_a_part_that_is_unknown_are_refused(tmp_path):
    charts.write_parts(tmp_path, {"relations": [{"context": [" "], "qas": []}]})
    refused(partial(read_corpus, "emrqa"), tmp_path, "relations note 1: field 'context' is missing, empty")
    charts.write_parts(tmp_path, {"secret": []})
    with pytest.raises(BadData, match="a title is none of medication, relations"):
        list(read_corpus("emrqa", tmp_path, ReadReport()))


# ---- CliCR -----------------------------------------------------------------------------------------------------------


def test_a_statement_with_a_blank_stands_before_the_report_without_marks(own):
    report = ReadReport()
    examples = list(read_corpus("clicr", own / "clicr", report))
    first = examples[0]
    assert first.context == (
        "Salve heals beasts with ___ , file 0 . Red hoof 0 The hoof of beast 0 was red hoof rot . It healed ."
    )
    assert (first.id, first.answer, first.output_type) == ("clicr/bcr.0.red.1", "red hoof rot", "span")
    assert Counter(e.split for e in examples) == {"train": 8, "adaptation": 8, "test": 8}


def one_report(folder, context, answers, query="It was @placeholder ."):
    for file in reports.FILES:
        reports.write_reports(folder / file, [])
    reports.write_reports(folder / reports.FILES[0], [reports.report("bcr.1", "Hoofs", context, [(query, answers)])])
    report = ReadReport()
    return list(read_corpus("clicr", folder, report)), report


def test_a_synonym_answers_where_the_answer_itself_does_not_stand(tmp_path):
    answers = [reports.answer("hoof decay", "UMLS"), reports.answer("hoof"), reports.answer("Rot", "UMLS")]
    examples, _ = one_report(tmp_path, "There was ROT .", answers)
    assert [e.answer for e in examples] == ["ROT"]


def test_an_answer_that_stands_only_inside_a_word_is_no_answer(tmp_path):
    examples, report = one_report(tmp_path, "A hoofless beast .", [reports.answer("hoof")])
    assert not examples
    assert report.skipped == {"the report has no answer": 1}


@pytest.mark.parametrize(
    ("answers", "query", "message"),
    [
        ([reports.answer("rot")], "It was secret .", r"train1\.0\.json, report 1, query 1: the query has no @placeholder"),
        ([reports.answer("secret", "UMLS")], "@placeholder", "report 1, query 1: none of the answers has the origin"),
        ([reports.answer("")], "@placeholder secret", "report 1, query 1: field 'text' is missing, empty"),
    ],
)
def test_a_bad_query_is_named_by_numbers(tmp_path, answers, query, message):
    with pytest.raises(BadData, match=message) as caught:
        one_report(tmp_path, "secret rot .", answers, query)
    assert "secret" not in str(caught.value)


def test_a_report_without_text_is_refused_with_its_queries(tmp_path):
    good = reports.report("bcr.2", "Tails", "Tail rot .", [("@placeholder", [reports.answer("rot")])])
    for file in reports.FILES:
        reports.write_reports(tmp_path / file, [])
    for bad in ({"source": "bcr.1"}, reports.report("bcr.1", "secret", "", [])):
        reports.write_reports(tmp_path / reports.FILES[0], [bad, good])
        assert [
            e.answer
            for e in refused(partial(read_corpus, "clicr"), tmp_path, "report 1: field '(document|context)' is missing")
        ] == ["rot"]


# ---- the distributed file, where it is there -------------------------------------------------------------------------


def test_covid_qa_has_the_questions_and_the_wrong_offsets_that_are_known_of_it():
    report = ReadReport()
    folder = distributed("covid-qa")
    examples = list(read_corpus("covid-qa", folder, report))
    assert not report.skipped
    assert separate(examples)[1] == 0
    assert max(len(e.context) for e in examples) < WINDOW + 300
    texts = [p["context"] for d in json.loads((folder / articles.FILE).read_text())["data"] for p in d["paragraphs"]]
    assert (min(map(len, texts)), max(map(len, texts)), round(sum(map(len, texts)) / 98)) == (2_876, 67_322, 23_507)
    for example in examples:
        check_answer(example)
