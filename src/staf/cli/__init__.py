"""The command line: each command parses its options, calls one function and prints the result.

Results go to stdout, progress and warnings to stderr. Exit code 0: done; 1: failed, with one message; 2: wrong usage.
torch, transformers and duckdb are imported by the commands that need them, so that help is fast.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from staf import __version__
from staf.cli import adaptation, data, evaluation, experts, reports, tasks, training
from staf.cli.options import App
from staf.errors import StafError
from staf.lm.malloc import configure_allocator


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"staf {__version__}")
        raise typer.Exit


app = App(
    "Medical language models from low-rank experts trained once and a small router per task.\n\nBegin with:  staf env",
    name="staf",
)


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of every command."""


for name, group in (("tasks", tasks), ("data", data), ("experts", experts)):
    app.add_typer(group.app, name=name)
for command in (
    reports.env, training.train, adaptation.adapt, evaluation.evaluate, evaluation.predict, evaluation.merge, reports.report,
    reports.demo, reports.reproduce,
):  # fmt: skip
    app.command()(command)
app.command("fuse", hidden=True)(evaluation.merge)


def main() -> None:
    """Run the command line and exit with its code."""
    configure_allocator()
    try:
        app()
    except StafError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("Interrupted. Re-run the command to resume.", file=sys.stderr)
        sys.exit(1)
