"""Made-up tables in the layout of MIMIC-III v1.4, at any scale: no patient, no real text, the same for the same seed.

    python benchmarks/generate_mimic.py FOLDER --scale 0.01

Writes the six tables that `mimic-iii` is read from, gzipped as PhysioNet distributes them, with upper-case headers, quoted
text, and notes of several lines. At scale 1 there are as many rows as in the real database (46,520 patients, 58,976
admissions, 651,047 diagnoses, 4,156,450 prescriptions, 2,083,180 notes of about 4 GB). Codes have the forms of ICD-9-CM, but
which code and drug goes with whom is chance; their frequencies fall as 1 / rank.
"""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path

import numpy as np

PATIENTS, ADMISSIONS, DIAGNOSES, PRESCRIPTIONS, NOTES, SUMMARIES, TITLES = (
    46_520, 58_976, 651_047, 4_156_450, 2_083_180, 59_652, 14_567,
)  # fmt: skip
MEMBER = 16 << 20
"""Bytes of text in one member of a gzip file; members are packed side by side."""

SYLLABLES = (
    "ba", "co", "di", "fer", "gal", "hy", "in", "ju", "ka", "lor", "mi", "no", "op", "pra", "qui", "ros", "sul", "ta", "ur",
    "ven", "wex", "yl", "zor", "ther", "cal", "dox", "met", "pan", "car",
)  # fmt: skip
ACTIONS = ("was noted", "was started", "resolved", "was seen", "remained stable", "improved", "was held", "worsened")
STEMS = (
    "Furosemide", "Metoprolol", "Heparin", "Insulin", "Acetaminophen", "Docusate", "Vancomycin", "Lorazepam", "Morphine",
    "Senna", "Aspirin", "Warfarin", "Pantoprazole", "Potassium Chloride", "Magnesium Sulfate", "Calcium Gluconate",
    "Levofloxacin", "Lisinopril", "Captopril", "Amiodarone", "Fentanyl", "Midazolam", "Propofol", "Famotidine", "Ondansetron",
    "Metronidazole", "Ciprofloxacin", "Atorvastatin", "Simvastatin", "Prednisone",
)  # fmt: skip
ENDINGS = ("", " Sodium", " HCl", " (Liquid)", " 5% Patch", " Flush (10 units/ml)", " XL", " 20 mg Tab", " IV", " Neb")
TYPES = ("EMERGENCY", "NEWBORN", "ELECTIVE", "URGENT")
DISCHARGES = (
    "HOME", "HOME HEALTH CARE", "SNF", "REHAB/DISTINCT PART HOSP", "DEAD/EXPIRED", "SHORT TERM HOSPITAL", "HOSPICE-HOME",
)  # fmt: skip
ORIGINS = ("EMERGENCY ROOM ADMIT", "PHYS REFERRAL/NORMAL DELI", "CLINIC REFERRAL/PREMATURE", "TRANSFER FROM HOSP/EXTRAM")
SECTIONS = (
    ("Allergies", 1), ("Chief Complaint", 1), ("Major Surgical or Invasive Procedure", 1), ("History of Present Illness", 3),
    ("Past Medical History", 1), ("Social History", 1), ("Family History", 1), ("Physical Exam", 3), ("Pertinent Results", 4),
    ("Brief Hospital Course", 5), ("Medications on Admission", 1), ("Discharge Medications", 2), ("Discharge Diagnosis", 1),
    ("Discharge Condition", 1), ("Discharge Instructions", 2),
)  # fmt: skip
OTHERS = ("Nursing/other", "Radiology", "Nursing", "ECG", "Physician ")


class Text:
    """Pools of made-up sentences and paragraphs."""

    def __init__(self, chance: np.random.Generator) -> None:
        parts = chance.integers(0, len(SYLLABLES), size=(6_000, 4))
        lengths = chance.integers(1, 5, size=6_000)
        words = ["".join(SYLLABLES[i] for i in row[:n]) for row, n in zip(parts, lengths, strict=True)]
        drawn = (chance.zipf(1.3, size=(20_000, 14)) - 1) % len(words)
        sentences = [
            f"{' '.join(words[i] for i in row).capitalize()} {ACTIONS[row[0] % len(ACTIONS)]} on day {row[1] % 30}."
            for row in drawn
        ]
        sentences[7] = 'The patient said ""better"" and was seen again, with no change.'
        chosen = chance.integers(0, len(sentences), size=(6_000, 3))
        self.paragraphs = ["\n".join(sentences[i] for i in row) for row in chosen]


def stamp(minutes: int) -> str:
    """A time, in minutes after the year 2100 began."""
    return (datetime(2100, 1, 1) + timedelta(minutes=int(minutes))).strftime("%Y-%m-%d %H:%M:%S")


def write(path: Path, header: str, rows: Iterable[str]) -> None:
    """A gzip file of several members, two packed at a time."""
    names = ",".join(f'"{name}"' for name in header.split())

    def blocks() -> Iterator[bytes]:
        yield (names + "\n").encode()
        stream = iter(rows)
        size, taken = 0, list[str]()
        while batch := list(islice(stream, 500)):
            taken += batch
            size += sum(map(len, batch))
            if size > MEMBER:
                yield "".join(taken).encode()
                size, taken = 0, []
        yield "".join(taken).encode()

    def pack(block: bytes) -> bytes:
        packer = zlib.compressobj(1, zlib.DEFLATED, 31)
        return packer.compress(block) + packer.flush()

    with path.open("wb") as stream, ThreadPoolExecutor(2) as pool:
        waiting = []
        for block in blocks():
            waiting.append(pool.submit(pack, block))
            if len(waiting) > 3:
                stream.write(waiting.pop(0).result())
        for packed in waiting:
            stream.write(packed.result())


def by_rank(chance: np.random.Generator, kinds: int, size: int) -> np.ndarray:
    """Draws from `kinds` things whose frequencies fall as 1 / rank."""
    steps = np.cumsum(1 / np.arange(1, kinds + 1))
    return np.searchsorted(steps, chance.random(size) * steps[-1])


class Stays:
    """Who was in hospital, when and how it ended."""

    def __init__(self, chance: np.random.Generator, scale: float) -> None:
        patients, count = max(20, round(PATIENTS * scale)), max(26, round(ADMISSIONS * scale))
        further = by_rank(chance, patients, count - patients)
        self.patient = np.sort(np.concatenate([np.arange(patients), further]))
        first = np.r_[True, self.patient[1:] != self.patient[:-1]]
        self.length = (1_440 * chance.lognormal(1.9, 0.8, count)).astype(np.int64) + 300
        gap = (1_440 * chance.exponential(200, count)).astype(np.int64) + 60
        start = chance.integers(0, 70 * 525_600, count)
        self.admitted = np.empty(count, dtype=np.int64)
        for i in range(count):
            self.admitted[i] = start[i] if first[i] else self.admitted[i - 1] + self.length[i - 1] + gap[i]
        self.type = np.where(first & (chance.random(count) < 0.16), 1, chance.choice([0, 0, 0, 0, 0, 0, 2, 3], count))
        last = np.r_[first[1:], True]
        ended = chance.choice(len(DISCHARGES), count, p=[0.32, 0.21, 0.16, 0.11, 0.13, 0.05, 0.02])
        self.ended = np.where((ended == 4) & ~last, 0, ended)
        self.hadm = 100_000 + chance.permutation(count)
        self.patients, self.count = patients, count

    def ids(self, i: int) -> str:
        return f"{self.patient[i] + 2},{self.hadm[i]}"


def admissions(stays: Stays, chance: np.random.Generator) -> Iterator[str]:
    origin = chance.integers(0, len(ORIGINS), stays.count)
    for i in range(stays.count):
        left = stamp(stays.admitted[i] + stays.length[i])
        died = stays.ended[i] == 4
        yield (
            f'{i + 1},{stays.ids(i)},{stamp(stays.admitted[i])},{left},{left if died else ""},"{TYPES[stays.type[i]]}",'
            f'"{ORIGINS[origin[i]]}","{DISCHARGES[stays.ended[i]]}","Medicare",,"NOT SPECIFIED","SINGLE","UNKNOWN",,,'
            f'"CHEST PAIN, ""ROUTINE""",{int(died)},1\n'
        )


def patients(stays: Stays, chance: np.random.Generator) -> Iterator[str]:
    born = chance.integers(20, 95, stays.patients)
    for i in range(stays.patients):
        yield f'{i + 1},{i + 2},"{"FM"[i % 2]}",{2100 - born[i]}-01-01 00:00:00,,,,0\n'


def titles(chance: np.random.Generator, text: Text) -> tuple[list[str], list[str]]:
    """Codes in all the forms of ICD-9-CM diagnoses, and rows of their titles."""
    numbers = chance.permutation(np.arange(100, 99_999))[:15_000]
    codes = [f"{n:05}"[: 4 + (n % 3 > 0)] for n in numbers.tolist()]
    codes[5::9] = [f"V{n % 9_000 + 1_000}"[: 3 + n % 3] for n in numbers[5::9].tolist()]
    codes[7::15] = [f"E{n % 1_990 + 8_000}"[: 4 + n % 2] for n in numbers[7::15].tolist()]
    distinct = list(dict.fromkeys(codes))[:TITLES]
    rows = [
        f'{i + 1},"{code}","{text.paragraphs[i % 6_000][:20]}","{" ".join(text.paragraphs[i % 6_000].split()[:6])}"\n'
        for i, code in enumerate(distinct)
    ]
    return distinct, rows


def diagnoses(stays: Stays, codes: list[str], chance: np.random.Generator, scale: float) -> Iterator[str]:
    count = round(DIAGNOSES * scale)
    stay = np.sort(chance.integers(0, stays.count, count))
    code = by_rank(chance, min(7_000, len(codes)), count)
    place, before = 0, -1
    for row, (i, c) in enumerate(zip(stay.tolist(), code.tolist(), strict=True), start=1):
        place = place + 1 if i == before else 1
        before = i
        yield f'{row},{stays.ids(i)},{place},"{codes[c]}"\n'


def prescriptions(stays: Stays, chance: np.random.Generator, scale: float) -> Iterator[str]:
    count = round(PRESCRIPTIONS * scale)
    names = [f"{stem}{ending}" for ending in ENDINGS for stem in STEMS]
    names += [
        "".join(SYLLABLES[(n * k) % len(SYLLABLES)] for k in (1, 3, 7)) + ENDINGS[n % 10] + f" {n}mg" for n in range(4_200)
    ]
    tails = [
        f'"{"BASE" if n % 4 == 3 else "MAIN"}","{name}","{name}","{name}","CODE{n}","0{n:05}","0{n:010}","20mg Tab","20","mg",'
        f'"1","TAB","PO"\n'
        for n, name in enumerate(names)
    ]
    days = [stamp(day * 1_440) for day in range(27_000)]
    stay = np.sort(chance.integers(0, stays.count, count) // 6 * 6 + chance.integers(0, 5, count))  # one stay in six has none
    drug = by_rank(chance, len(tails), count)
    for row, (i, d) in enumerate(zip(np.minimum(stay, stays.count - 1).tolist(), drug.tolist(), strict=True), start=1):
        day = int(stays.admitted[i]) // 1_440 % 26_990
        yield f"{row},{stays.ids(i)},,{days[day]},{days[day + 2]},{tails[d]}"


def notes(stays: Stays, text: Text, chance: np.random.Generator, scale: float) -> Iterator[str]:
    """Discharge summaries first, as in the real file, then all other notes."""
    summaries, count = round(SUMMARIES * scale), round(NOTES * scale)
    told = chance.permutation(stays.count)[: round(0.894 * stays.count)]  # 52,726 of 58,976 stays have a summary
    chosen = np.sort(np.r_[told, chance.choice(told, max(0, summaries - len(told)))])
    repeats = np.r_[False, chosen[1:] == chosen[:-1]]
    for row, (i, again) in enumerate(zip(chosen.tolist(), repeats.tolist(), strict=True), start=1):
        day = stamp(stays.admitted[i] + stays.length[i])[:10]
        body = summary(text, chance, day) if not again else f"Addendum:\n{text.paragraphs[row % 6_000]}\n"
        yield f'{row},{stays.ids(i)},{day},,,"Discharge summary","{"Addendum" if again else "Report"}",,,"{body}"\n'
    for start in range(summaries, count, 50_000):
        size = min(50_000, count - start)
        stay = chance.integers(0, stays.count, size).tolist()
        drawn = chance.integers(0, 6_000, (size, 4)).tolist()
        for row, (i, picks) in enumerate(zip(stay, drawn, strict=True), start=start + 1):
            ids = stays.ids(i) if picks[0] % 9 else f"{stays.patient[i] + 2},"
            body = "\n\n".join(text.paragraphs[p] for p in picks)
            yield f'{row},{ids},2150-01-01,2150-01-01 10:00:00,,"{OTHERS[picks[1] % 5]}","Report",1,,"{body}"\n'


def summary(text: Text, chance: np.random.Generator, day: str) -> str:
    """About 10,000 characters under the headings of a discharge summary."""
    drawn = iter(chance.integers(0, 6_000, 64).tolist())
    head = f"Admission Date:  [**{day}**]     Discharge Date:   [**{day}**]\n\nSex:   F\n\nService: MEDICINE\n\n"
    return head + "\n\n".join(
        f"{name}:\n" + "\n".join(text.paragraphs[next(drawn)] for _ in range(parts)) for name, parts in SECTIONS
    )


def generate(folder: Path, scale: float = 1.0, seed: int = 7) -> None:
    """Write the six tables into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    chance = np.random.default_rng(seed)
    text, stays = Text(chance), Stays(chance, scale)
    codes, title_rows = titles(chance, text)
    write(
        folder / "ADMISSIONS.csv.gz",
        "ROW_ID SUBJECT_ID HADM_ID ADMITTIME DISCHTIME DEATHTIME ADMISSION_TYPE ADMISSION_LOCATION DISCHARGE_LOCATION "
        "INSURANCE LANGUAGE RELIGION MARITAL_STATUS ETHNICITY EDREGTIME EDOUTTIME DIAGNOSIS HOSPITAL_EXPIRE_FLAG "
        "HAS_CHARTEVENTS_DATA",
        admissions(stays, chance),
    )
    write(folder / "PATIENTS.csv.gz", "ROW_ID SUBJECT_ID GENDER DOB DOD DOD_HOSP DOD_SSN EXPIRE_FLAG", patients(stays, chance))
    write(folder / "D_ICD_DIAGNOSES.csv.gz", "ROW_ID ICD9_CODE SHORT_TITLE LONG_TITLE", title_rows)
    write(
        folder / "DIAGNOSES_ICD.csv.gz",
        "ROW_ID SUBJECT_ID HADM_ID SEQ_NUM ICD9_CODE",
        diagnoses(stays, codes, chance, scale),
    )
    write(
        folder / "PRESCRIPTIONS.csv.gz",
        "ROW_ID SUBJECT_ID HADM_ID ICUSTAY_ID STARTDATE ENDDATE DRUG_TYPE DRUG DRUG_NAME_POE DRUG_NAME_GENERIC "
        "FORMULARY_DRUG_CD GSN NDC PROD_STRENGTH DOSE_VAL_RX DOSE_UNIT_RX FORM_VAL_DISP FORM_UNIT_DISP ROUTE",
        prescriptions(stays, chance, scale),
    )
    write(
        folder / "NOTEEVENTS.csv.gz",
        "ROW_ID SUBJECT_ID HADM_ID CHARTDATE CHARTTIME STORETIME CATEGORY DESCRIPTION CGID ISERROR TEXT",
        notes(stays, text, chance, scale),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    generate(options.folder, options.scale, options.seed)


if __name__ == "__main__":
    main()
