"""Predictions of another system, harmed in every way: what was meant is read, or one message names the file and no text."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import make_examples

from staf.baselines.external import read_predictions
from staf.errors import BadData

SECRET = "Jane Doe"
EXAMPLES = [replace(e, context=SECRET) for e in make_examples(6, "test")]
LINES = [json.dumps({"id": e.id, "scores": {"blue": -0.5, "green": -1.5, "red": -2.0}}) for e in EXAMPLES]
FOREIGN = [
    b"",
    b"\x00" * 40,
    b"PK\x03\x04zip",
    b"\xff\xfe{\x00}\x00",
    b"id,answer\n7,yes\n",
    b"[" * 100_000,
    b"{}",
    b"null\n",
    b"9" * 5000,
]


def harmed(seed: int) -> bytes:
    """The file with one to three harms: bytes, characters, lines or values that are cut, doubled, swapped or others."""
    rng, lines = random.Random(seed), list(LINES)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(lines))
        harm = rng.randrange(8)
        if harm == 0:
            lines.insert(at, lines[at])
        elif harm == 1 and len(lines) > 1:
            del lines[at]
        elif harm == 2:
            lines[at] = lines[at].replace('"scores"', f'"{rng.choice(["answer", "score", "id", SECRET])}"')
        elif harm == 3:
            lines[at] = lines[at].replace("-0.5", rng.choice(["NaN", "1e999", "null", f'"{SECRET}"', "[]", "true", "9" * 400]))
        elif harm == 4:
            lines[at] = lines[at].replace('"test-', rng.choice(['"', f'"{SECRET}', '"\\ud800', '"TEST-']))
        elif harm == 5:
            lines[at] = lines[at].replace("blue", rng.choice(["green", SECRET, "", "\\u0000"]))
        elif harm == 6:
            lines[at] = lines[at][: rng.randrange(len(lines[at]))]
        else:
            lines[at] = rng.choice(["{", "}", "[", '"', "\\"]) + lines[at]
    content = bytearray("\n".join(lines).encode())
    for _ in range(rng.choice([0, 0, 1, 5])):
        content[rng.randrange(len(content))] = rng.randrange(256)
    return bytes(content)


def test_a_harmed_file_is_read_as_it_was_meant_or_refused_with_one_message(tmp_path: Path) -> None:
    path, refused = tmp_path / "predictions.jsonl", 0
    for content in (*FOREIGN, *(harmed(seed) for seed in range(400))):
        path.write_bytes(content)
        found, message = [], ""
        try:
            found = read_predictions(path, EXAMPLES)
        except BadData as error:
            message = str(error)
            refused += 1
        assert bool(found) != (str(path) in message), content
        assert SECRET not in message, content
        assert len(message) < 500, content
        assert [row["id"] for row in found] == [e.id for e in EXAMPLES] * bool(found), content
    assert refused > 200


def test_a_bom_and_windows_lines_and_blank_lines_are_read(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    path.write_text("\n".join(LINES))
    plain = read_predictions(path, EXAMPLES)
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*LINES, "", ""]).encode())
    assert read_predictions(path, EXAMPLES) == plain


def test_a_folder_is_no_file_of_predictions(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="is not a file of UTF-8 text"):
        read_predictions(tmp_path, EXAMPLES)
