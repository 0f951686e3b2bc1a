"""LoRA adapters as PEFT writes them: adapter_config.json and adapter_model.safetensors.

A module adds B A x with B (d_out, r) and A (r, d_in); the scale is folded into B. What is written has one rank for all modules
from the list that serving engines accept, padded with zeros, lora_alpha equal to r, and suffixes as target_modules.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
from torch.nn.functional import pad

from staf.errors import DamagedFile, MissingData
from staf.io import read_json, write_bytes, write_json

Factors = tuple[Tensor, Tensor]
"""B (d_out, r) and A (r, d_in) of one module, float32; r may be 0."""
CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
SERVED_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks that vLLM accepts."""
_PREFIX = "base_model.model."
_NAME = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<part>[AB])(?:\.default)?\.weight")
_RESIDUAL_INITS = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Initialisations that change the weights of the base, so that the adapter does not fit the base as it was released."""
_UNSUPPORTED = (
    "use_dora", "lora_bias", "modules_to_save", "trainable_token_indices", "target_parameters", "layer_replication",
    "fan_in_fan_out", "use_qalora", "alora_invocation_tokens", "use_bdlora", "arrow_config", "kasa_config",
)  # fmt: skip
"""Options of PEFT's LoraConfig that make an adapter more than B A x."""


def write_adapter(
    folder: Path, factors: Mapping[str, Factors], base: Mapping[str, Any], compact: bool = False
) -> None:  # fmt: skip
    """Write factors by module name as a LoRA adapter that PEFT and serving engines load.

    Args:
        base: its name, and its revision where it has one.
        compact: in bfloat16, each module with its own rank (1 where it has none): a quarter of the size.

    Raises:
        StafError: the folder cannot be written.
    """
    rank, tensors = served_rank(factors), {}
    own = {name: max(b.shape[1], 1) if compact else rank for name, (b, _) in factors.items()}
    for name, pair in factors.items():
        b, a = padded({name: pair}, own[name])[name]
        b, a = (b.bfloat16(), a.bfloat16()) if compact else (b, a)
        tensors[f"{_PREFIX}{name}.lora_A.weight"], tensors[f"{_PREFIX}{name}.lora_B.weight"] = a, b
    pattern = {name: width for name, width in own.items() if width != rank}
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base["name"],
        "revision": base.get("revision"), "r": rank, "lora_alpha": rank, "lora_dropout": 0.0, "bias": "none",
        "target_modules": sorted({name.rpartition(".")[2] for name in factors}), "use_rslora": False, "use_dora": False,
        "modules_to_save": None, "rank_pattern": pattern, "alpha_pattern": pattern, "init_lora_weights": True,
        "inference_mode": True, "fan_in_fan_out": False,
    }  # fmt: skip
    write_bytes(folder / TENSORS, save(tensors, metadata={"format": "pt"}))
    write_json(folder / CONFIG, config)


def served_rank(factors: Mapping[str, Factors]) -> int:
    """The smallest rank of `SERVED_RANKS` that holds all modules; the largest rank itself where it is above all of these."""
    largest = max((b.shape[1] for b, _ in factors.values()), default=1)
    return next((served for served in SERVED_RANKS if served >= largest), largest)


def padded(factors: Mapping[str, Factors], rank: int) -> dict[str, Factors]:
    """Factors of one rank for all modules, by zeros, in float32 on the CPU."""
    found = {}
    for name, (b, a) in factors.items():
        missing = rank - b.shape[1]
        large = pad(b.detach().cpu().float(), (0, missing)), pad(a.detach().cpu().float(), (0, 0, 0, missing))
        found[name] = (large[0].contiguous(), large[1].contiguous())
    return found


def read_adapter(folder: Path) -> tuple[dict[str, Factors], dict[str, Any]]:
    """The factors by module name, scale folded into B, and the config of a LoRA adapter that PEFT wrote.

    Raises:
        MissingData: there is no adapter. DamagedFile: it cannot be read, or is more than LoRA; says why.
    """
    if not (folder / CONFIG).is_file():
        raise MissingData(
            f"no LoRA adapter at {folder}: {CONFIG} is not there. Give a folder that PEFT's save_pretrained wrote."
        )
    config = read_json(folder / CONFIG)
    _check_config(folder, config)
    if not (folder / TENSORS).is_file():
        pickles = sorted(path.name for path in folder.glob("adapter_model.*"))
        reason = f"{pickles[0]} is a pickle, which can run code when it is opened" if pickles else f"{TENSORS} is not there"
        raise DamagedFile(f"{folder}: {reason}. Save the adapter as safetensors: model.save_pretrained(folder) of PEFT.")
    try:
        tensors = load((folder / TENSORS).read_bytes())
    except SafetensorError as error:
        raise DamagedFile(f"{folder / TENSORS} is not a safetensors file ({error}). Restore it or save it again.") from error
    return _paired(folder, tensors, config), config


def _check_config(folder: Path, config: Any) -> None:
    """Refuse what is not a plain LoRA adapter."""
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        found = config.get("peft_type") if isinstance(config, dict) else None
        raise DamagedFile(f"{folder}: peft_type is {found!r}; only LORA adapters can be experts.")
    found = [f"{name} = {config[name]!r}" for name in _UNSUPPORTED if config.get(name)]
    if config.get("bias", "none") != "none":
        found.append(f"bias = {config['bias']!r}")
    init = config.get("init_lora_weights")
    if isinstance(init, str) and init.lower().startswith(_RESIDUAL_INITS):
        found.append(f"init_lora_weights = {init!r}, which changes the weights of the base")
    if found:
        raise DamagedFile(
            f"{folder}: {'; '.join(found)}. An expert is plain LoRA, B A x in linear layers. "
            "Train the adapter without it, or merge it into the base."
        )


def _paired(folder: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Factors]:
    """B with its scale and A by module name, every tensor used once."""
    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        match = _NAME.fullmatch(key)
        if match is None or tensor.ndim != 2 or not tensor.is_floating_point():
            raise DamagedFile(f"{folder}: {key} of shape {tuple(tensor.shape)} is not a LoRA matrix of a linear layer.")
        if not bool(torch.isfinite(tensor).all()):
            raise DamagedFile(f"{folder}: {key} holds NaN or infinite numbers. Restore {folder} from a copy.")
        parts.setdefault(match["module"], {})[match["part"]] = tensor.float()
    factors = {}
    for name, pair in parts.items():
        if len(pair) != 2 or pair["A"].shape[0] != pair["B"].shape[1]:
            raise DamagedFile(f"{folder}: lora_A and lora_B of {name} do not fit. Restore {folder} from a copy.")
        factors[name] = (pair["B"] * _scaling(name, pair["A"].shape[0], config), pair["A"])
    if not factors:
        raise DamagedFile(f"{folder / TENSORS} holds no LoRA matrix.")
    return factors


def _scaling(name: str, rank: int, config: Mapping[str, Any]) -> float:
    """PEFT's scale of a module: alpha / r, or alpha / sqrt(r) with rsLoRA; alpha_pattern by name, suffix or pattern."""
    alpha = config.get("lora_alpha") or config.get("r", rank)
    for key, value in (config.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({key})$", name):
            alpha = value
            break
    return float(alpha / rank**0.5 if config.get("use_rslora") else alpha / rank)
