"""What a router asks: the query, the labels and the kind of output of its task, so that it predicts without the task's data."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic.dataclasses import dataclass

from staf.data.answers import NONE
from staf.data.example import Example
from staf.errors import BadData

OPTIONS = "{options}"
"""The place of the labels in a query."""
SEPARATOR = "; "
"""Between labels in a query, as in `staf.data.templates`."""


@dataclass(frozen=True)
class TaskPrompt:
    """How inputs of a task become examples."""

    query: str
    """with `OPTIONS` where it lists the labels"""
    labels: tuple[str, ...] | None
    """the labels of every example, () for free text; None: each example has its own"""
    output_type: str
    task_type: str
    max_length: int
    """tokens of a prompt with its answer"""

    @classmethod
    def of(cls, examples: Sequence[Example], max_length: int) -> TaskPrompt:
        """The prompt of a task from some of its examples, at least one; the first one's wording is used."""
        first = examples[0]
        listed = SEPARATOR.join(first.labels)
        query = first.query.replace(listed, OPTIONS) if listed else first.query
        same = all(example.labels == first.labels for example in examples)
        return cls(query, first.labels if same else None, first.output_type, first.task_type, max_length)

    def example(
        self, name: str, context: str, query: str | None = None, labels: Sequence[str] | None = None
    ) -> Example:  # fmt: skip
        """An example without an answer.

        Args:
            name: for messages. query, labels: the input's own; None uses the task's.

        Raises:
            BadData: the task has labels by example and none are given, or the given ones do not fit the query.
        """
        own = self.labels if labels is None else tuple(labels)
        if own is None:
            raise BadData(f'{name}: this task\'s labels differ by example; give the line its own "labels".')
        if self.output_type == "multiple_choice" and not own:
            raise BadData(f'{name}: this task has one right label, and "labels" is empty.')
        listed = OPTIONS in self.query and bool(set(own) & set(self.labels or own))
        if query is None and self.labels is not None and own != self.labels and not listed:
            raise BadData(
                f'{name}: none of its "labels" is one of the router\'s, or the query does not list labels. '
                'Give the line its own "query" too, or leave "labels" out.'
            )
        asked = self.query.replace(OPTIONS, SEPARATOR.join(own)) if query is None else query
        placeholder = own[0] if self.output_type == "multiple_choice" else NONE
        return Example(name, self.task_type, asked, context, placeholder, own, "test", (), self.output_type)
