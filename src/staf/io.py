"""Atomic file writes: temporary name, fsync, rename; JSON and checksums.

A stop at any moment leaves the old file or the new one, never a mixture.

Knows nothing of tensors: `checkpoint_io` builds on it, and what must start fast imports only this.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from staf.errors import DamagedFile, MissingData, StafError


def sha256_of(path: Path) -> str:
    """SHA-256 of a file as 64 hexadecimal digits, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically.

    Raises:
        StafError: the folder is read-only or the disk is full; what was at `path` is untouched.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise StafError(
            f"cannot write {path}: {error.strerror or error}. Nothing was changed there. "
            "Free some space or choose a folder that can be written, and run the same command again."
        ) from error


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def staged_folder(target: Path) -> Iterator[Path]:
    """A folder to fill, renamed to `target` at the end of the block; if anything fails, nothing is left at `target`.

    Raises:
        StafError: it cannot be written, or `target` is there and not empty.
    """
    hidden = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        hidden = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        (hidden / target.name).mkdir()
        yield hidden / target.name
        os.replace(hidden / target.name, target)
        sync_folder(target.parent)
    except OSError as error:
        raise StafError(
            f"cannot write {target}: {error.strerror or error}. Nothing was changed there. "
            "Free some space or choose a folder that can be written, and run the same command again."
        ) from error
    finally:
        if hidden is not None:
            shutil.rmtree(hidden, ignore_errors=True)


def write_json(path: Path, record: Any) -> None:
    """Write `record` as indented JSON with sorted keys, atomically."""
    write_bytes(path, (json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        MissingData: there is no such file.
        DamagedFile: it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingData(f"no file {path}. Make it first, or check the path.") from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise DamagedFile(
            f"{path} is not valid JSON ({type(error).__name__}). It was altered after it was written: "
            "restore it from a copy, or delete it and run the command that made it."
        ) from error
