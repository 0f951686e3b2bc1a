"""Checkpoints of a training or an adaptation: the two newest ones, each a bundle in a folder of its own.

    <folder>/step-00000050/checkpoint.json, checkpoint-<sha>.safetensors
    <folder>/step-00000100/...

A stop inside a save leaves a folder without a record, and beside it the checkpoint before, whole. A training goes on from the
newest one that is whole and its own, and tells which it passed over and why; it never goes on from a part of a state.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from torch import Tensor

from staf.checkpoint_io import read_checkpoint, write_checkpoint
from staf.errors import DamagedFile, MissingData
from staf.io import sync_folder, write_bytes

KIND = "checkpoint"

Log = Callable[[str], None]
State = tuple[dict[str, Tensor], dict[str, Any]]
"""Tensors by name, and the record."""


class Checkpoints:
    """The checkpoints of one training, or of one restart of an adaptation, in a folder.

    Args:
        folder: made where it is not there. run: names the work; checkpoints of another one are not gone on with.
        log: told what was passed over, and why.

    Raises:
        StafError: the folder cannot be written.
    """

    def __init__(self, folder: Path, run: str, log: Log) -> None:
        self.folder, self.run, self.log = folder, run, log
        self.newest: Path | None = None
        probe = folder / "probe"
        write_bytes(probe, b"")
        probe.unlink(missing_ok=True)  # another process of this training may have done so

    def save(self, step: int, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
        """Keep the state after `step`, and the checkpoint before it; older ones are removed once all is on disk.

        Raises:
            StafError: the disk is full or the folder read-only; the checkpoints that were there are untouched.
        """
        place = self._place(step)
        write_checkpoint(place, KIND, tensors, {**record, "run": self.run})
        sync_folder(self.folder)
        for old in self._all():
            if old not in (place, self.newest):
                shutil.rmtree(old, ignore_errors=True)
        self.newest = place

    def has(self, step: int) -> bool:
        """True where the newest checkpoint is the one after `step`."""
        return self.newest == self._place(step)

    def load(self, tensors: Collection[str], record: Collection[str]) -> State | None:
        """The newest checkpoint that is whole and of this training; None where the training is to begin at the start.

        Args:
            tensors, record: names that a whole checkpoint has.

        Raises:
            DamagedFile: there are checkpoints, and the only ones left are damaged or lack a part.
        """
        damaged = None
        for place in self._all():
            try:
                state = read_checkpoint(place, KIND)
                self._check(place, state, tensors, record)
            except MissingData:
                self.log(f"checkpoint {place.name} passed over: it has no record, its saving was stopped before the end")
            except DamagedFile as error:
                damaged = damaged or error
                self.log(f"checkpoint {place.name} passed over: {error}")
            else:
                if state[1]["run"] == self.run:
                    self.log(f"going on from checkpoint {place.name}")
                    self.newest = place
                    return state
                self.log(f"checkpoint {place.name} passed over: it is of other settings, examples or another base")
        if damaged is not None:
            raise DamagedFile(f"no whole checkpoint in {self.folder}; to begin at the start, delete it. {damaged}") from damaged
        return None

    def _place(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def _all(self) -> list[Path]:
        """Folders of checkpoints, the newest first."""
        return sorted((place for place in self.folder.glob("step-*") if place.is_dir()), reverse=True)

    @staticmethod
    def _check(place: Path, state: State, tensors: Collection[str], record: Collection[str]) -> None:
        missing = sorted((set(tensors) - state[0].keys()) | ({"run", *record} - state[1].keys()))
        if missing:
            raise DamagedFile(f"{place} is not a whole state: {', '.join(missing)} not in it. Delete it, or restore it.")
