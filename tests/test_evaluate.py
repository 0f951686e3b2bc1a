"""Evaluation: every output type becomes predictions, by routed experts and by baselines alike; scores become probabilities."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Interrupted, make_examples

from staf.baselines.lorahub import composed, lorahub
from staf.baselines.methods import baseline_predictions
from staf.baselines.peft import Tuning, plain_model, tuned_base
from staf.baselines.settings import BaselineSettings
from staf.compute import numerics
from staf.data.answers import write_several
from staf.data.example import Example
from staf.data.task import Task
from staf.errors import ConfigError, DamagedFile, MissingData, TestLeak
from staf.evaluate.answer import Answerer, PartialPredictions, calibrate, predictions_of, routed
from staf.evaluate.calibrate import LabelCalibrator, draw
from staf.evaluate.score import best_single, compare_with_baselines
from staf.evaluate.settings import EvaluationSettings
from staf.experts.store import ExpertSet
from staf.lm.base import Base
from staf.lm.batches import encode_prompt
from staf.lm.scoring import OnBatch
from staf.metrics.by_output_type import compute_metrics
from staf.metrics.methods import titles
from staf.metrics.schema import check
from staf.routing.adapt import examples_digest
from staf.routing.merge import Mixture
from staf.routing.router import one_hot, uniform
from staf.runs import Run

SETTINGS = EvaluationSettings(max_length=200, token_budget=1024, max_new_tokens=6)
METRICS = {
    "multiple_choice": "accuracy",
    "multi_label": "micro_f1",
    "span": "exact_match",
    "ner": "entity_f1",
    "generate_until": "rouge_l",
}
OUTPUT_TYPES = tuple(METRICS)
DRUGS = ("aspirin", "heparin", "insulin")


class Told:
    """Answers as given."""

    on_done = None

    def __init__(self, answers: Sequence[str], scores: Sequence[Sequence[float]] = ()) -> None:
        self.answers, self.found = list(answers), [np.array(s) for s in scores]

    def scores(self, examples: Sequence[Example], on_batch: OnBatch | None = None) -> list[np.ndarray]:
        if on_batch is not None:
            on_batch(range(len(examples)), self.found[: len(examples)])
        return self.found[: len(examples)]

    def texts(self, examples: Sequence[Example], on_batch: OnBatch, *, spans: bool = False) -> None:
        on_batch(range(len(examples)), self.answers)

    def truncated(self, examples: Sequence[Example]) -> list[bool]:
        return [False] * len(examples)


def several(count: int, split: str) -> list[Example]:
    """Each has one to three drugs."""
    found = []
    for i in range(count):
        chosen = [drug for bit, drug in enumerate(DRUGS) if (i % 7 + 1) >> bit & 1]
        answer, labels = write_several(chosen, DRUGS), DRUGS
        found.append(replace(make_examples(i + 1, split)[i], output_type="multi_label", answer=answer, labels=labels))
    return found


def of_form(output_type: str, count: int, split: str) -> list[Example]:
    if output_type == "multi_label":
        return several(count, split)
    examples = make_examples(count, split)
    if output_type == "multiple_choice":
        return examples
    if output_type == "ner":
        return [
            replace(e, output_type=output_type, answer=f"thing: {e.context.split()[0]}", labels=("thing", "place"))
            for e in examples
        ]
    return [replace(e, output_type=output_type, answer=e.context.split()[0], labels=()) for e in examples]


@pytest.mark.parametrize("output_type", OUTPUT_TYPES)
def test_every_form_is_predicted_in_its_shape(base: Base, experts: ExpertSet, output_type: str) -> None:
    test, calibration = (
        of_form(output_type, 7, "test"),
        of_form(output_type, 7, "adaptation") if output_type == "multi_label" else [],
    )
    done: list[int] = []
    with routed(base, Mixture(base, experts), uniform(3)):
        assert any(layer.rank_scale is not None for layer in base.lora.layers.values())
        found = predictions_of(output_type, Answerer(base, SETTINGS, done.append), test, calibration)
    check(output_type, found)
    assert [p["id"] for p in found] == [e.id for e in test]
    assert sum(done) == len(test) + len(calibration)
    assert all(layer.rank_scale is None for layer in base.lora.layers.values())
    if output_type == "span":
        assert all(p["answer"] in e.context for p, e in zip(found, test, strict=True))


@pytest.mark.parametrize("output_type", OUTPUT_TYPES)
def test_an_untouched_plain_model_answers_as_the_routed_base(base: Base, output_type: str) -> None:
    test, calibration = (
        of_form(output_type, 5, "test"),
        of_form("multi_label", 7, "adaptation") if output_type == "multi_label" else [],
    )
    ours = predictions_of(output_type, Answerer(base, SETTINGS), test, calibration)
    done: list[int] = []
    plain = predictions_of(output_type, Answerer(tuned_base(base, plain_model(base)), SETTINGS, done.append), test, calibration)
    assert sum(done) == len(test) + len(calibration)
    for mine, other in zip(ours, plain, strict=True):
        assert mine.keys() == other.keys()
        assert mine.get("answer") == other.get("answer")
        np.testing.assert_allclose(mine.get("scores", []), other.get("scores", []), atol=2e-3)


@pytest.mark.parametrize("output_type", OUTPUT_TYPES)
@pytest.mark.parametrize("name", ["prompt_tuning", "prefix_tuning", "lora", "in_context"])
def test_baselines_answer_every_form(base: Base, name: str, output_type: str) -> None:
    task = Task(task="things", title="Things", task_type="colour", output_type=output_type)
    settings = BaselineSettings.model_validate(
        {
            "method": name,
            "learning_rates": (0.01,),
            "epochs": 1,
            "batch_size": 4,
            "num_virtual_tokens": 3,
            "rank": 2,
            "shots": 4,
        }
    )
    test, adaptation = of_form(output_type, 3, "test"), of_form(output_type, 7, "adaptation")
    calibration = draw(adaptation, 4, 0).calibrating
    found, record = baseline_predictions(base, task, adaptation, test, settings, SETTINGS, calibration=calibration)
    check(output_type, found)
    assert [p["id"] for p in found] == [e.id for e in test]
    assert record["adaptation_examples"] == 4 - len(calibration)


@pytest.mark.parametrize("name", list(titles("trained")))
def test_what_a_trained_baseline_writes_is_most_likely_by_its_whole_forward(base: Base, name: str) -> None:
    settings = BaselineSettings.model_validate({"method": name, "num_virtual_tokens": 3, "rank": 2, "batch_size": 4})
    tuning = Tuning(base, of_form("generate_until", 6, "adaptation"), settings, 100, 1024)
    model = tuning.fit(tuning.items, 0.02, 2)[0].eval()
    asked = of_form("generate_until", 2, "test")
    found = Answerer(tuned_base(base, model), SETTINGS).texts(asked)
    for example, answer in zip(asked, found, strict=True):
        tokens, start = encode_prompt(example, base.tokenizer, 100), len(encode_prompt(example, base.tokenizer, 100))
        while len(tokens) < start + SETTINGS.max_new_tokens:
            best = int(model(input_ids=torch.tensor([tokens])).logits[0, -1].argmax())
            if best == base.tokenizer.eos_token_id:
                break
            tokens.append(best)
        assert answer == base.tokenizer.decode(tokens[start:], skip_special_tokens=True).strip()


def test_shots_may_have_more_room_than_other_methods_prompts(base: Base) -> None:
    """As much as the base was made to read, where nothing else is asked for."""
    task = Task(task="things", title="Things", task_type="colour", output_type="multiple_choice")
    adaptation, test = of_form("multiple_choice", 6, "adaptation"), of_form("multiple_choice", 2, "test")
    shown = {}
    for tokens in (None, 100, 900, base.context_length):
        settings = BaselineSettings(method="in_context", shots=6, max_prompt_tokens=tokens)
        record = baseline_predictions(base, task, adaptation, test, settings, EvaluationSettings(max_length=100))[1]
        shown[tokens] = record["shots_shown_mean"]
    assert base.context_length == 4096
    assert shown[100] < shown[None] == shown[base.context_length] <= shown[900] == 6


def test_a_run_is_named_by_all_that_its_examples_hold() -> None:
    examples = make_examples(3, "test")
    changes = ({"query": "another?"}, {"context": "other"}, {"answer": "red"}, {"labels": ("red", "blue")}, {"id": "test-9"})
    others = [[replace(examples[0], **change), *examples[1:]] for change in changes]
    assert len({examples_digest(some) for some in (examples, examples[::-1], examples[:2], *others)}) == 3 + len(changes)
    assert examples_digest(examples) == examples_digest(make_examples(3, "test"))


def test_mentions_that_are_not_in_the_context_or_of_no_type_are_false_positives() -> None:
    example = replace(
        make_examples(1, "test")[0], output_type="ner", context="no fever", answer="sign: fever", labels=("sign",)
    )
    answer = "sign: fever; sign: cough; drug: fever; fever"
    (found,) = predictions_of("ner", Told([answer]), [example])
    assert found["gold"] == [{"type": "sign", "text": "fever"}]
    assert len(found["answer"]) == 4
    assert found["invented"] == 3
    metrics = compute_metrics("ner", [found], resamples=100)
    assert metrics["entity_f1"]["value"] == pytest.approx(0.4)
    assert metrics["invented_rate"]["value"] == pytest.approx(0.75)


def test_generated_predictions_keep_the_raw_output_and_all_say_whether_the_prompt_was_cut(base: Base) -> None:
    for output_type in OUTPUT_TYPES:
        examples = of_form(output_type, 7, "adaptation")[:3]
        examples[1] = replace(examples[1], context=examples[1].context + " and so on" * 30)
        tight = SETTINGS.model_copy(update={"max_length": 150})
        calibration = of_form(output_type, 7, "adaptation") if output_type == "multi_label" else []
        found = predictions_of(output_type, Answerer(base, tight), examples, calibration)
        assert [row["truncated"] for row in found] == [False, True, False]
        assert all(("output" in row) == (output_type not in ("multiple_choice", "multi_label")) for row in found)


def test_a_generated_answer_ends_where_the_settings_say(base: Base) -> None:
    examples = of_form("generate_until", 3, "test")
    free = predictions_of("generate_until", Answerer(base, SETTINGS.model_copy(update={"stop": ()})), examples)
    mark = next(row["answer"] for row in free if len(row["answer"]) > 2)[1]
    found = predictions_of("generate_until", Answerer(base, SETTINGS.model_copy(update={"stop": (mark,)})), examples)
    for row, whole in zip(found, free, strict=True):
        assert row["answer"] == whole["answer"].split(mark)[0].strip()
    assert EvaluationSettings().stop == ("\n\n",)


def test_an_interrupted_run_resumes_at_the_item(base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples, path = make_examples(5, "test"), tmp_path / "runs" / "partial.jsonl"
    expected = predictions_of("multiple_choice", Answerer(base, SETTINGS), examples)
    batches = Interrupted(monkeypatch, size=2, at=3).batches
    with pytest.raises(KeyboardInterrupt):
        predictions_of("multiple_choice", Answerer(base, SETTINGS), examples, partial=PartialPredictions(path))
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(path.read_bytes() + b'{"id": "test-4", "go')  # killed within a line
    done: list[int] = []
    found = predictions_of("multiple_choice", Answerer(base, SETTINGS, done.append), examples, partial=PartialPredictions(path))
    assert done == [4, 1]
    assert [len(batch) for batch in batches] == [2, 2, 1, 1]
    for one, two in zip(found, expected, strict=True):
        assert (one["id"], one["gold"]) == (two["id"], two["gold"])
        np.testing.assert_allclose(one["scores"], two["scores"], atol=1e-4)


def test_scores_that_are_not_numbers_are_the_bases_fault_and_not_that_of_the_predictions(base: Base) -> None:
    with torch.no_grad():
        next(base.model.parameters()).fill_(float("nan"))
    with pytest.raises(ConfigError, match=r"tiny.*, as it is routed now, gives log-likelihoods that are NaN or infinite"):
        predictions_of("multiple_choice", Answerer(base, SETTINGS), make_examples(2, "test"))


@pytest.mark.parametrize("key", ["dtype", "device", "threads"])
def test_a_run_that_was_interrupted_elsewhere_is_not_mixed_with_this_one(base: Base, tmp_path: Path, key: str) -> None:
    path, examples = tmp_path / "partial.jsonl", make_examples(3, "test")
    rows = predictions_of("multiple_choice", Answerer(base, SETTINGS), examples)
    PartialPredictions(path).append([{"computed": numerics(base) | {key: "another"}}, *rows[:2]])
    with pytest.raises(ConfigError, match=f"'{key}': 'another'.*delete partial.jsonl"):
        predictions_of("multiple_choice", Answerer(base, SETTINGS), examples, partial=PartialPredictions(path))
    assert len(path.read_text().splitlines()) == 3


HEAD = b'{"computed": {}}\n'


@pytest.mark.parametrize("content", [b"x\n", b"[]\n", b'{"id": 1}\n', HEAD + b'{"gold": 0}\n', HEAD + b"7\n", b"\xff\n"])
def test_a_damaged_partial_file_is_named(base: Base, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "partial.jsonl").write_bytes(content)
    partial = PartialPredictions(tmp_path / "partial.jsonl")
    with pytest.raises(DamagedFile, match=r"partial.jsonl does not hold predictions. Delete it"):
        predictions_of("multiple_choice", Answerer(base, SETTINGS), make_examples(3, "test"), partial=partial)


def test_runs_of_another_dtype_are_compared_only_if_asked(tmp_path: Path) -> None:
    task = Task(task="things", title="Things", task_type="colour", output_type="multiple_choice")
    rows = [{"id": str(i), "gold": 0, "scores": [1.0, 0.0]} for i in range(4)]
    run = Run(tmp_path / "run")
    run.finish({}, {"compute": {"dtype": "bfloat16", "device": "cpu"}}, rows)
    assert (tmp_path / "run" / "predictions.jsonl").stat().st_mode & 0o777 == 0o600
    compute = {"dtype": "float32", "device": "cpu"}
    with pytest.raises(ConfigError, match=r"computed in bfloat16, this run in float32.*across_dtypes"):
        compare_with_baselines(task, rows, compute, {"original": run}, SETTINGS)
    asked = SETTINGS.model_copy(update={"across_dtypes": True})
    assert compare_with_baselines(task, rows, compute, {"original": run}, asked)["original"]["difference"] == 0
    assert "original" in compare_with_baselines(task, rows, None, {"original": run}, SETTINGS)


def test_a_fitted_calibrator_can_be_kept_and_used_instead_of_examples() -> None:
    examples, answers = several(2, "test"), Told([], [[-1.0, -3.0, -3.0], [-3.0, -1.1, -3.0]])
    calibrator = calibrate(answers, examples)
    kept = LabelCalibrator.read(json.loads(json.dumps(calibrator.model_dump())))
    assert kept == calibrator
    assert predictions_of("multi_label", answers, examples, calibrator=kept) == predictions_of(
        "multi_label", answers, examples, examples
    )
    with pytest.raises(DamagedFile, match="Adapt again"):
        LabelCalibrator.read({"rates": {}})


def test_labels_are_answered_from_the_threshold_that_calibration_shows() -> None:
    examples = several(2, "test")  # aspirin; heparin
    (first, second) = predictions_of("multi_label", Told([], [[-1.0, -3.0, -3.0], [-3.0, -1.1, -3.0]]), examples, examples)
    assert (first["answer"], second["answer"]) == ([0], [1])
    assert (first["gold"], second["gold"]) == ([0], [1])
    assert first["scores"][0] > 0 > first["scores"][1]


def test_without_right_and_wrong_labels_nothing_can_be_calibrated() -> None:
    with pytest.raises(MissingData, match="Draw more shots"):
        predictions_of("multi_label", Told([], [[-1.0, -3.0, -3.0]]), several(1, "test"))


@pytest.mark.parametrize("output_type", OUTPUT_TYPES)
def test_the_best_single_expert_is_looked_for_in_every_form(base: Base, experts: ExpertSet, output_type: str) -> None:
    given = of_form(output_type, 7, "adaptation")
    calibration = given if output_type == "multi_label" else []
    task = Task(task="things", title="Things", task_type="colour", metric_list=(METRICS[output_type],), output_type=output_type)
    best, found = best_single(base, Mixture(base, experts), task, given, SETTINGS, calibration=calibration)
    assert set(found) == set(experts.names)
    assert found[best] == max(found.values())


def test_the_best_single_expert_is_judged_by_the_scoring_rule_of_the_settings(base: Base, experts: ExpertSet) -> None:
    given = of_form("multiple_choice", 7, "adaptation")
    task, settings = Task(task="things", fixed_labels=True), SETTINGS.model_copy(update={"scoring": "calibrated"})
    mixture = Mixture(base, experts)
    _, found = best_single(base, mixture, task, given, settings)
    for index, name in enumerate(experts.names):
        with routed(base, mixture, one_hot(index, len(experts.names))):
            scores = np.array(Answerer(base, settings).scores(given))
        right = (scores - scores.mean(0)).argmax(1) == [e.labels.index(e.answer) for e in given]
        assert found[name] == pytest.approx(right.mean())


def test_the_best_single_expert_is_the_best_by_the_tasks_own_metric(
    base: Base, experts: ExpertSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finding nothing where there mostly is nothing is the better answer item by item, and no entity at all by F1."""
    given = of_form("ner", 4, "adaptation")
    entity = {"text": "a cold", "type": "disease"}
    gold: list[list[dict[str, str]]] = [[entity], [], [], []]
    answers = iter([[[], [], [], []], [[entity], [entity], [entity], []], [[], [], [], []]])

    def answered(*_: object, **__: object) -> list[dict[str, object]]:
        return [{"id": str(i), "answer": a, "gold": g} for i, (a, g) in enumerate(zip(next(answers), gold, strict=True))]

    monkeypatch.setattr("staf.evaluate.score.predictions_of", answered)
    task = Task(task="things", title="Things", task_type="colour", metric_list=("entity_f1",), output_type="ner")
    best, found = best_single(base, Mixture(base, experts), task, given, SETTINGS)
    assert best == experts.names[1]
    assert found == {experts.names[0]: 0.0, experts.names[1]: 0.5, experts.names[2]: 0.0}


def test_lorahub_sums_left_and_right_factors_each_by_itself(base: Base, experts: ExpertSet) -> None:
    weights = (0.5, -1.0, 0.25)
    expert = composed(experts, weights)
    for module, (b, a) in expert.factors.items():
        left, right = torch.zeros_like(b), torch.zeros_like(a)
        for weight, one in zip(weights, experts.experts, strict=True):
            own_b, own_a = one.factors[module]
            left[:, : len(own_a)] += weight * own_b
            right[: len(own_a)] += weight * own_a
        torch.testing.assert_close(b @ a, left @ right)


def test_lorahub_with_one_expert_enters_its_weight_squared(base: Base, experts: ExpertSet) -> None:
    single_set = ExpertSet(experts.experts[1:2])
    single = composed(single_set, (0.5,))
    for module, (b, a) in single.factors.items():
        own_b, own_a = single_set.experts[0].factors[module]
        torch.testing.assert_close(b @ a, 0.25 * own_b @ own_a)


def test_lorahub_searches_within_its_bounds_and_never_on_test_items(base: Base, experts: ExpertSet) -> None:
    pytest.importorskip("nevergrad")
    expert, record = lorahub(base, experts, make_examples(6, "adaptation"), seed=0, max_length=100, max_evaluations=6)
    assert expert.name == "lorahub"
    assert len(record["losses"]) == 6
    assert all(abs(weight) <= 1.5 for weight in record["weights"].values())
    with pytest.raises(TestLeak):
        lorahub(base, experts, make_examples(2, "test"), seed=0, max_length=100)
