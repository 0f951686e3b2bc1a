"""AdaLoRA (STAF-LLM, Eq. 1 and A.1 to A.6; Zhang et al., 2023): pure functions, and the factors of one expert in training.

Delta_j = U_j diag(lambda_j) V_j          U (d_out, r)   lambda (r,)   V (r, d_in)          Eq. 1
R(U, V) = |U'U - I|^2 + |VV' - I|^2       squared Frobenius norms                            Eq. A.2
score_p = s(lambda_p) + mean_q s(U_qp) + mean_q s(V_pq),   s(w) = |w dL/dw|                  Eq. A.6
keep the b(t) best scores of all modules; the other singular values become 0                 Eqs. A.4, A.5
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


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


def orthogonality(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """R of U (..., d_out, r) and V (..., r, d_in), summed over all leading dimensions, and its gradients.

    Returns:
        R (), and dR/dU = 4 U (U'U - I) and dR/dV = 4 (VV' - I) V in the shapes of U and V.
    """
    identity = torch.eye(u.shape[-1], dtype=u.dtype, device=u.device)
    gram_u = u.mT @ u - identity  # (..., r, r)
    gram_v = v @ v.mT - identity  # (..., r, r)
    return gram_u.square().sum() + gram_v.square().sum(), 4 * u @ gram_u, 4 * gram_v @ v  # Eq. A.2


@dataclass(frozen=True)
class Block:
    """n modules of one shape: U (n, d_out, r) and V (n, r, d_in), and their rows of lambda."""

    names: tuple[str, ...]
    u: Tensor
    v: Tensor
    rows: slice


class TrainableFactors:
    """U, V and lambda of every adapted module, their gradients and their importance, in one float32 vector each.

        master_params = [ U of all modules | V of all modules | lambda (M, r) ]

    Modules of one shape lie together, so that orthogonality, importance and the optimiser are a few passes over large blocks.
    Nothing is resized in training: the singular value of a pruned rank is 0 under a mask.

    Args:
        shapes: (d_out, d_in) by module name.
        rank: initial rank r of every module.
        seed: of the initial values, at which the delta is 0.
        dtype: of the model.
        init: "svd" (columns of U and rows of V orthonormal, lambda 0) or "lora" (U 0, V uniform as LoRA's, lambda 1).

    Attributes:
        master_params, grad: (P,) float32.
        compute_params: (P,) rounded copy of master_params in the dtype of the model.
        mask: (M, r) bool, True means kept; row order is `names`.
    """

    def __init__(
        self, shapes: Mapping[str, tuple[int, int]], rank: int, seed: int, device: torch.device, dtype: torch.dtype,
        init: str = "svd",
    ) -> None:  # fmt: skip
        by_shape: dict[tuple[int, int], list[str]] = {}
        for name, shape in shapes.items():
            by_shape.setdefault(shape, []).append(name)
        self.rank = rank
        self.by_shape = {shape: tuple(names) for shape, names in by_shape.items()}
        self.names = tuple(name for names in self.by_shape.values() for name in names)
        side = sum(len(names) * (d_out + d_in) * rank for (d_out, d_in), names in self.by_shape.items())
        self.master_params = torch.zeros(side + len(self.names) * rank, device=device)
        self.grad = torch.zeros_like(self.master_params)
        self.compute_params = torch.zeros_like(self.master_params, dtype=dtype)
        self.average = torch.zeros_like(self.master_params)
        self.uncertainty = torch.zeros_like(self.master_params)
        self.mask = torch.ones(len(self.names), rank, dtype=torch.bool, device=device)
        generator = torch.Generator().manual_seed(seed)
        self._init_lora(generator) if init == "lora" else self._init_svd(generator)

    def _init_lora(self, generator: torch.Generator) -> None:
        self.lambdas(self.master_params).fill_(1.0)
        for block in self.blocks(self.master_params):
            random = torch.rand(block.v.shape, generator=generator)
            block.v.copy_((2 * random - 1) / block.v.shape[-1] ** 0.5)

    def _init_svd(self, generator: torch.Generator) -> None:
        for block in self.blocks(self.master_params):
            for factor in (block.u, block.v.mT):
                random = torch.randn(factor.shape, generator=generator)
                factor.copy_(torch.linalg.qr(random)[0][..., : self.rank])

    def blocks(self, flat: Tensor) -> list[Block]:
        """Views of a vector laid out like `master_params`, one block a shape."""
        result, start, row = [], 0, 0
        for (d_out, d_in), names in self.by_shape.items():
            n, r = len(names), self.rank
            middle, stop = start + n * d_out * r, start + n * (d_out + d_in) * r
            u, v = flat[start:middle].view(n, d_out, r), flat[middle:stop].view(n, r, d_in)
            result.append(Block(names, u, v, slice(row, row + n)))
            start, row = stop, row + n
        return result

    def lambdas(self, flat: Tensor) -> Tensor:
        """View (M, r) of the singular values of a vector laid out like `master_params`."""
        return flat[flat.numel() - self.mask.numel() :].view_as(self.mask)

    def views(self) -> tuple[dict[str, tuple[Tensor, Tensor]], dict[str, tuple[Tensor, Tensor]]]:
        """U and V by module as the model computes with them, and the buffers of their gradients; valid for good."""
        factors, grads = {}, {}
        for compute, grad in zip(self.blocks(self.compute_params), self.blocks(self.grad), strict=True):
            for i, name in enumerate(compute.names):
                factors[name] = (compute.u[i], compute.v[i])
                grads[name] = (grad.u[i], grad.v[i])
        return factors, grads

    def begin_step(self) -> Tensor:
        """Clear the gradients, round the factors for the model, and return lambda (M, r) as a leaf of autograd."""
        self.grad.zero_()
        self.compute_params.copy_(self.master_params)
        leaf = self.lambdas(self.master_params).detach().requires_grad_()
        leaf.grad = self.lambdas(self.grad)
        return leaf

    def add_orthogonality(self, weight: float) -> float:
        """Add the gradient of weight * R summed over all modules to `grad`; returns that penalty."""
        if weight == 0:
            return 0.0
        total = torch.zeros((), device=self.grad.device)
        for block, grads in zip(self.blocks(self.master_params), self.blocks(self.grad), strict=True):
            penalty, grad_u, grad_v = orthogonality(block.u, block.v)
            grads.u.add_(grad_u, alpha=weight)
            grads.v.add_(grad_v, alpha=weight)
            total += penalty
        return weight * float(total)  # Eq. A.1

    def scores(self, importance: str, beta1: float, beta2: float) -> Tensor:
        """Importance of every triplet, (M, r), from the parameters and gradients of this step; updates the averages."""
        found = sensitivity(self.master_params, self.grad)  # (P,)
        if importance == "smoothed":
            found = smooth(found, self.average, self.uncertainty, beta1, beta2)
        lambdas = self.lambdas(found)
        return torch.cat([triplet_scores(lambdas[block.rows], block.u, block.v) for block in self.blocks(found)])

    def prune_to_budget(self, scores: Tensor, keep: int) -> None:
        """Keep the `keep` best triplets of all modules and set the other singular values to 0."""
        self.mask = top_mask(scores.reshape(-1), keep).view_as(self.mask)
        self.apply_mask()

    def apply_mask(self) -> None:
        """Set the singular values that are not kept to 0."""
        self.lambdas(self.master_params).masked_fill_(~self.mask, 0.0)  # Eq. A.4

    def folded(self, scale: float) -> dict[str, tuple[Tensor, Tensor]]:
        """B (d_out, k), with scale and lambda in it, and A (k, d_in) by module, of the k kept ranks; k may be 0."""
        lambdas, result = self.lambdas(self.master_params), {}
        for block in self.blocks(self.master_params):
            for i, name in enumerate(block.names):
                row = block.rows.start + i
                kept = self.mask[row]
                gain = lambdas[row][kept] * scale
                result[name] = ((block.u[i][:, kept] * gain).detach().clone(), block.v[i][kept].detach().clone())
        return result

    def state(self) -> dict[str, Tensor]:
        """Everything a checkpoint needs of the factors."""
        names = ("master_params", "average", "uncertainty", "mask")
        return {name: getattr(self, name) for name in names}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore a checkpoint's state, in place."""
        for name in ("master_params", "average", "uncertainty"):
            getattr(self, name).copy_(state[name])
        self.mask = state["mask"].to(self.grad.device)
