"""Kinds of files: how text, JSON, CSV, archives, workbooks, OBO and RRF are opened, and how a bad row is named.

Knows nothing of any corpus.
"""
