"""The one thread that computes: takes rows that wait, of any tasks, and answers them in batches.

    submit -> waiting (bounded) -> scored rows        one forward for the prompts, one for the labels, then they are answered
                                -> generated rows     a step a turn, so that rows which are scored never wait for a text to end

A batch has rows of several routers: each row has its own weights (B, modules, experts), rows of the base have zeros. Rows of
one router share its prompt's prefix, and its deltas are merged where that pays. All experts that a row needs are attached; one
that is missing, since its router was removed after the request came, is attached again.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Condition, Thread
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from staf.errors import ConfigError
from staf.experts.store import Expert, ExpertSet
from staf.lm.batches import plan_batches
from staf.lm.generation import Decoding, SpanConstraint
from staf.lm.model import Base
from staf.lm.scoring import Choices, ScoringRequest, loglikelihoods, prompt_logprobs, score_batch
from staf.routing.merge import Mixture, module_groups
from staf.serve.settings import QueueFull, ServeSettings, Unavailable


@dataclass(frozen=True, eq=False)
class Routing:
    """Which experts answer, and with which weights; without experts the base does."""

    experts: tuple[Expert, ...] = ()
    weights: Tensor | None = None
    """(G, K)"""
    granularity: str = "task"


@dataclass(eq=False)
class Work:
    """A row that waits for its answer."""

    routing: Routing
    prompt: tuple[int, ...]
    deadline: float
    """of `time.monotonic`"""
    future: Future[Any] = field(default_factory=Future)
    abandoned: bool = False
    """nobody waits for it any more"""

    @property
    def tokens(self) -> int:
        """That are computed for it at most, those of labels left out."""
        return len(self.prompt)


@dataclass(eq=False)
class Scoring(Work):
    """Its answer: log p of each label by its tokens, (labels,) float32."""

    choices: Choices = field(kw_only=True)


@dataclass(eq=False)
class PromptScoring(Work):
    """Its answer: `TokenLogprobs` of the prompt."""


@dataclass(eq=False)
class Generation(Work):
    """Its answer: the tokens of a text, without the end token."""

    limit: int = field(kw_only=True)
    stop: tuple[str, ...] = ()
    constraint: SpanConstraint | None = None
    on_step: Callable[[], None] | None = None
    """called by the engine's thread after each step"""
    answer: list[int] = field(default_factory=list)
    """its tokens so far"""

    @property
    def tokens(self) -> int:
        """Of the prompt and a text of the full length."""
        return len(self.prompt) + self.limit


AnyWork = TypeVar("AnyWork", bound=Work)


class Observer(Protocol):
    """What is counted."""

    def batch(self, kind: str, rows: int, tokens: int) -> None:
        """A batch of rows was computed, with the tokens of their prompts or of a step."""


class Engine:
    """A base, the experts in it, and the rows that wait; `submit` and `drain` may be called from any thread."""

    def __init__(self, base: Base, settings: ServeSettings, observer: Observer | None = None) -> None:
        self.base, self.settings, self.draining = base, settings, False
        self._observer, self._changed, self._open, self._closed = observer, Condition(), 0, False
        self._waiting, self._calls = deque[Work](), deque[tuple[Future[None], Callable[[], None]]]()
        self._decoding: list[tuple[Decoding, list[Generation]]] = []
        self._mixture: Mixture | None = None
        self._experts: dict[str, Expert] = {}
        self._thread = Thread(target=self._run, name="staf engine", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Rows that are not computed yet."""
        return len(self._waiting)

    def submit(self, works: Sequence[Work]) -> None:
        """Queue the rows of one request, all or none; raises QueueFull, or Unavailable while it drains."""
        with self._changed:
            if self.draining:
                raise Unavailable("the server is stopping. Send the request to another one, or again later.")
            if len(self._waiting) + len(works) > self.settings.max_queue:
                raise QueueFull(f"{len(self._waiting)} rows wait of at most {self.settings.max_queue}. Send it again later.")
            self._open += len(works)
            self._waiting.extend(works)
            self._changed.notify_all()
        for work in works:
            work.future.add_done_callback(self._closed_one)

    def attach(self, experts: Iterable[Expert]) -> None:
        """Have these experts in memory and no others, between two batches; raises BaseMismatch or ExpertMismatch."""
        wanted = {expert.fingerprint: expert for expert in experts}
        future = Future[None]()
        with self._changed:
            self._calls.append((future, lambda: self._attach(wanted)))
            self._changed.notify_all()
        future.result()

    def drain(self, timeout: float) -> bool:
        """Take nothing more, and wait until all that was taken is answered; False where the seconds do not suffice."""
        with self._changed:
            self.draining = True
            return self._changed.wait_for(lambda: not self._open, timeout)

    def close(self) -> None:
        """End the thread; rows that still wait get Unavailable."""
        with self._changed:
            self.draining = self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _closed_one(self, _: Future[Any]) -> None:
        with self._changed:
            self._open -= 1
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._calls or self._decoding or self._closed)
                calls, self._calls = self._calls, deque()
                works = self._take()
            for future, call in calls:
                with answering([future]):
                    call()
                    future.set_result(None)
            if self._closed:
                return self._refuse([*works, *self._waiting, *(work for _, own in self._decoding for work in own)])
            self._compute(self._score, [work for work in works if isinstance(work, Scoring)])
            self._compute(self._score_prompts, [work for work in works if isinstance(work, PromptScoring)])
            self._compute(self._start, [work for work in works if isinstance(work, Generation)])
            for decoding, own in self._decoding:
                with answering([work.future for work in own]):
                    self._step(decoding, own)
            self._decoding = [(decoding, own) for decoding, own in self._decoding if any(not w.future.done() for w in own)]

    @staticmethod
    def _compute(compute: Callable[[list[AnyWork]], None], works: list[AnyWork]) -> None:
        if works:
            with answering([work.future for work in works]):
                compute(works)

    @staticmethod
    def _refuse(works: Sequence[Work]) -> None:
        for work in works:
            if not work.future.done():
                work.future.set_exception(Unavailable("the server stopped before the answer. Send the request again."))

    def _take(self) -> list[Work]:
        """The rows of the next turn, in their order; a text starts only where its keys and values have room."""
        taken, left, counts = [], deque[Work](), {True: 0, False: 0}
        running = [work for _, own in self._decoding for work in own if not work.future.done()]
        rows, tokens, room = len(running), sum(work.tokens for work in running), True
        for work in self._waiting:
            generated = isinstance(work, Generation)
            if work.abandoned or work.deadline < time.monotonic() or work.future.cancelled():
                if work.future.set_running_or_notify_cancel():
                    _expire(work)
            elif generated and not (room and (not rows or self._fits(rows + 1, tokens + work.tokens))):
                room = False  # the next text does not overtake it
                left.append(work)
            elif counts[generated] == self.settings.max_batch:
                left.append(work)
            else:
                counts[generated] += 1
                rows, tokens = rows + generated, tokens + (work.tokens if generated else 0)
                taken.append(work)
        self._waiting = left
        return [work for work in taken if work.future.set_running_or_notify_cancel()]

    def _fits(self, rows: int, tokens: int) -> bool:
        return rows <= self.settings.max_batch and tokens <= self.settings.cache_tokens

    def _attach(self, experts: Mapping[str, Expert]) -> None:
        if experts.keys() == self._experts.keys():
            return
        self.base.lora.detach()
        self._mixture, former = None, self._mixture
        try:
            self._mixture = Mixture(self.base, ExpertSet(tuple(experts.values()))) if experts else None
            self._experts = dict(experts)
        except Exception:
            self._mixture = former
            raise

    def _weights(self, routing: Routing) -> Tensor:
        """The weights (modules, experts that are attached) of one row."""
        column = {fingerprint: index for index, fingerprint in enumerate(self._experts)}
        found = torch.zeros(len(self.base.layer_of), len(column))
        if routing.weights is not None:
            own = [column[expert.fingerprint] for expert in routing.experts]
            found[:, own] = routing.weights[module_groups(self.base, routing.granularity)]
        return found

    def _need(self, works: Sequence[Work]) -> set[Routing]:
        """The different routings of some rows, whose experts are then attached."""
        routings = {work.routing for work in works}
        needed = {expert.fingerprint: expert for routing in routings for expert in routing.experts}
        if needed.keys() - self._experts.keys():
            self._attach({**self._experts, **needed})
        return routings

    def _route(self, works: Sequence[Work]) -> None:
        """Give each row of the next forward its own weights."""
        known = {routing: self._weights(routing) for routing in self._need(works)}
        if self._mixture is None or not any(routing.experts for routing in known):
            self.base.lora.set_rank_scale({})
        else:
            self._mixture.set_weights(torch.stack([known[work.routing] for work in works]), "matrix")

    @contextmanager
    def _as_one(self, works: Sequence[Work]) -> Iterator[None]:
        """The base routed for rows of one router; merged where that pays and changes no more than rounding in float32."""
        (routing,), tokens = self._need(works), sum(len(work.prompt) for work in works)
        if self._mixture is None or not routing.experts:
            self.base.lora.set_rank_scale({})
            yield
        elif self.base.dtype == torch.float32:
            with self._mixture.applied(self._weights(routing), "matrix", tokens=tokens):
                yield
        else:
            self._mixture.set_weights(self._weights(routing), "matrix")
            yield

    def _score(self, works: list[Scoring]) -> None:
        requests = [ScoringRequest(work.prompt, work.choices) for work in works]
        budget = self.settings.token_budget

        def answer(group: Sequence[int], scores: Sequence[Tensor]) -> None:
            for index, own in zip(group, scores, strict=True):
                if own.isfinite().all():
                    works[index].future.set_result(own)
                else:
                    works[index].future.set_exception(ConfigError(
                        f"log-likelihoods of the labels overflow in {self.base.dtype}. Start the server with --dtype float32."
                    ))  # fmt: skip
            self._observe("score", group, sum(len(works[i].prompt) for i in group))

        if len({work.routing for work in works}) == 1:
            with self._as_one(works):
                loglikelihoods(self.base, requests, token_budget=budget, length_normalised=True, on_batch=answer)
            return
        lengths, extra = [len(work.prompt) for work in works], [request.choices.nodes for request in requests]
        for group in plan_batches(lengths, budget, extra=extra):
            batch = [requests[i] for i in group]
            self._route([works[i] for i in group])
            sums = score_batch(self.base, batch)
            answer(group, [own / request.choices.lengths for own, request in zip(sums, batch, strict=True)])

    def _score_prompts(self, works: list[PromptScoring]) -> None:
        for group in plan_batches([len(work.prompt) for work in works], self.settings.token_budget):
            own = [works[i] for i in group]
            self._route(own)
            for work, found in zip(own, prompt_logprobs(self.base, [work.prompt for work in own]), strict=True):
                work.future.set_result(found)
            self._observe("score", group, sum(len(work.prompt) for work in own))

    def _start(self, works: list[Generation]) -> None:
        """New texts, of which each group of similar lengths is decoded together."""
        lengths, limits = [len(work.prompt) for work in works], [work.limit for work in works]
        for group in plan_batches(lengths, self.settings.token_budget, extra=limits):
            own = [works[i] for i in group]
            decoding = Decoding(
                self.base, [work.prompt for work in own], [work.constraint for work in own], [work.limit for work in own],
                [work.stop for work in own],
            )  # fmt: skip
            for work, answer in zip(own, decoding.answers, strict=True):
                work.answer = answer
            self._decoding.append((decoding, own))

    def _step(self, decoding: Decoding, works: list[Generation]) -> None:
        before = decoding.rows
        self._route([works[row] for row in before])
        decoding.step()
        late = {row for row in decoding.rows if works[row].abandoned or works[row].deadline < time.monotonic()}
        for row in before:
            work = works[row]
            if row not in decoding.rows:
                work.future.set_result(work.answer)
            elif row in late:
                _expire(work)
            elif work.on_step is not None:
                work.on_step()
        decoding.keep([row for row in decoding.rows if row not in late])
        self._observe("step", before, len(before))

    def _observe(self, kind: str, rows: Sequence[int], tokens: int) -> None:
        if self._observer is not None:
            self._observer.batch(kind, len(rows), tokens)


def _expire(work: Work) -> None:
    if not work.future.done():
        work.future.set_exception(Unavailable("the time-out of the request passed before its answer. Send it again later."))


@contextmanager
def answering(futures: Sequence[Future[Any]]) -> Iterator[None]:
    """Whatever fails within the block is the answer of these futures, but for those that have one; the thread goes on."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  the caller raises it
        for future in futures:
            if not future.done():
                future.set_exception(error)
