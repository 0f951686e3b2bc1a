"""A router's experts merged into the base's weights (STAF-LLM, Algorithm 2), as a folder that transformers loads.

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

from staf.checkpoint_io import saving_tensors
from staf.data.example import LABEL_TYPES
from staf.errors import ExpertMismatch, UnknownName
from staf.evaluate.settings import EvaluationSettings
from staf.experts.store import ExpertSet
from staf.export.card import export_record, is_to_write
from staf.io import read_json, staged_folder, write_json
from staf.lm.base import DTYPES, identity_of, resolve, weight_files
from staf.lm.lora import merged_weight
from staf.routing.store import Router, TaskPrompt

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
    check_dtype(dtype)
    router.check(identity_of(base), experts)
    record = export_record(router, dtype)
    if is_to_write(out, record, overwrite):
        with staged_folder(out) as folder:
            write_merged(base, folder, experts, router, dtype)
            write_json(folder / "staf.json", record)
    return record


def check_dtype(dtype: str | None) -> None:
    """Raise UnknownName unless weights can be saved in a dtype; None keeps the base's."""
    if dtype is not None and dtype not in DTYPES:
        raise UnknownName.among("dtype", dtype, DTYPES)


def write_merged(base: str | None, folder: Path, experts: ExpertSet, router: Router, dtype: str | None) -> None:
    """Write weights, config and tokenizer of the merged model to a folder that is there; raises as `save_merged`."""
    source = resolve(base)
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


def write_generation_settings(folder: Path, prompt: TaskPrompt) -> None:
    """Write generation_config.json: the base's special tokens, greedy answers, and where they end if they are generated."""
    path, own = folder / "generation_config.json", EvaluationSettings()
    kept = read_json(path) if path.is_file() else {}
    settings = {name: value for name, value in kept.items() if name.endswith("_token_id") and value is not None}
    settings["do_sample"] = False
    if prompt.output_type not in LABEL_TYPES:
        settings |= {"max_new_tokens": own.max_new_tokens, "stop_strings": list(own.stop)}
    write_json(path, settings)


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
                    b, a = router.factors_of(experts, module, (tensor.shape[0], tensor.shape[1]))
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
