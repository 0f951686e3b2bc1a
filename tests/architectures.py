"""Tiny models of other architectures than the Llama of conftest.py, with its tokenizer: what differs in attention."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from staf.lm.base import Base, load_base

SMALL = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 4096, "pad_token_id": 0, "eos_token_id": 0, "bos_token_id": 0, "initializer_range": 0.2,
}  # fmt: skip
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "gpt_neox": {},
    "mistral": {"num_key_value_heads": 2, "sliding_window": 24},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 8},
    "qwen2": {"num_key_value_heads": 2, "use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1},
}
"""Partial rotation and parallel residuals; a window in every layer, shorter than most prompts; norms of queries and keys; a
window in every second layer."""


def save_model(tiny_folder: Path, folder: Path, model_type: str, **settings: Any) -> None:
    """A tiny model of any type with random weights and biases, in a folder."""
    tokenizer = AutoTokenizer.from_pretrained(str(tiny_folder))
    tokenizer.save_pretrained(str(folder))
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, vocab_size=len(tokenizer), **settings)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("proj.bias"):
                parameter.normal_(std=0.2)
    model.save_pretrained(str(folder))


def other_base(kind: str, tiny_folder: Path, folder: Path) -> Base:
    """A tiny base of another architecture, float32, with random weights."""
    save_model(tiny_folder, folder, kind, **SMALL, **ARCHITECTURES[kind])
    return load_base(str(folder), dtype="float32", device="cpu")
