"""Checkpoints: two are kept, the newest whole one is gone on with, and no stop, kill or full disk costs more than steps."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import make_examples
from kill import kill_at_wait
from safetensors.torch import load_file, save_file

from staf.checkpoint_io import read_checkpoint, write_checkpoint
from staf.compute import ComputeOptions
from staf.errors import DamagedFile, StafError
from staf.experts.checkpoint import KIND, Checkpoints
from staf.experts.recipe import ExpertRecipe
from staf.experts.store import Expert
from staf.experts.train import StepReport, train_expert
from staf.lm.base import Base, load_base

SETTINGS = ExpertRecipe(
    steps=30, batch_size=6, initial_rank=4, target_rank=2, tinit=5, tfinal=10, learning_rate=0.02, lora_scaling=4.0,
    max_length=160,
)  # fmt: skip
OPTIONS = ComputeOptions(save_steps=7)
EXAMPLES = 24
SLOW = pytest.mark.slow


class Killed(BaseException):
    """Not an Exception: nothing may catch it, as nothing catches a kill."""


def train(base: Base, folder: Path, said: list[str] | None = None, stop: int | None = None) -> Expert:
    def on_step(report: StepReport) -> None:
        if report.step == stop:
            raise Killed

    log = None if said is None else said.append
    return train_expert(
        base, "colour", make_examples(EXAMPLES), SETTINGS, folder, on_step, log, options=ComputeOptions(save_steps=7)
    )


def stopped(base: Base, folder: Path, step: int) -> Path:
    with pytest.raises(Killed):
        train(base, folder, stop=step)
    return folder


def steps_in(folder: Path) -> list[str]:
    return sorted(place.name for place in folder.glob("step-*"))


@pytest.fixture(scope="module")
def whole(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Fingerprint of the expert of a run that nothing stopped."""
    base = load_base(str(tiny_folder), dtype="float32", device="cpu")
    return train(base, tmp_path_factory.mktemp("whole")).fingerprint


def test_the_two_newest_are_kept(base: Base, tmp_path: Path) -> None:
    assert steps_in(stopped(base, tmp_path / "a", 9)) == ["step-00000007"]
    assert steps_in(stopped(base, tmp_path / "b", 25)) == ["step-00000014", "step-00000021"]
    train(base, tmp_path / "b")
    assert steps_in(tmp_path / "b") == ["step-00000028", "step-00000030"]
    assert [p.name for p in (tmp_path / "b").iterdir() if not p.name.startswith("step-")] == []


def cut(place: Path) -> None:
    (path,) = place.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-9])


def unrecorded(place: Path) -> None:
    (place / "checkpoint.json").unlink()


def without_tensors(place: Path) -> None:
    next(place.glob("*.safetensors")).unlink()


def without_a_moment(place: Path) -> None:
    tensors, record = read_checkpoint(place, KIND)
    del tensors["exp_avg_sq"]
    shutil.rmtree(place)
    write_checkpoint(place, KIND, tensors, record)


def of_another_run(place: Path) -> None:
    tensors, record = read_checkpoint(place, KIND)
    write_checkpoint(place, KIND, tensors, record | {"run": "other"})


def with_an_altered_record(place: Path) -> None:
    record = json.loads((place / "checkpoint.json").read_text())
    (place / "checkpoint.json").write_text(json.dumps(record | {"run": "other"}))


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (cut, "is truncated"),
        (unrecorded, "its saving was interrupted"),
        (without_tensors, "which is not there"),
        (without_a_moment, "is not a complete state: exp_avg_sq not in it"),
        (of_another_run, "of other settings, examples or another base"),
        (with_an_altered_record, "was altered: its SHA-256 is not the one that was written"),
    ],
)
def test_the_newest_complete_checkpoint_is_resumed_and_the_reason_is_logged(
    base: Base, tmp_path: Path, whole: str, damage: Callable[[Path], None], why: str
) -> None:
    folder = stopped(base, tmp_path / "run", 25)
    damage(folder / "step-00000021")
    said: list[str] = []
    assert train(base, folder, said).fingerprint == whole
    assert len(said) == 2
    assert said[0].startswith("checkpoint step-00000021 skipped: ")
    assert why in said[0]
    assert said[1] == "resuming from checkpoint step-00000014"
    assert steps_in(folder) == ["step-00000028", "step-00000030"]


def test_where_none_is_whole_it_is_an_error_and_nothing_is_lost(base: Base, tmp_path: Path) -> None:
    folder = stopped(base, tmp_path, 25)
    cut(folder / "step-00000014")
    without_a_moment(folder / "step-00000021")
    with pytest.raises(DamagedFile, match=r"(?s)no intact checkpoint in .*start over, delete it\..*exp_avg_sq not in it"):
        train(base, folder)
    assert steps_in(folder) == ["step-00000014", "step-00000021"]


def test_a_first_save_that_was_stopped_begins_at_the_start(base: Base, tmp_path: Path, whole: str) -> None:
    folder = stopped(base, tmp_path / "run", 9)
    unrecorded(folder / "step-00000007")
    said: list[str] = []
    assert train(base, folder, said).fingerprint == whole
    assert len(said) == 1


def test_what_another_run_left_is_never_mixed_with_ours(base: Base, tmp_path: Path, whole: str) -> None:
    """Its step is higher than all of ours, so that it looks newer for good."""
    checkpoints = Checkpoints(tmp_path / "run", "other", lambda text: None)
    tensors, record = read_checkpoint(stopped(base, tmp_path / "old", 9) / "step-00000007", KIND)
    checkpoints.save(5000, tensors, record)
    stopped(base, tmp_path / "run", 16)
    assert steps_in(tmp_path / "run") == ["step-00000007", "step-00000014", "step-00005000"]  # and is never deleted
    assert train(base, tmp_path / "run").fingerprint == whole


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        ("fsync", errno.ENOSPC),
        ("replace", errno.EROFS),
        pytest.param("fsync", errno.EROFS, marks=SLOW),
        pytest.param("replace", errno.ENOSPC, marks=SLOW),
    ],
)
def test_a_full_or_read_only_disk_is_one_line_and_the_old_checkpoint_is_intact(
    base: Base, tmp_path: Path, whole: str, monkeypatch: pytest.MonkeyPatch, broken: str, code: int
) -> None:
    folder = stopped(base, tmp_path / "run", 9)
    before = {path: path.read_bytes() for path in folder.rglob("*.*")}

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    def on_step(report: StepReport) -> None:
        if report.step == 14:
            monkeypatch.setattr(f"staf.io.os.{broken}", fail)

    with pytest.raises(StafError) as caught:
        train_expert(base, "colour", make_examples(EXAMPLES), SETTINGS, folder, on_step, options=OPTIONS)
    monkeypatch.undo()
    message = str(caught.value)
    assert "\n" not in message
    assert f"{os.strerror(code)}. Nothing was changed there" in message
    assert {path: path.read_bytes() for path in folder.rglob("*.*")} == before
    assert train(base, folder).fingerprint == whole


def test_a_folder_that_cannot_be_written_is_refused_before_the_first_step(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []

    def fail(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("staf.io.os.replace", fail)
    with pytest.raises(StafError, match="Read-only file system"):
        train_expert(base, "colour", make_examples(EXAMPLES), SETTINGS, tmp_path, lambda report: steps.append(report.step))
    assert steps == []


def test_numbers_that_no_training_has_are_never_gone_on_with(base: Base, tmp_path: Path, whole: str) -> None:
    folder = stopped(base, tmp_path / "run", 16)
    (path,) = (folder / "step-00000014").glob("*.safetensors")
    tensors = load_file(path)
    tensors["exp_avg"][3] = float("nan")
    save_file(tensors, path)
    said: list[str] = []
    assert train(base, folder, said).fingerprint == whole
    assert said[1] == "resuming from checkpoint step-00000007"


@pytest.mark.parametrize("deadly", [pytest.param(3, marks=SLOW), 10, pytest.param(14, marks=SLOW)])
def test_kill_9_inside_a_save_then_the_same_command_ends_with_the_same_bytes(
    base: Base, tmp_path: Path, whole: str, deadly: int
) -> None:
    """The disk is waited for twice when training begins, and five times a save: 3 is before the tensors of the first one are
    in place, 10 before the record of the second, 14 just after the tensors of the third.
    """
    folder = tmp_path / "killed"
    kill_at_wait(deadly, lambda: train(base, folder))
    said: list[str] = []
    steps: list[int] = []
    expert = train_expert(
        base, "colour", make_examples(EXAMPLES), SETTINGS, folder, lambda r: steps.append(r.step), said.append, options=OPTIONS
    )  # fmt: skip
    assert expert.fingerprint == whole
    assert steps[0] == (deadly - 3) // 5 * 7 + 1
    assert "its saving was interrupted" in said[0]
    assert not list(folder.rglob("*.tmp"))
