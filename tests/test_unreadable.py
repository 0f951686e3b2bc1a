"""Bases, GGUF files, adapters and checkpoints as they should not be: one error that says what to do, and nothing is cached."""

from __future__ import annotations

import json
import logging
import random
import shutil
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from conftest import make_examples, random_expert
from gguf_files import write_gguf
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from staf.compute import ComputeOptions
from staf.errors import BadData, ConfigError, DamagedFile, StafError
from staf.experts.adapter import read_adapter
from staf.experts.checkpoint import Checkpoints
from staf.experts.recipe import ExpertRecipe
from staf.experts.store import load_expert, save_expert
from staf.experts.train import ExpertTraining, train_expert
from staf.lm.base import Base, from_gguf, identity_of, load_base, load_tokenizer
from staf.lm.batches import encode, encode_prompt, tokenize
from staf.lm.generation import generate
from staf.lm.scoring import score_labels

MUTATIONS = 200


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("STAF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def load(folder: Path) -> Base:
    return load_base(str(folder), dtype="float32", device="cpu")


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def weights(folder: Path, edit: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    save_file(edit(load_file(folder / "model.safetensors")), folder / "model.safetensors", {"format": "pt"})


FOUR, OWN = {"load_in_4bit": True}, {"AutoConfig": "configuration_owlnet.OwlConfig"}
DAMAGES: dict[str, Callable[[Path], Any]] = {
    "cut weights": lambda d: (d / "model.safetensors").write_bytes((d / "model.safetensors").read_bytes()[:20000]),
    "a pointer of git-lfs": lambda d: (d / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n"),
    "four bits": lambda d: change(d / "config.json", quantization_config={"quant_method": "bitsandbytes"} | FOUR),
    "gptq": lambda d: change(d / "config.json", quantization_config={"quant_method": "gptq", "bits": 4}),
    "cut config": lambda d: (d / "config.json").write_text('{"model_type": "llama", '),
    "a list as config": lambda d: (d / "config.json").write_text("[]"),
    "no type": lambda d: change(d / "config.json", model_type=None),
    "other widths": lambda d: change(d / "config.json", intermediate_size=96),
    "names of another tool": lambda d: weights(d, lambda w: {f"base_model.model.{name}": value for name, value in w.items()}),
    "not a number": lambda d: weights(d, lambda w: {**w, "model.norm.weight": w["model.norm.weight"] * float("nan")}),
    "no end token": lambda d: change(d / "tokenizer_config.json", eos_token=None),
    "cut tokenizer": lambda d: (d / "tokenizer.json").write_text((d / "tokenizer.json").read_text()[:900]),
    "own code": lambda d: change(d / "config.json", model_type="owlnet", auto_map=OWN),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_base_that_cannot_be_used_is_one_error(damage: str, folder: Path) -> None:
    (folder / "configuration_owlnet.py").write_text(f"open({str(folder / 'RAN')!r}, 'w')\nclass OwlConfig: pass\n")
    DAMAGES[damage](folder)
    with pytest.raises(StafError) as caught:
        load(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert ("code of its own, which is never run" in str(caught.value)) == (damage == "own code")
    assert not (folder / "RAN").exists()


def test_hidden_files_are_no_weights(folder: Path) -> None:
    before = identity_of(str(folder))
    (folder / "._model.safetensors").write_bytes(b"Mac OS X")
    assert identity_of(str(folder)) == before


def test_a_tokenizer_of_its_own_code_is_not_run(folder: Path, tmp_path: Path) -> None:
    code = f"open({str(tmp_path / 'RAN')!r}, 'w')\nclass OwlTokenizer: pass\n"
    for place in (folder, tmp_path):
        (place / "owl.py").write_text(code)
    change(
        folder / "tokenizer_config.json", tokenizer_class="OwlTokenizer", auto_map={"AutoTokenizer": ["owl.OwlTokenizer", None]}
    )
    shutil.copy(folder / "tokenizer_config.json", tmp_path)
    with suppress(DamagedFile):
        load_tokenizer(str(folder))
    load(write_gguf(tmp_path / "plain.gguf"))  # what lies beside a GGUF file is not its own
    assert not (tmp_path / "RAN").exists()


def test_a_pad_id_outside_the_embedding_is_not_used_and_such_a_text_is_refused(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(str(folder))
    base, examples = load(folder), make_examples(3)
    options = {"max_length": 200, "token_budget": 400, "length_normalised": True}
    assert len(score_labels(base, examples, **options)) == 3
    bad = [replace(examples[0], context="a [PAD] b")]
    with pytest.raises(BadData, match=r"the token '\[PAD\]', for which the embedding of .* has no row"):
        score_labels(base, bad, **options)


def test_end_tokens_are_not_appended_to_prompts(base: Base) -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer, text = base.tokenizer, "Query: a\nAnswer:"
    plain = tokenize(text, tokenizer)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A <end>", special_tokens=[("<end>", 0)])
    assert tokenizer(text)["input_ids"][-1] == 0
    assert tokenize(text, tokenizer) == plain
    assert encode_prompt(make_examples(1)[0], tokenizer, 200)[-1] != 0


def test_a_prompt_beyond_the_positions_of_the_base_is_refused(folder: Path) -> None:
    change(folder / "config.json", max_position_embeddings=64)
    base = load(folder)
    with pytest.raises(ConfigError, match=r"has 64 positions\. Set max_length to at most 64"):
        score_labels(base, make_examples(2), max_length=200, token_budget=400, length_normalised=True)
    recipe = ExpertRecipe(steps=2, batch_size=2, tinit=0, tfinal=0, max_length=200)
    with pytest.raises(ConfigError, match="has 64 positions"):
        train_expert(base, "colour", make_examples(4), recipe, folder / "state")


def test_rope_that_depends_on_the_longest_row_is_used_below_that_length_only(folder: Path) -> None:
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 96}
    change(folder / "config.json", rope_parameters=rope)
    assert load(folder).context_length == 96


OTHERS: dict[str, dict[str, Any]] = {
    "gemma2": {"head_dim": 16, "sliding_window": 16}, "gemma3_text": {"head_dim": 16, "sliding_window": 16},
    "phi": {}, "gpt2": {},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    "granite": {"logits_scaling": 8.0}, "cohere": {},
}  # fmt: skip


@pytest.mark.parametrize("kind", OTHERS)
def test_any_causal_decoder_is_scored_and_trained_where_it_has_linear_maps(kind: str, folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    ids = {"eos_token_id": 0, "bos_token_id": None, "pad_token_id": 0, "vocab_size": 257, "max_position_embeddings": 512}
    AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes, **ids, **OTHERS[kind])).save_pretrained(str(folder))
    base, examples = load(folder), make_examples(3)
    found = score_labels(base, examples, max_length=200, token_budget=400, length_normalised=False)
    tokens = encode_prompt(examples[0], base.tokenizer, 200)
    label = base.tokenizer(" blue")["input_ids"]
    logits = base.model(input_ids=torch.tensor([tokens + label])).logits[0].float().log_softmax(-1)
    expected = sum(float(logits[len(tokens) - 1 + i, token]) for i, token in enumerate(label))
    assert found[0][0].item() == pytest.approx(expected, abs=1e-3)
    recipe = ExpertRecipe(steps=2, batch_size=2, tinit=0, tfinal=1, max_length=200)
    if kind == "gpt2":
        with pytest.raises(StafError, match="no linear maps"):
            train_expert(base, "colour", examples, recipe, tmp_path / "state")
    else:
        assert train_expert(base, "colour", examples, recipe, tmp_path / "state").ranks


def test_a_gguf_file_gives_the_logits_that_its_rope_scaling_asks_for(tmp_path: Path) -> None:
    ids = torch.arange(3, 60)[None]

    def logits(base: Base) -> torch.Tensor:
        with torch.no_grad():
            return base.model(input_ids=ids).logits

    def linear(writer: gguf.GGUFWriter) -> None:
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(4.0)

    def yarn(writer: gguf.GGUFWriter) -> None:
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(4.0)
        writer.add_rope_scaling_orig_ctx_len(512)

    def freqs(writer: gguf.GGUFWriter) -> None:
        writer.add_tensor("rope_freqs.weight", np.array([1, 1, 4, 8], np.float32))

    plain = load(write_gguf(tmp_path / "plain.gguf"))
    given = {"rope_type": "longrope", "factor": 1.0, "attention_factor": 1.0, "original_max_position_embeddings": 2048}
    factors = {"short_factor": [1.0, 1.0, 4.0, 8.0], "long_factor": [1.0, 1.0, 4.0, 8.0]}
    for name, more, rope in (
        ("linear", linear, {"rope_type": "linear", "factor": 4.0}),
        ("yarn", yarn, {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}),
        ("freqs", freqs, {**given, **factors}),
    ):
        base = load(write_gguf(tmp_path / f"{name}.gguf", more))
        shutil.copytree(plain.folder, tmp_path / name)
        change(tmp_path / name / "config.json", rope_parameters={"rope_theta": 500000.0, **rope})
        assert torch.equal(logits(base), logits(load(tmp_path / name)))
        assert not torch.allclose(logits(base), logits(plain), atol=1e-3)
    inverse = load(tmp_path / "freqs.gguf").model.model.rotary_emb.inv_freq
    assert torch.allclose(inverse, plain.model.model.rotary_emb.inv_freq / torch.tensor([1.0, 1.0, 4.0, 8.0]))


REFUSED: dict[str, Callable[[Path], Any]] = {
    "unknown key": lambda p: write_gguf(p, lambda w: w.add_float32("llama.attention.owl", 2.0)),
    "part of a split": lambda p: write_gguf(p, lambda w: w.add_uint16("split.count", 2)),
    "half the tensors": lambda p: write_gguf(p, left_out=("blk.1.attn", "blk.1.ffn_gate", "output_norm")),
    "a layer less": lambda p: write_gguf(p, left_out=("blk.1.",)),
    "a million layers": lambda p: write_gguf(p, layers=1_000_000),
    "another scaling": lambda p: write_gguf(p, lambda w: w.add_string("llama.rope.scaling.type", "owl")),
    "cut": lambda p: p.write_bytes(write_gguf(p).read_bytes()[:60000]),
    "a page": lambda p: p.write_text("<html>sign in</html>"),
    "empty": lambda p: p.write_bytes(b""),
    "another kind": lambda p: p.write_bytes(write_gguf(p).read_bytes().replace(b"\0\0\0\0llama", b"\0\0\0\0owlie")),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_gguf_file_that_is_not_carried_over_whole_is_refused_and_not_cached(case: str, tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "x.gguf"
    REFUSED[case](path)
    for _ in range(2):
        with pytest.raises(DamagedFile, match=r"x\.gguf"):
            from_gguf(path)
    assert not list((cache / "base").glob("*")) if (cache / "base").is_dir() else True


RECIPE = ExpertRecipe(steps=4, batch_size=2, tinit=0, tfinal=1, max_length=160)


@pytest.mark.parametrize("damage", ["short", "one element", "another dtype", "text as step"])
def test_a_checkpoint_of_other_shapes_is_refused_before_the_optimiser_sees_it(base: Base, tmp_path: Path, damage: str) -> None:
    training = ExpertTraining(base, [encode(e, base.tokenizer, 160) for e in make_examples(4)], RECIPE)
    with training.running():
        training.run_step()
    tensors, record = training.state()
    match damage:
        case "short":
            tensors["exp_avg"] = tensors["exp_avg"][:-5]
        case "one element":
            tensors["average"] = torch.ones(1)
        case "another dtype":
            tensors["mask"] = tensors["mask"].float()
        case _:
            record["step"] = "1"
    Checkpoints(tmp_path, "run", lambda text: None).save(1, tensors, record)
    with pytest.raises(DamagedFile, match=r"is not a complete state: .* is .*, not "):
        Checkpoints(tmp_path, "run", lambda text: None).load(*training.state())


def test_an_altered_record_of_an_expert_is_refused(base: Base, tmp_path: Path) -> None:
    save_expert(tmp_path / "relation", random_expert(base, "relation", 1))
    change(tmp_path / "relation" / "staf.json", base={"name": "another", "fingerprint": "0123"})
    with pytest.raises(DamagedFile, match="or it was altered"):
        load_expert(tmp_path / "relation")


def mutated(data: bytes, number: int) -> bytes:
    """Cut, emptied, with other bytes, with a piece twice, or with something else in its place."""
    rng, kind = random.Random(number), number % 5
    at = rng.randrange(max(min(len(data), 6000), 1))  # where the headers are
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[: min(at, 200)] + rng.randbytes(8) + data[min(at, 200) + 8 :]
    if kind == 2:
        return data[:at] + data[max(at - 50, 0) :]
    if kind == 3:
        flipped = bytearray(data)
        for place in {at, at // 2, at // 7} if data else ():
            flipped[place] ^= 1 << rng.randrange(8)
        return bytes(flipped)
    return rng.choice((b"", b"[]", b"{}", b"null", b"\xff\xfe", b"version https://git-lfs.github.com/spec/v1\n", b"[" * 3000))


def fuzz(files: list[Path], read: Callable[[], Any]) -> int:
    """Change one file after the other, and read it: a result or a named error. Returns how many were refused."""
    refused = 0
    for number in range(MUTATIONS):
        path = files[number % len(files)]
        whole = path.read_bytes()
        path.write_bytes(mutated(whole, number))
        try:
            read()
        except StafError:
            refused += 1
        finally:
            path.write_bytes(whole)
    return refused


def test_no_damage_to_a_base_is_a_traceback(folder: Path) -> None:
    names = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "generation_config.json")
    assert fuzz([folder / name for name in names], lambda: load(folder)) > MUTATIONS // 2


def test_no_damage_to_a_gguf_file_is_a_traceback(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "x.gguf")
    assert fuzz([path], lambda: from_gguf(path)) > MUTATIONS // 4


def test_no_damage_to_an_adapter_or_an_expert_is_a_traceback(base: Base, tmp_path: Path) -> None:
    folder = tmp_path / "relation"
    save_expert(folder, random_expert(base, "relation", 1))
    assert fuzz([folder / "adapter_config.json", folder / "adapter_model.safetensors"], lambda: read_adapter(folder)) > 50
    assert fuzz(sorted(folder.iterdir()), lambda: load_expert(folder)) > MUTATIONS * 0.9


def test_no_damage_to_a_checkpoint_is_a_traceback(base: Base, tmp_path: Path) -> None:
    training = ExpertTraining(base, [encode(e, base.tokenizer, 160) for e in make_examples(4)], RECIPE, ComputeOptions())
    checkpoints = Checkpoints(tmp_path, "run", lambda text: None)
    checkpoints.save(1, *training.state())
    assert fuzz(sorted(next(tmp_path.glob("step-*")).iterdir()), lambda: checkpoints.load(*training.state())) > MUTATIONS // 2


def test_no_deprecation_of_transformers_reaches_the_user(base: Base, caplog: pytest.LogCaptureFixture) -> None:
    """A shared prefix, a cache that grows, and a training step: all the ways in which the decoder is called."""
    examples = [replace(example, context="a " * 200 + example.context) for example in make_examples(4)]
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        score_labels(base, examples, max_length=700, token_budget=4000, length_normalised=True)
        generate(base, examples, max_length=700, max_new_tokens=3, token_budget=4000)
        training = ExpertTraining(base, [encode(e, base.tokenizer, 160) for e in make_examples(4)], RECIPE)
        with training.running():
            training.run_step()
    assert not [record.message for record in caplog.records if "deprecat" in record.message.lower()]
