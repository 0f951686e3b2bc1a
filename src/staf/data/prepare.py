"""From the distributed files to examples in Parquet, once: read, checked, split; complete or not there.

    cache/prepared/<name>-<key>/examples.parquet    one row per example, columns as in `Example`
    cache/prepared/<name>-<key>/rejected.jsonl      rows that do not fit their format, where they are to be skipped
    cache/prepared/<name>-<key>/record.json         written last: counts, what was left out and why, checksum, fingerprint

The key says which files were read, by which code and how they are split, from paths, sizes and times, so that asking again is
cheap. The fingerprint is made of contents only: it names the data itself, on any machine. Only the owner can read the files:
they may hold text of patients. What a killed run leaves is removed by the next one of the same data set.

Examples pass through in batches: first into a spool, while only their splits and dedup keys are kept in memory; then, once
the splits are settled, into the table.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache, lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from staf.data.answers import check_answer
from staf.data.card import DatasetCard
from staf.data.example import SPLITS, Example
from staf.data.fetch import cache_folder, data_folder
from staf.data.read_report import ReadReport
from staf.data.registry import Registry
from staf.data.splits import LEFT_OUT, SPLIT_SCHEMES, Item, check_split_scheme, divide
from staf.errors import BadData, DamagedFile, MissingData, UnknownName
from staf.io import locked, read_json, record_digest, sha256_of, staged_folder, write_json

READERS_VERSION = 9
"""Goes up when a reader, a split or the format of `Example` changes what is read; part of the fingerprint."""

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
    folder: Path
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
    split_scheme: str = SPLIT_SCHEMES[0],
    skip_rejected: bool = False,
    registry: Registry | None = None,
    options: Mapping[str, bool] | None = None,
) -> Prepared:
    """A data set, read and split; the second call reads only the record, and a second process waits for the first.

    Args:
        data: the user's data folder; None takes the one that STAF_DATA names, else packages.
        skip_rejected: keep rows that do not fit their format in a side file, in place of the error.
        registry: the cards; None takes the built-in ones. options: of the reader.

    Raises:
        UnknownName: no such data set or split scheme. MissingData: it is not there and may not, or cannot, be fetched.
        BadData: a source file does not fit its format, or an id occurs twice. StafError: the cache cannot be written.
    """
    card = (registry or Registry()).find_card(name)
    check_split_scheme(split_scheme)
    source = _source(card, data_folder(data), fetch)
    files = card.files(source)
    homes = cache_folder() / "prepared"
    home = homes / f"{name}-{_key(files, split_scheme, skip_rejected, options or {})}"
    if ready := _ready(name, home):
        return ready
    with locked(homes / name, wait=True):
        for left in homes.glob(f".{name}-{'?' * 16}.????????.tmp"):  # by a run that was killed, of whatever source and scheme
            shutil.rmtree(left, ignore_errors=True)
        if _ready(name, home) is None:
            shutil.rmtree(home, ignore_errors=True)
            _make(card, source, files, home, split_scheme, skip_rejected, options or {})
    if ready := _ready(name, home):
        return ready
    raise DamagedFile(f"{home} changed while it was written. Run the same command again.")


def load(prepared: Prepared, task_type: str, split: str, output_type: str | None = None) -> list[Example]:
    """The examples of a task type and split, in their fixed order; with `output_type`, only those of that type.

    Raises:
        UnknownName: no such task type or split. DamagedFile: the table is another one than was written.
    """
    table = _read(prepared, _SCHEMA.names, task_type, split, output_type)
    return [Example(**row | {name: tuple(row[name]) for name in _LISTS}) for row in table.to_pylist()]


def load_column(prepared: Prepared, column: str, task_type: str, split: str, output_type: str | None = None) -> list[Any]:
    """One field of the examples that `load` gives, in their order, without reading the others; raises as `load`."""
    found: list[Any] = _read(prepared, [column], task_type, split, output_type).column(column).to_pylist()
    return found


def _read(prepared: Prepared, columns: list[str], task_type: str, split: str, output_type: str | None) -> pa.Table:
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
    if found := card.locate(data):
        return found
    if may_fetch and (card.package or card.downloads):
        return card.fetch()
    looked = f"the data folder {data} and the cache" if data else "the cache (no data folder is named)"
    raise MissingData(
        f"{card.name} not found in {looked}. Get it: staf data fetch {card.name}, or put it into a folder named "
        f"'{card.name}' and name the folder above it by STAF_DATA. It comes from {card.source}."
    )


def _key(files: Sequence[Path], *how: object) -> str:
    """Sixteen hexadecimal digits that change when a source file, what reads it or the splits change; opens no source."""
    states = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(json.dumps([_code(), *how, states]).encode()).hexdigest()[:16]


@cache
def _code() -> str:
    """SHA-256 over the modules, cards, queries and SQL of this package, which decide what is read of a source."""
    files = sorted(path for path in Path(__file__).parent.rglob("*.*") if path.suffix in (".py", ".yaml", ".sql"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def _ready(name: str, home: Path) -> Prepared | None:
    try:
        record = read_json(home / RECORD)
        if record.pop("digest") != record_digest(record):
            return None
        ready = Prepared(name, home, **{field.name: record[field.name] for field in fields(Prepared)[2:]})
        return ready if (home / TABLE).stat().st_size == record["bytes"] else None
    except (MissingData, DamagedFile, OSError, KeyError, TypeError, AttributeError):
        return None


def _make(
    card: DatasetCard, source: Path, files: Sequence[Path], home: Path, scheme: str, skip_rejected: bool,
    options: Mapping[str, bool],
) -> None:  # fmt: skip
    """Read the source and put table, side file and record in place, by one rename."""
    with staged_folder(home, private=True) as folder:
        spool, table, report = folder / "spool.parquet", folder / TABLE, ReadReport(skip_rejected, folder)
        items = _spool(card, card.read(source, report, **options), spool)
        splits, left_out = divide(items, scheme, card.own_split, card.sizes)
        digests = [sha256_of(path) for path in files]
        counts, fingerprint = _settle(spool, splits, table, [scheme, *digests])
        spool.unlink()
        if report.rejected and not counts:
            raise BadData(
                f"{card.name}: no example in {source}: {len(report.rejected)} rows do not fit; {report.rejected[0].problem}"
            )
        if report.rejected:
            lines = (json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in report.rejected)
            (folder / REJECTED).write_text("".join(lines), encoding="utf-8")
        record = {
            "name": card.name,
            "readers_version": READERS_VERSION,
            "split_scheme": scheme,
            "sources": {Path(os.path.relpath(p, source)).as_posix(): d for p, d in zip(files, digests, strict=True)},
            "counts": counts,
            "skipped": {reason: count for reason, count in sorted((report.skipped + left_out).items()) if count},
            "rejected": len(report.rejected),
            "fingerprint": fingerprint,
            "sha256": sha256_of(table),
            "bytes": table.stat().st_size,
        }
        write_json(folder / RECORD, {**record, "digest": record_digest(record)})


def _spool(card: DatasetCard, examples: Iterable[Example], path: Path) -> list[Item]:
    """Write the examples as they come, each checked; what is needed to divide them stays in memory."""
    items: list[Item] = []
    seen: set[str] = set()
    stream = iter(examples)
    with pq.ParquetWriter(path, _SCHEMA, compression="zstd") as writer:
        while batch := list(islice(stream, BATCH)):
            for example in batch:
                _check(card, example, seen)
                keys = tuple(int(key, 16) for key in example.dedup_keys)
                items.append(Item(example.task_type, example.split, example.group or example.id, keys))
            columns = [pa.array([getattr(e, field.name) for e in batch], type=field.type) for field in _SCHEMA]
            writer.write_table(pa.Table.from_arrays(columns, schema=_SCHEMA))
    return items


def _settle(spool: Path, splits: Sequence[str], path: Path, made_of: list[str]) -> tuple[dict[str, dict[str, int]], str]:
    """Write the rows that have a split; returns counts by task type and split, and the fingerprint."""
    counts: dict[str, dict[str, int]] = {}
    digest = hashlib.sha256(json.dumps([READERS_VERSION, *made_of]).encode())
    place = iter(splits)
    with pq.ParquetWriter(path, _SCHEMA, compression="zstd") as writer, pq.ParquetFile(spool) as table:
        for index in range(table.num_row_groups):
            rows = table.read_row_group(index).to_pylist()
            kept = [row | {"split": split} for row, split in zip(rows, place, strict=False) if split != LEFT_OUT]
            for row in kept:
                counts.setdefault(row["task_type"], dict.fromkeys(SPLITS, 0))[row["split"]] += 1
                digest.update(json.dumps(row).encode())
            writer.write_table(pa.Table.from_pylist(kept, schema=_SCHEMA))
    return counts, digest.hexdigest()


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
