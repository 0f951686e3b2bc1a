"""What a training would take, without weights: the same bytes as real tensors, and the paper's base from its config only."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_examples

from staf.compute import ComputeOptions, split_options
from staf.config import find_recipe, load_values, parse
from staf.errors import ExpertMismatch, MissingData
from staf.experts import estimate as estimates
from staf.experts.estimate import FLOAT, estimate, memory_of, meta_model, saved_for_backward, seconds_per_token, token_counts
from staf.experts.recipe import ExpertRecipe
from staf.experts.train import ExpertTraining, gradient_checkpointing, micro_batches
from staf.lm.base import Base
from staf.lm.batches import encode

SETTINGS = ExpertRecipe(steps=9, batch_size=6, initial_rank=4, target_rank=2, tinit=2, tfinal=3, max_length=160, dropout=0.2)
CPU = torch.device("cpu")
LLAMA_2_7B = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32000,
    "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
}  # fmt: skip


@pytest.fixture
def llama(tmp_path: Path) -> str:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_2_7B))
    return str(tmp_path)


def size(*tensors: torch.Tensor) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def test_the_bytes_are_those_of_the_tensors_of_a_real_training(base: Base, tiny_folder: Path) -> None:
    examples = make_examples(20)
    training = ExpertTraining(base, [encode(e, base.tokenizer, 160) for e in examples], SETTINGS)
    training.run_step()
    found = estimate(meta_model(str(tiny_folder), base.dtype), "colour", examples, SETTINGS, CPU)
    total, found = found.total_bytes, found.memory
    factors, moments = training.factors, training.optimizer.state[training.parameter]
    assert found["base"] == size(*base.model.parameters())
    assert found["factors"] == size(factors.master_params, factors.mask)
    assert found["gradients"] == size(factors.grad)
    assert found["optimiser"] == size(moments["exp_avg"], moments["exp_avg_sq"])
    assert found["importance"] == size(factors.average, factors.uncertainty)
    assert total == sum(found.values())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_smaller_number_format_halves_the_base_and_not_the_factors(tiny_folder: Path, dtype: str) -> None:
    examples = make_examples(20)
    whole = estimate(meta_model(str(tiny_folder), torch.float32), "colour", examples, SETTINGS, CPU)
    half = estimate(meta_model(str(tiny_folder), getattr(torch, dtype)), "colour", examples, SETTINGS, CPU)
    assert 2 * half.memory["base"] == whole.memory["base"]
    assert half.memory["optimiser"] == whole.memory["optimiser"]
    assert half.dtype == dtype


def saved_by_a_step(base: Base, options: ComputeOptions) -> int:
    """The largest number of bytes that the decoder saves for the backward pass in the micro-batches of the first epoch."""
    training = ExpertTraining(base, [encode(e, base.tokenizer, 160) for e in make_examples(20)], SETTINGS, options)
    base.lora.set_training(True, SETTINGS.dropout)
    base.lora.attach(training.factors.modules(base.dtype, 1.0))
    largest, others = 0, [*base.model.parameters(), training.factors.master_params]
    while training.step * SETTINGS.batch_size < 20:
        for part in micro_batches(training.next_batch(), options.gradient_accumulation_steps):
            with gradient_checkpointing(base, options.gradient_checkpointing), saved_for_backward(others) as saved:
                base.hidden_states(part.ids)
            largest = max(largest, sum(storage.nbytes() for storage in saved.values()))
        training.step += 1
    return largest


@pytest.mark.parametrize("accumulation", [1, 3])
def test_activations_are_counted_as_the_training_saves_them(base: Base, tiny_folder: Path, accumulation: int) -> None:
    options = ComputeOptions(gradient_accumulation_steps=accumulation)
    counts, meta = (
        token_counts(make_examples(20), base.tokenizer, SETTINGS.max_length),
        meta_model(str(tiny_folder), base.dtype),
    )
    found = memory_of(meta, SETTINGS, options, counts)["activations"]
    saved = saved_by_a_step(base, options)
    assert saved <= found <= 1.01 * saved
    again = options.model_copy(update={"gradient_checkpointing": True})
    less = memory_of(meta, SETTINGS, again, counts)["activations"]
    assert less == pytest.approx(saved_by_a_step(base, again) + found / 2, rel=0.4)
    assert less < found


def test_a_model_that_runs_its_own_layers_is_counted_too(tmp_path: Path) -> None:
    sizes = {
        "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 300,
        "head_dim": 8, "num_hidden_layers": 3,
    }  # fmt: skip
    again = ComputeOptions(gradient_checkpointing=True)
    for kind in ("qwen3", "gemma", "gpt_neox"):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": kind, **sizes}))
        found = estimate(meta_model(str(tmp_path), torch.float32), "colour", make_examples(20), SETTINGS, CPU)
        assert found.memory["activations"] > 0
        less = estimate(meta_model(str(tmp_path), torch.float32), "colour", make_examples(20), SETTINGS, CPU, again)
        assert less.memory["activations"] < found.memory["activations"]


def test_the_base_of_the_paper_from_its_config_only(llama: str) -> None:
    own, values = split_options(load_values(find_recipe("paper")))
    recipe, options = parse(ExpertRecipe, values, "paper"), parse(ComputeOptions, own, "paper")
    base = meta_model(llama, torch.bfloat16)
    found = estimate(base, "colour", make_examples(3000), recipe, CPU, options)
    assert found.parameters == 6_738_415_616
    assert found.memory["base"] == 2 * 6_738_415_616
    per_layer = 4 * (4096 + 4096 + 1) + 3 * (4096 + 11008 + 1)
    assert found.memory["optimiser"] == 2 * 12 * 32 * per_layer * FLOAT
    assert found.steps == 10 * 188
    assert (found.tokens_counted, found.seconds) == (False, None)
    assert found.memory["activations"] < 1e9
    stored = options.model_copy(update={"gradient_checkpointing": False})
    counts = token_counts(make_examples(3000), None, recipe.max_length)
    assert memory_of(base, recipe, stored, counts)["activations"] > found.memory["activations"]


def test_tokens_are_those_that_the_training_reads(base: Base, tiny_folder: Path) -> None:
    examples = make_examples(18)
    epoch = sum(len(encode(e, base.tokenizer, 160).tokens) for e in examples)
    found = estimate(meta_model(str(tiny_folder), torch.float32), "colour", examples, SETTINGS, CPU)
    assert found.tokens_counted
    assert found.tokens == epoch * SETTINGS.steps // 3


def test_the_time_is_measured_and_leaves_the_base_as_it_was(base: Base) -> None:
    before = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
    assert 0 < seconds_per_token(base, make_examples(18), SETTINGS, ComputeOptions()) < 1
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.model.state_dict().items())
    assert not any(layer.training or layer.lora_B is not None for layer in base.lora.layers.values())


def test_no_weights_are_read_and_none_are_needed(tiny_folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_folder / name, tmp_path / name)
    found = estimate(meta_model(str(tmp_path), torch.float32), "colour", make_examples(20), SETTINGS, CPU)
    assert found.tokens_counted
    assert all(p.device == estimates.META for p in meta_model(str(tmp_path), torch.float32).model.parameters())


def test_the_record_is_json(tiny_folder: Path) -> None:
    found = estimate(meta_model(str(tiny_folder), torch.float32), "colour", make_examples(20), SETTINGS, CPU)
    record: dict[str, Any] = json.loads(json.dumps(found.record()))
    assert record["total_bytes"] == found.total_bytes
    assert record["memory"]["base"] == found.memory["base"]
    assert record["seconds"] is None


def test_mistakes_are_reported(tmp_path: Path, tiny_folder: Path) -> None:
    with pytest.raises(MissingData, match=r"no config of the base model .*a folder with config\.json or a hub id was expected"):
        meta_model(str(tmp_path), torch.float32)
    with pytest.raises(MissingData, match="no config of the base model nobody/nothing"):
        meta_model("nobody/nothing", torch.float32)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(ExpertMismatch, match=r"the type gpt2 of .* has no linear maps"):
        meta_model(str(tmp_path), torch.float32)
    base = meta_model(str(tiny_folder), torch.float32)
    with pytest.raises(MissingData, match="no examples to train 'colour' on"):
        estimate(base, "colour", [], SETTINGS, CPU)
