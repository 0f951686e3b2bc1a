"""Experts plugged in and out of a set on disk: nothing else in the set is touched, and no expert is trained again.

A set is a folder of experts (`staf.experts.store.load_experts`). Its fingerprint follows from what is in it, so a router
that was made for the set as it was is refused afterwards (`staf.routing.store.Router.check`) until it is adapted again.
An expert comes in by one rename and goes out by one rename: a stop at any moment leaves the old set or the new one.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from staf.errors import BaseMismatch, DamagedFile, ExpertMismatch, MissingData, StafError, UnknownName
from staf.experts.store import Expert, ExpertSet, expert_names, load_expert, load_experts, save_expert
from staf.io import sync_folder

REMOVED = ".removed"
"""Where experts that were taken out are kept, inside the folder of the set; nothing reads it."""


def matrix_shapes(expert: Expert) -> dict[str, tuple[int, int]]:
    """(d_out, d_in) of each matrix that an expert adapts, by name; ranks do not matter."""
    return {name: (u.shape[0], v.shape[1]) for name, (u, _, v) in expert.factors.items()}


def average_rank(expert: Expert) -> float:
    """Mean rank over the matrices of an expert."""
    return sum(expert.ranks.values()) / max(len(expert.ranks), 1)


def count_numbers(expert: Expert) -> int:
    """Numbers in all factors of an expert."""
    return sum(part.numel() for parts in expert.factors.values() for part in parts)


def check_fits(expert: Expert, peer: Expert) -> None:
    """See that two experts can stand in one set: the same base, the same matrices, the same shapes; any ranks.

    Raises:
        BaseMismatch: trained on another base. ExpertMismatch: other matrices or shapes. Both experts are named.
    """
    if expert.base["fingerprint"] != peer.base["fingerprint"]:
        raise BaseMismatch(
            f"expert '{expert.name}' was trained on {expert.base['name']} ({expert.base['fingerprint']}), expert "
            f"'{peer.name}' of the set on {peer.base['name']} ({peer.base['fingerprint']}). Experts of one set have one base: "
            f"train '{expert.name}' again on that of the set, or put it into another set."
        )
    mine, theirs = matrix_shapes(expert), matrix_shapes(peer)
    differing = sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name))
    if differing:
        first = differing[0]
        raise ExpertMismatch(
            f"expert '{expert.name}' adapts {len(mine)} matrices, expert '{peer.name}' of the set {len(theirs)}; "
            f"{len(differing)} differ. The first is {first}: {_shape_text(mine.get(first))} in '{expert.name}', "
            f"{_shape_text(theirs.get(first))} in '{peer.name}'. "
            f"Train '{expert.name}' again with the targets of the set, or put it into another set."
        )


def _shape_text(shape: tuple[int, int] | None) -> str:
    return "not adapted" if shape is None else f"{shape[0]} x {shape[1]}"


def add_expert(folder: Path, source: Path) -> ExpertSet:
    """Copy a trained expert into a set, whole or not at all; a set that is not there yet begins with it.

    Args:
        folder: of the set. source: the folder of one expert.

    Returns:
        the set with the expert in it.

    Raises:
        MissingData, DamagedFile: as `load_expert`, for the expert or for one of the set; or a name that is no folder name.
        BaseMismatch, ExpertMismatch: it does not fit an expert of the set. StafError: its name is taken, or the folder
            cannot be written. The set is as it was.
    """
    expert = load_expert(source)
    _check_name(expert.name, source)
    present = load_experts(folder).experts if expert_names(folder) else ()
    if expert.name in {peer.name for peer in present} or (folder / expert.name).exists():
        raise StafError(
            f"{folder} has '{expert.name}' already; nothing was changed. Take that one out first: "
            f"staf experts remove {folder} {expert.name}"
        )
    for peer in present:
        check_fits(expert, peer)
    with _made_whole(folder / expert.name) as staging:
        save_expert(staging, expert)
    return load_experts(folder)


def remove_expert(folder: Path, name: str) -> Path:
    """Take an expert out of a set; its files are kept in `REMOVED` of the folder, and nothing else is touched.

    Returns:
        where the expert is now; `add_expert` from there puts it back.

    Raises:
        MissingData: no experts there. UnknownName: none of this name. StafError: the folder cannot be written.
    """
    known = expert_names(folder)
    if not known:
        raise MissingData(f"no experts in {folder}: nothing to take '{name}' out of. Check the path.")
    if name not in known:
        raise UnknownName.among("expert", name, known)
    kept = folder / REMOVED
    taken = {path.name for path in kept.iterdir()} if kept.is_dir() else set[str]()
    number = 1
    while (free := name if number == 1 else f"{name}-{number}") in taken:
        number += 1
    try:
        kept.mkdir(exist_ok=True)
        os.replace(folder / name, kept / free)
        sync_folder(folder)
    except OSError as error:
        raise StafError(f"cannot take '{name}' out of {folder}: {error.strerror or error}. Nothing was changed.") from error
    return kept / free


def write_set(out: Path, experts: Sequence[Expert]) -> None:
    """Save experts as a new set, all of them or none.

    Raises:
        StafError: `out` is there already, or cannot be written; nothing is left there.
    """
    if out.exists():
        raise StafError(f"{out} exists already. Delete it or name another folder; nothing was changed.")
    with _made_whole(out) as staging:
        for expert in experts:
            _check_name(expert.name, out)
            save_expert(staging / expert.name, expert)


def describe(folder: Path) -> list[dict[str, Any]]:
    """One row for each expert of a set, in order: what it was trained on, its size, and the fingerprints.

    Raises:
        MissingData, DamagedFile: as `load_experts`.
    """
    experts = load_experts(folder)
    return [
        {
            "expert": expert.name,
            "base": expert.base["name"],
            "base_fingerprint": expert.base["fingerprint"],
            "matrices": len(expert.factors),
            "average_rank": round(average_rank(expert), 2),
            "numbers": count_numbers(expert),
            "examples": expert.record.get("examples"),
            "fingerprint": expert.fingerprint,
            "set": experts.fingerprint,
        }
        for expert in experts.experts
    ]


def _check_name(name: str, source: Path) -> None:
    if not name or name.startswith(".") or Path(name).name != name:
        raise DamagedFile(f"{source}: '{name}' cannot be the name of an expert, as it is no name of a folder. Train it again.")


@contextmanager
def _made_whole(target: Path) -> Iterator[Path]:
    """A folder to fill that is renamed to `target` at the end; where anything fails nothing is left at `target`.

    It lies one level down in a hidden folder, where `expert_names` does not look.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        hidden = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise StafError(f"cannot write {target}: {error.strerror or error}. Nothing was changed there.") from error
    try:
        yield hidden / target.name
        os.replace(hidden / target.name, target)
        sync_folder(target.parent)
    except OSError as error:
        raise StafError(f"cannot write {target}: {error.strerror or error}. Nothing was changed there.") from error
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
