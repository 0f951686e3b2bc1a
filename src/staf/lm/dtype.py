"""Which number format the base computes in on this processor: measured once, then remembered.

Low precision is worth having only where the processor has instructions for it (AVX-512 BF16, AMX, tensor cores);
elsewhere bfloat16 is emulated and slower than float32, so a rule of thumb would be wrong half of the time.
"""

from __future__ import annotations

import json
import platform
import time
from pathlib import Path

import torch

from staf.data.packages import cache_folder
from staf.io import write_json

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32, "float16": torch.float16}
GAIN_NEEDED = 1.2
"""bfloat16 is chosen only when it is at least so many times faster than float32."""


def measure(device: torch.device, repeats: int = 5) -> dict[str, float]:
    """Billions of multiply-adds a second of a 512 x 1024 x 1024 matrix product, the best of `repeats`, by dtype."""
    rates = {}
    for name in ("float32", "bfloat16"):
        left = torch.ones(512, 1024, dtype=DTYPES[name], device=device)
        right = torch.ones(1024, 1024, dtype=DTYPES[name], device=device)
        best = float("inf")
        for _ in range(repeats + 1):
            start = time.perf_counter()
            product = left @ right
            float(product[0, 0])  # waits for an accelerator
            best = min(best, time.perf_counter() - start)
        rates[name] = 512 * 1024 * 1024 / best / 1e9
    return rates


def measured(device: torch.device) -> dict[str, float]:
    """The rates of this machine and torch release, from the cache or measured now."""
    path = cache_folder() / "dtype.json"
    key = f"{platform.node()}/{platform.processor() or platform.machine()}/{torch.__version__}/{device.type}"
    known = _remembered(path)
    if key not in known:
        known[key] = measure(device)
        write_json(path, known)
    return known[key]


def choose(device: torch.device) -> torch.dtype:
    """bfloat16 where it is measured to be clearly faster than float32, else float32."""
    rates = measured(device)
    return torch.bfloat16 if rates["bfloat16"] >= GAIN_NEEDED * rates["float32"] else torch.float32


def _remembered(path: Path) -> dict[str, dict[str, float]]:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # a cache: measured again when it cannot be read
    return known if isinstance(known, dict) else {}
