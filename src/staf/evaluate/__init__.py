"""Scoring a method on a task's test set: predictions first, saved, then metrics from them alone.

A method is a row of a table. Routed experts, baselines and classifiers differ in how they answer and in nothing after that.
"""

from staf.evaluate.answer import Answerer
from staf.evaluate.method import Method, method_of_router, setting_of
from staf.evaluate.predictions import predictions_of
from staf.evaluate.score import best_single, finish, predict, sample

__all__ = [
    "Answerer",
    "Method",
    "best_single",
    "finish",
    "method_of_router",
    "predict",
    "predictions_of",
    "sample",
    "setting_of",
]
