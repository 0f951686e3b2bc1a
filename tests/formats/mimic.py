"""MIMIC-III v1.4 and its demo: the tables' columns are those of https://mimic.mit.edu/docs/iii/tables/ (one page a table).

The full database has upper-case headers and is gzipped; the demo has lower-case headers and an empty NOTEEVENTS. Cells of
text are quoted, notes hold line ends and doubled quotes. Patients, ailments and notes are our own.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

TITLES = {
    "0389": "Grey tail fever",
    "4019": "High mane pressure, unspecified",
    "42731": "Fluttering hoof",
    "V053": "Need for beak care",
    "E8889": "Fall from a low branch; unspecified",
}

COLUMNS = {
    "PATIENTS": "ROW_ID SUBJECT_ID GENDER DOB DOD DOD_HOSP DOD_SSN EXPIRE_FLAG",
    "ADMISSIONS": "ROW_ID SUBJECT_ID HADM_ID ADMITTIME DISCHTIME DEATHTIME ADMISSION_TYPE ADMISSION_LOCATION DISCHARGE_LOCATION"
    " INSURANCE LANGUAGE RELIGION MARITAL_STATUS ETHNICITY EDREGTIME EDOUTTIME DIAGNOSIS HOSPITAL_EXPIRE_FLAG"
    " HAS_CHARTEVENTS_DATA",
    "DIAGNOSES_ICD": "ROW_ID SUBJECT_ID HADM_ID SEQ_NUM ICD9_CODE",
    "D_ICD_DIAGNOSES": "ROW_ID ICD9_CODE SHORT_TITLE LONG_TITLE",
    "PRESCRIPTIONS": "ROW_ID SUBJECT_ID HADM_ID ICUSTAY_ID STARTDATE ENDDATE DRUG_TYPE DRUG DRUG_NAME_POE DRUG_NAME_GENERIC"
    " FORMULARY_DRUG_CD GSN NDC PROD_STRENGTH DOSE_VAL_RX DOSE_UNIT_RX FORM_VAL_DISP FORM_UNIT_DISP ROUTE",
    "NOTEEVENTS": "ROW_ID SUBJECT_ID HADM_ID CHARTDATE CHARTTIME STORETIME CATEGORY DESCRIPTION CGID ISERROR TEXT",
    "PROCEDURES_ICD": "ROW_ID SUBJECT_ID HADM_ID SEQ_NUM ICD9_CODE",
    "D_ICD_PROCEDURES": "ROW_ID ICD9_CODE SHORT_TITLE LONG_TITLE",
    "ICUSTAYS": "ROW_ID SUBJECT_ID HADM_ID ICUSTAY_ID DBSOURCE FIRST_CAREUNIT LAST_CAREUNIT FIRST_WARDID LAST_WARDID INTIME"
    " OUTTIME LOS",
    "SERVICES": "ROW_ID SUBJECT_ID HADM_ID TRANSFERTIME PREV_SERVICE CURR_SERVICE",
    "MICROBIOLOGYEVENTS": "ROW_ID SUBJECT_ID HADM_ID CHARTDATE CHARTTIME SPEC_ITEMID SPEC_TYPE_DESC ORG_ITEMID ORG_NAME"
    " ISOLATE_NUM AB_ITEMID AB_NAME DILUTION_TEXT DILUTION_COMPARISON DILUTION_VALUE INTERPRETATION",
    "LABEVENTS": "ROW_ID SUBJECT_ID HADM_ID ITEMID CHARTTIME VALUE VALUENUM VALUEUOM FLAG",
    "D_LABITEMS": "ROW_ID ITEMID LABEL FLUID CATEGORY LOINC_CODE",
}
"""Of each table, in the published order."""


@dataclass(frozen=True)
class Note:
    """A row of NOTEEVENTS."""

    text: str
    charted: str
    description: str = "Report"
    category: str = "Discharge summary"
    iserror: str = ""


@dataclass(frozen=True)
class Stay:
    """An admission and what hangs on it."""

    patient: int
    hadm: int
    admitted: str
    discharged: str
    type: str = "EMERGENCY"
    origin: str = "EMERGENCY ROOM ADMIT"
    left_for: str = "HOME"
    codes: Sequence[str] = ("4019",)
    drugs: Sequence[str] = ("Heparin Sodium",)
    notes: Sequence[Note] | None = None
    """None: one discharge summary of the day of discharge."""

    def all_notes(self) -> Sequence[Note]:
        return self.notes if self.notes is not None else (Note(summary(f"limp {self.hadm}"), self.discharged[:10]),)


def summary(complaint: str) -> str:
    """A discharge summary with the usual headings."""
    return (
        f"Admission Date:  [**2150-1-1**]\n\nService: BEASTS\n\nAllergies:\nHay\n\nChief Complaint:\n{complaint}\n\n"
        f'History of Present Illness:\nThe beast said ""{complaint}"" and lay\ndown.\nOn the way: it slept.\n\n'
        "Medications on Admission:\nOats daily.\n\nPhysical Exam:\nVS: calm\nON DISCHARGE: lively\n\n"
        "Brief Hospital Course:\nIt was given oats.\n\nPast Medical History:\nWritten too late.\n\n"
        "Discharge Medications:\nOats.\n"
    ).replace('""', '"')


def table(columns: str, rows: Iterable[dict[str, object]], lower: bool = False) -> bytes:
    """A table as CSV; cells that a row does not name are empty."""
    names = columns.split()
    lines = [",".join(f'"{name.lower() if lower else name}"' for name in names)]
    for number, row in enumerate(rows, start=1):
        lines.append(",".join(_cell(({"ROW_ID": number} | row).get(name, "")) for name in names))
    return ("\n".join(lines) + "\n").encode()


def _cell(value: object) -> str:
    """Text in quotes; numbers and empty cells without."""
    return '"' + value.replace('"', '""') + '"' if isinstance(value, str) and value else str(value)


def tables(stays: Sequence[Stay]) -> dict[str, list[dict[str, object]]]:
    """Rows by table."""
    found: dict[str, list[dict[str, object]]] = {name: [] for name in COLUMNS}
    for patient in sorted({stay.patient for stay in stays}):
        born = "1850-01-01 00:00:00" if patient % 7 == 0 else "2100-06-01 00:00:00"
        found["PATIENTS"].append({"SUBJECT_ID": patient, "GENDER": "FM"[patient % 2], "DOB": born})
    for code, title in TITLES.items():
        found["D_ICD_DIAGNOSES"].append({"ICD9_CODE": code, "SHORT_TITLE": title[:8], "LONG_TITLE": title})
    found["D_ICD_PROCEDURES"].append({"ICD9_CODE": "0331", "SHORT_TITLE": "Brush", "LONG_TITLE": "Brushing of the mane"})
    found["D_LABITEMS"].append({"ITEMID": 50, "LABEL": "Oats in blood"})
    for stay in stays:
        key: dict[str, object] = {"SUBJECT_ID": stay.patient, "HADM_ID": stay.hadm}
        died = stay.left_for == "DEAD/EXPIRED"
        found["ADMISSIONS"].append(key | {
            "ADMITTIME": stay.admitted, "DISCHTIME": stay.discharged, "DEATHTIME": stay.discharged if died else "",
            "ADMISSION_TYPE": stay.type, "ADMISSION_LOCATION": stay.origin, "DISCHARGE_LOCATION": stay.left_for,
            "DIAGNOSIS": "LAME;FLUTTERING HOOF", "HOSPITAL_EXPIRE_FLAG": int(died),
        })  # fmt: skip
        for place, code in enumerate(stay.codes, start=1):
            found["DIAGNOSES_ICD"].append(key | {"SEQ_NUM": place, "ICD9_CODE": code})
        for drug in stay.drugs:
            kind, _, name = drug.rpartition("|")
            found["PRESCRIPTIONS"].append(key | {"DRUG_TYPE": kind or "MAIN", "DRUG": name})
        for note in stay.all_notes():
            found["NOTEEVENTS"].append(key | {
                "CHARTDATE": note.charted, "CATEGORY": note.category, "DESCRIPTION": note.description,
                "ISERROR": note.iserror, "TEXT": note.text,
            })  # fmt: skip
        found["PROCEDURES_ICD"].append(key | {"SEQ_NUM": 1, "ICD9_CODE": "0331"})
        found["ICUSTAYS"].append(key | {"FIRST_CAREUNIT": "MICU", "INTIME": stay.admitted, "LOS": 1.25})
        found["SERVICES"].append(key | {"TRANSFERTIME": stay.admitted, "CURR_SERVICE": "MED"})
        found["MICROBIOLOGYEVENTS"].append(key | {"SPEC_TYPE_DESC": "HOOF SWAB", "ORG_NAME": "GREY TAIL FEVER"})
        found["LABEVENTS"].append(key | {"ITEMID": 50, "FLAG": "abnormal"})
    return found


FULL = ("PATIENTS", "ADMISSIONS", "DIAGNOSES_ICD", "D_ICD_DIAGNOSES", "PRESCRIPTIONS", "NOTEEVENTS")


def write_full(folder: Path, stays: Sequence[Stay]) -> Path:
    """The six tables that are read, gzipped."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = tables(stays)
    for name in FULL:
        (folder / f"{name}.csv.gz").write_bytes(gzip.compress(table(COLUMNS[name], rows[name]), 1))
    return folder


def write_demo(folder: Path, stays: Sequence[Stay], laboratory: bool = False) -> Path:
    """All tables but the large ones, without notes."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = tables(stays) | {"NOTEEVENTS": []}
    for name in COLUMNS:
        if laboratory or name not in ("LABEVENTS", "D_LABITEMS"):
            (folder / f"{name}.csv").write_bytes(table(COLUMNS[name], rows[name], lower=True))
    return folder


def many(count: int = 60) -> list[Stay]:
    """A stay each of many patients, and another within 30 days of every third."""
    stays = []
    codes, drugs = list(TITLES), ("Heparin Sodium", "Aspirin EC", "Potassium Chloride (Powder)", "Furosemide 20mg Tab")
    for n in range(count):
        chosen = codes[n % 5 : n % 5 + 2], drugs[n % 4 : n % 4 + 2]
        stays.append(Stay(n + 1, 1000 + n, "2150-01-01 10:00:00", "2150-01-05 12:00:00", codes=chosen[0], drugs=chosen[1]))
        if n % 3 == 0:
            stays.append(Stay(n + 1, 3000 + n, "2150-01-15 10:00:00", "2150-01-16 12:00:00"))
    return stays


WRITERS = {
    "mimic-iii": lambda folder: write_full(folder, many()),
    "mimic-iii-demo": lambda folder: write_demo(folder, many()),
}
