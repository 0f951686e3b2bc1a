"""MIMIC-III and its open demo: ICD coding, medication recommendation, readmission within 30 days.

    mimic-iii        ADMISSIONS, PATIENTS, DIAGNOSES_ICD, D_ICD_DIAGNOSES, PRESCRIPTIONS, NOTEEVENTS (.csv or .csv.gz)
    mimic-iii-demo   without notes; the text is composed from PROCEDURES_ICD, D_ICD_PROCEDURES, ICUSTAYS, SERVICES,
                     MICROBIOLOGYEVENTS, and LABEVENTS with D_LABITEMS where they are there

    icd_coding                  discharge summary with its addenda -> diagnosis codes of the stay, with titles
    medication_recommendation   what was known on arrival          -> names of the drugs ordered in the stay
    readmission                 discharge summary up to discharge  -> yes or no

The cohorts are in `staf/data/sql/*.sql`. Examples are split by patient; a patient has the same key in both data sets.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any

from staf.data.dedup import minhash_keys
from staf.data.example import Example
from staf.data.layouts import Files
from staf.data.read_report import ReadReport
from staf.data.readers.shapes import vocabulary
from staf.data.readers.stays import LONGEST, composed_examples, on_admission, stay_example
from staf.data.sources import single_spaced
from staf.data.tables import Tables, tables
from staf.errors import BadData

SKETCHED = 3_000
"""Leading characters of a note that near-duplicates are recognised by."""
MOST_LOST = 0.01
"""Share of codes that may look as if a leading zero were lost."""

COLUMNS: dict[str, list[str]] = vocabulary("mimic_tables")
KEYS = {"admissions": "hadm_id", "patients": "subject_id", "noteevents": "row_id", "services": "row_id"}
WHERE = {"noteevents": "category = 'Discharge summary'"}
DEMO_SHARES = (40, 40, 20)
"""No expert is trained on the demo, and a tenth of its 100 patients is too few to adapt to."""


def read(files: Files, report: ReadReport, exclude_planned: bool = False) -> Iterator[Example]:
    """MIMIC-III as task types icd_coding, medication_recommendation and readmission, from discharge summaries.

    With `exclude_planned`, a return that begins with an ELECTIVE admission is no readmission.
    """
    with tables(report, {"exclude_planned": exclude_planned}) as database:
        _load(database, files, report)
        database.skip({
            "a note outside a stay": "SELECT count(*) FROM noteevents WHERE hadm_id IS NULL",
            "a note that its author marked as an error": "SELECT count(*) FROM noteevents WHERE iserror = '1'",
        })  # fmt: skip
        database.script("mimic_notes")
        database.skip({"a stay without a discharge summary": "SELECT count(*) FROM stays ANTI JOIN summaries USING (hadm_id)"})
        for part in database.rows("FROM parts ORDER BY first_id"):
            notes_of_part = database.rows(f"FROM told_stays({part['first_id']}, {part['last_id']})")
            for _, notes in groupby(notes_of_part, key=itemgetter("hadm_id")):
                yield from _from_notes(list(notes), report)


def read_demo(files: Files, report: ReadReport, exclude_planned: bool = False) -> Iterator[Example]:
    """The demo as task types icd_coding, medication_recommendation and readmission, from text composed of its tables.

    With `exclude_planned`, a return that begins with an ELECTIVE admission is no readmission.
    """
    with tables(report, {"exclude_planned": exclude_planned}) as database:
        _load(database, files, report)
        for name in {"labevents", "d_labitems"} - dict(files).keys():
            database.empty(name, COLUMNS[name])
        database.script("demo_text")
        for stay in database.rows("FROM mentioned_stays"):
            mentions = [(said["topic"], said["mention"], said) for said in stay["mentions"]]
            by_task = {
                "icd_coding": [(topic, mention) for topic, mention, said in mentions if not said["tells_diagnosis"]],
                "medication_recommendation": [(topic, mention) for topic, mention, said in mentions if said["at_admission"]],
                "readmission": [(topic, mention) for topic, mention, _ in mentions],
            }
            yield from composed_examples("mimic-iii-demo", stay, by_task, report, DEMO_SHARES)


def _load(database: Tables, files: Files, report: ReadReport) -> None:
    """Load the tables and create the cohorts of the three tasks."""
    for table, path in files:
        database.load(
            table, path, COLUMNS[table], vocabulary("mimic_forms").get(table), WHERE.get(table, "true"), key=KEYS.get(table, "")
        )
    database.script("mimic_tables")
    for script in ("icd_coding", "drug_names", "medication_recommendation", "readmission"):
        database.script(script)
    lost, codes = (database.number(f"SELECT count(DISTINCT code) FROM {name}") for name in ("lost_zeros", "codes"))
    if lost > max(3, MOST_LOST * codes):
        raise BadData(
            f"{dict(files)['diagnoses_icd']}: codes were read as numbers: leading zeros are lost in {lost} of {codes} codes "
            "(0389 became 389). Get the original file; read codes as text when you filter it."
        )
    database.skip({
        "a diagnosis row without a code": "SELECT count(*) FROM diagnoses_icd WHERE icd9_code IS NULL",
        "icd_coding: a stay without a diagnosis code": "SELECT count(*) FROM stays ANTI JOIN coded USING (hadm_id)",
        "medication_recommendation: a stay without a drug": "SELECT count(*) FROM stays ANTI JOIN medicated USING (hadm_id)",
        "readmission: continued by transfer on the day of discharge":
            "SELECT (SELECT count(*) FROM stays) - (SELECT count(*) FROM judged)",
    })  # fmt: skip
    for row in database.rows(
        "SELECT left_out, count(*) AS stays FROM judged WHERE left_out IS NOT NULL GROUP BY ALL ORDER BY 1"
    ):
        report.skip(row["left_out"], row["stays"])


def _from_notes(notes: list[dict[str, Any]], report: ReadReport) -> Iterator[Example]:
    """The examples of a stay with its notes, in chart order."""
    stay = notes[0]
    own = [note for note in notes if note["own"]]
    before = [note for note in notes if note["by_discharge"]]
    text = _bounded(" ".join(note["text"] for note in own))
    minhash = minhash_keys(text[:SKETCHED]) if text else ()
    if stay["codes"] and text:
        yield stay_example("mimic-iii", "icd_coding", stay, text, minhash=minhash)
    if stay["drugs"]:
        summary = next((note["text"] for note in own if not note["addendum"]), "")
        if arrival := on_admission(summary)[:LONGEST]:
            yield stay_example("mimic-iii", "medication_recommendation", stay, arrival, minhash=minhash)
        else:
            report.skip("medication_recommendation: no section on the state on arrival")
    if stay["returned"]:
        up_to_discharge = text if before == own else _bounded(" ".join(note["text"] for note in before))
        if up_to_discharge:
            yield stay_example("mimic-iii", "readmission", stay, up_to_discharge, minhash=minhash)
        else:
            report.skip("readmission: no discharge summary by the day of discharge")


def _bounded(text: str) -> str:
    """Single-spaced text of at most `LONGEST` characters, without its middle where it is longer: diagnoses stand at the end."""
    text = single_spaced(text)
    if len(text) <= LONGEST:
        return text
    half = (LONGEST - 5) // 2
    return f"{text[:half].rstrip()} ... {text[-half:].lstrip()}"
