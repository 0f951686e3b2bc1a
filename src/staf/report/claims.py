"""The papers' claims, and how each stands on what was reproduced: held, not held, or cannot be judged here.

Sections are those of STAF-LLM and of SA-MDKIF. A claim is told in our words, and judged by a pure function of the reproduced
results (`judging` has the rule; `special` the claims that are not about one row beating another). Where one of the experiments
that it needs was not run, its places count as missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from math import ceil

from staf.report import special
from staf.report.judging import NEAR_WORDS, OPEN, Judgement, Needed, Pairs, duels, every, judge, most
from staf.report.places import Experiments, line_of
from staf.report.special import larger_than

Judge = Callable[[Experiments], Judgement]
PEFT = ("prompt_tuning", "prefix_tuning", "p_tuning", "lora", "ia3")
CLASSIFIERS = ("tfidf", "cnn", "text_cnn", "rnn")
BOTH = ("table3", "table4")
ALIKE_WORDS = {**NEAR_WORDS, "win": ("alike", "alike")}


@dataclass(frozen=True, slots=True)
class Claim:
    """A statement of the papers."""

    name: str
    text: str
    """in our words"""
    section: str
    needs: tuple[str, ...]
    """experiments, as `staf reproduce` names them"""
    judge: Judge


def judged(found: Experiments) -> list[tuple[Claim, Judgement]]:
    """Every claim with how it stands."""
    return [(claim, judge_claim(claim, found)) for claim in CLAIMS]


def judge_claim(claim: Claim, found: Experiments) -> Judgement:
    """How a claim stands on the experiments that there are."""
    there = [name for name in claim.needs if name in found]
    absent = [name for name in claim.needs if name not in found]
    if not there:
        return Judgement(OPEN, f"Not run: {', '.join(absent)}.")
    judgement = claim.judge(found)
    note = f" Not run: {', '.join(absent)}." if absent and "was not run" not in judgement.sentence else ""
    return replace(judgement, sentence=judgement.sentence + note, runs=tuple(found[name]["run"] for name in there))


def _beats(names: Sequence[str], pairs: Pairs, needed: Needed = every) -> Judge:
    return lambda found: judge(duels(found, names, pairs), needed)


def _near(names: Sequence[str], pairs: Pairs) -> Judge:
    def judge_near(found: Experiments) -> Judgement:
        fought = duels(found, names, pairs)
        return judge(fought, every, [duel.near for duel in fought], NEAR_WORDS)

    return judge_near


def _alike(names: Sequence[str], pairs: Pairs) -> Judge:
    def judge_alike(found: Experiments) -> Judgement:
        fought = duels(found, names, pairs)
        return judge(fought, every, [duel.alike for duel in fought], ALIKE_WORDS)

    return judge_alike


def _best_peft(found: Experiments) -> Judgement:
    fought, outcomes = larger_than(found, "normal", PEFT)
    return judge(fought, most, outcomes)


def _expert_steps(found: Experiments) -> Judgement:
    counts = sorted(int(line["name"]) for line in found["fig8"]["lines"] if line["name"].isdigit())
    if len(counts) < 2:
        return special.missing("it needs two numbers of experts or more")
    pairs = [(str(more), str(fewer)) for fewer, more in pairwise(counts)]
    return judge(duels(found, ("fig8",), pairs))


def _meditron(found: Experiments) -> Judgement:
    if line_of(found["table5"], "meditron") is None:
        return special.missing("Meditron 7B is no row of the tables made here")
    return _near(("table5",), [("new", "meditron")])(found)


def _four_of_nine(count: int) -> int:
    return ceil(4 * count / 9)


CLAIMS = (
    Claim(
        "peft-beats-original", "Every method that tunes few parameters beats the original model on all six unseen data sets.",
        "STAF-LLM 5.1, SA-MDKIF 4.3.1", ("table3",), _beats(("table3",), [(method, "original") for method in PEFT]),
    ),
    Claim(
        "normal-beats-original", "The normal router beats the original model on all nine tasks.",
        "STAF-LLM 5.1 and 6, SA-MDKIF 4.3.1", BOTH, _beats(BOTH, [("normal", "original")]),
    ),
    Claim(
        "normal-beats-peft", "On most tasks the normal router beats each of the five other methods that tune few parameters.",
        "STAF-LLM 5.1, SA-MDKIF 4.3.1", BOTH, _best_peft,
    ),
    Claim(
        "single-beats-lora", "AdaLoRA, that is a single expert, beats LoRA on most tasks.",
        "STAF-LLM 5.1", ("table3",), _beats(("table3",), [("single", "lora")], most),
    ),
    Claim(
        "average-beats-lora", "The average of all experts, without adaptation, beats LoRA on most tasks.",
        "SA-MDKIF 4.3.1", BOTH, _beats(BOTH, [("average", "lora")], most),
    ),
    Claim(
        "average-beats-single", "A single expert falls short of the average of all experts.",
        "STAF-LLM 5.1", ("table3",), _beats(("table3",), [("average", "single")]),
    ),
    Claim(
        "normal-beats-single", "The normal router beats a single expert on all six unseen data sets.",
        "STAF-LLM 5.1", ("table3",), _beats(("table3",), [("normal", "single")]),
    ),
    Claim(
        "normal-beats-average", "The normal router beats the average of the experts on all nine tasks.",
        "STAF-LLM 5.1, SA-MDKIF 4.3.1", BOTH, _beats(BOTH, [("normal", "average")]),
    ),
    Claim(
        "normal-beats-full-on-four", "The normal router beats full fine-tuning on four of nine tasks.",
        "STAF-LLM 5.1, SA-MDKIF 4.3.1", BOTH, _beats(BOTH, [("normal", "full")], _four_of_nine),
    ),
    Claim(
        "normal-near-full",
        "On all nine tasks the normal router is near full fine-tuning (no more than 5 points behind) or above.",
        "STAF-LLM 5.1, SA-MDKIF 4.3.1", BOTH, _near(BOTH, [("normal", "full")]),
    ),
    Claim(
        "normal-few-parameters", "The normal router tunes about 0.1 % of the parameters that full fine-tuning does.",
        "STAF-LLM 5.1", BOTH, special.few_parameters,
    ),
    Claim(
        "cross-domain-beats-original",
        "With an expert of another domain in place of the task's own, the model stays above the original.",
        "STAF-LLM 5.1", ("cross-domain",), _beats(("cross-domain",), [("normal", "original")]),
    ),
    Claim(
        "cross-domain-small-weight", "The expert of another domain gets a small weight, yet not none.",
        "STAF-LLM 5.1", ("cross-domain",), special.small_weight,
    ),
    Claim(
        "few-shot-beats-original", "The few-shot router beats the original model on all nine tasks.",
        "STAF-LLM 5.2, SA-MDKIF 4.3.2", BOTH, _beats(BOTH, [("few_shot", "original")]),
    ),
    Claim(
        "few-shot-beats-in-context", "The few-shot router beats in-context learning on all nine tasks.",
        "STAF-LLM 5.2, SA-MDKIF 4.3.2", BOTH, _beats(BOTH, [("few_shot", "in_context")]),
    ),
    Claim(
        "few-shot-beats-average", "With few examples the router already beats the average of the experts on all nine tasks.",
        "STAF-LLM 5.2", BOTH, _beats(BOTH, [("few_shot", "average")]),
    ),
    Claim(
        "in-context-drops", "Above 20 labels in-context learning drops sharply, while the few-shot router declines slowly.",
        "STAF-LLM 5.2, SA-MDKIF 4.3.2", ("fig5",), special.in_context_drops,
    ),
    Claim(
        "few-shot-leads-at-every-label-count",
        "At 10 to 50 labels the few-shot router is above in-context learning and the original.",
        "STAF-LLM 5.2, SA-MDKIF 4.3.2", ("fig5",), _beats(("fig5",), [("few_shot", "in_context"), ("few_shot", "original")]),
    ),
    Claim(
        "more-examples-help", "From 8 to 32 examples the few-shot router improves substantially on all three tasks.",
        "STAF-LLM 5.2", ("fig6",), _beats(("fig6",), [("32", "8")]),
    ),
    Claim(
        "more-examples-level-off", "From 32 to 64 examples little changes (within 5 points).",
        "STAF-LLM 5.2", ("fig6",), _alike(("fig6",), [("64", "32")]),
    ),
    Claim(
        "few-shot-reads-few-tokens", "A few-shot router reads far fewer tokens for an answer than in-context learning.",
        "STAF-LLM 5.2, SA-MDKIF 4.3.2", ("tokens",), special.few_tokens,
    ),
    Claim(
        "new-beats-normal",
        "With a further expert of the clinical records the router beats the one without on all three clinical tasks.",
        "STAF-LLM 5.3, SA-MDKIF 4.3.3", ("table5",), _beats(("table5",), [("new", "normal")]),
    ),
    Claim(
        "new-beats-encoder", "With that expert it beats the fine-tuned clinical BERT on all three clinical tasks.",
        "STAF-LLM 5.3, SA-MDKIF 4.3.3", ("table5",), _beats(("table5",), [("new", "encoder")]),
    ),
    Claim(
        "new-beats-classifiers", "With that expert it beats the other text classifiers of Table 5.",
        "STAF-LLM 5.3, SA-MDKIF 4.3.3", ("table5",), _beats(("table5",), [("new", name) for name in CLASSIFIERS]),
    ),
    Claim(
        "new-near-meditron", "With that expert it is competitive with Meditron 7B.",
        "STAF-LLM 5.3", ("table5",), _meditron,
    ),
    Claim(
        "pubmedqa-expert-weighs-most", "For PubMedQA the question answering expert has the largest weight.",
        "STAF-LLM 5.4", ("fig7",), partial(special.own_kind_weighs_most, column="pubmedqa"),
    ),
    Claim(
        "cliner-expert-weighs-most", "For CliNER the named entity expert has the largest weight.",
        "STAF-LLM 5.4", ("fig7",), partial(special.own_kind_weighs_most, column="cliner"),
    ),
    Claim(
        "near-experts-weigh-more", "Experts whose knowledge is close to the task tend to get higher weights.",
        "STAF-LLM 5.4", ("fig7",), special.near_experts_weigh_more,
    ),
    Claim(
        "more-experts-help", "All twelve experts do better than three.",
        "STAF-LLM 5.5, SA-MDKIF 4.3.4", ("fig8",), _beats(("fig8",), [("12", "3")]),
    ),
    Claim(
        "each-step-helps", "Each further group of experts improves every task.",
        "STAF-LLM 5.5, SA-MDKIF 4.3.4", ("fig8",), _expert_steps,
    ),
    Claim(
        "three-experts-beat-original", "Already three experts beat the original model.",
        "STAF-LLM 5.5, SA-MDKIF 4.3.4", ("fig8",), _beats(("fig8",), [("3", "original")]),
    ),
)  # fmt: skip
