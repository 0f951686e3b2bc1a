"""A text sent as it is written: its parts, joined, are the text that the same request gets without streaming."""

from __future__ import annotations

from collections.abc import Sequence

from staf.lm.generation import cut_at


class TextStream:
    """What of a growing text can be sent.

    Kept back are the start of a stop string, of a character that more bytes complete, and with `strip` white space at the end.
    """

    def __init__(self, stop: Sequence[str], strip: bool) -> None:
        self._stop, self._strip, self._sent = stop, strip, ""

    def more(self, text: str) -> str:
        """The part to send now of the text so far."""
        open_end = text.rstrip("\ufffd")
        if (cut := cut_at(open_end, self._stop)) == open_end:
            starts = (mark[:size] for mark in self._stop for size in range(len(mark) - 1, 0, -1))
            cut = open_end[: len(open_end) - max((len(start) for start in starts if open_end.endswith(start)), default=0)]
        return self._advance(cut.strip() if self._strip else cut)

    def last(self, text: str) -> str:
        """The part to send of the final text."""
        return self._advance(text)

    def _advance(self, text: str) -> str:
        if not text.startswith(self._sent):
            return ""
        part, self._sent = text[len(self._sent) :], text
        return part
