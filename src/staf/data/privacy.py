"""What experts and routers keep of examples: keys and ids, those of patients and stays salted.

A number of a patient can be guessed from its hash, so that of a data set of patients, or of a task file's group column, is
hashed again with a secret that stays on this machine (`<cache>/secret`). Texts are long: their keys are kept as they are and
recognised on any machine.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from staf.data.card import builtin_cards
from staf.data.example import Example
from staf.data.fetch import cache_folder
from staf.io import locked, write_bytes


def trained_keys(examples: Iterable[Example]) -> frozenset[str]:
    """The dedup keys of training examples as an expert keeps them."""
    return frozenset(
        _salted(key) if key == example.group and _of_patients(example) else key
        for example in examples for key in example.dedup_keys
    )  # fmt: skip


def compared_keys(example: Example) -> frozenset[str]:
    """The dedup keys of a test example as `trained_keys` may have kept them."""
    if not (_of_patients(example) and (cache_folder() / "secret").is_file()):  # without a secret nothing was salted here
        return frozenset(example.dedup_keys)
    return frozenset({*example.dedup_keys, _salted(example.group)})


def kept_ids(examples: Iterable[Example]) -> list[str]:
    """The ids of examples in order, as a router keeps them; of a stay a salted hash after the name of its data set."""
    return sorted(
        f"{e.id.partition('/')[0]}/{_salted(e.id)}" if _of_patients(e) and e.id.partition("/")[0] in builtin_cards() else e.id
        for e in examples
    )


def _of_patients(example: Example) -> bool:
    """True for an example of a data set of patients, or of a task file."""
    card = builtin_cards().get(example.id.partition("/")[0])
    return card is None or card.patients


def _salted(text: str) -> str:
    return hmac.digest(_secret(cache_folder() / "secret"), text.encode(), "sha256").hex()[:16]


@lru_cache(maxsize=8)
def _secret(path: Path) -> bytes:
    """Thirty-two random bytes, drawn once on each machine and readable by their owner only."""
    if not path.is_file():
        with locked(path, wait=True):
            if not path.is_file():
                write_bytes(path, secrets.token_bytes(32), private=True)
    return path.read_bytes()
