"""A router's experts for other tools: merged into the base's weights (STAF-LLM, Algorithm 2), or as one LoRA adapter.

A merge streams the base from its safetensors, one file at a time, and never loads it: peak memory is one file besides the
experts.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from staf import __version__
from staf.checkpoint_io import saving_tensors
from staf.errors import ExpertMismatch, StafError, UnknownName
from staf.experts.adapter import write_adapter
from staf.experts.reduce import concat_factors
from staf.experts.store import ExpertSet
from staf.io import read_json, staged_folder, write_json
from staf.lm.base import DTYPES, identity_of, resolve, weight_files
from staf.lm.lora import merged_weight
from staf.routing.store import Router

INDEX = "model.safetensors.index.json"
COPIED = (".json", ".txt", ".model", ".jinja")
"""Endings of files that are copied as they are: tokenizer, chat template, generation settings."""


def save_merged(
    base: str | None, experts: ExpertSet, router: Router, out: Path, dtype: str | None = None, overwrite: bool = False
) -> dict[str, Any]:
    """Merge a router's experts into a base and save model and tokenizer to `out`; nothing of staf is needed to load it.

    The same merge that is there already is left as it is.

    Args:
        base: hub id, folder or GGUF file; None is the default base.
        dtype: of the saved weights, bfloat16, float16 or float32; None keeps the base's.
        overwrite: replace another merged model that is in `out`.

    Returns:
        the record written to staf.json.

    Raises:
        BaseMismatch, ExpertMismatch: the router is of another base or other experts, or the base's files lack a module.
        StafError: `out` is another model, or cannot be written; nothing is left there.
    """
    if dtype is not None and dtype not in DTYPES:
        raise UnknownName.among("dtype", dtype, DTYPES)
    router.check(identity_of(base), experts)
    card = _card(router, dtype)
    if not _is_to_write(out, card, overwrite):
        return card
    source = resolve(base)
    with staged_folder(out) as folder:
        _merge_files(source, folder, experts, router, None if dtype is None else DTYPES[dtype])
        for path in sorted(source.iterdir()):
            if (
                path.suffix in COPIED
                and not path.name.startswith(".")
                and path.name not in (INDEX, "config.json", "complete.json", "staf.json")
            ):
                shutil.copyfile(path, folder / path.name)
        config = read_json(source / "config.json")
        if dtype is not None:
            config |= {name: dtype for name in ("dtype", "torch_dtype") if name in config} or {"dtype": dtype}
        write_json(folder / "config.json", config)
        write_json(folder / "staf.json", card)
    return card


def save_adapter(experts: ExpertSet, router: Router, out: Path) -> dict[str, Any]:
    """Save a router's mixture to `out` as one LoRA adapter of the base, whose rank is the sum of the experts' (Eq. 4).

    Experts with the weight 0 are left out. The same adapter that is there already is left as it is.

    Returns:
        the record written to staf.json.

    Raises:
        BaseMismatch, ExpertMismatch: the router is of other experts. StafError: `out` is something else, or cannot be
            written; nothing is left there.
    """
    router.check(router.base, experts)
    card = {**_card(router, None), "format": "peft"}
    if _is_to_write(out, card, False):
        factors = {}
        for module in experts.shapes:
            weights = router.weights[router.modules[module]]
            kept = [index for index, weight in enumerate(weights.tolist()) if weight != 0] or [0]
            parts = experts.factors_of(module)
            factors[module] = concat_factors([parts[index] for index in kept], weights[kept])
        with staged_folder(out) as folder:
            write_adapter(folder, factors, router.base)
            write_json(folder / "staf.json", card)
    return card


def _card(router: Router, dtype: str | None) -> dict[str, Any]:
    return {
        "task": router.task, "router": router.record.get("run"), "weights": router.mean_weights, "base": router.base,
        "experts": list(router.experts), "experts_fingerprint": router.experts_fingerprint, "dtype": dtype,
        "method": router.recipe.method, "version": __version__,
    }  # fmt: skip


def _is_to_write(out: Path, card: dict[str, Any], overwrite: bool) -> bool:
    """False where the same is there already; removes another one if `overwrite`; raises StafError for anything else."""
    if (out / "staf.json").is_file() and read_json(out / "staf.json") == card:
        return False
    if out.exists():
        if not overwrite or not (out / "staf.json").is_file():
            raise StafError(f"{out} exists already. Delete it or name another folder; nothing was changed.")
        shutil.rmtree(out)
    return True


def _merge_files(source: Path, folder: Path, experts: ExpertSet, router: Router, dtype: torch.dtype | None) -> None:
    """Copy every weight file with the experts' deltas in it, one after the other."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    merged, size = set[str](), 0
    for path in weight_files(source):
        tensors: dict[str, Tensor] = {}
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118
                module, tensor = key.removesuffix(".weight"), file.get_tensor(key)
                if module in router.modules and key.endswith(".weight"):
                    factors = experts.factors_of(module, (tensor.shape[0], tensor.shape[1]))
                    b, a = concat_factors(factors, router.weights[router.modules[module]])
                    merged_in_float = merged_weight(tensor.float(), b, torch.ones(len(a)), a)  # Eq. 10
                    tensors[key] = merged_in_float.to(dtype or tensor.dtype)
                    merged.add(module)
                else:
                    tensors[key] = tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor
                size += tensors[key].nbytes
        with saving_tensors():
            save_file(tensors, str(folder / path.name), metadata={"format": "pt"})
    if missing := sorted(router.modules.keys() - merged):
        raise ExpertMismatch(
            f"the weight files of {source} name no {missing[0]}.weight, and {len(missing) - 1} other modules of the router are "
            "missing. Save the base once with transformers' save_pretrained and give that folder with --base."
        )
    if (source / INDEX).is_file():
        index = json.loads((source / INDEX).read_text(encoding="utf-8"))
        write_json(folder / INDEX, {**index, "metadata": {**index.get("metadata", {}), "total_size": size}})
