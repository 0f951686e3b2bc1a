"""What all stages of one command share: a base loaded on first use, data, a folder of runs, progress."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from staf import __version__
from staf.compute import ComputeOptions
from staf.data.fetch import data_folder
from staf.data.splits import SPLIT_SCHEMES, check_split_scheme
from staf.data.store import DataStore
from staf.data.task import Task
from staf.errors import ConfigError
from staf.experts.distributed import SINGLE_PROCESS, World, check_fsdp, open_base
from staf.experts.estimate import meta_model
from staf.experts.store import ExpertSet
from staf.lm.base import BASE_DTYPES, DEFAULT_BASE, NF4, Base, choose_dtype, default_device, identity_of, load_tokenizer
from staf.lm.prompts import PLAIN, PromptFormat, prompt_format_of
from staf.log import NullProgress, Progress
from staf.routing.merge import Mixture
from staf.runs import digest_of


@dataclass(frozen=True)
class RunContext:
    """The arguments of a `Context`, as the jobs of one command carry them to other processes."""

    base: str | None
    data: Path | None
    runs: Path
    split_scheme: str
    compute: ComputeOptions = field(default_factory=ComputeOptions)
    fsdp: bool = False
    tasks: tuple[str | Task, ...] = ()
    """Task files, or tasks, whose test items are kept out of training; those of built-in tasks always are."""

    def context(self, progress: Progress, world: World = SINGLE_PROCESS) -> Context:
        """The context; raises as `Context` and `Context.find_task`."""
        found = Context(self.base, self.data, self.runs, progress, None, self.split_scheme, world, self.fsdp, self.compute)
        for name in self.tasks:
            found.find_task(name)
        return found


@dataclass(eq=False)
class Context:
    """One base, one data folder, one folder of runs, one progress.

    Args:
        base_name: hub id, folder or GGUF file; None is the default. data: the user's data folder; None uses packages.
        dtype: of the base; None takes that of `compute`, which says how all is computed. split_scheme: how data sets are split.
        world: the processes that train one expert together. fsdp: spread the base over them, if one device is too small.

    Raises:
        MissingData: there is no such data folder. UnknownName: there is no such split scheme. ConfigError: a base sharded
            over one process.
    """

    base_name: str | None
    data: Path | None
    runs: Path
    progress: Progress = field(default_factory=NullProgress)
    dtype: str | None = None
    split_scheme: str = SPLIT_SCHEMES[0]
    world: World = SINGLE_PROCESS
    fsdp: bool = False
    compute: ComputeOptions = field(default_factory=ComputeOptions)

    def __post_init__(self) -> None:
        check_split_scheme(self.split_scheme)
        check_fsdp(self.world, self.fsdp)
        self.store = DataStore(data_folder(self.data), self.split_scheme, log=self.progress.log)
        self.dtype = self.dtype or self.compute.dtype
        self.compute = self.compute.model_copy(update={"dtype": self.dtype})
        self._mixture: Mixture | None = None

    def find_task(self, name: str | Task) -> Task:
        """The task of a name or file, from now on in the store; raises as `DataStore.with_task`."""
        task, self.store = self.store.with_task(name)
        return task

    @cached_property
    def identity(self) -> dict[str, str]:
        """Name and fingerprint of the base, without loading it."""
        return identity_of(self.base_name)

    @cached_property
    def base(self) -> Base:
        """The loaded base."""
        self.progress.log(f"loading {self.base_name or DEFAULT_BASE}")
        return open_base(self.base_name, self.dtype, self.world, self.fsdp, self.compute.device)

    def prompt_format(self, wanted: str) -> PromptFormat:
        """The prompt format of a name, without loading the base; raises as `prompt_format_of`."""
        return PLAIN if wanted == "plain" else prompt_format_of(wanted, load_tokenizer(self.base_name), self.identity["name"])

    @cached_property
    def meta_model(self) -> Base:
        """The base without weights, from its config.

        Raises:
            ConfigError: in four bits, whose memory is not estimated.
        """
        if self.dtype == NF4:
            raise ConfigError(
                "a base in four bits (--dtype nf4) is not estimated. Leave --dtype out with --dry-run: of what it prints for "
                "the base in bfloat16 the matrices then take about a quarter, and a step is slower."
            )
        return meta_model(self.base_name, BASE_DTYPES[self.dtype] if self.dtype else choose_dtype(default_device())[0])

    def of_base(self, base: str) -> Context:
        """The same data, runs and number format with another base."""
        other = replace(self, base_name=base)
        other.store = self.store
        return other

    def mixture(self, experts: ExpertSet) -> Mixture:
        """The experts attached to the base; attached once for the same set."""
        held = self._mixture
        if held is None or (held.experts is not experts and held.experts.fingerprint != experts.fingerprint):
            held = self._mixture = Mixture(self.base, experts)
        return held

    def named(self, *parts: str) -> str:
        """Names a result by the base with its tokenizer, a dtype that was asked for, and what else it depends on."""
        model = (self.identity["fingerprint"], self.identity.get("tokenizer", ""))
        return digest_of(*model, *parts, *(() if self.dtype is None else (self.dtype,)))

    def say_if_computed_otherwise(self, what: str, record: Mapping[str, Any] | None) -> None:
        """Log where the compute record of something that is reused has another dtype, device or version than this command."""
        device = torch.device(self.compute.device) if self.compute.device else default_device()
        now = {"dtype": self.dtype or str(choose_dtype(device)[0]).removeprefix("torch."), "device": device.type}
        now |= {"staf": __version__, "torch": torch.__version__}
        made = {**(record or {}), **(record or {}).get("versions", {})}
        if differing := [f"{name} {made[name]} (now {value})" for name, value in now.items() if made.get(name, value) != value]:
            self.progress.log(f"{what} was computed with {', '.join(differing)}. Delete it to compute it again.")

    def detach_experts(self) -> None:
        """Detach the experts, as training needs the routed layers for itself."""
        self._mixture = None
