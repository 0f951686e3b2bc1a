"""AdaLoRA (STAF-LLM, Eq. 1 and A.1 to A.6; Zhang et al., 2023): pure functions, and the factors of one expert in training.

Delta_j = U_j diag(lambda_j) V_j          U (d_out, r)   lambda (r,)   V (r, d_in)          Eq. 1
R(U, V) = |U'U - I|^2 + |VV' - I|^2       squared Frobenius norms                            Eq. A.2
score_p = s(lambda_p) + mean_q s(U_qp) + mean_q s(V_pq),   s(w) = |w dL/dw|                  Eq. A.6
keep the b(t) best scores of all modules; the other singular values become 0                 Eqs. A.4, A.5
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn


def budget(step: int, *, modules: int, initial_rank: int, target_rank: int, tinit: int, tfinal: int, total: int) -> int:
    """Singular values kept in all after `step` (counted from 0): a cubic fall from the initial to the target budget.

    Args:
        modules: number of adapted modules; the budgets are modules * rank.
        tinit: steps before the fall. tfinal: steps after it, with the last mask. total: all steps.

    Returns:
        A number that never grows with `step`, is modules * initial_rank before step tinit, and modules * target_rank from
        step total - tfinal on.
    """
    first, last = modules * initial_rank, modules * target_rank
    if step < tinit:
        return first
    if step >= total - tfinal:
        return last
    remaining = 1 - (step - tinit) / (total - tfinal - tinit)
    return last + int((first - last) * remaining**3)


def top_mask(scores: Tensor, keep: int) -> Tensor:
    """Which of the scores (n,) are kept: exactly min(keep, n), also under ties. Boolean (n,), True means keep.

    Ties go to the lower index, so the same scores give the same mask everywhere.
    """
    order = torch.sort(scores, descending=True, stable=True).indices  # (n,)
    mask = torch.zeros(scores.shape[0], dtype=torch.bool, device=scores.device)
    mask[order[:keep]] = True  # Eq. A.5
    return mask


def sensitivity(parameter: Tensor, gradient: Tensor) -> Tensor:
    """|w dL/dw| elementwise: about how much the loss would change if w became 0."""
    return (parameter * gradient).abs()  # Eq. A.6


def smooth(sensitivity_now: Tensor, average: Tensor, uncertainty: Tensor, beta1: float, beta2: float) -> Tensor:
    """AdaLoRA's smoothed importance: moving average times moving uncertainty; both are updated in place.

    Zhang et al. (2023), Eqs. 9 to 11. All tensors have one shape; returns the importance in that shape.
    """
    average.lerp_(sensitivity_now, 1 - beta1)
    uncertainty.lerp_((sensitivity_now - average).abs_(), 1 - beta2)
    return average * uncertainty


def triplet_scores(importance_lambda: Tensor, importance_u: Tensor, importance_v: Tensor) -> Tensor:
    """Scores of triplets: (..., r), (..., d_out, r) and (..., r, d_in) to (..., r)."""
    return importance_lambda + importance_u.mean(-2) + importance_v.mean(-1)  # Eq. A.6


def orthogonality(u: Tensor, v: Tensor) -> Tensor:
    """R of U (..., d_out, r) and V (..., r, d_in), summed over all leading dimensions, ()."""
    identity = torch.eye(u.shape[-1], dtype=u.dtype, device=u.device)
    return (u.mT @ u - identity).square().sum() + (v @ v.mT - identity).square().sum()  # Eq. A.2


class Block(NamedTuple):
    """The n modules of one shape in a vector laid out like `TrainableFactors.master_params`."""

    names: tuple[str, ...]
    u: Tensor
    """(n, d_out, r)"""
    v: Tensor
    """(n, r, d_in)"""
    singular: Tensor
    """lambda, (n, r)"""


class TrainableFactors:
    """U, V and lambda of every adapted module, their gradients and their importance, in one float32 vector each.

        master_params = [ U | V of the modules of one shape | ... | lambda (M, r) of all modules ]

    Modules of one shape lie together, so that orthogonality, importance and the optimiser are a few passes over large blocks.
    Nothing is resized in training: the singular value of a pruned rank is 0 under a mask.

    Args:
        shapes: (d_out, d_in) by module name.
        rank: initial rank r of every module.
        seed: of the initial values, at which the delta is 0.
        init: "svd" (columns of U and rows of V orthonormal, lambda 0) or "lora" (U 0, V uniform as LoRA's, lambda 1).

    Attributes:
        master_params, grad: (P,), a parameter and its gradient.
        mask: (M, r) bool, True means kept; row order is `names`.
    """

    def __init__(
        self, shapes: Mapping[str, tuple[int, int]], rank: int, seed: int, device: torch.device, init: str = "svd"
    ) -> None:
        self.by_shape: dict[tuple[int, int], list[str]] = {}
        for name, shape in shapes.items():
            self.by_shape.setdefault(shape, []).append(name)
        self.names = tuple(name for names in self.by_shape.values() for name in names)
        self.mask = torch.ones(len(self.names), rank, dtype=torch.bool, device=device)
        self.sizes = [len(names) * side * rank for shape, names in self.by_shape.items() for side in shape]
        self.sizes.append(self.mask.numel())
        self.master_params = nn.Parameter(torch.zeros(sum(self.sizes), device=device))
        self.grad, self.average, self.uncertainty = torch.zeros(3, sum(self.sizes), device=device).unbind()
        self.master_params.grad = self.grad
        self._initialise(init, torch.Generator().manual_seed(seed))

    @torch.no_grad()
    def _initialise(self, init: str, generator: torch.Generator) -> None:
        for block in self.blocks(self.master_params):
            if init == "lora":
                block.singular.fill_(1.0)
                block.v.copy_((2 * torch.rand(block.v.shape, generator=generator) - 1) / block.v.shape[-1] ** 0.5)
                continue
            for factor in (block.u, block.v.mT):
                factor.copy_(torch.linalg.qr(torch.randn(factor.shape, generator=generator))[0][..., : factor.shape[-1]])

    def blocks(self, flat: Tensor) -> list[Block]:
        """Views of a vector laid out like `master_params`, one block a shape."""
        *sides, singular = flat.split(self.sizes)
        rank = self.mask.shape[1]
        rows = singular.view_as(self.mask).split([len(names) for names in self.by_shape.values()])
        return [
            Block(tuple(names), u.view(-1, shape[0], rank), v.view(-1, rank, shape[1]), row)
            for (shape, names), u, v, row in zip(self.by_shape.items(), sides[::2], sides[1::2], rows, strict=True)
        ]

    def lambdas(self, flat: Tensor) -> Tensor:
        """View (M, r) of the singular values of a vector laid out like `master_params`."""
        return flat[-self.mask.numel() :].view_as(self.mask)

    def modules(self, dtype: torch.dtype, scaling: float) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
        """U, V and lambda times a scaling by module, cast to a dtype; gradients flow to `master_params`."""
        return {
            name: (u.to(dtype), v.to(dtype), (singular * scaling).to(dtype))
            for block in self.blocks(self.master_params)
            for name, u, v, singular in zip(block.names, block.u, block.v, block.singular, strict=True)
        }

    def add_orthogonality(self, weight: float) -> float:
        """Add the gradient of weight * R summed over all modules to `grad`; returns that penalty."""
        if weight == 0:
            return 0.0
        parts = [orthogonality(block.u, block.v) for block in self.blocks(self.master_params)]
        total = weight * torch.stack(parts).sum()  # Eq. A.1
        total.backward()
        return float(total.detach())

    @torch.no_grad()
    def scores(self, importance: str, beta1: float, beta2: float) -> Tensor:
        """Importance of every triplet, (M, r), from the parameters and gradients of this step; updates the averages."""
        found = sensitivity(self.master_params, self.grad)  # (P,)
        if importance == "smoothed":
            found = smooth(found, self.average, self.uncertainty, beta1, beta2)
        return torch.cat([triplet_scores(block.singular, block.u, block.v) for block in self.blocks(found)])

    def prune_to_budget(self, scores: Tensor, keep: int) -> None:
        """Keep the `keep` best triplets of all modules and set the other singular values to 0."""
        self.mask = top_mask(scores.reshape(-1), keep).view_as(self.mask)
        self.apply_mask()

    @torch.no_grad()
    def apply_mask(self) -> None:
        """Set the singular values that are not kept to 0."""
        self.lambdas(self.master_params).masked_fill_(~self.mask, 0.0)  # Eq. A.4

    def folded(self, scale: float) -> dict[str, tuple[Tensor, Tensor]]:
        """B (d_out, k), with scale and lambda in it, and A (k, d_in) by module, of the k kept ranks; k may be 0."""
        modules = self.modules(torch.float32, scale)
        return {
            name: ((modules[name][0][:, kept] * modules[name][2][kept]).detach(), modules[name][1][kept].detach())
            for name, kept in zip(self.names, self.mask, strict=True)
        }

    def state(self) -> dict[str, Tensor]:
        """Everything a checkpoint needs of the factors."""
        return {name: getattr(self, name).detach() for name in ("master_params", "average", "uncertainty", "mask")}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore a checkpoint's state, in place."""
        for name, own in self.state().items():
            own.copy_(state[name])
