"""A base in four bits: NF4 (Dettmers et al., 2023) by bitsandbytes, for models that do not fit otherwise.

Frozen matrices are stored in blocks of 64 numbers of four bits and one scale, and computed with in bfloat16. Such a base cannot
be merged or exported; an expert trained on it works on the unquantized base too.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch

from staf.errors import MissingData

NF4 = "nf4"
"""As a dtype of a base."""


def loading_options(device: torch.device) -> dict[str, Any]:
    """Arguments of `from_pretrained` that load a model in four bits onto a device.

    Raises:
        MissingData: bitsandbytes is not installed.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingData("a base in four bits needs bitsandbytes, which is not installed: pip install 'staf-llm[four-bit]'.")
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type=NF4, bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16
    )
    return {"quantization_config": config, "device_map": {"": device}}
