"""A real kill -9, of a forked process: what it wrote is on the disk, and nothing of it could be tidied up."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable


def kill_at_wait(number: int, work: Callable[[], object]) -> None:
    """Do the work in a forked process that kills itself when it waits for the disk for the number-th time."""
    process = os.fork()
    if process == 0:
        real, calls = os.fsync, 0

        def fsync(handle: int) -> None:
            nonlocal calls
            calls += 1
            if calls == number:
                os.kill(os.getpid(), signal.SIGKILL)
            real(handle)

        os.fsync = fsync
        try:
            work()
        finally:
            os._exit(1)  # it was not killed
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
