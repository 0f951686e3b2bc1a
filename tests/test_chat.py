"""Prompts by a base's chat template, against transformers' own rendering, and that plain ones are as they were."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from conftest import make_examples, three_experts
from hypothesis import given
from hypothesis import strategies as st
from test_cli import changes, run
from tiny_model import CHAT, write_tiny_model

from staf.baselines.in_context import in_turn, with_shots
from staf.baselines.methods import baseline_predictions
from staf.baselines.settings import BaselineSettings
from staf.config import parse
from staf.data.example import Example, prompt_of
from staf.data.splits import few_shot
from staf.data.task import Task, find_task
from staf.errors import ConfigError
from staf.evaluate.answer import Answerer, predictions_of
from staf.evaluate.score import Method
from staf.evaluate.settings import EvaluationSettings
from staf.experts.store import ExpertSet
from staf.lm.base import Base, load_base
from staf.lm.batches import encode_answer, encode_prompt
from staf.lm.generation import generate, greedy_decode, span_constraint
from staf.lm.prompts import PLAIN, prompt_format_of
from staf.log import NullProgress
from staf.predict import Predictor
from staf.report.results import Evaluation, load_results
from staf.report.tables import task_table
from staf.routing.router import uniform
from staf.routing.store import Router, TaskPrompt
from staf.stages.context import Context
from staf.stages.evaluation import evaluate_stage, select_single_expert
from staf.stages.named import evaluate_named

TURNS = "{% for m in messages %}<|turn|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}"
OPENS = "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
TEMPLATES = {
    "trims, a system message, the start token": CHAT,
    "as given, no start token": TURNS + OPENS,
    "no turn of its own for the answer": (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
        "{% else %} {{ m.content | trim }}{{ eos_token }}{% endif %}{% endfor %}"
    ),
    "a date": "{% set today = date_string or strftime_now('%d %b %Y') %}{{ bos_token + '<|turn|>system\n' + today }}<|end|>\n"
    + TURNS
    + OPENS,
    "thinks in the last turn": (
        "{% for m in messages %}<|turn|>{{ m.role }}\n{% if loop.last and m.role == 'assistant' %}<think></think>{% endif %}"
        "{{ m.content }}<|end|>\n{% endfor %}" + OPENS
    ),
}


@pytest.fixture(scope="session")
def chat_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("chat"), CHAT)


@pytest.fixture(scope="session")
def chatting(chat_folder: Path) -> Base:
    return load_base(str(chat_folder), dtype="float32", device="cpu")


@pytest.fixture
def base(chatting: Base) -> Base:
    """The tiny model with a chat template, in whose format it answers."""
    return replace(copy.deepcopy(chatting), prompt_format=prompt_format_of("chat", chatting.tokenizer, "tiny"))


def with_template(base: Base, template: str | None) -> Any:
    tokenizer = copy.deepcopy(base.tokenizer)
    tokenizer.chat_template = template
    return tokenizer


def user(example: Example) -> dict[str, str]:
    text = f"Query: {example.query}\nContext: {example.context}" if example.context else f"Query: {example.query}"
    return {"role": "user", "content": text.rstrip()}


def said(answer: str) -> dict[str, str]:
    return {"role": "assistant", "content": f"Answer: {answer}".rstrip()}


def by_transformers(tokenizer: Any, item: Example, shots: Sequence[Example] = ()) -> list[int]:
    """Token ids of a chat with shots as turns and the item's answer begun, without any code of ours."""
    turns = [turn for shot in shots for turn in (user(shot), said(shot.answer))]
    if "think" in tokenizer.chat_template:
        text = tokenizer.apply_chat_template([*turns, user(item)], tokenize=False, add_generation_prompt=True) + "Answer:"
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])
    messages, options = [*turns, user(item), said("")], {"continue_final_message": True, "date_string": "26 Jul 2024"}
    return list(tokenizer.apply_chat_template(messages, return_dict=False, **options))


def some(query: str, context: str, answer: str = "", name: str = "one") -> Example:
    return replace(make_examples(1)[0], id=name, query=query, context=context, answer=answer or "blue")


# ---- the template's own rendering ------------------------------------------------------------------------------------

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
QUERIES = TEXTS.filter(str.strip)


@pytest.mark.parametrize("name", TEMPLATES)
@given(pairs=st.lists(st.tuples(QUERIES, TEXTS), min_size=3, max_size=3))
def test_tokens_are_those_of_transformers(chatting: Base, name: str, pairs: list[tuple[str, str]]) -> None:
    tokenizer = with_template(chatting, TEMPLATES[name])
    written = prompt_format_of("chat", tokenizer, "tiny")
    item, *shots = (some(query, context, f"a{n}", f"{n}") for n, (query, context) in enumerate(pairs))
    assert encode_prompt(item, tokenizer, 4096, written) == by_transformers(tokenizer, item)
    shown = with_shots([item], shots, tokenizer, 4096, 8, prompt_format=written)
    assert shown.counts == (2,)
    tokens = encode_prompt(shown.examples[0], tokenizer, 4096, written)
    assert tokens == by_transformers(tokenizer, item, shots)
    assert shown.tokens == (len(tokens),)


def test_there_is_one_start_token_and_the_system_message_stays(base: Base) -> None:
    text = base.tokenizer.decode(encode_prompt(some("Q?", "C."), base.tokenizer, 200, base.prompt_format))
    assert text == (
        "<s><|turn|>system\nBe brief.<|end|>\n<|turn|>user\nQuery: Q?\nContext: C.<|end|>\n<|turn|>assistant\nAnswer:"
    )
    assert base.tokenizer.decode(encode_prompt(some("Q?", "C."), base.tokenizer, 200)).startswith("<s>Query")


@pytest.mark.parametrize(
    ("template", "why"),
    [
        (TURNS.replace("m.content", "m.content | upper") + OPENS, "changes the texts"),
        (TURNS.replace("m.content", "m.content | e") + OPENS, "changes the texts"),
        (TURNS.replace("m.content", "m.content.split() | join(' ')") + OPENS, "changes the texts"),
        ("{% for m in messages[-1:] %}{{ m.content }}{% endfor %}", "changes the texts"),
        (TURNS.replace("{{ m.role }}", "{{ m.role }} {{ loop.index }}") + OPENS, "one turn differently"),
        (TURNS + OPENS + "{% if add_generation_prompt %}<think>\n{% endif %}", "starts an answer with a text of its own"),
        ("{{ messages | length }}" + TURNS + OPENS, "one turn differently"),
        ("{{ raise_exception('system message first') }}", "system message first"),
        ("{% for m in messages %}{{ m.content }", "unexpected"),
        (TURNS.replace("messages", "messages[::-1]") + OPENS, "changes the texts"),
        (TURNS + TURNS + OPENS, "one turn differently"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("wanted", ["chat", "auto"])
def test_a_template_that_cannot_be_cut_safely_is_refused(chatting: Base, template: str, why: str, wanted: str) -> None:
    with pytest.raises(ConfigError, match=rf"(?s)prompt_format = {wanted}: .*tiny.*{why}.*Use\s+prompt_format = plain"):
        prompt_format_of(wanted, with_template(chatting, template), "tiny")


def test_without_a_template_auto_is_plain_and_chat_says_what_to_do(chatting: Base) -> None:
    tokenizer = with_template(chatting, None)
    assert prompt_format_of("auto", tokenizer, "tiny") == prompt_format_of("plain", tokenizer, "tiny") == PLAIN
    assert prompt_format_of("auto", chatting.tokenizer, "tiny") == prompt_format_of("chat", chatting.tokenizer, "tiny") != PLAIN
    with pytest.raises(ConfigError, match=r"tiny has no chat template\. Use prompt_format = plain, or auto, or give a base"):
        prompt_format_of("chat", tokenizer, "tiny")


# ---- what is cut -----------------------------------------------------------------------------------------------------


@given(context=QUERIES.map(lambda text: text * 4), limit=st.integers(100, 300))
def test_only_the_context_is_cut(chatting: Base, context: str, limit: int) -> None:
    written, tokenizer = prompt_format_of("chat", chatting.tokenizer, "tiny"), chatting.tokenizer
    item = some("Is it?", context)
    least, everything = (by_transformers(tokenizer, replace(item, context=text)) for text in ("", context))
    if len(least) > limit:
        with pytest.raises(ConfigError, match=rf"takes {len(least)} tokens without any context, {limit} are allowed"):
            encode_prompt(item, tokenizer, limit, written)
        return
    tokens = encode_prompt(item, tokenizer, limit, written)
    assert len(tokens) <= limit
    assert (tokens == everything) == (len(everything) <= limit)
    before, between = f"{written.before}Query: Is it?", f"{written.between}Answer:"
    text = tokenizer.decode(tokens)
    assert text.startswith(before)
    assert text.endswith(between)
    kept = text[len(before) : len(text) - len(between)]
    assert f"\nContext: {context}".startswith(kept)


def test_cut_prompts_are_counted(base: Base) -> None:
    settings = EvaluationSettings(max_length=150, token_budget=4096)
    examples = [some("Q?", "sky " * n, name=str(n)) for n in range(1, 30)]
    room = 150 - len(" green")
    cut = [len(by_transformers(base.tokenizer, example)) > room for example in examples]
    assert Answerer(base, settings).truncated(examples) == cut
    assert Answerer(replace(base, prompt_format=PLAIN), settings).truncated(examples) != cut
    assert sorted(set(cut)) == [False, True]
    rows = predictions_of("multiple_choice", Answerer(base, settings), examples)
    assert [row["truncated"] for row in rows] == cut


# ---- answers ---------------------------------------------------------------------------------------------------------


@torch.no_grad()
def sums(base: Base, prompt: list[int], labels: Sequence[str]) -> list[float]:
    """Log-likelihood of each label after a prompt, each by a forward of its own."""
    found = []
    for label in labels:
        answer = encode_answer(label, base.tokenizer)
        logprobs = base.model(input_ids=torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
        found.append(sum(float(logprobs[len(prompt) + i - 1, token]) for i, token in enumerate(answer)))
    return found


def test_labels_are_scored_after_the_templates_prompt(base: Base) -> None:
    examples = [*make_examples(12, "test"), some("Q?", "", name="no context")]
    found = Answerer(base, EvaluationSettings(scoring="sum")).scores(examples)
    for example, scores in zip(examples, found, strict=True):
        assert scores == pytest.approx(sums(base, by_transformers(base.tokenizer, example), example.labels), abs=1e-4)


def test_a_row_of_in_context_learning_is_scored_after_turns_within_its_budget(base: Base) -> None:
    adaptation, test = make_examples(4, "adaptation"), make_examples(5, "test")
    task = Task(task="colours", title="Colours", task_type="colour", dataset_path="made-up")
    one = len(by_transformers(base.tokenizer, test[0]))
    evaluation = EvaluationSettings(scoring="sum", max_length=one + 30, token_budget=4096)
    turns = len(by_transformers(base.tokenizer, test[0], adaptation[:2])) - one
    most = one + turns + len(" green") + 40  # room for two of four shots
    how = BaselineSettings(method="in_context", shots=4, max_prompt_tokens=most)
    rows, record = baseline_predictions(base, task, adaptation, test, how, evaluation)
    assert (record["shots_shown_least"], record["shots_shown_most"]) == (2, 2)
    assert record["prompt_tokens_mean"] <= most - len(" green")
    shots = in_turn(few_shot(adaptation, 4, how.seed))[:2]
    for item, row in zip(test, rows, strict=True):
        prompt = by_transformers(base.tokenizer, item, shots)
        assert row["scores"] == pytest.approx(sums(base, prompt, item.labels), abs=1e-4)


def test_shots_are_cut_as_items_are_and_keep_their_turns(base: Base) -> None:
    item, shot = some("Q?", "sky"), some("Q?", "long " * 60, "red", "shot")
    shown = with_shots([item], [shot], base.tokenizer, 1000, own_length=150, prompt_format=base.prompt_format)
    cut = base.tokenizer.decode(encode_prompt(shot, base.tokenizer, 150 - len(" red"), base.prompt_format))
    text = base.prompt_format.prompt(shown.examples[0].query, shown.examples[0].context)[0]
    assert text.startswith(f"{cut} red<|end|>\n<|turn|>user\nQuery: Q?\nContext: sky<|end|>")
    assert len(cut) < 300


def test_an_answer_ends_at_the_end_of_the_assistants_turn(base: Base) -> None:
    end = base.tokenizer.convert_tokens_to_ids("<|end|>")
    assert end != base.tokenizer.eos_token_id
    assert end in base.end_tokens
    assert end not in replace(base, prompt_format=PLAIN).end_tokens
    prompts = [encode_prompt(example, base.tokenizer, 200, base.prompt_format) for example in make_examples(3)]
    (free, *_) = greedy_decode(base, prompts, [None] * 3, 8)
    ending = replace(base, prompt_format=replace(base.prompt_format, end_token=free[3]))
    assert greedy_decode(ending, prompts, [None] * 3, 8)[0] == free[: free.index(free[3])] != free


def test_spans_are_of_the_items_own_context_where_it_is_in_the_prompt(base: Base) -> None:
    item, shot = some("Q?", "red sky at night ends here" * 3), some("Q?", "other words", "red", "shot")
    (shown,) = with_shots([item], [shot], base.tokenizer, 1000, 8, prompt_format=base.prompt_format).examples
    for example, limit in ((item, 110), (item, 1000), (shown, 1000), (shown, 180)):
        prompt = encode_prompt(example, base.tokenizer, limit, base.prompt_format)
        constraint = span_constraint(base, example, prompt)
        read = base.tokenizer.decode(list(constraint.tokens)).strip()
        assert item.context.startswith(read)
        assert (read == item.context) == (limit == 1000)
        assert [item.context[start:end] for start, end in constraint.offsets][-1] == read[-1]
    options: dict[str, Any] = {"max_length": 120, "max_new_tokens": 8, "token_budget": 4096, "spans": True}
    (span,) = generate(base, [item], **options)
    assert span
    assert span in item.context


# ---- plain is as it was ----------------------------------------------------------------------------------------------


@given(query=TEXTS, context=TEXTS)
def test_plain_prompts_are_those_of_the_papers(query: str, context: str) -> None:
    text, start, end = PLAIN.prompt(query, context)
    assert text == prompt_of(query, context)
    assert text[start:end] == context
    assert PLAIN.shot(query, context, "yes") == f"{prompt_of(query, context)} yes\n\n"


def test_digests_of_plain_settings_are_those_of_before_there_were_others() -> None:
    plain, chat, auto = (EvaluationSettings(prompt_format=name) for name in ("plain", "chat", "auto"))
    assert plain.digest() == "4c647df7f1"
    assert len({plain.digest(), chat.digest(), auto.digest()}) == 3
    assert "prompt_format" not in plain.model_dump()
    for settings in (plain, chat, auto):
        assert parse(EvaluationSettings, settings.model_dump(mode="json"), "a test") == settings


# ---- stages ----------------------------------------------------------------------------------------------------------


class Log(NullProgress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, text: str) -> None:
        self.lines.append(text)


TASK = find_task("icd10_chapter")
PLAINLY = EvaluationSettings(limit=4, max_length=900, resamples=100, selection_limit=3)
CHATTING, AUTO = (PLAINLY.in_format(name) for name in ("chat", "auto"))


def context_of(folder: Path, own: Path, runs: Path) -> Context:
    return Context(str(folder), own, runs, Log(), "float32")


def test_a_format_acts_on_rows_that_nothing_was_trained_for(chat_folder: Path, own: Path, tmp_path: Path) -> None:
    context = context_of(chat_folder, own, tmp_path)
    for name, shots in (("original", None), ("in_context", 2)):
        plain, chat, auto = (
            evaluate_named(context, TASK, settings, name, shots=shots) for settings in (PLAINLY, CHATTING, AUTO)
        )
        assert plain[1].folder != chat[1].folder == auto[1].folder
        assert plain[1].predictions() != chat[1].predictions()
        assert [result["prompt_format"] for result, _ in (plain, chat)] == ["plain", "chat"]
        assert "prompt_format" not in plain[0]["settings"]["evaluation"]
    rows = {row.cells["Method"] for row in task_table(load_results(tmp_path), TASK.name)}
    titles = ("Base model", "In-context learning, few-shot")
    assert rows == {f"{title}: prompt format {name}" for title in titles for name in ("plain", "chat")}


def test_routed_rows_stay_plain_and_are_compared_with_the_base_in_a_chat(chat_folder: Path, own: Path, tmp_path: Path) -> None:
    context = context_of(chat_folder, own, tmp_path)
    experts = three_experts(context.base)
    _, base_run = evaluate_named(context, TASK, CHATTING)
    plain, run = evaluate_stage(context, TASK, experts, Method("average", uniform(3)), PLAINLY)
    chat, again = evaluate_named(context, TASK, CHATTING, "average", experts=experts)
    assert again.folder == run.folder
    assert chat == plain
    assert plain["prompt_format"] == "plain"
    assert context.progress.lines[-1] == (  # type: ignore[attr-defined]
        "prompt_format = chat is for original and in_context; other rows keep the plain prompts."
    )
    weighted = Method("single", torch.tensor([[1.0, 0.0, 0.0]]))
    result, _ = evaluate_stage(context, TASK, experts, weighted, CHATTING, {"original": base_run})
    assert result["comparisons"]["original"]["difference"] is not None
    for settings in (PLAINLY, CHATTING):
        select_single_expert(context, TASK, experts, settings)
    assert len(list((tmp_path / "choose").rglob("result.json"))) == 1


def test_a_base_without_a_template_is_plain_by_auto_and_refused_by_chat(tiny_folder: Path, own: Path, tmp_path: Path) -> None:
    context = context_of(tiny_folder, own, tmp_path)
    plain, auto = (evaluate_named(context, TASK, settings)[1].folder for settings in (PLAINLY, AUTO))
    assert plain == auto
    with pytest.raises(ConfigError, match="has no chat template"):
        evaluate_named(context, TASK, CHATTING)
    assert evaluate_named(context, TASK, CHATTING, "majority")[0].get("prompt_format") is None


def test_another_template_is_another_run(own: Path, tmp_path: Path) -> None:
    folders = [
        write_tiny_model(tmp_path / str(n), template)
        for n, template in enumerate((CHAT, CHAT.replace("Be brief.", "Be exact.")))
    ]
    one, other = (context_of(folder, own, tmp_path / "runs") for folder in folders)
    for settings, same in ((PLAINLY, True), (CHATTING, False)):
        runs = [evaluate_named(context, TASK, settings)[1].folder for context in (one, other)]
        assert (runs[0] == runs[1]) is same


def test_earlier_results_without_a_format_are_plain() -> None:
    values = {"stage": "evaluate", "task": "t", "method": "original", "seed": 0, "metrics": {"accuracy": None}}
    assert Evaluation.model_validate({**values, "primary_metric": "accuracy"}).prompt_format == "plain"


def test_the_commands_answer_in_a_chat(chat_folder: Path, own: Path, tmp_path: Path) -> None:
    common = [
        "evaluate",
        "--task",
        TASK.name,
        "--base",
        chat_folder,
        "--data-dir",
        own,
        "--runs",
        tmp_path / "runs",
        "--limit",
        4,
    ]
    options = [*changes(["max_length=900", "resamples=100", "prompt_format=chat"]), "--json"]
    for more in ([], ["--method", "in_context", "--shots", 2]):
        found = json.loads(run(*common, *more, *options))
        assert found["prompt_format"] == "chat"
        assert found["metrics"]["accuracy"]["examples"] == 4
        assert " in a chat on icd10_chapter:" in run(*common, *more, *options[:-1])
    file, outs = tmp_path / "in.jsonl", {name: tmp_path / f"{name}.jsonl" for name in ("plain", "chat")}
    file.write_text(json.dumps({"context": "Cough.", "query": "Which?", "labels": ["yes", "no"]}) + "\n")
    for name, out in outs.items():
        where = ["--task", TASK.name, "--base", chat_folder, "--data-dir", own]
        run("predict", file, "--out", out, *where, *changes([f"prompt_format={name}"]))
    base = load_base(str(chat_folder), dtype="float32", device="cpu")
    item = replace(some("Which?", "Cough."), labels=("yes", "no"))
    for name, out in outs.items():
        ids = by_transformers(base.tokenizer, item) if name == "chat" else encode_prompt(item, base.tokenizer, 900)
        scores = [one / len(label) for one, label in zip(sums(base, ids, item.labels), (" yes", " no"), strict=True)]
        probs = torch.tensor(scores).softmax(0).tolist()
        answer = json.loads(out.read_text())
        assert [answer["probabilities"][label] for label in item.labels] == pytest.approx(probs, abs=1e-4)


def test_a_router_answers_plain_prompts_only() -> None:
    prompt = TaskPrompt.of(make_examples(3, "adaptation"), 200)
    router = cast(Router, SimpleNamespace(task="colour", prompt=prompt, calibration=None))
    experts = cast(ExpertSet, None)
    with pytest.raises(ConfigError, match=r"a router reads plain prompts, as it was trained\. Leave prompt_format out"):
        Predictor.of_router(router, experts, CHATTING, None)
    assert Predictor.of_router(router, experts, AUTO, None).router is router
