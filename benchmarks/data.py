"""Large sources at growing size: seconds and memory of `staf data prepare mimic-iii`, and of reading UMLS's RRF, from nothing.

    python benchmarks/data.py --scales 0.01 0.1 1.0 --rows 10000000

Each size is generated (`generate_mimic.py`, `generate_umls.py`) and read in a process of its own with a cache of its own; all
of it is deleted, unless --folder names a place where the tables may stay. No tool makes the same three tasks with the same
cohorts from the same files, so there is no peer; the limit is 180 seconds at full size, and 2 GB of memory.
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

import umls
from generate_mimic import generate

LIMIT = 180.0
"""Seconds for the full size."""

PREPARE = """
import json, sys, time
from pathlib import Path
from staf.data.prepare import prepare
from staf.runs import PeakMemory

memory, started = PeakMemory(), time.perf_counter()
counts = prepare("mimic-iii", Path(sys.argv[1])).counts
print(json.dumps({"seconds": time.perf_counter() - started, "memory": memory.bytes, "counts": counts}))
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
    parser.add_argument("--scales", type=float, nargs="*", default=[0.01, 0.1, 1.0], help="parts of MIMIC-III's size")
    parser.add_argument("--rows", type=int, default=10_000_000, help="rows of RRF at most; 0 leaves them out")
    parser.add_argument("--folder", type=Path, help="where generated tables are kept; a temporary folder if left out")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="staf-bench-data-") as temporary:
        measure_records(options.folder or Path(temporary), options.scales)
    if options.rows:
        umls.measure_sizes(options.rows)


def measure_records(folder: Path, scales: list[float]) -> None:
    """Print what preparing MIMIC-III takes at each scale."""
    for scale in scales:
        data = folder / f"{scale:g}"
        if not (data / "mimic-iii" / "NOTEEVENTS.csv.gz").is_file():
            generate(data / "mimic-iii", scale)
        measured = measure(data, folder)
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
