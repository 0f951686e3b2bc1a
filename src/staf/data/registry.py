"""The tasks and data sets that one command knows: those that come with staf and those that a user adds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from staf.data.card import DatasetCard, builtin_cards
from staf.data.example import KNOWLEDGE_TYPES
from staf.data.task import Task, builtin_tasks, find_task, is_task_file
from staf.errors import UnknownName


@dataclass(frozen=True)
class Registry:
    """Tasks and data set cards by name."""

    tasks: Mapping[str, Task] = field(default_factory=builtin_tasks)
    """Their test items are kept out of training."""
    cards: Mapping[str, DatasetCard] = field(default_factory=builtin_cards)

    def with_task(self, name: str | Task) -> tuple[Task, Registry]:
        """The task as `find_task` finds it, and this registry with it; raises as that."""
        task = find_task(name, self.tasks)
        return task, replace(self, tasks={**self.tasks, task.name: task})

    def find_card(self, name: str) -> DatasetCard:
        """The card of a data set; raises UnknownName with near names."""
        if name not in self.cards:
            raise UnknownName.among("data set", name, self.cards)
        return self.cards[name]

    def expert_sources(self, name: str) -> tuple[tuple[str, str], ...]:
        """The (data set, task type) pairs that feed an expert, in the order of the cards; none of a task file's.

        An expert is named by a knowledge type, and then fed by every medical data set that has it; or by one data set, and
        then fed by all knowledge types of that one (Figure 7 names experts so), or by all its task types where it has no
        knowledge type (the expert of clinical records that Table 5 adds).

        Raises:
            UnknownName: it is neither.
        """
        if is_task_file(name):
            return ()
        if name in self.cards:
            types = self.cards[name].task_types
            return tuple((name, each) for each in types if each in KNOWLEDGE_TYPES) or tuple((name, each) for each in types)
        if name not in KNOWLEDGE_TYPES:
            raise UnknownName.among("expert (a knowledge type or a data set)", name, [*KNOWLEDGE_TYPES, *self.cards])
        return tuple((card.name, name) for card in self.cards.values() if card.medical and name in card.task_types)
