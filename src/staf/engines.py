"""Who does the jobs of one command: this process, with those that torchrun started beside it, or a cluster's workers.

An engine takes jobs and returns once each is done or has failed; the failed ones are told together at the end. Experts, and the
cells of a grid, do not depend on each other, so both engines leave the same bytes behind, given the same kind of machine.

    local    one after another on one resident base
    ray      on every GPU of a Ray cluster, or on every machine where there is none: one worker each, with one resident base

All machines must see the folders of a job under the same names: put them on a shared file system.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from staf.compute import ComputeOptions
from staf.errors import ConfigError, MissingData, StafError, TrainingFailed, UnknownName
from staf.experts.distributed import ALONE, World
from staf.experts.recipe import ExpertRecipe
from staf.log import NullProgress, Progress, StderrProgress
from staf.stages import Context, train_stage, training_examples

MAX_DEATHS = 3
"""How many workers may die over one expert before it is given up."""
ENVIRONMENT = ("STAF_CACHE", "STAF_DATA", "HF_HOME", "HF_HUB_OFFLINE")
"""Variables that workers get as they are here."""
RAY_DEFAULTS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_NUM_REDIS_GET_RETRIES": "1"}
"""Nothing about a hospital's jobs goes out; a cluster that does not answer is told in a minute, not in a quarter of an hour."""


@dataclass(frozen=True)
class RunContext:
    """What the jobs of one command share: the arguments of their context."""

    base: str | None
    data: Path | None
    runs: Path
    profile: str
    dtype: str | None = None
    fsdp: bool = False
    compute: ComputeOptions | None = None

    def context(self, progress: Progress, world: World = ALONE) -> Context:
        """A context of this place; raises as `Context`."""
        return Context(self.base, self.data, self.runs, progress, self.dtype, self.profile, world, self.fsdp, self.compute)


@dataclass(frozen=True)
class Job:
    """Train one expert into out/<name>."""

    name: str
    settings: ExpertRecipe
    out: Path
    run_context: RunContext
    track: str | None = None

    def run(self, context: Context) -> None:
        """Train it, from its checkpoint where there is one; raises as `train_stage`."""
        train_stage(context, self.name, self.settings, self.out, self.track)


class Work(Protocol):
    """What a cluster's worker does: any job that names itself and its place."""

    @property
    def name(self) -> str:
        """As messages print it; no two of a command have the same."""

    @property
    def run_context(self) -> RunContext:
        """Where its context is."""

    def run(self, context: Context) -> None:
        """Do it, or go on with it; nothing is left half written."""


class Worker:
    """Does jobs in one process and keeps the base between them."""

    def __init__(self, progress: Progress, world: World = ALONE) -> None:
        self.progress, self.world = progress, world
        self.context: tuple[RunContext, Context] | None = None

    def ready(self, folder: Path) -> None:
        """The worker is there, and works in this folder, which paths of jobs may be relative to."""
        os.chdir(folder)

    def do(self, job: Work) -> None:
        """Do a job; raises as its `run`."""
        if self.context is None or self.context[0] != job.run_context:
            self.context = None  # two bases are never there at once
            self.context = (job.run_context, job.run_context.context(self.progress, self.world))
        job.run(self.context[1])


def local(jobs: Sequence[Job], progress: Progress, world: World = ALONE) -> None:
    """Train the experts one after another in this process.

    Raises:
        TrainingFailed: some failed; the others are trained. With several processes, or one job, its own error at once.
    """
    _check_contexts(jobs, world)
    worker = Worker(progress, world)
    failures: dict[str, BaseException] = {}
    for job in jobs:
        try:
            worker.do(job)
        except (StafError, torch.OutOfMemoryError) as error:
            if world.size > 1 or len(jobs) == 1:
                raise  # of several processes, one with an error must not go on without the others
            _fail(failures, job, error, progress)
    _tell(failures, len(jobs))


def ray(jobs: Sequence[Job], progress: Progress, world: World = ALONE) -> None:
    """Train the experts on a Ray cluster: the one of RAY_ADDRESS, else a running one, else one on this machine.

    The largest come first. The expert of a worker that dies goes on from its checkpoint on another one.

    Raises:
        TrainingFailed: some failed; the others are trained. With one job its own error. MissingData: Ray is not installed.
        ConfigError: started by torchrun as well, or with a sharded base.
    """
    if world.size > 1 or any(job.run_context.fsdp for job in jobs):
        raise ConfigError(
            "--launcher ray trains each expert in one process. Leave --fsdp and torchrun out, or take --launcher local."
        )
    _check_contexts(jobs, world)
    failures: dict[str, BaseException] = {}
    queue = by_size(jobs, failures, progress)
    spread("train experts", queue, failures, progress)
    _tell(failures, len(jobs))


def spread(title: str, queue: Sequence[Work], failures: dict[str, BaseException], progress: Progress) -> None:
    """Have jobs done by the workers of a Ray cluster, in their order.

    Args:
        title: of the progress bar. failures: errors by the name of a job, added to.

    Raises:
        TrainingFailed: no machine is left. MissingData: Ray is not installed, or its cluster does not answer.
    """
    with _cluster() as cluster:
        _Crew(cluster, progress, list(queue), failures).run(title)


Engine = Callable[[Sequence[Job], Progress, World], None]
ENGINES: dict[str, Engine] = {"local": local, "ray": ray}


def find_engine(name: str) -> Engine:
    """The engine of this name.

    Raises:
        UnknownName: there is none.
    """
    if name not in ENGINES:
        raise UnknownName.among("engine", name, ENGINES)
    return ENGINES[name]


def _check_contexts(jobs: Sequence[Job], world: World) -> None:
    """Raise what is wrong with all jobs of a place at once."""
    for run_context in {job.run_context for job in jobs}:
        run_context.context(NullProgress(), world)


def by_size(jobs: Sequence[Job], failures: dict[str, BaseException], progress: Progress) -> list[Job]:
    """The jobs in order of work, the largest first: characters that are read in all steps together.

    Data sets are fetched and prepared on the way, once for all workers; a job without data joins the failures.
    """
    sizes = {}
    for job in jobs:
        try:
            examples = training_examples(job.run_context.context(NullProgress()), job.name, job.settings)
            steps = job.settings.planned_steps(len(examples))
        except StafError as error:
            _fail(failures, job, error, progress)
            continue
        characters = sum(len(example.query) + len(example.context) + len(example.answer) for example in examples)
        sizes[job] = steps * job.settings.batch_size * characters / max(len(examples), 1)
    return sorted(sizes, key=lambda job: -sizes[job])


def _fail(failures: dict[str, BaseException], job: Work, error: BaseException, progress: Progress) -> None:
    failures[job.name] = error
    progress.log(f"{job.name} failed: {type(error).__name__}")


def _tell(failures: dict[str, BaseException], count: int) -> None:
    """Raise what failed, if anything did."""
    if count == 1 and failures:
        raise next(iter(failures.values()))
    if failures:
        lines = "\n  ".join(f"{name}: {type(error).__name__}: {error}" for name, error in failures.items())
        raise TrainingFailed(
            f"{len(failures)} of {count} experts failed, the others are trained.\n  {lines}\n"
            "The same command tries those again, and goes on where they were."
        )


@contextmanager
def _cluster() -> Iterator[Any]:
    """The module of Ray, connected for a `with` block; a connection that was there before is left as it is.

    Raises:
        MissingData: Ray is not installed, or its cluster does not answer.
    """
    for name, value in RAY_DEFAULTS.items():
        os.environ.setdefault(name, value)
    try:
        import ray as cluster
    except ImportError as error:
        raise MissingData("--launcher ray needs Ray, which is not installed: pip install 'staf-llm[ray]'.") from error
    connected = cluster.is_initialized()
    if not connected:
        try:
            cluster.init(include_dashboard=False, logging_level=logging.WARNING)
        except ConnectionError as error:
            raise MissingData(
                f"no Ray cluster answers: {error}. Start it (ray start --head), correct RAY_ADDRESS, or set RAY_ADDRESS=local "
                "for one on this machine alone."
            ) from error
    try:
        yield cluster
    finally:
        if not connected:
            cluster.shutdown()


@dataclass(frozen=True)
class Slot:
    """Room for one worker: a GPU of a machine, or a whole machine without."""

    node: str
    host: str
    cpus: float
    gpus: int


def slots_of(nodes: Sequence[dict[str, Any]]) -> list[Slot]:
    """Room for workers on the machines of a cluster that are alive; those without a GPU are left out where others have one."""
    found = []
    for node in nodes:
        gpus, cpus = int(node["Resources"].get("GPU", 0)), node["Resources"].get("CPU", 0)
        if node["Alive"] and cpus >= max(gpus, 1):
            where = (node["NodeID"], node["NodeManagerHostname"])
            found += [Slot(*where, 1, 1)] * gpus if gpus else [Slot(*where, cpus, 0)]
    with_gpu = [slot for slot in found if slot.gpus]
    return with_gpu or found


class _Crew:
    """The workers of a cluster and the jobs that wait for them.

    Args:
        cluster: the module of Ray. queue: jobs, in the order in which they are to begin. failures: errors by name, added to.
    """

    def __init__(self, cluster: Any, progress: Progress, queue: list[Work], failures: dict[str, BaseException]) -> None:
        self.cluster, self.progress, self.queue, self.failures = cluster, progress, queue, failures
        self.slots = slots_of(cluster.nodes())
        self.idle: list[tuple[Slot, Any]] = []
        self.calls: dict[Any, tuple[Slot, Any, Work | None]] = {}
        """What is waited for: a worker's job, or its being ready."""
        self.deaths: Counter[str] = Counter()

    def run(self, title: str) -> None:
        """Have all jobs done.

        Raises:
            TrainingFailed: no machine is left.
        """
        try:
            with self.progress.bar(title, len(self.queue)) as bar:
                while self.queue or any(job for _, _, job in self.calls.values()):
                    self._give()
                    bar.advance(self._settle())
        finally:
            for worker in [worker for _, worker in self.idle] + [worker for _, worker, _ in self.calls.values()]:
                self.cluster.kill(worker)

    def _give(self) -> None:
        """Give waiting jobs to idle workers, and hire for those that are left."""
        while self.queue and self.idle:
            slot, worker = self.idle.pop()
            job = self.queue.pop(0)
            self.progress.log(f"{job.name}: on {slot.host}")
            self.calls[worker.do.remote(job)] = (slot, worker, job)
        coming = sum(job is None for _, _, job in self.calls.values())
        while self.slots and coming < len(self.queue):
            slot, coming = self.slots.pop(0), coming + 1
            worker = self._hire(slot)
            self.calls[worker.ready.remote(Path.cwd())] = (slot, worker, None)
        if not self.calls:
            names = ", ".join(job.name for job in self.queue)
            raise TrainingFailed(
                f"no machine of the cluster is left for {names}. Start one (ray start --address ...), and run the same command "
                "again: it goes on where they were."
            )

    def _hire(self, slot: Slot) -> Any:
        self.progress.log(f"asking for a worker on {slot.host}")
        there = self.cluster.util.scheduling_strategies.NodeAffinitySchedulingStrategy(slot.node, soft=False)
        environment = {"env_vars": {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}}
        kind = self.cluster.remote(Worker).options(
            num_cpus=slot.cpus, num_gpus=slot.gpus, scheduling_strategy=there, runtime_env=environment
        )
        return kind.remote(StderrProgress())

    def _settle(self) -> int:
        """Wait for one call; returns how many jobs it ended."""
        (call,), _ = self.cluster.wait(list(self.calls), num_returns=1)
        slot, worker, job = self.calls.pop(call)
        errors = self.cluster.exceptions
        try:
            self.cluster.get(call)
        except errors.RayTaskError as error:
            if job is None:
                return self._dismiss(slot, worker, str(error.cause))
            _fail(self.failures, job, error.cause, self.progress)
        except errors.RayError as error:  # the worker is gone, and perhaps its machine
            self._dismiss(slot, worker, type(error).__name__)
            return 0 if job is None else self._put_back(slot, job)
        self.idle.append((slot, worker))
        return int(job is not None)

    def _dismiss(self, slot: Slot, worker: Any, why: str) -> int:
        self.progress.log(f"no worker on {slot.host}: {why}")
        self.cluster.kill(worker)
        return 0

    def _put_back(self, slot: Slot, job: Work) -> int:
        """Queue the job of a worker that died first; returns 1 where it is given up instead."""
        self.slots.append(slot)  # where the machine is gone as well, no worker comes up there
        self.deaths[job.name] += 1
        if self.deaths[job.name] > MAX_DEATHS:
            _fail(self.failures, job, TrainingFailed(f"{self.deaths[job.name]} workers died over it."), self.progress)
            return 1
        self.progress.log(f"{job.name}: put back, {self.deaths[job.name]} of at most {MAX_DEATHS} times")
        self.queue.insert(0, job)
        return 0
