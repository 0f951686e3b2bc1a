"""AdaLoRA's mathematics (STAF-LLM, Eq. 1 and appendix A.1 to A.6; Zhang et al., 2023): pure functions of tensors.

    Delta_j = U_j diag(lambda_j) V_j          U (d_out, r)   lambda (r,)   V (r, d_in)          Eq. 1
    R(U, V) = |U'U - I|^2 + |VV' - I|^2       squared Frobenius norms                            Eq. A.2
    score_p = s(lambda_p) + mean_q s(U_qp) + mean_q s(V_pq),   s(w) = |w dL/dw|                  Eq. A.6
    keep the b(t) best scores of all matrices together; the other singular values become 0       Eqs. A.4, A.5

Knows nothing of models or training loops.
"""

from __future__ import annotations

import torch
from torch import Tensor


def budget(step: int, *, matrices: int, initial_rank: int, target_rank: int, warmup: int, final: int, total: int) -> int:
    """Singular values kept in all after `step` (counted from 0): a cubic fall from the initial to the target budget.

    Args:
        matrices: number of adapted matrices; the budgets are matrices * rank.
        warmup: steps before the first cut. final: steps at the end that train with the last mask. total: all steps.

    Returns:
        A number that never grows with `step`, is matrices * initial_rank through the warm-up, and
        matrices * target_rank from step total - final on.
    """
    first, last = matrices * initial_rank, matrices * target_rank
    if step < warmup:
        return first
    if step >= total - final:
        return last
    remaining = 1 - (step - warmup) / (total - final - warmup)
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
    """Scores of the triplets of one matrix: (r,), (d_out, r) and (r, d_in) to (r,)."""
    return importance_lambda + importance_u.mean(0) + importance_v.mean(1)  # Eq. A.6


def orthogonality(u: Tensor, v: Tensor) -> Tensor:
    """How far U (..., d_out, r) and V (..., r, d_in) are from orthogonal, summed over all leading dimensions."""
    identity = torch.eye(u.shape[-1], dtype=u.dtype, device=u.device)
    gram_u = u.mT @ u - identity  # (..., r, r)
    gram_v = v @ v.mT - identity  # (..., r, r)
    return gram_u.square().sum() + gram_v.square().sum()  # Eq. A.2


def delta(u: Tensor, gain: Tensor, v: Tensor) -> Tensor:
    """U diag(gain) V: (d_out, r), (r,), (r, d_in) to (d_out, d_in)."""
    return (u * gain) @ v  # Eq. 1
