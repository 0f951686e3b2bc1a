"""GGUF files of a tiny random Llama with a byte tokenizer, written by the gguf package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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


def write_gguf_of(folder: Path, path: Path, more: Mapping[str, np.ndarray] | None = None) -> Path:
    """Write a tiny saved model (Llama, Qwen2 or Qwen3, with the byte tokenizer) in float32, as llama.cpp's converter does.

    Args:
        more: what is added to tensors, by their names in the file.
    """
    from safetensors.torch import load_file
    from transformers import AutoConfig, PreTrainedTokenizerFast

    config, tokenizer = AutoConfig.from_pretrained(str(folder)), PreTrainedTokenizerFast.from_pretrained(str(folder))
    kind, layers, heads = config.model_type, config.num_hidden_layers, config.num_attention_heads
    writer, width = gguf.GGUFWriter(path, kind), config.hidden_size // heads
    known = gguf.get_tensor_name_map(next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == kind), layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(width)
    writer.add_key_length(width)
    writer.add_value_length(width)
    words = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    writer.add_vocab_size(len(words))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(words)
    writer.add_token_merges([f"{words[-2]} {words[-1]}"])  # of bytes that no text has in this order
    writer.add_token_types([3] + [1] * (len(words) - 1))
    writer.add_eos_token_id(0)
    writer.add_add_bos_token(False)
    for file in sorted(folder.glob("*.safetensors")):
        for name, tensor in load_file(file).items():
            value, part = tensor.float(), name.split(".")[-2]
            if kind == "llama" and part in ("q_proj", "k_proj"):
                value = value.reshape(value.shape[0] // width, 2, width // 2, -1).swapaxes(1, 2).reshape(value.shape)
            named = str(known.get_name(name, (".weight", ".bias")))
            writer.add_tensor(named, value.contiguous().numpy() + (more or {}).get(named, np.float32(0)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
