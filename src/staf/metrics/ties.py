"""Items in order of a score, those of equal score together: their order is chance, and no metric may hang on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ties:
    """Groups of equal score, the best first."""

    order: np.ndarray
    """(m,) indices of what is ordered, best score first"""
    starts: np.ndarray
    """(groups,) where each group begins in `order`"""

    @classmethod
    def of(cls, scores: np.ndarray) -> Ties:
        """The groups of (m,) scores, m at least 1."""
        order = np.argsort(-scores, kind="stable")
        ordered = scores[order]
        return cls(order, np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])))

    def sums(self, amounts: np.ndarray) -> np.ndarray:
        """Sums (b, groups) of amounts (b, m) that are already in `order`."""
        if len(self.starts) == amounts.shape[1]:
            return amounts
        return np.asarray(np.add.reduceat(amounts, self.starts, axis=1))
