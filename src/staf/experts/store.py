"""Experts on disk, and a set of them in one fixed order.

    <experts>/<name>/expert.json                what it is: base, settings, data, versions, checksum of the factors
    <experts>/<name>/expert-<sha>.safetensors   per matrix U (d_out, k), lambda (k,), V (k, d_in), k may be 0; subjects

The subjects are fingerprints of what the expert was trained on; a test item among them is a leak.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from staf.checkpoint_io import read_checkpoint, write_checkpoint
from staf.errors import BaseMismatch, DamagedFile, ExpertMismatch, MissingData, UnknownName
from staf.io import read_json

_PARTS = ("U", "lambda", "V")


@dataclass(frozen=True)
class Expert:
    """One trained expert."""

    name: str
    base: dict[str, str]
    """name and fingerprint of the base it was trained on"""
    scale: float
    factors: dict[str, tuple[Tensor, Tensor, Tensor]]
    """U (d_out, k), lambda (k,), V (k, d_in) by matrix name; lambda is without the scale"""
    subjects: frozenset[str]
    """fingerprints of what it was trained on"""
    record: dict[str, Any] = field(default_factory=dict)
    """settings, data fingerprint, versions, figures of the training"""

    @property
    def ranks(self) -> dict[str, int]:
        """Ranks kept in each matrix."""
        return {name: factors[1].shape[0] for name, factors in self.factors.items()}

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits of the factors."""
        digest = hashlib.sha256(str(self.scale).encode())
        for name in sorted(self.factors):
            digest.update(name.encode())
            for part in self.factors[name]:
                digest.update(part.contiguous().cpu().numpy().tobytes())
        return digest.hexdigest()[:16]


def save_expert(folder: Path, expert: Expert) -> None:
    """Write an expert whole or not at all."""
    tensors = {f"{name}.{part}": t for name, ts in expert.factors.items() for part, t in zip(_PARTS, ts, strict=True)}
    numbers = [int(s, 16) - (1 << 63) for s in sorted(expert.subjects)]
    tensors["subjects"] = torch.tensor(numbers, dtype=torch.int64)
    record = {
        "name": expert.name,
        "base": expert.base,
        "scale": expert.scale,
        "ranks": expert.ranks,
        "fingerprint": expert.fingerprint,
        "training": expert.record,
    }
    write_checkpoint(folder, "expert", tensors, record)


def load_expert(folder: Path) -> Expert:
    """Read an expert and check it.

    Raises:
        MissingData, DamagedFile: as `read_checkpoint`, or its tensors are not those its record lists.
    """
    tensors, record = read_checkpoint(folder, "expert")
    try:
        ranks: dict[str, int] = record["ranks"]
        factors = {name: (tensors[f"{name}.U"], tensors[f"{name}.lambda"], tensors[f"{name}.V"]) for name in ranks}
        numbers = tensors["subjects"].tolist()
        subjects = frozenset(f"{n + (1 << 63):016x}" for n in numbers)
        expert = Expert(record["name"], record["base"], record["scale"], factors, subjects, record["training"])
    except (KeyError, TypeError, AttributeError) as error:
        raise DamagedFile(f"{folder}: its record and tensors do not fit ({error}). Train the expert again.") from error
    odd = [n for n, (u, s, v) in factors.items() if not u.shape[1] == s.shape[0] == v.shape[0] == ranks[n]]
    extra = tensors.keys() - {f"{n}.{p}" for n in ranks for p in _PARTS} - {"subjects"}
    if odd or extra:
        raise DamagedFile(f"{folder}: {(odd or sorted(extra))[0]} is not as its record says. Train the expert again.")
    return expert


@dataclass(frozen=True)
class ExpertSet:
    """Experts of one base in a fixed order (by name), which router weights refer to."""

    experts: tuple[Expert, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names in order."""
        return tuple(expert.name for expert in self.experts)

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits of all experts in order."""
        return hashlib.sha256("/".join(e.name + e.fingerprint for e in self.experts).encode()).hexdigest()[:16]

    @property
    def subjects(self) -> frozenset[str]:
        """What any of them was trained on."""
        return frozenset().union(*(expert.subjects for expert in self.experts))

    def check(self, base: Mapping[str, str], shapes: Mapping[str, tuple[int, int]]) -> None:
        """See that every expert was trained on this base and adapts these matrices.

        Raises:
            BaseMismatch: another base. ExpertMismatch: other matrices or shapes.
        """
        for expert in self.experts:
            if expert.base["fingerprint"] != base["fingerprint"]:
                raise BaseMismatch(
                    f"expert '{expert.name}' was trained on {expert.base['name']} ({expert.base['fingerprint']}), "
                    f"this base is {base['name']} ({base['fingerprint']}). Give that base with --base, or train it again."
                )
            found = {name: (u.shape[0], v.shape[1]) for name, (u, _, v) in expert.factors.items()}
            if found != dict(shapes):
                differing = sorted(name for name in found.keys() | shapes.keys() if found.get(name) != shapes.get(name))
                raise ExpertMismatch(
                    f"expert '{expert.name}' adapts {len(found)} matrices, {len(shapes)} are adapted in this base; "
                    f"the first that differs is {differing[0]}. Train it again with the same targets, or leave it out."
                )


def expert_names(folder: Path) -> tuple[str, ...]:
    """Names of the finished experts in a folder, in order; none where there is no folder."""
    if not folder.is_dir():
        return ()
    return tuple(sorted(p.parent.name for p in folder.glob("*/expert.json")))


def load_experts(folder: Path, names: Sequence[str] | None = None) -> ExpertSet:
    """The experts of a folder, all or those named, in order of name.

    Raises:
        MissingData: there are none. UnknownName: one that is named is not there. DamagedFile: one does not load.
    """
    known = expert_names(folder)
    if not known:
        raise MissingData(f"no experts in {folder}. Train some: staf train --experts entity_synonymy --out {folder}")
    for name in names or ():
        if name not in known:
            raise UnknownName.among("expert", name, known)
    chosen = known if names is None else tuple(sorted(names))
    return ExpertSet(tuple(load_expert(folder / name) for name in chosen))


def expert_digest(folder: Path) -> str | None:
    """The settings digest an existing expert was trained with, without reading its factors; None where there is none."""
    if not (folder / "expert.json").is_file():
        return None
    record = read_json(folder / "expert.json")
    training = record.get("training", {}) if isinstance(record, dict) else {}
    return training.get("run") if isinstance(training, dict) else None
