"""The numbers of each step: JSON lines without a step twice, and reporters that need not be installed."""

from __future__ import annotations

import errno
import io
import json
import os
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from staf.compute import ComputeOptions
from staf.data.card import builtin_cards
from staf.errors import MissingData, StafError, UnknownName
from staf.experts.recipe import ExpertRecipe
from staf.experts.store import load_expert
from staf.experts.train import StepReport
from staf.log import REPORTERS, Terminal, json_lines, open_reporter
from staf.stages.context import Context
from staf.stages.training import train_stage

NUMBERS = {"loss": 0.5, "kept": 12}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def log(path: Path, *steps: int) -> None:
    with json_lines(path) as report:
        for step in steps:
            report(step, NUMBERS)


def test_every_step_is_a_line_as_soon_as_it_is_done(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "metrics.jsonl"
    with json_lines(path) as report:
        for step in (1, 2):
            report(step, NUMBERS)
            assert lines(path)[-1] == {"step": step, **NUMBERS}


def test_no_step_is_there_twice_after_a_stop_and_a_torn_line_goes(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log(path, 1, 2, 3, 4, 5)
    path.write_text(path.read_text() + '{"step": 6, "lo')
    log(path, 4, 5, 6)
    assert [line["step"] for line in lines(path)] == [1, 2, 3, 4, 5, 6]
    path.write_text(path.read_text() + "[]\n{}\nnothing\n" + '{"step": "one"}\n')
    log(path, 7)
    assert [line["step"] for line in lines(path)] == [1, 2, 3, 4, 5, 6, 7]
    log(path, 1)
    assert [line["step"] for line in lines(path)] == [1]


def test_work_that_takes_long_says_so_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("staf.log.BEAT", 0.05)
    with Terminal().bar("adapt triage", 200) as bar:
        time.sleep(0.2)
        bar.advance(3, "loss 0.5")
        time.sleep(0.2)
    said = capsys.readouterr().err.splitlines()
    assert 4 <= len(said) <= 9
    assert said[0] == "adapt triage: 0/200, 0 s"
    assert said[-1].startswith("adapt triage: 3/200, 0 s, ")
    assert said[-1].endswith("s left  loss 0.5")
    time.sleep(0.1)
    assert not capsys.readouterr().err


def test_a_reporter_that_never_logs_leaves_no_file(tmp_path: Path) -> None:
    log(tmp_path / "metrics.jsonl")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "open", lambda *_, **__: Full())
    message = r"metrics\.jsonl: No space left on device\..*the checkpoints are intact"
    with json_lines(tmp_path / "metrics.jsonl") as report, pytest.raises(StafError, match=message):
        report(1, NUMBERS)


class Calls(ModuleType):
    """A module that takes every call and keeps it."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*arguments: Any, **options: Any) -> Calls:
            self.calls.append((name, arguments, options))
            return self

        return call

    def named(self, name: str) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        return [(arguments, options) for called, arguments, options in self.calls if called == name]


@pytest.fixture
def fake(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Calls:
    module = Calls(REPORTERS[request.param][0])
    monkeypatch.setitem(sys.modules, REPORTERS[request.param][0], module)
    return module


@pytest.mark.parametrize("fake", ["tensorboard"], indirect=True)
def test_tensorboard_gets_scalars_and_drops_what_a_stopped_run_left(fake: Calls, tmp_path: Path) -> None:
    with open_reporter("tensorboard", tmp_path, "colour", {"seed": 3}) as report:
        report(5, NUMBERS)
        report(6, NUMBERS)
    assert fake.named("SummaryWriter") == [((), {"log_dir": str(tmp_path / "tensorboard"), "purge_step": 5})]
    assert [arguments for arguments, _ in fake.named("add_scalar")] == [
        ("loss", 0.5, 5), ("kept", 12, 5), ("loss", 0.5, 6), ("kept", 12, 6),
    ]  # fmt: skip
    assert '"seed": 3' in fake.named("add_text")[0][0][1]
    assert fake.calls[-1][0] == "close"


@pytest.mark.parametrize("fake", ["mlflow"], indirect=True)
def test_mlflow_gets_metrics_by_step_and_the_settings(fake: Calls, tmp_path: Path) -> None:
    with open_reporter("mlflow", tmp_path, "colour", {"seed": 3}) as report:
        report(5, NUMBERS)
    assert fake.calls == [
        ("set_experiment", ("staf",), {}), ("start_run", (), {"run_name": "colour"}), ("log_params", ({"seed": 3},), {}),
        ("log_metrics", (NUMBERS,), {"step": 5}), ("end_run", (), {}),
    ]  # fmt: skip


@pytest.mark.parametrize("fake", ["wandb"], indirect=True)
def test_weights_and_biases_goes_on_with_the_run_of_the_same_settings(fake: Calls, tmp_path: Path) -> None:
    for _ in range(2):
        with open_reporter("wandb", tmp_path / "seed0-abc", "colour", {"seed": 3}) as report:
            report(5, NUMBERS)
    first, second = fake.named("init")
    assert first == second
    assert first[1] | {"dir": ""} == {
        "project": "staf", "name": "colour", "id": "colour-seed0-abc", "resume": "allow", "config": {"seed": 3}, "dir": "",
    }  # fmt: skip
    assert fake.named("log")[0] == ((NUMBERS,), {"step": 5})
    assert fake.calls[-1][0] == "finish"


@pytest.mark.parametrize("kind", sorted(REPORTERS))
def test_one_that_is_not_installed_says_how_to_get_it(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, REPORTERS[kind][0], None)
    with pytest.raises(MissingData, match=rf"--report-to {kind} needs .* not installed here\. Get it: pip install {kind}"):
        open_reporter(kind, tmp_path, "colour", {})


def test_an_unknown_one_is_answered_with_near_ones(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match=r"no reporter 'tensorbord'.*'tensorboard'"):
        open_reporter("tensorbord", tmp_path, "colour", {})


@pytest.mark.parametrize("fake", ["mlflow"], indirect=True)
def test_a_training_that_was_stopped_keeps_every_step_once(
    fake: Calls, tiny_folder: Path, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ExpertRecipe(steps=12, batch_size=4, tinit=2, tfinal=4, max_length=500, learning_rate=0.01)
    context = Context(str(tiny_folder), own, tmp_path / "runs", compute=ComputeOptions(dtype="float32", save_steps=5))
    numbers = StepReport.numbers

    def stopping(report: StepReport) -> dict[str, float]:
        if report.step == 9:
            raise KeyboardInterrupt
        return numbers.fget(report)  # type: ignore[misc]

    with monkeypatch.context() as patch:
        patch.setattr(StepReport, "numbers", property(stopping))
        with pytest.raises(KeyboardInterrupt):
            train_stage(context, "entity_relation", settings, tmp_path / "experts", "mlflow")
    (path,) = (tmp_path / "runs").rglob("metrics.jsonl")
    assert [line["step"] for line in lines(path)] == list(range(1, 9))
    assert fake.calls[-1][0] == "end_run"
    train_stage(context, "entity_relation", settings, tmp_path / "experts", "mlflow")
    licences = load_expert(tmp_path / "experts" / "entity_relation").record["licences"]
    assert licences == {name: builtin_cards()[name].licence for name in licences}
    assert "hpo" in licences
    found = lines(path)
    assert [line["step"] for line in found] == list(range(1, 13))
    assert set(found[0]) == {"step", "loss", "penalty", "kept", "tokens", "tokens_per_second", "learning_rate"}
    result = json.loads((path.parent / "result.json").read_text())
    assert [[line["step"], line["loss"]] for line in found] == result["curve"]
    assert sum(line["tokens"] for line in found) == result["tokens"]
    assert [options["step"] for _, options in fake.named("log_metrics")][8:] == list(range(6, 13))
