"""The state of an adaptation on disk, after every generation or epoch: safetensors and JSON, the two newest ones.

    <router>/checkpoint/restart-0/step-00000012/checkpoint.json, checkpoint-<sha>.safetensors
    <router>/checkpoint/restart-1/...

Of a search (CMA-ES) the losses that it was told, of a descent the numbers with Adam's moments. A restart that came to its end
is gone on with like any other: there is nothing left to evaluate in it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from staf.experts.checkpoint import Checkpoints
from staf.log import Log
from staf.routing.cma import Told
from staf.routing.gradient import DescentState


class Clock:
    """Seconds that an adaptation took, those before it was stopped included."""

    def __init__(self) -> None:
        self.started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return time.perf_counter() - self.started

    def resume(self, seconds: float) -> None:
        """At least `seconds` were taken before."""
        self.started = min(self.started, time.perf_counter() - seconds)


class AdaptationStates:
    """The states of one restart in a folder.

    Args:
        folder: made where it is not there. run: names the adaptation and all that its losses depend on.
        log: told what is gone on with, and what was passed over and why. clock: set back when a state is loaded.

    Raises:
        StafError: the folder cannot be written.
    """

    def __init__(self, folder: Path, run: str, log: Log, clock: Clock) -> None:
        self.checkpoints, self.clock = Checkpoints(folder, run, log), clock

    def told(self) -> Told | None:
        """What a stopped search was told; None where it begins.

        Raises:
            DamagedFile: as `Checkpoints.load`.
        """
        found = self._load(("losses", "judged"), ("candidates",))
        if found is None:
            return None
        tensors, record = found
        return Told(tensors["losses"].numpy(), tensors["judged"].numpy(), record["candidates"])

    def keep_told(self, told: Told) -> None:
        """Keep what a search was told."""
        tensors = {"losses": torch.from_numpy(told.losses), "judged": torch.from_numpy(told.judged)}
        self._save(len(told.judged), tensors, {"candidates": told.candidates})

    def descent(self) -> DescentState | None:
        """A stopped descent; None where it begins.

        Raises:
            DamagedFile: as `Checkpoints.load`.
        """
        found = self._load(("numbers", "first", "second", "best"), ("epochs", "history"))
        if found is None:
            return None
        tensors, record = found
        return DescentState(**tensors, epochs=record["epochs"], history=tuple(record["history"]))

    def keep_descent(self, state: DescentState) -> None:
        """Keep a descent after an epoch."""
        tensors = {"numbers": state.numbers, "first": state.first, "second": state.second, "best": state.best}
        self._save(state.epochs, tensors, {"epochs": state.epochs, "history": list(state.history)})

    def _save(self, step: int, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
        self.checkpoints.save(step, tensors, {**record, "seconds": self.clock.seconds})

    def _load(self, tensors: tuple[str, ...], record: tuple[str, ...]) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        found = self.checkpoints.load(tensors, (*record, "seconds"))
        if found is not None:
            self.clock.resume(found[1]["seconds"])
        return found
