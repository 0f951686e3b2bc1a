"""A classifier of texts that follows scikit-learn's contract: a router over experts."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from staf.data.task import Task
from staf.experts.store import REFERENCE, ExpertSet
from staf.model.model import Model, find_experts, load_model


class RoutedClassifier(ClassifierMixin, BaseEstimator):
    """Classifies texts by a router over medical experts, learned from labelled texts; a scikit-learn estimator.

    Classes are shown to the language model as their text, so name them: "urgent", not 1. The model that was used last stays
    loaded, and clones share it, as in `cross_val_score` and `GridSearchCV`.

    Args:
        experts: folder of experts, loaded ones, or "reference" for those that come with staf.
        base: hub id, folder or GGUF file; None is the default base.
        shots: texts drawn from those given to `fit`; None takes all.
        method: cma, gradient or best_expert.
        query: the question that is asked about each text; None makes one of the labels.
        max_length: tokens of a text with its question; longer texts are cut.
        random_state: seed of the draw and the search.
        recipe: further settings of `staf.routing.recipe.RouterRecipe`, such as {"max_evaluations": 80}.
        dtype, device: as `staf.load_model`.

    Attributes:
        classes_: (n_classes,) sorted; the columns of `predict_proba`.
        adapted_: the `staf.Adapted` that answers.
    """

    def __init__(
        self, experts: str | Path | ExpertSet = REFERENCE, base: str | Path | None = None, *, shots: int | None = None,
        method: str = "cma", query: str | None = None, max_length: int = 512, random_state: Any = 0,
        recipe: Mapping[str, Any] | None = None, dtype: str | None = None, device: str | None = None,
    ) -> None:  # fmt: skip
        self.experts, self.base, self.shots, self.method, self.query = experts, base, shots, method, query
        self.max_length, self.random_state, self.recipe, self.dtype, self.device = (
            max_length,
            random_state,
            recipe,
            dtype,
            device,
        )

    def fit(self, X: Any, y: Any) -> RoutedClassifier:
        """Learn the router.

        Args:
            X: (n,) texts: a list, an array or a Series.
            y: (n,) classes.

        Raises:
            ValueError: what is no text, fewer than two classes, or another number of them.
        """
        texts = _texts(X)
        if y is None:
            raise ValueError("requires y to be passed, but the target y is None")
        classes = column_or_1d(y, warn=True)
        check_classification_targets(classes)
        check_consistent_length(texts, classes)
        self.classes_, indices = np.unique(classes, return_inverse=True)
        labels = [str(name).strip() for name in self.classes_]
        if len(labels) < 2 or len({*labels, ""}) <= len(labels):
            raise ValueError(f"{len(labels)} class: two or more are needed, each with another text that is not empty")
        model = _shared_model(self.experts, self.base, self.dtype, self.device)
        rows = [{"text": text, "label": labels[index]} for text, index in zip(texts, indices, strict=True)]
        task = Task.from_table(
            {"train": rows}, text="text", label="label", labels=labels, query=self.query, test_size=None, name="texts"
        ).model_copy(update={"test_split": "test"})  # there is none: all are for adaptation
        drawn = self.random_state
        seed = int(drawn if isinstance(drawn, Integral) else check_random_state(drawn).randint(2**31 - 1))
        recipe = {"max_length": self.max_length, **(self.recipe or {})}
        self.adapted_ = model.adapt(task, self.shots, self.method, seed, **recipe)
        self.adapted_.task = None  # it holds the texts
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities (n, n_classes) of texts (n,); a row sums to 1."""
        check_is_fitted(self)
        return self.adapted_.predict_proba(_texts(X))

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class (n,) of texts (n,)."""
        chosen = self.predict_proba(X).argmax(1)
        return np.asarray(self.classes_[chosen])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        return tags


_loaded: dict[tuple[Any, ...], Model] = {}
"""The model that was used last."""


def _shared_model(experts: Any, base: Any, dtype: str | None, device: str | None) -> Model:
    """The model of some parameters; loaded once for the same experts."""
    found = find_experts(experts)
    key = (None if found is None else found.fingerprint, base, dtype, device)
    if key not in _loaded:
        _loaded.clear()
        _loaded[key] = load_model(found, base, dtype=dtype, device=device)
    return _loaded[key]


def _texts(X: Any) -> list[str]:
    """Texts one by one; raises ValueError for anything else."""
    if isinstance(X, str | bytes) or not hasattr(X, "__len__"):
        raise ValueError("a list, an array or a Series of texts was expected")
    texts = list(X)
    if not texts:
        raise ValueError("no texts were given: at least 1 is required")
    for number, text in enumerate(texts, 1):
        if not isinstance(text, str):
            raise ValueError(f"input {number} of {len(texts)} is of type {type(text).__name__}: a text was expected")
    return [str(text) for text in texts]
