"""Diabetes 130-US hospitals (Strack et al., 2014): 101,766 encounters without free text.

    dataset_diabetes.zip > dataset_diabetes/diabetic_data.csv   one encounter a row, 50 columns, '?' where a cell is missing
                           dataset_diabetes/IDs_mapping.csv     three tables, one after the other: meanings of the ids

    readmission                 all of the encounter       -> yes where the patient is back in less than 30 days ('<30')
    medication_recommendation   what is known on arrival   -> the diabetes drugs that are given (any state but 'No')
    icd_coding                  all but the diagnoses      -> diag_1 to diag_3, three-character categories of ICD-9-CM

The rules are in `staf/data/sql/uci_*.sql`. Encounters that end in death or hospice are left out of readmission. Split by
patient.
"""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path

from staf.data.archives import members
from staf.data.example import Example
from staf.data.layouts import Files
from staf.data.read_report import ReadReport
from staf.data.readers.shapes import vocabulary
from staf.data.readers.stays import composed_examples
from staf.data.tables import Form, Tables, tables
from staf.errors import BadData

TABLE = "dataset_diabetes/diabetic_data.csv"
NAMES = "dataset_diabetes/IDs_mapping.csv"

_IDS = ("admission_type_id", "discharge_disposition_id", "admission_source_id")
_UNTOLD = ("null", "not available", "not mapped", "unknown/invalid")
_DRUGS: list[str] = vocabulary("uci_drugs")
_COLUMNS = [*vocabulary("uci_columns"), *_DRUGS]
_FORMS: dict[str, Form] = {
    "encounter_id": "number",
    "patient_nbr": "number",
    "age": "text",
    "readmitted": ("<30", ">30", "NO"),
    **dict.fromkeys(_DRUGS, ("No", "Steady", "Up", "Down")),
}


def read(files: Files, report: ReadReport) -> Iterator[Example]:
    """The encounters as task types icd_coding, medication_recommendation and readmission."""
    with tables(report) as database:
        _load(database, files[0][1])
        database.skip({
            "readmission: the encounter ends in death or hospice": "SELECT count(*) FROM encounters WHERE gone",
            "icd_coding: an encounter without a diagnosis": "SELECT count(*) FROM encounters WHERE len(codes) = 0",
        })  # fmt: skip
        for encounter in database.rows("SELECT *, encounter_id AS hadm_id, patient_nbr AS subject_id FROM told_encounters"):
            arrival, stay, given, diagnoses, discharge = (
                [(said["topic"], said["mention"]) for said in encounter[part] if said["mention"]]
                for part in ("at_admission", "stay", "given", "diagnoses", "discharge")
            )
            mentions = {
                "icd_coding": [*arrival, *stay, *given, *discharge],
                "medication_recommendation": arrival,
                "readmission": [*arrival, *stay, *given, *diagnoses, *discharge],
            }
            yield from composed_examples("uci-diabetes-130", encounter, mentions, report)


def _load(database: Tables, archive: Path) -> None:
    found = {name: content for _, name, content in members(archive, "dataset_diabetes/*.csv")}
    if missing := [name for name in (TABLE, NAMES) if name not in found]:
        raise BadData(f"{archive} does not hold {', '.join(missing)}. Get it again.")
    with tempfile.TemporaryDirectory(prefix=".uci-", dir=database.scratch) as working:
        unpacked = Path(working) / Path(TABLE).name
        unpacked.write_bytes(found.pop(TABLE))
        database.load("diabetic_data", unpacked, _COLUMNS, _FORMS, key="encounter_id", nulls=(), called=f"{archive}, {TABLE}")
    _name_ids(database, archive, found[NAMES])
    for script in ("uci_tables", "uci_titles", "uci_text"):
        database.script(script)


def _name_ids(database: Tables, archive: Path, content: bytes) -> None:
    """The three tables of the mapping as one: column_name, id, description."""
    named, column = list[tuple[str, str, str]](), ""
    for number, cells in enumerate(csv.reader(io.StringIO(content.decode("utf-8-sig", "replace"))), start=1):
        if len(cells) != 2:
            raise BadData(f"{archive}, {NAMES}, line {number}: 2 cells are expected, found {len(cells)}.")
        if cells[0] in _IDS:
            column = cells[0]
        elif cells[0] and column and cells[1].strip().lower() not in _UNTOLD:
            named.append((column, cells[0], cells[1].strip(" .").lower()))
    if {column for column, _, _ in named} != set(_IDS):
        raise BadData(f"{archive}, {NAMES}: a table for {', '.join(_IDS)} each is expected. Get it again.")
    database.fill("id_names", ("column_name", "id", "description"), named)
