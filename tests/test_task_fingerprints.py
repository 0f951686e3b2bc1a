"""The built-in tasks give the same examples as when these fingerprints were taken (task_fingerprints.json).

Each change is named here:
- readmission: queries ask for any readmission, and planned returns count (all-cause, as the papers cite);
  of the distributed corpora only the demo's fingerprints of it were taken again.
- trial_effect, trial_evidence, causal_language: split again, since 247 and 322 test items tell no methods apart.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from distributed import DATA

from staf.data.selection import task_examples
from staf.data.splits import SPLIT_SCHEMES
from staf.data.store import DataStore
from staf.data.task import find_task
from staf.errors import StafError

TAKEN = json.loads((Path(__file__).parent / "task_fingerprints.json").read_text())


def fingerprint(store: DataStore, name: str, split: str) -> list[object] | None:
    """Number of examples, and sixteen digits over everything in them; None where there are none."""
    try:
        examples = task_examples(find_task(name), split, store)
    except StafError:
        return None
    digest = hashlib.sha256()
    for e in examples:
        values = [e.id, e.query, e.context, e.answer, list(e.labels), e.split, list(e.dedup_keys), e.output_type, e.group]
        digest.update(json.dumps(values).encode())
    return [len(examples), digest.hexdigest()[:16]]


def compared(data: Path, split_scheme: str, taken: dict[str, list[object]]) -> None:
    store = DataStore(data, split_scheme, fetch=False)
    keys = [key.split("/") for key in taken if key.startswith(f"{split_scheme}/")]
    assert keys
    found = {f"{split_scheme}/{name}/{split}": fingerprint(store, name, split) for _, name, split in keys}
    assert found == {key: taken[key] for key in found}


@pytest.mark.parametrize("split_scheme", SPLIT_SCHEMES)
def test_on_our_own_corpora(own: Path, split_scheme: str) -> None:
    compared(own, split_scheme, TAKEN["made up"])


@pytest.mark.slow
@pytest.mark.parametrize("split_scheme", SPLIT_SCHEMES)
def test_on_the_distributed_corpora(split_scheme: str) -> None:
    if not DATA.is_dir():
        pytest.skip("there is no data folder; set STAF_DATA to one")
    compared(DATA, split_scheme, TAKEN["distributed"])
