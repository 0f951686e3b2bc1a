"""The one layer that trains, routes, serves and merges experts (STAF-LLM, Eqs. 1, 4 and 10).

The LoRA factors of all experts are concatenated along the rank, and one scale per rank decides what each of them adds:

    x (B, T, d_in) --- W (d_out, d_in) --------------------------------------------------- + --> y (B, T, d_out)
         \\--- lora_A (R, d_in) --> h (B, T, R) --> * rank_scale (R,) or (B, R) --> lora_B (d_out, R) --/

    rank_scale = singular value * scaling * R[expert of the rank]

    one expert in training    lora_A, lora_B and the singular values get gradients
    a router in training      only the weights of experts get gradients, through rank_scale
    one router a row          rank_scale differs by row, (B, R)
    the original model        no factors: the layer is the linear map it replaced

The layer knows neither experts nor routers: it is given lora_B, lora_A and rank_scale.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from staf.errors import ExpertMismatch


@torch.no_grad()
def merged_weight(weight: Tensor, lora_B: Tensor, rank_scale: Tensor, lora_A: Tensor, out: Tensor | None = None) -> Tensor:
    """W + lora_B diag(rank_scale) lora_A, (d_out, d_in), summed in float32 and then cast to the dtype of W.

    Args:
        out: memory for the result, in the shape and dtype of W.
    """
    scaled = lora_B.float() * rank_scale.float()  # (d_out, R)
    if weight.dtype == torch.float32:
        return torch.addmm(weight, scaled, lora_A.float(), out=out)  # Eq. 10
    merged = torch.addmm(weight.float(), scaled, lora_A.float())  # Eq. 10
    return merged.to(weight.dtype) if out is None else out.copy_(merged)


class LoraLinear(nn.Module):
    """A frozen linear map with optional LoRA factors.

    Attributes:
        lora_B: (d_out, R), lora_A: (R, d_in) in the dtype of the model, rank_scale: (R,) or (B, R); None for the original map.
        dropout: rate on the rank activations h, in training mode only (docs/paper.md, decision 16).
        shape: (d_out, d_in).
        quantized: the original module where its weight is quantized; it then computes W x.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.shape = (linear.out_features, linear.in_features)
        self.quantized = None if linear.weight.is_floating_point() else linear
        self.weight, self.bias = linear.weight, linear.bias
        self.lora_B: Tensor | None = None
        self.lora_A: Tensor | None = None
        self.rank_scale: Tensor | None = None
        self.dropout = 0.0

    def forward(self, x: Tensor) -> Tensor:
        """(..., d_in) to (..., d_out)."""
        y: Tensor = functional.linear(x, self.weight, self.bias) if self.quantized is None else self.quantized(x)
        b, a, scale = self.lora_B, self.lora_A, self.rank_scale
        if b is None or a is None or scale is None or b.shape[1] == 0:
            return y
        hidden = functional.dropout(functional.linear(x, a), self.dropout, self.training)  # (..., R)
        scale = scale.to(x.dtype) if scale.dim() == 1 else scale.to(x.dtype)[:, None]
        return y + functional.linear(hidden * scale, b)  # Eqs. 1 and 10


class LoraModel:
    """The mapping from a matrix's name to its LoRA layer, inside a frozen model.

    Args:
        model: any module; its parameters are frozen and keep their values.
        targets: full module names of the linear maps to adapt, in order.

    Raises:
        ExpertMismatch: a target is not a linear map of the model.
    """

    def __init__(self, model: nn.Module, targets: tuple[str, ...]) -> None:
        self.model = model
        self.layers: dict[str, LoraLinear] = {}
        for name in targets:
            parent_name, _, child = name.rpartition(".")
            try:
                parent = model.get_submodule(parent_name)
                linear = getattr(parent, child)
            except AttributeError as error:
                raise ExpertMismatch(f"no matrix '{name}' in this model. Give targets that it has.") from error
            if not isinstance(linear, nn.Linear):
                raise ExpertMismatch(f"'{name}' is a {type(linear).__name__}; only nn.Linear matrices can be adapted.")
            layer = LoraLinear(linear)
            setattr(parent, child, layer)
            self.layers[name] = layer
        model.requires_grad_(False)
        model.eval()

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """(d_out, d_in) of each adapted matrix, in order."""
        return {name: layer.shape for name, layer in self.layers.items()}

    def attach(self, factors: Mapping[str, tuple[Tensor, Tensor, Tensor | None]]) -> None:
        """Give each named layer its lora_B (d_out, R), lora_A (R, d_in) and rank scale; the others become the original ones."""
        for name, layer in self.layers.items():
            layer.lora_B, layer.lora_A, layer.rank_scale = factors.get(name, (None, None, None))

    def set_rank_scale(self, scales: Mapping[str, Tensor]) -> None:
        """Give each layer its rank scale, (R,) or (B, R); a layer without one is the original one."""
        for name, layer in self.layers.items():
            layer.rank_scale = scales.get(name)

    def detach(self) -> None:
        """Restore the original model."""
        self.attach({})

    def set_training(self, training: bool, dropout: float = 0.0) -> None:
        """Switch dropout of the LoRA layers; the frozen model always stays in eval mode."""
        for layer in self.layers.values():
            layer.train(training)
            layer.dropout = dropout
