"""A base answers examples, and answers become predictions, in the same way for every method.

Predictions of labels are ids and numbers. Where the answer is text, a prediction holds the raw output too: such a file must
stay where the data is kept (it is readable by its owner only).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from staf.compute import numerics
from staf.data.answers import Entity, answer_parts, labels_in, read_entities
from staf.data.example import LABEL_TYPES, Example
from staf.errors import BadData, ConfigError, DamagedFile
from staf.evaluate.calibrate import LabelCalibrator, fit_calibrator
from staf.evaluate.probe import Features, Probe
from staf.evaluate.settings import EvaluationSettings
from staf.lm.base import Base
from staf.lm.batches import encode_answer
from staf.lm.generation import generate
from staf.lm.pooling import pooled_states
from staf.lm.scoring import OnBatch, score_labels
from staf.routing.merge import Mixture

Predictions = list[dict[str, Any]]
DIGITS = 6
"""of a saved score"""
UNTYPED = "untyped"
"""type of an answered mention that names none"""
PROBED = 256
"""Examples whose hidden states are in memory at a time."""
OnDone = Callable[[int], None]
"""called with the number of examples that have just been answered"""


@contextmanager
def routed(base: Base, mixture: Mixture | None, weights: Tensor | None, granularity: str = "task") -> Iterator[None]:
    """The base routed by weights (G, K) of the mixture's experts, or as it is without them; afterwards the original model."""
    try:
        if mixture is not None and weights is not None:
            mixture.set_weights(weights, granularity)
        yield
    finally:
        base.lora.set_rank_scale({})


@dataclass(frozen=True)
class Answerer:
    """A base answers examples in their order, as it is routed now, in whichever way their output type needs."""

    base: Base
    settings: EvaluationSettings
    on_done: OnDone | None = None
    """called with the number of examples just answered"""

    def scores(self, examples: Sequence[Example], on_batch: OnBatch | None = None) -> list[np.ndarray]:
        """Log-likelihoods (labels,) of each example's labels.

        Raises:
            ConfigError: one is not a finite number: the dtype is too narrow for this base, or for these experts on it.
        """
        found = [np.empty(0)] * len(examples)

        def take(indices: Sequence[int], scores: Sequence[Tensor]) -> None:
            for index, own in zip(indices, scores, strict=True):
                found[index] = own.numpy().astype(float)
                if not np.isfinite(found[index]).all():
                    raise ConfigError(
                        f"{self.base.identity['name']}, as it is routed now, gives log-likelihoods that are NaN or infinite in "
                        f"{self.base.dtype}: numbers overflow on the way. Run with --dtype float32."
                    )
            self._tell(indices, [found[i] for i in indices], on_batch)

        score_labels(
            self.base, examples, max_length=self.settings.max_length, token_budget=self.settings.token_budget,
            length_normalised=self.settings.scoring == "mean", on_batch=take,
        )  # fmt: skip
        return found

    def features(self, examples: Sequence[Example]) -> Features:
        """What a linear probe reads of examples with the same labels; raises as `scores`."""
        summed = replace(self, settings=self.settings.model_copy(update={"scoring": "sum"}))
        longest = max(len(encode_answer(label, self.base.tokenizer)) for label in examples[0].labels)
        states = pooled_states(self.base, examples, self.settings.max_length - longest, self.settings.token_budget)
        return Features(states.double().numpy(), np.stack(summed.scores(examples)))

    def texts(self, examples: Sequence[Example], on_batch: OnBatch | None = None, *, spans: bool = False) -> list[str]:
        """Generated answers; with `spans` each is a piece of its context, or ''."""
        return generate(
            self.base, examples, spans=spans, max_length=self.settings.max_length, max_new_tokens=self.settings.max_new_tokens,
            token_budget=self.settings.token_budget, stop=self.settings.stop,
            on_batch=lambda indices, texts: self._tell(indices, texts, on_batch),
        )  # fmt: skip

    def _tell(self, indices: Sequence[int], found: Sequence[Any], on_batch: OnBatch | None) -> None:
        if on_batch is not None:
            on_batch(indices, found)
        if self.on_done is not None:
            self.on_done(len(indices))

    def truncated(self, examples: Sequence[Example]) -> list[bool]:
        """Whether each example's prompt is longer than max_length leaves room for, so that its context is cut."""
        tokenizer, written, lengths = self.base.tokenizer, self.base.prompt_format, dict[tuple[str, ...], int]()
        prompts = [written.prompt(example.query, example.context)[0] for example in examples]
        found = []
        encoded = written.encoded(prompts, tokenizer)["input_ids"] if prompts else []
        for example, tokens in zip(examples, encoded, strict=True):
            if example.output_type in LABEL_TYPES and example.labels not in lengths:
                lengths[example.labels] = max(len(encode_answer(label, tokenizer)) for label in example.labels)
            answer = lengths.get(example.labels, self.settings.max_new_tokens)
            found.append(len(tokens) > self.settings.max_length - answer)
        return found


@dataclass(frozen=True)
class PartialPredictions:
    """Predictions appended as they come to a file of JSON lines, so that an interrupted run resumes at the item."""

    path: Path

    def read(self, computed: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Complete lines by id; an incomplete last line is dropped.

        Args:
            computed: dtype, device and threads of now, which the first line of a new file keeps.

        Raises:
            ConfigError: the file was computed otherwise. DamagedFile: it does not hold predictions.
        """
        complete = self.path.read_bytes().rpartition(b"\n")[0] if self.path.is_file() else b""
        if not complete:
            self.path.unlink(missing_ok=True)
            self.append([{"computed": computed}])
            return {}
        os.truncate(self.path, len(complete) + 1)
        try:
            first, *rows = map(json.loads, complete.splitlines())
            before, found = first["computed"], {row["id"]: row for row in rows}
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedFile(f"{self.path} does not hold predictions. Delete it and run the same command again.") from error
        if before != computed:
            raise ConfigError(
                f"the interrupted run in {self.path.parent} was computed with {before}, this one with {computed}. Run it as "
                f"before (--dtype, device, OMP_NUM_THREADS), or delete {self.path.name} to start over."
            )
        return found

    def append(self, rows: Predictions) -> None:
        """Write rows and flush; the file is readable by its owner only."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a", encoding="utf-8") as stream:
            stream.writelines(json.dumps(row) + "\n" for row in rows)
            stream.flush()
            os.fsync(stream.fileno())


def predictions_of(
    output_type: str,
    answerer: Answerer,
    examples: Sequence[Example],
    calibration: Sequence[Example] = (),
    *,
    calibrator: LabelCalibrator | Probe | None = None,
    partial: PartialPredictions | None = None,
) -> Predictions:
    """Answers to examples as they are saved, in the order given.

    Args:
        output_type: of all examples.
        calibration: adaptation examples that calibrate the scores of multi_label tasks.
        calibrator: a fitted one instead, as a router keeps it; or a linear probe, which answers in place of likelihoods.
        partial: what an interrupted run left; what is answered now is appended after each batch.

    Raises:
        BadData: an example has no labels, or no context. MissingData: too few calibration examples.
        ConfigError: a query that does not fit.
    """
    if output_type == "multi_label" and calibrator is None:
        calibrator = calibrate(answerer, calibration)
    found = {} if partial is None else partial.read(numerics(answerer.base))
    left = [example for example in examples if example.id not in found]
    if answerer.on_done is not None and len(left) < len(examples):
        answerer.on_done(len(examples) - len(left))
    cut = answerer.truncated(left)

    def keep(indices: Sequence[int], answers: Sequence[Any]) -> None:
        rows = [
            _row(output_type, left[i], answer, calibrator) | {"truncated": cut[i]}
            for i, answer in zip(indices, answers, strict=True)
        ]
        if partial is not None:
            partial.append(rows)
        found.update({row["id"]: row for row in rows})

    if isinstance(calibrator, Probe):
        for start in range(0, len(left), PROBED):
            indices = range(start, min(start + PROBED, len(left)))
            keep(indices, list(calibrator(answerer.features([left[i] for i in indices]))))
    elif output_type in LABEL_TYPES:
        answerer.scores(left, keep)
    else:
        answerer.texts(left, keep, spans=output_type == "span")
    return [found[example.id] for example in examples]


def batch_calibrated(predictions: Predictions, examples: Sequence[Example]) -> Predictions:
    """Predictions of one right label, each label's mean score over all of them taken off (Zhou et al., 2023, Eq. 3).

    As they are where examples have labels of their own. No answer is looked at.
    """
    if len({example.labels for example in examples}) != 1:
        return predictions
    means = np.mean([row["scores"] for row in predictions], axis=0)  # (labels,)
    return [row | {"scores": np.round(np.subtract(row["scores"], means), DIGITS).tolist()} for row in predictions]


def calibrate(answerer: Answerer, examples: Sequence[Example]) -> LabelCalibrator:
    """The calibrator of a multi_label task as the base is routed now, from labelled adaptation examples.

    Raises:
        MissingData: there are no examples, or every label of all of them is right, or none is.
    """
    gold = [np.isin(np.arange(len(example.labels)), gold_indices(example)) for example in examples]
    return fit_calibrator([example.labels for example in examples], answerer.scores(examples) if examples else [], gold)


def gold_indices(example: Example) -> list[int]:
    """Indices of the right labels, ascending; one of them for multiple_choice.

    Raises:
        BadData: an answer is not among the labels; names the example, never its text.
    """
    answers = labels_in(example)
    index_of = {label: index for index, label in enumerate(example.labels)}
    if any(answer not in index_of for answer in answers):
        raise BadData(f"{example.id}: its answer is not among the {len(example.labels)} labels. Prepare the data again.")
    return sorted(index_of[answer] for answer in answers)


def label_prediction(example: Example, scores: Iterable[float], threshold: float | None) -> dict[str, Any]:
    """The prediction of label scores.

    Args:
        scores: log-likelihoods of the labels, or their log-odds where a threshold is given.
        threshold: of log-odds from which on a label is answered; None for multiple_choice.
    """
    gold, rounded = gold_indices(example), [round(float(score), DIGITS) for score in scores]
    if threshold is None:
        return {"id": example.id, "gold": gold[0], "scores": rounded}
    answer = [index for index, score in enumerate(rounded) if score >= threshold]
    return {"id": example.id, "gold": gold, "answer": answer, "scores": rounded}


def _row(output_type: str, example: Example, answer: Any, calibrator: LabelCalibrator | Probe | None) -> dict[str, Any]:
    """The prediction of one answer: scores of labels, or text."""
    if output_type == "ner":
        return {"id": example.id, **_mentioned(answer, example), "output": answer}
    if output_type not in LABEL_TYPES:
        return {"id": example.id, "gold": [example.answer], "answer": answer, "output": answer}
    if isinstance(calibrator, Probe):
        return label_prediction(example, answer, calibrator.threshold)
    if calibrator is None or output_type == "multiple_choice":
        return label_prediction(example, answer, None)
    return label_prediction(example, calibrator.log_odds(example.labels, answer), calibrator.threshold)


def _mentioned(output: str, example: Example) -> dict[str, Any]:
    """Gold and answered mentions, and how many of the latter are not in the context or of no type of the task."""
    entities = [*read_entities(output), *(Entity(UNTYPED, part) for part in answer_parts(output) if ":" not in part)]
    real = sum(entity.type in example.labels and entity.text in example.context for entity in entities)
    gold, answer = (
        [{"type": entity.type, "text": entity.text} for entity in some] for some in (read_entities(example.answer), entities)
    )
    return {"gold": gold, "answer": answer, "invented": len(entities) - real}
