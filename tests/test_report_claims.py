"""The papers' claims are judged from made-up results: what holds, what does not, and what is left open, each with its runs."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reproduced_results import compared, each_cell, read, read_cell, reproduced, weighing, without_cells, world

from staf.report.claims import (
    HELD,
    NOT_COMPARABLE,
    NOT_HELD,
    OPEN,
    RULES,
    ClaimResult,
    Compared,
    compare_rows,
    evaluate_claim,
    evaluate_claims,
    load_claims,
    needed,
    rule_outcome,
    strict_outcome,
    tally,
    why_open,
)
from staf.report.results import Table, parse_result

CLAIMS = load_claims().claims
BY_NAME = {claim.id: claim for claim in CLAIMS}
JUDGED = sorted(name for name, claim in BY_NAME.items() if claim.rule != "not_comparable")
ABOUT_BEING_BETTER = sorted(name for name, claim in BY_NAME.items() if claim.rule == "better")


def result_of(name: str, found: dict[str, Any]) -> ClaimResult:
    return evaluate_claim(BY_NAME[name], read(found))


def table(name: str, scores: dict[str, dict[str, float | None]], **changes: Any) -> Table:
    found = parse_result(reproduced(name, scores, **changes))
    assert isinstance(found, Table)
    return found


def within_chance(found: dict[str, Any]) -> dict[str, Any]:
    """The same means, every difference of which may be chance."""
    unsure = each_cell(found, lambda one: {**one, "interval_of_one_seed": [one["mean"] - 0.5, one["mean"] + 0.5]})
    for result in unsure.values():
        for row in result["comparisons"]:
            row |= {"p_value": 0.4, "outcome": "tie", "low": -0.6, "high": 0.6}
    return unsure


# ---- laws of counting ------------------------------------------------------------------------------------------------

OUTCOMES = st.lists(st.sampled_from(["win", "tie", "loss", "missing"]), min_size=1, max_size=9)


@given(OUTCOMES, st.integers(1, 9), st.data())
def test_a_claim_is_held_or_not_whatever_ties_and_missing_cells_would_have_been(outcomes, needed, data):
    outcome = strict_outcome(outcomes, min(needed, len(outcomes)))
    decided = [data.draw(st.sampled_from(["win", "loss"])) if one in ("tie", "missing") else one for one in outcomes]
    if outcome != OPEN:
        assert strict_outcome(decided, min(needed, len(outcomes))) == outcome
    assert strict_outcome(decided, min(needed, len(outcomes))) != OPEN


@given(OUTCOMES, st.integers(1, 9))
def test_one_more_win_never_speaks_against_a_claim(outcomes, needed):
    rank = {NOT_HELD: 0, OPEN: 1, HELD: 2}
    needed = min(needed, len(outcomes))
    for i in range(len(outcomes)):
        better = [*outcomes[:i], "win", *outcomes[i + 1 :]]
        assert rank[strict_outcome(better, needed)] >= rank[strict_outcome(outcomes, needed)]


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.001, 1), st.booleans())
def test_swapping_the_rows_of_a_comparison_reverses_its_outcome(ours, other, p_value, paired):
    rows = [compared("mednli", "normal", "average", ours - other, p_value)] if paired else []
    found = table("table3", {"normal": {"mednli": ours}, "average": {"mednli": other}}, comparisons=rows)
    there, back = (compare_rows(found, "mednli", *pair) for pair in (("normal", "average"), ("average", "normal")))
    assert there
    assert back
    assert back.outcome == {"win": "loss", "loss": "win", "tie": "tie"}[there.outcome]
    assert back.difference == pytest.approx(-there.difference)
    assert (back.low, back.high) == pytest.approx((-there.high, -there.low))


def test_outcomes_are_counted_in_words():
    assert tally(["win", "win", "win", "tie", "tie", "loss"]) == "3 wins, 2 ties, 1 loss of 6"
    assert tally(["win", "missing"]) == "1 win, 0 ties, 0 losses, 1 missing of 2"
    assert [needed("most", count) for count in (1, 2, 3, 6, 9)] == [1, 2, 2, 4, 5]
    assert [needed("4/9", count) for count in (9, 6, 3)] == [4, 3, 2]
    assert needed("all", 7) == 7


# ---- every claim -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", JUDGED)
def test_a_claim_is_held_where_it_is_true_and_not_where_the_opposite_is(name):
    held, turned = result_of(name, world()), result_of(name, world(good=False))
    assert (held.outcome, turned.outcome) == (HELD, NOT_HELD), (held.sentence, turned.sentence)
    for found in (held, turned):
        assert re.search(r"\d", found.sentence)
        assert found.runs == tuple(f"reproduce/{need}/cpu/seed0-a1b2" for need in BY_NAME[name].tables)
        assert found.items
        assert all(item.runs and all(run.startswith("evaluate/") for run in item.runs) for item in found.items)
        assert all(re.search(r"\d", item.numbers) for item in found.items)


@pytest.mark.parametrize("name", JUDGED)
def test_a_claim_whose_table_or_cells_are_missing_is_open(name):
    absent, empty = result_of(name, {}), result_of(name, without_cells(world()))
    assert absent.outcome == empty.outcome == OPEN
    assert absent.sentence == f"Not run: {', '.join(BY_NAME[name].tables)}."
    assert "missing" in empty.sentence


@pytest.mark.parametrize("name", ABOUT_BEING_BETTER)
def test_a_difference_within_chance_leaves_a_claim_about_being_better_open(name):
    found = result_of(name, within_chance(world()))
    assert found.outcome == OPEN
    assert "within chance" in found.sentence


def test_the_claim_on_few_parameters_is_withdrawn():
    for good in (True, False):
        found = result_of("normal-few-parameters", world(good))
        assert found.outcome == NOT_COMPARABLE
        assert "count includes the experts" in found.sentence


def test_the_claims_are_named_once_and_say_where_they_stand_in_the_papers():
    assert len(BY_NAME) == len(CLAIMS) == 31
    assert all(re.fullmatch(r"(STAF-LLM 5\.\d( and 6)?)?(, )?(SA-MDKIF 4\.3\.\d)?", claim.source) for claim in CLAIMS)
    assert {name for claim in CLAIMS for name in claim.tables} == set(world())
    assert {claim.rule for claim in CLAIMS} == {*RULES, "not_comparable"}


# ---- one claim by hand -----------------------------------------------------------------------------------------------


def test_wins_ties_losses_and_missing_cells_are_counted_by_hand():
    averages = {"emrqa": 0.5, "medquad": 0.5, "pubmedqa": 0.5, "mednli": 0.5, "cliner": None, "mimicause": 0.5}
    normal = {"emrqa": 0.6, "medquad": 0.51, "pubmedqa": 0.4, "mednli": 0.7, "cliner": 0.6, "mimicause": 0.56}
    rows = [
        compared("emrqa", "normal", "average", 0.1, 0.01),
        compared("medquad", "normal", "average", 0.01, 0.3),
        compared("pubmedqa", "normal", "average", -0.1, 0.01),
        compared("mednli", "normal", "average", -0.2, 0.01),  # the test of answers and the mean are at odds
    ]
    found = {"table3": reproduced("table3", {"average": averages, "normal": normal}, comparisons=rows)}
    beats = BY_NAME["normal-beats-average"].model_copy(update={"tables": ("table3",)})
    result = evaluate_claim(beats, read(found))
    assert {item.where.removeprefix("table3, "): item.outcome for item in result.items} == {
        "emrqa": "win", "medquad": "tie", "pubmedqa": "loss", "mednli": "tie", "cliner": "missing", "mimicause": "win",
    }  # fmt: skip
    assert result.outcome == NOT_HELD  # one loss is enough against a claim about all tasks
    assert result.sentence == (
        "2 wins, 2 ties, 1 loss, 1 missing of 6. emrqa +10.0; medquad +1.0; pubmedqa -10.0; mednli +20.0; mimicause +6.0."
    )
    numbers = {item.where.removeprefix("table3, "): item.numbers for item in result.items}
    assert numbers["emrqa"] == (
        "normal 60.0 ± 1.0 (3 seeds) against average 50.0 ± 1.0 (3 seeds): "
        "+10.0 points, 9.0 to 11.0, paired, p\u00a0=\u00a00.010"
    )
    assert numbers["mimicause"].endswith("by both intervals")
    most = evaluate_claim(beats.model_copy(update={"need": "most"}), read(found))
    assert most.outcome == OPEN
    assert most.sentence.endswith("Not decided: 2 within chance, cells are missing (its data is not here).")


def test_a_column_counts_once_where_a_claim_combines_its_comparisons():
    scores = {"normal": {"icd_coding": 0.6, "medication": 0.6, "readmission": 0.6}}
    scores |= {name: dict.fromkeys(scores["normal"], 0.4) for name in BY_NAME["normal-beats-peft"].against}
    scores["lora"] = {"icd_coding": 0.8, "medication": 0.4, "readmission": 0.4}
    claim = BY_NAME["normal-beats-peft"].model_copy(update={"tables": ("table4",)})
    result = evaluate_claim(claim, {"table4": table("table4", scores)})
    assert (result.outcome, result.sentence) == (HELD, "2 wins, 0 ties, 1 loss of 3.")


def test_reasons_of_missing_cells_are_named_and_the_last_ones_counted():
    reasons = [
        f"table3 was run without a column '{name}'" for name in ("emrqa", "pubmedqa", "mimicause", "mimicause", "mednli")
    ]
    assert why_open(["missing"] * 3, reasons[:3]).endswith("'pubmedqa'; and 1 more reason).")
    assert why_open(["tie", *["missing"] * 5], reasons).endswith("'pubmedqa'; and 2 more reasons).")
    assert why_open(["tie"], ()) == "Not decided: 1 within chance."


def test_without_a_paired_test_a_difference_has_to_be_larger_than_both_intervals_allow():
    result = reproduced("table3", {"single": {"mednli": 0.60}, "lora": {"mednli": 0.50}})
    for line, half in zip(result["rows"], (0.06, 0.08), strict=True):
        own = line["cells"][0]
        line["cells"][0] = {**own, "interval_of_one_seed": [own["mean"] - half, own["mean"] + half], "deviation": None}
    found = compare_rows(read({"table3": result})["table3"], "mednli", "single", "lora")
    assert found
    assert (found.low, found.high) == pytest.approx((0.0, 0.2), abs=1e-9)  # sqrt(6² + 8²) = 10 points
    narrow = read_cell(0.6, "x", "y", interval_of_one_seed=[0.59, 0.61], deviation=0.03, seeds=3)
    assert narrow.squared_error == pytest.approx((0.01 / 1.96) ** 2 + 0.03**2 / 3)


@pytest.mark.parametrize("name", ["single-beats-lora", "normal-near-full", "more-examples-level-off"])
def test_without_a_paired_test_and_intervals_means_decide_nothing(name):
    bare = each_cell(world(), lambda one: {**one, "interval_of_one_seed": [None, None], "interval": None})
    for result in bare.values():
        result["comparisons"] = []
    assert read_cell(0.6, "x", "y", interval_of_one_seed=[None, None]).squared_error is None
    found = result_of(name, bare)
    assert found.outcome == OPEN
    assert {item.outcome for item in found.items} == {"tie"}


def test_a_table_that_was_not_run_leaves_a_claim_about_both_open_but_a_loss_decides_it():
    found = world()
    del found["table4"]
    result = result_of("few-shot-beats-average", found)
    assert result.outcome == OPEN
    assert "6 wins, 0 ties, 0 losses, 3 missing of 9" in result.sentence
    assert "table4 was not run" in result.sentence
    turned = world(good=False)
    del turned["table4"]
    assert result_of("few-shot-beats-average", turned).outcome == NOT_HELD
    assert result_of("normal-beats-full-on-four", found).outcome == HELD


def test_meditron_may_be_no_row():
    found = world()
    found["table5"]["rows"] = [line for line in found["table5"]["rows"] if line["name"] != "meditron"]
    result = result_of("new-near-meditron", found)
    assert result.outcome == OPEN
    assert "table5 was run without a row 'meditron'" in result.sentence


def test_near_and_alike_need_test_and_means_within_five_points():
    def outcome(difference: float, low: float, high: float) -> tuple[str, str]:
        found = Compared("tie", difference, low, high, "paired")
        return rule_outcome("not_worse", found, 0.05), rule_outcome("within", found, 0.05)

    assert outcome(-0.01, -0.03, 0.01) == ("win", "win")
    assert outcome(-0.01, -0.08, 0.06) == ("tie", "tie")
    assert outcome(0.20, 0.15, 0.25) == ("win", "loss")
    assert outcome(-0.20, -0.25, -0.15) == ("loss", "loss")
    assert outcome(-0.20, -0.03, 0.01) == ("tie", "tie")  # the answers are alike, the AUC is not


def test_a_task_whose_prompts_were_not_counted_leaves_the_claim_about_tokens_open():
    found = world()
    found["tokens"]["prompt_tokens"]["mednli"] = None
    result = result_of("few-shot-reads-few-tokens", found)
    assert result.outcome == OPEN
    assert "cells are missing (the prompts of mednli were not counted)" in result.sentence


def test_seeds_that_disagree_leave_a_claim_about_weights_open():
    found = world()
    line = found["fig7"]["rows"][0]
    for own in line["cells"][:2]:
        own["weights"] = [*own["weights"][:2], {name: 0.9 if name == "summarization" else 0.1 for name in own["weights"][0]}]
    for name in ("pubmedqa-expert-weighs-most", "cliner-expert-weighs-most", "near-experts-weigh-more"):
        assert result_of(name, found).outcome == OPEN
    assert "the largest in 2 of 3 seeds" in result_of("pubmedqa-expert-weighs-most", found).sentence
    foreign = found["cross-domain"]["rows"][2]["cells"][0]
    foreign["weights"] = [*foreign["weights"][:2], {"conll-2003": 0.9, "a": 0.1, "b": 0.0}]
    assert result_of("cross-domain-small-weight", found).outcome == OPEN


def test_a_small_weight_is_below_an_equal_share_and_at_least_a_tenth_of_it():
    found = world()
    own = found["cross-domain"]["rows"][2]["cells"][0]
    outcomes = {}
    for weight in (0.001, 0.033, 0.034, 0.05, 0.333, 0.334):
        own["weights"] = [{"conll-2003": weight, "a": (1 - weight) / 2, "b": (1 - weight) / 2}] * 3
        outcomes[weight] = result_of("cross-domain-small-weight", found)
    found_outcomes = [outcome.outcome for outcome in outcomes.values()]
    assert found_outcomes == [NOT_HELD, NOT_HELD, HELD, HELD, HELD, NOT_HELD]
    assert "small, yet not none, in 0 of 3 seeds" in outcomes[0.001].sentence


def test_a_claim_about_weights_needs_the_experts_it_names():
    found = world()
    weighing(found["fig7"], "normal", {key: {"summarization": 1.0} for key in ("pubmedqa", "cliner", "medication")})
    assert "no expert question_answering" in result_of("pubmedqa-expert-weighs-most", found).sentence
    assert result_of("near-experts-weigh-more", found).outcome == OPEN
    weighing(found["cross-domain"], "normal", {"cliner": {"a": 0.6, "b": 0.4}})
    assert "found 0" in result_of("cross-domain-small-weight", found).sentence


def test_figures_without_what_a_claim_varies_leave_it_open():
    found = world()
    found["fig5"] = reproduced("fig5", {"in_context": {"10 labels": 0.5}, "few_shot": {"10 labels": 0.5}})
    assert "20 labels" in result_of("in-context-drops", found).sentence
    found["fig8"] = reproduced("fig8", {"original": {"emrqa": 0.3}, "3": {"emrqa": 0.5}})
    assert "without a row" in result_of("each-step-helps", found).sentence
    assert result_of("more-experts-help", found).outcome == OPEN


def test_all_claims_come_in_the_papers_order():
    results = evaluate_claims(read(world()))
    sections = [result.claim.source.split(",")[0] for result in results if result.claim.source.startswith("STAF")]
    assert sections[0] == "STAF-LLM 5.1"
    assert sections[-1] == "STAF-LLM 5.5"
