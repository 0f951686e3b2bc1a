"""A merged folder: the base streamed shard by shard, equal to merging in memory."""

from __future__ import annotations

import json
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from conftest import make_examples, random_expert

from staf.errors import ExpertMismatch, StafError, UnknownName
from staf.experts.store import ExpertSet
from staf.export.hf import save_merged
from staf.lm.base import Base, load_base
from staf.routing.adapt import adapt_router
from staf.routing.merge import Mixture
from staf.routing.recipe import RouterRecipe
from staf.routing.store import Router


@pytest.fixture
def sharded(base: Base, tmp_path: Path) -> Base:
    """The tiny base in several files."""
    folder = tmp_path / "sharded"
    base.model.save_pretrained(str(folder), max_shard_size="20KB")
    base.tokenizer.save_pretrained(str(folder))
    assert len(list(folder.glob("*.safetensors"))) > 3
    return load_base(str(folder), dtype="float32", device="cpu")


def a_router(base: Base, granularity: str) -> tuple[ExpertSet, Router]:
    experts = ExpertSet(tuple(random_expert(base, name, seed) for seed, name in enumerate("ab")))
    recipe = RouterRecipe.model_validate({"granularity": granularity})
    groups = {"task": 1, "layer": 2}[granularity]
    weights = torch.rand(groups, 2, generator=torch.Generator().manual_seed(1))
    return experts, Router.of(base, experts, "colour", make_examples(2), recipe, weights, torch.zeros(1), {"run": "r"})


@pytest.mark.parametrize("granularity", ["task", "layer"])
def test_merging_shard_by_shard_equals_merging_in_memory_and_holds_one_shard(
    sharded: Base, tmp_path: Path, granularity: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    experts, router = a_router(sharded, granularity)
    real, before = safetensors.torch.save_file, list[weakref.ref[torch.Tensor]]()

    def save_file(tensors: dict[str, torch.Tensor], *args: object, **options: object) -> None:
        assert all(tensor() is None for tensor in before)  # no tensor of an earlier shard is alive
        before.extend(weakref.ref(tensor) for tensor in tensors.values())
        real(tensors, *args, **options)

    monkeypatch.setattr(safetensors.torch, "save_file", save_file)
    card = save_merged(str(sharded.folder), experts, router, tmp_path / "merged")
    assert len(before) > 14
    assert card == json.loads((tmp_path / "merged" / "staf.json").read_text())
    (tmp_path / "plain").touch()  # as the umask says
    assert {p.stat().st_mode for p in (tmp_path / "merged").iterdir()} == {(tmp_path / "plain").stat().st_mode}
    ids = torch.randint(1, 250, (2, 20))
    with torch.no_grad(), Mixture(sharded, experts).merged(router.weights, granularity):
        expected = sharded.model(input_ids=ids, use_cache=False).logits
        found = AutoModelForCausalLM.from_pretrained(str(tmp_path / "merged"), dtype=torch.float32)(input_ids=ids).logits
    assert (found - expected).abs().max() < 1e-5


def test_the_dtype_is_the_bases_or_the_one_asked_for(sharded: Base, tmp_path: Path) -> None:
    experts, router = a_router(sharded, "task")
    save_merged(str(sharded.folder), experts, router, tmp_path / "half", "bfloat16")
    again = load_base(str(tmp_path / "half"), device="cpu")
    assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "bfloat16"
    assert {
        tensor.dtype for tensor in safetensors.torch.load_file(next((tmp_path / "half").glob("*.safetensors"))).values()
    } == {torch.bfloat16}
    assert again.tokenizer("abc")["input_ids"] == sharded.tokenizer("abc")["input_ids"]
    with pytest.raises(UnknownName, match="dtype"):
        save_merged(str(sharded.folder), experts, router, tmp_path / "other", "int3")


def test_nothing_is_left_where_merging_is_refused(sharded: Base, tmp_path: Path) -> None:
    experts, router = a_router(sharded, "task")
    strange = replace(router, modules={**router.modules, "model.layers.9.mlp.up_proj": 0})
    with pytest.raises(ExpertMismatch, match=r"name no model\.layers\.9\.mlp\.up_proj\.weight"):
        save_merged(str(sharded.folder), experts, strange, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    (tmp_path / "merged").mkdir()
    with pytest.raises(StafError, match="exists already"):
        save_merged(str(sharded.folder), experts, router, tmp_path / "merged")


def test_a_full_disk_is_one_message_and_leaves_nothing(sharded: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise safetensors.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    experts, router = a_router(sharded, "task")
    monkeypatch.setattr("safetensors.torch.save_file", full)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(StafError, match=r"cannot write .*merged: .*No space left on device"):
        save_merged(str(sharded.folder), experts, router, tmp_path / "merged")
    assert sorted(tmp_path.iterdir()) == before


def test_experts_that_lack_modules_as_adapters_of_a_hub_do_are_routed_and_merged(base: Base, tmp_path: Path) -> None:
    """One adapts attention only, one the feed-forward matrices only, with different ranks."""
    made = []
    for seed, part in enumerate(("self_attn", "mlp")):
        whole = random_expert(base, part, seed, size=2.0)
        made.append(replace(whole, factors={name: pair for name, pair in whole.factors.items() if part in name}))
    experts = ExpertSet(tuple(made))
    mixture = Mixture(base, experts)
    router = adapt_router(mixture, "colour", make_examples(8, "adaptation"), RouterRecipe(epochs=1, granularity="layer"))
    save_merged(str(base.folder), experts, router, tmp_path / "merged")
    ids = torch.randint(1, 250, (2, 20))
    with torch.no_grad():
        mixture.set_weights(router.weights, "layer")
        expected = base.logits(base.hidden_states(ids).flatten(0, 1))
        base.lora.set_rank_scale({})
        again = load_base(str(tmp_path / "merged"), dtype="float32", device="cpu")
        assert torch.allclose(again.logits(again.hidden_states(ids).flatten(0, 1)), expected, atol=1e-4)
        assert not torch.allclose(base.logits(base.hidden_states(ids).flatten(0, 1)), expected, atol=1e-3)
