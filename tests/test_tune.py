"""Route-then-tune: the cut mixture, its training, what the folds choose, its folder, and who reads it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import COLOURS, deltas_of, make_examples, three_experts
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import staf
from staf.cli import app
from staf.data.example import Example
from staf.data.task import Task
from staf.errors import ConfigError, MissingData, TestLeak, TrainingFailed
from staf.experts.sets import write_set
from staf.experts.store import Expert, ExpertSet, load_expert
from staf.lm.base import Base, load_base
from staf.routing.merge import Mixture
from staf.routing.objective import LMLoss, RouterObjective
from staf.routing.recipe import RouterRecipe, TuneRecipe
from staf.routing.store import Router, load_router, save_router
from staf.routing.tune import Tuning, attached, chosen_steps, folds_of, routed_factors, tune_router
from staf.stages import adaptation
from staf.stages.context import Context
from staf.stages.tuning import tune_stage

IDS = torch.arange(1, 41).view(2, 20)
FULL_RANK = 48


@pytest.fixture
def mixture(base: Base, experts: ExpertSet) -> Mixture:
    return Mixture(base, experts)


@pytest.fixture
def examples() -> list[Example]:
    return make_examples(12, "adaptation")


def a_router(mixture: Mixture, granularity: str = "layer", **changes: Any) -> Router:
    recipe = RouterRecipe.model_validate({"granularity": granularity, "method": "cma", "shots": 4, **changes})
    weights = torch.rand({"task": 1, "layer": 2}[granularity], 3, generator=torch.Generator().manual_seed(1))
    return Router.of(mixture.base, mixture.experts, "colour", make_examples(2), recipe, weights, torch.zeros(1), {})


@torch.no_grad()
def logits(base: Base) -> torch.Tensor:
    return base.logits(base.hidden_states(IDS).flatten(0, 1))


def tuning_of(mixture: Mixture, router: Router, examples: list[Example], steps: int = 6, **changes: Any) -> Tuning:
    recipe = TuneRecipe(steps=steps, **changes)
    loss = RouterObjective(mixture, router.recipe).loss_on(examples)
    return Tuning(mixture.base, routed_factors(mixture.experts, router, recipe.rank), loss, recipe, 4, 0, steps)


def same(one: dict[str, Any], two: dict[str, Any]) -> bool:
    return all(torch.equal(x, y) for name in one for x, y in zip(one[name], two[name], strict=True))


def test_without_a_step_and_with_all_ranks_the_adapter_is_the_router(mixture: Mixture, examples: list[Example]) -> None:
    router, base = a_router(mixture), mixture.base
    mixture.set_weights(router.weights, "layer")
    routed = logits(base)
    with attached(base, tuning_of(mixture, router, examples, rank=FULL_RANK).run_until(0)):
        adapted = logits(base)
    assert (adapted - routed).abs().max() < 1e-4
    assert (logits(base) - routed).abs().max() > 1e-2  # afterwards it is the original model


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_the_cut_is_the_best_of_its_rank(mixture: Mixture, rank: int) -> None:
    router = a_router(mixture)
    found, dense = routed_factors(mixture.experts, router, rank), deltas_of(mixture, router.weights, "layer")
    assert found.keys() == dense.keys()
    for name, (b, a) in found.items():
        left, singular, right = torch.linalg.svd(dense[name].double(), full_matrices=False)
        best = (left[:, :rank] * singular[:rank]) @ right[:rank]
        assert a.shape[0] == min(rank, int((singular > 1e-6).sum()))
        assert torch.allclose((b @ a).double(), best, atol=1e-6)


def test_tuning_learns_the_same_way_each_time_and_leaves_the_base_as_it_was(mixture: Mixture, examples: list[Example]) -> None:
    router, base = a_router(mixture), mixture.base
    original, loss = logits(base), RouterObjective(mixture, router.recipe).loss_on(examples)
    one, values = tuning_of(mixture, router, examples, 30, learning_rate=0.01, anchor=0), list[float]()
    with attached(base, one.run_until(0)):
        before = loss()
    first = one.run_until(30, values.append)
    with attached(base, first):
        assert loss() < before - 0.3
    assert len(values) == 30
    assert same(first, tuning_of(mixture, router, examples, 30, learning_rate=0.01, anchor=0).run_until(30))
    assert torch.equal(logits(base), original)


def test_the_first_step_is_adamws_and_its_gradient_that_of_the_loss(mixture: Mixture, examples: list[Example]) -> None:
    """Against torch's own optimiser on plain factors, which are not offsets."""
    router, base = a_router(mixture), mixture.base
    start = routed_factors(mixture.experts, router, 8)
    plain = {name: tuple(part.clone().requires_grad_() for part in pair) for name, pair in start.items()}
    optimizer = torch.optim.AdamW([part for pair in plain.values() for part in pair if part.numel()], lr=0.01, weight_decay=0.0)
    one = tuning_of(mixture, router, examples, 1, learning_rate=0.01, anchor=0)
    batch = next(tuning_of(mixture, router, examples, 1).batches)
    base.lora.attach({name: (b, a, torch.ones(len(a))) for name, (b, a) in plain.items()})
    one.loss.batch_loss(batch).backward()
    optimizer.step()
    for name, pair in one.run_until(1).items():
        for found, expected in zip(pair, plain[name], strict=True):
            assert torch.allclose(found, expected, atol=1e-6)


def test_an_anchor_holds_the_factors_and_a_very_large_one_all_of_them(mixture: Mixture, examples: list[Example]) -> None:
    router = a_router(mixture)

    def distance(anchor: float) -> float:
        one = tuning_of(mixture, router, examples, 8, learning_rate=0.01, anchor=anchor)
        pairs = zip(one.start.values(), one.run_until(8).values(), strict=True)
        return sum(float((x - y).square().sum()) for old, new in pairs for x, y in zip(old, new, strict=True))

    free, held, fixed = distance(0), distance(30), distance(1e9)
    assert free > 2 * held > 0
    assert fixed < 1e-12


def test_a_loss_that_is_not_a_number_stops_with_what_to_do(
    mixture: Mixture, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = tuning_of(mixture, a_router(mixture), examples)
    monkeypatch.setattr(LMLoss, "batch_loss", lambda *_: torch.tensor(float("nan")))
    with pytest.raises(TrainingFailed, match=r"the loss of tuning is nan in step 1\. Lower its learning_rate"):
        one.run_until(1)
    assert mixture.base.lora.layers[next(iter(one.start))].lora_B is None


@given(
    st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["blue", "green", "red"])), min_size=2, max_size=30),
    st.integers(2, 5),
)
def test_folds_hold_every_example_once_and_a_group_in_one(rows: list[tuple[int, str]], most: int) -> None:
    made = [replace(e, group=f"g{g}", answer=a) for e, (g, a) in zip(make_examples(len(rows)), rows, strict=True)]
    groups = {group for group, _ in rows}
    if len(groups) < 2:
        with pytest.raises(MissingData, match="of one group"):
            folds_of(made, most, 0)
        return
    folds = folds_of(made, most, 0)
    assert sorted(i for fold in folds for i in fold) == list(range(len(rows)))
    assert len(folds) == min(most, len(groups))
    assert all(folds)
    for group in groups:
        assert sum(any(rows[i][0] == group for i in fold) for fold in folds) == 1


def test_each_label_is_spread_over_the_folds_and_the_seed_draws_them() -> None:
    made = make_examples(32)
    for fold in (folds := folds_of(made, 4, 0)):
        counts = Counter(made[i].answer for i in fold)
        assert len(fold) == 8
        assert all(abs(counts[label] - sum(e.answer == label for e in made) / 4) <= 1 for label in set(COLOURS.values()))
    assert folds == folds_of(made, 4, 0) != folds_of(made, 4, 1)


def test_the_lowest_held_out_loss_chooses_the_steps_and_the_router_stays_where_none_is_lower() -> None:
    assert chosen_steps(1.0, [20, 40, 60], [0.9, 0.8, 0.85]) == 40
    assert chosen_steps(1.0, [20, 40, 60], [0.9, 0.9, 0.95]) == 20  # of equals the fewest
    assert chosen_steps(0.8, [20, 40, 60], [0.9, 0.8, 0.85]) == 0
    assert chosen_steps(0.8, [20], [float("inf")]) == 0


def test_what_helps_on_held_out_examples_is_kept_and_what_does_not_is_not(mixture: Mixture) -> None:
    router = a_router(mixture, "task")
    kept = tune_router(mixture, router, make_examples(16, "adaptation"), TuneRecipe(steps=15, learning_rate=0.02, anchor=0))
    record = kept.record
    assert kept.factors is not None
    assert record["kept"]
    assert record["stops"] == [5, 10, 15]
    assert record["steps"] == record["stops"][record["losses"].index(min(record["losses"]))]
    assert min(record["losses"]) < record["router_loss"]
    assert [row["examples"] for row in record["folds"]] == [4] * 4
    assert record["router_loss"] == pytest.approx(sum(row["router_loss"] for row in record["folds"]) / 4)
    # a made-up case: the router knows the colours, and steps of this size destroy what it knows
    learned = Expert("colours", mixture.base.identity, kept.factors, frozenset())
    knowing = Mixture(mixture.base, ExpertSet((learned,)))
    weights = replace(router, weights=torch.ones(1, 1), experts=("colours",))
    left = tune_router(knowing, weights, make_examples(16, "adaptation"), TuneRecipe(steps=3, learning_rate=5, anchor=0))
    assert left.factors is None
    assert (left.record["kept"], left.record["steps"]) == (False, 0)
    assert min(left.record["losses"]) >= left.record["router_loss"]


def test_a_test_example_is_refused(mixture: Mixture) -> None:
    with pytest.raises(TestLeak):
        tune_router(mixture, a_router(mixture), make_examples(4, "test"), TuneRecipe(steps=1))


def test_experts_that_change_nothing_leave_nothing_to_tune(mixture: Mixture, examples: list[Example]) -> None:
    router = replace(a_router(mixture), weights=torch.zeros(2, 3))
    with pytest.raises(ConfigError, match="change nothing, so there is nothing to tune"):
        tune_router(mixture, router, examples, TuneRecipe(steps=1))


def test_the_loss_among_all_labels_is_tuned_too(mixture: Mixture, examples: list[Example]) -> None:
    router = a_router(mixture, objective="label_ce")
    found = tune_router(mixture, router, examples, TuneRecipe(steps=9, learning_rate=0.02, batch_size=12))
    assert all(0 < loss < 5 for loss in found.record["losses"])


# ---- its folder ------------------------------------------------------------------------------------------------------

FEW = ["--method", "cma", "--shots", "12", "-o", "max_evaluations=8", "-o", "popsize=4"]
FAST = ["--tune-arg", "steps=6", "--tune-arg", "folds=2", "--tune-arg", "learning_rate=0.02"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("tune")
    write_set(folder / "experts", three_experts(load_base(str(tiny_folder), dtype="float32", device="cpu")).experts)
    return folder


@pytest.fixture
def common(home: Path, tiny_folder: Path, own: Path) -> list[object]:
    return ["--base", tiny_folder, "--data-dir", own, "--dtype", "float32", "--json"]


def run(*arguments: object) -> dict[str, Any]:
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def adapt(home: Path, common: list[object], out: Path, *more: object) -> dict[str, Any]:
    options = ["--task", "icd10_chapter", "--experts", home / "experts", *common, *FEW]
    return run("adapt", *options, "--out", out, *more)


def test_a_tuned_router_is_made_once_and_answers_as_any_router(
    home: Path, common: list[object], tmp_path: Path, base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    real = adaptation.task_examples
    monkeypatch.setattr(adaptation, "task_examples", lambda task, split, store: read.append(split) or real(task, split, store))
    out = home / "one"
    found = adapt(home, common, out, "--tune", *FAST)
    (tuned,) = found["tuned"]
    assert tuned["kept"]
    assert set(read) == {"adaptation"}  # no test item is read
    files = {path: path.read_bytes() for path in (out / "tuned").rglob("*") if path.is_file()}
    assert adapt(home, common, out, "--tune", *FAST) == found
    assert {path: path.read_bytes() for path in files} == files
    again = adapt(home, common, home / "again", "--tune", *FAST)
    for path, content in files.items():
        if path.name != "cost.json":
            assert (home / "again" / path.relative_to(out)).read_bytes() == content  # the same seed, the same bytes
    assert again["tuned"][0]["losses"] == tuned["losses"]
    router = load_router(out / "tuned")
    assert router.experts == ("adapter",)
    assert router.weights.tolist() == [[1.0]]
    assert router.record["tunable_parameters"] == load_expert(out / "tuned" / "adapter").num_params
    scored = run(
        "evaluate", "--task", "icd10_chapter", "--router", out / "tuned", "--runs", home / "runs", "--limit", 4, *common
    )
    assert (scored["method"], scored["setting"], scored["adaptation_examples"]) == ("route_then_tune", "few-shot", 12)
    assert scored["settings"]["router"]["tune"]["steps"] == 6
    (tmp_path / "in.jsonl").write_text('{"context": "fever"}\n')
    for options in ([], ["--experts", home / "experts"]):
        answers = tmp_path / f"out{len(options)}.jsonl"
        run("predict", tmp_path / "in.jsonl", "--router", out / "tuned", *options, "--out", answers, *common)
        assert len(json.loads(answers.read_text())["probabilities"]) > 1
    adapted = staf.load_adapted(out / "tuned", base=str(base.folder), dtype="float32", device="cpu")
    assert adapted.predict(["fever"]) == [json.loads(answers.read_text())["answer"]]


def test_peft_loads_the_adapter_with_the_same_logits(home: Path, common: list[object]) -> None:
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    folder, base = home / "one" / "tuned", load_base(str(common[1]), dtype="float32", device="cpu")
    adapt(home, common, home / "one", "--tune", *FAST)
    router = load_router(folder)
    Mixture(base, router.load_experts()).set_weights(router.weights)
    plain = AutoModelForCausalLM.from_pretrained(str(common[1]), dtype=torch.float32)
    with torch.no_grad():
        expected = peft.PeftModel.from_pretrained(plain, str(folder / "adapter"))(input_ids=IDS).logits.flatten(0, 1)
    assert (logits(base) - expected).abs().max() < 1e-4
    base.lora.detach()
    assert (logits(base) - expected).abs().max() > 1e-2


def test_where_tuning_does_not_help_the_router_stays_and_there_is_no_adapter(
    home: Path, common: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = home / "left"
    adapt(home, common, out, "--tune", *FAST)
    assert (out / "tuned" / "adapter").exists()
    monkeypatch.setattr("staf.routing.tune.chosen_steps", lambda *_: 0)
    found = adapt(home, common, out, "--tune-arg", "steps=6")
    assert not found["tuned"][0]["kept"]
    assert not (out / "tuned" / "adapter").exists()
    router, tuned = load_router(out), load_router(out / "tuned")
    assert torch.equal(router.weights, tuned.weights)
    assert tuned.load_experts(home / "experts").names == router.experts
    command = ["evaluate", "--task", "icd10_chapter", "--experts", home / "experts", "--runs", home / "runs", "--limit", 4]
    one, two = (run(*command, *common, "--router", folder) for folder in (out, out / "tuned"))
    assert (one["method"], two["method"]) == ("few_shot", "route_then_tune")
    assert one["metrics"] == two["metrics"]


def test_a_stop_leaves_no_router_and_the_same_command_makes_it(
    home: Path, common: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """As a kill is."""

    def save(folder: Path, router: Router) -> None:
        if folder.name == "tuned":
            raise Killed
        save_router(folder, router)

    out = home / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr(adaptation, "save_router", save)
        with pytest.raises(Killed):
            adapt(home, common, out, "--tune", *FAST)
    assert not (out / "tuned" / "router.json").exists()  # the adapter is there, and nothing reads it
    found = adapt(home, common, out, "--tune", *FAST)
    assert found["tuned"][0]["kept"]
    assert load_router(out / "tuned").load_experts().names == ("adapter",)
    assert not (out / "tuned" / ".removed").exists()


def test_in_python_it_is_one_argument(home: Path, tiny_folder: Path, own: Path, tmp_path: Path) -> None:
    where = {"dtype": "float32", "device": "cpu", "runs": tmp_path / "runs", "data": own}
    model = staf.load_model(home / "experts", str(tiny_folder), **where)
    few = {"shots": 12, "max_evaluations": 8, "out": tmp_path / "router"}
    with pytest.raises(ConfigError, match="did you mean 'steps'"):
        model.adapt("icd10_chapter", tune={"step": 3}, **few)
    adapted = model.adapt("icd10_chapter", tune={"steps": 3, "folds": 2, "learning_rate": 0.02}, **few)
    assert adapted.weights == {"adapter": 1.0}
    again = model.load(tmp_path / "router" / "tuned")
    assert again.predict_proba(["fever"]).tolist() == adapted.predict_proba(["fever"]).tolist()
    assert (adapted.export(tmp_path / "peft", format="peft") / "adapter_config.json").is_file()
    assert model.adapt("icd10_chapter", **few).weights.keys() == {"attribute", "relation", "synonymy"}
    assert adapted.evaluate(limit=2).result["method"] == "route_then_tune"


def test_a_router_without_labels_is_not_tuned(mixture: Mixture, tmp_path: Path) -> None:
    router, task = a_router(mixture, "task", method="zero_shot"), Task(task="colour", title="", task_type="colour")
    with pytest.raises(ConfigError, match="reads no labels, so there is nothing to tune it on"):
        tune_stage(Context(None, tmp_path, tmp_path), task, router, mixture.experts, TuneRecipe(), tmp_path)
