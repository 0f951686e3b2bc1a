"""Checkpoints of a training or an adaptation: the two newest states, each a folder of tensors and a record.

    <folder>/step-00000050/checkpoint.json, checkpoint-<sha>.safetensors
    <folder>/step-00000100/...

A save that is interrupted leaves a folder without a record, and the checkpoint before it is intact. A run resumes from its
newest intact checkpoint and logs which it skipped and why. Checkpoints of other runs are neither read nor deleted.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from staf.checkpoint_io import read_checkpoint, write_checkpoint
from staf.errors import ConfigError, DamagedFile, MissingData, StafError
from staf.io import read_json, sync, write_bytes
from staf.log import Log

KIND = "checkpoint"
State = tuple[dict[str, Tensor], dict[str, Any]]
"""Tensors by name, and the record."""


class Checkpoints:
    """The checkpoints of one training, or of one restart of an adaptation, in a folder.

    Args:
        folder: created if missing. run: names the work; a state of another run is skipped. log: gets what is skipped, and why.
        numerics: dtype, device and threads (`staf.compute.numerics`); a state of others is refused.

    Raises:
        StafError: the folder cannot be written.
    """

    def __init__(self, folder: Path, run: str, log: Log, numerics: Mapping[str, Any] | None = None) -> None:
        self.folder, self.run, self.log, self.numerics = folder, run, log, numerics
        self.newest: Path | None = None
        probe = folder / "probe"
        write_bytes(probe, b"")
        probe.unlink(missing_ok=True)  # another process of this training may have done so

    def save(self, step: int, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
        """Keep the state after `step` and the checkpoint before it; older ones of this run are deleted once all is on disk.

        Raises:
            StafError: the disk is full or the folder read-only; the checkpoints that were there are untouched.
        """
        path = self._path(step)
        write_checkpoint(path, KIND, tensors, {**record, "run": self.run, "numerics": self.numerics})
        sync(self.folder)
        for old in self._all():
            if old not in (path, self.newest) and self._is_own(old):
                shutil.rmtree(old, ignore_errors=True)
        self.newest = path

    def has(self, step: int) -> bool:
        """True if the newest checkpoint is the one after `step`."""
        return self.newest == self._path(step)

    def load(self, tensors: Collection[str], record: Collection[str]) -> State | None:
        """The newest intact checkpoint of this run; None if there is none.

        Args:
            tensors, record: names that a complete checkpoint has; mappings give values of the shapes and types to expect.

        Raises:
            DamagedFile: there are checkpoints, and the only ones left are damaged or incomplete.
            ConfigError: it was computed in another dtype, on another device or with another number of threads.
        """
        damaged = None
        for path in self._all():
            try:
                state = read_checkpoint(path, KIND)
                wrong = [*_unlike(state[0], tensors), *_unlike(state[1], record), *_unlike(state[1], ("run",))]
                if wrong:
                    raise DamagedFile(f"{path} is not a complete state: {', '.join(wrong)}. Delete it, or restore it.")
            except MissingData:
                self.log(f"checkpoint {path.name} skipped: it has no record, its saving was interrupted")
            except DamagedFile as error:
                damaged = damaged or error
                self.log(f"checkpoint {path.name} skipped: {error}")
            else:
                if state[1]["run"] == self.run:
                    self._check_numerics(path, state[1].get("numerics"))
                    self.log(f"resuming from checkpoint {path.name}")
                    self.newest = path
                    return state
                self.log(f"checkpoint {path.name} skipped: it is of other settings, examples or another base")
        if damaged is not None:
            raise DamagedFile(f"no intact checkpoint in {self.folder}; to start over, delete it. {damaged}") from damaged
        return None

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def _all(self) -> list[Path]:
        """Folders of checkpoints, the newest first."""
        return sorted((path for path in self.folder.glob("step-*") if path.is_dir()), reverse=True)

    def _is_own(self, path: Path) -> bool:
        """True if a checkpoint is of this run, or without a record that can be read."""
        try:
            record = read_json(path / f"{KIND}.json")
        except StafError:
            return True
        return not isinstance(record, dict) or record.get("run") == self.run

    def _check_numerics(self, path: Path, found: Any) -> None:
        if self.numerics is None or not found or found == self.numerics:
            return
        then, now = (
            ", ".join(f"{name} {value}" for name, value in sorted(dict(numbers).items()) if value is not None)
            for numbers in (found, self.numerics)
        )
        raise ConfigError(
            f"checkpoint {path} was computed with {then}; this run has {now}. A result of both would be neither's: resume it "
            "as it began (--dtype, OMP_NUM_THREADS), or delete the checkpoint to start over."
        )


def _unlike(found: Mapping[str, Any], expected: Collection[str]) -> list[str]:
    """What is missing in a state, or of another shape or type than in the mapping of what is expected."""
    wrong = sorted(f"{name} not in it" for name in expected if name not in found)
    for name, like in expected.items() if isinstance(expected, Mapping) else ():
        if name not in found:
            continue
        pair = [(tuple(v.shape), str(v.dtype)) if isinstance(v, Tensor) else type(v).__name__ for v in (found[name], like)]
        if pair[0] != pair[1]:
            wrong.append(f"{name} is {pair[0]}, not {pair[1]}")
    return wrong
