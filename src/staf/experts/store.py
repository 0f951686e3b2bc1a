"""Experts on disk: each a folder that PEFT loads, and sets of them in a fixed order.

    <experts>/<name>/adapter_config.json, adapter_model.safetensors   the LoRA adapter (`staf.experts.adapter`)
    <experts>/<name>/dedup_keys.safetensors                           keys of what it was trained on, for the leak check
    <experts>/<name>/staf.json                                        base, recipe, data, licences, versions, ranks, checksum

An expert enters a set by one rename and leaves it by one rename. Replaced and removed ones are kept in `.removed` of the set.
The fingerprint of a set follows from its experts, so a router made for another set is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from staf.checkpoint_io import read_checkpoint, refuse_pickles
from staf.errors import BaseMismatch, DamagedFile, ExpertMismatch, MissingData, StafError, UnknownName
from staf.experts.adapter import CONFIG, TENSORS, Factors, read_adapter, write_adapter
from staf.io import read_json, sha256_of, staged_folder, sync, write_bytes, write_json
from staf.log import Log, StderrProgress

REMOVED = ".removed"
RECORD, KEYS, FORMER = "staf.json", "dedup_keys.safetensors", "expert.json"


@dataclass(frozen=True)
class Expert:
    """One trained expert, or any LoRA adapter taken as one."""

    name: str
    base: dict[str, Any]
    """name and fingerprint of the base it was trained on"""
    factors: dict[str, Factors] = field(repr=False)
    """B (d_out, r), scale and singular values in it, and A (r, d_in) by module name; r may be 0"""
    dedup_keys: frozenset[str] = field(repr=False)
    """keys of what it was trained on"""
    record: dict[str, Any] = field(default_factory=dict, repr=False)
    """recipe, data fingerprint, versions, figures of the training"""

    @property
    def ranks(self) -> dict[str, int]:
        """Rank of each module."""
        return {name: a.shape[0] for name, (_, a) in self.factors.items()}

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """(d_out, d_in) of each module."""
        return {name: (b.shape[0], a.shape[1]) for name, (b, a) in self.factors.items()}

    @property
    def average_rank(self) -> float:
        """Mean rank over the modules."""
        return sum(self.ranks.values()) / max(len(self.ranks), 1)

    @property
    def num_params(self) -> int:
        """Numbers in all factors."""
        return sum(part.numel() for pair in self.factors.values() for part in pair)

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits of the factors, which are not changed in place."""
        digest = hashlib.sha256()
        for name in sorted(self.factors):
            digest.update(name.encode())
            for part in self.factors[name]:
                digest.update(part.contiguous().cpu().numpy().tobytes())
        return digest.hexdigest()[:16]


REFERENCE, REFERENCE_FOLDER = "reference", Path(__file__).parent.parent / "reference"
"""The experts that come with the package, by name and place (docs/reference-experts.md)."""


@dataclass(frozen=True)
class ExpertSet:
    """Experts of one base in a fixed order (by name), which router weights refer to."""

    experts: tuple[Expert, ...]
    folder: Path | None = field(default=None, compare=False)
    """Where they are; None where they are only in memory."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names in order."""
        return tuple(expert.name for expert in self.experts)

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits of all experts in order."""
        return set_fingerprint(self.names, self.fingerprints)

    @property
    def fingerprints(self) -> dict[str, str]:
        """The fingerprint of each expert, by name."""
        return {expert.name: expert.fingerprint for expert in self.experts}

    @property
    def dedup_keys(self) -> frozenset[str]:
        """Keys of what any of them was trained on."""
        return frozenset().union(*(expert.dedup_keys for expert in self.experts))

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """(d_out, d_in) of every module that any of them adapts."""
        return {name: shape for expert in self.experts for name, shape in expert.shapes.items()}

    def factors_of(self, module: str, shape: tuple[int, int] | None = None) -> list[Factors]:
        """B and A of one module for each expert in order, of rank 0 where an expert does not adapt it.

        Args:
            shape: of the module, needed where no expert adapts it.
        """
        d_out, d_in = shape or self.shapes[module]
        empty = (torch.zeros(d_out, 0), torch.zeros(0, d_in))
        return [expert.factors.get(module, empty) for expert in self.experts]

    def check(self, base: Mapping[str, Any], shapes: Mapping[str, tuple[int, int]]) -> None:
        """Check that every expert was trained on this base and adapts only these modules.

        Raises:
            BaseMismatch: another base. ExpertMismatch: other modules or shapes.
        """
        for expert in self.experts:
            check_fits(expert, base, shapes, "this base is", "Give that base with --base")


def set_fingerprint(names: Iterable[str], fingerprints: Mapping[str, str]) -> str:
    """Sixteen hexadecimal digits of experts by name, in order."""
    return hashlib.sha256("/".join(name + fingerprints[name] for name in names).encode()).hexdigest()[:16]


def other_tokenizer(recorded: Mapping[str, Any], base: Mapping[str, Any]) -> bool:
    """True if two identities of a base name different tokenizers; an old record names none."""
    return len({recorded.get("tokenizer"), base.get("tokenizer")} - {None}) > 1


def check_fits(
    expert: Expert,
    base: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, int]],
    owner: str,
    advice: str,
    partial: bool = False,
) -> None:  # fmt: skip
    """Raise BaseMismatch or ExpertMismatch unless an expert fits a base and its modules; with `partial` others are fine too.

    Args:
        owner: of base and modules, as the error says it: "this base is". advice: what to do, besides training again.
    """
    made = f"expert '{expert.name}' was trained"
    if expert.base["fingerprint"] != base["fingerprint"]:
        raise BaseMismatch(
            f"{made} on {expert.base['name']} ({expert.base['fingerprint']}), {owner} {base['name']} ({base['fingerprint']}). "
            f"Experts of one set have one base. {advice}, or train it again."
        )
    if other_tokenizer(expert.base, base):
        raise BaseMismatch(
            f"{made} with another tokenizer than {owner} {base['name']}. Restore the base's tokenizer files, or train it again."
        )
    differing = [
        (name, shape) for name, shape in expert.shapes.items()
        if shapes.get(name, shape if partial else None) != shape
    ]  # fmt: skip
    if differing:
        name, (d_out, d_in) = differing[0]
        found = "not adapted" if name not in shapes else "{} x {}".format(*shapes[name])
        where = owner.removesuffix(" is").removesuffix(" on")
        raise ExpertMismatch(
            f"expert '{expert.name}' adapts {len(expert.factors)} modules, {len(differing)} of which differ from {where}. "
            f"The first is {name}: {d_out} x {d_in} in '{expert.name}', {found} in {where}. "
            "Train it on this base again, or leave it out."
        )


def save_expert(folder: Path, expert: Expert, compact: bool = False) -> None:
    """Write an expert; one that is there is moved to `.removed` next to it.

    Args:
        compact: rounded to bfloat16, in a quarter of the size.

    Raises:
        StafError: the disk is full or the folder read-only; what was there is untouched.
    """
    if compact:
        rounded = {name: (b.bfloat16().float(), a.bfloat16().float()) for name, (b, a) in expert.factors.items()}
        expert = replace(expert, factors=rounded)
    with staged_folder(folder) as staging:
        write_adapter(staging, expert.factors, expert.base, compact)
        keys = [int(key, 16) - (1 << 63) for key in sorted(expert.dedup_keys)]
        write_bytes(staging / KEYS, save({"keys": torch.tensor(keys, dtype=torch.int64)}))
        record = {
            "format": "staf-expert", "format_version": 2, "name": expert.name, "base": expert.base, "ranks": expert.ranks,
            "fingerprint": expert.fingerprint, "training": expert.record, "dedup_keys": KEYS,
            "sha256": {name: sha256_of(staging / name) for name in (TENSORS, CONFIG, KEYS)},
        }  # fmt: skip
        write_json(staging / RECORD, {**record, "record_sha256": _digest(record)})
        if folder.is_dir() and any(folder.iterdir()):
            set_aside(folder)


def set_aside(expert: Path) -> Path:
    """Move the folder of an expert to a free name in `.removed` next to it."""
    kept, number = expert.parent / REMOVED, 1
    taken = {path.name for path in kept.iterdir()} if kept.is_dir() else set[str]()
    while (free := expert.name if number == 1 else f"{expert.name}-{number}") in taken:
        number += 1
    try:
        kept.mkdir(exist_ok=True)
        os.replace(expert, kept / free)
        sync(expert.parent)
    except OSError as error:
        raise StafError(f"cannot move {expert} to {kept}: {error.strerror or error}. Nothing was changed.") from error
    return kept / free


def load_expert(folder: Path, log: Log | None = None) -> Expert:
    """Read an expert and check it; one in the former format is converted in place, reported to `log` (stderr by default).

    Raises:
        MissingData: there is none. DamagedFile: incomplete, altered, not finite, or of another kind.
    """
    if not (folder / RECORD).is_file():
        if not (folder / FORMER).is_file():
            _explain_missing(folder)
        _convert(folder, log or StderrProgress().log)
    record = read_json(folder / RECORD)
    found = record.get("format") if isinstance(record, dict) else None
    if found != "staf-expert" or record.get("format_version") != 2:
        raise DamagedFile(f"{folder / RECORD} is not a staf expert of version 2 (its format says {found!r}).")
    redo = f"Restore {folder} from a copy, or delete it and make it again."
    try:
        for name, expected in record["sha256"].items():
            path = folder / Path(name).name
            if not path.is_file():
                raise DamagedFile(f"{folder}: staf.json names '{name}', which is not there. {redo}")
            if sha256_of(path) != expected:
                raise DamagedFile(f"{path} is truncated or was altered: its SHA-256 is not that of staf.json. {redo}")
        padded, _ = read_adapter(folder)
        ranks: dict[str, int] = record["ranks"]
        factors = {name: (padded[name][0][:, :rank].contiguous(), padded[name][1][:rank]) for name, rank in ranks.items()}
        keys = frozenset(f"{number + (1 << 63):016x}" for number in load_file(folder / KEYS)["keys"].tolist())
        expert = Expert(record["name"], record["base"], factors, keys, record["training"])
        fits = expert.ranks == ranks and padded.keys() == ranks.keys() and expert.fingerprint == record["fingerprint"]
    except (KeyError, TypeError, AttributeError, ValueError, SafetensorError) as error:
        raise DamagedFile(f"{folder}: staf.json and tensors do not fit ({error}). {redo}") from error
    if not fits or record.get("record_sha256", _digest(record)) != _digest(record):
        raise DamagedFile(f"{folder}: the tensors are not as staf.json says, or it was altered. {redo}")
    return expert


def _digest(record: Mapping[str, Any]) -> str:
    """SHA-256 of a record without its own entry."""
    return hashlib.sha256(json.dumps({**record, "record_sha256": None}, sort_keys=True).encode()).hexdigest()


def _convert(folder: Path, log: Log) -> None:
    """Save an expert in the former format (U, lambda, V and a scale) as an adapter; raises DamagedFile or StafError."""
    tensors, record = read_checkpoint(folder, "expert")
    try:
        factors = {
            name: (tensors[f"{name}.U"] * tensors[f"{name}.lambda"] * record["scale"], tensors[f"{name}.V"])
            for name in record["ranks"]
        }
        keys = frozenset(f"{number + (1 << 63):016x}" for number in tensors["subjects"].tolist())
        expert = Expert(record["name"], record["base"], factors, keys, record["training"])
    except (KeyError, TypeError, RuntimeError) as error:
        raise DamagedFile(f"{folder}: its record and tensors do not fit ({error}). Train the expert again.") from error
    save_expert(folder, expert)
    log(f"{folder}: converted to a PEFT adapter; the former files are in {folder.parent / REMOVED}. Adapt routers again.")


def _explain_missing(folder: Path) -> None:
    if not folder.is_dir():
        raise MissingData(f"no expert at {folder}: there is no such folder. Check the path.")
    if (folder / CONFIG).is_file():
        raise MissingData(
            f"{folder} is a PEFT adapter that is not in a set yet: staf experts add EXPERTS {folder} --name {folder.name}"
        )
    refuse_pickles(folder)
    names = ", ".join(sorted(path.name for path in folder.iterdir())[:4]) or "nothing"
    raise MissingData(f"no expert at {folder}: {RECORD} is not there. It holds {names}. Give the folder of an expert.")


def expert_names(folder: Path) -> tuple[str, ...]:
    """Names of the finished experts in a folder, in order; none where there is no folder."""
    if not folder.is_dir():
        return ()
    return tuple(sorted({path.parent.name for name in (RECORD, FORMER) for path in folder.glob(f"[!.]*/{name}")}))


def experts_at(folder: Path) -> Path:
    """A folder of experts; `reference` is that of the package, unless there is one of that name."""
    return REFERENCE_FOLDER if str(folder) == REFERENCE and not folder.exists() else folder


def load_experts(folder: Path, names: Sequence[str] | None = None) -> ExpertSet:
    """The experts of a folder, or of the package for `reference`: all or those named, in order of name.

    Raises:
        MissingData: there are none. UnknownName: one that is named is not there. DamagedFile: one does not load.
    """
    folder = experts_at(folder)
    known = expert_names(folder)
    if not known:
        there = f"no experts in {folder}" if folder.is_dir() else f"there is no folder {folder}, where experts were expected"
        raise MissingData(f"{there}. Check the path, or train some: staf train --data entity_synonymy --out {folder}")
    for name in names or ():
        if name not in known:
            raise UnknownName.among("expert", name, known)
    chosen = known if names is None else tuple(sorted(names))
    return ExpertSet(tuple(load_expert(folder / name) for name in chosen), folder)


def training_run_of(folder: Path, base: Mapping[str, Any] | None = None) -> str | None:
    """The training digest of an existing expert, without reading its factors; None where there is none.

    Args:
        base: identity of a base; an expert that was trained with another tokenizer counts as none.
    """
    path = next((folder / name for name in (RECORD, FORMER) if (folder / name).is_file()), None)
    record = read_json(path) if path else {}
    training, made_on = (record.get(name) if isinstance(record, dict) else None for name in ("training", "base"))
    if not isinstance(training, dict) or (base and isinstance(made_on, dict) and other_tokenizer(made_on, base)):
        return None
    return training.get("run")
