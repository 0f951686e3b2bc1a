"""What a training would take, without weights: the same bytes as real tensors, and the paper's base from its config alone."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_examples

from staf.config import find_recipe, load_recipe
from staf.errors import ConfigError, MissingData, UnknownName
from staf.experts import estimate as estimates
from staf.experts.estimate import FLOAT, Kept, estimate, memory_of, operations_of, outline, read
from staf.experts.recipe import ExpertRecipe
from staf.experts.recompute import recomputing
from staf.experts.train import ExpertTraining, parts
from staf.lm.base import Base
from staf.lm.batches import encode

SETTINGS = ExpertRecipe(
    steps=9, batch_size=6, initial_rank=4, target_rank=2, warmup_steps=2, final_steps=3, max_length=160, dropout=0.2
)
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
    found = estimate(outline(str(tiny_folder), base.dtype), "colour", examples, SETTINGS, CPU).memory
    factors, moments = training.factors, training.optimizer.state[training.parameter]
    assert found.base == size(*base.model.parameters())
    assert found.factors == size(factors.flat, factors.low, factors.mask)
    assert found.gradients == size(factors.grad)
    assert found.optimiser == size(moments["exp_avg"], moments["exp_avg_sq"])
    assert found.importance == size(factors.average, factors.uncertainty)
    assert found.total == sum(vars(found).values())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_smaller_number_format_halves_the_base_and_not_the_factors(tiny_folder: Path, dtype: str) -> None:
    examples = make_examples(20)
    whole = estimate(outline(str(tiny_folder), torch.float32), "colour", examples, SETTINGS, CPU)
    half = estimate(outline(str(tiny_folder), getattr(torch, dtype)), "colour", examples, SETTINGS, CPU)
    assert 2 * half.memory.base == whole.memory.base
    assert half.memory.optimiser == whole.memory.optimiser
    assert half.dtype == dtype


def kept_by_a_step(base: Base, settings: ExpertRecipe) -> int:
    """The largest number of bytes that the decoder keeps for the way back in the parts of the first epoch."""
    training = ExpertTraining(base, [encode(e, base.tokenizer, 160) for e in make_examples(20)], settings)
    base.lora.set_training(True, settings.dropout)
    training.factors.begin_step()
    gains = dict.fromkeys(training.factors.names, torch.ones(settings.initial_rank, requires_grad=True))
    base.lora.set_rank_scale({name: gain.clone() for name, gain in gains.items()})
    largest, others = 0, [*base.model.parameters(), training.factors.low]
    while training.step * settings.batch_size < 20:
        for part in parts(training.next_batch(), settings.accumulation):
            with recomputing(base, settings.checkpoint_activations), Kept(others) as kept:
                base.answer_hidden_states(part.ids, part.answer)
            largest = max(largest, kept.bytes)
        training.step += 1
    return largest


@pytest.mark.parametrize("accumulation", [1, 3])
def test_activations_are_counted_as_the_training_keeps_them(base: Base, tiny_folder: Path, accumulation: int) -> None:
    settings = SETTINGS.model_copy(update={"accumulation": accumulation})
    base_outline = outline(str(tiny_folder), base.dtype)
    found = memory_of(base_outline, settings, read(make_examples(20), settings, base.tokenizer).parts)
    assert found.activations == pytest.approx(kept_by_a_step(base, settings), rel=0.05)
    again = settings.model_copy(update={"checkpoint_activations": True})
    one_layer = found.activations / 2
    counted = memory_of(base_outline, again, read(make_examples(20), settings, base.tokenizer).parts).activations
    assert counted == pytest.approx(kept_by_a_step(base, again) + one_layer, rel=0.1)
    assert counted < found.activations


def test_a_model_that_runs_its_own_layers_is_counted_too(tmp_path: Path) -> None:
    sizes = {
        "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 300,
        "head_dim": 8, "num_hidden_layers": 3,
    }  # fmt: skip
    for kind in ("qwen3", "gemma", "gpt_neox"):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": kind, **sizes}))
        found = estimate(outline(str(tmp_path), torch.float32), "colour", make_examples(20), SETTINGS, CPU)
        assert found.memory.activations > 0
        again = SETTINGS.model_copy(update={"checkpoint_activations": True})
        less = estimate(outline(str(tmp_path), torch.float32), "colour", make_examples(20), again, CPU)
        assert less.memory.activations < found.memory.activations
        assert less.operations > found.operations


def test_the_base_of_the_paper_from_its_config_alone(llama: str) -> None:
    settings = load_recipe(ExpertRecipe, find_recipe("paper"))
    base = outline(llama, torch.bfloat16)
    found = estimate(base, "colour", make_examples(3000), settings, CPU)
    assert found.parameters == 6_738_415_616
    assert found.memory.base == 2 * 6_738_415_616
    per_layer = 4 * (4096 + 4096 + 1) + 3 * (4096 + 11008 + 1)
    assert found.memory.optimiser == 2 * 12 * 32 * per_layer * FLOAT
    assert found.steps == 10 * 188
    assert not found.tokens_counted
    assert found.seconds == found.operations / found.operations_per_second > 0
    assert found.memory.activations < 1e9
    one_sweep = settings.model_copy(update={"checkpoint_activations": False})
    assert memory_of(base, one_sweep, read(make_examples(3000), settings, None).parts).activations > found.memory.activations


def test_tokens_are_those_that_the_training_reads(base: Base, tiny_folder: Path) -> None:
    examples = make_examples(18)
    epoch = sum(len(encode(e, base.tokenizer, 160).tokens) for e in examples)
    found = estimate(outline(str(tiny_folder), torch.float32), "colour", examples, SETTINGS, CPU)
    assert found.tokens_counted
    assert found.tokens == epoch * SETTINGS.steps // 3
    reading = read(examples, SETTINGS, base.tokenizer)
    assert reading.tokens == epoch == sum(part.tokens for part in reading.parts)
    twice = read(examples, SETTINGS.model_copy(update={"accumulation": 2}), base.tokenizer)
    assert len(twice.parts) == 2 * len(reading.parts)
    assert sum(part.answers for part in twice.parts) == sum(part.answers for part in reading.parts)


def test_operations_grow_with_what_is_read_and_computed_again(tiny_folder: Path, base: Base) -> None:
    base_outline = outline(str(tiny_folder), torch.float32)
    part = read(make_examples(12), SETTINGS, base.tokenizer).parts[0]
    weights = sum(d_out * d_in for d_out, d_in in base.lora.shapes.values())
    once = operations_of(base_outline, SETTINGS, part)
    assert once > 4 * part.tokens * weights
    assert operations_of(base_outline, SETTINGS.model_copy(update={"checkpoint_activations": True}), part) > 1.3 * once
    assert operations_of(base_outline, SETTINGS, replace(part, rows=part.rows * 2)) == pytest.approx(2 * once)


def test_no_weights_are_read_and_none_are_needed(tiny_folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_folder / name, tmp_path / name)
    found = estimate(outline(str(tmp_path), torch.float32), "colour", make_examples(20), SETTINGS, CPU)
    assert found.tokens_counted
    assert all(p.device == estimates.META for p in outline(str(tmp_path), torch.float32).model.parameters())


def test_the_record_is_json(tiny_folder: Path) -> None:
    found = estimate(outline(str(tiny_folder), torch.float32), "colour", make_examples(20), SETTINGS, CPU)
    record: dict[str, Any] = json.loads(json.dumps(found.record()))
    assert record["total_bytes"] == found.memory.total
    assert record["memory"]["base"] == found.memory.base
    assert record["seconds"] > 0


def test_mistakes_are_told(tmp_path: Path, tiny_folder: Path) -> None:
    with pytest.raises(MissingData, match=r"no config of the base model .*a folder with config\.json or a hub id was expected"):
        outline(str(tmp_path), torch.float32)
    with pytest.raises(MissingData, match="no config of the base model nobody/nothing"):
        outline("nobody/nothing", torch.float32)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(UnknownName, match="target modules 'bert'"):
        outline(str(tmp_path), torch.float32)
    base = outline(str(tiny_folder), torch.float32)
    with pytest.raises(MissingData, match="no examples to train 'colour' on"):
        estimate(base, "colour", [], SETTINGS, CPU)
    with pytest.raises(ConfigError, match="leave none for the ranks to fall"):
        estimate(base, "colour", make_examples(20), ExpertRecipe(), CPU)
