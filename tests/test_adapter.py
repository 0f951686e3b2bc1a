"""Experts are PEFT adapters: PEFT loads ours with the same logits, and ours are any that PEFT wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_examples, random_expert
from torch import Tensor

from staf.errors import ConfigError, DamagedFile, MissingData
from staf.experts.adapter import read_adapter, write_adapter
from staf.experts.recipe import ExpertRecipe
from staf.experts.sets import add_expert
from staf.experts.store import ExpertSet, load_expert, save_expert
from staf.experts.train import train_expert
from staf.lm.base import Base, load_base
from staf.routing.adapt import adapt_router
from staf.routing.merge import Mixture
from staf.routing.recipe import RouterRecipe

peft = pytest.importorskip("peft")
IDS = torch.tensor([[5, 9, 33, 70, 12], [8, 8, 41, 2, 90]])


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits


def stock(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32).eval()


def peft_lora(folder: Path, out: Path, seed: int, **options: Any) -> Path:
    """A LoRA folder with random factors, as PEFT saves it."""
    model = peft.get_peft_model(stock(folder), peft.LoraConfig(task_type="CAUSAL_LM", **options))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 8)
    model.save_pretrained(str(out))
    return out


def test_a_trained_expert_loads_in_peft_with_the_same_logits(base: Base, tiny_folder: Path, tmp_path: Path) -> None:
    recipe = ExpertRecipe(steps=12, batch_size=4, tinit=2, tfinal=4, max_length=100, learning_rate=0.02)
    expert = train_expert(base, "colour", make_examples(16), recipe, tmp_path / "state")
    save_expert(tmp_path / "colour", expert)
    mixture = Mixture(base, ExpertSet((load_expert(tmp_path / "colour"),)))
    mixture.set_weights(torch.ones(1, 1))
    ours = logits(base.model)
    theirs = logits(peft.PeftModel.from_pretrained(stock(tiny_folder), str(tmp_path / "colour")))
    assert (ours - logits(stock(tiny_folder))).abs().max() > 1e-3
    assert (ours - theirs).abs().max() < 1e-5
    config = json.loads((tmp_path / "colour" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["rank_pattern"]) == (8, 8, {})


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_ranks_that_differ_and_are_0_are_padded_to_one(base: Base, tiny_folder: Path, tmp_path: Path, seed: int) -> None:
    expert = random_expert(base, "any", seed, scale=1.5)
    save_expert(tmp_path / "any", expert)
    mixture = Mixture(base, ExpertSet((expert,)))
    mixture.set_weights(torch.ones(1, 1))
    theirs = logits(peft.PeftModel.from_pretrained(stock(tiny_folder), str(tmp_path / "any")))
    assert (logits(base.model) - theirs).abs().max() < 1e-5
    factors, config = read_adapter(tmp_path / "any")
    assert {a.shape[0] for _, a in factors.values()} == {config["r"]} == {8}


OPTIONS = {
    "suffixes": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]},
    "rslora": {"r": 4, "lora_alpha": 8, "use_rslora": True, "target_modules": ["q_proj", "down_proj"]},
    "patterns": {
        "r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "up_proj", "o_proj"],
        "rank_pattern": {"up_proj": 3, "model.layers.1.self_attn.q_proj": 5},
        "alpha_pattern": {r".*\.o_proj": 9, "up_proj": 1},
    },
    "full names": {"r": 3, "target_modules": ["model.layers.0.mlp.gate_proj", "model.layers.1.self_attn.k_proj"]},
    "one layer": {"r": 3, "lora_alpha": 6, "target_modules": ["q_proj"], "layers_to_transform": [1]},
}  # fmt: skip


@pytest.mark.parametrize("case", sorted(OPTIONS))
def test_any_lora_that_peft_wrote_is_an_expert(base: Base, tiny_folder: Path, tmp_path: Path, case: str) -> None:
    folder = peft_lora(tiny_folder, tmp_path / "peft", 0, **OPTIONS[case])
    experts = add_expert(tmp_path / "set", folder, name="any", base=base.identity)
    mixture = Mixture(base, experts)
    mixture.set_weights(torch.ones(1, 1))
    theirs = logits(peft.PeftModel.from_pretrained(stock(tiny_folder), str(folder)))
    assert (theirs - logits(stock(tiny_folder))).abs().max() > 1e-2
    assert (logits(base.model) - theirs).abs().max() < 1e-5


def test_a_router_over_adapters_is_the_weighted_sum_of_peft(base: Base, tiny_folder: Path, tmp_path: Path) -> None:
    stage = {"target_modules": ["q_proj", "down_proj"], "lora_alpha": 6}
    folders = [peft_lora(tiny_folder, tmp_path / f"peft{rank}", rank, r=rank, **stage) for rank in (2, 3)]
    for name, folder in zip(("first", "second"), folders, strict=True):
        experts = add_expert(tmp_path / "set", folder, name=name, base=base.identity)
    mixture = Mixture(base, experts)
    recipe = RouterRecipe(method="cma", max_evaluations=8, max_length=128)
    router = adapt_router(mixture, "colour", make_examples(6, "adaptation"), recipe)
    router.check(base.identity, experts)
    mixture.set_weights(router.weights)
    model = peft.PeftModel.from_pretrained(stock(tiny_folder), str(folders[0]), adapter_name="first")
    model.load_adapter(str(folders[1]), adapter_name="second")
    model.add_weighted_adapter(["first", "second"], router.weights[0].tolist(), "mixed", combination_type="cat")
    model.set_adapter("mixed")
    assert (logits(base.model) - logits(model)).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"use_dora": True}, "use_dora = True"),
        ({"bias": "all"}, "bias = 'all'"),
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save = \['lm_head'\]"),
        ({"init_lora_weights": "olora"}, "changes the weights of the base"),
    ],
)
def test_what_is_more_than_lora_is_refused_with_the_reason(
    tiny_folder: Path, tmp_path: Path, options: dict[str, Any], reason: str
) -> None:
    folder = peft_lora(tiny_folder, tmp_path / "adapter", 0, r=2, target_modules=["q_proj"], **options)
    with pytest.raises(DamagedFile, match=reason):
        read_adapter(folder)


def test_other_kinds_and_pickles_are_refused(base: Base, tmp_path: Path) -> None:
    write_adapter(tmp_path, random_expert(base, "any", 1).factors, base.identity)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | {"peft_type": "LOHA"}))
    with pytest.raises(DamagedFile, match="peft_type is 'LOHA'; only LORA"):
        read_adapter(tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    with pytest.raises(DamagedFile, match=r"adapter_model\.bin is a pickle"):
        read_adapter(tmp_path)
    with pytest.raises(MissingData, match="no LoRA adapter at"):
        read_adapter(tmp_path / "none")


def test_an_adapter_needs_a_name_and_the_first_one_a_base(base: Base, tmp_path: Path) -> None:
    write_adapter(tmp_path / "any", random_expert(base, "any", 1).factors, base.identity)
    with pytest.raises(ConfigError, match="add --name NAME"):
        add_expert(tmp_path / "set", tmp_path / "any")
    with pytest.raises(ConfigError, match="its base must be given: add --base"):
        add_expert(tmp_path / "set", tmp_path / "any", name="any")
    save_expert(tmp_path / "set" / "first", random_expert(base, "first", 2))
    assert add_expert(tmp_path / "set", tmp_path / "any", name="any").names == ("any", "first")
    with pytest.raises(MissingData, match=r"adapter .* is not in the local hub cache"):
        add_expert(tmp_path / "set", "nobody/no-such-adapter", name="hub")
    with pytest.raises(MissingData, match=r"staf experts add EXPERTS .* --name any"):
        load_expert(tmp_path / "any")


def test_another_base_is_reported(base: Base, tiny_folder: Path, tmp_path: Path) -> None:
    log: list[str] = []
    write_adapter(tmp_path / "any", random_expert(base, "any", 1).factors, {"name": "somebody/other-model"})
    add_expert(tmp_path / "set", tmp_path / "any", name="any", base=base.identity, log=log.append)
    assert "names the base somebody/other-model" in log[0]
    assert load_base(str(tiny_folder), dtype="float32").identity == load_expert(tmp_path / "set" / "any").base
