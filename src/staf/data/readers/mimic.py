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

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from staf.data.answers import safe_label, write_several
from staf.data.dedup import minhash_keys
from staf.data.example import Example, dedup_key
from staf.data.read_report import ReadReport
from staf.data.readers.admission_notes import on_admission
from staf.data.readers.stays import compose, stay_example
from staf.data.sources import find_one, single_spaced, vocabulary
from staf.data.tables import Tables, tables
from staf.errors import BadData, MissingData

LONGEST = 20_000
"""Characters of a text; of a longer one the middle is left out, since diagnoses often stand at the end."""
SKETCHED = 3_000
"""Leading characters of a note that near-duplicates are recognised by."""
MOST_LOST = 0.01
"""Share of codes that may look as if a leading zero were lost."""

_Columns = dict[str, list[str]]

_NOTES: _Columns = vocabulary("mimic_notes")
_COMMON: _Columns = vocabulary("mimic_tables")
_COMPOSED: _Columns = vocabulary("mimic_composed")
_LABORATORY: _Columns = vocabulary("mimic_laboratory")
SHARES = {"mimic-iii": (80, 10, 10), "mimic-iii-demo": (40, 40, 20)}
"""Train, adaptation and test: no expert is trained on these, and a tenth of the demo's 100 patients is too few to adapt to."""

_WHERE = {"noteevents": "category = 'Discharge summary'"}


def files(folder: Path) -> list[Path]:
    """The tables of MIMIC-III under `folder`; MissingData where one is not there."""
    return list(_paths(folder, "mimic-iii", _COMMON | _NOTES).values())


def demo_files(folder: Path) -> list[Path]:
    """The tables of the demo under `folder`; MissingData where one is not there."""
    return list(_demo_paths(folder).values())


def read(folder: Path, report: ReadReport, exclude_planned: bool = False) -> Iterator[Example]:
    """MIMIC-III as task types icd_coding, medication_recommendation and readmission, from discharge summaries.

    With `exclude_planned`, a return that begins with an ELECTIVE admission is no readmission.
    """
    with tables(report, {"exclude_planned": exclude_planned}) as database:
        _load(database, _paths(folder, "mimic-iii", _COMMON | _NOTES), report)
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


def read_demo(folder: Path, report: ReadReport, exclude_planned: bool = False) -> Iterator[Example]:
    """The demo as task types icd_coding, medication_recommendation and readmission, from text composed of its tables.

    With `exclude_planned`, a return that begins with an ELECTIVE admission is no readmission.
    """
    with tables(report, {"exclude_planned": exclude_planned}) as database:
        _load(database, _demo_paths(folder), report)
        for name, columns in _LABORATORY.items():
            if name not in _demo_paths(folder):
                database.empty(name, columns)
        database.script("demo_text")
        for stay in database.rows("FROM mentioned_stays"):
            yield from _from_mentions(stay, report)


def _paths(folder: Path, name: str, wanted: Mapping[str, Sequence[str]]) -> dict[str, Path]:
    """Where each table is: in `folder` or below it, as the download tool of PhysioNet leaves it."""
    return {table: find_one(folder, _layouts(table), name) for table in wanted}


def _demo_paths(folder: Path) -> dict[str, Path]:
    paths = _paths(folder, "mimic-iii-demo", _COMMON | _COMPOSED)
    try:
        return paths | _paths(folder, "mimic-iii-demo", _LABORATORY)
    except MissingData:
        return paths


def _layouts(table: str) -> tuple[str, ...]:
    return tuple(f"{place}{table.upper()}.csv{end}" for place in ("", "**/") for end in (".gz", ""))


def _load(database: Tables, paths: Mapping[str, Path], report: ReadReport) -> None:
    """Load the tables and create the cohorts of the three tasks."""
    columns = _COMMON | _NOTES | _COMPOSED | _LABORATORY
    for table, path in paths.items():
        database.load(table, path, columns[table], vocabulary("mimic_forms").get(table), _WHERE.get(table, "true"))
    database.script("mimic_tables")
    for script in ("icd_coding", "drug_names", "medication_recommendation", "readmission"):
        database.script(script)
    lost, codes = (database.number(f"SELECT count(DISTINCT code) FROM {name}") for name in ("lost_zeros", "codes"))
    if lost > max(3, MOST_LOST * codes):
        raise BadData(
            f"{paths['diagnoses_icd']}: codes were read as numbers: leading zeros are lost in {lost} of {codes} codes "
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
        yield _example("mimic-iii", "icd_coding", stay, text, minhash)
    if stay["drugs"]:
        summary = next((note["text"] for note in own if not note["addendum"]), "")
        if arrival := on_admission(summary)[:LONGEST]:
            yield _example("mimic-iii", "medication_recommendation", stay, arrival, minhash)
        else:
            report.skip("medication_recommendation: no section on the state on arrival")
    if stay["returned"]:
        up_to_discharge = text if before == own else _bounded(" ".join(note["text"] for note in before))
        if up_to_discharge:
            yield _example("mimic-iii", "readmission", stay, up_to_discharge, minhash)
        else:
            report.skip("readmission: no discharge summary by the day of discharge")


def _from_mentions(stay: dict[str, Any], report: ReadReport) -> Iterator[Example]:
    """The examples of a stay with what its tables say of it; no text says a word of its answer."""
    mentions = [(said["topic"], said["mention"], said) for said in stay["mentions"]]
    left_out = 0
    if stay["codes"]:
        allowed = [(topic, mention) for topic, mention, said in mentions if not said["tells_diagnosis"]]
        text, left_out = compose(allowed, [*stay["codes"], *filter(None, stay["titles"])])
        report.skip("icd_coding: a mention that says an answer", left_out)
        yield _example("mimic-iii-demo", "icd_coding", stay, text[:LONGEST])
    if stay["drugs"]:
        allowed = [(topic, mention) for topic, mention, said in mentions if said["at_admission"]]
        text, left_out = compose(allowed, stay["drugs"])
        report.skip("medication_recommendation: a mention that says an answer", left_out)
        yield _example("mimic-iii-demo", "medication_recommendation", stay, text[:LONGEST])
    if stay["returned"]:
        text, _ = compose((topic, mention) for topic, mention, _ in mentions)
        yield _example("mimic-iii-demo", "readmission", stay, text[:LONGEST])


def _example(name: str, task_type: str, stay: dict[str, Any], text: str, minhash: tuple[str, ...] = ()) -> Example:
    if task_type == "icd_coding":
        labels = [safe_label(f"{code} {title}") for code, title in zip(stay["codes"], stay["titles"], strict=True)]
    else:
        labels = [safe_label(drug) for drug in stay["drugs"] or ()]
    answer = stay["returned"] if task_type == "readmission" else write_several(labels, labels)
    patient = dedup_key(f"mimic-iii patient {stay['subject_id']}")
    return stay_example(f"{name}/{task_type}/{stay['hadm_id']}", task_type, patient, text, answer, SHARES[name], minhash)


def _bounded(text: str) -> str:
    """Single-spaced text of at most `LONGEST` characters, without its middle where it is longer."""
    text = single_spaced(text)
    if len(text) <= LONGEST:
        return text
    half = (LONGEST - 5) // 2
    return f"{text[:half].rstrip()} ... {text[-half:].lstrip()}"
