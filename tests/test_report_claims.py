"""The papers' claims are judged from made-up results: what holds, what does not, and what is left open, each with its runs."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reproduced_results import compared, each_place, place, reproduced, weighing, without_places, world

from staf.report.claims import CLAIMS, judge_claim, judged
from staf.report.judging import HELD, NOT_HELD, OPEN, Duel, Judgement, duels, judge, most, settle, tally, why_open
from staf.report.places import squared_error
from staf.report.special import NEAR_EXPERTS

BY_NAME = {claim.name: claim for claim in CLAIMS}
ABOUT_BEING_BETTER = sorted(name for name in BY_NAME if "beats" in name or name.endswith("-help") or name == "each-step-helps")


def judgement_of(name: str, found: dict[str, Any]) -> Judgement:
    return judge_claim(BY_NAME[name], found)


def within_chance(found: dict[str, Any]) -> dict[str, Any]:
    """The same means, every difference of which may be chance."""
    unsure = each_place(found, lambda one: {**one, "interval_of_one_seed": [one["mean"] - 0.5, one["mean"] + 0.5]})
    for result in unsure.values():
        for row in result["comparisons"]:
            row |= {"p_value": 0.4, "verdict": "tie", "low": -0.6, "high": 0.6}
    return unsure


# ---- laws of counting ------------------------------------------------------------------------------------------------

OUTCOMES = st.lists(st.sampled_from(["win", "tie", "loss", "missing"]), min_size=1, max_size=9)


@given(OUTCOMES, st.integers(1, 9), st.data())
def test_a_claim_holds_or_not_whatever_ties_and_missing_places_would_have_been(outcomes, needed, data):
    standing = settle(outcomes, min(needed, len(outcomes)))
    decided = [data.draw(st.sampled_from(["win", "loss"])) if one in ("tie", "missing") else one for one in outcomes]
    if standing != OPEN:
        assert settle(decided, min(needed, len(outcomes))) == standing
    assert settle(decided, min(needed, len(outcomes))) != OPEN


@given(OUTCOMES, st.integers(1, 9))
def test_one_more_win_never_speaks_against_a_claim(outcomes, needed):
    rank = {NOT_HELD: 0, OPEN: 1, HELD: 2}
    needed = min(needed, len(outcomes))
    for i in range(len(outcomes)):
        better = [*outcomes[:i], "win", *outcomes[i + 1 :]]
        assert rank[settle(better, needed)] >= rank[settle(outcomes, needed)]


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.001, 1), st.booleans())
def test_turning_a_comparison_round_turns_its_outcome_round(ours, other, p_value, paired):
    rows = [compared("mednli", "normal", "average", ours - other, p_value)] if paired else []
    scores = {"normal": {"mednli": ours}, "average": {"mednli": other}}
    found = {"table3": reproduced("table3", scores, comparisons=rows)}
    there, back = (
        next(duel for duel in duels(found, ("table3",), [pair]) if duel.column == "mednli")
        for pair in (("normal", "average"), ("average", "normal"))
    )
    assert back.outcome == {"win": "loss", "loss": "win", "tie": "tie"}[there.outcome]
    assert back.difference == pytest.approx(-there.difference)
    assert (back.low, back.high) == pytest.approx((-there.high, -there.low))


def test_outcomes_are_told_in_words():
    assert tally(["win", "win", "win", "tie", "tie", "loss"]) == "3 wins, 2 ties, 1 loss of 6 tasks"
    assert tally(["win", "missing"]) == "1 win, 0 ties, 0 losses, 1 missing of 2 tasks"
    assert [most(count) for count in (1, 2, 3, 6, 9)] == [1, 2, 2, 4, 5]


# ---- every claim -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_a_claim_holds_where_it_is_true_and_does_not_where_the_opposite_is(name):
    held, turned = judgement_of(name, world()), judgement_of(name, world(good=False))
    assert (held.standing, turned.standing) == (HELD, NOT_HELD), (held.sentence, turned.sentence)
    for judgement in (held, turned):
        assert re.search(r"\d", judgement.sentence)
        assert judgement.runs == tuple(f"reproduce/{need}/cpu/seed0-a1b2" for need in BY_NAME[name].needs)
        assert judgement.rows
        assert all(row.runs and all(run.startswith("evaluate/") for run in row.runs) for row in judgement.rows)
        assert all(row.cells.keys() == judgement.rows[0].cells.keys() for row in judgement.rows)


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_a_claim_whose_experiment_or_places_are_missing_cannot_be_judged(name):
    absent, empty = judgement_of(name, {}), judgement_of(name, without_places(world()))
    assert absent.standing == empty.standing == OPEN
    assert absent.sentence == f"Not run: {', '.join(BY_NAME[name].needs)}."
    assert "missing" in empty.sentence


@pytest.mark.parametrize("name", ABOUT_BEING_BETTER)
def test_a_difference_within_chance_leaves_a_claim_about_being_better_open(name):
    judgement = judgement_of(name, within_chance(world()))
    assert judgement.standing == OPEN
    assert "within chance" in judgement.sentence


def test_the_claims_are_named_once_and_say_where_they_stand_in_the_papers():
    assert len(BY_NAME) == len(CLAIMS)
    assert all(re.fullmatch(r"(STAF-LLM 5\.\d( and 6)?)?(, )?(SA-MDKIF 4\.3\.\d)?", claim.section) for claim in CLAIMS)
    assert {need for claim in CLAIMS for need in claim.needs} == set(world())


# ---- one claim by hand -----------------------------------------------------------------------------------------------


def test_wins_ties_losses_and_missing_places_are_counted_by_hand():
    averages = {"emrqa": 0.5, "medquad": 0.5, "pubmedqa": 0.5, "mednli": 0.5, "cliner": None, "mimicause": 0.5}
    normal = {"emrqa": 0.6, "medquad": 0.51, "pubmedqa": 0.4, "mednli": 0.7, "cliner": 0.6, "mimicause": 0.56}
    rows = [
        compared("emrqa", "normal", "average", 0.1, 0.01),
        compared("medquad", "normal", "average", 0.01, 0.3),
        compared("pubmedqa", "normal", "average", -0.1, 0.01),
        compared("mednli", "normal", "average", -0.2, 0.01),  # the test of answers and the mean are at odds
    ]
    found = {"table3": reproduced("table3", {"average": averages, "normal": normal}, comparisons=rows)}
    fought = duels(found, ("table3",), [("normal", "average")])
    outcomes = {duel.column: duel.outcome for duel in fought}
    assert outcomes == {
        "emrqa": "win", "medquad": "tie", "pubmedqa": "loss", "mednli": "tie", "cliner": "missing", "mimicause": "win",
    }  # fmt: skip
    judgement = judge(fought)
    assert judgement.standing == NOT_HELD  # one loss is enough against a claim about all tasks
    assert "2 wins, 2 ties, 1 loss, 1 missing of 6 tasks." in judgement.sentence
    assert "emrqa +10.0, medquad +1.0, pubmedqa -10.0, mednli +20.0, mimicause +6.0" in judgement.sentence
    assert "4 of 5 by paired tests, the others by means and the intervals of both" in judgement.sentence
    assert judge(fought, most).standing == OPEN
    assert "2 within chance, places are missing (its data is not here)" in judge(fought, most).sentence


def test_reasons_of_missing_places_are_told_and_the_last_ones_counted():
    reasons = [
        f"table3 was run without a column '{name}'" for name in ("emrqa", "pubmedqa", "mimicause", "mimicause", "mednli")
    ]
    assert why_open(["missing"] * 3, reasons[:3]).endswith("'pubmedqa'; and 1 more reason).")
    assert why_open(["tie", *["missing"] * 5], reasons).endswith("'pubmedqa'; and 2 more reasons).")
    assert why_open(["tie"], ()) == "Not decided: 1 within chance."


def test_without_a_paired_test_a_difference_has_to_be_larger_than_both_intervals_allow():
    scores = {"single": {"mednli": 0.60}, "lora": {"mednli": 0.50}}
    result = reproduced("table3", scores)
    for line, half in zip(result["lines"], (0.06, 0.08), strict=True):
        own = line["places"][0]
        line["places"][0] = {**own, "interval_of_one_seed": [own["mean"] - half, own["mean"] + half], "deviation": None}
    duel = next(d for d in duels({"table3": result}, ("table3",), [("single", "lora")]) if d.column == "mednli")
    assert (duel.low, duel.high) == pytest.approx((0.0, 0.2), abs=1e-9)  # sqrt(6² + 8²) = 10 points
    narrow = place(0.6, "x", "y", interval_of_one_seed=[0.59, 0.61], deviation=0.03, seeds=3)
    assert squared_error(narrow) == pytest.approx((0.01 / 1.96) ** 2 + 0.03**2 / 3)
    assert squared_error(place(0.6, "x", "y", interval_of_one_seed=[None, None])) is None


def test_a_table_that_was_not_run_leaves_a_claim_about_both_open_but_a_loss_decides_it():
    found = world()
    del found["table4"]
    judgement = judgement_of("few-shot-beats-average", found)
    assert judgement.standing == OPEN
    assert "6 wins, 0 ties, 0 losses, 3 missing of 9 tasks" in judgement.sentence
    assert "table4 was not run" in judgement.sentence
    turned = world(good=False)
    del turned["table4"]
    assert judgement_of("few-shot-beats-average", turned).standing == NOT_HELD
    assert judgement_of("normal-beats-full-on-four", found).standing == HELD


def test_meditron_is_no_row_of_ours():
    found = world()
    found["table5"]["lines"] = [line for line in found["table5"]["lines"] if line["name"] != "meditron"]
    assert "Meditron 7B is no row" in judgement_of("new-near-meditron", found).sentence


def test_near_and_alike_need_test_and_means_within_five_points():
    def outcome(difference: float, low: float, high: float) -> tuple[str, str]:
        duel = Duel("table3", "emrqa", "tie", difference, low, high)
        return duel.near, duel.alike

    assert outcome(-0.01, -0.03, 0.01) == ("win", "win")
    assert outcome(-0.01, -0.08, 0.06) == ("tie", "tie")
    assert outcome(0.20, 0.15, 0.25) == ("win", "loss")
    assert outcome(-0.20, -0.25, -0.15) == ("loss", "loss")
    assert outcome(-0.20, -0.03, 0.01) == ("tie", "tie")  # the answers are alike, the AUC is not
    assert Duel("table3", "emrqa", "missing").near == Duel("table3", "emrqa", "missing").alike == "missing"


def test_a_task_whose_prompts_were_not_counted_leaves_the_claim_about_tokens_open():
    found = world()
    found["tokens"]["prompt_tokens"]["mednli"] = None
    judgement = judgement_of("few-shot-reads-few-tokens", found)
    assert judgement.standing == OPEN
    assert "places are missing (the prompts of mednli were not counted)" in judgement.sentence


def test_seeds_that_disagree_leave_a_claim_about_weights_open():
    found = world()
    line = found["fig7"]["lines"][0]
    for own, column in zip(line["places"], NEAR_EXPERTS, strict=False):
        own["weights"] = [*own["weights"][:2], {name: 0.9 if name == "summarization" else 0.1 for name in own["weights"][0]}]
        assert column in ("pubmedqa", "cliner")
    for name in ("pubmedqa-expert-weighs-most", "cliner-expert-weighs-most", "near-experts-weigh-more"):
        assert judgement_of(name, found).standing == OPEN
    assert "the largest in 2 of 3 seeds" in judgement_of("pubmedqa-expert-weighs-most", found).sentence
    foreign = found["cross-domain"]["lines"][2]["places"][0]
    foreign["weights"] = [*foreign["weights"][:2], {"conll-2003": 0.9, "a": 0.1, "b": 0.0}]
    assert judgement_of("cross-domain-small-weight", found).standing == OPEN


def test_a_small_weight_is_below_an_equal_share_and_at_least_a_tenth_of_it():
    found = world()
    own = found["cross-domain"]["lines"][2]["places"][0]
    outcomes = {}
    for weight in (0.001, 0.033, 0.034, 0.05, 0.333, 0.334):
        own["weights"] = [{"conll-2003": weight, "a": (1 - weight) / 2, "b": (1 - weight) / 2}] * 3
        outcomes[weight] = judgement_of("cross-domain-small-weight", found)
    standings = [outcome.standing for outcome in outcomes.values()]
    assert standings == [NOT_HELD, NOT_HELD, HELD, HELD, HELD, NOT_HELD]
    assert "below an equal share, yet at least a tenth of it, in 0 of 3 seeds" in outcomes[0.001].sentence


def test_a_claim_about_weights_needs_the_experts_it_names():
    found = world()
    weighing(found["fig7"], "normal", {key: {"summarization": 1.0} for key in (*NEAR_EXPERTS, "medication")})
    assert "no expert question_answering" in judgement_of("pubmedqa-expert-weighs-most", found).sentence
    assert judgement_of("near-experts-weigh-more", found).standing == OPEN
    weighing(found["cross-domain"], "normal", {"cliner": {"a": 0.6, "b": 0.4}})
    assert "found 0" in judgement_of("cross-domain-small-weight", found).sentence


def test_figures_without_what_a_claim_varies_leave_it_open():
    found = world()
    found["fig5"] = reproduced("fig5", {"in_context": {"10 labels": 0.5}, "few_shot": {"10 labels": 0.5}})
    assert "20 labels" in judgement_of("in-context-drops", found).sentence
    found["fig8"] = reproduced("fig8", {"original": {"emrqa": 0.3}, "3": {"emrqa": 0.5}})
    assert "two numbers of experts" in judgement_of("each-step-helps", found).sentence
    assert judgement_of("more-experts-help", found).standing == OPEN


def test_all_claims_are_judged_in_the_papers_order():
    sections = [claim.section.split(",")[0] for claim, _ in judged(world()) if claim.section.startswith("STAF")]
    assert sections[0] == "STAF-LLM 5.1"
    assert sections[-1] == "STAF-LLM 5.5"
