"""How answers are read and what methods learn from (docs/evaluation.md): laws, and cases worked by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import make_examples
from hypothesis import given
from hypothesis import strategies as st
from test_report import TASK, scored

from staf.baselines.in_context import in_turn, with_shots
from staf.baselines.methods import baseline_predictions
from staf.baselines.peft import Tuning
from staf.baselines.settings import BaselineSettings
from staf.data.answers import read_several
from staf.data.example import OUTPUT_TYPES, Example, prompt_of
from staf.data.selection import expert_examples
from staf.data.splits import equal_shares, few_shot, seeded_rng
from staf.data.store import DataStore
from staf.data.task import Task
from staf.evaluate.answer import Answerer
from staf.evaluate.settings import EvaluationSettings
from staf.experts.store import ExpertSet
from staf.lm.base import Base
from staf.lm.batches import encode, encode_answer, encode_prompt
from staf.lm.scoring import score_labels
from staf.report.reproduced import reading_text
from staf.report.results import Cell
from staf.report.tables import task_table
from staf.routing.merge import Mixture
from staf.routing.objective import LMLoss, RouterObjective
from staf.routing.recipe import RouterRecipe


@pytest.mark.parametrize("output_type", OUTPUT_TYPES)
def test_an_end_token_is_left_out_after_labels_only(base: Base, output_type: str) -> None:
    example = replace(make_examples(1)[0], output_type=output_type)
    usual, without = encode(example, base.tokenizer, 200), encode(example, base.tokenizer, 200, label_end=False)
    assert usual.tokens[-1] == base.tokenizer.eos_token_id
    labels = output_type in ("multiple_choice", "multi_label")
    assert without.tokens == (usual.tokens[:-1] if labels else usual.tokens)


def test_the_loss_without_ends_is_that_of_the_tokens_that_are_scored(base: Base) -> None:
    examples = make_examples(6)
    examples += [replace(examples[0], id="same prompt"), replace(examples[0], id="one token", answer="r", labels=("r", "blue"))]
    scores = score_labels(base, examples, max_length=200, token_budget=4096, length_normalised=False)
    right = sum(float(own[e.labels.index(e.answer)]) for e, own in zip(examples, scores, strict=True))
    tokens = sum(len(encode_answer(e.answer, base.tokenizer)) for e in examples)
    items = [encode(example, base.tokenizer, 200, label_end=False) for example in examples]
    assert LMLoss(base, items)() == pytest.approx(-right / tokens, rel=1e-5)
    loss = LMLoss(base, items).batch_loss(range(len(items)))
    assert float(loss.detach()) == pytest.approx(-right / tokens, rel=1e-5)


def test_routers_and_baselines_leave_the_end_out_where_they_are_told_to(base: Base, experts: ExpertSet) -> None:
    examples, end = make_examples(4, "adaptation"), base.tokenizer.eos_token_id
    for kept in (True, False):
        loss = RouterObjective(Mixture(base, experts), RouterRecipe(label_end=kept)).loss_on(examples)
        assert isinstance(loss, LMLoss)
        tuned = Tuning(base, examples, BaselineSettings(label_end=kept), 200, 1024).items
        assert all((item.tokens[-1] == end) == kept for item in (*loss.items, *tuned))
    assert RouterRecipe(label_end=False).digest() != RouterRecipe().digest()
    assert BaselineSettings(label_end=False).digest() != BaselineSettings().digest()


# ---- draws -----------------------------------------------------------------------------------------------------------


def labelled(answers: str, labels: tuple[str, ...], output_type: str = "multiple_choice") -> list[Example]:
    first = make_examples(1, "adaptation")[0]
    return [
        replace(first, id=f"{n:03}", answer=answer, labels=labels, output_type=output_type)
        for n, answer in enumerate(answers.split(", "))
    ]


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=30), st.data())
def test_a_draw_has_as_many_labels_as_it_can(answers: list[str], data: st.DataObject) -> None:
    pool, shots = labelled(", ".join(answers), tuple("abcd")), data.draw(st.integers(1, len(answers)))
    seed = data.draw(st.integers(0, 3))
    drawn = few_shot(pool, shots, seed)
    assert len(drawn) == shots == len({example.id for example in drawn})
    assert set(drawn) <= set(pool)
    assert len({example.answer for example in drawn}) == min(shots, len(set(answers)))
    assert drawn == few_shot(reversed(pool), shots, seed)


def test_a_draw_that_has_every_label_is_the_random_one() -> None:
    pool = labelled(", ".join(["yes", "no"] * 20), ("yes", "no"))
    assert few_shot(pool, 16, 1) == seeded_rng("few_shot:1").sample(pool, 16)


def test_one_example_changes_for_a_label_that_is_rare() -> None:
    pool = labelled(", ".join(["no"] * 40 + ["yes"]), ("yes", "no"))
    usual, drawn = seeded_rng("few_shot:0").sample(pool, 8), few_shot(pool, 8, 0)
    assert [example.answer for example in usual] == ["no"] * 8
    assert drawn[:7] == usual[:7]
    assert drawn[7].answer == "yes"


def test_examples_with_several_labels_make_room_only_where_no_label_is_lost() -> None:
    pool = labelled("a; b, c, a, none, c", ("a", "b", "c"), "multi_label")
    for seed in range(20):
        assert {label for example in few_shot(pool, 2, seed) for label in read_several(example.answer)} == set("abc")


def test_labels_that_differ_by_item_and_free_text_are_drawn_as_before() -> None:
    own = [replace(e, labels=(e.answer, f"not {e.id}")) for e in labelled("a, b, c, d, e, f", ())]
    for pool in (own, labelled("a, b, c, d, e, f", (), "span")):
        assert few_shot(pool, 3, 2) == seeded_rng("few_shot:2").sample(pool, 3)


# ---- what experts see ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "total", "shares"),
    [
        ([900, 60, 40], 90, [30, 30, 30]),
        ([900, 60, 10], 90, [40, 40, 10]),
        ([5, 5], 10, [5, 5]),
        ([0, 8], 6, [0, 6]),
        ([7], 3, [3]),
    ],
)
def test_sources_give_equal_shares_and_what_a_small_one_lacks_the_others_give(
    sizes: list[int], total: int, shares: list[int]
) -> None:
    assert equal_shares(sizes, total) == shares


@given(st.lists(st.integers(0, 50), min_size=1, max_size=6), st.data())
def test_shares_add_up_and_only_a_source_that_gave_all_gives_less(sizes: list[int], data: st.DataObject) -> None:
    total = data.draw(st.integers(0, sum(sizes)))
    shares = equal_shares(sizes, total)
    assert sum(shares) == total
    for size, share in zip(sizes, shares, strict=True):
        assert share == size or share >= max(shares) - 1


def test_an_expert_sees_as_much_of_a_small_data_set_as_of_a_large_one(own: Path) -> None:
    store = DataStore(own, fetch=False)
    everything, left_out = expert_examples("named_entity_recognition", store)
    drawn, again = (expert_examples("named_entity_recognition", store, 12, seed=3)[0] for _ in range(2))
    assert drawn == again
    assert len(drawn) == 12
    assert expert_examples("named_entity_recognition", store, len(everything)) == (everything, left_out)
    parts = [store.examples(name, kind, "train") for name, kind in store.registry.expert_sources("named_entity_recognition")]
    counts = [len({e.id for e in part} & {e.id for e in drawn}) for part in parts if part]
    assert max(counts) - min(counts) <= 1


# ---- what tables say of it -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("known", "shown"),
    [
        ({}, ""),
        ({"truncated_prompts": 0.0}, "0 % cut"),
        ({"truncated_prompts": 0.864, "invented_rate": 0.25}, "86 % cut, 25 % invented"),
        ({"invented_rate": 0.0, "calibration_examples": 24}, "0 % invented, 24 for calibration"),
        ({"calibration_examples": 0}, ""),
    ],
)
def test_a_cell_says_what_was_cut_invented_and_calibrated_on(known: dict[str, float], shown: str) -> None:
    assert reading_text(Cell(mean=0.5, **known)) == shown


def test_a_tables_columns_of_what_was_cut_and_calibrated_are_there_where_a_run_has_them() -> None:
    one, other = scored("original", truncated_prompts=0.125, calibration_examples=24), scored("normal", calibration_examples=0)
    rows = {row.cells["Method"]: row.cells for row in task_table([one, other], TASK)}
    assert [cells["Prompts cut"] for cells in rows.values()] == ["12 %", "-"]
    assert [cells["Calibrated on"] for cells in rows.values()] == ["24", "-"]
    assert not {"Prompts cut", "Calibrated on"} & task_table([other], TASK)[0].cells.keys()


# ---- in-context learning ---------------------------------------------------------------------------------------------


def test_shots_are_shown_with_each_answer_in_turn() -> None:
    shots = labelled("a, a, a, b, c, b", tuple("abc"))
    assert [(shot.answer, shot.id) for shot in in_turn(shots)] == [
        ("a", "000"), ("b", "003"), ("c", "004"), ("a", "001"), ("b", "005"), ("a", "002"),
    ]  # fmt: skip
    free = labelled("x, y, z", (), "generate_until")
    assert in_turn(free) == free


def test_as_many_shots_are_shown_as_asked_for(base: Base) -> None:
    shots = labelled("a, a, a, b, c, b", tuple("abc"))
    for count in (1, 4, 9):
        found = with_shots(make_examples(2, "test"), shots, base.tokenizer, 4096, shown=count)
        assert found.counts == (min(count, 6),) * 2
        assert found.examples[0].query.count("Answer:") == min(count, 6)
    assert "Answer: b" in with_shots(make_examples(1, "test"), shots, base.tokenizer, 4096, shown=2).examples[0].query


def test_examples_come_on_top_of_what_every_method_reads_of_an_item(base: Base) -> None:
    asked, shots = make_examples(3, "test"), make_examples(2, "adaptation")
    asked[1], shots[1] = (replace(one, context="murmur and a cough again " * 30) for one in (asked[1], shots[1]))
    settings = EvaluationSettings(max_length=120, token_budget=4096)
    found = with_shots(asked, shots, base.tokenizer, 2048, own_length=120)
    assert found.counts == (2, 2, 2)
    assert list(found.cut) == Answerer(base, settings).truncated(asked) == [False, True, False]
    for item, shown in zip(asked, found.examples, strict=True):
        read = base.tokenizer.decode(encode_prompt(item, base.tokenizer, 120 - len(" green")))
        assert prompt_of(shown.query, shown.context).endswith(f"\n\n{read}")
    cut = base.tokenizer.decode(encode_prompt(shots[1], base.tokenizer, 120 - len(" green")))
    assert f"\n\n{cut} green\n\n" in found.examples[0].query

    task = Task(task="colours", title="Colours", task_type="colour", dataset_path="made-up")
    how = BaselineSettings(method="in_context", shots=2, max_prompt_tokens=2048)
    rows, record = baseline_predictions(base, task, shots, asked, how, settings)
    assert [row["truncated"] for row in rows] == [False, True, False]
    assert record["shots_shown_mean"] == 2


# ---- what is cut -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def tokenizer(_loaded: Base) -> Any:
    return _loaded.tokenizer


WORDS = [f"w{n:02}" for n in range(60)]


def spanned(answer: str, context: str = " ".join(WORDS)) -> Example:
    return replace(make_examples(1)[0], query="Q?", context=context, answer=answer, labels=(), output_type="span")


@pytest.mark.parametrize(
    ("answer", "first", "last"),
    [("w30 w31", "w19", "w42"), ("w01", "w00", "w23"), ("w59", "w36", "w59"), ("w50 w51", "w36", "w59")],
)
def test_a_span_is_learned_with_the_words_around_it(base: Base, answer: str, first: str, last: str) -> None:
    example, answered = spanned(answer), encode_answer(answer, base.tokenizer)
    head, tail = "Query: Q?\nContext: ", "\nAnswer:"
    limit = len(head) + 24 * 4 - 1 + len(tail) + len(answered) + 1  # a byte is a token: 24 words with spaces, and the end token
    item = encode(example, base.tokenizer, limit)
    kept = WORDS[WORDS.index(first) : WORDS.index(last) + 1]
    text = base.tokenizer.decode(item.tokens[: item.answer_start])
    assert text == f"{head}{' '.join(kept)}{tail}"
    assert len(item.tokens) == limit


@given(st.integers(0, 58), st.integers(60, 200), st.sampled_from([" ", "  ", "\n ", " é ", " 🙂"]))
def test_a_span_stays_in_what_is_learned_and_an_evaluation_is_not_told_where_it_is(
    tokenizer: Any, answer: int, limit: int, gap: str
) -> None:
    example = spanned(f"{WORDS[answer]}{gap}{WORDS[answer + 1]}", gap.join(WORDS))
    item = encode(example, tokenizer, limit)
    prompt = tokenizer.decode(item.tokens[: item.answer_start])
    assert len(item.tokens) <= limit
    assert example.answer in prompt.partition("Context: ")[2]
    blind = [encode_prompt(replace(example, answer=other), tokenizer, limit) for other in (example.answer, WORDS[0])]
    assert blind[0] == blind[1]
    assert tokenizer.decode(blind[0]).startswith("Query: Q?\nContext: w00")


# ---- how long baselines learn ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("examples", "least", "passes"), [(32, 0, 2), (32, 80, 10), (33, 80, 9), (3, 5, 5), (400, 80, 2)])
def test_few_examples_are_passed_over_as_often_as_the_least_steps_take(examples: int, least: int, passes: int) -> None:
    settings = BaselineSettings(epochs=2, batch_size=4, min_steps=least)
    assert settings.passes(examples) == passes
    assert passes * math.ceil(examples / 4) >= least


def test_a_search_tries_as_many_passes(base: Base) -> None:
    settings = BaselineSettings(method="full", epochs=1, batch_size=4, min_steps=6, learning_rates=(1e-3,))
    choice = Tuning(base, make_examples(8, "adaptation"), settings, 200, 1024).choose()
    assert len(choice.trials[0]["val_losses"]) == 1 + 3
