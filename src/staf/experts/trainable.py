"""The factors of one expert while it trains: one flat float32 vector, and views into it by matrix.

    flat = [ U of all matrices | V of all matrices | lambda (M, r) ]

Matrices of one shape lie together, so that orthogonality, importance and the optimiser are a few passes over large blocks
and not hundreds over small ones. Nothing is resized while training: a cut singular value is 0 under a mask.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from staf.experts import adalora


@dataclass(frozen=True)
class Block:
    """n matrices of one shape: U (n, d_out, r) and V (n, r, d_in), and the rows of lambda that belong to them."""

    names: tuple[str, ...]
    u: Tensor
    v: Tensor
    rows: slice


class TrainableFactors:
    """U, V and lambda of every adapted matrix, their gradients and their importance.

    Args:
        shapes: (d_out, d_in) by matrix name.
        rank: initial rank r of every matrix.
        seed: of the start, at which the delta is 0.
        dtype: of the model.
        start: "orthonormal" (columns of U and rows of V, lambda 0) or "zero" (U 0, V uniform as LoRA's, lambda 1).

    Attributes:
        flat, grad: (P,) float32.
        low: (P,) a rounded copy of flat in the dtype of the model.
        mask: (M, r) bool, True means kept; row order is `names`.
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, int]],
        rank: int,
        seed: int,
        device: torch.device,
        dtype: torch.dtype,
        start: str = "orthonormal",
    ) -> None:
        by_shape: dict[tuple[int, int], list[str]] = {}
        for name, shape in shapes.items():
            by_shape.setdefault(shape, []).append(name)
        self.rank = rank
        self.by_shape = {shape: tuple(names) for shape, names in by_shape.items()}
        self.names = tuple(name for names in self.by_shape.values() for name in names)
        matrices = len(self.names)
        side = sum(len(names) * (d_out + d_in) * rank for (d_out, d_in), names in self.by_shape.items())
        self.flat = torch.zeros(side + matrices * rank, device=device)
        self.grad = torch.zeros_like(self.flat)
        self.low = torch.zeros_like(self.flat, dtype=dtype)
        self.average = torch.zeros_like(self.flat)
        self.uncertainty = torch.zeros_like(self.flat)
        self.mask = torch.ones(matrices, rank, dtype=torch.bool, device=device)
        generator = torch.Generator().manual_seed(seed)
        self._start_at_zero(generator) if start == "zero" else self._start_orthonormal(generator)

    def _start_at_zero(self, generator: torch.Generator) -> None:
        self.lambdas(self.flat).fill_(1.0)
        for block in self.blocks(self.flat):
            random = torch.rand(block.v.shape, generator=generator)
            block.v.copy_((2 * random - 1) / block.v.shape[-1] ** 0.5)

    def _start_orthonormal(self, generator: torch.Generator) -> None:
        for block in self.blocks(self.flat):
            for factor in (block.u, block.v.mT):
                random = torch.randn(factor.shape, generator=generator)
                factor.copy_(torch.linalg.qr(random)[0][..., : self.rank])

    def blocks(self, flat: Tensor) -> list[Block]:
        """Views of a vector laid out like `flat`, one block a shape."""
        result, place, row = [], 0, 0
        for (d_out, d_in), names in self.by_shape.items():
            n, r = len(names), self.rank
            u = flat[place : place + n * d_out * r].view(n, d_out, r)
            place += u.numel()
            v = flat[place : place + n * r * d_in].view(n, r, d_in)
            place += v.numel()
            result.append(Block(names, u, v, slice(row, row + n)))
            row += n
        return result

    def lambdas(self, flat: Tensor) -> Tensor:
        """View (M, r) of the singular values of a vector laid out like `flat`."""
        return flat[flat.numel() - self.mask.numel() :].view_as(self.mask)

    def views(self) -> tuple[dict[str, tuple[Tensor, Tensor]], dict[str, tuple[Tensor, Tensor]]]:
        """U and V by matrix as the model computes with them, and the buffers of their gradients; valid for good."""
        factors, grads = {}, {}
        for low, grad in zip(self.blocks(self.low), self.blocks(self.grad), strict=True):
            for i, name in enumerate(low.names):
                factors[name] = (low.u[i], low.v[i])
                grads[name] = (grad.u[i], grad.v[i])
        return factors, grads

    def begin_step(self) -> Tensor:
        """Clear the gradients, round the factors for the model, and give lambda (M, r) as a leaf of autograd."""
        self.grad.zero_()
        self.low.copy_(self.flat)
        leaf = self.lambdas(self.flat).detach().requires_grad_()
        leaf.grad = self.lambdas(self.grad)
        return leaf

    def add_orthogonality(self, strength: float) -> float:
        """Add the gradient of strength * R summed over all matrices to `grad`; returns that penalty.

        d/dU |U'U - I|^2 = 4 U (U'U - I): only the small Gram matrices are formed.
        """
        if strength == 0:
            return 0.0
        identity = torch.eye(self.rank, device=self.flat.device)
        total = torch.zeros((), device=self.flat.device)
        for block, grads in zip(self.blocks(self.flat), self.blocks(self.grad), strict=True):
            gram_u = block.u.mT @ block.u - identity  # (n, r, r)
            gram_v = block.v @ block.v.mT - identity  # (n, r, r)
            grads.u.baddbmm_(block.u, gram_u, alpha=4 * strength)
            grads.v.baddbmm_(gram_v, block.v, alpha=4 * strength)
            total += gram_u.square().sum() + gram_v.square().sum()  # Eq. A.2
        return strength * float(total)  # Eq. A.1

    def scores(self, importance: str, beta1: float, beta2: float) -> Tensor:
        """Importance of every triplet, (M, r), from the parameters and gradients of this step; updates the averages."""
        per_number = adalora.sensitivity(self.flat, self.grad)  # (P,)
        if importance == "smoothed":
            per_number = adalora.smooth(per_number, self.average, self.uncertainty, beta1, beta2)
        scores = self.lambdas(per_number).clone()
        for block in self.blocks(per_number):
            scores[block.rows] += block.u.mean(1) + block.v.mean(2)  # Eq. A.6
        return scores

    def cut(self, scores: Tensor, keep: int) -> None:
        """Keep the `keep` best triplets of all matrices and set the other singular values to 0."""
        self.mask = adalora.top_mask(scores.reshape(-1), keep).view_as(self.mask)
        self.apply_mask()

    def apply_mask(self) -> None:
        """Set the singular values that are not kept to 0."""
        self.lambdas(self.flat).masked_fill_(~self.mask, 0.0)  # Eq. A.4

    def folded(self, scale: float) -> dict[str, tuple[Tensor, Tensor]]:
        """B (d_out, k), with scale and lambda in it, and A (k, d_in) by module, of the k kept ranks; k may be 0."""
        lambdas, result = self.lambdas(self.flat), {}
        for block in self.blocks(self.flat):
            for i, name in enumerate(block.names):
                row = block.rows.start + i
                kept = self.mask[row]
                gain = lambdas[row][kept] * scale
                result[name] = ((block.u[i][:, kept] * gain).detach().clone(), block.v[i][kept].detach().clone())
        return result

    def state(self) -> dict[str, Tensor]:
        """Everything a checkpoint needs of the factors."""
        return {"flat": self.flat, "average": self.average, "uncertainty": self.uncertainty, "mask": self.mask}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Put a checkpoint's state back, in place."""
        self.flat.copy_(state["flat"])
        self.average.copy_(state["average"])
        self.uncertainty.copy_(state["uncertainty"])
        self.mask = state["mask"].to(self.flat.device)
