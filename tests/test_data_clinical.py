"""MIMIC-III, its demo, and the engine under them: who is in a cohort, what the answer is, what no text may say."""

from __future__ import annotations

import gzip
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from corpora import corpus_files, read_corpus
from distributed import distributed
from formats import mimic as fixture
from formats.mimic import Note, Stay

from staf.data import tables as engine
from staf.data.example import Example, dedup_key
from staf.data.read_report import ReadReport
from staf.data.readers.shapes import says
from staf.data.readers.stays import LONGEST, compose, on_admission
from staf.data.tables import tables
from staf.errors import BadData, MissingData


def made(folder: Path, stays: list[Stay], report: ReadReport | None = None) -> dict[str, Example]:
    """The examples of some stays, by id without the data set's name."""
    fixture.write_full(folder, stays)
    return {e.id.removeprefix("mimic-iii/"): e for e in read_corpus("mimic-iii", folder, report or ReadReport())}


def at(day: str, hour: int = 10) -> str:
    return f"2150-{day} {hour:02}:00:00"


def stay(patient: int, hadm: int, first: str, last: str, **more: str) -> Stay:
    return Stay(patient, hadm, at(first), at(last, 15), **more)


# Facts of the real demo.


def test_the_demo_holds_what_its_readme_counts() -> None:
    report = ReadReport()
    examples = list(read_corpus("mimic-iii-demo", distributed("mimic-iii-demo"), report))
    assert Counter(e.task_type for e in examples) == {"icd_coding": 129, "medication_recommendation": 122, "readmission": 88}
    assert Counter(e.answer for e in examples if e.task_type == "readmission") == {"no": 77, "yes": 11}
    assert report.skipped["readmission: died in hospital"] == 40
    assert len({e.group for e in examples}) == 100


def test_no_composed_text_of_the_demo_says_its_answer() -> None:
    for example in read_corpus("mimic-iii-demo", distributed("mimic-iii-demo"), ReadReport()):
        for label in example.answer.split("; ") if example.output_type == "multi_label" else ():
            assert not says(example.context, label)
            if example.task_type == "icd_coding":
                code, _, title = label.partition(" ")
                assert not says(example.context, code)
                assert not (title and says(example.context, title))


# Readmission, worked by hand.


def test_who_is_readmitted(tmp_path: Path) -> None:
    hospital, home = "TRANSFER FROM HOSP/EXTRAM", "HOME"
    stays = [
        stay(1, 11, "01-01", "01-10"), stay(1, 12, "02-09", "02-11"),  # back on day 30, at an hour earlier than the discharge
        stay(2, 21, "01-01", "01-10"), stay(2, 22, "02-10", "02-11"),  # day 31
        stay(3, 31, "01-01", "01-10"), stay(3, 32, "01-15", "01-20", left_for="DEAD/EXPIRED"),
        stay(4, 41, "01-01", "01-10", type="NEWBORN"),
        stay(5, 51, "01-01", "01-10"), stay(5, 52, "01-20", "01-22", type="ELECTIVE"),  # planned, counted all the same
        stay(6, 61, "03-01", "03-05"), Stay(6, 62, at("03-05", 18), at("03-09"), origin=hospital),  # one episode
        stay(6, 63, "03-21", "03-25"),
        stay(7, 71, "01-01", "01-10"), Stay(7, 72, at("01-10", 20), at("01-12")),  # back on the same day, not by transfer
        stay(8, 81, "01-01", "01-10", left_for="SHORT TERM HOSPITAL"), stay(8, 82, "06-01", "06-02", left_for="HOSPICE-HOME"),
        stay(9, 91, "01-01", "01-10", left_for=home),
        stay(10, 101, "01-01", "01-05"), stay(10, 102, "01-10", "01-11"), stay(10, 103, "01-31", "02-02"),
        stay(11, 111, "01-01", "01-10"), stay(11, 112, "01-25", "01-26", origin=hospital),  # a transfer, but on a later day
    ]  # fmt: skip
    report = ReadReport()
    answers = {k: e.answer for k, e in made(tmp_path, stays, report).items() if e.task_type == "readmission"}
    assert answers == {
        f"readmission/{hadm}": answer
        for hadm, answer in {
            11: "yes", 12: "no", 21: "no", 22: "no", 31: "yes", 51: "yes", 52: "no", 62: "yes", 63: "no", 71: "yes", 72: "no",
            91: "no", 101: "yes", 102: "yes", 103: "no", 111: "yes", 112: "no",
        }.items()
    }  # fmt: skip
    assert {reason: n for reason, n in report.skipped.items() if n and reason.startswith("readmission")} == {
        "readmission: died in hospital": 1,
        "readmission: a newborn": 1,
        "readmission: discharged to another acute hospital": 1,
        "readmission: discharged to a hospice": 1,
        "readmission: continued by transfer on the day of discharge": 1,
    }
    assert len(stays) == len(answers) + 5  # every stay once
    unplanned = {e.id: e.answer for e in read_corpus("mimic-iii", tmp_path, ReadReport(), exclude_planned=True)}
    changed = {k for k, answer in answers.items() if unplanned[f"mimic-iii/{k}"] != answer}
    assert (changed, unplanned["mimic-iii/readmission/51"]) == ({"readmission/51"}, "no")


def test_readmission_reads_the_episode_up_to_the_day_of_discharge(tmp_path: Path) -> None:
    late = Note("Addendum:\nIt came back.", "2150-03-10", "Addendum")
    first = replace(stay(6, 61, "03-01", "03-05"), notes=[Note("First half.", "2150-03-05")])
    second = Stay(6, 62, at("03-05", 18), at("03-09"), origin="TRANSFER FROM OTHER HEALT", notes=[
        late, Note("Second half.", "2150-03-09"), Note("Added at once.", "2150-03-09", "Addendum"),
        Note("A nurse was here.", "2150-03-08", category="Nursing"), Note("Never mind.", "2150-03-09", iserror="1"),
    ])  # fmt: skip
    examples = made(tmp_path, [first, second])
    assert examples["readmission/62"].context == "First half. Second half. Added at once."
    assert examples["icd_coding/62"].context == "Second half. Added at once. Addendum: It came back."
    assert "readmission/61" not in examples
    assert examples["icd_coding/61"].context == "First half."


# ICD coding.


def test_codes_are_text_once_each_in_order_with_their_titles(tmp_path: Path) -> None:
    example = made(tmp_path, [replace(stay(1, 11, "01-01", "01-10"), codes=["V053", "0389", "V053", "E8889", "2765"])])[
        "icd_coding/11"
    ]
    assert example.answer == "V053 Need for beak care; 0389 Grey tail fever; E8889 Fall from a low branch, unspecified; 2765"
    assert (example.output_type, example.labels) == ("multi_label", ())


def test_a_row_without_a_code_is_left_out(tmp_path: Path) -> None:
    report = ReadReport()
    examples = made(
        tmp_path,
        [replace(stay(1, 11, "01-01", "01-10"), codes=["", "0389"]), replace(stay(2, 21, "01-01", "01-10"), codes=[""])],
        report,
    )
    assert examples["icd_coding/11"].answer == "0389 Grey tail fever"
    assert "icd_coding/21" not in examples
    assert report.skipped["a diagnosis row without a code"] == 2
    assert report.skipped["icd_coding: a stay without a diagnosis code"] == 1


@pytest.mark.parametrize("codes", [["389", "4019", "V053", "538", "41", "70"], ["38", "70", "41", "8"]])
def test_codes_that_were_read_as_numbers_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codes: list[str]) -> None:
    titles = dict.fromkeys(("0389", "0538", "0041", "07070", "4019", "V053"), "Some ailment")
    monkeypatch.setattr(fixture, "TITLES", titles)
    with pytest.raises(BadData, match="codes were read as numbers: leading zeros are lost in 4 of"):
        made(tmp_path, [replace(stay(1, 11, "01-01", "01-10"), codes=codes)])


def test_a_long_text_keeps_both_ends(tmp_path: Path) -> None:
    notes = [Note("Begun. " + "oats and hay " * 4_000 + "Ended well.", "2150-01-10")]
    text = made(tmp_path, [replace(stay(1, 11, "01-01", "01-10"), notes=notes)])["icd_coding/11"].context
    assert LONGEST - 10 <= len(text) <= LONGEST
    assert (text[:6], text[-11:], text.count(" ... ")) == ("Begun.", "Ended well.", 1)


# Medication recommendation.


def test_drugs_have_one_name_each(tmp_path: Path) -> None:
    drugs = [
        "Heparin Sodium", "Heparin Flush (10 units/ml)", "Docusate Sodium (Liquid)", "PredniSONE",
        "Potassium Chloride (Powder)",
        "Lidocaine 5% Patch", "Dorzolamide 2%/Timolol 0.5% Ophth.", "Fluticasone Propionate 110mcg", "*NF* Ertapenem Sodium",
        "Sodium Chloride 0.9%  Flush", "BASE|D5W", "MAIN|NS", "Dextrose 50%", "Penicillin G Potassium", "Potassium Phosphate",
        "Morphine SR (MS Contin)", "Albumin 25% (12.5g / 50mL)", "Piperacillin-Tazobactam Na", "Sulfameth/Trimethoprim DS",
        "Insulin Human Regular", "ADDITIVE|Thiamine", "Hydrocortisone Na Succ.",
    ]  # fmt: skip
    example = made(tmp_path, [replace(stay(1, 11, "01-01", "01-10"), drugs=drugs)])["medication_recommendation/11"]
    assert example.answer.split("; ") == [
        "albumin", "dextrose", "docusate", "dorzolamide timolol", "ertapenem", "fluticasone", "heparin", "hydrocortisone",
        "insulin", "lidocaine", "morphine", "penicillin g", "piperacillin-tazobactam", "potassium chloride",
        "potassium phosphate", "prednisone", "sulfamethoxazole-trimethoprim",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("D5W", None), ("D5 1/2NS", None), ("d10w", None), ("D5NS", None), ("1/2 NS", None), ("5% Dextrose", None),
        ("Dextrose 5% 250ml", None), ("Dextrose 5%", None), ("0.9% Sodium Chloride", None), ("D5W (EXCEL BAG)", None),
        ("Dextrose 50%", "dextrose"), ("Dextrose 50 % 50ml syringe", "dextrose"),
        ("Vitamin B-12", "vitamin b12"), ("Vitamin B12 1000mcg", "vitamin b12"), ("Vitamin B 1", "vitamin b1"),
        ("Vitamin B1 100mg", "vitamin b1"), ("Vitamin D 400 UNIT", "vitamin d"), ("Vitamin B Complex", "vitamin b complex"),
    ],
)  # fmt: skip
def test_carriers_are_no_drugs_and_vitamins_keep_their_numbers(tmp_path: Path, written: str, name: str | None) -> None:
    examples = made(tmp_path, [replace(stay(1, 11, "01-01", "01-10"), drugs=["Aspirin EC", f"MAIN|{written}"])])
    drugs = examples["medication_recommendation/11"].answer.split("; ")
    assert set(drugs) - {"aspirin"} == ({name} if name else set())


def test_only_the_state_on_arrival_is_in_the_context(tmp_path: Path) -> None:
    report = ReadReport()
    stays = [
        stay(1, 11, "01-01", "01-10"),
        replace(stay(2, 21, "01-01", "01-10"), notes=[Note("No heading here.", "2150-01-10")]),
        replace(stay(3, 31, "01-01", "01-10"), drugs=["BASE|D5W"]),
    ]
    examples = made(tmp_path, stays, report)
    assert examples["medication_recommendation/11"].context == (
        "Allergies: Hay Chief Complaint: limp 11 History of Present Illness: "
        'The beast said "limp 11" and lay down. On the way: it slept. Physical Exam: VS: calm'
    )
    assert [k for k in examples if k.startswith("medication")] == ["medication_recommendation/11"]
    assert report.skipped["medication_recommendation: no section on the state on arrival"] == 1
    assert report.skipped["medication_recommendation: a stay without a drug"] == 1


def test_headings_of_older_notes_are_known() -> None:
    note = (
        "DISCHARGE DIAGNOSES:  Lame.\nHISTORY OF THE PRESENT ILLNESS:  It fell.\nADMISSION MEDICATIONS: Oats.\n"
        "PHYSICAL EXAMINATION ON ADMISSION: Calm.\nPHYSICAL EXAM AT DISCHARGE: Gone.\nSOCIAL HISTORY: Herd.\n"
        "SUMMARY OF HOSPITAL COURSE BY SYSTEM: Oats.\nPMH: late."
    )
    assert on_admission(note) == (
        "HISTORY OF THE PRESENT ILLNESS: It fell. PHYSICAL EXAMINATION ON ADMISSION: Calm. SOCIAL HISTORY: Herd."
    )
    assert on_admission("") == ""


# Text composed of tables.


def test_composed_text_leaves_out_what_would_say_the_answer() -> None:
    mentions = [("Signs", "red hoof"), ("Signs", "sore"), ("Signs", "throat"), ("Drugs", "oats"), ("Drugs", "hay")]
    assert compose(mentions) == ("Signs: red hoof; sore; throat. Drugs: oats; hay.", 0)
    assert compose(mentions, ["Sore throat", "OATS", ""]) == ("Signs: red hoof; sore. Drugs: hay.", 2)


def test_what_the_demo_tells_for_each_task(tmp_path: Path) -> None:
    stays = [
        replace(stay(7, 71, "01-01", "01-05"), codes=["42731"], drugs=["Oats"]),
        replace(stay(7, 72, "01-20", "01-23"), codes=["0389"], drugs=["Fluttering"]),
    ]
    fixture.write_demo(tmp_path, stays, laboratory=True)
    contexts = {e.id.removeprefix("mimic-iii-demo/"): e.context for e in read_corpus("mimic-iii-demo", tmp_path, ReadReport())}
    arrival = "Patient: over 89 years old; male. Admission: emergency; emergency room admit."
    before = "Earlier stays: 1 in all, the last one ended 15 days before."
    during = (
        "Service: general medical. Intensive care: medical intensive care unit for 1.3 days. Procedures: brushing of the mane."
    )
    assert contexts["icd_coding/72"] == (
        f"{arrival} {before} {during} Abnormal laboratory values: oats in blood. Medications: fluttering. "
        "Discharge: after 3 days; home."
    )  # the swab named the ailment
    assert contexts["medication_recommendation/72"] == f"{arrival} {before} Service: general medical."  # so did two mentions
    assert contexts["readmission/72"] == (
        f"{arrival} Reason for admission: lame;fluttering hoof. {before} Diagnoses of earlier stays: fluttering hoof. {during} "
        "Microbiology: hoof swab: grey tail fever. Abnormal laboratory values: oats in blood. Medications: fluttering. "
        "Diagnoses: grey tail fever. Discharge: after 3 days; home."
    )


def test_a_patient_is_one_in_both(tmp_path: Path) -> None:
    stays = fixture.many()
    full = list(read_corpus("mimic-iii", fixture.write_full(tmp_path / "full", stays), ReadReport()))
    demo = list(read_corpus("mimic-iii-demo", fixture.write_demo(tmp_path / "demo", stays), ReadReport()))
    for examples in (full, demo):
        assert all(e.group == e.dedup_keys[0] for e in examples)
        assert {e.split for e in examples} == {"train", "adaptation", "test"}
    patients = {e.group for e in full}
    assert {e.group for e in demo} == patients
    assert dedup_key("mimic-iii patient 1") in patients
    assert len(full[0].dedup_keys) == 10  # the patient, the text, eight bands of it
    assert [e.id for e in full] == [e.id for e in read_corpus("mimic-iii", tmp_path / "full", ReadReport())]


# Files that are not as they should be.


def rewritten(folder: Path, name: str, old: bytes, new: bytes) -> Path:
    """A folder of some stays, one table changed and not packed."""
    fixture.write_full(folder, fixture.many(3))
    packed = folder / f"{name}.csv.gz"
    content = gzip.decompress(packed.read_bytes())
    assert old in content
    packed.unlink()
    (folder / f"{name}.csv").write_bytes(content.replace(old, new, 1))
    return folder


BAD = [
    ("NOTEEVENTS", b"limp 1000", b"limp \xff secret", "line 2: not UTF-8 text"),
    ("NOTEEVENTS", b"limp 3000", b"\0 secret", "line 33: holds a NUL byte"),
    ("NOTEEVENTS", b"Oats daily.", b'Oats "secret" daily.', "line 2: not a row of this format"),
    ("PRESCRIPTIONS", b"MAIN", b'secret","MAIN', "line 2: 19 cells are expected, found 20"),
    ("PRESCRIPTIONS", b"MAIN", b"secret", "line 2: column 'drug_type' is not one of MAIN, BASE, ADDITIVE"),
    ("D_ICD_DIAGNOSES", b'"High man"', b'"secret","High man"', "line 3: 4 cells are expected, found 5"),
    ("DIAGNOSES_ICD", b'\n2,1,1000,2,"4019"', b"\n2,1,secret", "line 3: 5 cells are expected, found 3"),
    ("ADMISSIONS", b"2150-01-05 12:00:00", b"secret", "line 2: column 'dischtime' is not a date and time"),
    ("ADMISSIONS", b",3000,", b",,", "line 3: column 'hadm_id' is not an integer"),
    ("PRESCRIPTIONS", b'"Heparin Sodium"', b"", "line 2: column 'drug' is empty"),
]


@pytest.mark.parametrize(("name", "old", "new", "problem"), BAD)
def test_a_bad_row_is_named_by_file_and_line(tmp_path: Path, name: str, old: bytes, new: bytes, problem: str) -> None:
    folder = rewritten(tmp_path, name, old, new)
    with pytest.raises(BadData) as caught:
        list(read_corpus("mimic-iii", folder, ReadReport()))
    assert str(caught.value).startswith(f"{folder / name}.csv, {problem}")
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(("name", "old", "new", "problem"), BAD)
def test_a_bad_row_is_kept_aside_where_that_is_wanted(tmp_path: Path, name: str, old: bytes, new: bytes, problem: str) -> None:
    report = ReadReport(skip_rejected=True)
    examples = list(read_corpus("mimic-iii", rewritten(tmp_path, name, old, new), report))
    assert problem in report.rejected[0].problem
    assert len(report.rejected) == 1
    assert "secret" in report.rejected[0].content or b"secret" not in new
    assert examples


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda content: content[:-40], "is damaged or cut short"),
        (lambda content: content[:200] + bytes(40) + content[240:], "is damaged or cut short"),
        (lambda content: content + gzip.compress(b"\n" * (90 << 20)), "unpacks to more than 200 times its size"),
        (lambda content: gzip.compress(gzip.decompress(content).replace(b'"TEXT"', b'"WORDS"')), "column text is missing"),
        (lambda content: gzip.compress(gzip.decompress(content).replace(b"CGID", b"TEXT")), "column text occurs twice"),
        (lambda content: b"", "column row_id, hadm_id"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_refused(tmp_path: Path, damage: object, problem: str) -> None:
    notes = fixture.write_full(tmp_path, fixture.many(3)) / "NOTEEVENTS.csv.gz"
    notes.write_bytes(damage(notes.read_bytes()))  # type: ignore[operator]
    with pytest.raises(BadData, match=problem):
        list(read_corpus("mimic-iii", tmp_path, ReadReport()))


def test_all_tables_are_needed_but_laboratory_values(tmp_path: Path) -> None:
    fixture.write_demo(tmp_path, fixture.many(3))
    assert len(corpus_files("mimic-iii-demo", tmp_path)) == 10
    (tmp_path / "SERVICES.csv").unlink()
    with pytest.raises(MissingData, match=r"SERVICES\.csv"):
        corpus_files("mimic-iii-demo", tmp_path)


def test_the_tables_are_found_where_the_download_tool_leaves_them(tmp_path: Path) -> None:
    below = tmp_path / "physionet.org" / "files" / "mimiciii [1.4]"
    fixture.write_full(below, fixture.many(3))
    assert {path.parent for path in corpus_files("mimic-iii", tmp_path)} == {below}
    assert list(read_corpus("mimic-iii", tmp_path, ReadReport()))


# The engine.


def test_rows_of_quoted_lines_come_back_whole(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes('\ufeff"A",B\r\n1,"one\ntwo ""three"""\r\n2,\r\n'.encode())
    with tables(ReadReport()) as database:
        database.load("t", path, ("b", "a"))
        assert list(database.rows("FROM t ORDER BY a")) == [{"b": 'one\ntwo "three"', "a": "1"}, {"b": None, "a": "2"}]


def test_line_numbers_are_right_far_into_a_file(tmp_path: Path) -> None:
    path = tmp_path / "t.csv.gz"
    row = b'1,"a\nb\n' + b"c" * 900 + b'"\n'
    path.write_bytes(gzip.compress(b"A,B\n" + row * 40_000 + b"secret\n" + row * 9 + b"secret,x,y\n", 1))
    report = ReadReport(skip_rejected=True)
    with tables(report) as database:
        database.load("t", path, ("a", "b"))
        assert database.number("SELECT count(*) FROM t") == 40_009
    assert [row.problem.partition(", ")[2] for row in report.rejected] == [
        "line 120002: 2 cells are expected, found 1.",
        "line 120030: 2 cells are expected, found 3.",
    ]


def test_nothing_is_left_on_disk(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"A\n1,2\n")
    before = set(engine.cache_folder().glob("*"))
    with tables(ReadReport()) as database:
        assert set(engine.cache_folder().glob("*")) > before
        with pytest.raises(BadData, match="1 cells are expected, found 2"):
            database.load("t", tmp_path / "t.csv", ("a",))
    assert set(engine.cache_folder().glob("*")) == before
