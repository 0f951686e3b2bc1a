"""glibc's allocator keeps freed memory."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from staf.lm.malloc import HUGE_PAGES, configure_allocator


def test_memory_is_kept_unless_the_environment_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(HUGE_PAGES, raising=False)
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000000")
    assert not configure_allocator()
    assert os.environ[HUGE_PAGES] == "1"
    monkeypatch.setenv(HUGE_PAGES, "0")
    configure_allocator()
    assert os.environ[HUGE_PAGES] == "0"


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator of glibc")
def test_what_is_freed_is_used_again_without_new_pages() -> None:
    """Page faults of the second round of large allocations, in a process of its own."""
    script = """
import resource, torch
from staf.lm.malloc import configure_allocator
assert configure_allocator()
def work():
    for _ in range(4):
        torch.ones(40_000_000)
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "THP_"))}
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, env=kept)
    assert int(done.stdout) < 1000  # 160 MB anew are 40,000 small pages or 80 large ones, four times
