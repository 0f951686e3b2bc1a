"""The command line: a thin skin. Each command parses, calls one function, prints.

Results go to stdout, progress and warnings to stderr. Exit code 0: done; 1: failed, with one message; 2: wrong use.
Nothing heavy is imported before a command needs it, so that help answers at once.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from staf import __version__
from staf.cli import data, experts, stages, tools
from staf.errors import StafError
from staf.lm.allocator import configure_allocator


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"staf {__version__}")
        raise typer.Exit


app = typer.Typer(
    name="staf",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Medical language models from experts trained once and a few numbers per task.\n\nBegin with:  staf doctor",
)


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of every command."""


app.add_typer(data.app, name="data")
app.add_typer(experts.app, name="experts")
for command in (
    tools.doctor, stages.train, stages.adapt, stages.evaluate, stages.fuse, stages.predict, tools.report, tools.demo,
    tools.reproduce,
):  # fmt: skip
    app.command()(command)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(tools.bench)


def main() -> None:
    """Run the command line and leave the process with its exit code."""
    configure_allocator()
    try:
        app()
    except StafError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("Stopped. The same command goes on where it was.", file=sys.stderr)
        sys.exit(1)
