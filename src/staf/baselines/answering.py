"""A trained baseline as a base: its answers are then read off and written by the one engine that every method has.

What was trained is in the model itself (LoRA, IA3, full fine-tuning), where PEFT leaves its layers, or it lies before every
prompt: keys and values of a tuned prefix, or those of tuned vectors after they went through the model once.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from staf.lm.base import Base, KVCache
from staf.lm.prefix_cache import kv_layers


@torch.no_grad()
def tuned_base(base: Base, model: Any) -> Base:
    """The base with another model.

    Args:
        base: whose tokenizer, device and number format are used; it is not changed.
        model: of transformers or PEFT, trained.
    """
    model.eval()
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    dtype = inner.get_input_embeddings().weight.dtype  # float32 where all of it was trained
    return replace(base, model=inner, dtype=dtype, prefix_kv=_prefix_kv(base, model, inner))


def _prefix_kv(base: Base, model: Any, inner: Any) -> KVCache | None:
    """Keys and values of what PEFT lays before every prompt, or None."""
    settings = getattr(model, "active_peft_config", None)
    if settings is None or not settings.is_prompt_learning:
        return None
    found = model.get_prompt(batch_size=1)
    if settings.peft_type != "PREFIX_TUNING":
        found = inner.get_decoder()(inputs_embeds=found.to(base.dtype), use_cache=True).past_key_values
    return tuple((keys.to(base.dtype), values.to(base.dtype)) for keys, values in kv_layers(found))
