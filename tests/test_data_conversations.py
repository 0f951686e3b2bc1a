"""Conversations: ChatDoctor, MTS-Dialog, ACI-BENCH; on texts that we wrote, then on the distributed files."""

from __future__ import annotations

import csv
import json
from collections import Counter

import pytest
from corpora import separate
from distributed import distributed
from formats import aci_bench as visits
from formats import chatdoctor as beasts
from formats import mts_dialog as talks

from staf.data.card import builtin_cards
from staf.data.read_report import ReadReport
from staf.data.readers.chatdoctor import literal_list
from staf.data.readers.summaries import DOCTOR, SECTIONS, SHORTEST_TURN, Turn, last_words
from staf.errors import BadData, MissingData

SECRET = "zebrafever"
"""In every record that is made bad; never in a message."""


def read(name, folder, report=None):
    return list(builtin_cards()[name].read(folder, report or ReadReport()))


def by_id(examples):
    return {example.id: example for example in examples}


def refused(name, folder, *parts):
    """The reading stops with a message that has these parts, and skips the one bad row where that is wanted."""
    with pytest.raises(BadData) as error:
        read(name, folder)
    assert all(part in str(error.value) for part in parts), error.value
    assert SECRET not in str(error.value)
    lenient = ReadReport(skip_rejected=True)
    read(name, folder, lenient)
    assert [row.problem for row in lenient.rejected] == [str(error.value)]
    assert SECRET in lenient.rejected[0].content


def change(path, row, column, value, beside):
    """Put a value into a row (from 1) of a CSV file, and the secret into the column `beside`."""
    with path.open(encoding="utf-8", newline="") as stream:
        table = list(csv.reader(stream))
    table[row][table[0].index(beside)] += f" {SECRET}"
    table[row][table[0].index(column)] = value
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(table)


# ---- ChatDoctor ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["chatdoctor", "healthcaremagic"])
def test_a_dialogue_is_a_patient_and_a_reply(own, name):
    example = by_id(read(name, own / name))[f"{name}/dialogue/1"]
    assert example.task_type == "medical_conversation"
    assert example.context == "Keeper, my griffin has shown mange for 0 days."
    assert example.answer == "Give the griffin 1 spoons of dew each morning."
    assert (example.output_type, example.labels) == ("generate_until", ())


def test_repeated_inputs_are_counted_and_share_a_split(own):
    report = ReadReport()
    examples = by_id(read("chatdoctor", own / "chatdoctor", report))
    second, third = examples["chatdoctor/dialogue/2"], examples["chatdoctor/dialogue/3"]
    assert (second.group, second.split, second.dedup_keys) == (third.group, third.split, third.dedup_keys)
    assert second.answer != third.answer


def test_the_table_asks_for_disease_symptom_and_medication(own):
    examples = by_id(read("chatdoctor", own / "chatdoctor"))
    described = examples["chatdoctor/symptoms/7"]
    assert described.task_type == "entity_attribute"
    assert described.context == "Symptoms: Pale chimera tail, Hoarse mange roar, Loose scale 7, Dim eye 7"
    assert described.answer == "Chimera mange"
    listed = {"finding": {"Pale chimera tail", "Hoarse mange roar", "Loose scale 7", "Dim eye 7"}}
    listed["treatment"] = {"Dew of mange (Dewex)", "Powder 7", "Moonwater chimera"}
    for asked, own_names in listed.items():
        for number in (1, 2):
            related = examples[f"chatdoctor/{asked}/7/{number}"]
            assert (related.task_type, related.context) == ("entity_relation", "Chimera mange")
            assert own_names.intersection(related.labels) == {related.answer}
            assert len(related.labels) == 4


def test_wrong_answers_come_from_the_same_split(own):
    examples = read("chatdoctor", own / "chatdoctor")
    split = {e.answer: e.split for e in examples if e.task_type == "entity_attribute"}
    assert set(split.values()) == {"train", "adaptation", "test"}
    for example in examples:
        if example.task_type == "entity_attribute":
            assert {split[label] for label in example.labels} == {example.split}


def test_an_item_that_says_its_answer_is_left_out(own, tmp_path):
    beasts.write_chatdoctor(tmp_path)
    table = tmp_path / "format_dataset.csv"
    text = table.read_text(encoding="utf-8")
    table.write_text(text.replace("'Dim eye 7'", "'Signs of chimera mange'").replace("Griffin mange", "Loose scale 0"), "utf-8")
    report = ReadReport()
    examples = by_id(read("chatdoctor", tmp_path, report))
    assert not {"chatdoctor/symptoms/7", "chatdoctor/symptoms/0"} & examples.keys()
    assert "Loose scale 0" not in {examples[f"chatdoctor/finding/0/{n}"].answer for n in (1, 2)}
    assert report.skipped["the question says its answer"] == 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("['Itch', 'Loose  scale; dim eye']", ("Itch", "Loose scale, dim eye")),
        (" [] ", ()),
        ("", None),
        ("['Itch'", None),
        ("('Itch',)", None),
        ("['Itch', 3]", None),
        ("['Itch', ' ']", None),
        ("[__import__('os').getcwd()]", None),
        (r"['50\% dew']", None),
        ("[" * 5_000, None),
        ("-" * 19_000 + "1", None),
        ("['" + "a" * 20_000 + "']", None),
    ],
)
def test_a_list_literal_is_read_and_nothing_else(text, expected):
    assert literal_list(text) == expected


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"instruction": "", "input": SECRET}, "field 'output' is missing"),
        ({"instruction": "", "input": " ", "output": SECRET}, "field 'input' is missing, empty"),
        ({"instruction": "", "input": 3, "output": SECRET}, "field 'input' is missing, empty or not text"),
        ([SECRET], "a JSON object is expected, found list"),
    ],
)
def test_a_bad_dialogue_is_named_by_its_number(tmp_path, record, message):
    (tmp_path / "HealthCareMagic-100k.json").write_text(json.dumps([*beasts.dialogues(3), record]))
    refused("healthcaremagic", tmp_path, "HealthCareMagic-100k.json, record 4: ", message)


def test_a_damaged_file_of_dialogues_is_refused(tmp_path):
    path = tmp_path / "HealthCareMagic-100k.json"
    whole = json.dumps(beasts.dialogues(3))
    for text in (whole[:-20], whole[:-1], whole[:-1] + ",]", whole + SECRET, whole.replace("}, {", "} {")):
        path.write_text(text)
        with pytest.raises(BadData, match=r"record \d: not a valid JSON array") as error:
            read("healthcaremagic", tmp_path)
        assert SECRET not in str(error.value)
    path.write_text(json.dumps({"data": beasts.dialogues(3)}))
    with pytest.raises(BadData, match="record 1: not a valid JSON array"):
        read("healthcaremagic", tmp_path)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("disease", " ", "field 'disease' is missing, empty"),
        ("Symptom", "Itch, cough", "column Symptom holds no Python list of texts"),
        ("Symptom", "[]", "column Symptom holds no Python list of texts"),
        ("TestsAndProcedures", "[1]", "column TestsAndProcedures holds no"),
    ],
)
def test_a_bad_row_of_the_table_is_named_by_its_line(tmp_path, column, value, message):
    beasts.write_chatdoctor(tmp_path)
    change(tmp_path / "format_dataset.csv", 3, column, value, beside="reason")
    refused("chatdoctor", tmp_path, "format_dataset.csv, line 4: ", message)


# ---- MTS-Dialog ------------------------------------------------------------------------------------------------------


def test_a_section_comes_from_its_name_and_the_conversation(own):
    example = by_id(read("mts-dialog", own / "mts-dialog"))["mts-dialog/training/1/section"]
    assert example.task_type == "summarization"
    assert example.context.splitlines() == [
        "Section: family and social history",
        "Doctor: Which tooth of griffin 1 hurts?",
        "Patient: Green, fair side 1.",
        "Doctor: Does green griffin breath hurt near fair 1?",
        "Guest family: Roars, griffin 1, fair.",
    ]
    assert example.answer == "The green tooth hurts."


def test_a_turn_comes_from_what_was_said_before(own):
    example = by_id(read("mts-dialog", own / "mts-dialog"))["mts-dialog/test-2/0/turn/3"]
    assert (example.task_type, example.split) == ("medical_conversation", "test")
    assert example.context == "Doctor: Which tooth of phoenix 26 hurts?\nPatient: Blue, tavern side 26."
    assert example.answer == "Does blue phoenix breath hurt near tavern 26?"


def test_odd_speakers_are_read_as_what_they_mean(own):
    report = ReadReport()
    examples = by_id(read("mts-dialog", own / "mts-dialog", report))
    assert examples["mts-dialog/training/5/section"].context.splitlines()[1:] == [
        "Doctor 2: Good morning to the whole cave.",
        "Patient: Morning.",
        "Guest family: It limps.",
        "Doctor: Since when does the beast limp on that side? Ever since the fair?",
        "Guest family 2: Since May.",
        "Guest clinician: I saw it.",
        "Guest family: And I.",
    ]


def test_a_repeated_dialogue_keeps_its_summary_but_not_its_turns(own):
    report = ReadReport()
    examples = by_id(read("mts-dialog", own / "mts-dialog", report))
    assert "mts-dialog/training/7/section" in examples
    assert not any(name.startswith("mts-dialog/training/7/turn") for name in examples)
    kept, dropped = separate(list(examples.values()))
    assert dropped == 3  # the section and the turn of 6, the section of 7
    assert "mts-dialog/validation/3/section" in by_id(kept)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("section_header", "HOROSCOPE", "the section header is none of the 20"),
        ("section_header", "", "field 'section_header' is missing, empty"),
        ("section_text", " \n ", "field 'section_text' is missing, empty"),
        ("dialogue", f"{SECRET} and so on", "no line of the conversation begins with a speaker"),
        ("ID", "", "field 'ID' is missing, empty"),
    ],
)
def test_a_bad_pair_is_named_by_its_line(tmp_path, column, value, message):
    talks.write(tmp_path)
    change(tmp_path / "Main-Dataset" / "MTS-Dialog-ValidationSet.csv", 2, column, value, beside="dialogue")
    refused("mts-dialog", tmp_path, "MTS-Dialog-ValidationSet.csv, line 6: ", message)


def test_a_missing_column_and_a_file_cut_short_are_refused(tmp_path):
    talks.write(tmp_path)
    path = tmp_path / "Main-Dataset" / "MTS-Dialog-TestSet-2-MEDIQA-Sum-2023.csv"
    text = path.read_text(encoding="utf-8")
    path.write_text(text[:-20], encoding="utf-8")
    with pytest.raises(BadData, match="not a row of this format"):
        read("mts-dialog", tmp_path)
    path.write_text(text.replace("section_text", "summary", 1), encoding="utf-8")
    with pytest.raises(BadData, match="line 1: column section_text is missing"):
        read("mts-dialog", tmp_path)
    path.unlink()
    with pytest.raises(MissingData, match="TestSet-2"):
        read("mts-dialog", tmp_path)


# ---- ACI-BENCH -------------------------------------------------------------------------------------------------------


def test_a_note_comes_from_the_whole_visit(own):
    report = ReadReport()
    example = by_id(read("aci-bench", own / "aci-bench", report))["aci-bench/D2N001/note"]
    lines = example.context.splitlines()
    assert lines[:5] == [
        "Doctor: hi , how is unicorn number 1 doing today ?",
        "Patient: it will not eat its clover . it only looks at the moon .",
        "Doctor: okay . and since when has unicorn 1 looked at the moon ?",
        "Guest: since the third full moon .",
        "Doctor: night 1-0 : was lamp 1-0 left burning at gate 1-0 ?",
    ]
    assert len(lines) == 64
    assert example.answer == "CHIEF COMPLAINT\nMoon gazing.\nPLAN\nClover for unicorn 1."


def test_three_turns_are_asked_of_a_visit_with_what_was_said_shortly_before(own):
    examples = read("aci-bench", own / "aci-bench")
    visit = by_id(examples)["aci-bench/D2N001/note"].context.splitlines()
    turns = [e for e in examples if e.id.startswith("aci-bench/D2N001/turn/")]
    assert len(turns) == 3
    for example in turns:
        number = int(example.id.rpartition("/")[2])
        assert visit[number - 1] == f"Doctor: {example.answer}"
        assert "\n".join(visit[: number - 1]).endswith(example.context)
        assert 0 < len(example.context) <= 2_000
        assert example.context.splitlines()[-1].startswith(("Patient: ", "Guest: "))


def test_the_end_of_a_conversation_is_whole_turns_or_the_end_of_the_last():
    turns = [Turn("Doctor", "Where?"), Turn("Patient", "Here, I think."), Turn("", "Or there.")]
    assert last_words(turns, 100) == "Doctor: Where?\nPatient: Here, I think.\nOr there."
    assert last_words(turns, 33) == "Patient: Here, I think.\nOr there."
    assert last_words(turns, 32) == "Or there."
    assert last_words(turns[:2], 9) == "I think."


@pytest.mark.parametrize("column", ["encounter_id", "dialogue", "note"])
def test_a_bad_visit_is_named_by_its_line(tmp_path, column):
    visits.write(tmp_path)
    change(tmp_path / "challenge_data" / "valid.csv", 1, column, " \n", beside="dialogue" if column == "note" else "note")
    refused("aci-bench", tmp_path, "valid.csv, line 2: ", f"field '{column}' is missing, empty")


# ---- the distributed files -------------------------------------------------------------------------------------------


def test_chatdoctor_as_distributed():
    report = ReadReport()
    examples = read("chatdoctor", distributed("chatdoctor"), report)
    assert Counter(e.task_type for e in examples)["medical_conversation"] == 5_452
    _, dropped = separate(examples)
    assert dropped < 0.01 * len(examples)


def test_mts_dialog_as_distributed():
    report = ReadReport()
    examples = read("mts-dialog", distributed("mts-dialog"), report)
    assert len(SECTIONS) == 20
    assert Counter(e.split for e in examples if e.task_type == "summarization") == {
        "train": 1_201,
        "adaptation": 100,
        "test": 400,
    }
    check_turns(examples, most=2)
    _, dropped = separate(examples)
    assert dropped < 0.01 * len(examples)


def test_aci_bench_as_distributed():
    report = ReadReport()
    examples = read("aci-bench", distributed("aci-bench"), report)
    assert Counter(e.split for e in examples if e.task_type == "summarization") == {"train": 67, "adaptation": 20, "test": 120}
    check_turns(examples, most=3)
    assert separate(examples)[1] == 0


def check_turns(examples, most):
    turns = [e for e in examples if e.task_type == "medical_conversation"]
    assert max(Counter(e.id.rpartition("/turn/")[0] for e in turns).values()) == most
    for example in turns:
        assert len(example.answer.split()) >= SHORTEST_TURN
        assert len(example.context) <= 2_000
        assert not example.context.splitlines()[-1].startswith(f"{DOCTOR}: ")
