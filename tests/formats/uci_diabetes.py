"""Diabetes 130-US hospitals: columns and values of Strack et al. (2014), doi.org/10.1155/2014/781670, Table 1.

A zip with both files in a folder, and the entries that a Mac adds. '?' is missing, 'None' is not measured, codes have lost
their leading zeros, IDs_mapping.csv is three tables parted by a line of one comma. Encounters are our own.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

DRUGS = (
    "metformin", "repaglinide", "nateglinide", "chlorpropamide", "glimepiride", "acetohexamide", "glipizide",
    "glyburide", "tolbutamide", "pioglitazone", "rosiglitazone", "acarbose", "miglitol", "troglitazone", "tolazamide",
    "examide", "citoglipton", "insulin", "glyburide-metformin", "glipizide-metformin", "glimepiride-pioglitazone",
    "metformin-rosiglitazone", "metformin-pioglitazone",
)  # fmt: skip

COLUMNS = (
    "encounter_id", "patient_nbr", "race", "gender", "age", "weight", "admission_type_id", "discharge_disposition_id",
    "admission_source_id", "time_in_hospital", "payer_code", "medical_specialty", "num_lab_procedures",
    "num_procedures", "num_medications", "number_outpatient", "number_emergency", "number_inpatient", "diag_1",
    "diag_2", "diag_3", "number_diagnoses", "max_glu_serum", "A1Cresult",
    *DRUGS, "change", "diabetesMed", "readmitted",
)  # fmt: skip

USUAL = {
    "race": "AfricanAmerican", "gender": "Female", "age": "[70-80)", "weight": "?", "admission_type_id": "1",
    "discharge_disposition_id": "1", "admission_source_id": "7", "time_in_hospital": "3", "payer_code": "?",
    "medical_specialty": "InternalMedicine", "num_lab_procedures": "41", "num_procedures": "0", "num_medications": "9",
    "number_outpatient": "0", "number_emergency": "1", "number_inpatient": "2", "diag_1": "428", "diag_2": "38", "diag_3": "?",
    "number_diagnoses": "9", "max_glu_serum": "None", "A1Cresult": ">8", "change": "No", "diabetesMed": "Yes",
    "readmitted": "NO",
} | dict.fromkeys(DRUGS, "No")  # fmt: skip

MAPPING = (
    "admission_type_id,description\n1,Emergency\n6,NULL\n,\n"
    "discharge_disposition_id,description\n1,Discharged to home\n11,Expired\n13,Hospice / home\n,\n"
    'admission_source_id,description\n7, Emergency Room\n9, Not Available\n20,"Far away, by cart"\n'
)


def encounter(number: int, patient: int, **cells: str) -> dict[str, str]:
    """An encounter that differs from the usual one in some cells."""
    return USUAL | {"encounter_id": str(number), "patient_nbr": str(patient)} | cells


def write_encounters(folder: Path, rows: Sequence[dict[str, str]], columns: Sequence[str] = COLUMNS) -> Path:
    """The archive."""
    lines = [",".join(columns), *(",".join(row[name] for name in columns) for row in rows)]
    return write_archive(folder, ("\n".join(lines) + "\n").encode())


def write_archive(folder: Path, content: bytes, mapping: str = MAPPING) -> Path:
    """The archive around a given table."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / "dataset_diabetes.zip", "w") as archive:
        archive.writestr("dataset_diabetes/IDs_mapping.csv", mapping)
        archive.writestr("__MACOSX/dataset_diabetes/._IDs_mapping.csv", b"\0\5\26\7")
        archive.writestr("dataset_diabetes/diabetic_data.csv", content)
    return folder


def write(folder: Path) -> None:
    """Eighty encounters of sixty patients."""
    returns = ("NO", ">30", "<30")
    write_encounters(
        folder,
        [
            encounter(n + 1, n % 60, readmitted=returns[n % 3], insulin=("No", "Up")[n % 2], diag_3=str(400 + n))
            for n in range(80)
        ],
    )


WRITERS = {"uci-diabetes-130": write}
