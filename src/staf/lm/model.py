"""The frozen base model in memory: its forwards, tokenizer, LoRA layers and identity. `staf.lm.base` reads it from files."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from functools import cache, cached_property
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from staf.errors import BadData, ConfigError
from staf.lm.batches import round_up
from staf.lm.lora import LoraModel
from staf.lm.prefix_attention import NAME
from staf.lm.prompts import PLAIN, PromptFormat

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
    prompt_format: PromptFormat = PLAIN
    """of the prompts that it answers"""

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
        """Positions up to which a row of the model depends on no other row of its batch."""
        config = self.model.config
        rope = getattr(config, "rope_parameters", None) or {}
        first = rope.get("original_max_position_embeddings") if rope.get("rope_type") in ("dynamic", "longrope") else None
        return int(first or config.max_position_embeddings)

    def check_length(self, tokens: int) -> None:
        """Raise ConfigError if the base has fewer positions than tokens."""
        if tokens > self.context_length:
            raise ConfigError(
                f"a prompt and its answer take {tokens} tokens, but {self.name} has {self.context_length} positions. "
                f"Set max_length to at most {self.context_length} (and fewer max_new_tokens)."
            )

    @cached_property
    def end_tokens(self) -> tuple[int, ...]:
        """Ids of the tokens that end an answer: of the tokenizer, the chat template, and the model's generation_config."""
        listed = getattr(getattr(self.model, "generation_config", None), "eos_token_id", None)
        listed = listed if isinstance(listed, list) else [listed]
        ends = (self.tokenizer.eos_token_id, self.prompt_format.end_token, *listed)
        return tuple(dict.fromkeys(token for token in ends if token is not None))

    @cached_property
    def _unknown_from(self) -> int | None:
        """The first id that the tokenizer has and the embedding has not; None where there is none."""
        rows: int = self.model.get_input_embeddings().weight.shape[0]
        return rows if self.tokenizer is not None and max(self.tokenizer.get_vocab().values(), default=0) >= rows else None

    def decode(self, ids: Tensor, cache: Any = None, **inputs: Any) -> Tensor:
        """Last hidden states (B, T, d) of token ids (B, T), their keys and values appended to a cache of transformers.

        Raises:
            BadData: an id is not in the embedding.
        """
        if self._unknown_from is not None and ids.device.type != "meta" and int(ids.max()) >= self._unknown_from:
            raise BadData(
                f"a text holds the token {self.tokenizer.convert_ids_to_tokens(int(ids.max()))!r}, for which the embedding of "
                f"{self.name} has no row ({self._unknown_from} rows). Remove it from the text, or resize the embedding."
            )
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

    @property
    def shares_prefix_kv(self) -> bool:
        """Whether rows attend to one copy of their prefix (`staf.lm.prefix_attention`): on a CPU, with full attention."""
        config = self.model.config
        if self.device.type != "cpu" or config._attn_implementation != NAME:
            return False
        windowed = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
        return config.model_type in ("llama", "mistral", "qwen2", "qwen3") and not windowed

    def logits(self, hidden: Tensor) -> Tensor:
        """Float32 logits (N, V) of hidden states (N, d)."""
        count, config = hidden.shape[0], self.model.config
        padded = functional.pad(hidden, (0, 0, 0, round_up(count) - count))
        logits: Tensor = self.model.get_output_embeddings()(padded)[:count].float()
        logits = logits * (getattr(config, "logit_scale", None) or 1) / (getattr(config, "logits_scaling", None) or 1)
        cap = getattr(config, "final_logit_softcapping", None)
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
        layer.keys, layer.values = (kept.repeat_interleave(rows, dim=0) for kept in (layer.keys, layer.values))
    return expanded


def decoder_layers(model: Any) -> tuple[str, nn.ModuleList]:
    """Name and modules of a model's decoder layers, ("", none) where its decoder has no `layers`."""
    layers = getattr(model.get_decoder(), "layers", None)
    name = next((name for name, module in model.named_modules() if module is layers), "")
    return (name, layers) if name and isinstance(layers, nn.ModuleList) else ("", nn.ModuleList())


def targets_of(model: Any) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Full names of the matrices that experts adapt, all linear maps in the decoder layers, and the layer of each."""
    prefix, layers = decoder_layers(model)
    pairs = [
        (f"{prefix}.{index}.{name}", index)
        for index, layer in enumerate(layers)
        for name, module in layer.named_modules()
        if isinstance(module, nn.Linear)
    ]
    return tuple(name for name, _ in pairs), tuple(layer for _, layer in pairs)
