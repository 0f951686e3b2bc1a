"""A saved two-layer Llama (width 32) with random weights and a byte tokenizer."""

from __future__ import annotations

from pathlib import Path

import torch

CONTROL = ("<s>", "<|turn|>", "<|end|>")
CHAT = (
    "{{ bos_token }}<|turn|>system\nBe brief.<|end|>\n{% for m in messages %}<|turn|>{{ m['role'] }}\n{{ m['content'] | trim }}"
    "<|end|>\n{% endfor %}{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)
"""A chat template that writes the start token and a system message, and trims what is said."""


def write_tiny_model(folder: Path, chat_template: str | None = None) -> Path:
    """Save model and tokenizer to `folder`, and return it.

    Args:
        chat_template: of a tokenizer that has the `CONTROL` tokens and starts every text with the first of them.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<end>": 0, **{letter: i + 1 for i, letter in enumerate(alphabet)}}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    more: dict[str, str] = {}
    if chat_template is not None:
        raw.add_special_tokens(list(CONTROL))
        start = CONTROL[0]
        raw.post_processor = processors.TemplateProcessing(
            single=f"{start} $A", special_tokens=[(start, raw.token_to_id(start))]
        )
        more = {"bos_token": start, "chat_template": chat_template}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<end>", pad_token="<end>", **more)
    tokenizer.save_pretrained(str(folder))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=raw.get_vocab_size(), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=4096, pad_token_id=0, eos_token_id=0, bos_token_id=0,
        initializer_range=0.2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(str(folder))
    return folder
