"""Products with a frozen matrix on a processor, in the parts in which they are fast.

oneDNN's bfloat16 product is up to twice as slow for some sizes as for their halves (docs/log.md, 2026-11-22): for 513
to 1,100 rows, and where the inner side is long. So such products are done as two halves of the rows, and as sums over pieces
of the inner side.
"""

from __future__ import annotations

import torch
from torch import Tensor

SLOW_ROWS = range(513, 1101)
DEPTH = 768
"""Of a piece of the inner side, where that is at least four times as long."""
FEW_ROWS = 320
"""Up to so many, a long inner side is no loss."""


def add_product(out: Tensor, rows: Tensor, matrix: Tensor) -> Tensor:
    """Add rows (N, K) times a matrix (K, M) to `out` (N, M), in place."""
    if rows.device.type != "cpu" or rows.dtype != torch.bfloat16:
        return out.addmm_(rows, matrix)
    count, depth = rows.shape
    pieces = depth // DEPTH if depth >= 4 * DEPTH and count > FEW_ROWS else 1
    halves = 2 if count in SLOW_ROWS else 1
    for part, into in zip(rows.chunk(halves), out.chunk(halves), strict=True):
        for left, right in zip(part.chunk(pieces, dim=1), matrix.chunk(pieces), strict=True):
            into.addmm_(left, right)
    return out
