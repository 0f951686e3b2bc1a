"""Exports loaded back by the real servers, llama.cpp (xllamacpp) and vLLM, and checked by the script in them: make test-export.

Each server is one of the tiny model, in a process of its own; one that is not installed is skipped.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import socket

import pytest
from architectures import SMALL, save_model
from gguf_files import write_gguf_of
from test_export_formats import exported

from staf.io import read_json
from staf.lm.base import Base, load_base

pytestmark = pytest.mark.tools
LLAMA_SERVER = """
import sys, xllamacpp
options = xllamacpp.CommonParams()
options.model.path, *adapters = sys.argv[2:]
options.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(path, 1.0) for path in adapters]
options.lora_init_without_apply = len(adapters) > 1
options.n_ctx, options.n_parallel, options.cpuparams.n_threads, options.port = 2048, 1, 1, int(sys.argv[1])
server = xllamacpp.Server(options)
sys.stdin.read()
"""


@contextmanager
def served(name: str, *command: object, wait: float = 600) -> Iterator[str]:
    """The URL of a server that a command starts at the port `{port}`; skips where the package is not installed."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, *(str(part).format(port=port) for part in command)], stdin=subprocess.PIPE)
    url, started = f"http://127.0.0.1:{port}", time.monotonic()
    try:
        while True:
            try:
                urllib.request.urlopen(f"{url}/health").close()
                break
            except OSError:
                assert process.poll() is None, "the server ended"
                assert time.monotonic() - started < wait, "the server does not start"
                time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.communicate()


def checked(folder: Path, url: str, *model: str) -> tuple[int, float, str]:
    """Exit code of check.py, distance to the export in nats, and what it says is wrong."""
    done = subprocess.run([sys.executable, folder / "check.py", url, *model], capture_output=True, text=True)
    found = re.match(r"(\d+\.\d+) nats from the export", done.stdout)
    assert found, done.stderr
    print(folder.name, *model, done.stdout)
    return done.returncode, float(found[1]), done.stderr.strip()


@pytest.fixture(params=["llama", "qwen2", "qwen3"])
def other(request: pytest.FixtureRequest, base: Base, tiny_folder: Path, tmp_path: Path) -> Base:
    """A tiny base of each type that has GGUF adapters."""
    if request.param == "llama":
        return base
    save_model(tiny_folder, tmp_path / "base", request.param, **SMALL, num_key_value_heads=2, **(
        {"head_dim": 8} if request.param == "qwen3" else {}
    ))  # fmt: skip
    return load_base(str(tmp_path / "base"), dtype="float32", device="cpu")


def test_llama_cpp_answers_as_the_export_and_the_script_finds_where_it_does_not(other: Base, tmp_path: Path) -> None:
    file = write_gguf_of(other.folder, tmp_path / "base.gguf")
    exported(other, tmp_path / "gguf", "gguf")
    exported(other, tmp_path / "routed", "router-json")
    adapters = [tmp_path / "routed" / row["file"] for row in read_json(tmp_path / "routed" / "router.json")["adapters"]]
    command = ["-c", LLAMA_SERVER, "{port}", file]
    with served("xllamacpp", *command, tmp_path / "gguf" / "adapter.gguf") as url:
        code, off, _ = checked(tmp_path / "gguf", url)
        assert (code, off < 0.01) == (0, True)
    with served("xllamacpp", *command, *adapters) as url:
        code, off, _ = checked(tmp_path / "routed", url)
        assert (code, off < 0.01) == (0, True)
        assert checked(tmp_path / "gguf", url)[0] == 1  # without the weights of the request
    with served("xllamacpp", *command) as url:
        assert "the adapter is not applied" in checked(tmp_path / "gguf", url)[2]


def test_vllm_answers_as_the_export_and_the_script_finds_the_base(tiny_folder: Path, tmp_path: Path) -> None:
    wide = {**SMALL, "hidden_size": 256, "num_key_value_heads": 2, "initializer_range": 0.05}  # vLLM has no heads of width 8
    save_model(tiny_folder, tmp_path / "base", "llama", **wide)
    base = load_base(str(tmp_path / "base"), dtype="float32", device="cpu")
    exported(base, tmp_path / "lora", "peft", "layer")
    exported(base, tmp_path / "merged", "hf", "layer", dtype="float32")
    plain = ["-m", "vllm.entrypoints.openai.api_server", "--port", "{port}", "--dtype", "float32", "--enforce-eager",
             "--max-model-len", 1024, "--max-num-seqs", 2]  # fmt: skip
    rank = read_json(tmp_path / "lora" / "adapter_config.json")["r"]
    lora = ["--enable-lora", "--max-lora-rank", max(rank, 8), "--lora-modules", f"colour={tmp_path / 'lora'}"]
    with served("vllm", *plain, "--model", base.folder, "--served-model-name", "base", *lora) as url:
        code, off, _ = checked(tmp_path / "lora", url)
        assert (code, off < 0.001) == (0, True)
        assert "the adapter is not applied" in checked(tmp_path / "lora", url, "base")[2]
    with served("vllm", *plain, "--model", tmp_path / "merged", "--served-model-name", "colour") as url:
        code, off, _ = checked(tmp_path / "merged", url)
        assert (code, off < 0.001) == (0, True)
