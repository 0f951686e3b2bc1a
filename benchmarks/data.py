"""The clinical tasks from tables at growing size: seconds and memory of `staf data prepare mimic-iii`, from nothing.

    python benchmarks/data.py FOLDER --scales 0.01 0.1 1.0

Each size is generated into FOLDER (`generate_mimic.py`, where it is not there yet) and prepared in a process of its own with
a cache of its own, which is deleted. No tool makes the same three tasks with the same cohorts from the same files, so there is
no peer; the limit is 180 seconds at full size, and 2 GB of memory.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from generate_mimic import generate

LIMIT = 180.0
"""Seconds for the full size."""

PREPARE = """
import json, resource, sys, time
from pathlib import Path
from staf.data.prepare import prepare

started = time.perf_counter()
counts = prepare("mimic-iii", Path(sys.argv[1])).counts
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(json.dumps({"seconds": time.perf_counter() - started, "memory": memory, "counts": counts}))
"""


def measure(data: Path, cache: Path) -> dict[str, Any]:
    """Seconds, peak memory and counts of preparing `data`/mimic-iii in a fresh process."""
    with tempfile.TemporaryDirectory(dir=cache) as home:
        done = subprocess.run(
            [sys.executable, "-c", PREPARE, str(data)],
            env=os.environ | {"STAF_CACHE": home},
            check=True,
            capture_output=True,
            text=True,
        )
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scales", type=float, nargs="+", default=[0.01, 0.1, 1.0])
    options = parser.parse_args()
    for scale in options.scales:
        data = options.folder / f"{scale:g}"
        if not (data / "mimic-iii" / "NOTEEVENTS.csv.gz").is_file():
            generate(data / "mimic-iii", scale)
        measured = measure(data, options.folder)
        print(
            json.dumps(
                {
                    "bench": "data",
                    "case": "mimic-iii" if scale == 1 else f"mimic-iii at 1/{1 / scale:g}",
                    "ours": round(measured["seconds"], 1),
                    "peer": None,
                    "unit": "s",
                    "ratio": None,
                    "share_of_limit": round(measured["seconds"] / LIMIT, 2) if scale == 1 else None,
                    "machine": f"{platform.machine()}, {os.cpu_count()} processors",
                    "peak_memory_bytes": measured["memory"],
                    "examples": sum(sum(splits.values()) for splits in measured["counts"].values()),
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
