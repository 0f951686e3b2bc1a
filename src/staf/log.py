"""Progress of long work, and the numbers of each training step: JSON lines, TensorBoard, MLflow, Weights & Biases.

A reporter gets numbers by name and the settings once; it never gets text of an example. After a resume, steps are reported
again: JSON lines and TensorBoard drop the earlier ones, MLflow gets a new run of the same name, and Weights & Biases continues
the run and keeps the first value of a step.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TextIO

from staf.errors import MissingData, StafError, UnknownName
from staf.io import write_bytes

Log = Callable[[str], None]
"""Takes one line about what was done or skipped."""
Numbers = Mapping[str, float]


class Bar(Protocol):
    """A progress bar."""

    def advance(self, done: int, note: str = "") -> None:
        """Report `done` more finished units."""


class Progress:
    """Shows how work proceeds; this base class shows nothing."""

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Bar]:
        """A bar of `total` units for the time of a `with` block."""
        yield TextBar(lambda text: None, title, total)

    def log(self, text: str) -> None:
        """Show one line."""


NullProgress = Progress


class StderrProgress(Progress):
    """Writes lines to stderr, for processes whose output is gathered."""

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Bar]:
        """A bar as lines."""
        yield TextBar(self.log, title, total)

    def log(self, text: str) -> None:
        """Write the line."""
        print(text, file=sys.stderr, flush=True)


class TextBar:
    """A bar as lines, one for each tenth of the work."""

    def __init__(self, log: Log, title: str, total: int) -> None:
        self.log, self.title, self.total, self.done, self.logged = log, title, total, 0, 0
        self.started = time.perf_counter()

    def advance(self, done: int, note: str = "") -> None:
        """Report `done` more finished units."""
        self.done += done
        tenth = self.done * 10 // max(self.total, 1)
        if tenth > self.logged:
            self.logged = tenth
            seconds = time.perf_counter() - self.started
            left = seconds * (self.total - self.done) / self.done
            self.log(f"{self.title}: {self.done}/{self.total}, {seconds:.0f} s, {left:.0f} s left  {note}".rstrip())


class Reporter(Protocol):
    """Takes the numbers of training steps, in order."""

    def log(self, step: int, numbers: Numbers) -> None:
        """Take the numbers of step `step`, counted from 1."""

    def close(self) -> None:
        """Finish."""


class JsonLines:
    """Writes one JSON object a step, {"step": 1, ...}, flushed after each.

    At the first step, lines of this and later steps, which an interrupted run left, are dropped, and incomplete lines too.
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
                write_bytes(self.path, "".join(self._earlier(step)).encode())
                self.stream = self.path.open("a", encoding="utf-8")
            self.stream.write(json.dumps({"step": step, **numbers}) + "\n")
            self.stream.flush()
        except OSError as error:
            raise StafError(
                f"cannot write {self.path}: {error.strerror or error}. The checkpoints are intact: "
                "free some space or choose another --runs folder, and re-run the command to resume."
            ) from error

    def close(self) -> None:
        """Close the file."""
        if self.stream is not None:
            self.stream.close()

    def _earlier(self, step: int) -> list[str]:
        if not self.path.is_file():
            return []
        lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        return [line for line in lines if line.endswith("\n") and _step_of(line) < step]


def _step_of(line: str) -> float:
    """The step of a line; infinite where it has none."""
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


REPORTERS: dict[str, tuple[str, type[_TensorBoard] | type[_MLflow] | type[_WeightsAndBiases]]] = {
    "tensorboard": ("torch.utils.tensorboard", _TensorBoard),
    "mlflow": ("mlflow", _MLflow),
    "wandb": ("wandb", _WeightsAndBiases),
}
"""By name on the command line, which is also the package's: the module that is imported, and the class that reports."""


def check_reporter(name: str) -> Any:
    """The module of a reporter.

    Raises:
        UnknownName: there is no such reporter. MissingData: its package is not installed.
    """
    if name not in REPORTERS:
        raise UnknownName.among("reporter", name, REPORTERS)
    try:
        return importlib.import_module(REPORTERS[name][0])
    except ImportError as error:
        raise MissingData(
            f"--report-to {name} needs the package {name}, which is not installed here. "
            f"Get it: pip install {name}. Without it the numbers of each step are in metrics.jsonl next to the result."
        ) from error


def open_reporter(name: str, folder: Path, run: str, settings: Mapping[str, Any]) -> Reporter:
    """A reporter of one training.

    Args:
        folder: of the run. run: its name at the reporter. settings: kept with the numbers.

    Raises:
        UnknownName, MissingData: as `check_reporter`.
    """
    module = check_reporter(name)
    reporter: Reporter = REPORTERS[name][1](module, folder, run, settings)
    return reporter
