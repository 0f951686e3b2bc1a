"""The experts that come with the package, and the compact form that they are kept in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import make_examples

from staf.errors import DamagedFile
from staf.experts.store import REFERENCE_FOLDER, Expert, ExpertSet, load_expert, load_experts, save_expert
from staf.lm.base import Base
from staf.routing.merge import Mixture
from staf.routing.recipe import RouterRecipe
from staf.routing.store import Router, load_router, save_router

IDS = torch.arange(1, 41).view(2, 20)
SHARED = {"CC BY 4.0", "CC0", "MIT", "Apache-2.0", "public domain (US Government work)"}
"""Licences under which what is learned from a corpus may be passed on."""
MOST_BYTES = 25_000_000


def test_they_are_found_by_name_and_checked() -> None:
    found = load_experts(Path("reference"))
    assert found.names == ("evidence-inference", "ncbi-disease", "rqe-amia2016")
    assert found.folder == REFERENCE_FOLDER
    assert {expert.base["name"] for expert in found.experts} == {"SmolLM2-135M-Instruct"}
    assert all(expert.dedup_keys and expert.average_rank == pytest.approx(4.0) for expert in found.experts)


def test_only_data_that_may_be_shared_has_trained_them() -> None:
    licences = [licence for expert in load_experts(Path("reference")).experts for licence in expert.record["licences"].values()]
    assert len(licences) == 3
    assert set(licences) <= SHARED


def test_they_are_small() -> None:
    assert sum(path.stat().st_size for path in REFERENCE_FOLDER.rglob("*") if path.is_file()) < MOST_BYTES
    assert not [path for path in REFERENCE_FOLDER.rglob("*") if path.is_file() and path.suffix not in (".json", ".safetensors")]


def test_a_folder_of_that_name_comes_first(experts: ExpertSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_expert(tmp_path / "reference" / experts.names[0], experts.experts[0])
    assert load_experts(Path("reference")).names == experts.names[:1]


def test_a_router_over_them_finds_them_wherever_it_is(base: Base, experts: ExpertSet, tmp_path: Path) -> None:
    recipe = RouterRecipe(method="cma", shots=4)
    router = Router.of(base, experts, "colour", make_examples(2), recipe, torch.full((1, 3), 1 / 3), torch.zeros(6), {})
    router = replace(router, experts_folder=REFERENCE_FOLDER, record={**router.record, "seconds": 1.0})
    save_router(tmp_path / "one", router)
    (tmp_path / "one").rename(tmp_path / "moved")
    assert load_router(tmp_path / "moved").experts_folder == REFERENCE_FOLDER


def with_ranks(expert: Expert) -> Expert:
    """The expert with another rank in each module, 0 in the first."""
    cut = {n: (b[:, : i % (b.shape[1] + 1)], a[: i % (b.shape[1] + 1)]) for i, (n, (b, a)) in enumerate(expert.factors.items())}
    return replace(expert, factors={name: (b.contiguous(), a.contiguous()) for name, (b, a) in cut.items()})


def test_a_compact_expert_is_itself_in_bfloat16(experts: ExpertSet, tmp_path: Path) -> None:
    expert = with_ranks(experts.experts[0])
    save_expert(tmp_path / "compact", expert, compact=True)
    found = load_expert(tmp_path / "compact")
    assert found.ranks == expert.ranks
    assert found.dedup_keys == expert.dedup_keys
    for name, pair in expert.factors.items():
        for one, other in zip(pair, found.factors[name], strict=True):
            assert torch.equal(one.bfloat16().float(), other)
    save_expert(tmp_path / "full", expert)
    sizes = [(tmp_path / form / "adapter_model.safetensors").stat().st_size for form in ("compact", "full")]
    assert sizes[0] < sizes[1] / 2
    (tmp_path / "compact" / "adapter_config.json").write_text("{}")
    with pytest.raises(DamagedFile, match="SHA-256"):
        load_expert(tmp_path / "compact")


def test_peft_loads_a_compact_expert_with_the_same_logits(base: Base, experts: ExpertSet, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    save_expert(tmp_path / "compact", with_ranks(experts.experts[0]), compact=True)
    expert = load_expert(tmp_path / "compact")
    with torch.no_grad():
        Mixture(base, ExpertSet((expert,))).set_weights(torch.ones(1, 1))
        ours = base.logits(base.hidden_states(IDS).flatten(0, 1))
        plain = AutoModelForCausalLM.from_pretrained(str(base.folder), dtype=torch.float32)
        theirs = peft.PeftModel.from_pretrained(plain, str(tmp_path / "compact"))(input_ids=IDS).logits.flatten(0, 1)
    assert (ours - theirs).abs().max() < 1e-4
