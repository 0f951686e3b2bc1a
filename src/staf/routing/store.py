"""A router, and its file: everything that is needed to predict with it, besides base and experts.

<router>/router.json and router-<sha>.safetensors    params (n,), weights (G, K), a linear probe; task, prompt, recipe, ...
         cost.json                                   seconds and memory, which differ from run to run

The same command writes the same bytes in the first two, interrupted or not. The folder of the experts is kept relative to that
of the router, so both can be moved together.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ConfigDict, FiniteFloat, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from torch import Tensor

from staf.checkpoint_io import read_checkpoint, write_checkpoint
from staf.compute import compute_record
from staf.data.answers import NONE
from staf.data.example import Example
from staf.data.privacy import kept_ids
from staf.data.row_templates import RowTemplates
from staf.data.task import Task
from staf.errors import BadData, BaseMismatch, ConfigError, DamagedFile, ExpertMismatch, MissingData
from staf.experts.adapter import Factors
from staf.experts.reduce import concat_factors
from staf.experts.store import (
    REFERENCE,
    REFERENCE_FOLDER,
    ExpertSet,
    expert_names,
    load_experts,
    other_tokenizer,
    set_fingerprint,
)
from staf.io import read_json, write_json
from staf.lm.base import Base
from staf.routing.merge import module_groups
from staf.routing.recipe import PARAMS_DEPEND_ON, RouterRecipe
from staf.routing.router import num_params

OPTIONS = "{options}"
"""The place of the labels in a query."""
SEPARATOR = "; "
"""Between labels in a query, as in `staf.data.templates`."""


@dataclass(frozen=True)
class TaskPrompt:
    """How inputs of a task become examples."""

    query: str
    """with `OPTIONS` where it lists the labels"""
    labels: tuple[str, ...] | None
    """the labels of every example, () for free text; None: each example has its own"""
    output_type: str
    task_type: str
    max_length: int
    """tokens of a prompt with its answer"""
    templates: RowTemplates | None = None
    """of a task on local files: what makes an input of a row of its table"""

    @classmethod
    def of(cls, examples: Sequence[Example], max_length: int, templates: RowTemplates | None = None) -> TaskPrompt:
        """The prompt of a task from some of its examples, at least one; the first one's wording is used."""
        first = examples[0]
        listed = SEPARATOR.join(first.labels)
        query = first.query.replace(listed, OPTIONS) if listed else first.query
        same = all(example.labels == first.labels for example in examples)
        return cls(query, first.labels if same else None, first.output_type, first.task_type, max_length, templates)

    def example(
        self, name: str, context: str, query: str | None = None, labels: Sequence[str] | None = None
    ) -> Example:  # fmt: skip
        """An example without an answer.

        Args:
            name: for messages. query, labels: the input's own; None uses the task's.

        Raises:
            BadData: the task has labels by example and none are given, or the given ones do not fit the query.
        """
        own = self.labels if labels is None else tuple(labels)
        if own is None:
            raise BadData(f'{name}: this task\'s labels differ by example; give the line its own "labels".')
        if self.output_type == "multiple_choice" and not own:
            raise BadData(f'{name}: this task has one right label, and "labels" is empty.')
        listed = OPTIONS in self.query and bool(set(own) & set(self.labels or own))
        if query is None and self.labels is not None and own != self.labels and not listed:
            raise BadData(
                f'{name}: none of its "labels" is one of the router\'s, or the query does not list labels. '
                'Give the line its own "query" too, or leave "labels" out.'
            )
        asked = self.query.replace(OPTIONS, SEPARATOR.join(own)) if query is None else query
        placeholder = own[0] if self.output_type == "multiple_choice" else NONE
        return Example(name, self.task_type, asked, context, placeholder, own, "test", (), self.output_type)


ADAPTER = "adapter"
"""The only expert of a tuned router (`staf.routing.tune`), in a folder of that name in the router's."""
PROBE = "probe."
"""Before the names of a linear probe's tensors."""
COST = ("seconds", "peak_memory_bytes")
"""Measured fields of a router's record."""
_COST = TypeAdapter(dict[Literal["seconds", "peak_memory_bytes"], int | FiniteFloat])


@dataclass(frozen=True, config=ConfigDict(arbitrary_types_allowed=True, hide_input_in_errors=True))
class Router:
    """A task's router."""

    task: str
    prompt: TaskPrompt
    recipe: RouterRecipe
    weights: Tensor
    """(G, K), rows by granularity, columns in the order of `experts`"""
    params: Tensor
    """(n,) A, b and the scale"""
    experts: tuple[str, ...]
    experts_fingerprint: str
    base: dict[str, str]
    modules: dict[str, int]
    """row of the weights of each adapted module"""
    record: dict[str, Any] = field(default_factory=dict)
    """loss, evaluations, stop reason, weights of each restart, adaptation example ids, seconds, versions"""
    calibration: dict[str, Any] | None = None
    """of several labels: what a score says (fields of `staf.evaluate.calibrate.LabelCalibrator`)"""
    probe: dict[str, Any] | None = None
    """of a linear probe that answers in place of the likelihoods (fields of `staf.evaluate.probe.Probe`)"""
    probe_tensors: dict[str, Tensor] = field(default_factory=dict)
    expert_fingerprints: dict[str, str] = field(default_factory=dict)
    """of each expert, by name; {} in a router of an earlier version"""
    experts_folder: Path | None = None
    """where its experts are; None where they were in no folder, or in a router of an earlier version"""

    @classmethod
    def of(
        cls, base: Base, experts: ExpertSet, task: str, examples: Sequence[Example], recipe: RouterRecipe, weights: Tensor,
        params: Tensor, record: dict[str, Any],
    ) -> Router:  # fmt: skip
        """The router of some weights (G, K) and parameters (n,) over a set of experts, with the prompt of the examples."""
        modules = dict(zip(base.lora.layers, module_groups(base, recipe.granularity), strict=True))
        learned_from = {"examples": len(examples), "example_ids": kept_ids(examples)}
        return cls(
            task, TaskPrompt.of(examples, recipe.max_length), recipe, weights, params, experts.names, experts.fingerprint,
            base.identity, modules, {**learned_from, **record, "compute": compute_record(base)},
            expert_fingerprints=experts.fingerprints, experts_folder=experts.folder,
        )  # fmt: skip

    @property
    def mean_weights(self) -> dict[str, float]:
        """Weight of each expert, averaged over the groups."""
        return dict(zip(self.experts, self.weights.mean(0).tolist(), strict=True))

    @property
    def has_own_adapter(self) -> bool:
        """Whether it was tuned to an adapter, which took the place of its experts."""
        return bool(self.record.get("tuned", {}).get("kept"))

    @property
    def other_weights(self) -> dict[str, float]:
        """The base's share of the softmax and the learned scale; {} without both."""
        scale = float(self.params[-1].exp()) if self.recipe.learned_scale else 1.0
        found = {}
        if self.recipe.null_expert:
            found["base model (null expert)"] = 1.0 - float(self.weights.sum(-1).mean()) / scale
        if self.recipe.learned_scale:
            found["learned scale"] = scale
        return found

    def factors_of(self, experts: ExpertSet, module: str, shape: tuple[int, int] | None = None) -> Factors:
        """B (d_out, R) and A (R, d_in) of its weighted sum of the experts in one module, without those of the weight 0.

        Args:
            shape: of the module, needed where no expert adapts it.
        """
        weights, parts = self.weights[self.modules[module]], experts.factors_of(module, shape)
        kept = [index for index, weight in enumerate(weights.tolist()) if weight != 0] or [0]
        return concat_factors([parts[index] for index in kept], weights[kept])

    def refuse_probe(self, what: str) -> None:
        """Raise ConfigError where a linear probe answers, which `what` does not read."""
        if self.probe is not None:
            raise ConfigError(
                f"the router for '{self.task}' answers by a linear probe, which {what} does not read. Give the folder of the "
                "router without it, one above, or use staf predict."
            )

    def of_task(self, task: Task) -> Router:
        """The router with the templates of a task on local files; of another task as it is."""
        return replace(self, prompt=replace(self.prompt, templates=task.templates)) if task.is_local else self

    def check(self, base: dict[str, str], experts: ExpertSet) -> None:
        """Check that the router was made for this base and these experts.

        Raises:
            BaseMismatch, ExpertMismatch: it was not.
        """
        if self.base["fingerprint"] != base["fingerprint"]:
            raise BaseMismatch(
                f"the router for '{self.task}' was made on {self.base['name']} ({self.base['fingerprint']}), "
                f"this base is {base['name']} ({base['fingerprint']}). Give that base with --base, or adapt again."
            )
        if other_tokenizer(self.base, base):
            raise BaseMismatch(
                f"the router for '{self.task}' was made with another tokenizer than that of {base['name']} now. "
                "Restore the tokenizer files of the base, or adapt again."
            )
        if self.experts_fingerprint != experts.fingerprint:
            raise ExpertMismatch(
                f"the router for '{self.task}' was made for the experts {', '.join(self.experts)} "
                f"({self.experts_fingerprint}); found {', '.join(experts.names)} ({experts.fingerprint}). "
                f"{self._differing(experts)}Adapt again."
            )

    def load_experts(self, folder: Path | None = None) -> ExpertSet:
        """Its experts, without others that are in the same folder.

        Args:
            folder: where they are; None is where they were when the router was made. A tuned router has its own adapter.

        Raises:
            MissingData: the folder is not known, or has no experts. UnknownName: one of them is not there. DamagedFile: one
                does not load.
        """
        where = self.experts_folder if self.has_own_adapter else folder or self.experts_folder
        if where is None:
            raise MissingData(
                f"the router for '{self.task}' does not say where its experts are: add --experts and their folder."
            )
        known = expert_names(where)
        if folder is None and not known:
            raise MissingData(
                f"no experts in {where}, where those of the router for '{self.task}' were. Give their folder with --experts."
            )
        return load_experts(where, self.experts if set(self.experts) <= set(known) else None)

    def _differing(self, experts: ExpertSet) -> str:
        """A sentence that names the experts which differ from the router's."""
        known, found = self.expert_fingerprints, experts.fingerprints
        differences = [f"'{name}' is missing" for name in self.experts if name not in found]
        differences += [f"'{name}' is new" for name in found if name not in self.experts]
        differences += [
            f"'{name}' is another expert of that name ({known[name]} then, {found[name]} now)"
            for name in known
            if name in found and known[name] != found[name]
        ]
        return f"{'; '.join(differences)}. " if differences else ""

    def check_start(self, base: dict[str, str], experts: ExpertSet, recipe: RouterRecipe) -> None:
        """Check that an adaptation with this recipe may start from this router's parameters.

        Raises:
            BaseMismatch, ExpertMismatch: other base or experts. ConfigError: its parameters mean something else.
        """
        self.check(base, experts)
        differing = [name for name in PARAMS_DEPEND_ON if getattr(self.recipe, name) != getattr(recipe, name)]
        if differing:
            there, here = (", ".join(f"{name}={getattr(one, name)}" for name in differing) for one in (self.recipe, recipe))
            raise ConfigError(
                f"the router for '{self.task}' cannot be the start: it has {there}, this recipe has {here}. "
                "Set them to the same values, or give another router."
            )


_ROUTER = TypeAdapter(Router)


def save_router(folder: Path, router: Router) -> None:
    """Write a router atomically."""
    write_json(folder / "cost.json", {name: router.record[name] for name in COST if name in router.record})
    record = _ROUTER.dump_python(
        router, mode="json", exclude={"weights", "params", "record", "experts_folder", "probe_tensors"}
    )
    if router.experts_folder is not None:
        where = router.experts_folder.resolve()
        in_package = where == REFERENCE_FOLDER.resolve()
        record["experts_folder"] = REFERENCE if in_package else Path(os.path.relpath(where, folder.resolve())).as_posix()
    record["result"] = {name: value for name, value in router.record.items() if name not in COST}
    write_checkpoint(folder, "router", {"weights": router.weights, "params": router.params, **router.probe_tensors}, record)


def load_router(folder: Path) -> Router:
    """Read a router and check it.

    Raises:
        MissingData, DamagedFile: as `read_checkpoint`, or record and tensors do not fit, or cost.json is missing.
    """
    tensors, values = read_checkpoint(folder, "router")
    cost = folder / "cost.json"
    if not cost.is_file():
        raise DamagedFile(f"{folder}: the router's cost.json is missing. Copy the complete folder, or adapt again.")
    if "prompt" not in values:
        raise DamagedFile(f"{folder}: this router was made by an earlier version and keeps no prompt. Adapt again.")
    try:
        own = {name: tensor for name, tensor in tensors.items() if name.startswith(PROBE)}
        router = _ROUTER.validate_python(
            {
                **values,
                **tensors,
                "probe_tensors": own,
                "record": {**values["result"], **_COST.validate_python(read_json(cost))},
            }
        )
    except (KeyError, TypeError, ValidationError) as error:
        raise DamagedFile(f"{folder}: its record is not that of a router ({error}). Adapt again.") from error
    groups, experts, known = max(router.modules.values(), default=0) + 1, len(router.experts), router.expert_fingerprints
    shapes = {"weights": (groups, experts), "params": (num_params(groups, experts, router.recipe),)}
    for name, expected in shapes.items():
        if tuple(tensors[name].shape) != expected or tensors[name].dtype != torch.float32:
            found = f"{tuple(tensors[name].shape)} {tensors[name].dtype}"
            raise DamagedFile(f"{folder}: {name} {found} for {experts} experts, {expected} float32 expected. Adapt again.")
    lacking = {"name", "fingerprint"} - router.base.keys()
    if lacking or min(router.modules.values(), default=0) < 0 or len(set(router.experts)) < experts:
        raise DamagedFile(f"{folder}: its base, modules or experts are not those of a router. Adapt again.")
    if known and (known.keys() != set(router.experts) or set_fingerprint(router.experts, known) != router.experts_fingerprint):
        raise DamagedFile(f"{folder}: its experts' names and fingerprints do not belong together. Adapt again.")
    at = router.experts_folder
    if at is None:
        return router
    place = (folder.resolve() / at).resolve()
    return replace(router, experts_folder=REFERENCE_FOLDER if str(at) == REFERENCE and not place.exists() else place)


def load_start(folder: Path, out: Path, base: dict[str, str], experts: ExpertSet, recipe: RouterRecipe) -> Router:
    """Read the router that an adaptation into `out` starts from.

    Raises:
        MissingData, DamagedFile: as `load_router`. BaseMismatch, ExpertMismatch, ConfigError: as `Router.check_start`, or it
            is the router in `out`.
    """
    if folder.resolve() == out.resolve():
        raise ConfigError(f"the router in {out} cannot be its own start: it would be replaced. Give another folder with --out.")
    router = load_router(folder)
    router.check_start(base, experts, recipe)
    return router
