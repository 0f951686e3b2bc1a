"""Progress of long work, and the numbers of each training step: JSON lines, TensorBoard, MLflow, Weights & Biases.

A reporter gets numbers by name and the settings once; it never gets text of an example. After a resume, steps are reported
again: JSON lines and TensorBoard drop the earlier ones, MLflow gets a new run of the same name, and Weights & Biases continues
the run and keeps the first value of a step.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, TextIO

from staf.errors import MissingData, UnknownName
from staf.io import write_bytes, writing

Log = Callable[[str], None]
"""Takes one line about what was done or skipped."""
Numbers = Mapping[str, float]
CONTROL = {code: f"\\u{code:04x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}
"""Characters that a terminal acts on, as they are printed; names may come from files of others."""


BEAT = 20.0
"""Seconds after which a line says that work goes on."""


class Bar:
    """A progress bar as lines, one for each tenth of the work."""

    def __init__(self, log: Log, title: str, total: int) -> None:
        self.log, self.title, self.total, self.done, self.logged, self.note = log, title, total, 0, 0, ""
        self.started = self.said = time.perf_counter()

    def advance(self, done: int, note: str = "") -> None:
        """Report `done` more finished units."""
        self.done, self.note = self.done + done, note
        tenth = self.done * 10 // max(self.total, 1)
        if tenth > self.logged:
            self.logged = tenth
            self._say()

    @contextmanager
    def beating(self) -> Iterator[Bar]:
        """The bar, which says a line too wherever it said none for `BEAT` seconds."""
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(max(self.said + BEAT - time.perf_counter(), 0.01)):
                if time.perf_counter() - self.said >= BEAT:
                    self._say()

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            ended.set()
            thread.join()

    def _say(self) -> None:
        self.said = time.perf_counter()
        seconds, done = self.said - self.started, self.done
        left = f", {seconds * (self.total - done) / done:.0f} s left" if done else ""
        self.log(f"{self.title}: {done}/{self.total}, {seconds:.0f} s{left}  {self.note}".rstrip())


class Progress:
    """Shows how work proceeds, as lines; this base class drops them."""

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Bar]:
        """A bar of `total` units for the time of a `with` block."""
        yield Bar(self.log, title, total)

    def log(self, text: str) -> None:
        """Show one line."""


NullProgress = Progress


class StderrProgress(Progress):
    """Writes lines to stderr, for processes whose output is gathered."""

    def log(self, text: str) -> None:
        """Write the line."""
        print(text, file=sys.stderr, flush=True)


class Terminal(Progress):
    """Progress bars with time left, on stderr or in a notebook with ipywidgets; elsewhere lines, at least every 20 s."""

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Bar]:
        """A bar of `total` units."""
        if not (sys.stderr.isatty() or ("ipykernel" in sys.modules and importlib.util.find_spec("ipywidgets"))):
            with Bar(self.log, title, total).beating() as bar:
                yield bar
            return
        from rich import progress
        from rich.console import Console

        columns = (
            "{task.description}", progress.BarColumn(bar_width=24), progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(), "left", progress.TimeRemainingColumn(), "{task.fields[note]}",
        )  # fmt: skip
        with progress.Progress(*columns, console=Console(stderr=True, highlight=False), refresh_per_second=4) as shown:
            yield _RichBar(shown, shown.add_task(title.translate(CONTROL), total=total, note=""))

    def log(self, text: str) -> None:
        """One line."""
        print(text.translate(CONTROL), file=sys.stderr, flush=True)


class _RichBar(Bar):
    def __init__(self, shown: Any, task: Any) -> None:
        self.shown, self.task = shown, task

    def advance(self, done: int, note: str = "") -> None:
        """`done` more units are finished."""
        self.shown.update(self.task, advance=done, note=note.translate(CONTROL))


Report = Callable[[int, Numbers], object]
"""Takes the numbers of a training step, counted from 1; a reporter is a context that gives one."""


@contextmanager
def json_lines(path: Path) -> Iterator[Report]:
    """Writes one JSON object a step, {"step": 1, ...}, flushed after each; raises StafError where that cannot be.

    At the first step, lines of this and later steps, which an interrupted run left, are dropped, and incomplete lines too.
    """
    with ExitStack() as opened:
        stream: TextIO | None = None

        def report(step: int, numbers: Numbers) -> None:
            nonlocal stream
            with writing(path, "choose another --runs folder (the checkpoints are intact)"):
                if stream is None:
                    found = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
                    earlier = [line for line in found.splitlines(keepends=True) if _is_before(line, step)]
                    write_bytes(path, "".join(earlier).encode())
                    stream = opened.enter_context(path.open("a", encoding="utf-8"))
                stream.write(json.dumps({"step": step, **numbers}) + "\n")
                stream.flush()

        yield report


def _is_before(line: str, step: int) -> bool:
    try:
        return bool(line.endswith("\n") and json.loads(line)["step"] < step)
    except (ValueError, KeyError, TypeError):
        return False


@contextmanager
def _tensorboard(module: Any, folder: Path, name: str, settings: Mapping[str, Any]) -> Iterator[Report]:
    with ExitStack() as opened:
        writer: Any = None

        def report(step: int, numbers: Numbers) -> None:
            nonlocal writer
            if writer is None:  # only now is it known which steps an interrupted run reported in vain
                writer = module.SummaryWriter(log_dir=str(folder / "tensorboard"), purge_step=step)
                opened.callback(writer.close)
                writer.add_text("settings", json.dumps(dict(settings), indent=2, default=str))
            for number, value in numbers.items():
                writer.add_scalar(number, value, step)

        yield report


@contextmanager
def _mlflow(module: Any, folder: Path, name: str, settings: Mapping[str, Any]) -> Iterator[Report]:
    module.set_experiment("staf")
    module.start_run(run_name=name)
    try:
        module.log_params(dict(settings))
        yield lambda step, numbers: module.log_metrics(dict(numbers), step=step)
    finally:
        module.end_run()


@contextmanager
def _wandb(module: Any, folder: Path, name: str, settings: Mapping[str, Any]) -> Iterator[Report]:
    folder.mkdir(parents=True, exist_ok=True)
    run_id = f"{name}-{folder.name}"
    run = module.init(project="staf", name=name, id=run_id, resume="allow", config=dict(settings), dir=str(folder))
    try:
        yield lambda step, numbers: run.log(dict(numbers), step=step)
    finally:
        run.finish()


REPORTERS = {
    "tensorboard": ("torch.utils.tensorboard", _tensorboard), "mlflow": ("mlflow", _mlflow), "wandb": ("wandb", _wandb),
}  # fmt: skip
"""By name on the command line, which is also the package's: the module that is imported, and what reports to it."""


def check_reporter(name: str) -> Any:
    """The module of a reporter; raises UnknownName, or MissingData where its package is not installed."""
    if name not in REPORTERS:
        raise UnknownName.among("reporter", name, REPORTERS)
    try:
        return importlib.import_module(REPORTERS[name][0])
    except ImportError as error:
        raise MissingData(
            f"--report-to {name} needs the package {name}, which is not installed here. "
            f"Get it: pip install {name}. Without it the numbers of each step are in metrics.jsonl next to the result."
        ) from error


def open_reporter(name: str, folder: Path, run: str, settings: Mapping[str, Any]) -> AbstractContextManager[Report]:
    """A reporter of one training, which the service calls `run`; raises as `check_reporter`."""
    module = check_reporter(name)
    return REPORTERS[name][1](module, folder, run, settings)
