"""Paired comparisons of a run's predictions with those of finished runs on the same items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from staf.data.task import Task
from staf.errors import ConfigError
from staf.evaluate.settings import EvaluationSettings
from staf.metrics import compare_methods
from staf.runs import Run


def compare_with_baselines(
    task: Task,
    predictions: Sequence[dict[str, Any]],
    compute: Mapping[str, Any] | None,
    baselines: Mapping[str, Run],
    settings: EvaluationSettings,
) -> dict[str, dict[str, Any]]:
    """Comparisons by the task's primary metric, by baseline; one for which it is undefined is left out.

    Args:
        compute: dtype and device of the predictions; None where no language model took part.

    Raises:
        ConfigError: a baseline was computed in another dtype, and `across_dtypes` is not set.
    """
    found = {}
    for name, run in baselines.items():
        if not settings.across_dtypes:
            refuse_other_dtype(name, compute, (run.result() or {}).get("compute"))
        compared = compare_methods(
            task.output_type, task.metric, predictions, run.predictions(), fixed_labels=task.fixed_labels,
            resamples=settings.resamples,
        )  # fmt: skip
        if compared is not None:
            found[name] = compared.as_dict()
    return found


def refuse_other_dtype(name: str, ours: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> None:
    """Check that two runs were computed in the same dtype; runs that record none pass.

    Raises:
        ConfigError: they were not.
    """
    one, two = (None if compute is None else compute.get("dtype") for compute in (ours, other))
    if one and two and one != two:
        raise ConfigError(
            f"{name} was computed in {two}, this run in {one}: their difference may be that of the dtypes. Run both with the "
            "same --dtype, or set across_dtypes=true to compare all the same."
        )
