"""Large blocks of memory stay with the process, in large pages.

A training step allocates and frees gigabytes. Given back to the system each time, every page is cleared and mapped anew: a
third of a step on 8 x 384 tokens of the default base (docs/log.md). So the allocator of glibc is told to keep what is freed,
and PyTorch to ask for large pages. Elsewhere this does nothing. What the environment says already is left as it is.
"""

from __future__ import annotations

import ctypes
import os
import platform

LARGE_PAGES = "THP_MEM_ALLOC_ENABLE"
"""Read by PyTorch at its first allocation."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
NEVER, LARGEST = -1, 2**31 - 1


def keep_large_blocks() -> bool:
    """Keep freed memory and use large pages from now on; true where the allocator accepts it.

    Call it before the first tensor is made: later, large pages are not used.
    """
    os.environ.setdefault(LARGE_PAGES, "1")
    if platform.libc_ver()[0] != "glibc" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    allocator = ctypes.CDLL(None)
    return bool(allocator.mallopt(M_MMAP_THRESHOLD, LARGEST) and allocator.mallopt(M_TRIM_THRESHOLD, NEVER))
