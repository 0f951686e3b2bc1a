"""What a comparison can afford: costs of its rows from measured speed, and what is lowered to fit the time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from staf.data.example import LABEL_TYPES, Example
from staf.errors import DamagedFile, MissingData
from staf.evaluate.answer import Answerer
from staf.evaluate.settings import EvaluationSettings
from staf.io import read_json, write_json
from staf.lm.base import Base
from staf.lm.batches import common_length, encode
from staf.routing.merge import Mixture
from staf.routing.objective import LMLoss, RouterObjective
from staf.routing.recipe import RouterRecipe, TuneRecipe
from staf.routing.tune import STOPS

TRAINING_COST = 4.2
"""A training pass of LoRA in small batches over one forward of the same tokens."""
ROUTED_COST = 1.15
"""A forward with experts merged into the base over one without."""
ROUTED_ANSWER = 1.4
"""The same for test rows, with experts that are not merged."""
TOKENS_OF_ATTENTION = 1300
"""Shown tokens that double the cost of what follows them; thrice as many double their own."""
PASS_COST = 1.1
"""The loss of a shot over answering a test row, at most; one that was measured as more was disturbed."""
TUNE = TuneRecipe()
"""Route-then-tune, whose folds and last training together take its steps once a fold."""
PROBE_COST = 2.0
"""Answering by a linear probe, which reads the states of each item once more, over answering by likelihoods, at most."""
LOADING = 3.0
"""Seconds that a trial of LoRA loads the base."""
PROBED = 8
"""Test rows that are answered to measure the speed, twice; the faster time counts."""
PROBING = 0.05
"""Part of the time after which no further test rows are answered to measure the speed."""
SLACK = 0.94
"""Part of the time that is planned."""
OVERRUN = 2.0
"""A row may take this many times its estimate, at the cost of later ones."""
END = 1.1
"""Part of the time after which every row is ended."""
FULL = {"evaluations": 200, "rates": 3, "epochs": 10, "tune_steps": TUNE.steps}
"""What rows of a language model have where time allows: candidates of the router's search, learning rates and passes of LoRA,
steps of route-then-tune; and all shots in context and for the choice of an expert."""
REDUCTIONS: tuple[dict[str, int] | str, ...] = (
    {"evaluations": 100}, {"rates": 1}, {"tune_steps": 30}, "route_then_tune", {"evaluations": 64}, {"test_rows": 200},
    {"epochs": 5}, {"evaluations": 44}, {"test_rows": 100}, {"choosing": 16}, {"shown": 16}, {"evaluations": 33}, {"shown": 8},
    {"epochs": 3}, {"choosing": 8}, {"evaluations": 22}, {"test_rows": 50},
)  # fmt: skip
"""What is lowered, or left out, in this order, until the rows fit: first what costs most and matters least."""
DROPPED = ("route_then_tune", "lora", "in_context", "single", "few_shot", "linear_probe", "original")
"""Rows that are left out, in this order, where lowering is not enough."""
DECIDED_BY = {
    "original": ("test_rows",), "in_context": ("shown",), "lora": ("rates", "epochs"), "single": ("choosing",),
    "few_shot": ("evaluations",), "route_then_tune": ("tune_steps",),
}  # fmt: skip
"""What is fixed once a row has begun."""


@dataclass(frozen=True)
class Costs:
    """Measured seconds."""

    answer: float
    """of answering one row"""
    learn: float
    """of one pass over the shots without gradients"""
    unshared: float
    """all tokens of the shots over those that are computed where prompts begin alike"""
    shot_tokens: float
    """tokens of one shot"""

    @classmethod
    def measured(
        cls, base: Base, test: Sequence[Example], shots: Sequence[Example], settings: EvaluationSettings, seconds: float
    ) -> Costs:  # fmt: skip
        """The costs on this machine: some test rows are answered, and the loss of the shots is computed once.

        Args:
            seconds: that are left; on a slow machine fewer test rows are answered.
        """
        answerer, each = Answerer(base, settings), list[float]()
        ask = answerer.scores if test[0].output_type in LABEL_TYPES else answerer.texts
        last = time.perf_counter() + PROBING * seconds
        for some in (test[:2], test[:PROBED], test[PROBED : 2 * PROBED] or test[:PROBED]):
            if (started := time.perf_counter()) <= last:
                ask(some)
                each.append((time.perf_counter() - started) / len(some))
        answer = min(each[1:] or each)  # the first forward is slower
        items, learn = (
            [encode(example, base.tokenizer, settings.max_length) for example in shots],
            PASS_COST * answer * len(shots),
        )
        if (started := time.perf_counter()) <= last:
            LMLoss(base, items)()
            learn = min(time.perf_counter() - started, learn)
        rows = [item.tokens for item in items]
        total, shared = sum(map(len, rows)), common_length(min(rows), max(rows)) * (len(rows) - 1)
        return cls(answer, learn, total / max(total - shared, 1), total / len(rows))

    def of(self, row: str, plan: dict[str, int], shots: int, experts: int, calibration: int) -> float:
        """Seconds that a row takes under a plan.

        Args:
            calibration: adaptation examples that every row answers as well.
        """
        answer = self.answer * (plan["test_rows"] + calibration)
        if row == "in_context":
            tokens = plan["shown"] * self.shot_tokens
            shown = self.learn * self.unshared * plan["shown"] / shots * (1 + tokens / (3 * TOKENS_OF_ATTENTION))
            return answer * (1 + tokens / TOKENS_OF_ATTENTION) + shown
        if row == "linear_probe":
            return PROBE_COST * (answer + self.answer * shots)
        if row == "lora":
            searching = plan["rates"] * 0.9 if plan["rates"] > 1 else 0.0
            passes = (searching + 1) * plan["epochs"]
            return answer + TRAINING_COST * self.unshared * self.learn * passes + LOADING * (searching + 1)
        if row == "single":
            return ROUTED_COST * experts * self.answer * (plan["choosing"] + calibration) + ROUTED_ANSWER * answer
        if row == "few_shot":
            return ROUTED_COST * plan["evaluations"] * self.learn + ROUTED_ANSWER * answer
        if row == "route_then_tune":
            passes = TRAINING_COST * self.unshared * TUNE.folds * plan["tune_steps"] * TUNE.batch_size / shots
            return (passes + ROUTED_ANSWER * (STOPS + 1)) * self.learn + ROUTED_ANSWER * answer
        return answer


UNKNOWN = Costs(0.0, 0.0, 1.0, 0.0)
"""Costs before they are measured."""


@dataclass
class Budget:
    """The time of a comparison and what it allows; `plan.json` keeps what has begun, for when it is stopped."""

    path: Path
    of: str
    """names what is compared"""
    seconds: float
    test_rows: int
    shots: int
    experts: int
    calibration: int
    spent: float = 0.0
    """by processes before this one"""
    fixed: dict[str, int] = field(default_factory=dict)
    """what rows that have begun decided"""
    begun: list[str] = field(default_factory=list)
    costs: Costs = UNKNOWN
    left_out: dict[str, float] = field(default_factory=dict)
    """seconds that each row would take which does not fit"""
    stopped: dict[str, str] = field(default_factory=dict)
    """rows that took too long, and what is said of them"""
    is_measured: bool = True
    """whether the costs are those of this machine now"""
    started: float = field(default_factory=lambda: time.perf_counter())

    def load(self) -> Budget:
        """With what an interrupted comparison of the same things has begun."""
        try:
            found: dict[str, Any] = read_json(self.path)
        except (MissingData, DamagedFile):
            return self
        if found.pop("of", None) == self.of:
            vars(self).update({**found, "costs": Costs(**found["costs"])})
        return self

    @property
    def elapsed(self) -> float:
        """Seconds that were used, by earlier processes too."""
        return self.spent + time.perf_counter() - self.started

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return max(self.seconds - self.elapsed, 0.0)

    @property
    def full(self) -> dict[str, int]:
        """The plan without any limit of time."""
        return {**FULL, "shown": self.shots, "choosing": self.shots, "test_rows": self.test_rows}

    def is_new(self, row: str) -> bool:
        """Whether nothing is decided about a row."""
        return not any(row in decided for decided in (self.begun, self.left_out, self.stopped))

    def begin(self, row: str, rows: Sequence[str]) -> dict[str, int] | None:
        """The plan of a row that begins now, before others; None where there is no time for it, or it took too long before."""
        if self.is_new(row):
            plan, fitting = self._fitted(rows)
            if row in fitting:
                self.begun.append(row)
                self.fixed |= {name: plan[name] for name in ("test_rows", *DECIDED_BY.get(row, ()))}
            else:
                self.left_out[row] = self.cost(row, self._lowered(self.full, *REDUCTIONS))
            self.save()
        return self.full | self.fixed if row in self.begun else None

    def cost(self, row: str, plan: dict[str, int] | None = None) -> float:
        """Seconds that a row takes."""
        return self.costs.of(row, plan or self.full | self.fixed, self.shots, self.experts, self.calibration)

    def limit(self, row: str, rows: Sequence[str]) -> float:
        """Seconds after which a row is ended that runs now, before others.

        They are what the others leave, at least `OVERRUN` times its estimate, and end with `END` of the time.
        """
        plan, fitting = self._fitted(rows)
        free = SLACK * self.seconds - self.elapsed - sum(self.cost(name, plan) for name in fitting if name != row)
        return min(max(OVERRUN * self.cost(row), free), END * self.seconds - self.elapsed)

    def stop(self, row: str, reason: str) -> None:
        """Leave a row out that took too long; those after it are planned with what is left, and the speed is measured again."""
        self.begun.remove(row)
        self.stopped[row] = reason
        self.fixed = {name: value for name, value in self.fixed.items() if name not in DECIDED_BY.get(row, ())}
        self.is_measured = False
        self.save()

    def measured(self, answer: float) -> None:
        """Correct the costs by the seconds that a test row really took."""
        learn = min(self.costs.learn * answer / self.costs.answer, PASS_COST * answer * self.shots)
        self.costs = replace(self.costs, answer=answer, learn=learn)

    def _lowered(self, plan: dict[str, int], *steps: dict[str, int] | str) -> dict[str, int]:
        for step in steps:
            if not isinstance(step, str):
                plan = {name: min(value, step.get(name, value)) for name, value in plan.items()}
        return plan | self.fixed

    def _fitted(self, rows: Sequence[str]) -> tuple[dict[str, int], list[str]]:
        """The largest plan for rows that fits into the time that is left, and the rows that do."""
        plan, left = self.full | self.fixed, SLACK * self.seconds - self.elapsed
        kept = [row for row in rows if row not in self.stopped]

        def total() -> float:
            return sum(self.cost(row, plan) for row in kept)

        for step in REDUCTIONS:
            if total() <= left:
                break
            plan = self._lowered(plan, step)
            kept = [row for row in kept if row != step or row in self.begun]
        for row in DROPPED:
            if total() > left and row in kept:
                kept.remove(row)
        for row in reversed(DROPPED):  # what fits once a longer one is left out
            if row in rows and row not in (*kept, *self.stopped) and total() + self.cost(row, plan) <= left:
                kept.append(row)
        if "few_shot" in rows and "few_shot" not in kept:  # nothing to tune
            kept = [row for row in kept if row != "route_then_tune"]
        if "few_shot" in kept and "evaluations" not in self.fixed:  # what is left over
            more = int((left - total()) / (ROUTED_COST * self.costs.learn))
            plan["evaluations"] = min(plan["evaluations"] + max(more, 0), FULL["evaluations"])
        return plan, kept

    def save(self) -> None:
        """Write what has begun."""
        kept = {"spent": self.elapsed, "fixed": self.fixed, "begun": self.begun, "left_out": self.left_out}
        write_json(self.path, {"of": self.of, **kept, "stopped": self.stopped, "costs": asdict(self.costs)})


def router_pass(mixture: Mixture, recipe: RouterRecipe, shots: Sequence[Example]) -> float:
    """Seconds of one candidate of a router's search."""
    objective = RouterObjective(mixture, recipe)
    loss, started = objective.loss_on(shots), time.perf_counter()
    objective.values([torch.zeros(objective.num_params)], loss)
    return time.perf_counter() - started
