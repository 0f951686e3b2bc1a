"""Exports for other tools: one LoRA for all of them, its task and probes, the check of a server, the card."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from architectures import SMALL, other_base, save_model
from conftest import deltas_of, make_examples, three_experts
from gguf_files import write_gguf_of
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM
from typer.testing import CliRunner

from staf.cli import app
from staf.data.row_templates import RowTemplates
from staf.errors import ConfigError, StafError, UnknownName
from staf.experts.adapter import SERVED_RANKS
from staf.experts.sets import write_set
from staf.experts.store import Expert, ExpertSet
from staf.export.gguf import write_modelfile
from staf.export.probes import common_query
from staf.lm.base import Base, load_base
from staf.routing.merge import Mixture
from staf.routing.recipe import RouterRecipe
from staf.routing.store import ADAPTER, Router, TaskPrompt, save_router
from staf.stages.context import Context
from staf.stages.exporting import export_stage


def routed(base: Base, granularity: str = "task", **record: Any) -> tuple[ExpertSet, Router]:
    """Experts and a router whose weights are random, one of them 0."""
    experts, groups = three_experts(base), {"task": 1, "layer": 2}[granularity]
    weights = torch.rand(groups, 3, generator=torch.Generator().manual_seed(1)) + 0.5
    weights[0, 1] = 0.0
    recipe = RouterRecipe.model_validate({"granularity": granularity})
    learned = {"run": "r", "tunable_parameters": 3, "seconds": 1.0, "stop_reason": "epochs", **record}
    return experts, Router.of(base, experts, "colour", make_examples(4), recipe, weights, torch.zeros(6), learned)


def exported(base: Base, out: Path, format: str, granularity: str = "task", **options: Any) -> tuple[Router, dict[str, Any]]:
    experts, router = routed(base, granularity)
    return router, export_stage(context_of(base, out), router, experts, out, format, **options)


def context_of(base: Base, out: Path) -> Context:
    context = Context(str(base.folder), None, out.parent / "runs")
    context.__dict__["base"] = base
    return context


def logits_of(model: Any, prompt: str, base: Base) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=base.tokenizer(prompt, return_tensors="pt")["input_ids"]).logits[0, -1]
    return found


@pytest.mark.parametrize("granularity", ["task", "layer"])
def test_peft_reads_the_mixture_as_one_adapter_that_every_server_takes(base: Base, tmp_path: Path, granularity: str) -> None:
    from peft import PeftModel

    router, record = exported(base, tmp_path / "lora", "peft", granularity)
    config = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    rank = config["r"]
    assert (config["lora_alpha"], record["rank"], record["error"]) == (rank, rank, 0.0)
    assert rank in SERVED_RANKS
    assert not any("." in name for name in config["target_modules"])
    shapes = {key.rsplit(".", 2)[1]: set() for key in load_file(tmp_path / "lora" / "adapter_model.safetensors")}
    for key, tensor in load_file(tmp_path / "lora" / "adapter_model.safetensors").items():
        shapes[key.rsplit(".", 2)[1]].add(tensor.shape[0 if "lora_A" in key else 1])
    assert shapes == {"lora_A": {rank}, "lora_B": {rank}}
    plain: Any = AutoModelForCausalLM.from_pretrained(str(base.folder), dtype=torch.float32)
    adapter = PeftModel.from_pretrained(plain, str(tmp_path / "lora"))
    mixture = Mixture(base, three_experts(base))
    for probe in json.loads((tmp_path / "lora" / "probes.json").read_text())["probes"]:
        with mixture.merged(router.weights, granularity):
            expected = logits_of(base.model, probe["prompt"], base)
        assert (logits_of(adapter, probe["prompt"], base) - expected).abs().max() < 1e-4


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_a_rank_is_the_best_one_and_its_error_that_of_the_dense_matrices(base: Base, tmp_path: Path, rank: int) -> None:
    router, record = exported(base, tmp_path / "lora", "peft", rank=rank)
    tensors = load_file(tmp_path / "lora" / "adapter_model.safetensors")
    off = total = 0.0
    for name, dense in deltas_of(Mixture(base, three_experts(base)), router.weights).items():
        b, a = (tensors[f"base_model.model.{name}.lora_{part}.weight"] for part in "BA")
        off, total = off + float((b @ a - dense).square().sum()), total + float(dense.square().sum())
        best = torch.linalg.svdvals(dense)[rank:].square().sum()
        assert float((b @ a - dense).square().sum()) == pytest.approx(float(best), abs=1e-6)
    assert record["error"] == pytest.approx((off / total) ** 0.5, abs=1e-5)
    assert f"relative error {record['error']:.4f}" in (tmp_path / "lora" / "README.md").read_text()


def test_probes_are_the_log_probabilities_that_transformers_and_peft_give(base: Base, tmp_path: Path) -> None:
    from peft import PeftModel

    _, record = exported(base, tmp_path / "lora", "peft", rank=2)  # the probes are of what was exported, not of the mixture
    plain: Any = AutoModelForCausalLM.from_pretrained(str(base.folder), dtype=torch.float32)
    known, distances = json.loads((tmp_path / "lora" / "probes.json").read_text()), []
    before = [logits_of(plain, probe["prompt"], base).log_softmax(-1) for probe in known["probes"]]
    adapter = PeftModel.from_pretrained(plain, str(tmp_path / "lora"))
    for probe, own in zip(known["probes"], before, strict=True):
        after = logits_of(adapter, probe["prompt"], base).log_softmax(-1)
        assert 1 <= len(probe["logprobs"]) <= 5
        for text, found in probe["logprobs"].items():
            (token,) = base.tokenizer(text)["input_ids"]
            assert (found["export"], found["base"]) == pytest.approx((float(after[token]), float(own[token])), abs=1e-4)
            distances.append(abs(found["export"] - found["base"]))
    assert known["distance"] == pytest.approx(sum(distances) / len(distances)) == pytest.approx(record["probes_distance"])
    assert known["distance"] > 0.05
    assert known["tolerance"] == min(known["distance"] / 4, 0.5)


def test_no_text_of_an_example_is_in_an_export(base: Base, tmp_path: Path) -> None:
    experts, router = routed(base)
    assert common_query(router.prompt) is None  # of a task that is neither built in nor of a file: it may be anything
    export_stage(context_of(base, tmp_path / "lora"), router, experts, tmp_path / "lora", "peft")
    written = "\n".join(path.read_text() for path in (tmp_path / "lora").iterdir() if path.suffix in (".json", ".md", ".py"))
    assert not any(example.query in written or example.context in written for example in make_examples(4))
    assert "blue; green; red" in written  # labels are the task's


@pytest.mark.parametrize(
    ("text", "query", "known"),
    [
        ("Is it urgent?", "Careful.\nyes: soon\nIs it urgent?", True),
        ("Is it {options}?", "Careful.\nyes: soon\nIs it {options}?", True),  # single braces are plain text
        ("Is it yes; no?", "Careful.\nyes: soon\nIs it {options}?", True),
        ("{{ question }}", "Careful.\nyes: soon\nWhat ails Mr X?", False),
        ("question", "Careful.\nyes: soon\nWhat ails Mr X?", False),
        ("Is {{ 1 + 1 }} even?", "Careful.\nyes: soon\nIs 2 even?", True),
    ],
)
def test_a_query_is_kept_where_it_follows_from_the_task_file(text: str, query: str, known: bool) -> None:
    templates = RowTemplates.model_validate(
        {"task": "t", "description": "Careful.", "label_descriptions": {"yes": "soon"}, "doc_to_text": text,
         "doc_to_context": "note", "doc_to_choice": ["yes", "no"]}
    )  # fmt: skip
    prompt = TaskPrompt(query, ("yes", "no"), "multiple_choice", "t", 512, templates)
    assert common_query(prompt) == (query if known else None)


@contextmanager
def served(answer: Callable[[str], dict[str, float]], shape: str) -> Iterator[str]:
    """A server of /v1/completions that gives log-probabilities by prompt as vLLM or llama-server writes them."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            top = answer(asked["prompt"])
            rows = [{"token": token, "logprob": value} for token, value in top.items()]
            logprobs: Any = {"top_logprobs": [top]} if shape == "vllm" else {"content": [{"top_logprobs": rows}]}
            body = json.dumps({"choices": [{"text": "", "logprobs": logprobs if top else None}]}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("shape", ["vllm", "llama-server"])
def test_the_script_accepts_the_export_and_finds_a_server_that_serves_the_base(base: Base, tmp_path: Path, shape: str) -> None:
    exported(base, tmp_path / "lora", "peft")
    check = runpy.run_path(str(tmp_path / "lora" / "check.py"))["main"]
    known = json.loads((tmp_path / "lora" / "probes.json").read_text())
    rows = {probe["prompt"]: probe["logprobs"] for probe in known["probes"]}

    def mixed(share: float) -> Callable[[str], dict[str, float]]:
        """Log-probabilities on the way from the base (0) to the export (1), as those of a scale would be."""
        return lambda prompt: {
            token: share * one["export"] + (1 - share) * one["base"] for token, one in rows[prompt].items()
        } | {"<other>": -30.0}  # fmt: skip

    said = {}
    for share in (1.0, 0.9, 0.5, 0.0, 2.0):
        with served(mixed(share), shape) as url:
            said[share] = check(url)
    assert (said[1.0], said[0.9]) == ("", "")
    assert said[0.0] == "The server answers as the base does: the adapter is not applied."
    assert said[0.5]
    assert said[2.0] == "This is another model."
    with served(lambda prompt: {"<other>": -0.1}, shape) as url:  # a token that is not listed has less than those that are
        assert check(url) == ""
    with served(lambda prompt: {"<other>": -30.0}, shape) as url:
        assert check(url)
    with served(lambda prompt: {}, shape) as url:
        assert check(url) == "The server gives no log-probabilities of tokens."
    for share, code in ((1.0, 0), (0.0, 1)):
        with served(mixed(share), shape) as url:
            assert subprocess.run([sys.executable, tmp_path / "lora" / "check.py", url], capture_output=True).returncode == code


def tensors_of(path: Path) -> dict[str, torch.Tensor]:
    return {tensor.name: torch.from_numpy(tensor.data.copy()) for tensor in gguf.GGUFReader(path).tensors}


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_a_gguf_adapter_added_to_a_gguf_base_is_the_merged_model(tiny_folder: Path, tmp_path: Path, kind: str) -> None:
    """Two independent readers: the gguf package adds the products, and transformers reads the sum."""
    if kind == "llama":
        base = load_base(str(tiny_folder), dtype="float32", device="cpu")
    else:
        options = {"num_key_value_heads": 2} | ({"head_dim": 8} if kind == "qwen3" else {})
        save_model(tiny_folder, tmp_path / "base", kind, **SMALL, **options)
        base = load_base(str(tmp_path / "base"), dtype="float32", device="cpu")
    write_gguf_of(base.folder, tmp_path / "base.gguf")
    exported(base, tmp_path / "lora", "gguf")
    exported(base, tmp_path / "merged", "hf", dtype="float32")
    fields, adapter = gguf.GGUFReader(tmp_path / "lora" / "adapter.gguf").fields, tensors_of(tmp_path / "lora" / "adapter.gguf")
    said = {name: fields[name].contents() for name in ("general.type", "general.architecture", "adapter.type")}
    assert list(said.values()) == ["adapter", kind, "lora"]
    assert {len(t) if name.endswith("_a") else t.shape[1] for name, t in adapter.items()} == {
        fields["adapter.lora.alpha"].contents()
    }
    (tmp_path / "sum").mkdir()
    write_gguf_of(base.folder, tmp_path / "sum" / "sum.gguf", {
        name.removesuffix(".lora_b"): (b @ adapter[name.removesuffix("b") + "a"]).numpy()
        for name, b in adapter.items() if name.endswith("_b")
    })  # fmt: skip
    as_saved = {"dtype": torch.float32, "config": AutoConfig.from_pretrained(str(base.folder))}  # else a head's width is 128
    found: Any = AutoModelForCausalLM.from_pretrained(str(tmp_path / "sum"), gguf_file="sum.gguf", **as_saved)
    expected: Any = AutoModelForCausalLM.from_pretrained(str(tmp_path / "merged"), dtype=torch.float32)
    ids = torch.randint(1, 250, (2, 20))
    with torch.no_grad():
        assert (found(input_ids=ids).logits - expected(input_ids=ids).logits).abs().max() < 1e-4


def test_a_router_is_its_experts_once_and_the_weights_of_a_request(base: Base, tmp_path: Path) -> None:
    router, record = exported(base, tmp_path / "served", "router-json")
    exported(base, tmp_path / "summed", "gguf")
    found, summed = (
        json.loads((tmp_path / "served" / "router.json").read_text()),
        tensors_of(tmp_path / "summed" / "adapter.gguf"),
    )
    assert [row["expert"] for row in found["adapters"]] == list(router.experts)
    assert [row["scale"] for row in found["request"]["lora"]] == router.weights[0].tolist()
    assert json.loads((tmp_path / "served" / "probes.json").read_text())["request"] == found["request"]
    adapters = [tensors_of(tmp_path / "served" / row["file"]) for row in found["adapters"]]
    for name, b in summed.items():
        if name.endswith("_b"):
            other, mixed = name.removesuffix("b") + "a", torch.zeros(())
            for row, one in zip(found["request"]["lora"], adapters, strict=True):
                mixed = mixed + row["scale"] * one[name] @ one[other]
            assert torch.allclose(b @ summed[other], mixed, atol=1e-5)
    assert record["rank"] is None
    assert "--lora-init-without-apply" in (tmp_path / "served" / "README.md").read_text()
    with pytest.raises(ConfigError, match="this router has weights by layer"):
        exported(base, tmp_path / "x", "router-json", "layer")


def test_a_modelfile_has_plain_prompts_and_ends_generated_answers(base: Base, tmp_path: Path) -> None:
    router = exported(base, tmp_path / "lora", "gguf")[0]
    lines = (tmp_path / "lora" / "Modelfile").read_text().splitlines()
    assert lines[:4] == ["FROM ./base.gguf", "ADAPTER ./adapter.gguf", 'TEMPLATE "{{ .Prompt }}"', "PARAMETER temperature 0"]
    write_modelfile(tmp_path, replace(router.prompt, output_type="ner"))
    assert (tmp_path / "Modelfile").read_text().endswith('PARAMETER num_predict 64\nPARAMETER stop """\n\n"""\n')


def test_a_base_that_llama_cpp_names_otherwise_has_no_gguf_adapter(tiny_folder: Path, tmp_path: Path) -> None:
    base = other_base("gpt_neox", tiny_folder, tmp_path / "base")
    with pytest.raises(ConfigError, match=r"a base of type gpt_neox has no GGUF adapters here; known are llama"):
        exported(base, tmp_path / "x", "gguf")
    assert not (tmp_path / "x").exists()


def test_the_card_names_experts_sources_metrics_and_limits(base: Base, tmp_path: Path) -> None:
    experts, router = routed(base)
    first, second, third = experts.experts
    licensed = replace(first, record={"licences": {"hpo": "HPO licence"}})
    added = replace(second, record={"adapter": {"source": "someone/lora", "base": "x"}})
    experts = ExpertSet((licensed, added, third))
    run = tmp_path / "runs" / "evaluate" / "colour" / "normal" / "seed0-0"
    run.mkdir(parents=True)
    result = {
        "base": router.base, "experts_fingerprint": router.experts_fingerprint, "weights": router.mean_weights,
        "primary_metric": "accuracy",
        "metrics": {"accuracy": {"value": 0.75, "low": 0.5, "high": 0.9, "examples": 12}, "f1": None},
    }  # fmt: skip
    (run / "result.json").write_text(json.dumps(result))
    (tmp_path / "runs" / "evaluate" / "colour" / "normal" / "seed1-0").mkdir()
    other = {**result, "weights": {}, "metrics": {"accuracy": {"value": 0.1, "low": 0, "high": 1, "examples": 99}}}
    (tmp_path / "runs" / "evaluate" / "colour" / "normal" / "seed1-0" / "result.json").write_text(json.dumps(other))
    export_stage(context_of(base, tmp_path / "lora"), router, experts, tmp_path / "lora", "peft")
    card = (tmp_path / "lora" / "README.md").read_text()
    for said in (
        "library_name: peft", "hpo (HPO licence)", "the adapter someone/lora", "| synonymy | ", "not recorded",
        "| accuracy | 0.750 | 0.500 to 0.900 | 12 |", "not a medical device", "output type multiple_choice; 3 labels",
    ):  # fmt: skip
        assert said in card, said
    tuned = Expert(ADAPTER, base.identity, third.factors, frozenset(), {
        "weights": {"attribute": 0.25, "relation": 0.75},
        "made_of": {"attribute": {"licences": {"hpo": "HPO licence"}}, "relation": {}},
    })  # fmt: skip
    own = ExpertSet((tuned,))
    recipe, record = RouterRecipe(), {**router.record, "tuned": {"kept": True, "recipe": {}}}
    found = Router.of(base, own, "colour", make_examples(4), recipe, torch.ones(1, 1), torch.zeros(2), record)
    export_stage(context_of(base, tmp_path / "tuned"), found, own, tmp_path / "tuned", "peft")
    card = (tmp_path / "tuned" / "README.md").read_text()
    assert "| attribute | 0.250 | hpo (HPO licence) |" in card
    assert "then tuned as one adapter" in card
    assert "Not evaluated on a test set" in card


def test_a_merged_export_has_settings_of_generation_and_is_loaded_as_any_model(base: Base, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    experts, router = routed(base)
    generating = replace(router, prompt=replace(router.prompt, output_type="generate_until", labels=()))
    (tmp_path / "plain").touch()
    for name, one in (("labels", router), ("text", generating)):
        out = tmp_path / name
        record = export_stage(context_of(base, out), one, experts, out, "hf", dtype="bfloat16")
        assert (record["dtype"], record["rank"], record["error"]) == ("bfloat16", None, 0.0)
        assert {p.stat().st_mode for p in out.iterdir()} == {(tmp_path / "plain").stat().st_mode}
    model: Any = AutoModelForCausalLM.from_pretrained(str(tmp_path / "text"))
    tokenizer: Any = AutoTokenizer.from_pretrained(str(tmp_path / "text"))
    assert model.dtype == torch.bfloat16
    assert (model.generation_config.stop_strings, model.generation_config.do_sample) == (["\n\n"], False)
    assert model.generation_config.eos_token_id == 0
    prompt = tokenizer(json.loads((tmp_path / "text" / "probes.json").read_text())["probes"][0]["prompt"], return_tensors="pt")
    assert model.generate(**prompt, tokenizer=tokenizer).shape[1] <= prompt["input_ids"].shape[1] + 64
    assert "tokenizer=tokenizer" in (tmp_path / "text" / "README.md").read_text()
    settings = json.loads((tmp_path / "labels" / "generation_config.json").read_text())
    assert settings["do_sample"] is False
    assert "stop_strings" not in settings


def test_the_same_export_is_kept_another_refused_and_options_that_do_not_act_too(base: Base, tmp_path: Path) -> None:
    out = tmp_path / "lora"
    first = exported(base, out, "peft")[1]
    changed = (out / "adapter_model.safetensors").stat().st_mtime_ns
    assert exported(base, out, "peft")[1] == first
    assert (out / "adapter_model.safetensors").stat().st_mtime_ns == changed
    with pytest.raises(StafError, match="exists already"):
        exported(base, out, "peft", rank=1)
    with pytest.raises(UnknownName, match="no format 'gguff'"):
        exported(base, tmp_path / "x", "gguff")
    with pytest.raises(ConfigError, match="rank does not act on the format hf"):
        exported(base, tmp_path / "x", "hf", rank=4)
    with pytest.raises(ConfigError, match="dtype does not act on the format peft"):
        exported(base, tmp_path / "x", "peft", dtype="float16")
    with pytest.raises(ConfigError, match="rank of at least 1"):
        exported(base, tmp_path / "x", "peft", rank=0)
    assert not (tmp_path / "x").exists()


def test_the_command_exports_a_router_that_is_on_disk_and_prints_rank_and_error(base: Base, tmp_path: Path) -> None:
    experts, router = routed(base)
    write_set(tmp_path / "experts", experts.experts)
    save_router(tmp_path / "router", replace(router, experts_folder=tmp_path / "experts"))
    common = ["export", str(tmp_path / "router"), "--runs", str(tmp_path / "runs")]

    def run(*options: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, [*common, *options], catch_exceptions=True)
        assert result.exit_code == code, result.output
        return result.stdout or str(result.exception)

    said = run("--format", "peft", "--rank", "2", "--out", str(tmp_path / "lora"))
    assert re.search(
        r"peft of 'colour' in .*lora: rank 8, relative error 0\.\d{4}; the probes are \d\.\d{3} nats from the", said
    )
    assert json.loads(run("--out", str(tmp_path / "merged"), "--json"))["dtype"] == "bfloat16"
    assert "Available: " in run("--format", "onnx", "--out", str(tmp_path / "x"), code=1)
