"""Whatever is in the files that a command is given, it answers with a message: never a traceback, never half a result."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from conftest import make_examples
from typer.testing import CliRunner

from staf.cli import app
from staf.errors import StafError
from staf.experts.sets import write_set
from staf.experts.store import ExpertSet
from staf.lm.base import Base
from staf.routing.adapt import adapt_router
from staf.routing.merge import Mixture
from staf.routing.recipe import RouterRecipe
from staf.routing.store import save_router

FOREIGN = {
    "empty": b"", "zip": b"PK\x03\x04" + bytes(60), "png": b"\x89PNG\r\n\x1a\n" + bytes(60), "zeros": bytes(200),
    "latin-1": "Müdigkeit\n".encode("latin-1"), "utf-16": "text".encode("utf-16"), "html": b"<html></html>", "null": b"null",
    "list": b"[]", "object": b"{}", "number": b"1e999", "text": b'"text"', "deep": b"[" * 100_000,
    "half a character": b'{"context": "\\ud83d"}', "long length": (2**63 - 1).to_bytes(8, "little") + b"{}",
    "parquet": b"PAR1" + bytes(40) + b"PAR1",
}  # fmt: skip


def mutations(data: bytes, seed: int) -> Iterator[tuple[str, bytes]]:
    """Cut, foreign and changed content."""
    yield from FOREIGN.items()
    for share in (0.01, 0.3, 0.6, 0.9, 0.99):
        yield f"cut at {share}", data[: int(len(data) * share)]
    draw = random.Random(seed)
    for number in range(4):
        changed = bytearray(data)
        changed[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        yield f"flip {number}", bytes(changed)
    try:
        record = json.loads(data)
    except ValueError:
        return
    for key in record if isinstance(record, dict) else ():
        for value in (None, [], "x", -1, {"a": "b"}):
            yield f"{key} = {value}", json.dumps({**record, key: value}).encode()
        yield f"without {key}", json.dumps({name: one for name, one in record.items() if name != key}).encode()


@pytest.fixture
def folder(base: Base, experts: ExpertSet, tmp_path: Path) -> Path:
    """A router with its experts, tables, a task of one's own, a recipe and answers of another system."""
    write_set(tmp_path / "experts", experts.experts)
    router = adapt_router(Mixture(base, experts), "colour", make_examples(8, "adaptation"), RouterRecipe(epochs=1))
    save_router(tmp_path / "router", replace(router, record={**router.record, "run": "r1"}))
    (tmp_path / "in.jsonl").write_text('{"context": "sky"}\n{"context": "sea"}\n')
    (tmp_path / "in.csv").write_text("id,context,note\n1,sky,a\n2,sea,b\n")
    notes = "".join(f"a note that is number {i} of {i * 7},{'urgent' if i % 2 else 'routine'}\n" for i in range(20))
    (tmp_path / "notes.csv").write_text("note,outcome\n" + notes)
    task = {
        "task": "triage", "dataset_path": "csv", "dataset_kwargs": {"data_files": "notes.csv"}, "doc_to_text": "Urgent?",
        "doc_to_context": "{{note}}", "doc_to_target": "outcome", "doc_to_choice": ["routine", "urgent"],
        "output_type": "multiple_choice", "test_split": {"size": 0.3}, "metric_list": ["accuracy"],
    }  # fmt: skip
    (tmp_path / "triage.yaml").write_text(json.dumps(task))
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"steps": 8, "batch_size": 4}))
    (tmp_path / "theirs.jsonl").write_text('{"id": "triage/1", "answer": "urgent"}\n')
    return tmp_path


PREDICT = ["predict", "in.jsonl", "--router", "router", "--experts", "experts", "--out", "out.jsonl"]
GIVEN = {
    "in.jsonl": PREDICT,
    "in.csv": ["predict", "in.csv", *PREDICT[2:]],
    "router/router.json": PREDICT,
    "router/cost.json": PREDICT,
    "router/router-*.safetensors": PREDICT,
    "triage.yaml": ["tasks", "validate", "triage.yaml"],
    "notes.csv": ["tasks", "validate", "triage.yaml"],
    "recipe.yaml": ["train", "--data", "triage.yaml", "--recipe", "recipe.yaml", "--out", "trained", "--dry-run"],
    "theirs.jsonl": ["evaluate", "--task", "triage.yaml", "--method", "G-BERT", "--predictions", "theirs.jsonl"],
}


@pytest.mark.parametrize("name", GIVEN)
def test_a_file_of_any_content_is_answered_with_a_message(
    name: str, folder: Path, base: Base, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr("staf.stages.context.open_base", lambda *_: base)
    monkeypatch.setattr("staf.stages.context.identity_of", lambda _: base.identity)
    (path,) = folder.glob(name)
    data, command, there = path.read_bytes(), list(GIVEN[name]), {p for p in folder.rglob("*") if "runs" not in p.parts}
    command += ["--data-dir", str(own)] + ["--base", str(base.folder)]

    def answer(what: str) -> None:
        result = CliRunner().invoke(app, command)
        known = result.exception is None or isinstance(result.exception, (StafError, SystemExit))
        assert known, f"{name}, {what}: {result.exception!r}"
        made = {p for p in folder.rglob("*") if "runs" not in p.parts} - there
        if result.exception is None:
            for one in made:
                shutil.rmtree(one) if one.is_dir() else one.unlink(missing_ok=True)
        else:
            assert not made, f"{name}, {what}: left {made}"

    count = 0
    for what, content in mutations(data, len(name)):
        path.write_bytes(content)
        answer(what)
        count += 1
    path.unlink()
    answer("missing")
    path.mkdir()
    answer("folder")
    assert count >= 25
