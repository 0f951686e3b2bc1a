"""The engine's answers: those of staf predict, whatever shares a batch, and while routers come and go."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from concurrent.futures import wait
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import torch
from served import predicted, write_routers

from staf.errors import BadData, DamagedFile, MissingData, StafError, UnknownName
from staf.lm.base import Base
from staf.serve import engine as engine_module
from staf.serve.answers import Reader, final_text, finish_reason
from staf.serve.engine import Engine, Generation, Routing, Scoring
from staf.serve.routers import Models
from staf.serve.settings import QueueFull, ServeSettings, Unavailable

LABEL_ROUTERS = ("colour", "by-layer", "by-matrix", "several", "other", "tuned")
TEXTS = [f"the {thing} was seen by {count} of us" for count, thing in enumerate(("sky", "rose", "leaf", "blood", "sea"))]


class Server:
    """An engine with all routers, asked directly."""

    def __init__(self, base: Base, folder: Path, **settings: Any) -> None:
        self.base, self.settings, self.routers = base, ServeSettings(**settings), write_routers(base, folder)
        self.engine = Engine(base, self.settings)
        self.models, self.reader = Models(self.engine, folder / "routers"), Reader(base, self.settings)

    def add_all(self) -> None:
        self.models.add(*self.models.available())

    def rows(self, asked: list[tuple[str, str]]) -> list[Any]:
        return [self.reader.label_row(self.models.find(name), "row", text) for name, text in asked]

    def ask(self, asked: list[tuple[str, str]], threshold: float | None = None) -> list[dict[str, Any]]:
        """Answers of label routers, (name, text) each, in one submission."""
        rows = self.rows(asked)
        self.engine.submit([row.work for row in rows])
        return [
            self.reader.label_answer(self.models.find(name), row, row.work.future.result(60), threshold)
            for (name, _), row in zip(asked, rows, strict=True)
        ]

    def write(self, name: str, text: str, limit: int | None = None) -> Generation:
        work = self.reader.task_text(self.models.find(name), text, limit)
        self.engine.submit([work])
        return work


@pytest.fixture
def server(base: Base, tmp_path: Path) -> Iterator[Server]:
    found = Server(base, tmp_path)
    yield found
    found.engine.close()


def same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found["answer"] == expected["answer"]
    assert found["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-4)
    assert found.get("abstained") == expected.get("abstained")


class Held:
    """The engine's thread waits in its next turn until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, engine: Engine) -> None:
        self.reached, self.go, real = Event(), Event(), engine._take

        def take() -> Any:
            self.reached.set()
            return real() if self.go.is_set() else []

        monkeypatch.setattr(engine, "_take", take)


@pytest.mark.parametrize("name", LABEL_ROUTERS)
def test_an_answer_is_that_of_staf_predict(server: Server, name: str) -> None:
    server.add_all()
    for threshold in (None, 0.6):
        for found, expected in zip(
            server.ask([(name, text) for text in TEXTS], threshold),
            predicted(server.routers[name], server.base, TEXTS, threshold), strict=True,
        ):  # fmt: skip
            same(found, expected)


def test_a_batch_of_all_routers_gives_what_each_gives_by_itself(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.add_all()
    asked = [(name, text) for text in TEXTS[:3] for name in LABEL_ROUTERS]
    alone = [server.ask([one])[0] for one in asked]
    sizes, real = [], engine_module.score_batch

    def score(base: Base, requests: Any) -> Any:
        sizes.append(len(requests))
        return real(base, requests)

    monkeypatch.setattr(engine_module, "score_batch", score)
    for found, expected in zip(server.ask(asked), alone, strict=True):
        same(found, expected)
    assert sum(sizes) == len(asked)
    assert max(sizes) > 4
    probabilities = [tuple(answer["probabilities"].values()) for answer in alone[: len(LABEL_ROUTERS)]]
    assert len(set(probabilities)) == len(LABEL_ROUTERS)  # no two routers answer alike


def test_written_answers_are_those_of_staf_predict_though_they_share_steps(server: Server) -> None:
    server.add_all()
    names = ("text", "span")
    works = {(name, text): server.write(name, text) for text in TEXTS for name in names}
    scored = server.ask([("colour", text) for text in TEXTS])  # in between the steps
    for name in names:
        expected = predicted(server.routers[name], server.base, TEXTS)
        for text, row in zip(TEXTS, expected, strict=True):
            work = works[name, text]
            assert final_text(server.base, work, work.future.result(60)).strip() == row["answer"]
    for found, row in zip(scored, predicted(server.routers["colour"], server.base, TEXTS), strict=True):
        same(found, row)


def test_the_base_answers_in_the_same_batch_as_routers(server: Server) -> None:
    server.add_all()
    prompt = server.reader.tokens_of("Query: what is it?\nContext: the sky\nAnswer:")
    works: list[Any] = []
    for routing in (Routing(), server.models.find("colour").routing, server.models.find("tuned").routing):
        row = server.rows([("colour", TEXTS[0])])[0].work
        works.append(Scoring(routing, tuple(prompt), row.deadline, choices=row.choices))
    server.engine.submit(works)
    found = [work.future.result(60) for work in works]
    server.models.remove("colour")
    single = Scoring(Routing(), tuple(prompt), works[0].deadline, choices=works[0].choices)
    server.engine.submit([single])
    assert torch.allclose(single.future.result(60), found[0], atol=1e-5)
    assert not torch.allclose(found[0], found[1], atol=1e-2)
    assert not torch.allclose(found[1], found[2], atol=1e-2)


def test_log_probabilities_of_a_prompt_are_those_of_a_full_forward(server: Server) -> None:
    server.add_all()
    prompts = [server.reader.tokens_of(text) for text in ("the sea is green", "a")]
    works = [server.reader.prompt_scores(server.models.base, prompt) for prompt in prompts]
    server.engine.submit(works)
    for work, prompt in zip(works, prompts, strict=True):
        found = work.future.result(60)
        with torch.no_grad():
            logprobs = server.base.model(input_ids=torch.tensor([prompt])).logits[0].log_softmax(-1)
        assert torch.allclose(
            found.own, logprobs[:-1].gather(1, torch.tensor(prompt[1:], dtype=torch.long)[:, None])[:, 0], atol=1e-4
        )
        assert found.best.tolist() == logprobs.argmax(-1).tolist()
        assert torch.allclose(found.best_logprobs, logprobs.max(-1).values, atol=1e-4)


def test_routers_come_and_go_without_a_dropped_or_crossed_answer(server: Server) -> None:
    server.models.add("colour", "several")
    expected = {name: predicted(server.routers[name], server.base, TEXTS) for name in ("colour", "several")}
    stop, problems, count = Event(), list[BaseException](), [0]

    def ask(name: str) -> None:
        try:
            while not stop.is_set():
                for found, row in zip(server.ask([(name, text) for text in TEXTS]), expected[name], strict=True):
                    same(found, row)
                    count[0] += 1
        except (AssertionError, StafError, RuntimeError, KeyError) as error:
            problems.append(error)

    threads = [Thread(target=ask, args=(name,)) for name in expected]
    for thread in threads:
        thread.start()
    for _ in range(3):
        for name in ("other", "tuned"):  # with experts of their own
            server.models.add(name)
        same(server.ask([("tuned", TEXTS[0])])[0], predicted(server.routers["tuned"], server.base, TEXTS[:1])[0])
        for name in ("other", "tuned"):
            server.models.remove(name)
    stop.set()
    for thread in threads:
        thread.join(60)
    assert not problems
    assert count[0] > 10
    assert {expert.name for expert in server.engine._experts.values()} == {"attribute", "relation", "synonymy"}


def test_rows_that_wait_are_answered_after_their_router_is_removed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.add_all()
    tuned, held = server.models.find("tuned"), Held(monkeypatch, server.engine)
    row = server.rows([("tuned", TEXTS[0])])[0]
    server.engine.submit([row.work])
    server.models.remove("tuned")
    with pytest.raises(UnknownName, match="GET /v1/models lists them"):
        server.models.find("tuned")
    held.go.set()
    server.engine.attach(expert for model in server.models.listed() for expert in model.routing.experts)
    found = server.reader.label_answer(tuned, row, row.work.future.result(60), None)
    same(found, predicted(server.routers["tuned"], server.base, TEXTS[:1])[0])


def test_a_full_queue_and_a_draining_engine_refuse_and_answer_what_they_took(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(base, tmp_path, max_queue=4)
    server.models.add("colour")
    held = Held(monkeypatch, server.engine)
    rows = server.rows([("colour", text) for text in TEXTS])
    with pytest.raises(QueueFull, match="0 rows wait of at most 4"):
        server.engine.submit([row.work for row in rows])  # all or none
    server.engine.submit([row.work for row in rows[:4]])
    with pytest.raises(QueueFull, match="4 rows wait of at most 4"):
        server.engine.submit([rows[4].work])
    assert not server.engine.drain(0.05)
    with pytest.raises(Unavailable, match="the server is stopping"):
        server.engine.submit([rows[4].work])
    held.go.set()
    server.engine.attach(server.models.find("colour").routing.experts)  # wakes it
    assert server.engine.drain(60)
    assert all(row.work.future.result(0).isfinite().all() for row in rows[:4])
    server.engine.close()


def test_what_is_late_abandoned_or_cancelled_is_not_computed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.add_all()
    held = Held(monkeypatch, server.engine)
    late, gone, cancelled, good = (row.work for row in server.rows([("colour", text) for text in TEXTS[:4]]))
    late.deadline, gone.abandoned = time.monotonic() - 1, True
    server.engine.submit([late, gone, cancelled, good])
    assert cancelled.future.cancel()
    held.go.set()
    server.engine.attach(server.models.find("colour").routing.experts)
    assert good.future.result(60).isfinite().all()
    for work in (late, gone):
        with pytest.raises(Unavailable, match="time-out"):
            work.future.result(60)
    assert server.engine.drain(60)


def test_a_text_ends_at_its_deadline_and_leaves_the_others_alone(server: Server) -> None:
    server.add_all()
    model = server.models.find("text")
    expected = [server.write("text", text).future.result(60) for text in TEXTS[:2]]
    works = [server.reader.task_text(model, text, None) for text in TEXTS[:2]]
    seen: list[int] = []

    def late() -> None:
        seen.append(len(works[0].answer))
        works[0].deadline = time.monotonic() - 1 if seen[-1] == 2 else works[0].deadline

    works[0].on_step = late
    server.engine.submit(works)
    assert works[1].future.result(60) == expected[1]
    with pytest.raises(Unavailable):
        works[0].future.result(60)
    assert max(seen) <= 4


def test_texts_wait_where_keys_and_values_have_no_room(base: Base, tmp_path: Path) -> None:
    server = Server(base, tmp_path, cache_tokens=200)
    server.add_all()
    works = [server.write("text", text, 8) for text in TEXTS]
    wait([work.future for work in works], 60)
    roomy = [final_text(base, work, work.future.result(0)) for work in works]
    assert roomy == [
        final_text(base, work, server.write("text", text, 8).future.result(60)) for work, text in zip(works, TEXTS, strict=True)
    ]
    assert {finish_reason(base, work, work.future.result(0)) for work in works} <= {"length", "stop"}
    server.engine.close()


def test_a_failed_batch_is_the_answer_of_its_rows_and_the_engine_goes_on(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add_all()

    def fail(*_: Any) -> Any:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(engine_module, "score_batch", fail)
        with pytest.raises(RuntimeError, match="out of memory"):
            server.ask([("colour", TEXTS[0]), ("several", TEXTS[0])])
    assert len(server.ask([("colour", TEXTS[0]), ("several", TEXTS[0])])) == 2
    waiting = server.rows([("colour", TEXTS[0])])[0].work
    server.engine.close()
    with pytest.raises(Unavailable):
        server.engine.submit([waiting])


def test_no_name_leaves_the_folder_and_what_does_not_fit_is_refused(server: Server, tmp_path: Path) -> None:
    shutil.copytree(server.routers["colour"], tmp_path / "outside")
    for name in ("../outside", "/etc", ".", "..", "", "colour/..", "a" * 65, "missing", str(tmp_path / "outside"), "colour\n"):
        with pytest.raises(UnknownName, match="no router of that name"):
            server.models.add(name)
    file = next((server.routers["several"]).glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(DamagedFile):
        server.models.add("colour", "several")
    assert [model.name for model in server.models.listed()] == [server.base.name]  # all or none
    shutil.rmtree(tmp_path / "experts")
    with pytest.raises(MissingData, match="no experts in"):
        server.models.add("colour")
    server.models.add("other")
    with pytest.raises(UnknownName, match="cannot be removed"):
        server.models.remove(server.base.name)


def test_limits_are_refused_before_anything_is_queued(base: Base, tmp_path: Path) -> None:
    server = Server(base, tmp_path, max_length=64, max_labels=4, max_new_tokens=8)
    server.add_all()
    colour, plain = server.models.find("colour"), server.models.base
    cases: list[tuple[Any, str]] = [
        (lambda: server.reader.label_row(colour, "row 1", {"context": "x", "query": "q", "labels": [*"abcde"]}), "5 labels"),
        (lambda: server.reader.label_row(plain, "row 1", "sky"), "the base, which has no task"),
        (lambda: server.reader.label_row(colour, "row 1", "sky" * 40), "at most 64 are allowed"),
        (lambda: server.reader.text(plain, [1] * 60, 8, ()), "60 tokens and 8 of its answer: at most 64"),
        (lambda: server.reader.text(plain, [], 8, ()), "an empty prompt"),
        (lambda: server.reader.text(plain, [1, 999], 8, ()), "not one of the 257"),
        (lambda: server.reader.text(plain, [-1], 8, ()), "not one of the 257"),
        (lambda: server.reader.text(plain, [1], 9, ()), "max_tokens 9"),
        (lambda: server.reader.chat_tokens([{"role": "user", "content": "hi"}]), "no chat template"),
    ]  # fmt: skip
    for ask, message in cases:
        with pytest.raises(BadData, match=message):
            ask()
    assert server.engine.waiting == 0
    server.engine.close()
