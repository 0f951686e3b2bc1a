"""Diabetes 130-US hospitals: the counts of its README, three tasks of a row, and what no text may say."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from corpora import read_corpus
from distributed import distributed
from formats import uci_diabetes as fixture
from formats.uci_diabetes import encounter

from staf.data.example import Example
from staf.data.read_report import ReadReport
from staf.data.readers.shapes import says
from staf.errors import BadData


def made(folder: Path, rows: list[dict[str, str]], report: ReadReport | None = None) -> dict[str, Example]:
    fixture.write_encounters(folder, rows)
    examples = read_corpus("uci-diabetes-130", folder, report or ReadReport())
    return {e.id.removeprefix("uci-diabetes-130/"): e for e in examples}


@pytest.mark.slow
def test_the_archive_holds_what_its_readme_counts_and_no_text_says_its_answer() -> None:
    report = ReadReport()
    kinds, returned, groups = Counter[str](), Counter[str](), set[str]()
    for example in read_corpus("uci-diabetes-130", distributed("uci-diabetes-130"), report):
        kinds[example.task_type] += 1
        groups.add(example.group)
        if example.task_type == "readmission":
            returned[example.answer] += 1
            continue
        for label in example.answer.split("; "):
            code, _, title = label.partition(" ")
            assert not says(example.context, label)
            assert example.task_type != "icd_coding" or not says(example.context, code)
            assert example.task_type != "icd_coding" or not title or not says(example.context, title)
    assert kinds == {"icd_coding": 101_765, "medication_recommendation": 101_766, "readmission": 101_766 - 2_423}
    assert returned == {"no": 88_029, "yes": 11_314}
    assert len(groups) == 71_518


def test_the_three_tasks_of_an_encounter(tmp_path: Path) -> None:
    cells = {"glyburide-metformin": "Steady", "insulin": "Up", "weight": "[75-100)", "readmitted": "<30"}
    row = encounter(5, 9, diag_1="250.6", diag_2="38", diag_3="V99", **cells)
    found = made(tmp_path, [row])
    arrival = (
        "Patient: 70 to 80 years old; female; african american; 75 to 100 pounds. "
        "Admission: emergency; source: emergency room. Specialty of the admitting physician: internal medicine. "
        "Visits in the year before: 0 as an outpatient; 1 in an emergency room; 2 as an inpatient."
    )
    stay = (
        "Stay: 3 days; 41 laboratory tests; 0 other procedures; 9 medications; 9 diagnoses. "
        "Laboratory: glucose not measured; hemoglobin A1c over 8 percent. "
        "Diabetes drugs: glyburide-metformin steady; insulin up; unchanged."
    )
    ailments = "Diagnoses: Diabetes with neurological manifestations; Septicemia; code V99."
    assert found["medication_recommendation/5"].context == arrival
    assert found["medication_recommendation/5"].answer == "glyburide-metformin; insulin"
    assert found["icd_coding/5"].context == f"{arrival} {stay} Discharge: discharged to home."
    assert found["icd_coding/5"].answer == "250.6 Diabetes with neurological manifestations; 038 Septicemia; V99"
    assert found["readmission/5"].context == f"{arrival} {stay} {ailments} Discharge: discharged to home."
    assert (found["readmission/5"].answer, found["readmission/5"].labels) == ("yes", ("yes", "no"))


def test_later_returns_and_none_are_no_and_the_dead_are_left_out(tmp_path: Path) -> None:
    report = ReadReport()
    rows = [
        encounter(1, 1, readmitted=">30"), encounter(2, 1, readmitted="NO"), encounter(3, 2, discharge_disposition_id="11"),
        encounter(4, 3, discharge_disposition_id="13"),
    ]  # fmt: skip
    examples = made(tmp_path, rows, report)
    assert {k: e.answer for k, e in examples.items() if e.task_type == "readmission"} == {
        "readmission/1": "no",
        "readmission/2": "no",
    }
    assert report.skipped["readmission: the encounter ends in death or hospice"] == 2
    assert examples["readmission/1"].group == examples["icd_coding/2"].group


def test_no_drug_is_none_and_no_diagnosis_is_left_out(tmp_path: Path) -> None:
    report = ReadReport()
    examples = made(tmp_path, [encounter(1, 1, diag_1="?", diag_2="?"), encounter(2, 1, diag_2="428")], report)
    assert examples["medication_recommendation/1"].answer == "none"
    assert "icd_coding/1" not in examples
    assert report.skipped["icd_coding: an encounter without a diagnosis"] == 1
    assert examples["icd_coding/2"].answer == "428 Heart failure"  # once


def test_a_count_that_reads_as_the_code_is_left_out(tmp_path: Path) -> None:
    example = made(tmp_path, [encounter(1, 1, diag_1="112", num_lab_procedures="112")])["icd_coding/1"]
    assert "Stay: 3 days; 0 other procedures;" in example.context


@pytest.mark.parametrize(
    ("cells", "problem"),
    [
        ({"readmitted": "secret"}, "line 3: column 'readmitted' is not one of <30, >30, NO"),
        ({"insulin": "secret"}, "line 3: column 'insulin' is not one of No, Steady, Up, Down"),
        ({"patient_nbr": ""}, "line 3: column 'patient_nbr' is not an integer"),
        ({"race": "secret,secret"}, "line 3: 50 cells are expected, found 51"),
        ({"race": "\0secret"}, "line 3: holds a NUL byte"),
    ],
)
def test_a_bad_row_is_named_or_kept_aside(tmp_path: Path, cells: dict[str, str], problem: str) -> None:
    rows = [encounter(1, 1), encounter(2, 2) | cells, encounter(3, 3)]
    with pytest.raises(BadData) as caught:
        made(tmp_path, rows)
    assert f"dataset_diabetes.zip, dataset_diabetes/diabetic_data.csv, {problem}" in str(caught.value)
    assert "secret" not in str(caught.value)
    report = ReadReport(skip_rejected=True)
    assert {key.partition("/")[2] for key in made(tmp_path, rows, report)} == {"1", "3"}
    assert len(report.rejected) == 1


def test_a_missing_column_and_a_broken_mapping_are_refused(tmp_path: Path) -> None:
    columns = [name for name in fixture.COLUMNS if name != "A1Cresult"]
    fixture.write_encounters(tmp_path, [encounter(1, 1)], columns)
    with pytest.raises(BadData, match="column a1cresult is missing"):
        list(read_corpus("uci-diabetes-130", tmp_path, ReadReport()))
    content = (",".join(fixture.COLUMNS) + "\n").encode()
    fixture.write_archive(tmp_path, content, mapping="admission_type_id,description\n1,Emergency\n")
    with pytest.raises(BadData, match="a table for admission_type_id"):
        list(read_corpus("uci-diabetes-130", tmp_path, ReadReport()))
    fixture.write_archive(tmp_path, content, mapping="a,b,c\n")
    with pytest.raises(BadData, match="line 1: 2 cells are expected, found 3"):
        list(read_corpus("uci-diabetes-130", tmp_path, ReadReport()))
