"""Rows of the catalogue, one file a category."""
