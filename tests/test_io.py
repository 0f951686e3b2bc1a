"""Outputs: complete or not there, one writer at a time, readable by whom they are for."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from staf.checkpoint_io import read_checkpoint, write_checkpoint
from staf.errors import StafError
from staf.io import locked, read_json, staged_folder, write_bytes, write_json

HOLD = """
import sys, time
from pathlib import Path
from staf.io import locked, write_bytes
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def umask() -> object:
    before = os.umask(0o027)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_second_process_is_refused_with_the_owners_name_and_a_killed_one_blocks_nothing(tmp_path: Path) -> None:
    target = tmp_path / "answers.jsonl"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(target)], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "locked\n"
        message = rf"answers\.jsonl is being written by process {owner.pid} on .*\(-c {target}\)"
        with pytest.raises(StafError, match=message), locked(target):
            pass
        owner.send_signal(signal.SIGKILL)
    with locked(target), locked(target):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_writer_that_waits_goes_on_when_the_other_is_done(tmp_path: Path) -> None:
    target = tmp_path / "a"
    code = f"from pathlib import Path; from staf.io import locked\nwith locked(Path({str(target)!r}), wait=True): print('in')"
    with locked(target):
        waiting = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(2)
    assert waiting.communicate(timeout=60)[0] == "in\n"
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_of_an_output_goes_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    left = [tmp_path / ".a.0123abcd.tmp", tmp_path / "a" / ".x.json.0123abcd.tmp"]
    kept = [tmp_path / ".a.b.0123abcd.tmp", tmp_path / ".b.0123abcd.tmp", tmp_path / "a" / "x.json"]
    for path in [*left, *kept]:
        path.write_text("text")
    staging = tmp_path / ".a.89abcdef.tmp"
    staging.mkdir()
    (staging / "spool").write_text("text")
    with locked(tmp_path / "a"):
        assert not any(path.exists() for path in [*left, staging])
    assert all(path.exists() for path in kept)


@pytest.mark.usefixtures("umask")
def test_files_are_readable_as_the_umask_says_or_by_their_owner_only(tmp_path: Path) -> None:
    write_bytes(tmp_path / "shared.bin", b"x")
    write_json(tmp_path / "own" / "private.json", {"text": "x"}, private=True)
    assert (mode(tmp_path / "shared.bin"), mode(tmp_path / "own"), mode(tmp_path / "own/private.json")) == (0o640, 0o700, 0o600)
    for private, expected in ((False, 0o750), (True, 0o700)):
        with staged_folder(tmp_path / f"{private}", private) as folder:
            for name, narrow in (("a", 0o600), ("b", 0o644)):
                (folder / name).write_text("x")
                (folder / name).chmod(narrow)
            assert mode(folder) == expected
        assert mode(tmp_path / f"{private}") == expected
        assert {mode(tmp_path / f"{private}" / name) for name in "ab"} == {expected & 0o666}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("broken", ["open", "fsync", "replace"])
def test_a_disk_that_cannot_be_written_is_one_message_and_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str, code: int
) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(f"staf.io.os.{broken}", fail)
        with pytest.raises(StafError, match=f"cannot write .*{os.strerror(code)}. Nothing was changed there"):
            write_json(path, {"new": 1})
        with pytest.raises(StafError, match=f"cannot write .*{os.strerror(code)}"), staged_folder(tmp_path / "b") as folder:
            write_bytes(folder / "x", b"x")
    assert read_json(path) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


WRITE = """
import sys, torch
from pathlib import Path
from staf.checkpoint_io import write_checkpoint
for number in range(25):
    write_checkpoint(Path(sys.argv[1]), "thing", {"a": torch.full((9,), float(number))}, {"number": number, "by": sys.argv[2]})
"""


def test_two_processes_that_write_one_checkpoint_never_break_it(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, "thing", {"a": torch.zeros(9)}, {"number": 0, "by": "test"})
    writers = [subprocess.Popen([sys.executable, "-c", WRITE, str(tmp_path), by]) for by in "ab"]
    while any(writer.poll() is None for writer in writers):
        tensors, record = read_checkpoint(tmp_path, "thing")
        assert tensors["a"][0] == record["number"]
    assert [writer.returncode for writer in writers] == [0, 0]
    assert len(list(tmp_path.iterdir())) == 2
