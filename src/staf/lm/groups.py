"""Matrices with the same input as one, and their low-rank factors: carried beside them, or added into them for a step.

A router's step trains gains alone. With many rows it is then cheaper to write W + U diag(gain) V once, which costs R times a
matrix, than to carry R activations of every row forward and back; the way back needs V x and U' g, from which the gain's
gradient is a sum over rows. With few rows, and while factors are trained, they are carried.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from staf.lm.lora import LoraLinear

ENOUGH_ROWS = 512
"""From so many on a delta is added; for a square matrix of width d it breaks even at about d / 3."""


@dataclass(frozen=True)
class Group:
    """Matrices with the same input, as one: their weights stacked, (d_out of all, d_in)."""

    layers: tuple[LoraLinear, ...]
    weight: Tensor
    bias: Tensor | None
    room: list[Tensor] = field(default_factory=list, compare=False, repr=False)
    """memory of `summed`, once it was needed"""

    @staticmethod
    def of(*layers: LoraLinear) -> Group:
        """Stack the weights; each layer's own weight becomes a view of its rows, so nothing is there twice."""
        if len(layers) == 1:
            return Group(layers, layers[0].weight, layers[0].bias)
        weight = torch.cat([layer.weight.data for layer in layers], dim=0)
        place = 0
        for layer in layers:
            layer.weight.data = weight[place : place + layer.weight.shape[0]]
            place += layer.weight.shape[0]
        biases: list[Tensor] = [layer.bias for layer in layers if layer.bias is not None]
        return Group(layers, weight, torch.cat(biases) if biases else None)

    def factors(self) -> tuple[Tensor, Tensor]:
        """U (d_out of all, R of all), block by block on the diagonal, and V (R of all, d_in)."""
        us = [layer.lora_B for layer in self.layers if layer.lora_B is not None]
        vs = [layer.lora_A for layer in self.layers if layer.lora_A is not None]
        if len(us) == 1:
            return us[0], vs[0]
        v = torch.cat(vs)
        u = v.new_zeros(self.weight.shape[0], v.shape[0])
        row = column = 0
        for part in us:
            u[row : row + part.shape[0], column : column + part.shape[1]] = part
            row, column = row + part.shape[0], column + part.shape[1]
        return u, v

    def gain(self) -> Tensor:
        """The gains of all, (R of all,); gradients flow to them."""
        gains = [layer.rank_scale for layer in self.layers if layer.rank_scale is not None]
        return gains[0] if len(gains) == 1 else torch.cat(gains)

    def add_gradients(self, grad_u: Tensor, grad_v: Tensor) -> None:
        """Add the gradients of U, given as (R of all, d_out of all), and of V, (R of all, d_in), to each layer's buffers."""
        row = column = 0
        for layer in self.layers:
            if layer.lora_B is None or layer.grads is None:
                continue
            d_out, rank = layer.lora_B.shape
            layer.grads[0].add_(grad_u[row : row + rank, column : column + d_out].T)
            layer.grads[1].add_(grad_v[row : row + rank])
            row, column = row + rank, column + d_out

    def sums(self, rows: int) -> bool:
        """True where adding the delta into the weights costs less than carrying it beside them for so many rows.

        Never while factors are trained or dropped out.
        """
        layer = self.layers[0]
        return rows >= ENOUGH_ROWS and layer.grads is None and not (layer.training and layer.dropout > 0)

    def summed(self, gain: Tensor) -> Tensor:
        """W + U diag(gain) V of all, (d_out of all, d_in), in memory that the next call writes anew."""
        if not self.room:
            self.room.append(torch.empty_like(self.weight))
        row = column = 0
        for layer in self.layers:
            if layer.lora_B is None or layer.lora_A is None:
                continue
            d_out, rank = layer.lora_B.shape
            part = slice(row, row + d_out)
            scaled = layer.lora_B * gain[column : column + rank]  # (d_out, R)
            torch.addmm(self.weight[part], scaled, layer.lora_A, out=self.room[0][part])  # Eq. 10
            row, column = row + d_out, column + rank
        return self.room[0]

    def gain_gradient(self, grad: Tensor, rows: Tensor) -> Tensor:
        """Gradient of the gain, (R of all,) float32, from grad (N, d_out of all) and the rows (N, d_in) alone."""
        found, row = [], 0
        for layer in self.layers:
            if layer.lora_B is None or layer.lora_A is None:
                continue
            d_out = layer.lora_B.shape[0]
            product = (grad[:, row : row + d_out] @ layer.lora_B) * (rows @ layer.lora_A.T)  # (N, R)
            found.append(product.sum(0, dtype=torch.float32))
            row += d_out
        return torch.cat(found)
