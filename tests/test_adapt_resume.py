"""A stopped adaptation: the state after every generation and epoch, nothing evaluated twice, and the same bytes at the end."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import each, make_examples, three_experts
from hypothesis import given, settings
from hypothesis import strategies as st
from kill import kill_at_wait

from staf.errors import DamagedFile
from staf.lm.base import Base, load_base
from staf.routing.adapt import adapt_router
from staf.routing.cma import fit_cma
from staf.routing.gradient import FitResult, State, fit_gradient
from staf.routing.merge import Mixture
from staf.routing.objective import RouterObjective, TaskLoss
from staf.routing.recipe import RouterRecipe
from staf.routing.store import Router, save_router

SETTINGS = {
    "cma": RouterRecipe(method="cma", max_evaluations=28, popsize=7, restarts=2, val_fraction=0.25),
    "gradient": RouterRecipe(epochs=4, batch_size=8, restarts=2, learning_rate=0.3, granularity="layer", null_expert=True),
}
EXAMPLES = 12


class Killed(BaseException):
    """Not an Exception: nothing may catch it, as nothing catches a kill."""


def searched(
    resume_from: State | None = None,
    on_checkpoint: Callable[[int, State], None] | None = None,
    validate: bool = True,
) -> tuple[FitResult, int]:
    """A search in three dimensions, and how many losses it asked for."""
    calls = 0

    def loss_of(candidate: np.ndarray) -> float:
        nonlocal calls
        calls += 1
        return float(((candidate - np.array([1.0, -2.0, 0.5])) ** 2).sum()) if candidate[0] < 2 else float("nan")

    result = fit_cma(
        each(loss_of), np.zeros(3), RouterRecipe(method="cma", max_evaluations=84, seed=5), resume_from=resume_from,
        on_checkpoint=on_checkpoint, validate=(lambda candidate: float(np.abs(candidate - 1).sum())) if validate else None,
    )  # fmt: skip
    return result, calls


def same_search(one: FitResult, other: FitResult) -> bool:
    return one.best.numpy().tobytes() == other.best.numpy().tobytes() and replace(one, best=other.best) == other


@given(st.integers(1, 12), st.booleans())
@settings(max_examples=15)
def test_a_search_stopped_after_any_generation_ends_alike_and_evaluates_only_the_rest(generation: int, validate: bool) -> None:
    states: list[State] = []
    whole, calls = searched(on_checkpoint=lambda step, state: states.append(state), validate=validate)
    assert len(states) == len(whole.history) == 12
    resumed, again = searched(states[generation - 1], validate=validate)
    assert same_search(resumed, whole)
    assert again == calls - 7 * generation


def test_losses_of_other_candidates_are_refused() -> None:
    states: list[State] = []
    searched(on_checkpoint=lambda step, state: states.append(state))
    with pytest.raises(DamagedFile, match="the 21 losses of the interrupted search belong to other candidates"):
        searched(states[2] | {"losses": states[2]["losses"].flip(1)})
    too_long = {name: torch.cat([tensor, tensor]) for name, tensor in states[-1].items()}
    with pytest.raises(DamagedFile, match="belong to other candidates"):
        searched(too_long)


def descended(
    resume_from: State | None = None, on_checkpoint: Callable[[int, State], None] | None = None
) -> tuple[FitResult, list[int]]:
    """A descent of five epochs of three batches that differ, and the steps that it reported."""
    goals, steps = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.5]]), list[int]()
    result = fit_gradient(
        lambda n, batch: (n - goals[batch]).square().sum(), lambda n: float((n - 0.4).abs().sum()), torch.tensor([3.0, -3.0]),
        RouterRecipe(epochs=5, learning_rate=0.5), batches=lambda epoch: [(epoch + i) % 3 for i in range(3)],
        on_progress=lambda done, _: steps.append(done), resume_from=resume_from, on_checkpoint=on_checkpoint,
    )  # fmt: skip
    return result, steps


@pytest.mark.parametrize("epoch", [1, 2, 3, 4, 5])
def test_a_descent_stopped_after_any_epoch_ends_alike_and_takes_only_the_steps_left(epoch: int) -> None:
    states: list[State] = []
    whole, _ = descended(on_checkpoint=lambda step, state: states.append(state))
    resumed, steps = descended(states[epoch - 1])
    assert resumed.best.numpy().tobytes() == whole.best.numpy().tobytes()
    assert replace(resumed, best=whole.best) == whole
    assert steps == list(range(epoch * 3, 16))


def adapted(base: Base, experts: object, method: str, folder: Path | None, said: list[str] | None = None) -> Router:
    examples = make_examples(EXAMPLES, "adaptation")
    log = None if said is None else said.append
    return adapt_router(Mixture(base, experts), "colour", examples, SETTINGS[method], checkpoint=folder, log=log)


def content(router: Router, folder: Path) -> tuple[bytes, bytes]:
    """The bytes of the record and of the tensor file: all but what it took."""
    save_router(folder, router)
    (path,) = folder.glob("router-*.safetensors")
    return (folder / "router.json").read_bytes(), path.read_bytes()


@pytest.fixture(scope="module")
def wholes(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[bytes, bytes]]:
    """What an adaptation that nothing stopped writes, by method."""
    base = load_base(str(tiny_folder), dtype="float32", device="cpu")
    return {name: content(adapted(base, three_experts(base), name, None), tmp_path_factory.mktemp(name)) for name in SETTINGS}


WAITS = (1, 3, 6, 7, 22, 24, 38, 44)
FAST = {"cma": (1, 24, 44), "gradient": (7, 38)}


@pytest.mark.parametrize(
    ("method", "deadly"),
    [
        pytest.param(method, deadly, marks=[] if deadly in FAST[method] else pytest.mark.slow)
        for method in SETTINGS
        for deadly in WAITS
    ],
)
def test_stopped_at_any_wait_for_the_disk_it_ends_with_the_same_bytes(
    base: Base, experts: object, wholes: dict[str, tuple[bytes, bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    method: str, deadly: int,
) -> None:  # fmt: skip
    """The disk is waited for twice when a restart begins and five times a state: 2 + 4 * 5 for each of the two restarts."""
    real, calls = os.fsync, 0

    def fsync(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls == deadly:
            raise Killed
        real(handle)

    monkeypatch.setattr("staf.io.os.fsync", fsync)
    with pytest.raises(Killed):
        adapted(base, experts, method, tmp_path / "state")
    monkeypatch.setattr("staf.io.os.fsync", real)
    said: list[str] = []
    evaluated = counted(monkeypatch)
    found = adapted(base, experts, method, tmp_path / "state", said)
    assert content(found, tmp_path / "resumed") == wholes[method]
    states = (deadly - 3) // 5 if deadly < 23 else (deadly - 5) // 5  # whole ones: each of the two restarts has two more waits
    left = 8 - max(states, 0)
    if method == "cma":
        assert len(evaluated) in (left * 8, (left - 1) * 8)  # the record of a state may be in place before its last wait
    assert bool(said) == (deadly > 2)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each loss that is computed from now on."""
    calls: list[int] = []
    real = RouterObjective.task_losses

    def task_losses(self: RouterObjective, candidates: list[torch.Tensor], loss: TaskLoss) -> list[float]:
        calls.extend([1] * len(candidates))
        return real(self, candidates, loss)

    monkeypatch.setattr(RouterObjective, "task_losses", task_losses)
    return calls


@pytest.mark.parametrize("method", ["cma", "gradient"])
def test_an_adaptation_that_came_to_its_end_evaluates_nothing_again(
    base: Base, experts: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    first = adapted(base, experts, method, tmp_path / "state")
    evaluated, said = counted(monkeypatch), list[str]()
    again = adapted(base, experts, method, tmp_path / "state", said)
    assert again.weights.numpy().tobytes() == first.weights.numpy().tobytes()
    assert evaluated == []
    assert said == ["resuming from checkpoint step-00000004"] * 2
    assert again.record["seconds"] >= first.record["seconds"] / 2  # the seconds before the stop count


def test_a_state_of_other_settings_examples_or_start_is_not_gone_on_with(base: Base, experts: object, tmp_path: Path) -> None:
    settings = SETTINGS["cma"].model_copy(update={"max_evaluations": 14, "restarts": 1})
    mixture, examples, state = Mixture(base, experts), make_examples(EXAMPLES, "adaptation"), tmp_path / "state"
    first = adapt_router(mixture, "colour", examples, settings, checkpoint=state)
    for changed, chosen, start in (
        (settings.model_copy(update={"seed": 1}), examples, None),
        (settings, [replace(examples[0], context="another"), *examples[1:]], None),
        (settings, examples, first),
    ):
        said: list[str] = []
        fresh = adapt_router(mixture, "colour", chosen, changed, init_from=start)
        found = adapt_router(mixture, "colour", chosen, changed, init_from=start, checkpoint=state, log=said.append)
        assert "skipped: it is of other settings" in said[0]
        assert found.weights.numpy().tobytes() == fresh.weights.numpy().tobytes()


def test_a_damaged_state_is_reported_and_the_one_before_it_is_resumed(base: Base, experts: object, tmp_path: Path) -> None:
    whole = adapted(base, experts, "gradient", tmp_path / "state")
    newest = tmp_path / "state" / "restart-1" / "step-00000004"
    (path,) = newest.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-9])
    said: list[str] = []
    again = adapted(base, experts, "gradient", tmp_path / "state", said)
    assert "step-00000004 skipped" in said[1]
    assert said[2] == "resuming from checkpoint step-00000003"
    assert again.weights.numpy().tobytes() == whole.weights.numpy().tobytes()
    for path in (tmp_path / "state" / "restart-0").glob("*/*.safetensors"):
        path.write_bytes(b"x")
    with pytest.raises(DamagedFile, match=r"no intact checkpoint in .*restart-0; to start over, delete it"):
        adapted(base, experts, "gradient", tmp_path / "state")


@pytest.mark.parametrize(("method", "deadly"), [("cma", 15), ("gradient", 30)])
def test_kill_9_inside_a_state_then_the_same_call_ends_with_the_same_bytes(
    base: Base, experts: object, wholes: dict[str, tuple[bytes, bytes]], tmp_path: Path, method: str, deadly: int
) -> None:
    kill_at_wait(deadly, lambda: adapted(base, experts, method, tmp_path / "state"))
    said: list[str] = []
    found = adapted(base, experts, method, tmp_path / "state", said)
    assert any(line.startswith("resuming from checkpoint") for line in said)
    assert content(found, tmp_path / "resumed") == wholes[method]
