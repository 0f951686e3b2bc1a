"""Claims that are not about one row beating another: how a curve falls, how small a weight, a count or a prompt is."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from staf.report.collect import Result
from staf.report.judging import HELD, NEAR, NOT_HELD, OPEN, Duel, Judgement, Words, duels, points, settle, tally, why_open
from staf.report.places import (
    SURE,
    Experiments,
    Place,
    column_names,
    line_title,
    mean_weights,
    place_of,
    score_of,
    squared_error,
)
from staf.report.tables import Row
from staf.report.texts import count_text

SHARE = 0.002
"""Of full fine-tuning's parameters: "about 0.1 %" is not more than this."""
FAR_FEWER = 0.5
"""Of in-context learning's tokens: "far fewer" is not more than this."""
NOT_NONE = 0.1
"""Of an equal share of the weights: "not none" is at least this. A softmax makes every weight more than 0."""
NEAR_EXPERTS = {
    "pubmedqa": ("question_answering", "multiple_choice"),
    "cliner": (
        "named_entity_recognition", "relation_extraction", "entity_attribute", "entity_relation", "entity_synonymy",
    ),
}  # fmt: skip
"""The experts that section 5.4 names for a task, by knowledge type: those of PubMedQA and MedQuAD; of CliNER, MIMICause and
UMLS. The first is the one of the task's own kind."""


def _words(yes: str, no: str) -> Words:
    return {"win": (yes, yes), "tie": ("unclear", "unclear"), "loss": (no, no), "missing": ("missing", "missing")}


def missing(reason: str) -> Judgement:
    """A claim whose places are not there."""
    return Judgement(OPEN, f"Places are missing: {reason.rstrip('.')}.")


def few_parameters(found: Experiments) -> Judgement:
    """Tunable parameters of the normal router beside those of full fine-tuning."""
    rows, shares, reasons = [], [], []
    for name in (name for name in ("table3", "table4") if name in found):
        for column in column_names(found[name]):
            own, full = (place_of(found[name], row, column) for row in ("normal", "full"))
            if not own.get("tunable_parameters") or not full.get("tunable_parameters"):
                reasons.append(str(own.get("missing") or full.get("missing") or f"{column} has no count of parameters"))
                continue
            shares.append(own["tunable_parameters"] / full["tunable_parameters"])
            cells = {
                "Place": f"{name}, {column}",
                "Normal router": count_text(own["tunable_parameters"]),
                "Full fine-tuning": count_text(full["tunable_parameters"]),
                "Share, %": _percent(shares[-1]),
            }
            rows.append(Row(cells, (*own["runs"], *full["runs"])))
    if not shares:
        return missing(reasons[0])
    sentence = (
        f"At most {_percent(max(shares))} % on {len(shares)} tasks. Counted is what is learned for the task alone; the papers "
        "count the experts too."
    )
    return Judgement(HELD if max(shares) <= SHARE else NOT_HELD, sentence, rows=tuple(rows))


def _percent(share: float) -> str:
    return f"{100 * share:.2g}" if share >= 1e-5 else "less than 0.001"


def in_context_drops(found: Experiments) -> Judgement:
    """From 20 labels to the most: in-context learning loses more than chance allows, and more than the few-shot router."""
    result = found["fig5"]
    by_count = {int(name.split()[0]): name for name in column_names(result) if name.split()[0].isdigit()}
    if 20 not in by_count or max(by_count) <= 20:
        return missing("it needs ICD coding with 20 labels and with more")
    ends = (by_count[20], by_count[max(by_count)])
    rows = {row: [place_of(result, row, column) for column in ends] for row in ("in_context", "few_shot")}
    for places in rows.values():
        for place in places:
            if place["mean"] is None:
                return missing(place["missing"])
    falls = {row: places[0]["mean"] - places[1]["mean"] for row, places in rows.items()}
    errors = {row: sum(squared_error(place) or 0.0 for place in places) for row, places in rows.items()}
    extra, reach = falls["in_context"] - falls["few_shot"], SURE * errors["in_context"] ** 0.5
    extra_reach = SURE * sum(errors.values()) ** 0.5
    if falls["in_context"] > reach and extra > extra_reach:
        standing = HELD
    elif falls["in_context"] + reach < NEAR or extra + extra_reach <= 0:
        standing = NOT_HELD
    else:
        standing = OPEN
    changes = {row: f"{points(-falls[row])} ± {SURE * 100 * errors[row] ** 0.5:.1f}" for row in rows}
    sentence = (
        f"From {ends[0]} to {ends[1]} in-context learning changes by {changes['in_context']} points, "
        f"the few-shot router by {changes['few_shot']}."
    )
    if standing == OPEN:
        sentence += " Not decided: the difference is within chance."
    told = tuple(_curve_row(result, row, ends, places) for row, places in rows.items())
    return Judgement(standing, sentence, rows=told)


def _curve_row(result: Result, name: str, ends: Sequence[str], places: Sequence[Place]) -> Row:
    columns = [f"{end}, AUC, %" for end in ends]
    cells = {"Row": line_title(result, name), **{c: score_of(place) for c, place in zip(columns, places, strict=True)}}
    sources = {column: tuple(place["runs"]) for column, place in zip(columns, places, strict=True)}
    return Row(cells, tuple(run for place in places for run in place["runs"]), sources=sources)


def few_tokens(found: Experiments) -> Judgement:
    """Tokens of a prompt with examples beside those of the task alone, which is all that a router reads."""
    result, outcomes, rows, told, reasons = found["tokens"], [], [], [], []
    for column in column_names(result):
        place, own = place_of(result, "in_context", column), (result.get("prompt_tokens") or {}).get(column)
        if not own or not place.get("prompt_tokens"):
            outcomes.append("missing")
            reasons.append(str(place.get("missing") or f"the prompts of {column} were not counted"))
            continue
        share = own / place["prompt_tokens"]
        outcomes.append("win" if share <= FAR_FEWER else "loss")
        told.append(f"{column} {count_text(round(own))} against {count_text(round(place['prompt_tokens']))}")
        shown = place.get("shots_shown")
        cells = {
            "Task": column,
            "Few-shot router, tokens": count_text(round(own)),
            "In-context learning, tokens": count_text(round(place["prompt_tokens"])),
            "Examples shown": "-" if shown is None else f"{shown:.1f}",
        }
        rows.append(Row(cells, tuple(place["runs"])))
    if not told:
        return missing(reasons[0])
    standing = settle(outcomes, len(outcomes))
    told_first = tally(outcomes, _words("far fewer (half or less)", "not"))
    sentence = f"{told_first}. Tokens a prompt: {', '.join(told)}."
    if standing == OPEN:
        sentence += f" {why_open(outcomes, reasons)}"
    return Judgement(standing, sentence, rows=tuple(rows))


def small_weight(found: Experiments) -> Judgement:
    """The expert of another domain: a weight of at least a tenth of an equal share and below an equal share."""
    result = found["cross-domain"]
    own, medical = (place_of(result, row, "cliner") for row in ("normal", "all_medical"))
    if not own.get("weights") or not medical.get("weights"):
        return missing(str(own.get("missing") or medical.get("missing") or "no weights were kept"))
    foreign = sorted(set(own["weights"][0]) - set(medical["weights"][0]))
    if len(foreign) != 1:
        return missing(f"it needs one expert that the medical set does not have, found {len(foreign)}")
    shares = [one[foreign[0]] / (sum(map(abs, one.values())) or 1.0) for one in own["weights"]]
    even = 1 / len(own["weights"][0])
    small = sum(NOT_NONE * even <= share < even for share in shares)
    standing = HELD if small == len(shares) else NOT_HELD if small == 0 else OPEN
    sentence = (
        f"The expert {foreign[0]} weighs {statistics.fmean(shares):.3f} of 1 (an equal share is {even:.3f}; the paper has "
        f"0.05); below an equal share, yet at least a tenth of it, in {small} of {len(shares)} seeds."
    )
    return Judgement(standing, sentence, rows=tuple(_weights_rows("cliner", own)))


def own_kind_weighs_most(found: Experiments, column: str) -> Judgement:
    """The expert of the task's own kind has the largest weight, in every seed."""
    place, wanted = place_of(found["fig7"], "normal", column), NEAR_EXPERTS[column][0]
    if not place.get("weights"):
        return missing(str(place.get("missing") or "no weights were kept"))
    if any(wanted not in one for one in place["weights"]):
        return missing(f"there is no expert {wanted}")
    first = sum(max(one, key=lambda name: one[name]) == wanted for one in place["weights"])
    means, _ = mean_weights(place)
    ranked = sorted(means, key=lambda name: -means[name])
    standing = HELD if first == len(place["weights"]) else NOT_HELD if not first else OPEN
    sentence = (
        f"The expert {wanted} has weight {means[wanted]:.3f}, place {ranked.index(wanted) + 1} of {len(ranked)}, and "
        f"the largest in {first} of {len(place['weights'])} seeds. Largest on average: {ranked[0]} "
        f"{means[ranked[0]]:.3f}."
    )
    return Judgement(standing, sentence, rows=tuple(_weights_rows(column, place)))


def near_experts_weigh_more(found: Experiments) -> Judgement:
    """On both tasks the experts that are near weigh more on average than the others, in every seed."""
    outcomes, told, rows, reasons = [], [], [], []
    for column, near in NEAR_EXPERTS.items():
        place = place_of(found["fig7"], "normal", column)
        close = [[weight for name, weight in one.items() if name in near] for one in place.get("weights") or []]
        far = [[weight for name, weight in one.items() if name not in near] for one in place.get("weights") or []]
        if not close or not all(close) or not all(far):
            outcomes.append("missing")
            reasons.append(str(place.get("missing") or f"{column} needs experts near to it and others"))
            continue
        above = sum(statistics.fmean(a) > statistics.fmean(b) for a, b in zip(close, far, strict=True))
        outcomes.append("win" if above == len(close) else "tie" if above else "loss")
        means = [statistics.fmean(map(statistics.fmean, side)) for side in (close, far)]
        told.append(f"{column} {means[0]:.3f} against {means[1]:.3f} (more in {above} of {len(close)} seeds)")
        rows += _weights_rows(column, place)
    if not told:
        return missing(reasons[0])
    sentence = (
        f"{tally(outcomes, _words('more', 'not more'))}. Mean weight of a near expert against another's: {', '.join(told)}."
    )
    standing = settle(outcomes, len(outcomes))
    if standing == OPEN:
        sentence += f" {why_open(outcomes, reasons)}"
    return Judgement(standing, sentence, rows=tuple(rows))


def _weights_rows(column: str, place: Place) -> list[Row]:
    means, deviations = mean_weights(place)
    spreads = {name: f" ± {deviation:.3f}" for name, deviation in deviations.items()}
    texts = {name: f"{mean:.3f}{spreads.get(name, '')}" for name, mean in means.items()}
    ranked = sorted(means, key=lambda name: -means[name])
    return [Row({"Expert": name, "Task": column, "Weight": texts[name]}, tuple(place["runs"])) for name in ranked]


def larger_than(found: Experiments, ours: str, others: Sequence[str]) -> tuple[list[Duel], list[str]]:
    """Per column of Tables 3 and 4: a win where `ours` beats all others, a loss where any of them beats it, a tie between."""
    fought = duels(found, ("table3", "table4"), [(ours, other) for other in others])
    outcomes: list[str] = []
    for start in range(0, len(fought), len(others)):
        kinds = {duel.outcome for duel in fought[start : start + len(others)]}
        outcomes.append(next(kind for kind in ("loss", "missing", "tie", "win") if kind in kinds))
    return fought, outcomes
