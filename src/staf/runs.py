"""Run folders: one result, one file, written last.

    <runs>/<stage>/<task>/<method>/seed<k>-<digest>/    config.json, predictions.jsonl, result.json

`result.json` is written last; its presence means finished, and a finished run is skipped. It holds numbers and names. So do
predictions of labels; where the answer is words (spans, entities, free text) predictions.jsonl holds them, and belongs where
the data is kept.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import re
import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from staf.errors import DamagedFile
from staf.io import read_json, write_bytes, write_json


def digest_of(*parts: str) -> str:
    """Sixteen hexadecimal digits of texts in order."""
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Run:
    """Where one run lives."""

    folder: Path

    @classmethod
    def at(cls, runs: Path, stage: str, task: str, method: str, seed: int, digest: str) -> Run:
        """The run of these settings; `digest` names everything that its result depends on."""
        return cls(runs / stage / task / method / f"seed{seed}-{digest[:10]}")

    def result(self) -> dict[str, Any] | None:
        """The finished result, or None; raises DamagedFile where it is no result."""
        path = self.folder / "result.json"
        if not path.is_file():
            return None
        result = read_json(path)
        if not isinstance(result, dict):
            raise DamagedFile(f"{path} is not a result. Delete {self.folder} and run the same command again.")
        return result

    def predictions(self) -> list[dict[str, Any]]:
        """The saved predictions; raises DamagedFile where they are missing or not JSON lines."""
        path = self.folder / "predictions.jsonl"
        try:
            return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        except (OSError, ValueError) as error:
            raise DamagedFile(
                f"{path} cannot be read ({type(error).__name__}). Delete {self.folder} and run the same command again."
            ) from error

    def finish(
        self, config: dict[str, Any], result: dict[str, Any], predictions: Sequence[dict[str, Any]] | None = None
    ) -> None:
        """Write everything, the result last."""
        write_json(self.folder / "config.json", config)
        if predictions is not None:
            lines = "".join(json.dumps(p, sort_keys=True) + "\n" for p in predictions)
            write_bytes(self.folder / "predictions.jsonl", lines.encode(), private=True)
        write_json(self.folder / "result.json", result)


class PeakMemory:
    """Peak memory from here on, in bytes: what tensors take on a GPU where one is used, else the process's resident memory.

    Linux can reset its mark; elsewhere the peak is that of the process so far. What was freed before is first given back
    to the system, as the allocator keeps it otherwise (`staf.lm.malloc`) and it would count as this measurement's.
    """

    def __init__(self) -> None:
        if (cuda := _cuda()) is not None:
            cuda.reset_peak_memory_stats()
        if sys.platform == "linux":
            if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc's
                trim(0)
            if os.access("/proc/self/clear_refs", os.W_OK):
                Path("/proc/self/clear_refs").write_text("5")

    @property
    def bytes(self) -> int:
        """The peak so far."""
        if (cuda := _cuda()) is not None:
            return int(cuda.max_memory_allocated())
        status = Path("/proc/self/status")
        if status.is_file() and (found := re.search(r"VmHWM:\s+(\d+)", status.read_text())):
            return int(found[1]) * 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def _cuda() -> Any:
    """torch.cuda where a GPU is in use; None where PyTorch is not loaded, or has put nothing on a GPU."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None
