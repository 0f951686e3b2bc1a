"""Peak memory: what was freed before a measurement is not counted in it; on a GPU the tensors there are counted."""

from __future__ import annotations

import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest

from staf.runs import PeakMemory

FREED_BEFORE = """
import numpy
from staf.lm.malloc import configure_allocator
from staf.runs import PeakMemory
print(configure_allocator())
first = PeakMemory()
blocks = [numpy.ones(20_000_000) for _ in range(4)]
print(first.bytes)
del blocks
print(PeakMemory().bytes)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator keeps nothing")
def test_memory_that_was_freed_before_counts_in_no_later_measurement() -> None:
    found = subprocess.run([sys.executable, "-c", FREED_BEFORE], capture_output=True, text=True, check=True)
    kept, first, second = found.stdout.split()
    assert kept == "True"
    assert int(first) > 640_000_000
    assert int(second) < int(first) - 500_000_000


def test_on_a_gpu_its_own_peak_is_measured_from_the_reset_on(monkeypatch: pytest.MonkeyPatch) -> None:
    peak = {"bytes": 900}
    cuda = SimpleNamespace(
        is_initialized=lambda: True,
        reset_peak_memory_stats=lambda: peak.update(bytes=0),
        max_memory_allocated=lambda: peak["bytes"],
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    memory = PeakMemory()
    assert memory.bytes == 0
    peak["bytes"] = 123
    assert memory.bytes == 123
    cuda.is_initialized = lambda: False
    assert memory.bytes > 10_000_000
