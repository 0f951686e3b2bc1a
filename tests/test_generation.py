"""Answers written token by token, against a plain loop that computes every token anew and one prompt at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from architectures import ARCHITECTURES, other_base
from conftest import make_examples, random_expert

from staf.data.example import Example
from staf.errors import BadData
from staf.experts.store import ExpertSet
from staf.lm.base import Base
from staf.lm.batches import encode_prompt
from staf.lm.generation import (
    SpanConstraint,
    generate,
    greedy_decode,
    span_constraint,
)
from staf.routing.merge import Mixture

END = 0
Allowed = Callable[[tuple[int, ...]], set[int] | None]


def plain_loop(base: Base, prompt: list[int], limit: int, allowed: Allowed) -> list[int]:
    """Greedy tokens without a cache, without a batch."""
    answer: list[int] = []
    while len(answer) < limit:
        with torch.no_grad():
            logits = base.model(input_ids=torch.tensor([prompt + answer]), use_cache=False).logits[0, -1]
        may = allowed(tuple(answer))
        token = max(sorted(may) if may is not None else range(len(logits)), key=lambda one: float(logits[one]))
        if token == END:
            break
        answer.append(token)
    return answer


def free(_: tuple[int, ...]) -> set[int] | None:
    return None


def inside(tokens: tuple[int, ...]) -> Allowed:
    """What goes on after each place where the tokens so far stand."""

    def allowed(so_far: tuple[int, ...]) -> set[int]:
        count = len(so_far)
        positions = [i for i in range(len(tokens) + 1 - count) if tokens[i : i + count] == so_far]
        return {tokens[i + count] for i in positions if i + count < len(tokens)} | ({END} if count else set())

    return allowed


def prompts_of(*lengths: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(4)
    return [torch.randint(3, 200, (length,), generator=generator).tolist() for length in lengths]


def route(base: Base, experts: ExpertSet) -> None:
    Mixture(base, experts).set_weights(torch.full((1, len(experts.names)), 0.6))


@pytest.mark.parametrize("limit", [1, 12])
def test_free_answers_equal_the_plain_loop(base: Base, experts: ExpertSet, limit: int) -> None:
    route(base, experts)
    prompts = prompts_of(5, 60, 17, 33)
    found = greedy_decode(base, prompts, [None for _ in prompts], limit)
    assert found == [plain_loop(base, prompt, limit, free) for prompt in prompts]


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_other_architectures_and_windows_of_attention_too(kind: str, tiny_folder: Path, tmp_path: Path) -> None:
    base = other_base(kind, tiny_folder, tmp_path)
    route(base, ExpertSet((random_expert(base, "one", 1),)))
    prompts = prompts_of(5, 60, 22)
    found = greedy_decode(base, prompts, [None for _ in prompts], 8)
    assert found == [plain_loop(base, prompt, 8, free) for prompt in prompts]


def prefer_the_end(base: Base) -> None:
    """Make the end token the most likely one after some states, so that answers end at different lengths."""

    def hook(_: object, given: tuple[torch.Tensor], logits: torch.Tensor) -> None:
        logits[..., END] += torch.where(given[0].sum(-1).sin() > 0.6, 50.0, 0.0)

    base.model.get_output_embeddings().register_forward_hook(hook)


def test_rows_end_at_their_own_end_tokens(base: Base) -> None:
    prefer_the_end(base)
    prompts = prompts_of(5, 60, 17, 33, 8, 9, 40)
    found = greedy_decode(base, prompts, [None for _ in prompts], 10)
    assert found == [plain_loop(base, prompt, 10, free) for prompt in prompts]
    assert len({len(answer) for answer in found}) > 2
    assert END not in [token for answer in found for token in answer]


CONTEXTS = ("abcabd abx", "two weeks — über drei Jahre 🙂 two days", " one ", "x\ny", "aaaa")


def spans_of(*contexts: str) -> list[Example]:
    return [replace(make_examples(1)[0], id=f"span-{i}", context=text, labels=()) for i, text in enumerate(contexts)]


def test_a_span_is_always_a_part_of_the_context(base: Base, experts: ExpertSet) -> None:
    examples = spans_of(*CONTEXTS, *("the patient had fever and left after day " + str(i) for i in range(6)))
    for limit in (1, 2, 9):
        for weight in (0.0, 0.6, 2.0):
            Mixture(base, experts).set_weights(torch.full((1, 3), weight))
            found = generate(base, examples, max_length=200, max_new_tokens=limit, token_budget=500, spans=True)
            for example, words in zip(examples, found, strict=True):
                assert words
                assert words in example.context
                assert words == words.strip()


def test_spans_equal_the_plain_loop(base: Base) -> None:
    prefer_the_end(base)
    examples = spans_of(*(f"day{i}day{i + 1}nights" for i in range(8)))
    found = generate(base, examples, max_length=200, max_new_tokens=6, token_budget=500, spans=True)
    for example, words in zip(examples, found, strict=True):
        tokens = tuple(base.tokenizer(example.context)["input_ids"])
        prompt = encode_prompt(example, base.tokenizer, 200)
        assert words == base.tokenizer.decode(plain_loop(base, prompt, 6, inside(tokens)))
    assert len({len(words) for words in found}) > 1


def test_a_span_comes_from_the_part_of_the_context_that_fits(base: Base) -> None:
    (example,) = spans_of("abc " * 60 + "zzz")
    prompt = encode_prompt(example, base.tokenizer, 120)
    context = span_constraint(base, example, prompt)
    assert len(prompt) - len(base.tokenizer("Answer:")["input_ids"]) > len(context.tokens) > 50
    assert base.tokenizer.decode(context.tokens) == ("abc " * 60)[: len(context.tokens)]
    (words,) = generate(base, [example], max_length=120, max_new_tokens=5, token_budget=500, spans=True)
    assert words in "abc " * 60


def test_a_walk_along_a_context_follows_every_place_at_once() -> None:
    walk = SpanConstraint("ab ac", (1, 2, 9, 1, 3), tuple((i, i + 1) for i in range(5)), (END,))
    assert walk.allowed() == [1, 2, 3]  # not the space, and not the end
    walk.take(1)
    assert walk.allowed() == [END, 2, 3]
    walk.take(3)
    assert walk.complete
    assert walk.span() == "ac"


def test_a_span_does_not_begin_or_end_inside_a_character() -> None:
    walk = SpanConstraint("aé", (1, 5, 6), ((0, 1), (1, 2), (1, 2)), (END,))
    assert walk.allowed() == [1, 5]
    walk.take(5)
    assert walk.allowed() == [6]
    walk.take(6)
    assert walk.span() == "é"


def test_free_answers_are_text(base: Base) -> None:
    examples = make_examples(3)
    found = generate(base, examples, max_length=200, max_new_tokens=6, token_budget=200)
    for example, text in zip(examples, found, strict=True):
        tokens = plain_loop(base, encode_prompt(example, base.tokenizer, 194), 6, free)
        assert text == base.tokenizer.decode(tokens).strip()


def test_what_cannot_be_answered_is_refused_by_its_id(base: Base) -> None:
    (example,) = spans_of("")
    with pytest.raises(BadData, match="span-0 has no context"):
        generate(base, [example], max_length=200, max_new_tokens=5, token_budget=99, spans=True)


def test_an_answer_ends_at_a_stop_string(base: Base) -> None:
    examples = make_examples(5)
    options = {"max_length": 200, "max_new_tokens": 12, "token_budget": 500}
    full = generate(base, examples, **options)
    stop = [next(mark for mark in full[0][2:] if mark.isascii())]
    found = generate(base, examples, stop=stop, **options)
    for text, cut in zip(full, found, strict=True):
        assert cut == text[: min([len(text), *(text.index(mark) for mark in stop if mark in text)])].strip()
    assert found != full


def test_every_end_token_ends_an_answer(base: Base) -> None:
    prompts = prompts_of(5, 60)
    full = greedy_decode(base, prompts, [None, None], 8)
    base.model.generation_config.eos_token_id = [END, full[0][3]]
    del base.__dict__["end_tokens"]
    found = greedy_decode(base, prompts, [None, None], 8)
    assert found[0] == full[0][: full[0].index(full[0][3])]
    assert full[0][3] not in found[1]
