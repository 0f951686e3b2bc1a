"""Rows of a corpus of texts or conversations as pairs of what stands before and what follows.

text    a column of texts: their pieces, each after the words before it; every word but the opening is an answer once
chat    a column of messages, [{"role", "content"}] or [{"from", "value"}]: each reply after what was said before it
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from staf.data.dedup import SHORTEST
from staf.data.row_templates import EmptyCell, as_list, text_of
from staf.errors import BadData

PIECE = 120
"""Words of a piece of text, and of what is read before it: together they fit in 512 tokens."""
LONGEST_QUERY = 60
"""Words of a system prompt that is asked as the query; of a longer one nothing is asked, as a query is never cut."""
REPLY = "Reply to the last message."
CONTINUE = "Continue the text."
ROLES = {
    "user": "User", "human": "User", "assistant": "Assistant", "gpt": "Assistant", "system": "", "developer": "",
}  # fmt: skip
"""Who speaks; '' is an instruction. Messages of other roles are passed over."""
_ENDS = re.compile(r"(?<=[.!?])(?=\s)|(?<=\n)(?!\n)")

Pair = dict[str, Any]
"""before, after, query, and the texts that they are about"""


def pairs_of(layout: str, value: Any) -> Iterator[Pair]:
    """The pairs of a cell; raises EmptyCell where nothing follows anything, BadData where it is no text or conversation."""
    made = _replies(value) if layout == "chat" else _pieces(text_of(value))
    if (first := next(made, None)) is None:
        raise EmptyCell("it has no reply" if layout == "chat" else "the text is empty or one word")
    yield first
    yield from made


def _pieces(text: str) -> Iterator[Pair]:
    """A text after its opening sentence, in pieces that end with a sentence where one does."""
    parts: list[str] = [part for part in _ENDS.split(text) if part.strip()]
    parts = [piece for part in parts for piece in _by_words(part)]
    pieces, size = parts[:1], PIECE
    for part in parts[1:]:
        count = len(part.split())
        if size + count > PIECE:
            pieces.append(part)
            size = count
        else:
            pieces[-1] += part
            size += count
    if len(pieces) == 1:
        words = text.split()
        pieces = [" ".join(half) for half in (words[: len(words) // 2], words[len(words) // 2 :]) if half]
    before = ""
    for last, piece in pairwise(pieces):
        before = " ".join((before + last).split(" ")[-PIECE:])
        yield {"before": before, "after": piece, "query": CONTINUE, "about": [text]}


def _by_words(part: str) -> Iterator[str]:
    """A sentence, in pieces of `PIECE` words where it is longer."""
    words = re.findall(r"\s*\S+\s*", part)
    return ("".join(words[start : start + PIECE]) for start in range(0, len(words), PIECE))


def _replies(value: Any) -> Iterator[Pair]:
    """Each message of the assistant after a message of the user, with the last messages before it."""
    messages = [_message(item) for item in as_list(value, "", "the conversation")]
    said = [(ROLES[role], text) for role, text in messages if ROLES.get(role) and text]
    instruction = "\n".join(text for role, text in messages if ROLES.get(role) == "" and text)
    query = instruction if 0 < len(instruction.split()) <= LONGEST_QUERY else REPLY
    about = ["\n".join(text for _, text in said), *(text for _, text in said if len(text.split()) >= SHORTEST)]
    for end, (speaker, text) in enumerate(said):
        if speaker == "Assistant" and end:
            yield {"before": _last(said[:end]), "after": text, "query": query, "about": about}


def _last(said: list[tuple[str, str]]) -> str:
    """The last messages, of `PIECE` words or so; one message stands without its speaker."""
    kept, words = list[str](), 0
    for speaker, text in reversed(said):
        words += len(text.split())
        if kept and words > PIECE:
            break
        kept.insert(0, f"{speaker}: {text}")
    return said[0][1] if len(said) == 1 else "\n".join(kept)


def _message(item: Any) -> tuple[str, str]:
    """Role and text of a message; a list of parts gives those that are text."""
    if not isinstance(item, Mapping):
        raise BadData("a message is no object with role and content, or from and value")
    role, content = item.get("role", item.get("from")), item.get("content", item.get("value"))
    if isinstance(content, list):
        content = "\n".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    if not isinstance(role, str) or not isinstance(content, str | None):
        raise BadData("a message has no role and content, or no from and value, that are text")
    return role.casefold(), (content or "").strip()
