"""Engines: both leave the same experts behind; errors are told by name at the end; workers that die cost no work."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from staf import engines
from staf.cli import app
from staf.engines import MAX_DEATHS, Job, RunContext, by_size, find_engine, local, ray, slots_of
from staf.errors import ConfigError, MissingData, StafError, TrainingFailed, UnknownName
from staf.experts.distributed import World
from staf.experts.recipe import ExpertRecipe
from staf.experts.store import load_expert
from staf.log import NullProgress
from staf.stages import context

SETTINGS = ExpertRecipe(steps=12, batch_size=4, tinit=2, tfinal=4, max_length=500)
IMPOSSIBLE = SETTINGS.model_copy(update={"tfinal": 50})


class Told(NullProgress):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def run_context(tiny_folder: Path, own: Path, tmp_path: Path) -> RunContext:
    return RunContext(str(tiny_folder), own, tmp_path / "runs", "staf-llm", dtype="float32")


@pytest.fixture
def jobs(run_context: RunContext, tmp_path: Path) -> list[Job]:
    return [Job(name, SETTINGS, tmp_path / "experts", run_context) for name in ("entity_synonymy", "entity_relation")]


def named(*names: str) -> list[Job]:
    return [Job(name, SETTINGS, Path("out"), RunContext(None, None, Path("runs"), "staf-llm")) for name in names]


def test_one_base_is_loaded_for_all_and_what_fails_is_told_at_the_end(jobs: list[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []
    real = context.open_base
    monkeypatch.setattr(context, "open_base", lambda *given: loaded.append(given) or real(*given))
    told = Told()
    with pytest.raises(TrainingFailed, match=r"(?s)1 of 3 experts failed.*entity_attribute: ConfigError: 12 steps in all"):
        local([replace(jobs[0], name="entity_attribute", settings=IMPOSSIBLE), *jobs], told)
    assert len(loaded) == 1
    assert "entity_attribute failed: ConfigError" in told.lines
    assert {load_expert(job.out / job.name).name for job in jobs} == {"entity_synonymy", "entity_relation"}


def test_the_error_of_one_expert_alone_is_its_own(jobs: list[Job]) -> None:
    with pytest.raises(ConfigError, match="12 steps in all"):
        local([replace(jobs[0], settings=IMPOSSIBLE)], NullProgress())


def test_of_several_processes_one_with_an_error_does_not_go_on(jobs: list[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def fails(_: object, name: str, *__: object) -> None:
        tried.append(name)
        raise StafError("disk full")

    monkeypatch.setattr(engines, "train_stage", fails)
    with pytest.raises(StafError, match="disk full"):
        local(jobs, NullProgress(), World(0, 2))
    assert tried == ["entity_synonymy"]


@pytest.mark.parametrize("engine", [local, ray])
def test_what_is_wrong_with_all_jobs_is_told_once_and_at_once(engine: Callable[..., None], jobs: list[Job]) -> None:
    wrong = [replace(job, run_context=replace(job.run_context, profile="half")) for job in jobs]
    with pytest.raises(UnknownName, match="no split profile 'half'"):
        engine(wrong, NullProgress())


def test_ray_and_torchrun_are_not_mixed(jobs: list[Job]) -> None:
    with pytest.raises(ConfigError, match="trains each expert in one process"):
        ray(jobs, NullProgress(), World(0, 2))
    with pytest.raises(ConfigError, match="trains each expert in one process"):
        ray([replace(jobs[0], run_context=replace(jobs[0].run_context, fsdp=True))], NullProgress())


def test_without_ray_it_is_said_how_to_get_it(jobs: list[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingData, match=r"pip install 'staf-llm\[ray\]'"):
        ray(jobs, NullProgress())


def test_a_cluster_that_does_not_answer(jobs: list[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        raise ConnectionError("Failed to connect to Ray cluster at host:6379")

    for name in engines.RAY_DEFAULTS:
        monkeypatch.setenv(name, "1")
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False, init=init))
    with pytest.raises(MissingData, match=r"no Ray cluster answers: .* at host:6379\. Start it"):
        ray(jobs, NullProgress())


def test_an_engine_that_does_not_exist() -> None:
    assert find_engine("local") is local
    with pytest.raises(UnknownName, match=r"no engine 'rai'\. Did you mean 'ray'"):
        find_engine("rai")


def test_the_command_tells_a_misspelt_expert_or_engine_before_it_trains(tmp_path: Path) -> None:
    common = ["train", "--out", str(tmp_path / "experts"), "--runs", str(tmp_path / "runs")]
    for more, message in (
        (["--experts", "entity_relation,entity_synonmy"], "Did you mean 'entity_synonymy'"),
        (["--experts", "entity_relation", "--launcher", "rai"], "no engine 'rai'"),
        (["--experts", "entity_relation", "--fsdp"], "but there is one"),
    ):
        result = CliRunner().invoke(app, [*common, *more])
        assert isinstance(result.exception, StafError)
        assert message in str(result.exception)
    assert not list(tmp_path.iterdir())


def test_the_largest_comes_first_and_what_cannot_be_planned_fails(jobs: list[Job]) -> None:
    failures: dict[str, BaseException] = {}
    longer = replace(jobs[1], settings=SETTINGS.model_copy(update={"steps": 100}))
    wrong = replace(jobs[0], name="entity_attribute", settings=IMPOSSIBLE)
    assert by_size([jobs[0], wrong, longer], failures, NullProgress()) == [longer, jobs[0]]
    assert by_size([longer, jobs[0]], failures, NullProgress()) == [longer, jobs[0]]
    assert list(failures) == ["entity_attribute"]


def node(name: str, alive: bool = True, **resources: float) -> dict[str, Any]:
    return {"NodeID": name, "NodeManagerHostname": f"host-{name}", "Alive": alive, "Resources": resources}


def test_every_gpu_is_room_for_a_worker_else_every_machine() -> None:
    plain = [node("a", CPU=8.0), node("head", CPU=0.0), node("b", CPU=4.0), node("gone", alive=False, CPU=8.0), node("none")]
    assert [(slot.node, slot.cpus, slot.gpus) for slot in slots_of(plain)] == [("a", 8.0, 0), ("b", 4.0, 0)]
    mixed = slots_of([*plain, node("g", CPU=16.0, GPU=2.0)])
    assert [(slot.node, slot.cpus, slot.gpus) for slot in mixed] == [("g", 1, 1), ("g", 1, 1)]
    assert slots_of([]) == []


class Lost(Exception):
    """As RayError: the worker is gone."""


class Raised(Lost):
    """As RayTaskError: the function raised `cause`."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


Script = Callable[[str, str | None], Exception | None]
"""What happens on a machine (its node) with an expert's name, or None where a worker comes up there."""


class Cluster:
    """Stands for the module of Ray: calls end in the order in which they were made."""

    exceptions = SimpleNamespace(RayError=Lost, RayTaskError=Raised)
    util = SimpleNamespace(scheduling_strategies=SimpleNamespace(NodeAffinitySchedulingStrategy=lambda name, soft: name))

    def __init__(self, nodes: str, script: Script) -> None:
        self.names, self.script = nodes, script
        self.calls: dict[int, tuple[str, str | None]] = {}
        self.trained: list[tuple[str, str]] = []
        self.workers = self.killed = 0

    def nodes(self) -> list[dict[str, Any]]:
        return [node(name, CPU=1.0) for name in self.names]

    def remote(self, _: type) -> Any:
        return SimpleNamespace(options=lambda **options: SimpleNamespace(remote=lambda _: self.hire(**options)))

    def hire(self, scheduling_strategy: str, **_: object) -> Any:
        self.workers += 1

        def call(name: str | None) -> int:
            self.calls[len(self.calls)] = (scheduling_strategy, name)
            return len(self.calls) - 1

        return SimpleNamespace(
            ready=SimpleNamespace(remote=lambda _: call(None)), do=SimpleNamespace(remote=lambda job: call(job.name))
        )

    def wait(self, calls: list[int], num_returns: int) -> tuple[list[int], list[int]]:
        return sorted(calls)[:num_returns], sorted(calls)[num_returns:]

    def get(self, call: int) -> None:
        machine, name = self.calls[call]
        if error := self.script(machine, name):
            raise error
        if name is not None:
            self.trained.append((machine, name))

    def kill(self, _: object) -> None:
        self.killed += 1


def crew(nodes: str, names: list[str], script: Script) -> tuple[Cluster, dict[str, BaseException], list[str]]:
    cluster, failures, told = Cluster(nodes, script), {}, Told()
    engines._Crew(cluster, told, named(*names), failures).run("train experts")
    assert cluster.killed == cluster.workers
    return cluster, failures, told.lines


def test_no_more_workers_than_experts_and_each_expert_once() -> None:
    for nodes, names in (("ab", ["x"]), ("ab", ["x", "y", "z"]), ("a", ["x", "y", "z"])):
        cluster, failures, _ = crew(nodes, names, lambda machine, name: None)
        assert sorted(name for _, name in cluster.trained) == names
        assert cluster.workers == min(len(nodes), len(names))
        assert not failures


def test_the_expert_of_a_machine_that_dies_is_put_back_and_done_elsewhere() -> None:
    cluster, failures, lines = crew("ab", ["x", "y", "z"], lambda machine, name: Lost() if machine == "b" and name else None)
    assert sorted(cluster.trained) == [("a", "x"), ("a", "y"), ("a", "z")]
    assert not failures
    assert any("put back, 1 of at most 3 times" in line for line in lines)


def test_an_expert_that_kills_every_worker_is_given_up_and_the_others_finish() -> None:
    cluster, failures, _ = crew("ab", ["bad", "x", "y"], lambda machine, name: Lost() if name == "bad" else None)
    assert sorted(name for _, name in cluster.trained) == ["x", "y"]
    assert str(failures["bad"]) == f"{MAX_DEATHS + 1} workers died over it."


def test_an_error_of_an_expert_is_kept_and_its_worker_goes_on() -> None:
    wrong = ConfigError("too long")
    cluster, failures, _ = crew("a", ["bad", "x"], lambda machine, name: Raised(wrong) if name == "bad" else None)
    assert failures == {"bad": wrong}
    assert cluster.workers == 1
    assert cluster.trained == [("a", "x")]


def test_a_machine_where_no_worker_comes_up_is_passed_over() -> None:
    missing = Raised(FileNotFoundError("no such folder"))
    cluster, _, lines = crew("ab", ["x", "y"], lambda machine, name: missing if machine == "a" and name is None else None)
    assert [machine for machine, _ in cluster.trained] == ["b", "b"]
    assert "no worker on host-a: no such folder" in lines


def test_when_no_machine_is_left_it_is_said_what_is_not_done() -> None:
    with pytest.raises(TrainingFailed, match=r"no machine of the cluster is left for x, y\. Start one"):
        crew("ab", ["x", "y"], lambda machine, name: Lost())


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, Any]]:
    """A Ray cluster of two machines on this one, and the second of them."""
    module = pytest.importorskip("ray", reason="ray is not installed: pip install 'staf-llm[ray]'")
    from ray.cluster_utils import Cluster as Machines

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", str(Path(engines.__file__).parents[1]))
    store = {"object_store_memory": 100 << 20}
    cluster = Machines(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **store})
    second = [cluster.add_node(num_cpus=1, **store) for _ in range(2)][1]
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    yield cluster, second
    module.shutdown()
    cluster.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_machine_is_killed_while_training_and_the_experts_are_those_of_the_local_engine(
    jobs: list[Job], machines: tuple[Any, Any], tmp_path: Path
) -> None:
    cluster, second = machines
    longer = SETTINGS.model_copy(update={"steps": 150, "checkpoint_steps": 10})
    here = [replace(job, settings=longer) for job in jobs]
    there = [
        replace(job, out=tmp_path / "there", run_context=replace(job.run_context, runs=tmp_path / "there-runs")) for job in here
    ]

    def kill() -> None:
        end = time.monotonic() + 60
        while len({path.parts[-3] for path in (tmp_path / "there").glob(".training/*/*/checkpoint.json")}) < 2:
            if time.monotonic() > end:
                return
            time.sleep(0.05)
        cluster.remove_node(second, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    told = Told()
    ray(there, told)
    killer.join()
    assert sum("put back, 1 of at most" in line for line in told.lines) == 1
    local(here, NullProgress())
    for one, other in zip(here, there, strict=True):
        (mine,), (its,) = ((job.out / job.name).glob("*.safetensors") for job in (one, other))
        assert mine.name == its.name
        assert mine.read_bytes() == its.read_bytes()
    results = [json.loads(path.read_text()) for path in (tmp_path / "there-runs").rglob("result.json")]
    in_last_run = sorted(result["tokens_per_second"] * result["seconds"] / result["tokens"] for result in results)
    assert in_last_run[0] < 0.95  # it went on from its checkpoint
    assert in_last_run[1] == pytest.approx(1, abs=0.01)
