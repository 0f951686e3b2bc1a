"""The papers' claims are judged from made-up results: what holds, what does not, and what is left open, each with its runs."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reproduced_results import compared, each_cell, read, read_cell, reproduced, weighing, without_cells, world
from scipy import stats

from staf.experiments.plan import declared_experiments
from staf.metrics.stats import holm
from staf.report.claims import (
    HELD,
    MARKS,
    NO_GAIN,
    NOT_COMPARABLE,
    NOT_HELD,
    ON_AVERAGE,
    OPEN,
    REFUTED,
    RULES,
    Claim,
    ClaimResult,
    Compared,
    Item,
    Pool,
    compare_rows,
    evaluate_claim,
    evaluate_claims,
    load_claims,
    needed,
    pools_of,
    rule_outcome,
    strict_outcome,
    tally,
    verdict,
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
            row |= {"p_value": 0.4, "outcome": "tie", "low": -3.0, "high": 3.0}
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
    assert (held.outcome, held.strict, turned.strict) == (HELD, HELD, NOT_HELD), (held.sentence, turned.sentence)
    assert turned.outcome == (NO_GAIN if name in ABOUT_BEING_BETTER and BY_NAME[name].pooled else NOT_HELD)
    for found in (held, turned):
        assert found.strict in (HELD, NOT_HELD)
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
    assert len(BY_NAME) == len(CLAIMS) == 39
    assert all(re.fullmatch(r"(STAF-LLM 5\.\d( and 6)?)?(, )?(SA-MDKIF 4\.3\.\d)?", claim.source) for claim in CLAIMS)
    assert {name for claim in CLAIMS for name in claim.tables} == set(world())
    assert {claim.rule for claim in CLAIMS} == {*RULES, "not_comparable"}


def test_claims_about_unseen_tasks_are_judged_on_the_unseen_track_too():
    assert set(load_claims().columns["unseen"]) == set(declared_experiments()["unseen"].without)
    again = {name.removesuffix("-unseen"): claim for name, claim in BY_NAME.items() if claim.tables == ("unseen",)}
    about_tasks = {name for name, claim in BY_NAME.items() if claim.tables == ("table3", "table4") and claim.rule in RULES}
    assert set(again) == about_tasks - {"normal-beats-full-on-four"}  # of nine
    for name, claim in again.items():
        own = {"id": name, "text": BY_NAME[name].text, "tables": ("table3", "table4")}
        assert claim.model_copy(update=own) == BY_NAME[name]
        assert "unseen track" in claim.text


# ---- one claim by hand -----------------------------------------------------------------------------------------------


def test_wins_ties_losses_and_missing_cells_are_counted_by_hand():
    averages = {"emrqa": 0.5, "medquad": 0.5, "pubmedqa": 0.5, "mednli": 0.5, "cliner": None, "mimicause": 0.5}
    normal = {"emrqa": 0.6, "medquad": 0.51, "pubmedqa": 0.4, "mednli": 0.7, "cliner": 0.6, "mimicause": 0.56}
    rows = [
        compared("emrqa", "normal", "average", 0.1, 0.001),
        compared("medquad", "normal", "average", 0.01, 0.3),
        compared("pubmedqa", "normal", "average", -0.1, 0.001),
        compared("mednli", "normal", "average", -0.2, 0.001),  # the test of answers and the mean are at odds
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
        "+10.0 points, 9.0 to 11.0, paired, p\u00a0=\u00a00.001, Holm p\u00a0=\u00a00.018"
    )
    assert numbers["mimicause"].endswith("by both intervals")
    most = evaluate_claim(beats.model_copy(update={"need": "most"}), read(found))
    assert most.outcome == OPEN
    assert most.sentence.endswith("Not decided: 2 within chance, missing (cliner: its data is not here).")


def test_a_column_counts_once_where_a_claim_combines_its_comparisons():
    scores = {"normal": {"icd_coding": 0.6, "medication": 0.6, "readmission": 0.6}}
    scores |= {name: dict.fromkeys(scores["normal"], 0.4) for name in BY_NAME["normal-beats-peft"].against}
    scores["lora"] = {"icd_coding": 0.8, "medication": 0.4, "readmission": 0.4}
    claim = BY_NAME["normal-beats-peft"].model_copy(update={"tables": ("table4",)})
    result = evaluate_claim(claim, {"table4": table("table4", scores)})
    assert (result.outcome, result.sentence) == (HELD, "2 wins, 0 ties, 1 loss of 3.")


def test_every_missing_run_is_named_under_its_reason():
    reasons = {"emrqa": "no data", "cliner": "not run.", "mednli": "no data"}
    missing = [Item(f"table3, {column}", "missing", reason=reason) for column, reason in reasons.items()]
    found = [Item("table3, mimicause", "tie"), *missing]
    assert why_open([item.outcome for item in found], found) == (
        "Not decided: 1 within chance, missing (emrqa, mednli: no data; cliner: not run)."
    )
    assert why_open(["tie"], found[:1]) == "Not decided: 1 within chance."


# ---- the verdicts, one by one ----------------------------------------------------------------------------------------

COLUMNS = ("emrqa", "medquad", "pubmedqa", "mednli", "cliner", "mimicause")


def judged(
    differences: list[float],
    halves: float | list[float] = 0.05,
    printed: float | None = None,
    need: str = "all",
    **changes: Any,
) -> ClaimResult:
    """The claim that the normal router beats the average on Table 3, one difference a column, uncorrected by Holm."""
    columns = COLUMNS[: len(differences)]
    halves = [halves] * len(columns) if isinstance(halves, float) else halves
    names = dict(zip(columns, differences, strict=True))
    rows = {"normal": {c: 0.5 + d for c, d in names.items()}, "average": dict.fromkeys(columns, 0.5)}
    tests = [
        {**compared(column, "normal", "average", d, 0.2 if abs(d) <= half else 1e-6), "low": d - half, "high": d + half}
        for (column, d), half in zip(names.items(), halves, strict=True)
    ]
    found = reproduced("fig8", rows, comparisons=tests)  # a table without primary comparisons
    for row, number in zip(found["rows"], (50.0 if printed is None else 50 + 100 * printed, 50.0), strict=True):
        for own in row["cells"]:
            own["papers"] = {} if printed is None else {"staf-llm": number}
    found["columns"] = [{**column, "metric": changes.get(column["name"], "accuracy")} for column in found["columns"]]
    claim = Claim(
        id="x", text="x", source="x", tables=("fig8",), rule="better", rows=("normal",), against=("average",), need=need
    )
    fields = {key: value for key, value in changes.items() if key in Claim.model_fields}
    return evaluate_claim(claim.model_copy(update=fields), read({"fig8": found}))


@pytest.fixture(autouse=True)
def only_the_columns_that_are_there(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "judged" in request.node.function.__code__.co_names:
        bare = load_claims().model_copy(update={"columns": {}})
        monkeypatch.setattr("staf.report.claims.load_claims", lambda: bare)


def test_held_is_a_win_wherever_the_claim_needs_one():
    assert judged([0.1, 0.1, 0.1]).outcome == HELD
    assert judged([0.1, 0.1, 0.0], need="most").outcome == HELD
    assert judged([0.1, 0.1, -0.1], need="most").outcome == HELD  # a claim about most allows it
    assert judged([0.1, 0.1, -0.1]).outcome == NOT_HELD


def test_held_on_average_is_a_pooled_interval_above_zero_without_a_loss():
    found = judged([0.04, 0.04, 0.04, 0.04])  # four ties; the mean is 4 ± 2.5
    assert (found.outcome, found.strict) == (ON_AVERAGE, OPEN)
    assert "0 wins, 4 ties, 0 losses of 4" in found.sentence
    assert "On average accuracy +4.0 (1.5 to 6.5)." in found.sentence
    assert judged([0.01, 0.01, 0.01, 0.01]).outcome == OPEN  # 1 ± 2.5
    lost = judged([0.2, 0.2, 0.2, -0.06])  # 13.5 ± 2.5, but a loss
    assert (lost.outcome, lost.strict) == (NOT_HELD, NOT_HELD)
    assert judged([0.2, -0.06], need="1/2").outcome == HELD


def test_no_gain_is_an_upper_bound_below_two_points_lost_or_not():
    assert judged([0.0, 0.0, 0.0, 0.0], 0.039).outcome == NO_GAIN  # 0 ± 1.95
    assert judged([0.0, 0.0, 0.0, 0.0], 0.041).outcome == OPEN  # 0 ± 2.05
    found = judged([-0.1, -0.1], 0.05)
    assert (found.outcome, found.strict) == (NO_GAIN, NOT_HELD)


def test_refuted_is_an_upper_bound_below_half_of_what_the_papers_print():
    flat = [0.0, 0.0, 0.0, 0.0]  # 0 ± 5
    found = judged(flat, 0.1, printed=0.11)
    assert (found.outcome, found.strict) == (REFUTED, OPEN)
    assert "On average accuracy +0.0 (-5.0 to 5.0; the papers +11.0)." in found.sentence
    assert judged(flat, 0.1, printed=0.09).outcome == OPEN
    assert judged(flat, 0.1).outcome == OPEN  # nothing printed
    assert judged([0.04, 0.04, 0.04, 0.04], 0.05, printed=0.5).outcome == ON_AVERAGE  # the first that applies


def test_the_smaller_gain_of_the_two_papers_is_the_one_to_be_refuted():
    found = world()["table3"]
    for row, numbers in zip(found["rows"], ({}, {}), strict=False):
        row["papers"] = numbers
    for row in found["rows"]:
        for own in row["cells"]:
            own["papers"] = {"normal": {"staf-llm": 80.0, "sa-mdkif": 70.0}}.get(
                row["name"], {"staf-llm": 60.0, "sa-mdkif": 60.0}
            )
    (pool,) = pools_of(BY_NAME["normal-beats-single"], read({"table3": found}))
    assert pool.printed == pytest.approx(0.10)


def test_every_family_of_metrics_has_a_mean_of_its_own_and_all_have_to_agree():
    mixed = {"emrqa": "micro_f1", "medquad": "entity_f1"}
    found = judged([0.04, 0.04, 0.04, 0.04], 0.05, **mixed)  # two of F1, two of accuracy: each 4 ± 3.5
    assert found.outcome == ON_AVERAGE
    assert "On average F1 +4.0 (0.5 to 7.5); accuracy +4.0 (0.5 to 7.5)." in found.sentence
    assert judged([0.01, 0.01, 0.04, 0.04], 0.05, **mixed).outcome == OPEN


def test_degrees_of_freedom_of_each_column_reach_the_mean():
    rows = {"normal": dict.fromkeys(COLUMNS[:2], 0.6), "average": dict.fromkeys(COLUMNS[:2], 0.5)}
    tests = [{**compared(c, "normal", "average", 0.1, 0.2), "low": -0.1, "high": 0.3, "freedom": 2.0} for c in COLUMNS[:2]]
    claim = BY_NAME["normal-beats-average"].model_copy(update={"tables": ("table3",)})
    (pool,) = pools_of(claim, read({"table3": reproduced("table3", rows, comparisons=tests)}))
    error = 0.2 / stats.t.ppf(0.975, 2) / 2**0.5  # of the mean of two, with 2 + 2 degrees of freedom
    assert pool.mean.high - 0.1 == pytest.approx(stats.t.ppf(0.975, 4) * error)


def test_a_missing_run_leaves_a_mean_out_and_a_claim_open_unless_losses_decide():
    found = judged([0.04, 0.04, 0.04, 0.04])
    assert found.outcome == ON_AVERAGE
    claim = BY_NAME["normal-beats-average"].model_copy(update={"tables": ("table3",)})
    scores = {"normal": dict.fromkeys(COLUMNS, 0.54), "average": dict.fromkeys(COLUMNS[:-1], 0.5) | {"mimicause": None}}
    rows = [compared(column, "normal", "average", 0.04, 0.2) for column in COLUMNS[:-1]]
    result = evaluate_claim(claim, read({"table3": reproduced("table3", scores, comparisons=rows)}))
    assert result.outcome == OPEN
    assert "On average" not in result.sentence
    assert "missing (mimicause: its data is not here)" in result.sentence


def test_a_column_with_a_loss_and_a_missing_run_leaves_the_mean_out():
    scores = {
        "normal": dict.fromkeys(COLUMNS[:2], 0.4),
        "lora": dict.fromkeys(COLUMNS[:2], 0.5),
        "ia3": {"emrqa": None, "medquad": 0.5},
    }
    claim = BY_NAME["normal-beats-peft"].model_copy(update={"tables": ("table3",), "against": ("lora", "ia3")})
    found = table("table3", scores, comparisons=[compared(c, "normal", "lora", -0.1) for c in COLUMNS[:2]])
    assert "On average" not in evaluate_claim(claim, {"table3": found}).sentence


def test_a_claim_of_being_near_is_held_on_average_within_its_margin_and_never_refuted():
    near = {"rule": "not_worse", "margin": 0.05}
    assert judged([-0.01, -0.01, -0.01, -0.01], 0.06, printed=0.5, **near).outcome == ON_AVERAGE  # -1 ± 3
    assert judged([-0.03, -0.03, -0.03, -0.03], 0.06, printed=0.5, **near).outcome == OPEN  # -3 ± 3
    assert judged([0.02, 0.02, 0.02, 0.02], 0.06, rule="within", margin=0.04).outcome == OPEN
    assert judged([0.02, 0.02, 0.02, 0.02], 0.06, rule="within", margin=0.06).outcome == ON_AVERAGE


def test_columns_that_share_their_items_have_no_mean():
    found = judged([0.04, 0.04, 0.04, 0.04], pooled=False)
    assert (found.outcome, "On average" in found.sentence) == (OPEN, False)
    assert not BY_NAME["few-shot-leads-at-every-label-count"].pooled


def test_claims_about_weights_tokens_and_falls_have_no_mean():
    for name, claim in BY_NAME.items():
        about_rows = claim.rule in ("better", "not_worse", "within") and claim.pooled
        assert bool(pools_of(claim, read(world()))) == about_rows, name


POOLS = st.builds(
    lambda d, half, printed: Pool("F1", Compared("win" if d > half else "tie", d, d - half, d + half, ""), printed),
    st.floats(-0.5, 0.5), st.floats(0.001, 0.5), st.none() | st.floats(0.01, 0.5),
)  # fmt: skip


@given(st.lists(POOLS, max_size=3), st.sampled_from([HELD, NOT_HELD, OPEN]), st.booleans())
def test_a_verdict_is_one_of_six_and_only_an_open_or_lost_claim_gets_another_one(pools, strict, lost):
    found = verdict(BY_NAME["normal-beats-average"], strict, lost, pools)
    assert found in set(MARKS) - {NOT_COMPARABLE}
    if strict == HELD or not pools:
        assert found == strict
    if found == ON_AVERAGE:
        assert not lost
        assert all(pool.mean.low > 0 for pool in pools)
    if found in (NO_GAIN, REFUTED):
        assert all(pool.mean.high < max(0.02, (pool.printed or 0) / 2) for pool in pools)


# ---- primary comparisons ---------------------------------------------------------------------------------------------


def test_the_primary_comparisons_are_eighteen_and_named_in_one_place():
    primary = load_claims().primary
    assert len(primary["rows"]) * len(primary["against"]) == 18
    assert primary["rows"] == ("few_shot", "normal", "route_then_tune")
    assert primary["against"] == ("original", "in_context", "lora_few", "lorahub", "average", "single")
    for name in primary["tables"]:
        rows = {row.name or row.method for row in declared_experiments()[name].rows}
        assert {*primary["rows"], *primary["against"]} - rows <= {"route_then_tune"}


def test_p_values_of_primary_comparisons_are_corrected_in_each_column_and_others_are_not():
    scores = {
        row: {"mednli": mean, "cliner": mean}
        for row, mean in (("normal", 0.6), ("average", 0.5), ("single", 0.5), ("ia3", 0.5))
    }
    rows = [
        compared("mednli", "normal", "average", 0.1, 0.002),
        compared("mednli", "normal", "single", 0.1, 0.01),
        compared("mednli", "normal", "ia3", 0.1, 0.01),
        compared("cliner", "normal", "single", 0.1, 0.0025),
    ]
    found = table("table3", scores, comparisons=rows)
    assert [(test.adjusted, test.outcome) for test in found.comparisons] == [
        (pytest.approx(0.036), "win"), (pytest.approx(0.17), "tie"), (None, "win"), (pytest.approx(0.045), "win"),
    ]  # fmt: skip
    assert [test.p_value for test in found.comparisons] == [0.002, 0.01, 0.01, 0.0025]
    assert found.comparisons[0].adjusted == pytest.approx(holm([0.002, 0.01], 18)[0])
    single = compare_rows(found, "mednli", "normal", "single")
    assert single
    assert (single.outcome, single.test) == ("tie", "paired, p\u00a0=\u00a00.010, Holm p\u00a0=\u00a00.170")
    again = parse_result(found.model_dump(mode="json"))
    assert isinstance(again, Table)
    assert again.comparisons == found.comparisons  # from the p-values, not from what was corrected before
    elsewhere = table("fig8", scores, comparisons=rows)
    assert {test.adjusted for test in elsewhere.comparisons} == {None}


def test_a_win_that_holm_takes_away_is_a_tie_of_the_claim():
    scores = {"normal": dict.fromkeys(COLUMNS, 0.6), "average": dict.fromkeys(COLUMNS, 0.5)}
    claim = BY_NAME["normal-beats-average"].model_copy(update={"tables": ("table3",)})
    for p_value, outcome in ((0.002, HELD), (0.01, ON_AVERAGE)):
        rows = [compared(column, "normal", "average", 0.1, p_value) for column in COLUMNS]
        assert evaluate_claim(claim, read({"table3": reproduced("table3", scores, comparisons=rows)})).outcome == outcome


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
    assert "missing (mednli: the prompts of mednli were not counted)" in result.sentence


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
    results = [result for result in evaluate_claims(read(world())) if result.claim.tables != ("unseen",)]
    sections = [result.claim.source.split(",")[0] for result in results if result.claim.source.startswith("STAF")]
    assert sections[0] == "STAF-LLM 5.1"
    assert sections[-1] == "STAF-LLM 5.5"
