"""Files that are complete or not there, written by one process at a time: temporary name, fsync, rename; JSON, checksums.

A stop at any moment leaves the old file or the new one. What a killed process leaves behind has a name of its own
(`.<name>.<eight letters>.tmp`) and goes when the same output is written again (`locked`).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from staf.errors import DamagedFile, MissingData, StafError

_held: set[Path] = set()
"""Lock files of this process."""


def sha256_of(path: Path) -> str:
    """SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def writing(target: Path, remedy: str = "choose a folder that can be written (of the cache: STAF_CACHE)") -> Iterator[None]:
    """An OSError of the block, such as of a full disk, becomes a StafError that names `target`, reason and remedy."""
    try:
        yield
    except OSError as error:
        raise StafError(
            f"cannot write {target}: {error.strerror or error}. Nothing was changed there. "
            f"Free some space or {remedy}, and run the same command again."
        ) from error


def write_bytes(path: Path, data: bytes, private: bool = False) -> None:
    """Write `data` to `path` atomically, readable as the umask says, or with `private` by its owner only.

    Raises:
        StafError: the folder is read-only or the disk is full; what was at `path` is untouched.
    """
    with writing(path):
        path.parent.mkdir(0o700 if private else 0o777, parents=True, exist_ok=True)
        temporary = _temporary(path)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync(path.parent)


def sync(path: Path) -> None:
    """Make the content of a file, or a rename inside a folder, last through a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def staged_folder(target: Path, private: bool = False) -> Iterator[Path]:
    """A folder to fill, renamed to `target` at the end of the block; if anything fails, nothing is left at `target`.

    Folder and files are readable as the umask says, or with `private` by their owner only.

    Raises:
        StafError: it cannot be written, `target` is there and not empty, or another process writes it.
    """
    with locked(target), writing(target):
        hidden = _temporary(target)
        try:
            hidden.mkdir(0o700 if private else 0o777)
            yield hidden
            mode = hidden.stat().st_mode & 0o777
            for path in hidden.rglob("*"):
                path.chmod(mode if path.is_dir() else mode & 0o666)  # safetensors makes files for their owner only
                sync(path)
            os.replace(hidden, target)
            sync(target.parent)
        finally:
            shutil.rmtree(hidden, ignore_errors=True)


def _temporary(target: Path) -> Path:
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")


@contextmanager
def locked(target: Path, wait: bool = False, log: Callable[[str], None] | None = None) -> Iterator[None]:
    """Only this process writes `target` within the block; what a killed one left of it is removed. Re-entrant.

    Args:
        wait: for the other process to finish, in place of the error. log: takes the line that says so.

    Raises:
        StafError: another process writes it, named by host, number and command; or its folder cannot be written.
    """
    lock = target.absolute().with_name(f".{target.name}.lock")
    if lock in _held:
        yield
        return
    handle = _lock(lock, target, wait, log)
    _held.add(lock)
    try:
        for left in target.parent.glob(f".{target.name}.????????.tmp"):
            shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)
        for left in target.glob(".*.????????.tmp"):
            if left.is_file():  # a folder has a lock of its own
                left.unlink(missing_ok=True)
        yield
    finally:
        _held.discard(lock)
        lock.unlink(missing_ok=True)
        os.close(handle)


def _lock(lock: Path, target: Path, wait: bool, log: Callable[[str], None] | None) -> int:
    """The open lock file, which names its owner."""
    with writing(target):
        lock.parent.mkdir(parents=True, exist_ok=True)
        while True:
            handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                owner = os.read(handle, 1000).decode("utf-8", "replace") or "another process"
                if not wait:
                    os.close(handle)
                    raise StafError(f"{target} is being written by {owner}. Wait for it, or stop it.") from error
                if log is not None:
                    log(f"{target} is being written by {owner}: waiting for it")
                fcntl.flock(handle, fcntl.LOCK_EX)
            if lock.exists() and os.path.samestat(os.fstat(handle), lock.stat()):  # else its owner has removed it meanwhile
                break
            os.close(handle)
    with suppress(OSError):  # on a full disk it has no name
        os.truncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {platform.node()} ({' '.join(sys.argv)})".encode())
    return handle


def write_json(path: Path, record: Any, private: bool = False) -> None:
    """Write `record` as indented JSON with sorted keys, atomically."""
    text = json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_bytes(path, f"{text}\n".encode(), private)


def record_digest(record: Any) -> str:
    """SHA-256 of a record as JSON, whatever its order."""
    return hashlib.sha256(json.dumps(json.loads(json.dumps(record)), sort_keys=True).encode()).hexdigest()


def read_json(path: Path) -> Any:
    """The content of a JSON file; raises MissingData where it is not there, DamagedFile where it is no JSON."""
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text)
        if "\\u" in text:  # half a surrogate pair is valid JSON and no text
            json.dumps(values, ensure_ascii=False).encode()
        return values
    except FileNotFoundError as error:
        raise MissingData(f"no file {path}. Make it first, or check the path.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedFile(
            f"{path} is not valid JSON ({type(error).__name__}). It was altered after it was written: "
            "restore it from a copy, or delete it and run the command that made it."
        ) from error
