"""The base: what is refused, what it is identified by, and conversion of GGUF files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf_files import write_gguf
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from staf.errors import DamagedFile, StafError
from staf.lm import base as module
from staf.lm.base import Base, choose_dtype, fingerprint_of, from_gguf, identity_of, load_base


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def test_parameters_without_weights_are_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(DamagedFile, match=r"no weights for 1 parameters .*model.layers.1.mlp.up_proj.weight"):
        load_base(str(folder), dtype="float32", device="cpu")


def test_a_consolidated_copy_of_the_weights_changes_nothing(folder: Path) -> None:
    before = fingerprint_of(folder)
    shutil.copy(folder / "model.safetensors", folder / "consolidated.safetensors")
    (folder / "._model.safetensors").write_bytes(b"\x00\x05\x16\x07")  # what macOS keeps next to a file
    assert fingerprint_of(folder) == before


def test_weights_are_hashed_once_a_process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[Path] = []
    known = module.sha256_of
    monkeypatch.setattr(module, "sha256_of", lambda path: hashed.append(path) or known(path))
    assert identity_of(str(folder)) == load_base(str(folder), dtype="float32", device="cpu").identity
    assert len(hashed) == 1


def test_another_tokenizer_is_another_base(folder: Path) -> None:
    before = identity_of(str(folder))
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    tokenizer.add_tokens(["fever"])
    tokenizer.save_pretrained(str(folder))
    after = identity_of(str(folder))
    assert after["fingerprint"] == before["fingerprint"]
    assert after["tokenizer"] != before["tokenizer"]


def test_a_snapshot_of_the_hub_has_its_revision(folder: Path) -> None:
    snapshot = folder.parent / "snapshots" / "4f1a"
    snapshot.parent.mkdir()
    assert identity_of(str(folder.rename(snapshot)))["revision"] == "4f1a"


def test_answers_end_with_every_end_token_of_the_generation_config(base: Base) -> None:
    base.model.generation_config.eos_token_id = [9, base.tokenizer.eos_token_id]
    assert base.end_tokens == (base.tokenizer.eos_token_id, 9)


@pytest.fixture
def gguf(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("STAF_CACHE", str(tmp_path / "cache"))
    return write_gguf(tmp_path / "tiny.Q4_1.gguf")


def test_a_converted_base_says_what_it_was_made_from(gguf: Path) -> None:
    found = load_base(str(gguf), dtype="float32", device="cpu")
    assert found.identity["source"] == "dequantized from tiny.Q4_1.gguf"
    assert from_gguf(gguf) == found.folder
    assert [path.name for path in found.folder.parent.iterdir()] == [found.folder.name]


def test_a_conversion_that_stops_leaves_nothing_and_an_incomplete_folder_is_replaced(
    gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:

        def full(path: Path, record: Any) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr(module, "write_json", full)
        with pytest.raises(StafError, match="No space left"):
            from_gguf(gguf)
    home = module.cache_folder() / "base"
    assert list(home.iterdir()) == []
    name = from_gguf(gguf).name
    (home / name / "complete.json").unlink()
    (home / name / "model.safetensors").write_bytes(b"half")
    assert json.loads((from_gguf(gguf) / "complete.json").read_text())["converted_from"] == gguf.name
    assert fingerprint_of(home / name)
    load_base(str(gguf), dtype="float32", device="cpu")


def test_the_dtype_is_chosen_by_capability_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    assert choose_dtype(torch.device("cpu")) == (torch.float32, "the CPU has neither AMX nor AVX-512 BF16")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert choose_dtype(torch.device("cpu")) == (torch.bfloat16, "the CPU has AMX or AVX-512 BF16")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    assert choose_dtype(torch.device("cuda"))[0] == torch.float32
