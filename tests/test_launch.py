"""Launchers: both leave the same experts; errors are reported by name at the end; a machine that dies costs no work."""

from __future__ import annotations

import json
import os
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

from staf.cli import app
from staf.compute import ComputeOptions
from staf.errors import ConfigError, MissingData, StafError, TrainingFailed, UnknownName
from staf.experts import launch
from staf.experts.distributed import World
from staf.experts.launch import run_ray
from staf.experts.recipe import ExpertRecipe
from staf.experts.store import load_expert
from staf.log import NullProgress
from staf.stages import context
from staf.stages.context import RunContext
from staf.stages.training import TrainingJob, train_experts, train_on_ray

RECIPE = ExpertRecipe(steps=12, batch_size=4, tinit=2, tfinal=4, max_length=500)
IMPOSSIBLE = RECIPE.model_copy(update={"max_length": 16})
"""The query does not fit."""


class Lines(NullProgress):
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def run_context(tiny_folder: Path, own: Path, tmp_path: Path) -> RunContext:
    return RunContext(str(tiny_folder), own, tmp_path / "runs", "staf-llm", ComputeOptions(dtype="float32"))


@pytest.fixture
def jobs(run_context: RunContext, tmp_path: Path) -> list[TrainingJob]:
    return [TrainingJob(name, RECIPE, tmp_path / "experts", run_context) for name in ("entity_synonymy", "entity_relation")]


def test_one_base_is_loaded_for_all_and_failures_are_reported_at_the_end(
    jobs: list[TrainingJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []
    real = context.open_base
    monkeypatch.setattr(context, "open_base", lambda *given: loaded.append(given) or real(*given))
    progress = Lines()
    with pytest.raises(TrainingFailed, match=r"(?s)1 of 3 experts failed.*entity_attribute: ConfigError: example"):
        train_experts([replace(jobs[0], name="entity_attribute", recipe=IMPOSSIBLE), *jobs], "local", progress)
    assert len(loaded) == 1
    assert "entity_attribute failed: ConfigError" in progress.lines
    assert {load_expert(job.out / job.name).name for job in jobs} == {"entity_synonymy", "entity_relation"}


def test_the_error_of_a_single_expert_is_its_own(jobs: list[TrainingJob]) -> None:
    with pytest.raises(ConfigError, match="its query takes"):
        train_experts([replace(jobs[0], recipe=IMPOSSIBLE)], "local", NullProgress())


def test_of_several_processes_one_with_an_error_stops(jobs: list[TrainingJob], monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def fails(_: object, name: str, *__: object) -> None:
        tried.append(name)
        raise StafError("disk full")

    monkeypatch.setattr("staf.stages.training.train_stage", fails)
    with pytest.raises(StafError, match="disk full"):
        train_experts(jobs, "local", NullProgress(), World(0, 2))
    assert tried == ["entity_synonymy"]


@pytest.mark.parametrize("launcher", ["local", "ray"])
def test_what_is_wrong_with_all_jobs_is_reported_once_and_at_once(launcher: str, jobs: list[TrainingJob]) -> None:
    wrong = [replace(job, run_context=replace(job.run_context, split_scheme="half")) for job in jobs]
    with pytest.raises(UnknownName, match="no split scheme 'half'"):
        train_experts(wrong, launcher, NullProgress())


def test_ray_and_torchrun_are_not_mixed(jobs: list[TrainingJob]) -> None:
    with pytest.raises(ConfigError, match="trains each expert in one process"):
        train_experts(jobs, "ray", NullProgress(), World(0, 2))
    sharded = [replace(job, run_context=replace(job.run_context, fsdp=True)) for job in jobs]
    with pytest.raises(ConfigError, match="trains each expert in one process"):
        train_experts(sharded, "ray", NullProgress(), World(0, 2))


def test_without_ray_the_message_says_how_to_get_it(jobs: list[TrainingJob], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingData, match=r"pip install 'staf-llm\[ray\]'"):
        train_experts(jobs, "ray", NullProgress())


def test_a_cluster_that_does_not_answer(jobs: list[TrainingJob], monkeypatch: pytest.MonkeyPatch) -> None:
    def init(*_: object, **__: object) -> None:
        raise ConnectionError("Failed to connect to Ray cluster at host:6379")

    for name in launch.RAY_DEFAULTS | launch.RAY_LOCAL:
        monkeypatch.setenv(name, "1")
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False, init=init))
    with pytest.raises(MissingData, match=r"no Ray cluster answers: .* at host:6379\. Start it"):
        run_ray("train", jobs, NullProgress())


@pytest.mark.parametrize(("address", "running", "here"), [
    (None, False, True), ("local", True, True), (None, True, False), ("host:6379", False, False),
])  # fmt: skip
def test_a_ray_that_starts_here_listens_on_loopback_and_asks_for_a_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str | None, running: bool, here: bool
) -> None:
    found: list[object] = []

    def init(given: str | None, **_: object) -> None:
        found.extend([given, os.environ.get("RAY_AUTH_MODE"), os.environ.get("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER")])
        raise ConnectionError

    for name in launch.RAY_DEFAULTS | launch.RAY_LOCAL | {"RAY_ADDRESS": ""}:
        monkeypatch.setenv(name, "")  # restored afterwards
        monkeypatch.delenv(name)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    if address:
        monkeypatch.setenv("RAY_ADDRESS", address)
    if running:
        (tmp_path / "ray").mkdir()
        (tmp_path / "ray" / "ray_current_cluster").write_text("10.0.0.1:6379")
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False, init=init))
    with pytest.raises(MissingData):
        run_ray("train", [], NullProgress())
    assert found == (["local", "token", "0"] if here else [None, None, None])


def test_the_command_rejects_a_misspelt_expert_or_launcher_before_it_trains(tmp_path: Path) -> None:
    common = ["train", "--out", str(tmp_path / "experts"), "--runs", str(tmp_path / "runs")]
    for more, message in (
        (["--experts", "entity_relation,entity_synonmy"], "Did you mean 'entity_synonymy'"),
        (["--experts", "entity_relation", "--launcher", "rai"], "no launcher 'rai'. Did you mean 'ray'"),
        (["--experts", "entity_relation", "--fsdp"], "but there is one"),
    ):
        result = CliRunner().invoke(app, [*common, *more])
        assert isinstance(result.exception, StafError)
        assert message in str(result.exception)
    assert not list(tmp_path.iterdir())


class Lost(Exception):
    """As RayError: the worker is gone, and Ray's retries are spent."""


class Raised(Lost):
    """As RayTaskError: the function raised `cause`."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


def node(alive: bool = True, **resources: float) -> dict[str, Any]:
    return {"Alive": alive, "Resources": resources}


class Cluster:
    """Stands for the module of Ray; calls end in the order in which they were made."""

    exceptions = SimpleNamespace(RayError=Lost, RayTaskError=Raised)

    def __init__(self, script: Callable[[str], Exception | None] = lambda name: None) -> None:
        self.script, self.names, self.cancelled = script, list[str](), list[int]()
        self.asked: dict[str, Any] = {}

    def is_initialized(self) -> bool:
        return True

    def nodes(self) -> list[dict[str, Any]]:
        return [node(CPU=8.0), node(CPU=0.0), node(CPU=4.0), node(alive=False, CPU=1.0), node()]

    def remote(self, _: object) -> Any:
        def options(**asked: Any) -> Any:
            self.asked = asked
            return SimpleNamespace(remote=self.call)

        return SimpleNamespace(options=options)

    def call(self, job: TrainingJob, folder: str) -> int:
        assert folder == str(Path.cwd())
        self.names.append(job.name)
        return len(self.names) - 1

    def wait(self, calls: list[int], num_returns: int) -> tuple[list[int], list[int]]:
        return calls[:num_returns], calls[num_returns:]

    def get(self, call: int) -> None:
        if error := self.script(self.names[call]):
            raise error

    def cancel(self, call: int, force: bool) -> None:
        self.cancelled.append(call)


def test_the_largest_is_submitted_first_and_one_without_data_fails(
    jobs: list[TrainingJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Cluster()
    monkeypatch.setitem(sys.modules, "ray", cluster)
    longer = replace(jobs[1], recipe=RECIPE.model_copy(update={"steps": 100}))
    missing = replace(jobs[0], run_context=replace(jobs[0].run_context, data=Path("nowhere")))
    with pytest.raises(StafError):
        missing.run_context.context(NullProgress())
    assert list(train_on_ray([jobs[0], missing, longer], NullProgress())) == [missing.name]
    assert cluster.names == [longer.name, jobs[0].name]
    assert (cluster.asked["num_cpus"], cluster.asked["max_retries"]) == (4, launch.MAX_RETRIES)


def test_gpus_are_asked_for_where_there_are_any() -> None:
    found = launch._resources([node(CPU=8.0), node(CPU=16.0, GPU=2.0)])
    assert (found["num_gpus"], found["num_cpus"]) == (1, 1)
    assert launch._resources([])["num_cpus"] == 1


def test_failures_on_a_cluster_are_reported_and_the_others_finish(
    jobs: list[TrainingJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = ConfigError("too long")
    script = {"bad": Raised(wrong), "deadly": Lost()}
    cluster, progress = Cluster(script.get), Lines()
    monkeypatch.setitem(sys.modules, "ray", cluster)
    failures = run_ray("train", [replace(jobs[0], name=name) for name in ("bad", "x", "deadly", "y")], progress)
    assert failures["bad"] is wrong
    assert str(failures["deadly"]) == "its worker died 4 times (Lost)."
    assert [line for line in progress.lines if "failed" in line] == ["bad failed: ConfigError", "deadly failed: TrainingFailed"]
    assert cluster.cancelled == []


def test_an_interrupted_command_cancels_what_is_running(jobs: list[TrainingJob], monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(name: str) -> Exception | None:
        raise KeyboardInterrupt

    cluster = Cluster(stop)
    monkeypatch.setitem(sys.modules, "ray", cluster)
    with pytest.raises(KeyboardInterrupt):
        run_ray("train", jobs, NullProgress())
    assert cluster.cancelled == [1]


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, Any]]:
    """A Ray cluster of two machines on this one, and the second of them."""
    module = pytest.importorskip("ray", reason="ray is not installed: pip install 'staf-llm[ray]'")
    from ray.cluster_utils import Cluster as Machines

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(launch.__file__).parents[2]), *filter(None, sys.path)]))
    store = {"object_store_memory": 100 << 20}
    cluster = Machines(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **store})
    second = [cluster.add_node(num_cpus=1, **store) for _ in range(2)][1]
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    yield cluster, second
    module.shutdown()
    cluster.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_machine_is_killed_while_training_and_the_experts_are_those_of_the_local_launcher(
    jobs: list[TrainingJob], machines: tuple[Any, Any], tmp_path: Path
) -> None:
    cluster, second = machines
    options = ComputeOptions(dtype="float32", save_steps=10)
    longer = RECIPE.model_copy(update={"steps": 150})
    here = [replace(job, recipe=longer, run_context=replace(job.run_context, compute=options)) for job in jobs]
    there = [
        replace(job, out=tmp_path / "there", run_context=replace(job.run_context, runs=tmp_path / "there-runs")) for job in here
    ]

    def kill() -> None:
        end = time.monotonic() + 300
        while len({path.parts[-3] for path in (tmp_path / "there").glob(".training/*/*/checkpoint.json")}) < 2:
            if time.monotonic() > end:
                return
            time.sleep(0.05)
        cluster.remove_node(second, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    train_experts(there, "ray", NullProgress())
    killer.join()
    train_experts(here, "local", NullProgress())
    for one, other in zip(here, there, strict=True):
        (mine,), (its,) = ((job.out / job.name).glob("adapter_model.safetensors") for job in (one, other))
        assert mine.name == its.name
        assert mine.read_bytes() == its.read_bytes()
    results = [json.loads(path.read_text()) for path in (tmp_path / "there-runs").rglob("result.json")]
    in_last_run = sorted(result["tokens_per_second"] * result["seconds"] / result["tokens"] for result in results)
    assert in_last_run[0] < 0.95  # it resumed from its checkpoint
    assert in_last_run[1] == pytest.approx(1, abs=0.01)
