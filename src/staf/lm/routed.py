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

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from staf.errors import ExpertMismatch


class _LowRankLinear(torch.autograd.Function):
    """W x + U diag(gain) V x as one node: x is kept once, W needs no gradient, no copy of y is made."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        u: Tensor,
        v: Tensor,
        gain: Tensor,
        keep: Tensor | None,
    ) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])  # (N, d_in)
        low_u, low_v = u.to(x.dtype), v.to(x.dtype)
        hidden = rows @ low_v.T  # (N, R)
        if keep is not None:
            hidden = hidden * keep
        scaled = _times_gain(hidden, gain, x.shape[0])
        y = functional.linear(rows, weight, bias)
        y.addmm_(scaled, low_u.T)  # (N, d_out)  # Eq. 10
        ctx.save_for_backward(rows, weight, low_u, low_v, gain, hidden, keep)
        ctx.batch, ctx.shape, ctx.factor_dtype = x.shape[0], x.shape, u.dtype
        return y.view(*x.shape[:-1], y.shape[-1])

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        rows, weight, u, v, gain, hidden, keep = ctx.saved_tensors
        grad = grads[0].reshape(-1, grads[0].shape[-1])  # (N, d_out)
        grad_scaled = grad @ u  # (N, R)
        grad_u = grad_v = grad_gain = grad_x = None
        if ctx.needs_input_grad[3]:
            grad_u = (_times_gain(hidden, gain, ctx.batch).T @ grad).T.to(ctx.factor_dtype)  # the fast order
        if ctx.needs_input_grad[5]:
            grad_gain = _gain_gradient(grad_scaled, hidden, gain)
        grad_hidden = _times_gain(grad_scaled, gain, ctx.batch)
        if keep is not None:
            grad_hidden = grad_hidden * keep
        if ctx.needs_input_grad[4]:
            grad_v = (grad_hidden.T @ rows).to(ctx.factor_dtype)
        if ctx.needs_input_grad[0]:
            grad_x = (grad @ weight).addmm_(grad_hidden, v).view(ctx.shape)
        return grad_x, None, None, grad_u, grad_v, grad_gain, None


def _times_gain(hidden: Tensor, gain: Tensor, batch: int) -> Tensor:
    """(N, R) times a gain of shape (R,), or of shape (B, R) where N = B * T."""
    if gain.dim() == 1:
        return hidden * gain.to(hidden.dtype)
    return (hidden.view(batch, -1, hidden.shape[-1]) * gain.to(hidden.dtype)[:, None]).view_as(hidden)


def _gain_gradient(grad_scaled: Tensor, hidden: Tensor, gain: Tensor) -> Tensor:
    """Gradient of gain, summed in float32 over the tokens it multiplied."""
    product = grad_scaled.float() * hidden.float()  # (N, R)
    if gain.dim() == 2:
        product = product.view(gain.shape[0], -1, gain.shape[1])  # (B, T, R)
        return product.sum(1).to(gain.dtype)
    return product.sum(0).to(gain.dtype)


class RoutedLinear(nn.Module):
    """A frozen linear map that low-rank factors can be added to.

    Attributes:
        u: (d_out, R), v: (R, d_in), gain: (R,) or (B, R); all None while the layer is the original one.
        dropout: rate on the rank activations h, applied in training mode only (docs/paper.md, decision 16).
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = linear.weight
        self.bias = linear.bias
        self.u: Tensor | None = None
        self.v: Tensor | None = None
        self.gain: Tensor | None = None
        self.dropout = 0.0

    def forward(self, x: Tensor) -> Tensor:
        """(..., d_in) to (..., d_out)."""
        if self.u is None or self.v is None or self.gain is None or self.u.shape[1] == 0:
            return functional.linear(x, self.weight, self.bias)
        keep = None
        if self.training and self.dropout > 0:
            tokens = x.numel() // x.shape[-1]
            chance = torch.full((tokens, self.u.shape[1]), 1 - self.dropout, dtype=torch.float32, device=x.device)
            keep = (torch.bernoulli(chance) / (1 - self.dropout)).to(x.dtype)  # (N, R), 1 means keep
        return _LowRankLinear.apply(x, self.weight, self.bias, self.u, self.v, self.gain, keep)


class RoutedModel:
    """The explicit mapping from a matrix's name to its routed layer, inside a frozen model.

    Args:
        model: any module; its parameters are frozen and stay as they are.
        targets: full module names of the linear maps to adapt, in order.

    Raises:
        ExpertMismatch: a target is not a linear map of the model.
    """

    def __init__(self, model: nn.Module, targets: tuple[str, ...]) -> None:
        self.model = model
        self.layers: dict[str, RoutedLinear] = {}
        for name in targets:
            parent_name, _, child = name.rpartition(".")
            try:
                parent = model.get_submodule(parent_name)
                linear = getattr(parent, child)
            except AttributeError as error:
                raise ExpertMismatch(f"no matrix '{name}' in this model. Give targets that it has.") from error
            if not isinstance(linear, nn.Linear):
                raise ExpertMismatch(f"'{name}' is a {type(linear).__name__}; only nn.Linear matrices can be adapted.")
            layer = RoutedLinear(linear)
            setattr(parent, child, layer)
            self.layers[name] = layer
        model.requires_grad_(False)
        model.eval()

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """(d_out, d_in) of each adapted matrix, in order."""
        return {name: (layer.weight.shape[0], layer.weight.shape[1]) for name, layer in self.layers.items()}

    def attach(self, factors: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Give each named layer its U (d_out, R) and V (R, d_in); layers not named become the original ones."""
        for name, layer in self.layers.items():
            layer.u, layer.v = factors.get(name, (None, None))
            layer.gain = None

    def set_gain(self, gain: Mapping[str, Tensor]) -> None:
        """Give each layer its gain, (R,) or (B, R); a layer without one is the original one."""
        for name, layer in self.layers.items():
            layer.gain = gain.get(name)

    def detach(self) -> None:
        """Back to the original model."""
        self.attach({})

    def set_training(self, training: bool, dropout: float = 0.0) -> None:
        """Switch dropout of the routed layers; the frozen model itself always stays in eval mode."""
        for layer in self.layers.values():
            layer.train(training)
            layer.dropout = dropout
