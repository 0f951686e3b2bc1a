"""The data sets as their authors distribute them, where they are there; a test that needs one skips with the reason."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

DATA = Path(os.environ.get("STAF_DATA") or Path(__file__).parents[2] / "shared" / "data")


def distributed(name: str) -> Path:
    """The folder of a data set; skips the test where it is not there."""
    if not (DATA / name).is_dir():
        pytest.skip(f"{name} is not in the data folder; set STAF_DATA to a folder that has it")
    return DATA / name
