"""Experiments: the demo and the papers' tables and figures, each from a recipe."""
