"""Stage I on a tiny real model: it learns, resumes to the same bytes, never touches the base, and fails loudly."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import make_examples

from staf.compute import ComputeOptions
from staf.errors import ConfigError, StafError, TrainingFailed
from staf.experts import train as training
from staf.experts.estimate import saved_for_backward
from staf.experts.recipe import ExpertRecipe
from staf.experts.store import Expert, ExpertSet
from staf.experts.train import (
    ExpertTraining,
    StepReport,
    data_fingerprint,
    gradient_checkpointing,
    lr_multiplier,
    train_expert,
    training_digest,
)
from staf.lm.base import Base, load_base
from staf.lm.batches import encode
from staf.routing.merge import Mixture

SETTINGS = ExpertRecipe(
    steps=30, batch_size=6, initial_rank=4, target_rank=2, tinit=5, tfinal=10, learning_rate=0.02, lora_scaling=4.0,
    max_length=160,
)  # fmt: skip


OFTEN = ComputeOptions(save_steps=7)


def accuracy(base: Base, expert: Expert) -> float:
    from staf.lm.scoring import score_labels

    examples = make_examples(12, split="test")
    Mixture(base, ExpertSet((expert,))).set_weights(torch.ones(1, 1))
    scores = score_labels(base, examples, max_length=200, token_budget=4096, length_normalised=True)
    return sum(e.labels[int(s.argmax())] == e.answer for e, s in zip(examples, scores, strict=True)) / 12


@pytest.mark.parametrize(("init", "rate", "ranks", "seed"), [("svd", 0.02, (4, 2), 2), ("lora", 0.005, (8, 4), 1)])
def test_an_expert_learns_and_ends_at_its_budget(
    base: Base, tmp_path: Path, init: str, rate: float, ranks: tuple[int, int], seed: int
) -> None:
    before = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
    reports: list[StepReport] = []
    changed = {"steps": 240, "tinit": 40, "tfinal": 80, "init": init, "learning_rate": rate, "seed": seed}
    settings = SETTINGS.model_copy(update={**changed, "initial_rank": ranks[0], "target_rank": ranks[1]})
    expert = train_expert(base, "colour", make_examples(60), settings, tmp_path, reports.append)
    assert [r.step for r in reports] == list(range(1, 241))
    assert reports[-1].loss < 0.5 * reports[0].loss
    assert [r.kept for r in reports] == sorted((r.kept for r in reports), reverse=True)
    assert sum(expert.ranks.values()) == reports[-1].kept == 14 * ranks[1]
    assert accuracy(base, expert) > 0.9
    after = base.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_a_run_stopped_anywhere_ends_with_the_same_bytes(base: Base, tmp_path: Path) -> None:
    examples = make_examples(40)
    whole = train_expert(base, "colour", examples, SETTINGS, tmp_path / "whole", options=OFTEN)
    for stop in (3, 12, 29):

        def stop_here(report: StepReport, stop: int = stop) -> None:
            if report.step == stop:
                raise KeyboardInterrupt

        folder = tmp_path / f"stopped-{stop}"
        with pytest.raises(KeyboardInterrupt):
            train_expert(base, "colour", examples, SETTINGS, folder, stop_here, options=OFTEN)
        resumed: list[int] = []
        on_step = lambda r, seen=resumed: seen.append(r.step)  # noqa: E731
        expert = train_expert(base, "colour", examples, SETTINGS, folder, on_step, options=OFTEN)
        assert resumed[0] == stop // 7 * 7 + 1
        assert expert.fingerprint == whole.fingerprint
        assert expert.record["curve"] == whole.record["curve"]
        assert expert.record["tokens"] == whole.record["tokens"]


def test_experts_that_take_turns_on_one_base_are_those_trained_singly(base: Base, tiny_folder: Path, tmp_path: Path) -> None:
    settings = {name: SETTINGS.model_copy(update={"initial_rank": rank, "dropout": 0.2}) for name, rank in (("a", 4), ("b", 3))}
    in_turns = [train_expert(base, name, make_examples(20), settings[name], tmp_path / name) for name in ("a", "b", "a")]
    other = load_base(str(tiny_folder), dtype="float32", device="cpu")
    single = train_expert(other, "b", make_examples(20), settings["b"], tmp_path / "single")
    assert in_turns[1].fingerprint == single.fingerprint
    assert in_turns[2].fingerprint == in_turns[0].fingerprint


def test_ranks_are_at_their_target_when_the_last_ones_begin(base: Base) -> None:
    items = [encode(example, base.tokenizer, 160) for example in make_examples(20)]
    training = ExpertTraining(base, items, SETTINGS)
    kept = []
    while training.step < training.total:
        training.run_step()
        kept.append(int(training.factors.mask.sum()))
    assert kept[: SETTINGS.tinit] == [14 * 4] * SETTINGS.tinit
    assert kept[training.total - SETTINGS.tfinal :] == [14 * 2] * SETTINGS.tfinal
    assert kept == sorted(kept, reverse=True)


def test_both_starts_leave_the_base_as_it_is_and_the_one_at_zero_moves_u_at_once(base: Base) -> None:
    items = [encode(example, base.tokenizer, 160) for example in make_examples(20)]
    for init, moved in (("svd", "lambda"), ("lora", "u")):
        training = ExpertTraining(base, items, SETTINGS.model_copy(update={"init": init, "orth_reg_weight": 0.0}))
        factors = training.factors
        for b, a in factors.folded(2.0).values():
            assert torch.equal(b @ a, torch.zeros(b.shape[0], a.shape[1]))
        training.run_step()
        blocks = factors.blocks(factors.grad)
        grads = {"lambda": [block.singular for block in blocks], "u": [block.u for block in blocks]}
        for name, found in grads.items():
            assert any(bool(grad.abs().max() > 0) for grad in found) == (name == moved)


def test_a_checkpoint_of_other_settings_is_not_gone_on_with(base: Base, tmp_path: Path) -> None:
    examples = make_examples(40)
    train_expert(base, "colour", examples, SETTINGS, tmp_path)
    steps: list[int] = []
    other = SETTINGS.model_copy(update={"seed": 1})
    train_expert(base, "colour", examples, other, tmp_path, lambda r: steps.append(r.step))
    assert steps[0] == 1


def test_the_seed_decides_the_expert(base: Base, tmp_path: Path) -> None:
    examples = make_examples(24)
    seeds = [
        train_expert(base, "colour", examples, SETTINGS.model_copy(update={"seed": seed}), tmp_path / str(i)).fingerprint
        for i, seed in enumerate((0, 0, 1))
    ]
    assert seeds[0] == seeds[1] != seeds[2]


def test_raw_importance_and_target_zero_also_train(base: Base, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"importance": "raw", "target_rank": 0})
    expert = train_expert(base, "colour", make_examples(24), settings, tmp_path)
    assert set(expert.ranks.values()) == {0}


def test_a_loss_that_is_not_a_number_stops_and_names_the_examples(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    real = training.answer_loss

    def broken(*arguments: object) -> tuple[torch.Tensor, int]:
        nonlocal calls
        calls += 1
        loss, count = real(*arguments)
        return (loss * float("nan"), count) if calls == 9 else (loss, count)

    monkeypatch.setattr(training, "answer_loss", broken)
    with pytest.raises(TrainingFailed, match=r"loss of step 9 is nan.*train-\d+"):
        train_expert(base, "colour", make_examples(24), SETTINGS, tmp_path)
    assert not any(layer.training or layer.lora_B is not None for layer in base.lora.layers.values())
    monkeypatch.setattr(training, "answer_loss", real)
    steps: list[int] = []
    train_expert(base, "colour", make_examples(24), SETTINGS, tmp_path, lambda r: steps.append(r.step))
    assert steps[0] == 9  # the state before the bad step was kept


def test_a_gradient_that_is_not_a_number_changes_nothing(base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = training.TrainableFactors.add_orthogonality

    def broken(factors: training.TrainableFactors, strength: float) -> float:
        penalty = real(factors, strength)
        factors.grad[5] = float("inf")
        return penalty

    examples = make_examples(24)
    whole = train_expert(base, "colour", examples, SETTINGS, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train_expert(base, "colour", examples, SETTINGS, tmp_path / "bad", stop_at(9), options=OFTEN)
    with monkeypatch.context() as patch:
        patch.setattr(training.TrainableFactors, "add_orthogonality", broken)
        with pytest.raises(TrainingFailed, match=r"gradient of step 8 is inf.*Examples: train-\d+"):
            train_expert(base, "colour", examples, SETTINGS, tmp_path / "bad", options=OFTEN)
    again = train_expert(base, "colour", examples, SETTINGS, tmp_path / "bad", options=OFTEN)
    assert again.fingerprint == whole.fingerprint


def stop_at(step: int) -> Callable[[StepReport], None]:
    def stop(report: StepReport) -> None:
        if report.step == step:
            raise KeyboardInterrupt

    return stop


def gradient(
    base: Base, recipe: ExpertRecipe, options: ComputeOptions | None = None, steps: int = 3
) -> tuple[float, torch.Tensor, torch.Tensor]:
    """Loss, gradient and factors after some steps on examples whose answers differ in length."""
    examples = [replace(e, answer="a long answer") if i % 4 == 0 else e for i, e in enumerate(make_examples(24))]
    state = ExpertTraining(base, [encode(e, base.tokenizer, 160) for e in examples], recipe, options)
    base.lora.set_training(True, recipe.dropout)
    with gradient_checkpointing(base, state.options.gradient_checkpointing):
        reports = [state.run_step() for _ in range(steps)]
    base.lora.set_training(False)
    base.lora.detach()
    return reports[-1].loss, state.factors.grad.clone(), state.factors.master_params.clone()


@pytest.mark.parametrize("accumulation", [2, 4, 5, 8, 20])
def test_accumulation_gives_the_gradient_of_the_batch(base: Base, accumulation: int) -> None:
    recipe = SETTINGS.model_copy(update={"batch_size": 8, "dropout": 0.0})
    loss, grad, params = gradient(base, recipe)
    parts = gradient(base, recipe, ComputeOptions(gradient_accumulation_steps=accumulation))
    assert parts[0] == pytest.approx(loss, rel=1e-5)
    assert torch.allclose(parts[1], grad, rtol=1e-3, atol=1e-5 * grad.abs().max().item())
    assert torch.allclose(parts[2], params, rtol=1e-3, atol=1e-4)


def test_clipping_bounds_the_norm_of_the_gradient(base: Base) -> None:
    _, free, _ = gradient(base, SETTINGS, steps=1)
    bound = 0.5 * float(free.norm())
    _, clipped, _ = gradient(base, SETTINGS.model_copy(update={"max_grad_norm": bound}), steps=1)
    assert float(clipped.norm()) == pytest.approx(bound, rel=1e-4)
    assert torch.allclose(clipped, free * 0.5, rtol=1e-4, atol=1e-7)


def test_recomputed_activations_give_the_same_bits_with_dropout(base: Base) -> None:
    """Only how a shared prefix is computed may differ, so they are compared without one."""
    kept = sizes = None
    for again in (False, True):
        recipe, options = SETTINGS.model_copy(update={"dropout": 0.3}), ComputeOptions(gradient_checkpointing=again)
        with pytest.MonkeyPatch.context() as patch, saved_for_backward(list(base.model.parameters())) as saved:
            patch.setattr("staf.lm.batches.common_prefix_length", lambda rows, limit: 0)
            found = gradient(base, recipe, options)
        held = sum(storage.nbytes() for storage in saved.values())
        if kept is not None and sizes is not None:
            assert found[0] == kept[0]
            assert torch.equal(found[1], kept[1])
            assert torch.equal(found[2], kept[2])
            assert held < 0.5 * sizes
        kept, sizes = found, held
    assert all("forward" not in vars(layer) for layer in base.model.model.layers)


def test_a_stopped_run_with_recomputed_activations_ends_with_the_same_bytes(base: Base, tmp_path: Path) -> None:
    options = ComputeOptions(gradient_accumulation_steps=3, gradient_checkpointing=True, save_steps=7)
    arguments = (base, "colour", make_examples(24), SETTINGS)
    complete = train_expert(*arguments, tmp_path / "complete", options=options)
    with pytest.raises(KeyboardInterrupt):
        train_expert(*arguments, tmp_path / "stopped", stop_at(10), options=options)
    assert train_expert(*arguments, tmp_path / "stopped", options=options).fingerprint == complete.fingerprint


def test_a_run_resumes_with_other_options_but_not_in_another_dtype_or_number_of_threads(
    base: Base, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = make_examples(24)
    with pytest.raises(KeyboardInterrupt):
        train_expert(base, "colour", examples, SETTINGS, tmp_path, stop_at(9), options=ComputeOptions(save_steps=4))
    half = load_base(str(tiny_folder), dtype="bfloat16", device="cpu")
    with pytest.raises(
        ConfigError, match=r"computed with device cpu, dtype float32, threads 1; this run has device cpu, dtype bfloat16"
    ):
        train_expert(half, "colour", examples, SETTINGS, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: 2)
        with pytest.raises(ConfigError, match=r"threads 1; this run has device cpu, dtype float32, threads 2"):
            train_expert(base, "colour", examples, SETTINGS, tmp_path)
    steps: list[int] = []
    options = ComputeOptions(gradient_accumulation_steps=2, save_steps=11)
    found = train_expert(base, "colour", examples, SETTINGS, tmp_path, lambda r: steps.append(r.step), options=options)
    assert steps[0] == 9  # the fourth step after the last checkpoint, of step 8
    assert found.record["compute"]["dtype"] == "float32"
    assert found.record["compute"]["gradient_accumulation_steps"] == 2
    assert set(found.record["compute"]["versions"]) == {"staf", "torch", "transformers"}


def test_a_folder_that_cannot_be_written_is_one_clear_error(base: Base, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(StafError, match=r"(?s)no checkpoint at|cannot write"):
        train_expert(base, "colour", make_examples(12), SETTINGS, blocked)
    assert blocked.read_text() == "in the way"


def test_a_small_corpus_shrinks_the_steps_around_the_fall_by_one_factor(base: Base, tmp_path: Path) -> None:
    recipe = ExpertRecipe(epochs=10, batch_size=16)
    assert recipe.planned_steps(10_000) == 6250
    assert recipe.schedule(6250) == (200, 1000)
    assert recipe.schedule(1200) == (180, 900)
    assert recipe.schedule(400) == (60, 300)
    assert recipe.schedule(1) == (0, 0)
    assert recipe.model_copy(update={"target_rank": 6}).schedule(10) == (200, 1000)  # nothing falls
    log: list[str] = []
    small = SETTINGS.model_copy(update={"steps": 10})
    expert = train_expert(base, "colour", make_examples(12), small, tmp_path, log=log.append)
    assert log == ["colour: 10 steps are too few for tinit 5 and tfinal 10: 3 and 6 are taken"]
    assert expert.record["schedule"] == {"steps": 10, "tinit": 3, "tfinal": 6}
    assert sum(expert.ranks.values()) == 14 * SETTINGS.target_rank


def test_no_examples_is_an_error(base: Base, tmp_path: Path) -> None:
    with pytest.raises(TrainingFailed, match="no examples to train 'colour' on"):
        train_expert(base, "colour", [], SETTINGS, tmp_path)


def test_the_learning_rate_rises_then_falls_to_nearly_zero() -> None:
    factors = [lr_multiplier(step, 100) for step in range(100)]
    assert max(factors) == 1.0
    assert factors[0] < 0.5
    assert 0 < factors[-1] < 0.02


def test_digests_depend_on_base_settings_and_every_word() -> None:
    examples = make_examples(3)
    identity = {"name": "a", "fingerprint": "1"}
    one = training_digest(identity, examples, SETTINGS)
    assert one == training_digest({"name": "b", "fingerprint": "1"}, examples, SETTINGS)
    assert one != training_digest({"name": "a", "fingerprint": "2"}, examples, SETTINGS)
    assert one != training_digest(identity, examples, SETTINGS.model_copy(update={"lora_scaling": 1.0}))
    changed = [replace(examples[0], context="other"), *examples[1:]]
    assert data_fingerprint(examples) != data_fingerprint(changed)


def test_the_checkpoint_may_be_deleted_at_any_time(base: Base, tmp_path: Path) -> None:
    first = train_expert(base, "colour", make_examples(12), SETTINGS, tmp_path / "c")
    shutil.rmtree(tmp_path / "c")
    assert train_expert(base, "colour", make_examples(12), SETTINGS, tmp_path / "c").fingerprint == first.fingerprint
