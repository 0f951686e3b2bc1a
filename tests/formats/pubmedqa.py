"""PubMedQA: one JSON object by PubMed id a part, and the ids of the official test (README of github.com/pubmedqa/pubmedqa;
Jin and others, EMNLP 2019).
"""

from __future__ import annotations

import json
from pathlib import Path


def record(number: int, **more: object) -> dict[str, object]:
    """A record as all parts have it."""
    return {
        "QUESTION": f"Is {number} even?",
        "CONTEXTS": ["We looked.", "It is."],
        "LABELS": ["METHODS", "RESULTS"],
        "MESHES": ["Beasts"],
        "LONG_ANSWER": f"In  all, {number} may be even.",
    } | more


def write(folder: Path) -> None:
    """The labelled part: forty questions, every other one of the official test."""
    records = {str(n): record(n, final_decision="no") for n in range(40)}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ori_pqal.json").write_text(json.dumps(records, indent=4))
    (folder / "test_ground_truth.json").write_text(json.dumps({str(n): "no" for n in range(0, 40, 2)}))


def write_whole(folder: Path) -> None:
    """All parts: twenty artificial questions and ten unlabelled ones more, one of each without a conclusion."""
    write(folder)
    artificial = {str(n): record(n, final_decision="yes") for n in range(100, 120)}
    unlabelled = {str(n): record(n) for n in range(200, 210)}
    artificial["101"]["LONG_ANSWER"] = unlabelled["201"]["LONG_ANSWER"] = ""
    (folder / "ori_pqaa.json").write_text(json.dumps(artificial, indent=4))
    (folder / "ori_pqau.json").write_text(json.dumps(unlabelled, indent=4))


WRITERS = {"pubmedqa": write}
