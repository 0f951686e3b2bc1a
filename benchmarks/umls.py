"""Reading the UMLS Metathesaurus: seconds and peak memory at a hundredth, a tenth and all of a number of rows.

    python benchmarks/umls.py --rows 10000000

The files are made up (`generate_umls.py`) and written to a temporary folder. Each size is read in a process of its own,
from the files to the last example, so that its peak memory (resident, as the system counts it) is its own.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from generate_umls import generate


def read_all(folder: Path) -> dict[str, Any]:
    """Read a folder in this process: seconds, examples, and the peak of its memory in bytes."""
    from staf.data.card import builtin_cards
    from staf.data.read_report import ReadReport
    from staf.runs import PeakMemory

    memory, started = PeakMemory(), time.perf_counter()
    examples = sum(1 for _ in builtin_cards()["umls"].read(folder, ReadReport()))
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "examples": examples, "peak_memory_bytes": memory.bytes}


def measure(rows: int, folder: Path) -> dict[str, Any]:
    """Make files of so many rows, read them in a process of its own, and say how it went."""
    made = generate(folder, rows)
    command = [sys.executable, __file__, "--read", str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    return {
        "bench": "data",
        "case": f"umls {made} rows",
        "ours": round(found["seconds"], 2),
        "peer": None,
        "unit": "s",
        "ratio": None,
        "share_of_limit": None,
        "machine": f"{platform.machine()}, 2 threads",
        "peak_memory_bytes": found["peak_memory_bytes"],
        "rows_per_second": round(made / found["seconds"]),
        "examples": found["examples"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--read", type=Path, help="only read this folder, and print what that took")
    options = parser.parse_args()
    if options.read:
        print(json.dumps(read_all(options.read)))
        return
    measure_sizes(options.rows)


def measure_sizes(rows: int) -> None:
    """Print what reading takes at a hundredth, a tenth and all of the rows."""
    for share in (100, 10, 1):
        with tempfile.TemporaryDirectory(prefix="staf-bench-umls-") as folder:
            print(json.dumps(measure(rows // share, Path(folder))), flush=True)


if __name__ == "__main__":
    main()
