"""A damaged or foreign run folder gives one message, or a page: never a traceback, and never half a page."""

from __future__ import annotations

import json
import random
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from reproduced_results import world
from test_report import TASK, Page, evaluated, metric, trained, write
from test_report_measures import covering

from staf.errors import DamagedFile, MissingData
from staf.report import figures, page

FOREIGN: list[Any] = [
    None, True, 0, -1, 1e308, -1e308, 10**400, "", " ", "²", "a/b", "..", "\ud800", "x" * 5000, "<b>{{ 7 }}</b>", [], {},
    [None], {"": ""}, [[[]]], {"value": 1},
]  # fmt: skip
BYTES = [
    b"",
    b"{",
    b"null",
    b"[]",
    b"\xff\xfe\x00",
    b"\xef\xbb\xbf{}",
    b"[" * 100_000,
    b'{"stage": "evaluate"}',
    b"PK\x03\x04",
    b"NaN",
]


def a_set(runs: Path) -> Path:
    found = world()
    above = {"original": {"difference": 0.2, "low": 0.1, "high": 0.3, "p_value": 0.01}}
    more = {"output_type": "multiple_choice", "selective": covering(0.9, 0.5), "labels": ["yes", "no"]}
    weights = {"entity_relation": 0.7, "multiple_choice": 0.2}
    write(runs, evaluated("original", **more), evaluated("normal", comparisons=above, weights=weights, **more), trained())
    write(runs, evaluated("single", task="entity_relation-held-out", comparisons=above))
    write(runs, *({k: v for k, v in found[name].items() if k != "run"} for name in ("fig5", "fig7", "tokens")))
    lines = [{"id": str(i), "gold": i % 2, "scores": [0.1, 0.2]} for i in range(3)]
    path = runs / "evaluate" / TASK / "normal" / "seed0-a1b2" / "predictions.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return runs


def leaves(tree: Any) -> list[tuple[Any, Any]]:
    """Every place of a JSON value, as (container, key)."""
    keys = list(tree) if isinstance(tree, dict) else list(range(len(tree))) if isinstance(tree, list) else []
    return [pair for key in keys for pair in [(tree, key), *leaves(tree[key])]]


def damage(path: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    kind = rng.choice(["leaf", "leaf", "leaf", "leaf", "key", "flip", "cut", "bytes", "folder"])
    if kind in ("leaf", "key") and path.suffix == ".json":
        content = json.loads(data)
        holder, key = rng.choice(leaves(content))
        if kind == "key":
            del holder[key]
        else:
            holder[key] = rng.choice(FOREIGN)
        path.write_text(json.dumps(content))
    elif kind == "cut":
        path.write_bytes(data[: rng.randrange(len(data))])
    elif kind == "folder":
        path.unlink()
        path.mkdir()
    elif kind == "bytes":
        path.write_bytes(rng.choice(BYTES))
    else:
        place = rng.randrange(len(data))
        path.write_bytes(data[:place] + bytes([rng.randrange(256)]) + data[place + 1 :])


def message_of(runs: Path, out: Path) -> str | None:
    """What is said of the runs; None where there is a page, which then is complete."""
    try:
        page.write_page(runs, out)
    except (DamagedFile, MissingData) as error:
        return str(error)
    assert Page(out.read_text(encoding="utf-8")).open == []
    return None


def test_a_damaged_run_gives_one_message_or_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "save", lambda axes, alt, legend=False: figures.Figure("<svg/>", alt))
    draw, runs, rng, messages = figures.canvas, a_set(tmp_path / "runs"), random.Random(21), 0
    files = {path: path.read_bytes() for pattern in ("result.json", "predictions.jsonl") for path in runs.rglob(pattern)}
    for number in range(200):
        path, out = rng.choice(sorted(files)), tmp_path / f"{number}.html"
        damage(path, rng)
        monkeypatch.setattr(figures, "canvas", draw if number % 20 == 0 else lambda _: nullcontext(MagicMock()))  # in seconds
        message = message_of(runs, out)
        if message is not None:
            messages += 1
            assert str(path.parent) in message
            assert len(message) < 3000
            assert not out.exists()
        if path.is_dir():
            path.rmdir()
        path.write_bytes(files[path])
    assert 20 < messages < 180
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_page_of_the_set_has_its_numbers(tmp_path: Path) -> None:
    text = page.write_page(a_set(tmp_path / "runs"), tmp_path / "report.html").read_text()
    assert f"{metric(0.31)['value'] * 100:.1f} (26.0 to 36.0)" in text
