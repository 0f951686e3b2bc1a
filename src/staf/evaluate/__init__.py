"""Scoring a method on a task's test set: predictions first, saved, then metrics from them."""

from staf.evaluate.answer import Answerer, PartialPredictions, Predictions, calibrate, predictions_of
from staf.evaluate.calibrate import LabelCalibrator
from staf.evaluate.score import (
    ROUTERLESS,
    ROUTERS,
    Answered,
    Method,
    best_single,
    finish,
    predict,
    router_method,
    sample,
    setting_of,
)

__all__ = [
    "ROUTERLESS",
    "ROUTERS",
    "Answered",
    "Answerer",
    "LabelCalibrator",
    "Method",
    "PartialPredictions",
    "Predictions",
    "best_single",
    "calibrate",
    "finish",
    "predict",
    "predictions_of",
    "router_method",
    "sample",
    "setting_of",
]
