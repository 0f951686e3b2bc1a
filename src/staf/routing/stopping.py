"""Early stopping: by losses alone, of epochs or of generations, on a part of the adaptation set.

Both functions look at the whole list of losses, so that an adaptation that is gone on with stops where it would have stopped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from staf.errors import TrainingFailed


def spent(losses: Sequence[float], patience: int | None, tolerance: float) -> bool:
    """True where none of the last `patience` losses is below the best one before them by more than `tolerance`.

    Args:
        patience: None is never spent.
    """
    if patience is None or len(losses) <= patience:
        return False
    return min(losses[-patience:]) >= min(losses[:-patience]) - tolerance


def judged(loss: float, when: str) -> float:
    """A loss that judges, as it is.

    Raises:
        TrainingFailed: it is not a finite number.
    """
    if not math.isfinite(loss):
        raise TrainingFailed(
            f"the router's loss on the examples that judge it is {loss} {when}. Check the experts (staf doctor), "
            "or lower learning_rate (gradient) or sigma0 (cma)."
        )
    return loss
