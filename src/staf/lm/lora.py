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
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from staf.errors import ExpertMismatch

Gradients = tuple[Tensor, Tensor]
"""Buffers for the gradients of lora_B (d_out, R) and lora_A (R, d_in), float32."""


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


class _LoraFunction(torch.autograd.Function):
    """W x + lora_B diag(rank_scale) lora_A x as one node: x is kept once, W needs no gradient.

    Gradients of lora_B and lora_A are added to the buffers of `grads`, if there are any.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, lora_B: Tensor, lora_A: Tensor, rank_scale: Tensor,
        dropout_mask: Tensor | None, grads: Gradients | None,
    ) -> Tensor:  # fmt: skip
        rows = x.reshape(-1, x.shape[-1])  # (N, d_in)
        scale = rank_scale.to(x.dtype)
        hidden = rows @ lora_A.T  # (N, R)
        if dropout_mask is not None:
            hidden.mul_(dropout_mask)
        scaled = _scale_ranks(hidden, scale)
        if weight is None:
            y = scaled @ lora_B.T
        else:
            y = functional.linear(rows, weight, bias).addmm_(scaled, lora_B.T)  # Eqs. 1 and 10
        ctx.save_for_backward(rows, weight, lora_B, lora_A, scale, hidden, scaled, dropout_mask)
        ctx.shape, ctx.scale_dtype, ctx.grads = x.shape, rank_scale.dtype, grads
        return y.view(*x.shape[:-1], y.shape[-1])

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> Any:
        rows, weight, lora_B, lora_A, scale, hidden, scaled, dropout_mask = ctx.saved_tensors
        grad = outputs[0].reshape(-1, outputs[0].shape[-1])  # (N, d_out)
        grad_scaled = grad @ lora_B  # (N, R)
        grad_scale = _rank_scale_grad(grad_scaled, hidden, scale).to(ctx.scale_dtype)
        grad_hidden = _scale_ranks(grad_scaled, scale)
        if dropout_mask is not None:
            grad_hidden.mul_(dropout_mask)
        if ctx.grads is not None:
            ctx.grads[0].add_((scaled.T @ grad).T)  # (d_out, R); this order is the fast one
            ctx.grads[1].add_(grad_hidden.T @ rows)  # (R, d_in)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = grad_hidden @ lora_A if weight is None else (grad @ weight).addmm_(grad_hidden, lora_A)
            grad_x = grad_x.view(ctx.shape)
        return grad_x, None, None, None, None, grad_scale, None, None


def _scale_ranks(hidden: Tensor, scale: Tensor) -> Tensor:
    """(N, R) times a scale of shape (R,), or of shape (B, R) where N = B * T."""
    if scale.dim() == 1:
        return hidden * scale
    return (hidden.view(scale.shape[0], -1, scale.shape[1]) * scale[:, None]).view_as(hidden)


def _rank_scale_grad(grad_scaled: Tensor, hidden: Tensor, scale: Tensor) -> Tensor:
    """Gradient of the rank scale, in its shape, summed in float32 over its tokens."""
    product = grad_scaled * hidden  # (N, R)
    if scale.dim() == 2:
        return product.view(scale.shape[0], -1, scale.shape[1]).sum(1, dtype=torch.float32)
    return product.sum(0, dtype=torch.float32)


class LoraLinear(nn.Module):
    """A frozen linear map with optional LoRA factors.

    Attributes:
        lora_B: (d_out, R), lora_A: (R, d_in) in the dtype of the model, rank_scale: (R,) or (B, R); None for the original
            map. Only rank_scale takes part in autograd.
        grads: buffers in the shapes of lora_B and lora_A that their gradients are added to, or None.
        dropout: rate on the rank activations h, in training mode only (docs/paper.md, decision 16).
        shape: (d_out, d_in).
        quantized: the original module where its weight is quantized; it then computes W x.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.shape = (linear.out_features, linear.in_features)
        self.quantized = None if linear.weight.is_floating_point() else linear
        self.weight = linear.weight
        self.bias = linear.bias
        self.lora_B: Tensor | None = None
        self.lora_A: Tensor | None = None
        self.rank_scale: Tensor | None = None
        self.grads: Gradients | None = None
        self.dropout = 0.0

    def forward(self, x: Tensor) -> Tensor:
        """(..., d_in) to (..., d_out)."""
        b, a, scale = self.lora_B, self.lora_A, self.rank_scale
        if b is None or a is None or scale is None or b.shape[1] == 0:
            return functional.linear(x, self.weight, self.bias) if self.quantized is None else self.quantized(x)
        mask = self.draw_dropout_mask(x)
        if self.quantized is not None:
            return self.quantized(x) + _LoraFunction.apply(x, None, None, b, a, scale, mask, self.grads)
        return _LoraFunction.apply(x, self.weight, self.bias, b, a, scale, mask, self.grads)

    def draw_dropout_mask(self, x: Tensor) -> Tensor | None:
        """Dropout of the rank activations of x, (N, R): 0 or 1 / (1 - rate); None outside training."""
        if self.lora_A is None or not (self.training and self.dropout > 0):
            return None
        shape = (x.numel() // x.shape[-1], self.lora_A.shape[0])
        words = torch.empty(-(-shape[0] * shape[1] // 4), dtype=torch.int64, device=x.device).random_(-(1 << 63), None)
        drawn = words.view(torch.int16)[: shape[0] * shape[1]].view(shape)  # 16 random bits each
        dropped = round(self.dropout * (1 << 16)) - (1 << 15)
        return (drawn >= dropped).to(x.dtype).div_(1 - self.dropout)


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

    def attach(self, factors: Mapping[str, tuple[Tensor, Tensor]], grads: Mapping[str, Gradients] | None = None) -> None:
        """Give each named layer its lora_B (d_out, R) and lora_A (R, d_in), and buffers for their gradients.

        Other layers become the original ones; all rank scales are removed.
        """
        for name, layer in self.layers.items():
            layer.lora_B, layer.lora_A = factors.get(name, (None, None))
            layer.grads = grads[name] if grads is not None else None
            layer.rank_scale = None

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
