"""Benchmarks of the repository, run as they are: ours beside the named peer, one JSON object a line.

The scripts live in `benchmarks/`, not in the package, since they bring peers and generated data that no user of the package
needs.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from staf.errors import MissingData, StafError, UnknownName

SCRIPTS = {
    "training": "training.py",
    "adalora": "adalora.py",
    "router": "router.py",
    "experts": "many_experts.py",
    "scoring": "scoring.py",
    "harness": "harness.py",
    "data": "data.py",
}
"""The script of each benchmark."""


def run_bench(name: str, options: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """The results of a benchmark, as they come; what else a script prints goes to stderr.

    Raises:
        UnknownName: there is no such benchmark. MissingData: this is no checkout of the repository.
        StafError: a script failed.
    """
    if name not in SCRIPTS:
        raise UnknownName.among("benchmark", name, SCRIPTS)
    folder = Path(__file__).parents[2] / "benchmarks"
    path = folder / SCRIPTS[name]
    if not path.is_file():
        raise MissingData(f"no {path}: benchmarks come with the repository, not with the package. Clone it and try again.")
    with subprocess.Popen([sys.executable, str(path), *options], stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            if line.startswith('{"bench"'):
                yield json.loads(line)
            else:
                print(line, end="", file=sys.stderr)
    if process.returncode:
        raise StafError(f"{path.name} stopped with exit code {process.returncode}; its last lines say why.")
