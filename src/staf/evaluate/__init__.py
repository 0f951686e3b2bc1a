"""Scoring a method on a task's test set: predictions first, saved, then metrics from them."""
