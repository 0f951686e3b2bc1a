"""GGUF files of a tiny random Llama with a byte tokenizer, written by the gguf package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
from tokenizers import pre_tokenizers

WORDS = ["<stop>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "Ġa"]
MATRICES = {
    "attn_norm": (32,), "ffn_norm": (32,), "attn_q": (32, 32), "attn_k": (16, 32), "attn_v": (16, 32),
    "attn_output": (32, 32), "ffn_gate": (64, 32), "ffn_up": (64, 32), "ffn_down": (32, 64),
}  # fmt: skip


def write_gguf(
    path: Path, more: Callable[[gguf.GGUFWriter], None] = lambda writer: None, left_out: tuple[str, ...] = (), layers: int = 2
) -> Path:
    """Write a file.

    Args:
        more: adds keys and tensors. left_out: beginnings of names of tensors that are not written.
        layers: that the file says it has; it holds two.
    """
    writer, random = gguf.GGUFWriter(path, "llama"), np.random.default_rng(3)
    writer.add_context_length(2048)
    writer.add_embedding_length(32)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(500000.0)
    writer.add_rope_dimension_count(8)
    writer.add_vocab_size(len(WORDS))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(WORDS)
    writer.add_token_merges(["Ġ a"])
    writer.add_token_types([3] + [1] * (len(WORDS) - 1))
    writer.add_eos_token_id(0)

    def add(name: str, *shape: int) -> None:
        value = np.ones(shape, np.float32) if "norm" in name else (random.standard_normal(shape) * 0.2).astype(np.float32)
        if not name.startswith(left_out or ("-",)):
            writer.add_tensor(name, value)

    add("token_embd.weight", len(WORDS), 32)
    for layer in range(2):
        for name, shape in MATRICES.items():
            add(f"blk.{layer}.{name}.weight", *shape)
    add("output_norm.weight", 32)
    add("output.weight", len(WORDS), 32)
    more(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
