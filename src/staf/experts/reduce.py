"""Experts of a lower rank, with the exact error that the truncation makes.

The best matrix of rank k follows from the factors without forming the matrix:

    B A = (Q_b R_b) (Q_a R_a)' = Q_b (R_b R_a') Q_a'       thin QR of B and of A'
    R_b R_a' = L diag(s) M'                                 SVD of at most R x R
    B_k A_k = (Q_b L_k diag(s_k)) (Q_a M_k)'                Eckart and Young (1936)

Its squared error is the sum of the squared singular values that are discarded. It serves one expert, and the weighted sum of
several (STAF-LLM, Eq. 4), whose factors concatenated along the rank are such a product. All is computed in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from staf.errors import ConfigError
from staf.experts.adapter import Factors
from staf.experts.sets import write_set
from staf.experts.store import Expert, ExpertSet


@dataclass(frozen=True)
class Truncated:
    """Factors of a lower rank, and what was discarded."""

    factors: Factors
    """B (d_out, k) with orthogonal columns of falling norm, A (k, d_in) with orthonormal rows"""
    discarded_energy: float
    """squared Frobenius norm of what was discarded"""
    total_energy: float
    """squared Frobenius norm of the product"""


def relative_error(parts: Sequence[Truncated]) -> float:
    """Frobenius norm of what was discarded over all modules, divided by that of all products; 0 where these are 0."""
    total = sum(part.total_energy for part in parts)
    return (sum(part.discarded_energy for part in parts) / total) ** 0.5 if total > 0 else 0.0


def truncate_rank(factors: Factors, rank: int) -> Truncated:
    """The best factors of at most `rank` for B A; no more than the rank of the product itself.

    The columns of B are signed so that the largest entry of each is positive.

    Raises:
        ConfigError: a rank below 1.
    """
    if rank < 1:
        raise ConfigError(f"rank = {rank} cannot be kept: give a rank of at least 1.")
    b, a = (part.double() for part in factors)
    basis_b, small_b = torch.linalg.qr(b)  # (d_out, p), (p, R)
    basis_a, small_a = torch.linalg.qr(a.T)  # (d_in, q), (q, R)
    left, singular, right = torch.linalg.svd(small_b @ small_a.T, full_matrices=False)
    squares = singular.square()
    noise = float(singular[0]) * max(b.shape[0], a.shape[1]) * torch.finfo(torch.float64).eps if singular.numel() else 0.0
    kept = min(rank, int((singular > noise).sum()))
    new_b, new_a = basis_b @ left[:, :kept], right[:kept] @ basis_a.T
    if kept:
        sign = new_b.gather(0, new_b.abs().argmax(0, keepdim=True)).sign()  # (1, k)
        new_b, new_a = new_b * sign * singular[:kept], new_a * sign.T
    dtype = factors[0].dtype
    found = (new_b.to(dtype).contiguous(), new_a.to(dtype).contiguous())
    return Truncated(found, float(squares[kept:].sum()), float(squares.sum()))


def concat_factors(parts: Sequence[Factors], weights: Tensor) -> Factors:
    """The weighted sum of K experts' factors of one module as one product of the summed rank; weights (K,)."""
    weighted = [b * weight for (b, _), weight in zip(parts, weights, strict=True)]
    return torch.cat(weighted, dim=1), torch.cat([a for _, a in parts], dim=0)  # Eq. 4


def reduce_expert(expert: Expert, rank: int) -> tuple[Expert, float]:
    """An expert with at most `rank` in each module, and the relative Frobenius error over all modules.

    It keeps name, base and what it was trained on, but not its training digest: training does not take it for finished.

    Raises:
        ConfigError: a rank below 1.
    """
    found = {name: truncate_rank(factors, rank) for name, factors in expert.factors.items()}
    error = relative_error(list(found.values()))
    record = {key: value for key, value in expert.record.items() if key != "run"}
    record["reduced"] = {"from": expert.fingerprint, "rank": rank, "error": error}
    return replace(expert, factors={name: part.factors for name, part in found.items()}, record=record), error


def reduce_set(experts: ExpertSet, rank: int | None, out: Path) -> list[dict[str, Any]]:
    """Save a set with at most `rank` in each module of its experts, or as it is if that is None.

    Returns:
        one row for each expert: its average rank and number of parameters before and after, and the relative error.

    Raises:
        ConfigError: a rank below 1. StafError: `out` is there already, or cannot be written; nothing is left there.
    """
    pairs = [(expert, *((expert, 0.0) if rank is None else reduce_expert(expert, rank))) for expert in experts.experts]
    write_set(out, [smaller for _, smaller, _ in pairs])
    return [
        {
            "expert": expert.name, "average_rank": round(smaller.average_rank, 2),
            "average_rank_before": round(expert.average_rank, 2), "num_params": smaller.num_params,
            "num_params_before": expert.num_params, "error": round(error, 6),
        }
        for expert, smaller, error in pairs
    ]  # fmt: skip
