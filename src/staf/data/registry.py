"""The registry: every task and every data set card by name, the built-in ones and those that a user adds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from staf.data.card import DatasetCard, builtin_cards
from staf.data.example import KNOWLEDGE_TYPES
from staf.data.task import Task, builtin_tasks, load_task
from staf.errors import ConfigError, UnknownName


def is_task_file(name: str) -> bool:
    """True where a path of a task file is given in the place of a name."""
    return Path(name).suffix in (".yaml", ".yml")


@dataclass(frozen=True)
class Registry:
    """Tasks and cards by name."""

    tasks: Mapping[str, Task]
    cards: Mapping[str, DatasetCard]

    def find_task(self, name: str) -> Task:
        """The task of a name, or of a task file where a path ending in .yaml is given.

        Raises:
            UnknownName: with near names and the list. MissingData, ConfigError: as `load_task`.
        """
        if is_task_file(name):
            task = load_task(Path(name))
            if self.tasks.get(task.name, task) != task:
                raise ConfigError(f"{name}: there is another task named '{task.name}'. Give yours another name.")
            return task
        if name not in self.tasks:
            raise UnknownName.among("task", name, self.tasks)
        return self.tasks[name]

    def find_card(self, name: str) -> DatasetCard:
        """The card of a data set; raises UnknownName with near names."""
        if name not in self.cards:
            raise UnknownName.among("data set", name, self.cards)
        return self.cards[name]

    def card_rows(self, data: Path | None = None) -> list[dict[str, Any]]:
        """The cards as plain rows; `available` is whether a data set can be read without fetching anything."""
        return [card.row(data) for card in self.cards.values()]

    def with_task(self, task: Task) -> Registry:
        """This registry with a task added, so that its test items are kept out of training.

        Raises:
            ConfigError: another task has its name.
        """
        if self.tasks.get(task.name, task) != task:
            raise ConfigError(f"there is another task named '{task.name}'. Give yours another name.")
        return Registry({**self.tasks, task.name: task}, self.cards)

    def expert_sources(self, name: str) -> tuple[tuple[str, str], ...]:
        """The (data set, task type) pairs that feed an expert, in the order of the cards.

        An expert is named by a knowledge type, and then fed by every medical data set that has it; or by one data set, and
        then fed by all knowledge types of that one (Figure 7 names experts so), or by all its task types where it has no
        knowledge type (the expert of clinical records that Table 5 adds).

        Raises:
            UnknownName: it is neither.
        """
        if name in self.cards:
            types = self.cards[name].task_types
            return tuple((name, each) for each in types if each in KNOWLEDGE_TYPES) or tuple((name, each) for each in types)
        if name not in KNOWLEDGE_TYPES:
            raise UnknownName.among("expert (a knowledge type or a data set)", name, [*KNOWLEDGE_TYPES, *self.cards])
        return tuple((card.name, name) for card in self.cards.values() if card.medical and name in card.task_types)


@cache
def default_registry() -> Registry:
    """The tasks and cards that come with staf."""
    return Registry(builtin_tasks(), builtin_cards())


def find_task(name: str) -> Task:
    """The built-in task of a name, or the task of a file; raises as `Registry.find_task`."""
    return default_registry().find_task(name)


def task_metrics() -> dict[str, str]:
    """The primary metric of each built-in task."""
    return {name: task.metric for name, task in default_registry().tasks.items()}
