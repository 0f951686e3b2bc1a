"""Whole experiments, each a reader of a recipe."""
