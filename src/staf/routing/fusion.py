"""Experts laid side by side, and their exact weighted sum (STAF-LLM, Eqs. 4 and 10): pure functions of tensors.

    sum_i R_i U_i diag(lambda_i) V_i  =  U_cat diag(lambda_cat * R[owner]) V_cat

Products are summed, never factors: averaging U and V separately leaves cross terms and is 68 to 211 percent off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from staf.experts.adalora import delta

Factors = tuple[Tensor, Tensor, Tensor]
"""U (d_out, r), singular values times scale (r,), V (r, d_in) of one expert in one matrix; r may be 0."""


@dataclass(frozen=True)
class Stack:
    """All experts' factors of one matrix, side by side along the rank R."""

    u: Tensor
    """(d_out, R)"""
    singular: Tensor
    """(R,), the expert's scale included"""
    v: Tensor
    """(R, d_in)"""
    owner: Tensor
    """(R,) which expert a rank belongs to, 0 to K - 1"""


def stack(factors: Sequence[Factors]) -> Stack:
    """K experts' factors of one matrix as one stack; R is the sum of their ranks."""
    owner = torch.cat([torch.full((f[1].shape[0],), i, dtype=torch.long) for i, f in enumerate(factors)])
    return Stack(
        u=torch.cat([f[0] for f in factors], dim=1),
        singular=torch.cat([f[1] for f in factors]),
        v=torch.cat([f[2] for f in factors], dim=0),
        owner=owner.to(factors[0][1].device),
    )


def gain(stacked: Stack, weights: Tensor) -> Tensor:
    """Gain of each rank: weights (K,) to (R,), or (B, K) to (B, R)."""
    return stacked.singular * weights[..., stacked.owner]


def fused_delta(stacked: Stack, weights: Tensor) -> Tensor:
    """The sum of the experts' deltas under the weights (K,), as one matrix (d_out, d_in)."""
    return delta(stacked.u, gain(stacked, weights), stacked.v)  # Eq. 4


def squared_norms(stacked: Stack, experts: int) -> Tensor:
    """Squared Frobenius norm of each expert's delta, (K,), from Gram matrices of the rank."""
    gram_u = stacked.u.T @ stacked.u  # (R, R)
    gram_v = stacked.v @ stacked.v.T  # (R, R)
    cross = gram_u * gram_v * torch.outer(stacked.singular, stacked.singular)  # (R, R)
    same = stacked.owner[:, None] == stacked.owner[None, :]
    per_rank = (cross * same).sum(1)  # (R,)
    return torch.zeros(experts, dtype=per_rank.dtype, device=per_rank.device).index_add_(0, stacked.owner, per_rank)
