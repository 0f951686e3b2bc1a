"""A fused model as one ordinary folder that any tool loads (STAF-LLM, Algorithm 2: fuse, then inference)."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from staf import __version__
from staf.errors import StafError
from staf.io import sync_folder, write_json
from staf.routing.merge import Mixture
from staf.routing.store import Router


def save_fused(mixture: Mixture, router: Router, out: Path) -> dict[str, Any]:
    """Add the routed experts into the weights, save model and tokenizer to `out`, and take them out again.

    The model keeps the number format it is loaded in; nothing of staf is needed to load it.

    Returns:
        the record that is written beside it as staf.json.

    Raises:
        StafError: `out` exists, or cannot be written; nothing is left half-written.
    """
    if out.exists():
        raise StafError(f"{out} exists already. Delete it or name another folder; nothing was changed.")
    base = mixture.base
    card = {
        "task": router.task,
        "router": router.record.get("run"),
        "weights": router.mean_weights,
        "base": router.base,
        "experts": list(router.experts),
        "experts_fingerprint": router.experts_fingerprint,
        "method": router.recipe.method,
        "version": __version__,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    deltas = mixture.deltas(router.weights, router.recipe.granularity)
    originals = {name: base.lora.layers[name].weight.detach().clone() for name in deltas}
    try:
        with torch.no_grad():
            for name, change in deltas.items():
                weight = base.lora.layers[name].weight
                weight.copy_((weight.float() + change).to(weight.dtype))  # Eq. 10
        base.model.save_pretrained(str(temporary))
        base.tokenizer.save_pretrained(str(temporary))
        write_json(temporary / "staf.json", card)
        os.chmod(temporary, 0o755)
        os.replace(temporary, out)
        sync_folder(out.parent)
    except OSError as error:
        raise StafError(f"cannot write {out}: {error.strerror or error}. Nothing was left there.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        with torch.no_grad():
            for name, original in originals.items():
                base.lora.layers[name].weight.copy_(original)
    return card
