"""The example tables are what their page says."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from staf.data.dedup import minhash_keys

TRIAGE = Path(__file__).parent.parent / "examples" / "triage"


def rows(name: str) -> list[dict[str, str]]:
    with (TRIAGE / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_notes_of_the_triage_example_have_the_counts_of_their_page() -> None:
    notes = rows("notes.csv")
    assert Counter(note["outcome"] for note in notes) == {"routine": 132, "soon": 72, "urgent": 36}
    assert len({note["patient_id"] for note in notes}) == 154
    lengths = [len(note["note"].split()) for note in notes]
    assert (min(lengths), max(lengths)) == (31, 88)
    assert len({note["note_id"] for note in notes}) == len(notes) == 240
    assert [list(note) for note in rows("new.csv")] == [["note_id", "note"]] * 10
    assert sum(path.stat().st_size for path in TRIAGE.glob("*.csv")) < 250_000


def test_no_two_of_the_notes_are_near_duplicates() -> None:
    seen = Counter(key for name in ("notes.csv", "new.csv") for note in rows(name) for key in minhash_keys(note["note"]))
    assert [key for key, count in seen.items() if count > 1] == []


def test_words_explain_a_part_of_the_outcomes_and_no_more() -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_score
    from sklearn.pipeline import make_pipeline

    notes = rows("notes.csv")
    texts, outcomes, patients = ([note[column] for note in notes] for column in ("note", "outcome", "patient_id"))
    words = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(C=10, max_iter=1000))
    found = float(np.mean(cross_val_score(words, texts, outcomes, groups=patients, cv=GroupKFold(5))))
    assert found == pytest.approx(0.73, abs=0.05)
