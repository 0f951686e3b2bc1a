"""How an endpoint asks the engine without holding up the others: texts are read in one thread, answers are awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from staf.errors import BadData
from staf.serve.answers import Reader
from staf.serve.engine import Engine, Work
from staf.serve.requests import Row
from staf.serve.routers import Models, ServedModel
from staf.serve.settings import ServeSettings

Found = TypeVar("Found")


class Asking:
    """What all endpoints share."""

    def __init__(self, engine: Engine, models: Models, settings: ServeSettings) -> None:
        self.engine, self.models, self.settings = engine, models, settings
        self.reader = Reader(engine.base, settings)
        self._thread = ThreadPoolExecutor(1, "staf reader")

    def check_rows(self, count: int) -> None:
        """Raise BadData where a request has no rows, or too many."""
        if not 1 <= count <= self.settings.max_rows:
            raise BadData(f"the request has {count} texts: 1 to {self.settings.max_rows} are allowed.")

    async def reading(self, function: Callable[[], Found]) -> Found:
        """What a function of the reader gives."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)

    async def answers(self, works: Sequence[Work]) -> list[Any]:
        """The answers of works, in their order; raises as `Engine.submit`, or what became of the first that has none."""
        self.engine.submit(works)
        try:
            found = await asyncio.gather(*(asyncio.wrap_future(work.future) for work in works), return_exceptions=True)
        finally:
            for work in works:
                work.abandoned = True
        for one in found:
            if isinstance(one, BaseException):
                raise one
        return found

    async def labels(
        self, model: ServedModel, given: Sequence[Row], threshold: float | None
    ) -> tuple[list[dict[str, Any]], int]:  # fmt: skip
        """Answers of a router of labels to some texts or rows, and the tokens of their prompts."""
        rows = await self.reading(lambda: [self.reader.label_row(model, f"row {n}", row) for n, row in enumerate(given, 1)])
        scores = await self.answers([row.work for row in rows])
        answers = [self.reader.label_answer(model, row, own, threshold) for row, own in zip(rows, scores, strict=True)]
        return answers, sum(len(row.work.prompt) for row in rows)
