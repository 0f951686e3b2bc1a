"""Files: save then load is the identity, and every kind of bad file is one named error that says what to do."""

from __future__ import annotations

import json
import os
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import make_examples, random_expert

from staf.checkpoint_io import read_checkpoint, write_checkpoint
from staf.data.example import dedup_key
from staf.errors import BaseMismatch, DamagedFile, ExpertMismatch, MissingData, StafError, UnknownName
from staf.experts import store
from staf.experts.store import ExpertSet, load_expert, load_experts, save_expert, training_run_of
from staf.lm.base import Base, fingerprint_of, load_base, resolve
from staf.routing.merge import Mixture
from staf.routing.recipe import RouterRecipe
from staf.routing.store import Router, load_router, save_router


@pytest.fixture
def saved(base: Base, tmp_path: Path) -> Path:
    save_expert(tmp_path / "relation", random_expert(base, "relation", seed=1, scale=2.5))
    return tmp_path / "relation"


def tensor_file(folder: Path) -> Path:
    return folder / "adapter_model.safetensors"


def edit_record(folder: Path, **changes: object) -> None:
    path = folder / "staf.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_saving_and_loading_an_expert_is_the_identity(base: Base, saved: Path) -> None:
    expert = random_expert(base, "relation", seed=1, scale=2.5)
    loaded = load_expert(saved)
    assert loaded.fingerprint == expert.fingerprint
    assert (loaded.name, loaded.base) == (expert.name, expert.base)
    assert loaded.dedup_keys == {dedup_key("taught relation")}
    assert 0 in loaded.ranks.values()
    for name, parts in expert.factors.items():
        assert all(torch.equal(a, b) for a, b in zip(parts, loaded.factors[name], strict=True))
    before = tensor_file(saved).read_bytes()
    save_expert(saved, loaded)
    assert tensor_file(saved).read_bytes() == before


def test_an_expert_whose_name_is_part_of_every_module_name_can_be_saved(base: Base, tmp_path: Path) -> None:
    """Peft cannot save an AdaLoRA adapter called 'er': 'layers' contains it."""
    save_expert(tmp_path / "er", random_expert(base, "er", seed=2))
    assert load_expert(tmp_path / "er").name == "er"


def test_a_truncated_file(saved: Path) -> None:
    path = tensor_file(saved)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DamagedFile, match=r"is truncated or was altered: .*make it again"):
        load_expert(saved)


def test_an_altered_file(saved: Path) -> None:
    path = tensor_file(saved)
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedFile, match="was altered: its SHA-256"):
        load_expert(saved)


def test_a_missing_part(saved: Path) -> None:
    tensor_file(saved).unlink()
    with pytest.raises(DamagedFile, match="which is not there"):
        load_expert(saved)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite(base: Base, tmp_path: Path, value: float) -> None:
    expert = random_expert(base, "relation", seed=1)
    next(parts for parts in expert.factors.values() if parts[1].numel())[1][0, 0] = value
    save_expert(tmp_path, expert)
    with pytest.raises(DamagedFile, match="holds NaN or infinite numbers"):
        load_expert(tmp_path)


def test_a_pickle_is_refused_by_name_and_never_opened(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (os.mkdir, (str(tmp_path / "exploded"),))

    (tmp_path / "expert").mkdir()
    (tmp_path / "expert" / "adapter_model.bin").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(DamagedFile, match=r"adapter_model\.bin, a format that can run code"):
        load_expert(tmp_path / "expert")
    assert not (tmp_path / "exploded").exists()


def test_a_pickle_under_the_name_of_a_tensor_file(saved: Path) -> None:
    data = pickle.dumps({"a": 1})
    path = tensor_file(saved)
    path.write_bytes(data)
    import hashlib

    record = json.loads((saved / "staf.json").read_text())
    edit_record(saved, sha256=record["sha256"] | {path.name: hashlib.sha256(data).hexdigest()})
    with pytest.raises(DamagedFile, match="is not a safetensors file"):
        load_expert(saved)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not valid JSON"),
        ("\x00", "is not valid JSON"),
        ("[]", "is not a staf expert of version 2"),
        ('{"format": "staf-router", "format_version": 1}', "is not a staf expert of version 2"),
        ('{"format": "staf-expert", "format_version": 3}', "is not a staf expert of version 2"),
        ('{"format": "staf-expert", "format_version": 2}', "do not fit"),
    ],
)
def test_a_record_that_is_no_record(saved: Path, content: str, message: str) -> None:
    (saved / "staf.json").write_text(content)
    with pytest.raises(DamagedFile, match=message):
        load_expert(saved)


def test_a_record_may_not_point_outside_its_folder(saved: Path) -> None:
    (saved.parent / "secret.safetensors").write_bytes(b"x")
    record = json.loads((saved / "staf.json").read_text())
    edit_record(saved, sha256=record["sha256"] | {"../secret.safetensors": "0"})
    with pytest.raises(DamagedFile, match="which is not there"):
        load_expert(saved)


def test_a_record_that_does_not_fit_its_tensors(saved: Path) -> None:
    record = json.loads((saved / "staf.json").read_text())
    first = next(iter(record["ranks"]))
    for wrong in (0, 1, 99):
        edit_record(saved, ranks=record["ranks"] | {first: wrong})
        if record["ranks"][first] != wrong:
            with pytest.raises(DamagedFile, match=r"are not as staf\.json says"):
                load_expert(saved)
    edit_record(saved, ranks=record["ranks"] | {"no.such.matrix": 1})
    with pytest.raises(DamagedFile, match="do not fit"):
        load_expert(saved)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match="there is no such folder"):
        load_expert(tmp_path / "none")
    with pytest.raises(MissingData, match=r"staf\.json is not there\. It holds nothing"):
        load_expert(tmp_path)
    with pytest.raises(MissingData, match="train some: staf train"):
        load_experts(tmp_path)


def test_a_write_that_fails_leaves_the_old_expert(saved: Path, base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    before = load_expert(saved).fingerprint

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("staf.io.os.fsync", full)
    with pytest.raises(StafError, match=r"No space left on device\. Nothing was changed there"):
        save_expert(saved, random_expert(base, "relation", seed=7))
    monkeypatch.undo()
    assert load_expert(saved).fingerprint == before
    assert not list(saved.glob(".*.tmp"))


def test_a_stop_between_tensors_and_record_leaves_the_old_expert(
    saved: Path, base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = load_expert(saved).fingerprint

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        save_expert(saved, random_expert(base, "relation", seed=7))
    monkeypatch.undo()
    assert load_expert(saved).fingerprint == before
    save_expert(saved, random_expert(base, "relation", seed=7))
    assert load_expert(saved).fingerprint != before
    assert load_expert(saved.parent / ".removed" / "relation").fingerprint == before  # the one that was there is kept


def test_a_folder_in_the_former_format_is_converted_once(base: Base, tmp_path: Path) -> None:
    expert, log = random_expert(base, "relation", seed=1), list[str]()
    tensors = {f"{n}.{part}": t for n, (b, a) in expert.factors.items() for part, t in (("U", b), ("V", a))}
    tensors |= {f"{n}.lambda": torch.full((rank,), 0.5) for n, rank in expert.ranks.items()}
    tensors["subjects"] = torch.tensor([int(s, 16) - (1 << 63) for s in expert.dedup_keys])
    record = {"name": "relation", "base": expert.base, "scale": 2.0, "ranks": expert.ranks, "training": expert.record}
    write_checkpoint(tmp_path / "relation", "expert", tensors, record)
    assert training_run_of(tmp_path / "relation") == "run-relation"
    loaded = load_expert(tmp_path / "relation", log.append)
    assert (loaded.fingerprint, loaded.dedup_keys, loaded.record) == (expert.fingerprint, expert.dedup_keys, expert.record)
    assert "converted to a PEFT adapter" in log[0]
    assert load_expert(tmp_path / "relation", log.append).fingerprint == expert.fingerprint
    assert len(log) == 1


def test_bundles_keep_dtypes_and_empty_tensors(tmp_path: Path) -> None:
    tensors = {"a": torch.zeros(3, 0), "b": torch.tensor([True, False]), "c": torch.arange(3, dtype=torch.int64)}
    write_checkpoint(tmp_path, "thing", tensors, {"note": "x"})
    loaded, record = read_checkpoint(tmp_path, "thing")
    assert record == {"note": "x"}
    assert all(torch.equal(loaded[k], v) and loaded[k].dtype == v.dtype for k, v in tensors.items())


def test_the_order_of_experts_is_by_name_and_a_wrong_name_is_answered_with_near_ones(base: Base, tmp_path: Path) -> None:
    for seed, name in enumerate(("synonymy", "attribute", "relation")):
        save_expert(tmp_path / name, random_expert(base, name, seed))
    assert load_experts(tmp_path).names == ("attribute", "relation", "synonymy")
    assert load_experts(tmp_path, ["synonymy", "attribute"]).names == ("attribute", "synonymy")
    with pytest.raises(UnknownName, match=r"no expert 'synonym'.*'synonymy'.*Available: attribute, relation, synonymy"):
        load_experts(tmp_path, ["synonym"])


def test_an_expert_of_another_base_is_refused(base: Base, experts: ExpertSet) -> None:
    other = replace(experts.experts[0], base={"name": "other", "fingerprint": "0123"})
    with pytest.raises(BaseMismatch, match="expert 'attribute' was trained on other"):
        Mixture(base, ExpertSet((other, *experts.experts[1:])))


def test_an_expert_of_another_tokenizer_is_refused(base: Base, experts: ExpertSet) -> None:
    other = replace(experts.experts[0], base={**base.identity, "tokenizer": "0123"})
    with pytest.raises(BaseMismatch, match="expert 'attribute' was trained with another tokenizer"):
        Mixture(base, ExpertSet((other,)))
    unknown = {name: value for name, value in base.identity.items() if name != "tokenizer"}
    Mixture(base, ExpertSet((replace(experts.experts[0], base=unknown),)))


def test_a_base_of_the_same_shape_with_other_weights_has_another_fingerprint(tiny_folder: Path, tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    copy = tmp_path / "copy"
    shutil.copytree(tiny_folder, copy)
    assert fingerprint_of(copy) == fingerprint_of(tiny_folder)
    weights = load_file(copy / "model.safetensors")
    weights["model.norm.weight"][0] += 0.01
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    assert fingerprint_of(copy) != fingerprint_of(tiny_folder)


def test_a_base_with_pickled_weights_or_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match=r"config\.json is missing"):
        fingerprint_of(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(DamagedFile, match="no safetensors weights; pickled ones"):
        fingerprint_of(tmp_path)


def test_base_names_that_lead_nowhere(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match=r"it is no folder, no \.gguf file and no hub id"):
        resolve("nothing-here")
    with pytest.raises(MissingData, match="no base model at"):
        resolve(str(tmp_path / "x.gguf"))
    with pytest.raises(MissingData, match="not in the local hub cache"):
        resolve("nobody/nothing-of-this-name")


def test_a_model_that_is_no_causal_decoder_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, BertConfig, BertLMHeadModel

    config = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, vocab_size=20)
    config.vocab_size = 300
    AutoTokenizer.from_pretrained(str(tiny_folder)).save_pretrained(str(tmp_path))
    BertLMHeadModel(config).save_pretrained(str(tmp_path))
    with pytest.raises(DamagedFile, match=r"of type bert, whose forward with padding and a cache|does not load"):
        load_base(str(tmp_path), dtype="float32")


def a_router(base: Base, experts: ExpertSet) -> Router:
    return Router.of(
        base, experts, "colour", make_examples(3, "adaptation"), RouterRecipe(), torch.rand(1, 3), torch.rand(6), {"loss": 1.0}
    )


def test_a_routers_cost_lies_beside_it_and_is_asked_for(base: Base, experts: ExpertSet, tmp_path: Path) -> None:
    router = a_router(base, experts)
    for seconds in (1.0, 2.0):
        save_router(tmp_path / str(seconds), replace(router, record={"loss": 1.0, "seconds": seconds, "peak_memory_bytes": 7}))
        assert load_router(tmp_path / str(seconds)).record == {"loss": 1.0, "seconds": seconds, "peak_memory_bytes": 7}
    one, other = ((tmp_path / seconds / "router.json").read_bytes() for seconds in ("1.0", "2.0"))
    assert one == other
    (tmp_path / "1.0" / "cost.json").write_text("[]")
    with pytest.raises(DamagedFile, match="its record is not that of a router"):
        load_router(tmp_path / "1.0")
    (tmp_path / "1.0" / "cost.json").unlink()
    with pytest.raises(DamagedFile, match=r"cost\.json is missing"):
        load_router(tmp_path / "1.0")


def test_saving_and_loading_a_router_is_the_identity(base: Base, experts: ExpertSet, tmp_path: Path) -> None:
    router = a_router(base, experts)
    save_router(tmp_path, router)
    loaded = load_router(tmp_path)
    assert torch.equal(loaded.weights, router.weights)
    assert torch.equal(loaded.params, router.params)
    assert replace(loaded, weights=router.weights, params=router.params) == router
    loaded.check(base.identity, experts)


def test_a_router_for_other_experts_or_another_base_is_refused(base: Base, experts: ExpertSet) -> None:
    router = a_router(base, experts)
    fewer = ExpertSet(experts.experts[:2])
    with pytest.raises(ExpertMismatch, match="found attribute, relation"):
        router.check(base.identity, fewer)
    with pytest.raises(ExpertMismatch, match=r"'synonymy' is missing\. Adapt again"):
        router.check(base.identity, fewer)
    again = ExpertSet((*experts.experts[:2], random_expert(base, "synonymy", 9)))
    with pytest.raises(ExpertMismatch, match=r"\. 'synonymy' is another expert of that name \(.{16} then, .{16} now\)\. Adapt"):
        router.check(base.identity, again)
    old = replace(router, expert_fingerprints={})
    old.check(base.identity, experts)
    with pytest.raises(ExpertMismatch, match=r"\)\. Adapt again"):
        old.check(base.identity, again)
    with pytest.raises(BaseMismatch, match="adapt again"):
        router.check({"name": "other", "fingerprint": "1"}, experts)
    with pytest.raises(BaseMismatch, match="with another tokenizer"):
        router.check({**base.identity, "tokenizer": "0123"}, experts)
    unknown = {name: value for name, value in base.identity.items() if name != "tokenizer"}
    replace(router, base=unknown).check(base.identity, experts)
