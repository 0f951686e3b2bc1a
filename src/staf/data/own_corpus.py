"""A corpus of one's own for an expert: what the columns of a file are, and the task file that says so.

    columns                                                      what an expert learns
    messages, conversations                                      each reply to what was said before it
    question, answer; prompt, completion; instruction, output    the answer, also with a column context or input
    text, note, transcript, document, content                    each piece of a text after the words before it

The task file lies next to the expert, without any text of the corpus, and trains it again: `staf train --data FILE`.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from staf.config import parse
from staf.data.card import builtin_cards
from staf.data.example import KNOWLEDGE_TYPES
from staf.data.local import read_rows, source_files
from staf.data.read_report import ReadReport
from staf.data.table_files import table_format, table_rows
from staf.data.task import Task, is_task_file, load_task
from staf.errors import BadData, ConfigError
from staf.io import sha256_of

CHATS = ("messages", "conversations", "conversation")
ASKED = {"question": "Answer the question.", "prompt": "Reply to the prompt.", "instruction": "Follow the instruction."}
"""Columns of questions, and what is asked where a row has no context of its own."""
ANSWERS = ("answer", "completion", "response", "output")
CONTEXTS = ("context", "input")
TEXTS = ("text", "note", "transcript", "document", "content")
FIRST = 100
"""Rows whose columns are looked at."""


def write_corpus(
    file: Path, out: Path, name: str, *, text: str | None = None, label: str | None = None, group: str | None = None,
    licence: str | None = None,
) -> tuple[Path, str]:  # fmt: skip
    """Write out/<name>.yaml, the task file of a corpus; returns it and what the columns were taken for.

    Args:
        file: a table, or a task file, of which only the name and the licence are changed.
        name: of the expert. text, label: columns in place of those found by name; only text is a corpus of texts.
        group: column with the patient, visit or document. licence: of the corpus; None is "own".

    Raises:
        ConfigError: columns that are not there or not known, a name that is taken, or another file at out/<name>.yaml.
        MissingData, BadData: the file is not there, or no table.
    """
    if name in KNOWLEDGE_TYPES or name in builtin_cards():
        raise ConfigError(f"--name {name} is the name of a knowledge type or data set that comes with staf. Give another one.")
    parse(Task, {"task": name}, "staf train --name")
    if is_task_file(str(file)):
        task, found = load_task(file).model_copy(update={"task": name}), "a task file"
    elif label is not None:
        if text is None:
            raise ConfigError("--label names the column of the answers: give that of the texts too, with --text.")
        task = Task.from_table(file, text=text, label=label, group=group, test_size=None, name=name)
        found = f"texts in '{text}' with labels in '{label}'"
    else:
        keys, found = _recognised(file, text, group)
        data = {"dataset_path": table_format(file), "folder": file.absolute().parent, "group_column": group}
        task = parse(Task, {"task": name, "output_type": "generate_until", **data, **keys}, str(file))
    known = task.metadata if isinstance(task.metadata, Mapping) else {}
    task = task.model_copy(update={"metadata": {**known, "licence": licence or known.get("licence", "own")}})
    path = out / f"{name}.yaml"
    if path.is_file() and path.read_text(encoding="utf-8") != task.to_yaml(out):
        raise ConfigError(f"{path} is there and says something else. Train with it (--data {path}), or give another --name.")
    task.save(path, overwrite=True)
    return path, f"{file.name} is read as {found}" + (f", grouped by '{group}'" if group else "")


def _recognised(file: Path, text: str | None, group: str | None) -> tuple[dict[str, Any], str]:
    """The keys of a task for the columns of a file, and what they were taken for."""
    columns = list(dict.fromkeys(name for _, row in islice(table_rows(file, ReadReport()), FIRST) for name in row))
    if not columns:
        raise BadData(f"{file} has no rows.")
    if missing := [name for name in (text, group) if name is not None and name not in columns]:
        raise ConfigError(f"{file} has no column '{missing[0]}'; its columns are {', '.join(columns)}.")
    known = {name.casefold(): name for name in columns}
    first = {kind: next((known[n] for n in names if n in known), None) for kind, names in _KINDS.items()}
    chat, asked, answer, context = (None if text else first[kind] for kind in ("chat", "asked", "answer", "context"))
    given = text or first["text"]
    if chat:
        return _laid_out(file, "chat", chat), f"chat messages in '{chat}'"
    if asked and answer:
        return _pair(file, asked, answer, context), f"questions in '{asked}' and answers in '{answer}'" + (
            f", about '{context}'" if context else ""
        )
    if given:
        return _laid_out(file, "text", given), f"texts in '{given}'"
    raise ConfigError(
        f"{file}: its columns are {', '.join(columns)}. Name the column of the texts with --text, and that of the answers with "
        "--label; or rename them: text; question and answer; messages."
    )


_KINDS = {"chat": CHATS, "asked": tuple(ASKED), "answer": ANSWERS, "context": CONTEXTS, "text": TEXTS}


def _laid_out(file: Path, layout: str, column: str) -> dict[str, Any]:
    files = {"data_files": file.name, "layout": layout, "column": column}
    return {"dataset_kwargs": files, "doc_to_text": "query", "doc_to_context": "before", "doc_to_target": "after"}


def _pair(file: Path, asked: str, answer: str, context: str | None) -> dict[str, Any]:
    usual, has = ASKED[asked.casefold()], f"{context} is defined and {context}"
    query = f"{{% if {has} %}}{{{{ {asked} }}}}{{% else %}}{usual}{{% endif %}}" if context else usual
    about = f"{{% if {has} %}}{{{{ {context} }}}}{{% else %}}{{{{ {asked} }}}}{{% endif %}}" if context else asked
    return {
        "dataset_kwargs": {"data_files": file.name}, "doc_to_text": query, "doc_to_context": about, "doc_to_target": answer
    }  # fmt: skip


def provenance(task: Task) -> dict[str, Any]:
    """What an expert keeps of the corpus of a task file: its licence, and name, checksum and rows of its files."""
    known = task.metadata if isinstance(task.metadata, Mapping) else {}
    files = [
        {"file": path.name, "sha256": sha256_of(path), "rows": sum(1 for _ in read_rows(path, task.dataset_path[0]))}
        for path in source_files(task)
    ]
    return {"licences": {task.name: str(known.get("licence", "own"))}, "data_files": files}
