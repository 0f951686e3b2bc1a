"""Metrics from saved predictions, with intervals and paired tests; never from a model.

What a prediction holds is in `schema`, which metrics an output type has in `by_output_type`.
"""
