"""A router on disk: its numbers, its weights, and which base and experts they belong to.

<router>/router.json and router-<sha>.safetensors    what was found: numbers (n,), weights (G, K), and their record
         cost.json                                   what it took: seconds and memory, which differ from run to run

The same command gives the first two byte by byte, stopped in between or not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from staf.checkpoint_io import read_checkpoint, write_checkpoint
from staf.errors import BaseMismatch, ConfigError, DamagedFile, ExpertMismatch
from staf.experts.store import ExpertSet
from staf.io import read_json, write_json
from staf.routing.recipe import RouterRecipe

NUMBERS_DEPEND_ON = ("granularity", "null_expert", "learned_scale", "temperature", "weighting")
"""Settings that say what a router's numbers mean."""


@dataclass(frozen=True)
class Router:
    """A task's router as it was found."""

    task: str
    settings: RouterRecipe
    weights: Tensor
    """(G, K), rows by granularity, columns in the order of `experts`"""
    numbers: Tensor
    """(n,) A, b and the scale"""
    experts: tuple[str, ...]
    experts_fingerprint: str
    base: dict[str, str]
    record: dict[str, Any] = field(default_factory=dict)
    """loss, evaluations, reason for stopping, weights of each restart, adaptation example ids, seconds, versions"""

    @property
    def mean_weights(self) -> dict[str, float]:
        """Weight of each expert, averaged over the groups."""
        return dict(zip(self.experts, self.weights.mean(0).tolist(), strict=True))

    @property
    def beside_weights(self) -> dict[str, float]:
        """What else the weights were made with: the untouched base's share of the softmax, and the scale; {} without both."""
        scale = float(self.numbers[-1].exp()) if self.settings.learned_scale else 1.0
        found = {}
        if self.settings.null_expert:
            found["original model (null expert)"] = 1.0 - float(self.weights.sum(-1).mean()) / scale
        if self.settings.learned_scale:
            found["learned scale"] = scale
        return found

    def check(self, base: dict[str, str], experts: ExpertSet) -> None:
        """See that the router was made for this base and these experts.

        Raises:
            BaseMismatch, ExpertMismatch: it was not.
        """
        if self.base["fingerprint"] != base["fingerprint"]:
            raise BaseMismatch(
                f"the router for '{self.task}' was made on {self.base['name']} ({self.base['fingerprint']}), "
                f"this base is {base['name']} ({base['fingerprint']}). Give that base with --base, or adapt again."
            )
        if self.experts_fingerprint != experts.fingerprint:
            raise ExpertMismatch(
                f"the router for '{self.task}' was made for the experts {', '.join(self.experts)} "
                f"({self.experts_fingerprint}); found {', '.join(experts.names)} ({experts.fingerprint}). Adapt again."
            )

    def check_start(self, base: dict[str, str], experts: ExpertSet, settings: RouterRecipe) -> None:
        """See that a router with these settings may start from the numbers of this one.

        Raises:
            BaseMismatch, ExpertMismatch: it was made for another base or for other experts. ConfigError: its numbers mean
                something else.
        """
        self.check(base, experts)
        differing = [name for name in NUMBERS_DEPEND_ON if getattr(self.settings, name) != getattr(settings, name)]
        if differing:
            there = ", ".join(f"{name}={getattr(self.settings, name)}" for name in differing)
            here = ", ".join(f"{name}={getattr(settings, name)}" for name in differing)
            raise ConfigError(
                f"the router for '{self.task}' cannot be the start: it has {there}, these settings have {here}. "
                "Make them the same (-o), or give another router."
            )


def refuse_more_than_a_row(settings: RouterRecipe, what: str) -> None:
    """See that the settings ask for one row of softmax weights, as a router has that is computed and not learned.

    Raises:
        ConfigError: for more.
    """
    more = {
        "granularity": settings.granularity != "task",
        "null_expert": settings.null_expert,
        "learned_scale": settings.learned_scale,
        "weighting": settings.weighting != "softmax",
    }
    wrong = [name for name, given in more.items() if given]
    if wrong:
        raise ConfigError(
            f"{', '.join(f'{name} = {getattr(settings, name)}' for name in wrong)} cannot be had without learning: "
            f"{what} is one row of softmax weights. Leave it out, or use method gradient or cma."
        )


COST = ("seconds", "peak_memory_bytes")
"""What of a router's record is measured."""


def save_router(folder: Path, router: Router) -> None:
    """Write a router whole or not at all."""
    write_json(folder / "cost.json", {name: router.record[name] for name in COST if name in router.record})
    record = {
        "task": router.task,
        "settings": router.settings.model_dump(),
        "experts": list(router.experts),
        "experts_fingerprint": router.experts_fingerprint,
        "base": router.base,
        "found": {name: value for name, value in router.record.items() if name not in COST},
    }
    write_checkpoint(folder, "router", {"weights": router.weights, "numbers": router.numbers}, record)


def load_router(folder: Path) -> Router:
    """Read a router and check it.

    Raises:
        MissingData, DamagedFile: as `read_checkpoint`, or its record and tensors do not fit, or its cost is not there.
    """
    tensors, record = read_checkpoint(folder, "router")
    cost = folder / "cost.json"
    if not cost.is_file():
        raise DamagedFile(
            f"{folder}: cost.json, which belongs to the router, is not there. Copy the whole folder, or adapt again."
        )
    try:
        router = Router(
            record["task"], RouterRecipe(**record["settings"]), tensors["weights"], tensors["numbers"],
            tuple(record["experts"]), record["experts_fingerprint"], record["base"], {**record["found"], **read_json(cost)},
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedFile(f"{folder}: its record is not that of a router ({error}). Adapt again.") from error
    if router.weights.dim() != 2 or router.weights.shape[1] != len(router.experts):
        raise DamagedFile(f"{folder}: weights {tuple(router.weights.shape)} for {len(router.experts)} experts. Adapt again.")
    return router


def load_start(folder: Path, out: Path, base: dict[str, str], experts: ExpertSet, settings: RouterRecipe) -> Router:
    """Read the router that one to be made in `out` starts from.

    Raises:
        MissingData, DamagedFile: as `load_router`. BaseMismatch, ExpertMismatch, ConfigError: as `Router.check_start`, or it is
            in `out` itself.
    """
    if folder.resolve() == out.resolve():
        raise ConfigError(f"the router in {out} cannot be its own start: it would be replaced. Give another folder with --out.")
    router = load_router(folder)
    router.check_start(base, experts, settings)
    return router
