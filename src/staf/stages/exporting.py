"""A router exported to a folder for other tools, with its task, what checks a server, and a card.

out/task.json, probes.json, check.py    (`staf.export.probes`)
out/README.md, staf.json                (`staf.export.card`)
out/...                                 the model or adapter itself, by format
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from staf.compute import compute_record
from staf.errors import ConfigError, UnknownName
from staf.experts.adapter import Factors, served_rank, write_adapter
from staf.experts.store import ExpertSet
from staf.export.card import export_record, is_to_write, scores_of, write_card
from staf.export.gguf import ADAPTER_FILE, write_gguf_adapter, write_llamacpp_router, write_modelfile
from staf.export.hf import check_dtype, write_generation_settings, write_merged
from staf.export.peft import adapter_factors
from staf.export.probes import write_probes
from staf.io import read_json, staged_folder
from staf.routing.store import Router
from staf.stages.context import Context

FORMATS = ("hf", "peft", "gguf", "router-json")
"""A merged model; one LoRA adapter, of PEFT or of llama.cpp; llama.cpp's adapters with the weights of a request."""


def export_stage(
    context: Context, router: Router, experts: ExpertSet, out: Path, format: str, *, rank: int | None = None,
    dtype: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Export a router to `out`; the same export that is there already is left as it is.

    Args:
        rank: of an adapter, at most; None is the sum of the experts' ranks. dtype: of a merged model; None keeps the base's.

    Returns:
        the record written to staf.json; its `error` is the relative Frobenius norm of what `rank` discarded.

    Raises:
        UnknownName: no such format or dtype. ConfigError: an option that the format does not have.
        ConfigError: the router has a linear probe. BaseMismatch, ExpertMismatch: it is of another base or other experts.
        StafError: `out` is something else, or cannot be written; nothing is left there.
    """
    if format not in FORMATS:
        raise UnknownName.among("format", format, FORMATS)
    merged, takes_rank = format == "hf", format in ("peft", "gguf")
    if (rank is not None and not takes_rank) or (dtype is not None and not merged):
        raise ConfigError(f"{'rank' if dtype is None else 'dtype'} does not act on the format {format}: leave it out.")
    check_dtype(dtype)
    router.check(context.identity, experts)
    router.refuse_probe("an exported model")
    scores = scores_of(context.runs, router)
    record = export_record(router, dtype, format=format, asked_rank=rank, scores=scores)
    if not is_to_write(out, record):
        found: dict[str, Any] = read_json(out / "staf.json")
        return found
    factors, error = adapter_factors(experts, router, rank)
    record |= {"error": error, "rank": served_rank(factors) if takes_rank else None}
    with staged_folder(out) as folder:
        request = _write(context.base_name, folder, experts, router, factors, format, dtype)
        computed = compute_record(context.base, context.compute)["dtype"]
        record["probes_distance"] = write_probes(folder, context.base, router, factors, computed, request)
        write_card(folder, router, experts, record)
    return record


def _write(
    base: str | None, folder: Path, experts: ExpertSet, router: Router, factors: dict[str, Factors], format: str,
    dtype: str | None,
) -> dict[str, Any]:  # fmt: skip
    """Write the model or adapter; returns the fields that a request to its server needs."""
    if format == "hf":
        write_merged(base, folder, experts, router, dtype)
        write_generation_settings(folder, router.prompt)
    elif format == "peft":
        write_adapter(folder, factors, router.base)
    elif format == "gguf":
        write_gguf_adapter(folder / ADAPTER_FILE, factors, base, router.task)
        write_modelfile(folder, router.prompt)
    else:
        return write_llamacpp_router(folder, experts, router, base)
    return {}
