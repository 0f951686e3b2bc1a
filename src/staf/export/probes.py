"""What lets a server be checked without staf: the task, prompts with expected log-probabilities, and a script.

    task.json     prompt, labels, how an answer is found or scored
    probes.json   prompts of invented texts, with log-probabilities of the next token by the export and by the base
    check.py      compares a running server with both (`staf.export.check`)

No text of an example is in them: a query is kept only where it is known to be the same for every input.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from staf.data.example import prompt_of
from staf.data.row_templates import rendered
from staf.data.templates import templates
from staf.errors import BadData
from staf.evaluate.settings import EvaluationSettings
from staf.experts.adapter import Factors
from staf.export import check
from staf.io import write_json
from staf.lm.batches import tokenize
from staf.lm.model import Base
from staf.routing.store import OPTIONS, SEPARATOR, Router, TaskPrompt
from staf.routing.tune import attached

CONTEXTS = (
    "A 61-year-old man has had chest pain since this morning; he is clammy and short of breath.",
    "The wound is dry, the sutures were removed, and no further visit was arranged.",
    "Metformin 500 mg twice a day was started for type 2 diabetes.",
    "hereditary spherocytosis",
)
"""Invented."""
QUERY, LABELLED = "Answer from the context.", "Choose from the options: {options}."
"""Of probes, where the query of an input is its own."""
TOP = 5
"""Tokens of a probe, the most probable ones by the export."""
SHARE, MOST = 0.25, 0.5
"""What a server may be off: a part of the distance between export and base, at most this in nats (a 4-bit base is off 0.1)."""
_MEAN = "log-probability of a label's tokens after the prompt, divided by their number"
_GENERATED = "Generated greedily up to a stop string"
_SCORED = {
    "multiple_choice": f"Score: {_MEAN}; softmax over labels.",
    "multi_label": f"Score: {_MEAN}. Log-odds: logit(rates[label]) + slope * (score - means[label]); labels at or above the "
    "threshold are answered.",
    "span": f"{_GENERATED}, and only words of the context are an answer.",
    "ner": f"{_GENERATED}: 'type: words; type: words', or 'none'.",
    "generate_until": f"{_GENERATED}.",
}


def common_query(prompt: TaskPrompt) -> str | None:
    """The query where it is known to be the same for every input, with `OPTIONS` for the labels; else None.

    That of a built-in task is a phrasing of ours, that of an own task is the same if it follows from the task file.
    """
    if prompt.templates is None:
        ours = {phrasing for families in templates().values() for phrasings in families.values() for phrasing in phrasings}
        return prompt.query if prompt.query in ours else None
    fixed = {"output_type": "generate_until", "doc_to_context": "", "doc_to_choice": ()}
    try:
        query = rendered(prompt.templates.model_copy(update=fixed), {})[0]
    except BadData:  # it reads a column
        return None
    listed = SEPARATOR.join(prompt.labels or ())
    return prompt.query if prompt.query == (query.replace(listed, OPTIONS) if listed else query) else None


def task_record(router: Router) -> dict[str, Any]:
    """A router's task: prompt, labels and how an answer is found."""
    prompt, settings = router.prompt, EvaluationSettings()
    return {
        "task": router.task, "task_type": prompt.task_type, "output_type": prompt.output_type,
        "prompt": prompt_of("{query}", "{context}"), "answer": "follows after one space", "query": common_query(prompt),
        "labels": prompt.labels, "label_separator": SEPARATOR, "max_length": prompt.max_length,
        "templates": None if prompt.templates is None else prompt.templates.model_dump(mode="json"),
        "scoring": _SCORED[prompt.output_type], "calibration": router.calibration,
        "stop": list(settings.stop), "max_new_tokens": settings.max_new_tokens,
    }  # fmt: skip


def probe_prompts(prompt: TaskPrompt) -> list[str]:
    """Prompts of the task with invented texts."""
    query = common_query(prompt) or (LABELLED if prompt.labels else QUERY)
    asked = query.replace(OPTIONS, SEPARATOR.join(prompt.labels or ("yes", "no")))
    return [prompt_of(asked, context) for context in CONTEXTS]


def write_probes(
    folder: Path, base: Base, router: Router, factors: Mapping[str, Factors], dtype: str, request: Mapping[str, Any]
) -> float:
    """Write task.json, probes.json and check.py; returns the mean distance between export and base, in nats.

    Args:
        factors: of the exported mixture. dtype: that the base computes in, for the record.
        request: further fields of a request that the server needs to answer as the export.
    """
    prompts = probe_prompts(router.prompt)
    with attached(base, factors):
        tuned = [_next_token(base, prompt) for prompt in prompts]
    probes, distances = [], list[float]()
    for prompt, own in zip(prompts, tuned, strict=True):
        plain, tokens = _next_token(base, prompt), _readable(base, own)
        found = {text: {"export": float(own[token]), "base": float(plain[token])} for text, token in tokens.items()}
        distances += [abs(one["export"] - one["base"]) for one in found.values()]
        probes.append({"prompt": prompt, "logprobs": found})
    distance = fmean(distances)
    record = {
        "model": router.task, "request": dict(request), "probes": probes, "computed_in": dtype, "base": router.base,
        "distance": distance, "tolerance": min(SHARE * distance, MOST),
    }  # fmt: skip
    write_json(folder / "task.json", task_record(router))
    write_json(folder / "probes.json", record)
    shutil.copyfile(check.__file__, folder / "check.py")
    return distance


@torch.no_grad()
def _next_token(base: Base, prompt: str) -> Tensor:
    """Log-probabilities (V,) of the token after a prompt."""
    ids = torch.tensor([tokenize(prompt, base.tokenizer)[0]], device=base.device)
    return base.logits(base.hidden_states(ids)[:, -1])[0].log_softmax(-1).cpu()


def _readable(base: Base, logprobs: Tensor) -> dict[str, int]:
    """The most probable tokens by their text, without those that are no text of their own."""
    found: dict[str, int] = {}
    for token in logprobs.topk(min(4 * TOP, len(logprobs))).indices.tolist():
        text = base.tokenizer.decode([token], skip_special_tokens=True)
        if text and "\ufffd" not in text and len(found) < TOP:
            found.setdefault(text, token)
    return found
