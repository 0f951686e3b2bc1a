"""Reads the `runs/` folder and shows what finished: tables, figures, one HTML page. Knows nothing of models."""
