"""Tensors with a record, checked: `<kind>.json` (the record) and `<kind>-<sha>.safetensors` (the tensors).

The record names its tensor file and is renamed into place last, so a stop at any moment leaves the old state or the new one,
never a mixture; both have a SHA-256. Only safetensors and JSON are read; a pickle is refused by name.

Knows nothing of experts or routers: they give tensors and a record, and get them back checked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from staf.errors import DamagedFile, MissingData
from staf.io import locked, read_json, record_digest, write_bytes, write_json

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".npy", ".npz", ".joblib")


def write_checkpoint(folder: Path, kind: str, tensors: dict[str, torch.Tensor], record: dict[str, Any]) -> None:
    """Save tensors and a record, replacing those that are there only when all is on disk; a second writer waits."""
    data = save_tensors({name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()})
    digest = hashlib.sha256(data).hexdigest()
    file = f"{kind}-{digest[:16]}.safetensors"
    entry = {"file": file, "sha256": digest, "bytes": len(data), "record": record_digest(record)}
    with locked(folder / kind, wait=True):
        write_bytes(folder / file, data)
        write_json(folder / f"{kind}.json", {"format": f"staf-{kind}", "format_version": 1, "tensors": entry, **record})
        for old in [*folder.glob(f"{kind}-*.safetensors"), *folder.glob(f".{kind}[.-]*.????????.tmp")]:
            if old.name != file:
                old.unlink()


def read_checkpoint(folder: Path, kind: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Load tensors and record, and check them: kind, size, checksums, finite numbers.

    Returns:
        tensors by name, and the record without the entries of this module.

    Raises:
        MissingData: the folder or its record is not there.
        DamagedFile: pickle, wrong kind, truncated, altered, or with numbers that are not finite.
    """
    redo = f"Restore {folder} from a copy, or delete it and make it again."
    data, entry, record = None, dict[str, Any](), dict[str, Any]()
    while data is None:
        before, (entry, record) = entry, _read_record(folder, kind)
        path = folder / entry["file"]
        try:
            data = path.read_bytes()
        except OSError as error:  # such as a folder of that name
            if entry == before:  # else another process has replaced both meanwhile
                raise DamagedFile(f"{folder}: the {kind} names '{path.name}', which is not there. {redo}") from error
    if len(data) != entry["bytes"]:
        raise DamagedFile(f"{path} is truncated: {len(data):,} bytes, {entry['bytes']:,} expected. {redo}")
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise DamagedFile(f"{path} was altered: its SHA-256 is not the one that {kind}.json records. {redo}")
    if entry.get("record", record_digest(record)) != record_digest(record):
        raise DamagedFile(f"{folder / kind}.json was altered: its SHA-256 is not the one that was written. {redo}")
    try:
        tensors = load_tensors(data)
    except SafetensorError as error:
        raise DamagedFile(f"{path} is not a safetensors file ({error}). {redo}") from error
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise DamagedFile(f"{path}: '{name}' holds NaN or infinite numbers. {redo}")
    return tensors, record


def _read_record(folder: Path, kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The entry of the tensor file, and the rest of the record."""
    path = folder / f"{kind}.json"
    if not folder.is_dir():
        raise MissingData(f"no {kind} at {folder}: there is no such folder. Check the path.")
    if not path.is_file():
        refuse_pickles(folder)
        found = ", ".join(sorted(p.name for p in folder.glob("*.json"))[:4]) or "no record at all"
        raise MissingData(f"no {kind} at {folder}: it holds {found}. Give the folder that holds {kind}.json.")
    record = read_json(path)
    said = record.pop("format", None) if isinstance(record, dict) else None
    if said != f"staf-{kind}" or record.pop("format_version", None) != 1:
        raise DamagedFile(f"{path} is not a staf {kind} of version 1 (its format says {said!r}). Give the folder of a {kind}.")
    entry = record.pop("tensors", None)
    if not (
        isinstance(entry, dict)
        and {"file", "sha256", "bytes"} <= entry.keys()
        and Path(str(entry["file"])).name == entry["file"]
    ):
        raise DamagedFile(f"{path} does not name its tensor file. Restore it from a copy, or make the {kind} again.")
    return entry, record


@contextmanager
def saving_tensors() -> Iterator[None]:
    """What safetensors raises at a disk that cannot be written becomes the OSError that it stands for."""
    try:
        yield
    except SafetensorError as error:
        raise OSError(str(error)) from error


def refuse_pickles(folder: Path) -> None:
    """Raise DamagedFile where a folder holds a pickle."""
    pickles = sorted(path.name for path in folder.iterdir() if path.name.endswith(PICKLES))
    if pickles:
        raise DamagedFile(
            f"{folder} holds {pickles[0]}, a format that can run code when it is opened; "
            "staf reads only safetensors and JSON. Convert it with the program that made it."
        )
