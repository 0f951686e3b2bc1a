"""Task files, own tables and prepared data that were damaged in any way are one message, never a traceback."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_own_task import rows, write

from staf.data.local import local_examples
from staf.data.prepare import load, prepare
from staf.data.task import load_task
from staf.errors import StafError

FOREIGN = (
    b"\x00", b"\xff\xfe", b'"', b"[", b"{{", b"{% for x in range(10**9) %}", b"!!python/object:os.system", b"&a [*a]", b"\n- ",
    b": ", b"2026-13-45", b"1e999", b"NaN", b"\\ud800", b"[" * 5000,
)  # fmt: skip


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Up to four cuts, changed or repeated bytes, or foreign pieces."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(max(1, len(data)))
        match rng.randint(0, 4):
            case 0:
                del data[place : place + rng.randint(1, 30)]
            case 1:
                data[place:place] = rng.randbytes(rng.randint(1, 20))
            case 2:
                data = data[:place]
            case 3:
                data[place:place] = data[rng.randrange(max(1, len(data))) :][:40]
            case 4:
                data[place:place] = rng.choice(FOREIGN)
    return bytes(data)


@pytest.mark.parametrize("file_format", ["csv", "json", "parquet"])
def test_a_damaged_task_file_or_table_is_one_message(tmp_path: Path, file_format: str) -> None:
    data = tmp_path / f"data.{file_format}"
    task = write(tmp_path, rows(12), dataset_path=file_format, dataset_kwargs={"data_files": data.name})
    pq.write_table(pa.Table.from_pylist(rows(12)), tmp_path / "data.parquet")
    (tmp_path / "data.csv").write_bytes((tmp_path / "notes.csv").read_bytes())
    (tmp_path / "data.json").write_text("".join(json.dumps(row) + "\n" for row in rows(12)))
    rng, messages = random.Random(file_format), list[str]()
    for target in (data, task):
        whole = target.read_bytes()
        for _ in range(100):
            target.write_bytes(mutated(whole, rng))
            try:
                local_examples(load_task(task))
            except StafError as error:
                messages.append(str(error))
        target.write_bytes(whole)
    assert local_examples(load_task(task))
    assert len(messages) > 50
    assert not any("of beast" in message for message in messages)


def test_a_damaged_record_or_table_of_prepared_data_is_made_again_or_one_message(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAF_CACHE", str(tmp_path))
    whole = prepare("medmcqa", own)
    expected = load(whole, "multiple_choice", "train")
    rng = random.Random(3)
    for name in ("record.json", "examples.parquet"):
        for _ in range(20):
            path = whole.folder / name
            path.write_bytes(mutated(path.read_bytes(), rng))
            try:
                assert load(prepare("medmcqa", own), "multiple_choice", "train") == expected
            except StafError:
                path.unlink()  # as the message says
                assert load(prepare("medmcqa", own), "multiple_choice", "train") == expected
