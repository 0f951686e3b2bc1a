"""Limits of a server, and the errors of a request that it cannot take now."""

from __future__ import annotations

from pydantic import Field

from staf.config import Settings
from staf.errors import StafError


class ServeSettings(Settings):
    """What a server takes at most, at a time and of one request."""

    max_batch: int = Field(32, ge=1)
    """rows that are computed together"""
    token_budget: int = Field(4096, ge=64)
    """tokens of a batch that is scored, padding included"""
    cache_tokens: int = Field(16384, ge=64)
    """tokens of the prompts and answers that are generated at a time, whose keys and values are kept"""
    max_queue: int = Field(256, ge=1)
    """rows that wait; a request for which there is no room gets 429"""
    max_rows: int = Field(64, ge=1)
    """texts of one request"""
    max_body: int = Field(1 << 20, ge=1024)
    """bytes of one request"""
    max_length: int = Field(2048, ge=16)
    """tokens of a prompt with its answer"""
    max_new_tokens: int = Field(512, ge=1)
    """tokens of a generated answer"""
    max_labels: int = Field(256, ge=2)
    """labels that a request may give a row of its own"""
    timeout: float = Field(60.0, gt=0)
    """seconds from a request to its answer, after which it gets 503"""
    drain_timeout: float = Field(60.0, ge=0)
    """seconds that requests get to finish in after SIGTERM"""


class Unavailable(StafError):
    """A request that cannot be answered now, and can be sent again."""

    status = 503


class QueueFull(Unavailable):
    """Too many rows wait."""

    status = 429
