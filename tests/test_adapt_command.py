"""staf adapt on a tiny model: the table and the JSON object, several seeds, a warm start, and a stop in between."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from conftest import random_expert
from typer.testing import CliRunner

from staf.cli import app
from staf.errors import ConfigError, ExpertMismatch
from staf.experts.store import save_expert
from staf.lm.base import load_base
from staf.routing.adapt import OnProgress
from staf.routing.objective import RouterObjective, TaskLoss
from staf.routing.store import load_router

FEW = ["--method", "cma", "--shots", "4", "-o", "max_evaluations=12", "-o", "popsize=4"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """A folder with three experts of the tiny base."""
    folder, base = tmp_path_factory.mktemp("adapt"), load_base(str(tiny_folder), dtype="float32", device="cpu")
    for seed, name in enumerate(("attribute", "relation", "synonymy")):
        save_expert(folder / "experts" / name, random_expert(base, name, seed, scale=1.5))
    return folder


@pytest.fixture
def common(home: Path, tiny_folder: Path, own: Path) -> list[object]:
    return ["--experts", home / "experts", "--base", tiny_folder, "--data-dir", own, "--runs", home / "runs"]


def adapt(*arguments: object) -> str:
    """What the command prints on stdout."""
    command = ["adapt", "--task", "icd10_chapter", *(str(a) for a in arguments)]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_too_few_evaluations_are_refused_before_the_base_is_loaded(
    home: Path, common: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("staf.stages.context.Context.mixture", None)
    with pytest.raises(ConfigError, match="gives CMA-ES 3 parameters, more than max_evaluations = 2"):
        adapt(*common, "--method", "cma", "--shots", 4, "-o", "max_evaluations=2", "--out", home / "few")


def test_one_router_as_a_table_and_as_one_object(home: Path, common: list[object]) -> None:
    table = adapt(*common, *FEW, "--out", home / "one", "-o", "restarts=2")
    for text in ("Weights of the experts for icd10_chapter", "spread over 2 restarts", "synonymy", "stop reason"):
        assert text in table
    drawing = ElementTree.parse(home / "one" / "weights.svg").getroot()
    assert drawing.tag == "{http://www.w3.org/2000/svg}svg"
    assert "synonymy 0." in "".join(drawing.itertext())
    found = json.loads(adapt(*common, *FEW, "--out", home / "one", "-o", "restarts=2", "--json"))
    assert sum(found["weights"].values()) == pytest.approx(1, abs=1e-5)
    assert found["spread_over"] == "2 restarts"
    assert set(found["spread"]) == {"attribute", "relation", "synonymy"}
    assert len(found["restarts"]) == 2
    assert found["evaluations"] == 24
    assert found["stop_reason"] == "max_evaluations=12"
    assert not (home / "one" / "checkpoint").exists()


def test_several_seeds_have_a_folder_each_and_a_mean_with_its_deviation(home: Path, common: list[object]) -> None:
    out = home / "many"
    found = json.loads(adapt(*common, *FEW, "--out", out, "--seeds", 3, "--json"))
    routers = [load_router(out / f"seed-{seed}") for seed in range(3)]
    assert [one["folder"] for one in found["routers"]] == [str(out / f"seed-{seed}") for seed in range(3)]
    assert len({tuple(one["example_ids"]) for one in found["routers"]}) > 1  # each seed draws its own shots
    weights = [router.mean_weights["relation"] for router in routers]
    assert found["weights"]["relation"] == pytest.approx(statistics.fmean(weights))
    assert found["spread"]["relation"] == pytest.approx(statistics.stdev(weights))
    assert found["loss"]["spread"] == pytest.approx(statistics.stdev(router.record["loss"] for router in routers))
    table = " ".join(adapt(*common, *FEW, "--out", out, "--seeds", 3).split())
    assert "spread over 3 seeds" in table
    assert f"{found['loss']['mean']:.3f} ± {found['loss']['spread']:.3f}" in table


def test_a_start_is_taken_and_recorded_and_one_that_does_not_fit_is_refused(home: Path, common: list[object]) -> None:
    first, second = home / "first", home / "second"
    adapt(*common, *FEW, "--out", first)
    found = json.loads(adapt(*common, *FEW, "--out", second, "--init-from", first, "--json"))
    assert found["init_from"] == {"task": "icd10_chapter", "run": load_router(first).record["run"]}
    assert found["run"] != found["init_from"]["run"]
    with pytest.raises(ConfigError, match=r"it has granularity=task, this recipe has granularity=layer\. Set them to the same"):
        adapt(*common, *FEW, "--out", home / "third", "--init-from", first, "-o", "granularity=layer")
    with pytest.raises(ConfigError, match="cannot be its own start"):
        adapt(*common, *FEW, "--out", first, "--init-from", first)
    base = load_base(str(common[3]), dtype="float32", device="cpu")
    save_expert(home / "others" / "attribute", random_expert(base, "attribute", 9))
    with pytest.raises(ExpertMismatch, match="was made for the experts attribute, relation, synonymy"):
        adapt("--experts", home / "others", *common[2:], *FEW, "--out", home / "third", "--init-from", first)
    assert not (home / "third").exists()


def test_a_router_of_the_best_expert_is_made_once_and_is_a_start(home: Path, common: list[object]) -> None:
    best = home / "best"
    found = json.loads(adapt(*common, "--method", "best_expert", "--shots", 4, "--out", best, "--json"))
    assert found["weights"][min(found["losses"], key=found["losses"].__getitem__)] == max(found["weights"].values())
    assert found["loss"] == min(found["losses"].values())
    again = adapt(*common, "--method", "best_expert", "--shots", 4, "--out", best)
    assert "Weights of the experts for icd10_chapter" in again
    assert "Router of the best expert" in (best / "weights.svg").read_text()
    searched = json.loads(adapt(*common, *FEW, "--init-from", best, "--out", home / "from-best", "--json"))
    assert searched["init_from"] == {"task": "icd10_chapter", "run": found["run"]}
    for wrong in (["--seeds", 2], ["--init-from", home / "one"]):
        with pytest.raises(
            ConfigError, match="a best-expert router is computed, not searched for: leave --seeds and --init-from"
        ):
            adapt(*common, "--method", "best_expert", *wrong, "--out", home / "wrong")


@pytest.mark.parametrize("method", ["cma", "gradient"])
def test_the_same_command_goes_on_after_a_stop(
    home: Path, common: list[object], monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    from staf.stages import adaptation

    few = FEW if method == "cma" else ["--shots", 12, "-o", "batch_size=4", "-o", "epochs=3"]
    adapt(*common, *few, "--out", home / f"{method}-whole")
    real, calls = adaptation.adapt_router, [0]

    class Killed(BaseException):
        """As a kill is."""

    def stopping(*arguments: object, **options: object) -> object:
        def on_progress(done: int, loss: float) -> None:
            calls[0] += 1
            if calls[0] == (2 if method == "cma" else 4):
                raise Killed

        progress: OnProgress = on_progress
        return real(*arguments[:4], progress, **options)

    monkeypatch.setattr(adaptation, "adapt_router", stopping)
    out = home / f"{method}-stopped"
    with pytest.raises(Killed):
        adapt(*common, *few, "--out", out)
    monkeypatch.setattr(adaptation, "adapt_router", real)
    assert (out / "checkpoint").exists()
    evaluated: list[int] = []
    real_losses = RouterObjective.task_losses

    def task_losses(self: RouterObjective, candidates: list[torch.Tensor], loss: TaskLoss) -> list[float]:
        evaluated.extend([1] * len(candidates))
        return real_losses(self, candidates, loss)

    monkeypatch.setattr(RouterObjective, "task_losses", task_losses)
    adapt(*common, *few, "--out", out)
    assert len(evaluated) == (4 if method == "cma" else 2)
    files = [next((home / f"{method}-{name}").glob("router-*.safetensors")) for name in ("whole", "stopped")]
    assert files[0].name == files[1].name
    assert files[0].read_bytes() == files[1].read_bytes()
    assert not (out / "checkpoint").exists()


def test_another_number_format_is_another_router_and_another_run(home: Path, common: list[object]) -> None:
    out, found = home / "formats", []
    for options in (["--dtype", "float32"], ["--dtype", "bfloat16"], ["--dtype", "float32"]):
        found.append(json.loads(adapt(*common, *FEW, "--out", out, *options, "--json")))
        score = ["evaluate", "--task", "icd10_chapter", *common, "--router", out, "--limit", 3, *options, "--json"]
        scored = CliRunner().invoke(app, [str(a) for a in score], catch_exceptions=False)
        found[-1]["scored"] = json.loads(scored.stdout)["run"]
    assert found[0]["run"] == found[2]["run"] != found[1]["run"]
    assert found[0]["scored"] == found[2]["scored"] != found[1]["scored"]
    assert found[0]["weights"] == found[2]["weights"]


def test_what_a_smaller_set_costs_the_task_is_measured(home: Path, common: list[object], tmp_path: Path) -> None:
    adapt(*common, *FEW, "--out", home / "measured")
    router, options = load_router(home / "measured"), [*common[2:6], "--router", home / "measured", "--measure"]

    def reduce(name: str, *more: object) -> dict[str, object]:
        command = ["experts", "reduce", home / "experts", tmp_path / name, *options, *more, "--json"]
        result = CliRunner().invoke(app, [str(a) for a in command], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)["loss"]

    whole, fewer, lower = reduce("whole", "--keep", 3), reduce("fewer", "--keep", 1), reduce("lower", "--rank", 1)
    before = router.record["loss"] - router.record["penalty"]
    assert whole == {"before": pytest.approx(before, abs=1e-5), "after": pytest.approx(before, abs=1e-5)}
    for changed in (fewer, lower):
        assert changed["before"] == pytest.approx(before, abs=1e-5)
        assert abs(changed["after"] - before) > 1e-4
    with pytest.raises(ConfigError, match="--measure needs --router"):
        CliRunner().invoke(app, ["experts", "reduce", "a", "b", "--rank", "2", "--measure"], catch_exceptions=False)
