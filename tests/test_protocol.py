"""How answers are read and what methods learn from (docs/evaluation.md): laws, and cases worked by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from conftest import make_examples

from staf.baselines.peft import Tuning
from staf.baselines.settings import BaselineSettings
from staf.data.example import OUTPUT_TYPES
from staf.experts.store import ExpertSet
from staf.lm.base import Base
from staf.lm.batches import encode, encode_answer
from staf.lm.scoring import score_labels
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
