"""Tensors with a record, checked: `<kind>.json` (the record) and `<kind>-<sha>.safetensors` (the tensors).

The record names its tensor file with size and SHA-256 and is renamed into place last, so a stop at any moment leaves
the old state or the new one, never a mixture. Only safetensors and JSON are read; a pickle is refused by name.

Knows nothing of experts or routers: they give tensors and a record, and get them back checked.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from staf.errors import DamagedFile, MissingData
from staf.io import read_json, write_bytes, write_json

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".npy", ".npz", ".joblib")


def write_checkpoint(folder: Path, kind: str, tensors: dict[str, torch.Tensor], record: dict[str, Any]) -> None:
    """Save tensors and a record as one bundle, replacing the one that is there only when all is on disk."""
    plain = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    data = save_tensors(plain)
    digest = hashlib.sha256(data).hexdigest()
    tensor_file = folder / f"{kind}-{digest[:16]}.safetensors"
    write_bytes(tensor_file, data)
    entry = {"file": tensor_file.name, "sha256": digest, "bytes": len(data)}
    write_json(folder / f"{kind}.json", {"format": f"staf-{kind}", "format_version": 1, "tensors": entry, **record})
    for old in folder.glob(f"{kind}-*.safetensors"):
        if old != tensor_file:
            old.unlink()


def read_checkpoint(folder: Path, kind: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Load tensors and record, and check them: kind, size, checksum, finite numbers.

    Returns:
        tensors by name, and the record without the entries of this module.

    Raises:
        MissingData: the folder or its record is not there.
        DamagedFile: pickle, wrong kind, truncated, altered, or with numbers that are not finite.
    """
    record = _read_record(folder, kind)
    if not (folder / record["tensors"]["file"]).is_file():  # another process may have replaced both since
        record = _read_record(folder, kind)
    entry = record.pop("tensors")
    path = folder / entry["file"]
    redo = f"Restore {folder} from a copy, or delete it and make it again."
    if not path.is_file():
        raise DamagedFile(f"{folder}: the {kind} names '{entry['file']}', which is not there. {redo}")
    data = path.read_bytes()
    if len(data) != entry["bytes"]:
        raise DamagedFile(f"{path} is truncated: {len(data):,} bytes, {entry['bytes']:,} expected. {redo}")
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise DamagedFile(f"{path} was altered: its SHA-256 is not the one that {kind}.json records. {redo}")
    try:
        tensors = load_tensors(data)
    except SafetensorError as error:
        raise DamagedFile(f"{path} is not a safetensors file ({error}). {redo}") from error
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise DamagedFile(f"{path}: '{name}' holds NaN or infinite numbers. {redo}")
    return tensors, record


def _read_record(folder: Path, kind: str) -> dict[str, Any]:
    path = folder / f"{kind}.json"
    if not path.is_file():
        _explain_missing(folder, kind)
    record = read_json(path)
    found = record.get("format") if isinstance(record, dict) else None
    if found != f"staf-{kind}" or record.get("format_version") != 1:
        raise DamagedFile(f"{path} is not a staf {kind} of version 1 (its format says {found!r}). Give the folder of a {kind}.")
    entry = record.get("tensors")
    if not (
        isinstance(entry, dict) and {"file", "sha256", "bytes"} <= entry.keys() and Path(entry["file"]).name == entry["file"]
    ):
        raise DamagedFile(f"{path} does not name its tensor file. Restore it from a copy, or make the {kind} again.")
    del record["format"], record["format_version"]
    return record


def _explain_missing(folder: Path, kind: str) -> None:
    if not folder.is_dir():
        raise MissingData(f"no {kind} at {folder}: there is no such folder. Check the path.")
    refuse_pickles(folder)
    records = sorted(p.name for p in folder.glob("*.json"))
    hint = f"It holds {', '.join(records[:4])}." if records else "It holds no record at all."
    raise MissingData(f"no {kind} at {folder}: {kind}.json is not there. {hint} Give the folder that holds {kind}.json.")


def refuse_pickles(folder: Path) -> None:
    """Raise DamagedFile where a folder holds a pickle."""
    pickles = sorted(path.name for path in folder.iterdir() if path.name.endswith(PICKLES))
    if pickles:
        raise DamagedFile(
            f"{folder} holds {pickles[0]}, a format that can run code when it is opened; "
            "staf reads only safetensors and JSON. Convert it with the program that made it."
        )
