"""Activation checkpointing: a decoder layer keeps its input alone, and is computed again on the way back.

Memory of the activations falls from all layers to one, for one forward more; gradients and dropout are the same. Not by
transformers' own switch, which makes the frozen embedding ask for gradients and acts in training mode only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch.utils.checkpoint import checkpoint

from staf.lm.base import TARGET_MODULES, Base


@contextmanager
def recomputing(base: Base, wanted: bool = True) -> Iterator[None]:
    """Within the block the layers of `base` are computed again on the way back, if it is wanted.

    Nothing may be cached meanwhile: a batch must be computed without a shared beginning.
    """
    if not wanted:
        yield
        return
    layers = list(base.model.get_submodule(TARGET_MODULES[base.model.config.model_type][0]))
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
