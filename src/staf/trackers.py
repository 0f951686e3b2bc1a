"""Where the numbers of each training step go: JSON lines beside the result, and the tracker that the user already has.

A tracker is given plain numbers by name and, once, the settings; no text of an example ever reaches one. What was stopped goes
on where its checkpoint was, so steps come again: JSON lines and TensorBoard drop the old ones, MLflow gets a new run of the
same name from the first step on that is done again, and Weights & Biases goes on with the run and keeps the first of a step.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TextIO

from staf.errors import MissingData, StafError, UnknownName
from staf.files import write_bytes

Numbers = Mapping[str, float]


class Tracker(Protocol):
    """Takes the numbers of steps, in order."""

    def log(self, step: int, numbers: Numbers) -> None:
        """What step `step` (counted from 1) gave."""

    def close(self) -> None:
        """Nothing follows."""


class JsonLines:
    """One JSON object a step in a file, {"step": 1, ...}; each line is there as soon as its step is done.

    Lines of the first step that is logged and of later ones, which a stopped run left, are dropped, and so is a torn line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stream: TextIO | None = None

    def log(self, step: int, numbers: Numbers) -> None:
        """Append a line.

        Raises:
            StafError: the disk is full or the folder read-only.
        """
        try:
            if self.stream is None:
                write_bytes(self.path, "".join(self._before(step)).encode())
                self.stream = self.path.open("a", encoding="utf-8")
            self.stream.write(json.dumps({"step": step, **numbers}) + "\n")
            self.stream.flush()
        except OSError as error:
            raise StafError(
                f"cannot write {self.path}: {error.strerror or error}. The checkpoints are whole: "
                "free some space or choose another --runs folder, and run the same command again."
            ) from error

    def close(self) -> None:
        """Close the file."""
        if self.stream is not None:
            self.stream.close()

    def _before(self, step: int) -> list[str]:
        if not self.path.is_file():
            return []
        lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        return [line for line in lines if line.endswith("\n") and _step_of(line) < step]


def _step_of(line: str) -> float:
    """The step of a line; infinite where the line tells none."""
    try:
        found = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return float("inf")
    return found if isinstance(found, int) else float("inf")


class _TensorBoard:
    def __init__(self, module: Any, folder: Path, name: str, settings: Mapping[str, Any]) -> None:
        self.module, self.folder, self.title, self.settings = module, folder / "tensorboard", name, settings
        self.writer: Any = None

    def log(self, step: int, numbers: Numbers) -> None:
        if self.writer is None:
            self.writer = self.module.SummaryWriter(log_dir=str(self.folder), purge_step=step)
            self.writer.add_text("settings", json.dumps(dict(self.settings), indent=2, default=str))
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


class _MLflow:
    def __init__(self, module: Any, folder: Path, name: str, settings: Mapping[str, Any]) -> None:
        self.module = module
        module.set_experiment("staf")
        module.start_run(run_name=name)
        module.log_params(dict(settings))

    def log(self, step: int, numbers: Numbers) -> None:
        self.module.log_metrics(dict(numbers), step=step)

    def close(self) -> None:
        self.module.end_run()


class _WeightsAndBiases:
    def __init__(self, module: Any, folder: Path, name: str, settings: Mapping[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.run = module.init(
            project="staf", name=name, id=f"{name}-{folder.name}", resume="allow", config=dict(settings), dir=str(folder)
        )

    def log(self, step: int, numbers: Numbers) -> None:
        self.run.log(dict(numbers), step=step)

    def close(self) -> None:
        self.run.finish()


TRACKERS: dict[str, tuple[str, str, type[_TensorBoard] | type[_MLflow] | type[_WeightsAndBiases]]] = {
    "tensorboard": ("torch.utils.tensorboard", "tensorboard", _TensorBoard),
    "mlflow": ("mlflow", "mlflow", _MLflow),
    "wandb": ("wandb", "wandb", _WeightsAndBiases),
}
"""Name on the command line: the module, the package that brings it, and our side of it."""


def check_tracker(kind: str) -> Any:
    """The module of a tracker.

    Raises:
        UnknownName: there is no such tracker. MissingData: its package is not installed.
    """
    if kind not in TRACKERS:
        raise UnknownName.among("tracker", kind, TRACKERS)
    module, package, _ = TRACKERS[kind]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingData(
            f"--track {kind} needs the package {package}, which is not installed here. "
            f"Get it: pip install {package}. Without it the numbers of each step are in metrics.jsonl beside the result."
        ) from error


def open_tracker(kind: str, folder: Path, name: str, settings: Mapping[str, Any]) -> Tracker:
    """A tracker for one training.

    Args:
        folder: of the run. name: what the training is called there. settings: kept beside the numbers.

    Raises:
        UnknownName, MissingData: as `check_tracker`.
    """
    module = check_tracker(kind)
    tracker: Tracker = TRACKERS[kind][2](module, folder, name, settings)
    return tracker
