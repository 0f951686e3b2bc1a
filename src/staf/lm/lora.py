"""The one layer that trains, routes, serves and fuses experts (STAF-LLM, Eqs. 1, 4 and 10).

The factors of all experts are laid side by side along the rank, and one gain per rank decides what each of them adds:

    x (B, T, d_in) --- W (d_out, d_in) ------------------------------------ + --> y (B, T, d_out)
         \\--- V (R, d_in) --> h (B, T, R) --> * gain (R,) or (B, R) --> U (d_out, R) --/

    gain = lambda * scale * R[expert of the rank]

    one expert in training    U, V and lambda need gradients; gain = lambda * mask * scale
    a router in training      only the weights need gradients, through gain
    a row with its own router gain differs by row, (B, R)
    the original model        no factors: the layer is the linear map it replaced

The layer knows neither experts nor routers: it is given U, V and gain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from staf.errors import ExpertMismatch
from staf.lm.products import add_product

Gradients = tuple[Tensor, Tensor]
"""Buffers for the gradients of U (d_out, R) and V (R, d_in), float32."""


def lora_linear(
    rows: Tensor,
    weight: Tensor | None,
    residual: Tensor | None,
    u: Tensor,
    v: Tensor,
    gain: Tensor,
    dropout_mask: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """W x + U diag(gain) V x of rows (N, d_in), plus what is residual it, a bias (d_out,) or rows (N, d_out).

    Without W only the rest of the sum.

    Returns:
        y (N, d_out), and the rank activations before and after the gain, (N, R).
    """
    hidden = rows @ v.T  # (N, R)
    if dropout_mask is not None:
        hidden.mul_(dropout_mask)
    scaled = _scale_ranks(hidden, gain)
    small = scaled @ u.T if residual is None else torch.addmm(residual, scaled, u.T)
    return small if weight is None else add_product(small, rows, weight.T), hidden, scaled  # Eq. 10


def lora_linear_backward(
    grad: Tensor,
    rows: Tensor,
    u: Tensor,
    gain: Tensor,
    hidden: Tensor,
    scaled: Tensor,
    dropout_mask: Tensor | None,
    trained: bool,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """The way back of `lora_linear` from grad (N, d_out).

    Returns:
        gradients of the gain, float32 in its shape; of V x, (N, R), from which (W' grad + V' of it) is that of x; and, where
        factors are trained, of U as (R, d_out) and of V as (R, d_in).
    """
    grad_scaled = grad @ u  # (N, R)
    grad_gain = _rank_scale_grad(grad_scaled, hidden, gain)
    grad_hidden = _scale_ranks(grad_scaled, gain)
    if dropout_mask is not None:
        grad_hidden.mul_(dropout_mask)
    if not trained:
        return grad_gain, grad_hidden, None, None
    return grad_gain, grad_hidden, scaled.T @ grad, grad_hidden.T @ rows


def draw_dropout_mask(layers: Sequence[LoraLinear], like: Tensor, count: int | None = None) -> Tensor | None:
    """Dropout of the rank activations of layers with the same input, (N, R of all): 0, or 1 / (1 - rate); None without.

    N is `count`, or the rows of `like`, whose dtype and device it has.
    """
    first = layers[0]
    if not (first.training and first.dropout > 0):
        return None
    rows, ranks = (
        like.shape[0] if count is None else count,
        sum(layer.lora_B.shape[1] for layer in layers if layer.lora_B is not None),
    )
    words = torch.empty(-(-rows * ranks // 4), dtype=torch.int64, device=like.device).random_(-(1 << 63), None)
    chance = words.view(torch.int16)[: rows * ranks].view(rows, ranks)  # 16 random bits each
    dropped = round(first.dropout * (1 << 16)) - (1 << 15)
    return (chance >= dropped).to(like.dtype).div_(1 - first.dropout)


class _LoraFunction(torch.autograd.Function):
    """W x + U diag(gain) V x as one node: x is kept once, W needs no gradient, no copy of y is made.

    Gradients of U and V are added straight into the buffers of `grads`, where there are some.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, u: Tensor, v: Tensor, gain: Tensor,
        dropout_mask: Tensor | None, grads: Gradients | None,
    ) -> Tensor:  # fmt: skip
        rows = x.reshape(-1, x.shape[-1])  # (N, d_in)
        low_gain = gain.to(x.dtype)
        y, hidden, scaled = lora_linear(rows, weight, bias, u, v, low_gain, dropout_mask)
        ctx.save_for_backward(rows, weight, u, v, low_gain, hidden, scaled, dropout_mask)
        ctx.shape, ctx.gain_dtype, ctx.grads = x.shape, gain.dtype, grads
        return y.view(*x.shape[:-1], y.shape[-1])

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> Any:
        rows, weight, u, v, gain, hidden, scaled, dropout_mask = ctx.saved_tensors
        grad = outputs[0].reshape(-1, outputs[0].shape[-1])  # (N, d_out)
        trained = ctx.grads is not None
        found = lora_linear_backward(grad, rows, u, gain, hidden, scaled, dropout_mask, trained)
        grad_gain, grad_hidden, grad_u, grad_v = found
        if grad_u is not None and grad_v is not None:
            ctx.grads[0].add_(grad_u.T)  # (d_out, R); this order is the fast one
            ctx.grads[1].add_(grad_v)  # (R, d_in)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = grad_hidden @ v
            grad_x = (grad_x if weight is None else add_product(grad_x, grad, weight)).view(ctx.shape)
        return grad_x, None, None, None, None, grad_gain.to(ctx.gain_dtype), None, None


def _scale_ranks(hidden: Tensor, gain: Tensor) -> Tensor:
    """(N, R) times a gain of shape (R,), or of shape (B, R) where N = B * T."""
    if gain.dim() == 1:
        return hidden * gain
    return (hidden.view(gain.shape[0], -1, gain.shape[1]) * gain[:, None]).view_as(hidden)


def _rank_scale_grad(grad_scaled: Tensor, hidden: Tensor, gain: Tensor) -> Tensor:
    """Gradient of gain, in the shape of gain, summed in float32 over the tokens that it multiplied."""
    product = grad_scaled * hidden  # (N, R)
    if gain.dim() == 2:
        return product.view(gain.shape[0], -1, gain.shape[1]).sum(1, dtype=torch.float32)
    return product.sum(0, dtype=torch.float32)


class LoraLinear(nn.Module):
    """A frozen linear map that low-rank factors can be added to.

    Attributes:
        u: (d_out, R), v: (R, d_in) in the dtype of the model, gain: (R,) or (B, R); all None while the layer is the original
            one. Only gain takes part in autograd.
        grads: buffers in the shapes of u and v that their gradients are added to, or None.
        dropout: rate on the rank activations h, applied in training mode only (docs/paper.md, decision 16).
        shape: (d_out, d_in).
        quantised: the linear map itself where its weight is not made of numbers but of codes; it then computes W x.
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
        if self.lora_B is None or self.lora_A is None or self.rank_scale is None or self.lora_B.shape[1] == 0:
            return functional.linear(x, self.weight, self.bias) if self.quantized is None else self.quantized(x)
        dropout_mask = draw_dropout_mask((self,), x.view(-1, x.shape[-1]))
        if self.quantized is not None:
            return self.quantized(x) + _LoraFunction.apply(
                x, None, None, self.lora_B, self.lora_A, self.rank_scale, dropout_mask, self.grads
            )
        return _LoraFunction.apply(
            x, self.weight, self.bias, self.lora_B, self.lora_A, self.rank_scale, dropout_mask, self.grads
        )


class LoraModel:
    """The explicit mapping from a matrix's name to its routed layer, inside a frozen model.

    Args:
        model: any module; its parameters are frozen and stay as they are.
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
        """Give each named layer its U (d_out, R) and V (R, d_in), and buffers for their gradients.

        KVCache not named become the original ones; all gains are taken away.
        """
        for name, layer in self.layers.items():
            layer.lora_B, layer.lora_A = factors.get(name, (None, None))
            layer.grads = grads[name] if grads is not None else None
            layer.rank_scale = None

    def set_rank_scale(self, gain: Mapping[str, Tensor]) -> None:
        """Give each layer its gain, (R,) or (B, R); a layer without one is the original one."""
        for name, layer in self.layers.items():
            layer.rank_scale = gain.get(name)

    def detach(self) -> None:
        """Back to the original model."""
        self.attach({})

    def set_training(self, training: bool, dropout: float = 0.0) -> None:
        """Switch dropout of the routed layers; the frozen model itself always stays in eval mode."""
        for layer in self.layers.values():
            layer.train(training)
            layer.dropout = dropout
