"""Independent jobs in this process, or on a Ray cluster by Ray's own retries and placement.

A job has a name and a run_context, can be pickled, and resumes where it was interrupted: Ray runs the job of a dead worker or
machine again. All machines must see a job's folders under the same paths: use a shared file system.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from staf.errors import MissingData, StafError, TrainingFailed
from staf.experts.distributed import SINGLE_PROCESS, World
from staf.log import Progress, StderrProgress

LAUNCHERS = ("local", "ray")
MAX_RETRIES = 3
ENVIRONMENT = ("STAF_CACHE", "STAF_DATA", "HF_HOME", "HF_HUB_OFFLINE")
"""Variables that workers get with their values here."""
RAY_DEFAULTS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_NUM_REDIS_GET_RETRIES": "1"}
"""No usage statistics leave the cluster, and one that does not answer is reported within a minute."""
RAY_LOCAL = {"RAY_AUTH_MODE": "token", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""A Ray that is started here asks for a token (Ray 2.52 or later) and listens on loopback only: no other machine joins it."""
Failures = dict[str, BaseException]
"""Errors by the name of the job."""
Job = Any
"""Has a unique `name`, a hashable `run_context` whose `context(progress, world)` loads the context, and `run(context)`."""
_resident: dict[Any, Any] = {}
"""The context of this process's last job, whose base the next one finds loaded."""


def _run(job: Job, progress: Progress, world: World) -> None:
    if job.run_context not in _resident:
        _resident.clear()  # never two bases in memory
        _resident[job.run_context] = job.run_context.context(progress, world)
    job.run(_resident[job.run_context])


def run_local(jobs: Sequence[Job], progress: Progress, world: World = SINGLE_PROCESS) -> Failures:
    """Run jobs one after another; returns what failed. With several processes, or one job, its error is raised at once."""
    from torch import OutOfMemoryError

    failures: Failures = {}
    _resident.clear()
    for job in jobs:
        try:
            _run(job, progress, world)
        except (StafError, OutOfMemoryError) as error:
            if world.size > 1 or len(jobs) == 1:
                raise  # other processes would wait for this one
            failures[job.name] = error
            progress.log(f"{job.name} failed: {type(error).__name__}")
    return failures


def run_ray(title: str, jobs: Sequence[Job], progress: Progress) -> Failures:
    """Run jobs on the Ray cluster of RAY_ADDRESS, else a running one, else one on this machine; returns what failed.

    Raises:
        MissingData: Ray is not installed, or its cluster does not answer.
    """
    failures: Failures = {}
    with _connected() as ray, progress.bar(title, len(jobs)) as bar:
        task = ray.remote(_run_remote).options(max_retries=MAX_RETRIES, **_resources(ray.nodes()))
        calls = {task.remote(job, str(Path.cwd())): job for job in jobs}
        try:
            while calls:
                (call,), _ = ray.wait(list(calls), num_returns=1)
                job = calls.pop(call)
                try:
                    ray.get(call)
                except ray.exceptions.RayTaskError as error:
                    failures[job.name] = error.cause
                except ray.exceptions.RayError as error:
                    failures[job.name] = TrainingFailed(f"its worker died {MAX_RETRIES + 1} times ({type(error).__name__}).")
                if job.name in failures:
                    progress.log(f"{job.name} failed: {type(failures[job.name]).__name__}")
                bar.advance(1, job.name)
        finally:
            for call in calls:
                ray.cancel(call, force=True)
    return failures


def _run_remote(job: Job, folder: str) -> None:
    os.chdir(folder)
    _run(job, StderrProgress(), SINGLE_PROCESS)


def _resources(nodes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A GPU a task, else as many CPUs as the smallest machine has: equal for all, as threads decide the bits of a result."""
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    environment = {"env_vars": {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}}
    if any(node.get("GPU", 0) >= 1 for node in alive):
        return {"num_gpus": 1, "num_cpus": 1, "runtime_env": environment}
    return {"num_cpus": min((n["CPU"] for n in alive if n.get("CPU", 0) >= 1), default=1), "runtime_env": environment}


@contextmanager
def _connected() -> Iterator[Any]:
    """The module of Ray, connected for a `with` block; an existing connection is left open."""
    address = os.environ.get("RAY_ADDRESS")
    running = Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "ray_current_cluster").exists()  # ray.init joins that one
    starts_here = address == "local" or not (address or running)
    for name, value in (RAY_DEFAULTS | (RAY_LOCAL if starts_here else {})).items():
        os.environ.setdefault(name, value)  # before the import, which reads them
    try:
        import ray
    except ImportError as error:
        raise MissingData("--launcher ray needs Ray, which is not installed: pip install 'staf-llm[ray]'.") from error
    ours = not ray.is_initialized()
    try:
        if ours:
            ray.init("local" if starts_here else None, include_dashboard=False, logging_level=logging.WARNING)
    except ConnectionError as error:
        raise MissingData(
            f"no Ray cluster answers: {error}. Start it (ray start --head), correct RAY_ADDRESS, or set RAY_ADDRESS=local for "
            "one on this machine."
        ) from error
    try:
        yield ray
    finally:
        if ours:
            ray.shutdown()
