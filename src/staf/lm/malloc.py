"""glibc's allocator set to keep freed memory and to use huge pages: for the start of a command, never for a library.

A training step allocates and frees gigabytes. Returned to the system each time, every page is cleared and mapped again: a third
of a step on 8 x 384 tokens of the default base (docs/log.md).
"""

from __future__ import annotations

import ctypes
import os
import platform

HUGE_PAGES = "THP_MEM_ALLOC_ENABLE"
"""Read by PyTorch at its first allocation."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
NEVER, LARGEST = -1, 2**31 - 1


def configure_allocator() -> bool:
    """Keep freed memory and use huge pages; True where the allocator accepts it. Environment variables win.

    Call it before the first tensor is made: later, huge pages are not used.
    """
    os.environ.setdefault(HUGE_PAGES, "1")
    if platform.libc_ver()[0] != "glibc" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(M_MMAP_THRESHOLD, LARGEST) and libc.mallopt(M_TRIM_THRESHOLD, NEVER))
