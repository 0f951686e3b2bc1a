"""Sets of experts: add any LoRA adapter that PEFT wrote, remove, list; no other expert of the set is touched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from staf.errors import ConfigError, DamagedFile, MissingData, StafError, UnknownName
from staf.experts.adapter import CONFIG, read_adapter
from staf.experts.store import (
    RECORD,
    Expert,
    ExpertSet,
    check_fits,
    expert_names,
    load_expert,
    load_experts,
    save_expert,
    set_aside,
)
from staf.io import locked, staged_folder
from staf.lm.base import from_hub, is_hub_id
from staf.log import Log, StderrProgress


def open_adapter(source: str, name: str, base: Mapping[str, Any] | None, log: Log) -> Expert:
    """A LoRA adapter that PEFT wrote as an expert of a base.

    Args:
        source: its folder or hub id. base: name and fingerprint of the base it is used on.

    Raises:
        ConfigError: no base is known. BaseMismatch: it names another one. Others as `read_adapter`.
    """
    folder = Path(source) if Path(source).is_dir() else from_hub(source, "adapter", ["adapter_*"])
    factors, config = read_adapter(folder)
    named = str(config.get("base_model_name_or_path") or "")
    if base is None:
        raise ConfigError(f"{source} is the first expert of the set, so its base must be given: add --base {named or 'BASE'}.")
    if named.rstrip("/").rpartition("/")[2] != str(base["name"]).rstrip("/").rpartition("/")[2]:
        log(f"{source} names the base {named or 'nothing'}; it is used on {base['name']}, whose modules it must fit.")
    return Expert(name, dict(base), factors, frozenset(), {"adapter": {"source": source, "base": named}})


def add_expert(
    folder: Path, source: Path | str, name: str | None = None, base: Mapping[str, Any] | None = None,
    log: Log | None = None,
) -> ExpertSet:  # fmt: skip
    """Copy an expert, or any LoRA adapter that PEFT wrote, into a set, which may be new; returns the set.

    Args:
        source: folder of an expert or adapter, or hub id of an adapter. name: in the set; needed for an adapter.
        base: name and fingerprint of the base of an adapter; None takes that of the set.

    Raises:
        MissingData, DamagedFile: as `load_expert` and `read_adapter`. ConfigError: an adapter without a name or base.
        BaseMismatch, ExpertMismatch: it does not fit an expert of the set. StafError: its name is taken, or the folder cannot
            be written. The set is as it was.
    """
    log = log or StderrProgress().log
    present = load_experts(folder).experts if expert_names(folder) else ()
    path = Path(source)
    if is_hub_id(str(source)) or ((path / CONFIG).is_file() and not (path / RECORD).is_file()):
        if name is None:
            raise ConfigError(f"{source} is a PEFT adapter or a hub id and has no name in the set: add --name NAME.")
        expert = open_adapter(str(source), name, base or (present[0].base if present else None), log)
    else:
        loaded = load_expert(path, log)
        expert = loaded if name is None else replace(loaded, name=name)
    _check_name(expert.name, source)
    if any(peer.name == expert.name and peer.fingerprint == expert.fingerprint for peer in present):
        return load_experts(folder)  # an interrupted command had come so far
    if (folder / expert.name).exists() or expert.name in {peer.name for peer in present}:
        raise StafError(
            f"{folder} has '{expert.name}' already; nothing was changed. Remove that one first: "
            f"staf experts remove {folder} {expert.name}"
        )
    for peer in present:
        advice = f"Put '{expert.name}' into another set"
        check_fits(expert, peer.base, peer.shapes, f"expert '{peer.name}' of the set on", advice, partial=True)
    save_expert(folder / expert.name, expert)
    return load_experts(folder)


def remove_expert(folder: Path, name: str) -> Path:
    """Take an expert out of a set; its files are kept in `.removed` of the folder, and nothing else is touched.

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
    with locked(folder / name):
        return set_aside(folder / name)


def write_set(out: Path, experts: Sequence[Expert]) -> None:
    """Save experts as a new set, all of them or none; the same set that is there already is left as it is.

    Raises:
        StafError: `out` is there already and something else, or cannot be written; nothing is left there.
    """
    if expert_names(out) and load_experts(out).fingerprint == ExpertSet(tuple(experts)).fingerprint:
        return
    if out.exists():
        raise StafError(f"{out} exists already. Delete it or name another folder; nothing was changed.")
    with staged_folder(out) as staging:
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
            "expert": expert.name, "base": expert.base["name"], "base_fingerprint": expert.base["fingerprint"],
            "modules": len(expert.factors), "average_rank": round(expert.average_rank, 2), "num_params": expert.num_params,
            "examples": expert.record.get("examples"), "fingerprint": expert.fingerprint, "set": experts.fingerprint,
        }
        for expert in experts.experts
    ]  # fmt: skip


def _check_name(name: str, source: Path | str) -> None:
    if not name or name.startswith(".") or Path(name).name != name:
        raise DamagedFile(f"{source}: '{name}' cannot be the name of an expert, as it is no name of a folder. Use --name NAME.")
