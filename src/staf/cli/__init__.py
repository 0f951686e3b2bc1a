"""The command line: each command parses its options, calls one function and prints the result.

Results go to stdout, progress and warnings to stderr. Exit code 0: done; 1: failed, with one message; 2: wrong usage;
130: interrupted.
torch, transformers and duckdb are imported by the commands that need them, so that help is fast.
"""

from __future__ import annotations

import errno
import sys
from typing import Annotated

import typer

from staf import __version__
from staf.cli import compare, data, experts, init, reports, serve, stages
from staf.cli.options import App
from staf.cli.printing import Terminal
from staf.errors import StafError
from staf.lm.malloc import configure_allocator


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"staf {__version__}")
        raise typer.Exit


app = App(
    "staf", reports.env, init.init_task, stages.train, stages.adapt, stages.evaluate, compare.compare, stages.predict,
    stages.merge, serve.serve, stages.export, reports.report, reports.demo, reports.reproduce,
)  # fmt: skip
app.add_typer(App("tasks", data.list_tasks, data.validate, data.show_task))
app.add_typer(App("data", data.list_data, data.fetch, data.prepare, data.show_data, data.export, data.stats))
app.add_typer(App("experts", experts.list_experts, experts.add, experts.remove, experts.reduce))


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of every command."""


def main() -> None:
    """Run the command line and exit with its code."""
    configure_allocator()
    try:
        app()
    except StafError as error:
        Terminal().log(f"{type(error).__name__}: {error}")
        sys.exit(1)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EISDIR, errno.ENOTDIR):
            raise
        Terminal().log(f"StafError: {error.filename or 'a file'}: {error.strerror}. Free some space or name another one.")
        sys.exit(1)
