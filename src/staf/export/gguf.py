"""LoRA adapters as GGUF files for llama.cpp and Ollama, and a router as weights of a request to llama-server.

llama.cpp scales an adapter by alpha / rank and by the caller's scale, which may differ by request, and it stores the rows of
the query and key matrices of Llama in another order (rotary pairs next to each other), so the rows of their B too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from staf.data.example import LABEL_TYPES
from staf.errors import ConfigError, ExpertMismatch
from staf.evaluate.settings import EvaluationSettings
from staf.experts.adapter import Factors, padded, served_rank
from staf.experts.store import ExpertSet
from staf.io import read_json, sha256_of, write_bytes, write_json
from staf.lm.base import resolve
from staf.routing.store import Router, TaskPrompt

ADAPTER_FILE, BASE_FILE = "adapter.gguf", "base.gguf"
ARCHITECTURES = {"llama": ("llama", True), "mistral": ("llama", True), "qwen2": ("qwen2", False), "qwen3": ("qwen3", False)}
"""llama.cpp's name of a model type, and whether it reorders the rows of queries and keys."""


def write_gguf_adapter(path: Path, factors: Mapping[str, Factors], base: str | None, name: str) -> None:
    """Write factors by module name as one adapter, in float32.

    Args:
        base: hub id, folder or GGUF file, whose config is read. name: of the adapter.

    Raises:
        ConfigError: the base is of a type whose names in llama.cpp are not known here. ExpertMismatch: a module has none.
    """
    from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, GGUFType, GGUFWriter, Keys, get_tensor_name_map

    config = read_json(resolve(base) / "config.json")
    kind = config.get("model_type")
    if kind not in ARCHITECTURES:
        raise ConfigError(
            f"a base of type {kind} has no GGUF adapters here; known are {', '.join(ARCHITECTURES)}. Export with --format peft "
            "and convert that with convert_lora_to_gguf.py of llama.cpp."
        )
    architecture, reordered = ARCHITECTURES[kind]
    known = get_tensor_name_map(
        next(key for key in MODEL_ARCH if MODEL_ARCH_NAMES[key] == architecture), config["num_hidden_layers"]
    )
    heads = {"q_proj": config["num_attention_heads"]}
    heads["k_proj"] = config.get("num_key_value_heads") or heads["q_proj"]
    rank, writer = served_rank(factors), GGUFWriter(path, architecture)
    writer.add_type(GGUFType.ADAPTER)
    writer.add_name(name)
    writer.add_string(Keys.Adapter.TYPE, "lora")
    writer.add_float32(Keys.Adapter.LORA_ALPHA, float(rank))
    for module, (b, a) in padded(factors, rank).items():
        count, tensor = heads.get(module.rpartition(".")[2]), known.get_name(f"{module}.weight", (".weight",))
        if tensor is None:
            raise ExpertMismatch(f"llama.cpp has no name for the matrix {module} of {kind}. Export with --format peft or hf.")
        if reordered and count:
            b = b.reshape(count, 2, -1, rank).swapaxes(1, 2).reshape(b.shape).contiguous()
        writer.add_tensor(f"{tensor}.lora_a", a.numpy())
        writer.add_tensor(f"{tensor}.lora_b", b.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_modelfile(folder: Path, prompt: TaskPrompt) -> None:
    """Write a Modelfile for `ollama create`: base, adapter, plain prompts, and where generated answers end."""
    own = EvaluationSettings()
    lines = [
        f"FROM ./{BASE_FILE}", f"ADAPTER ./{ADAPTER_FILE}", 'TEMPLATE "{{ .Prompt }}"', "PARAMETER temperature 0",
        f"PARAMETER num_ctx {prompt.max_length + own.max_new_tokens}",
    ]  # fmt: skip
    if prompt.output_type not in LABEL_TYPES:
        lines += [f"PARAMETER num_predict {own.max_new_tokens}", *(f'PARAMETER stop """{stop}"""' for stop in own.stop)]
    write_bytes(folder / "Modelfile", ("\n".join(lines) + "\n").encode())


def write_llamacpp_router(folder: Path, experts: ExpertSet, router: Router, base: str | None) -> dict[str, Any]:
    """Write each expert as a GGUF adapter, and router.json; returns the fields of a request that weigh the experts.

    Raises:
        ConfigError: the router has weights of each layer or matrix; or as `write_gguf_adapter`.
    """
    if len(router.weights) > 1:
        raise ConfigError(
            f"a request to llama-server has one weight of each expert; this router has weights by {router.recipe.granularity}. "
            "Export with --format gguf, which is their sum as one adapter."
        )
    files, scales = list[dict[str, Any]](), list[dict[str, float]]()
    for expert in experts.experts:
        name = f"{expert.name}-{expert.fingerprint[:8]}.gguf"
        write_gguf_adapter(folder / name, expert.factors, base, expert.name)
        scales.append({"id": len(files), "scale": router.mean_weights[expert.name]})
        files.append({"id": len(files), "expert": expert.name, "file": name, "sha256": sha256_of(folder / name)})
    request = {"lora": scales}
    write_json(folder / "router.json", {"task": router.task, "base": router.base, "adapters": files, "request": request})
    return request
