"""The models that a server knows by name: its base, and the routers of one folder, added and removed while it runs.

    <folder>/<name>/router.json ...    as staf adapt writes it; a name is one part of a path, and nothing else is read

Of a router only what answers is kept, a few kB. Experts are in memory as long as one of the routers has them, each once: it
is known by its fingerprint, whatever its name or folder, so a tuned router's adapter is one more expert.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock

from staf.data.example import LABEL_TYPES
from staf.errors import UnknownName
from staf.evaluate.calibrate import LabelCalibrator
from staf.evaluate.settings import EvaluationSettings
from staf.experts.store import Expert, ExpertSet
from staf.predict import Predictor
from staf.routing.store import Router, TaskPrompt, load_router
from staf.serve.engine import Engine, Routing

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, eq=False)
class ServedModel:
    """What answers under a name: a router, or the base, which has no task."""

    name: str
    routing: Routing = field(default_factory=Routing)
    task: str | None = None
    prompt: TaskPrompt | None = None
    calibrator: LabelCalibrator | None = None
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def settings(self) -> EvaluationSettings:
        """How its prompts are read, as `staf predict` does."""
        return EvaluationSettings() if self.prompt is None else EvaluationSettings(max_length=self.prompt.max_length)

    @property
    def has_labels(self) -> bool:
        """Whether its answers are labels."""
        return self.prompt is not None and self.prompt.output_type in LABEL_TYPES


class Models:
    """The models of a server. Calls that change them take turns; `find` needs no turn.

    Args:
        folder: of the routers; None serves the base only.
        experts: their folder; None is where each router's were when it was made.
    """

    def __init__(self, engine: Engine, folder: Path | None, experts: Path | None = None) -> None:
        self._engine, self._folder, self._experts, self._lock = engine, folder, experts, Lock()
        self.base = ServedModel(engine.base.name)
        self._routers: dict[str, ServedModel] = {}

    def listed(self) -> list[ServedModel]:
        """The base, and the routers by name."""
        return [self.base, *(model for _, model in sorted(self._routers.items()))]

    def available(self) -> list[str]:
        """Names of the routers in the folder."""
        found = [] if self._folder is None else [path.parent.name for path in self._folder.glob("*/router.json")]
        return sorted(name for name in found if NAME.fullmatch(name))

    def find(self, name: str) -> ServedModel:
        """The model of a name; raises UnknownName."""
        if name == self.base.name:
            return self.base
        if (found := self._routers.get(name)) is None:
            raise UnknownName("there is no model of that name here. GET /v1/models lists them; POST /v1/routers adds a router.")
        return found

    def add(self, *names: str) -> list[ServedModel]:
        """Load routers of the folder; one that is served is read anew, and rows that wait are answered by the former one.

        Raises:
            UnknownName: there is no router of that name in the folder. BaseMismatch, ExpertMismatch: made for another base or
            other experts. ConfigError: it has a linear probe. MissingData, DamagedFile: it cannot be used. Nothing is changed
            then.
        """
        with self._lock:
            known, added = self._known(self._routers.values()), dict[str, ServedModel]()
            for name in names:
                added[name] = self._loaded(name, known)
                known |= self._known([added[name]])
            self._engine.attach(known.values())
            self._routers = {**self._routers, **added}
            return list(added.values())

    def remove(self, name: str) -> None:
        """Serve a router no more, and drop experts that no other one has; raises UnknownName."""
        with self._lock:
            self.find(name)
            if name == self.base.name:
                raise UnknownName("the base is what all routers need, and cannot be removed.")
            self._routers = {other: model for other, model in self._routers.items() if other != name}
            self._engine.attach(self._known(self._routers.values()).values())

    @staticmethod
    def _known(models: Iterable[ServedModel]) -> dict[str, Expert]:
        return {expert.fingerprint: expert for model in models for expert in model.routing.experts}

    def _loaded(self, name: str, known: dict[str, Expert]) -> ServedModel:
        if self._folder is None or not NAME.fullmatch(name) or not (self._folder / name / "router.json").is_file():
            raise UnknownName("there is no router of that name in the folder of --routers. Adapt one there: staf adapt --out")
        if name == self.base.name:
            raise UnknownName("the base has that name. Rename the folder of the router.")
        router = load_router(self._folder / name)
        router.refuse_probe("the server")
        experts = self._experts_of(router, known)
        router.check(self._engine.base.identity, experts)
        Predictor.of_router(router, experts, None, None)
        prints, calibration = router.expert_fingerprints or experts.fingerprints, router.calibration
        routing = Routing(
            tuple(known.get(prints[expert.name], expert) for expert in experts.experts),
            router.weights,
            router.recipe.granularity,
        )
        fitted = None if calibration is None else LabelCalibrator.read(calibration)
        return ServedModel(name, routing, router.task, router.prompt, fitted)

    def _experts_of(self, router: Router, known: dict[str, Expert]) -> ExpertSet:
        """The experts of a router: those in memory of the same fingerprints, else from their folder."""
        held = [known.get(router.expert_fingerprints.get(name, "")) for name in router.experts]
        if not all(held):
            return router.load_experts(self._experts)
        return ExpertSet(tuple(_named(name, one) for name, one in zip(router.experts, held, strict=True) if one is not None))


def _named(name: str, expert: Expert) -> Expert:
    return expert if expert.name == name else replace(expert, name=name)
