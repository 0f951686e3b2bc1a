"""Finished runs, read and checked once: what tables, figures and claims are made from.

    runs/<stage>/<task>/<method>/seed<k>-<digest>/result.json

`result.json` is written last, so a folder without it is unfinished and left out. Each stage has its model here; of a stage
without one only the folder is listed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib import resources
from itertools import product
from pathlib import Path
from statistics import fmean, stdev
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import from_json

from staf.errors import DamagedFile, MissingData
from staf.metrics.stats import holm, outcome_of

Z95 = 1.96
"""Standard errors on either side of a mean that hold 95 % of a normal distribution."""
Number = Annotated[float, Field(ge=-1e15, le=1e15)]
Count = Annotated[int, Field(ge=0, le=10**12)]
"""Larger ones are damage, and their squares would overflow."""
TABLES = ("table3", "table4", "table5", "fig5", "fig6", "fig7", "fig8", "cross-domain", "tokens", "unseen")
"""The papers' tables and figures in their order, and our own."""


class Model(BaseModel):
    """Null counts as left out, NaN and infinity are refused, unknown keys are kept."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: Any) -> Any:
        return {key: value for key, value in data.items() if value is not None} if isinstance(data, dict) else data


class Score(Model):
    """A metric of one run, as a share of 1, with its 95 % interval over test items."""

    value: Number | None = None
    low: Number | None = None
    high: Number | None = None
    examples: Number | None = None
    higher_is_better: bool = True


class Difference(Model):
    """A paired comparison of two methods on the same items."""

    difference: Number | None = None
    low: Number | None = None
    high: Number | None = None
    p_value: Number | None = None


class PairedTest(Difference):
    """Two rows of a table, by one column's metric or over the columns."""

    column: str = ""
    ours: str
    other: str
    difference: Number
    low: Number
    high: Number
    p_value: Number
    adjusted: Number | None = None  # p-value after Holm's correction, of a primary comparison
    outcome: Literal["win", "tie", "loss"] = Field(validation_alias=AliasChoices("outcome", "verdict"))
    freedom: float | None = None  # degrees of freedom behind the interval
    family: str = ""  # of the metrics of a mean over columns: F1, AUC, accuracy
    columns: Count = 1


class Coverage(Model):
    """Quality of the most confident answers, at one share of items answered."""

    coverage: Number
    value: Number


class Finished(Model):
    """Any finished run."""

    stage: str
    task: str
    method: str
    seed: int
    run: str = ""  # its folder relative to the runs, with forward slashes
    base: dict[str, Any] = Field(default_factory=dict)
    settings: dict[str, Any] = Field(default_factory=dict)
    versions: dict[str, Any] = Field(default_factory=dict)
    seconds: Number | None = None
    peak_memory_bytes: Number | None = None
    experts_fingerprint: str | None = None
    data_fingerprint: str | None = None


class Details(Model):
    """What a method recorded of its own."""

    prompt_tokens_mean: Number | None = None
    shots_shown_mean: Number | None = None


Result = TypeVar("Result", bound=Finished)


class Evaluation(Finished):
    """A method scored on a task."""

    task_title: str = ""
    unseen: bool | None = None  # whether no expert was trained on its type or data, by the experts' records
    output_type: str = ""
    setting: str = "-"
    prompt_format: str = "plain"
    labels: list[str] = Field(default_factory=list)
    metrics: dict[str, Score | None]
    primary_metric: str
    comparisons: dict[str, Difference] = Field(default_factory=dict)
    selective: list[Coverage] = Field(default_factory=list)
    weights: dict[str, Number] = Field(default_factory=dict)
    weight_total: Number | None = None
    tunable_parameters: Number | None = None
    adaptation_examples: Number | None = None
    calibration_examples: Number | None = None
    truncated_prompts: Number | None = None  # share of the test items
    stop_reason: str | None = Field(None, validation_alias=AliasChoices("stop_reason", "stopped_because"))
    details: Details = Details()

    @model_validator(mode="after")
    def _has_primary_metric(self) -> Evaluation:
        if self.primary_metric not in self.metrics:
            raise ValueError(f"primary_metric {self.primary_metric!r} is not one of the metrics")
        return self

    @property
    def primary(self) -> Score | None:
        """The primary metric, or None where it is undefined."""
        return self.metrics[self.primary_metric]


class Training(Finished):
    """An expert that was trained."""

    steps: Number | None = None
    examples: Number | None = None
    loss_first: Number | None = None
    loss_last: Number | None = None
    tokens: Number | None = None
    tokens_per_second: Number | None = None
    trainable_parameters: Number | None = None
    final_rank_average: Number | None = None
    ranks: dict[str, Number] = Field(default_factory=dict)
    curve: list[tuple[Number, Number]] = Field(default_factory=list)


Ends = tuple[Number | None, Number | None] | None


class Cell(Model):
    """A row and a column of a table: mean over seeds as a share of 1, its runs, and the papers' numbers in percent."""

    mean: Number | None = None
    missing: str = ""  # why there is no mean
    deviation: Number | None = None
    low: Number | None = None
    high: Number | None = None
    seeds: Count = 0
    items: Count = 0
    interval: Ends = None  # 95 %, over test items and seeds
    interval_of_one_seed: Ends = None
    runs: tuple[str, ...] = ()
    papers: dict[str, Number] = Field(default_factory=dict)
    tunable_parameters: Number | None = None
    adaptation_examples: Number | None = None
    calibration_examples: Number | None = None
    truncated_prompts: Number | None = None  # share of the test items whose context was cut
    invented_rate: Number | None = None  # share of the answered mentions that are not in the context
    prompt_tokens: Number | None = None
    shots_shown: Number | None = None
    seconds: Number | None = None
    weights: list[dict[str, Number]] = Field(default_factory=list)  # of each expert, by seed

    @model_validator(mode="after")
    def _says_why_empty(self) -> Cell:
        if self.mean is None and not self.missing:
            raise ValueError("mean is null and 'missing' does not say why")
        return self

    @property
    def squared_error(self) -> float | None:
        """Squared standard error of the mean over items and seeds; None without an interval."""
        for ends, more in ((self.interval, 0.0), (self.interval_of_one_seed, self.deviation or 0.0)):
            if ends and ends[0] is not None and ends[1] is not None:
                return ((ends[1] - ends[0]) / 2 / Z95) ** 2 + more**2 / max(self.seeds, 1)
        return None

    @property
    def ends(self) -> tuple[float, float] | None:
        """The 95 % interval within 0 and 1; None where none was kept."""
        low, high = self.interval or (None, None)
        if self.mean is not None and (low is None or high is None) and (error := self.squared_error) is not None:
            low, high = self.mean - Z95 * error**0.5, self.mean + Z95 * error**0.5
        return None if low is None or high is None else (max(low, 0.0), min(high, 1.0))

    def mean_weights(self) -> tuple[dict[str, float], dict[str, float]]:
        """Mean weight of each expert and its standard deviation over seeds, left out for one seed."""
        names = dict.fromkeys(name for seed in self.weights for name in seed)
        values = {name: [seed[name] for seed in self.weights if name in seed] for name in names}
        spread = {name: stdev(found) for name, found in values.items() if len(found) > 1}
        return {name: fmean(found) for name, found in values.items()}, spread


class TableRow(Model):
    """A method of a table, with a cell for each column."""

    name: str
    method: str
    title: str
    setting: str = "-"
    cells: list[Cell] = Field(validation_alias=AliasChoices("cells", "places"))


class Column(Model):
    """A task and a metric of it."""

    name: str
    task: str
    title: str
    metric: str


@cache
def declared_claims() -> dict[str, Any]:
    """claims.yaml: the papers' claims, and the primary comparisons."""
    text = (resources.files("staf") / "experiments" / "claims.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))


class Table(Finished):
    """A table or figure of the papers, reproduced; p-values of primary comparisons are corrected when it is read."""

    title: str
    differs: str
    columns: list[Column]
    rows: list[TableRow] = Field(min_length=1, validation_alias=AliasChoices("rows", "lines"))
    comparisons: list[PairedTest]
    over_columns: list[PairedTest] = Field(default_factory=list)
    prompt_tokens: dict[str, Number | None] = Field(default_factory=dict)  # of the task only, by column
    seeds: Count = 0

    @model_validator(mode="after")
    def _is_rectangular(self) -> Table:
        for row in self.rows:
            if len(row.cells) != len(self.columns):
                raise ValueError(f"row {row.name!r} has {len(row.cells)} cells for {len(self.columns)} columns")
        return self

    @model_validator(mode="after")
    def _corrects_primary_comparisons(self) -> Table:
        primary = declared_claims()["primary"]
        pairs = [*product(primary["rows"], primary["against"])] if self.task in primary["tables"] else []
        families: dict[tuple[str, str], list[PairedTest]] = {}
        for test in (*self.comparisons, *self.over_columns):
            if (test.ours, test.other) in pairs:
                families.setdefault((test.column, test.family), []).append(test)
        for tests in families.values():
            for test, adjusted in zip(tests, holm([test.p_value for test in tests], len(pairs)), strict=True):
                test.adjusted, test.outcome = adjusted, outcome_of(test.difference, adjusted)
        return self

    def cell(self, name: str, column: str) -> Cell:
        """The cell of a row and a column; where there is none, an empty one that says so."""
        row, names = next((row for row in self.rows if row.name == name), None), [column.name for column in self.columns]
        if row is None or column not in names:
            what = f"a row '{name}'" if row is None else "the column"
            return Cell(missing=f"{self.task} was run without {what}")
        return row.cells[names.index(column)]


MODELS: dict[str, type[Finished]] = {"evaluate": Evaluation, "train": Training, "reproduce": Table}


def load_results(runs: Path, metrics: Mapping[str, str] | None = None) -> list[Finished]:
    """All finished runs below `runs`, ordered by stage, task, method, seed and folder.

    All evaluations of a task get the same primary metric; comparisons that were made by another one are left out.

    Args:
        metrics: primary metric by task; for a task that is not named, that of its newest run.

    Raises:
        MissingData: there is no finished run. DamagedFile: a result.json does not hold what a result holds.
    """
    oldest_first = sorted(runs.glob("*/*/*/seed*/result.json"), key=lambda path: (path.stat().st_mtime_ns, path))
    results = [read_result(path, runs, parse_result) for path in oldest_first]
    if not results:
        unfinished = sum(path.is_dir() for path in runs.glob("*/*/*/seed*"))
        found = f"{unfinished} unfinished" if unfinished else "none" if runs.is_dir() else "no such folder"
        raise MissingData(
            f"no finished run in {runs}: found {found}, expected <stage>/<task>/<method>/seed<k>-<digest>/result.json. "
            "Run `staf evaluate --task T` first (`make demo` does everything), or pass the folder that holds the runs."
        )
    chosen = {r.task: r.primary_metric for r in results if isinstance(r, Evaluation)} | dict(metrics or {})
    for result in results:
        if isinstance(result, Evaluation) and result.primary_metric != chosen[result.task]:
            result.primary_metric, result.comparisons = chosen[result.task], {}
            result.metrics.setdefault(result.primary_metric, None)
    return sorted(results, key=lambda r: (r.stage, r.task, r.method, r.seed, r.run))


def read_result(path: Path, runs: Path, parse: Callable[[Any], Result]) -> Result:
    """One result.json, by `parse_result` or the model of one stage.

    Raises:
        DamagedFile: it is not JSON, or not such a result; the first problems are named.
    """
    try:
        result = parse(from_json(path.read_bytes()))
    except (OSError, ValueError) as error:
        problems = f"not valid JSON ({error})"
        if isinstance(error, ValidationError):
            found = [(".".join(map(str, e["loc"]))[:200] or "result", e["msg"]) for e in error.errors()[:5]]
            problems = "; ".join(f"{where}: {message}" for where, message in found)
        raise DamagedFile(
            f"{path} is not a result of a run: {problems}. "
            f"Delete the folder {path.parent} and rerun the command that made it, or restore the file from a copy."
        ) from error
    result.run = path.parent.relative_to(runs).as_posix()
    return result


def parse_result(content: Any) -> Finished:
    """A result by the model of its stage."""
    stage = content.get("stage") if isinstance(content, dict) else None
    return MODELS.get(str(stage), Finished).model_validate(content)


def evaluations(results: Iterable[Finished], task: str | None = None) -> list[Evaluation]:
    """The evaluations, of one task or of all."""
    return [r for r in results if isinstance(r, Evaluation) and task in (None, r.task)]


def tables_of(results: Iterable[Finished]) -> dict[str, Table]:
    """The reproduced tables in the papers' order; of several runs of one, that with the most scored answers."""

    def answers(table: Table) -> int:
        return sum(cell.items * cell.seeds for row in table.rows for cell in row.cells)

    newest = sorted((r for r in results if isinstance(r, Table)), key=lambda table: table.run, reverse=True)
    found = {table.task: table for table in sorted(newest, key=answers)}
    return dict(sorted(found.items(), key=lambda pair: (TABLES.index(pair[0]) if pair[0] in TABLES else len(TABLES), pair[0])))
