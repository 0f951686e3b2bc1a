"""One sentence that says which row of a comparison to use."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from staf.stages.budget import SLACK

Row = Mapping[str, Any]
CHEAP = ("tfidf", "embedding")
"""Rows that a recommendation waits for."""
LEVEL = 0.05
"""A row is above another where the paired test says so at this level, divided by the number of rows that were tried."""


def recommendation(found: Mapping[str, Any]) -> str:
    """What a user should do, from the rows of a comparison; simple rows win where no other is shown to be above them.

    Where there was no time for a classifier, nothing is recommended before that has run.
    """
    if not found["rows"]:
        return nothing(found)
    late = [quoted(row) for row in found["left_out"] if row["name"] in CHEAP and "--minutes" in row["reason"]]
    if not late:
        return _advice(found)
    return (
        f"Nothing is recommended yet: there was no time for {' and '.join(late)}, which often win and take seconds on an idle "
        f"machine. Run it again with --minutes {2 * math.ceil(found['minutes'])} or more."
    )


def _advice(found: Mapping[str, Any]) -> str:
    rows: Sequence[Row] = found["rows"]
    reference = next(row for row in rows if row["name"] == found["reference"])
    models = [row for row in rows if row["language_model"] and row is not reference]
    best = max(models, key=lambda row: float(row["value"]), default=None)
    start, against = f"On {min(row['test_rows'] for row in rows)} test rows", " no row of a language model was run,"
    if best is not None:
        if is_above(best["to_simple"], len(models)):
            return f"{start} {quoted(best)} is above {quoted(reference)} ({difference(best['to_simple'])}): use it."
        against = f" no row of a language model is shown to be above it (the best, {quoted(best)}: "
        against += f"{difference(best['to_simple'])}),"
    cost = f"{reference['seconds']:.0f} s" + ("" if reference["language_model"] else " and no language model")
    if reference["language_model"]:  # there are no simple rows
        return f"{start}{against if models else ' there is no row but this one,'} so use {quoted(reference)}: it takes {cost}."
    simple = sum(not row["language_model"] for row in rows) - 1
    if is_above(reference["to_majority"], simple):
        above = f"{quoted(reference)} is above the majority ({difference(reference['to_majority'])}), and"
        return f"{start} {above}{against} so use it: it takes {cost}{more(found, reference)}."
    if best is not None and is_above(best["to_majority"], len(models)):
        above = f"{quoted(best)} is above the majority ({difference(best['to_majority'])})"
        return f"{start} {above}, which {quoted(reference)} is not shown to be: use {quoted(best)}."
    top = max((row for row in rows if row["to_majority"]), key=lambda row: float(row["value"]), default=None)
    named = f" (the best, {quoted(top)}: {difference(top['to_majority'])})" if top else ""
    named += "" if models else "; no row of a language model was run"
    learned = f"none has learned this task from {found['shots']} examples"
    later = more(found, reference) or ", so label more before you use one"
    return f"{start} no row is shown to be above the majority{named}: {learned}{later}."


def nothing(found: Mapping[str, Any]) -> str:
    """What is said where no row was finished."""
    late = [row["seconds"] for row in found["left_out"] if row["seconds"] is not None]
    if not late:
        return "No row could answer this task: see why each was left out."
    minutes = math.ceil((found["seconds"] + min(late)) / SLACK / 60)
    return (
        f"No row fits into {found['minutes']:g} min: the shortest takes about {min(late):.0f} s. "
        f"Run it again with --minutes {max(minutes, math.floor(found['minutes']) + 1)} or more."
    )


def more(found: Mapping[str, Any], reference: Row) -> str:
    """What the best classifier reaches with all labelled examples, where that is more than the best simple row."""
    lines = [line for line in found["curve"] if line["points"] and line["points"][-1]["shots"] > found["shots"]]
    best = max(lines, key=lambda line: float(line["points"][-1]["value"]), default=None)
    if best is None or best["points"][-1]["value"] <= reference["value"]:
        return ""
    shots, value, low, high = (best["points"][-1][key] for key in ("shots", "value", "low", "high"))
    return (
        f"; with all {shots} labelled examples {quoted(best)} reaches {100 * value:.1f} ({100 * low:.1f} to {100 * high:.1f})"
    )


def is_above(compared: Mapping[str, Any] | None, tried: int) -> bool:
    """Whether the paired test of a row against another says that it is above, after `tried` rows could have been the best."""
    return compared is not None and compared["difference"] > 0 and compared["p_value"] * max(tried, 1) < LEVEL


def difference(compared: Mapping[str, Any]) -> str:
    """A difference in points with its 95 % interval."""
    one, low, high = (f"{100 * compared[key]:+.1f}" for key in ("difference", "low", "high"))
    return f"difference {one}, {low} to {high}"


def quoted(row: Row) -> str:
    """A row within a sentence."""
    named = {
        "majority": "the majority", "nearest_label": "the nearest label name", "tfidf": "TF-IDF with logistic regression",
        "embedding": "the sentence encoder with logistic regression", "original": "the base model",
        "in_context": "in-context learning",
        "linear_probe": "the linear probe of hidden states", "lora": "LoRA", "single": "the best single expert",
        "few_shot": "the few-shot router", "route_then_tune": "route-then-tune",
    }  # fmt: skip
    return named[row["name"]]
