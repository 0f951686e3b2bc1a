"""Every output has one writer: a second process is refused with the owner's name, or waits for what it needs and reuses it."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import random_expert

from staf.compute import ComputeOptions
from staf.data.prepare import prepare
from staf.errors import StafError
from staf.experts.recipe import ExpertRecipe
from staf.experts.sets import add_expert, remove_expert, write_set
from staf.experts.store import ExpertSet, load_experts, save_expert
from staf.lm.base import Base
from staf.predict import predict_file
from staf.routing.recipe import RouterRecipe
from staf.stages.adaptation import adapt_stage
from staf.stages.context import Context
from staf.stages.training import train_stage

HOLD = """
import sys
from pathlib import Path
from staf.io import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def place(base: Base, tiny_folder: Path, own: Path, tmp_path: Path) -> dict[str, Any]:
    for seed, name in enumerate(("attribute", "relation")):
        save_expert(tmp_path / "experts" / name, random_expert(base, name, seed))
    save_expert(tmp_path / "newcomer", random_expert(base, "news", 3))
    (tmp_path / "notes.jsonl").write_text('{"context": "The hoof is broken.", "labels": ["yes", "no"]}\n')
    context = Context(str(tiny_folder), own, tmp_path / "runs", compute=ComputeOptions(dtype="float32"))
    return {
        "context": context,
        "at": tmp_path,
        "experts": load_experts(tmp_path / "experts"),
        "task": context.find_task("medmcqa"),
    }


def train(place: dict[str, Any]) -> object:
    return train_stage(place["context"], "multiple_choice", ExpertRecipe(steps=2, tinit=0, tfinal=0), place["at"] / "experts")


def adapt(place: dict[str, Any]) -> object:
    recipe = RouterRecipe(method="cma", shots=4, max_evaluations=4, popsize=4)
    return adapt_stage(place["context"], place["task"], place["experts"], recipe, place["at"] / "router")


def answer(place: dict[str, Any]) -> object:
    return predict_file(place["context"], place["at"] / "notes.jsonl", place["at"] / "answers.jsonl", task=place["task"])


def add(place: dict[str, Any]) -> ExpertSet:
    return add_expert(place["at"] / "experts", place["at"] / "newcomer")


def remove(place: dict[str, Any]) -> object:
    return remove_expert(place["at"] / "experts", "relation")


def reduce(place: dict[str, Any]) -> object:
    return write_set(place["at"] / "smaller", place["experts"].experts)


@pytest.mark.parametrize(
    ("work", "output"),
    [
        (answer, "answers.jsonl"),
        (add, "experts/news"),
        (remove, "experts/relation"),
        (reduce, "smaller"),
    ],
)
def test_the_second_process_is_refused_with_the_owners_name_and_changes_nothing(
    place: dict[str, Any], work: Callable[[dict[str, Any]], object], output: str
) -> None:
    target = place["at"] / output
    command = [sys.executable, "-c", HOLD, str(target)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "locked\n"
        before = sorted(place["at"].rglob("*"))
        with pytest.raises(StafError, match=f"{target.name} is being written by process {owner.pid} on "):
            work(place)
        assert [path for path in sorted(place["at"].rglob("*")) if "runs" not in path.parts] == before
        owner.communicate()
    work(place)


def prepared(place: dict[str, Any]) -> object:
    return prepare("medmcqa", place["context"].data)


@pytest.mark.parametrize(
    ("work", "output"),
    [(train, "experts/multiple_choice"), (adapt, "router/router.json"), (prepared, "cache/prepared/medmcqa")],
)
def test_what_another_process_makes_is_waited_for(
    place: dict[str, Any], monkeypatch: pytest.MonkeyPatch, work: Callable[[dict[str, Any]], object], output: str
) -> None:
    monkeypatch.setenv("STAF_CACHE", str(place["at"] / "cache"))
    (place["at"] / output).parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", HOLD, str(place["at"] / output)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "locked\n"
        waiting = threading.Thread(target=work, args=(place,))
        waiting.start()
        waiting.join(3)
        assert waiting.is_alive()
        assert not any((place["at"] / "runs").rglob("result.json"))
        owner.communicate()
    waiting.join(120)
    assert not waiting.is_alive()
