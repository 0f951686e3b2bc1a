"""Fingerprints of a text that near-duplicates share: MinHash over word triples, cut into bands.

Two texts with the share s of word triples in common (Jaccard) have at least one band in common with probability
1 - (1 - s^8)^8: 0.99 at s = 0.9, 0.77 at 0.8, 0.03 at 0.5. A band is a fingerprint like any other, so whatever keeps
dedup keys apart keeps near-duplicates apart. (Broder, 1997; banding after Leskovec, Rajaraman and Ullman.)
"""

from __future__ import annotations

import hashlib
from zlib import crc32

import numpy as np

from staf.data.example import normalise

BANDS = 8
ROWS = 8
SHORTEST = 12
"""Words; shorter texts are compared exactly, since two terms may differ in one word and mean different things."""
LONGEST = 400
"""Words that are compared, from the start of the text."""

_CHANCE = np.random.Generator(np.random.PCG64(20260801))
_FACTORS = _CHANCE.integers(1, 1 << 63, size=(BANDS * ROWS, 1), dtype=np.uint64) | np.uint64(1)
_OFFSETS = _CHANCE.integers(0, 1 << 63, size=(BANDS * ROWS, 1), dtype=np.uint64)


def minhash_keys(text: str) -> tuple[str, ...]:
    """The exact fingerprint of a text, and for one of `SHORTEST` words or more its bands; 16 hexadecimal digits each."""
    normalised = normalise(text)
    exact = hashlib.sha256(normalised.encode()).hexdigest()[:16]  # as `dedup_key`
    words = normalised.split(maxsplit=LONGEST)[:LONGEST]
    return (exact, *minhash_bands(words)) if len(words) >= SHORTEST else (exact,)


def minhash_bands(words: list[str]) -> tuple[str, ...]:
    """One fingerprint a band, of a text's normalised words; `words` needs at least three."""
    triples = {crc32(f"{one} {two} {three}".encode()) for one, two, three in zip(words, words[1:], words[2:], strict=False)}
    hashed = np.fromiter(triples, dtype=np.uint64, count=len(triples))
    products = _FACTORS * hashed  # (BANDS * ROWS, triples), modulo 2^64
    products += _OFFSETS
    least = products.min(axis=1) >> np.uint64(24)
    rows = least.astype("<u8").reshape(BANDS, ROWS)
    return tuple(
        hashlib.blake2b(row.tobytes(), digest_size=8, person=f"band {index}".encode()).hexdigest()
        for index, row in enumerate(rows)
    )
