"""Compare a running server with this export: python check.py URL [MODEL]; exit code 0 where it answers as the export does.

The server has OpenAI's /v1/completions with logprobs (vLLM, llama-server, ...). MODEL is the name it serves the export under.
Nothing but Python is needed.
"""

import json
import sys
import urllib.request
from pathlib import Path
from statistics import fmean


def main(url: str, model: str = "") -> str:
    """Print the mean distances in nats; returns what is wrong, or ''."""
    known = json.loads(Path(__file__).with_name("probes.json").read_text(encoding="utf-8"))
    off: dict[str, list[float]] = {"export": [], "base": []}
    for probe in known["probes"]:
        asked = {"model": model or known["model"], "prompt": probe["prompt"], "max_tokens": 1, "temperature": 0, "logprobs": 20}
        data, kind = json.dumps({**asked, **known["request"]}).encode(), {"Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(f"{url.rstrip('/')}/v1/completions", data, kind)) as answer:
            given = json.load(answer)["choices"][0].get("logprobs") or {}
        rows = (given.get("content") or [{}])[0].get("top_logprobs", [])
        top = {row["token"]: row["logprob"] for row in rows} or (given.get("top_logprobs") or [{}])[0]
        if not top:  # llama-server gives none where a token is not a complete character
            continue
        least = min(top.values())  # a token that is not listed has at most this
        for token, expected in probe["logprobs"].items():
            for name, own in off.items():
                own.append(abs(top[token] - expected[name]) if token in top else max(expected[name] - least, 0.0))
    if not off["base"]:
        return "The server gives no log-probabilities of tokens."
    export, base, limit = fmean(off["export"]), fmean(off["base"]), known["tolerance"]
    print(f"{export:.4f} nats from the export (at most {limit:.4f} is right), {base:.4f} nats from the base")
    if export <= limit:
        return ""
    return "The server answers as the base does: the adapter is not applied." if base < export else "This is another model."


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) or 0)
