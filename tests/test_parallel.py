"""One expert over several processes: the same numbers as one process, and the same in each; whole and sharded."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from processes import WAYS, outcome, trained

from staf.errors import ConfigError
from staf.experts.distributed import SINGLE_PROCESS, World, init_distributed, open_base
from staf.lm.base import Base
from staf.lm.batches import Batch


@given(st.integers(1, 9), st.integers(1, 6))
def test_the_rows_of_all_processes_are_the_batch(rows: int, size: int) -> None:
    batch = Batch(torch.arange(rows * 3).view(rows, 3), torch.ones(rows, 3, dtype=torch.bool), tuple(map(str, range(rows))), 1)
    shares = [World(rank, size).rows(batch) for rank in range(size)]
    assert tuple(i for share in shares for i in share.example_ids) == batch.example_ids
    assert torch.equal(torch.cat([share.ids for share in shares if share.example_ids]), batch.ids)
    assert sum(int(share.answer.sum()) for share in shares) == batch.answer.sum()
    counts = [len(share.example_ids) for share in shares]
    assert max(counts) - min(counts) <= 1
    assert all(
        len(share.ids) == max(count, 1) and share.prefix_length == 1 for share, count in zip(shares, counts, strict=True)
    )


def test_a_single_process_uses_nothing_of_torch_distributed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with init_distributed() as world, world.main_process_first():
        assert world == SINGLE_PROCESS
        assert world.is_main_process
        tensor = torch.ones(2)
        assert world.all_reduce(tensor) is tensor
        world.barrier()
        world.check_same(3, "number")
    assert not torch.distributed.is_initialized()


def test_processes_that_cannot_meet_name_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with (
        pytest.raises(ConfigError, match=r"WORLD_SIZE is 2, but MASTER_ADDR, MASTER_PORT is not set\. .*torchrun"),
        init_distributed(),
    ):
        pass


def test_a_base_is_not_sharded_over_one_process(tiny_folder: Path) -> None:
    with pytest.raises(ConfigError, match="spreads the base over several processes, but there is one"):
        open_base(str(tiny_folder), "float32", SINGLE_PROCESS, sharded=True)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def two(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes found."""
    out = tmp_path_factory.mktemp("two")
    script = Path(__file__).parent / "processes.py"
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    running = [
        subprocess.Popen(
            [sys.executable, str(script), str(tiny_folder), str(out)],
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)}, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        printed = [process.communicate(timeout=240)[1] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0], printed
    found = [json.loads((out / f"rank{rank}.json").read_text()) for rank in range(2)]
    for result in found:
        result["written"] = sorted(path.name for path in out.iterdir() if path.is_dir())
    return found


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("prefix", ["", "sharded_"])
def test_two_processes_train_what_one_trains(
    two: list[dict[str, Any]], base: Base, tmp_path: Path, prefix: str, way: str
) -> None:
    single = outcome(trained(base, tmp_path, SINGLE_PROCESS, WAYS[way]))
    for found in two:
        both = found[prefix + way]
        assert both["curve"] == pytest.approx(single["curve"], rel=1e-3)
        assert both["ranks"] == single["ranks"]
    assert two[0][prefix + way]["fingerprint"] == two[1][prefix + way]["fingerprint"]


def test_with_dropout_a_stopped_training_ends_with_the_same_bytes(two: list[dict[str, Any]]) -> None:
    for found in two:
        assert found["resumed"]["first_step"] == 7
        assert found["resumed"]["again"] == found["resumed"]["whole"]
    assert two[0]["resumed"] == two[1]["resumed"]
    assert two[0]["resumed"]["whole"]["curve"] != two[0]["plain"]["curve"]


def test_a_loss_of_one_process_that_is_not_a_number_stops_all(two: list[dict[str, Any]]) -> None:
    assert two[0]["failed"] == two[1]["failed"]
    assert "the loss of step 9 is nan" in two[0]["failed"]


def test_a_sharded_base_leaves_half_of_its_layers_in_each_process(two: list[dict[str, Any]], base: Base) -> None:
    layers = sum(p.numel() for p in base.model.get_decoder().layers.parameters())
    for found in two:
        whole, held = found["numbers"]
        assert whole - held == layers // 2


def test_processes_that_differ_are_distinguished(two: list[dict[str, Any]]) -> None:
    assert "differs" not in two[0]
    assert "process 1 of 2 has another rank than process 0 (1, not 0)" in two[1]["differs"]


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--fsdp"]])
def test_by_torchrun_the_command_prints_once_and_leaves_one_expert(
    tiny_folder: Path, own: Path, tmp_path: Path, options: list[str]
) -> None:
    changes = ["steps=6", "batch_size=3", "tinit=1", "tfinal=2", "max_length=500", "save_steps=2"]
    folders = ["--out", str(tmp_path / "experts"), "--runs", str(tmp_path / "runs"), "--data-dir", str(own)]
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port()), "-m",
        "staf.cli", "train", "--experts", "entity_relation", *folders, "--base", str(tiny_folder), "--json", *options,
        *(f"-o={change}" for change in changes),
    ]  # fmt: skip
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    assert row["steps"] == 6
    assert sorted(path.suffix for path in (tmp_path / "experts" / "entity_relation").iterdir()) == [".json", ".safetensors"]
    (metrics,) = (tmp_path / "runs").rglob("metrics.jsonl")
    assert [json.loads(line)["step"] for line in metrics.read_text().splitlines()] == [1, 2, 3, 4, 5, 6]
