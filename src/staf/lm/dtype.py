"""The dtype a base computes in, chosen by what the hardware has instructions for."""

from __future__ import annotations

import torch

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32, "float16": torch.float16}


def choose_dtype(device: torch.device) -> tuple[torch.dtype, str]:
    """bfloat16 where the GPU or the CPU has instructions for it, else float32; and the reason."""
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16, "the GPU computes in bfloat16"
        return torch.float32, "the GPU has no bfloat16"
    if torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported():
        return torch.bfloat16, "the CPU has AMX or AVX-512 BF16"
    return torch.float32, "the CPU has neither AMX nor AVX-512 BF16"
