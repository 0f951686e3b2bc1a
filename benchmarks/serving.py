"""What a server costs: batches of many tasks against batches of one, PEFT's mixed batch, a thousand routers, and overload.

    python benchmarks/serving.py ratios --rounds 5         32 rows of 16 tasks, 32 rows of one, PEFT by adapter_names, in turns
    python benchmarks/serving.py memory --routers 1000     bytes of a thousand routers: Python's objects and weights
    python benchmarks/serving.py overload --minutes 10     requests at twice the capacity; each one's answer is checked

Rows are real: contexts of PubMedQA cut to --tokens, and for each task a question with five titles of ICD-10-CM as its labels.
Experts are those of --experts, or four of random factors of rank 8; routers have random weights, which cost what learned ones
do. Every number is a line of JSON. Ratios are of processor time, so that other work on the machine counts for nothing.

PEFT has one adapter for each task, the router's mixture itself (the factors of all experts, weighted), and gets the prompts of
the same rows in one batch, without their labels (`peft_prompts`), or with one row for each label, as a harness scores them
(`peft_labels`). The engine's side always has the labels' log-likelihoods.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import platform
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import Any

import torch

from staf.data.example import Example
from staf.data.prepare import load, prepare
from staf.data.splits import seeded_rng
from staf.experts.reduce import concat_factors
from staf.experts.sets import write_set
from staf.experts.store import Expert, ExpertSet, load_experts
from staf.lm.base import Base, load_base
from staf.lm.batches import encode_answer
from staf.routing.recipe import RouterRecipe
from staf.routing.router import num_params
from staf.routing.store import Router, save_router
from staf.serve.answers import LabelRow, Reader
from staf.serve.engine import Engine, Scoring
from staf.serve.routers import Models
from staf.serve.settings import ServeSettings

ROWS, TASKS, LABELS = 32, 16, 5


def random_experts(base: Base, count: int = 4, rank: int = 8) -> ExpertSet:
    generator, found = torch.Generator().manual_seed(0), []
    for number in range(count):
        factors = {
            name: (
                0.1 * torch.randn(d_out, rank, generator=generator) / d_out**0.5,
                torch.randn(rank, d_in, generator=generator) / d_in**0.5,
            )
            for name, (d_out, d_in) in base.lora.shapes.items()
        }
        found.append(Expert(f"random-{number}", base.identity, factors, frozenset()))
    return ExpertSet(tuple(found))


def write_routers(base: Base, folder: Path, experts: Path | None, count: int) -> list[str]:
    """Routers of different tasks in `folder`/routers, with their experts in `folder`/experts."""
    write_set(folder / "experts", (random_experts(base) if experts is None else load_experts(experts)).experts)
    loaded = load_experts(folder / "experts")
    codes = load(prepare("icd-10-cm"), "entity_relation", "train", output_type="multiple_choice")
    titles, names, recipe = sorted({code.answer for code in codes}), [], RouterRecipe()
    for number in range(count):
        rng, name = seeded_rng(f"bench task {number}"), f"task-{number:04d}"
        labels = tuple(rng.sample(titles, LABELS))
        query = f"Which of these is the note about? {'; '.join(labels)}"
        example = Example(name, "bench", query, "", labels[0], labels, "train", ())
        weights = torch.rand(1, len(loaded.names), generator=torch.Generator().manual_seed(number))
        params = torch.zeros(num_params(1, len(loaded.names), recipe))
        router = Router.of(
            base, loaded, name, [example], recipe, weights / weights.sum(), params, {"seconds": 0.0, "run": name}
        )
        save_router(folder / "routers" / name, router)
        names.append(name)
    return names


def notes(base: Base, count: int, tokens: int) -> list[str]:
    pool = load(prepare("pubmedqa"), "question_answering", "train", output_type="multiple_choice")
    texts = seeded_rng("bench notes").sample([example.context for example in pool], count)
    found = []
    for text in texts:
        ends = base.tokenizer(text, return_offsets_mapping=True)["offset_mapping"][:tokens]
        found.append(text[: ends[-1][1]])
    return found


class Side:
    """The engine with all routers, asked for some (router, text) pairs at once."""

    def __init__(self, base: Base, folder: Path) -> None:
        self.settings = ServeSettings()
        self.engine = Engine(base, self.settings)
        self.models, self.reader = Models(self.engine, folder / "routers"), Reader(base, self.settings)
        self.models.add(*self.models.available())

    def rows(self, pairs: list[tuple[str, str]]) -> list[LabelRow]:
        return [self.reader.label_row(self.models.find(name), "row", text) for name, text in pairs]

    def seconds(self, rows: list[LabelRow]) -> float:
        works = [Scoring(r.work.routing, r.work.prompt, time.monotonic() + 600, choices=r.work.choices) for r in rows]
        started = time.process_time()
        self.engine.submit(works)
        for work in works:
            work.future.result()
        return time.process_time() - started


class Peft:
    """PEFT's model with one adapter for each router."""

    def __init__(self, base: Base, side: Side, names: list[str]) -> None:
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM

        model: Any = AutoModelForCausalLM.from_pretrained(str(base.folder), dtype=base.dtype)
        self.model: Any = None
        for name in names:
            routing = side.models.find(name).routing
            weights: Any = routing.weights
            mixed = {}
            for module, shape in base.lora.shapes.items():
                mixed[module] = concat_factors(ExpertSet(routing.experts).factors_of(module, shape), weights[0])
            rank = max(b.shape[1] for b, _ in mixed.values())
            config = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(base.lora.shapes))
            if self.model is None:
                self.model = get_peft_model(model, config, adapter_name=name)
            else:
                self.model.add_adapter(name, config)
            state = dict(self.model.named_parameters())
            with torch.no_grad():
                for module, (b, a) in mixed.items():
                    for part, value in (("lora_A", a), ("lora_B", b)):
                        own = state[f"base_model.model.{module}.{part}.{name}.weight"]
                        own.zero_()
                        own[: value.shape[0], : value.shape[1]] = value.to(own.dtype)
        self.model.eval()

    @torch.inference_mode()
    def forward(self, prompts: list[list[int]], names: list[str]) -> torch.Tensor:
        """Logits after each prompt."""
        width = max(map(len, prompts))
        ids = torch.zeros(len(prompts), width, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
        found: torch.Tensor = self.model(
            input_ids=ids, attention_mask=mask, adapter_names=names, logits_to_keep=1, use_cache=False
        ).logits[:, -1]
        return found

    def seconds(self, base: Base, rows: list[LabelRow], names: list[str], labels: bool) -> float:
        prompts, owners = [list(row.work.prompt) for row in rows], names
        if labels:
            answers = [[encode_answer(label, base.tokenizer) for label in row.example.labels] for row in rows]
            owners = [name for name in names for _ in range(LABELS)]
            prompts = [prompt + answer for prompt, own in zip(prompts, answers, strict=True) for answer in own]
        started = time.process_time()
        for start in range(0, len(prompts), ROWS):
            self.forward(prompts[start : start + ROWS], owners[start : start + ROWS])
        return time.process_time() - started


def ratios(options: argparse.Namespace) -> None:
    base = load_base(dtype=options.dtype)
    with tempfile.TemporaryDirectory() as folder:
        names = write_routers(base, Path(folder), options.experts, TASKS)
        side, texts = Side(base, Path(folder)), notes(base, ROWS, options.tokens)
    owners = [names[i % TASKS] for i in range(ROWS)]
    mixed = side.rows(list(zip(owners, texts, strict=True)))
    one = [side.rows([(name, text) for text in texts]) for name in names[: options.rounds + 1]]
    peft = None if options.no_peft else Peft(base, side, names)
    if peft is not None:
        check(base, side, peft, mixed, owners)
    found: dict[str, list[float]] = {}
    for number in range(options.rounds + 1):
        turn = {"mixed": side.seconds(mixed), "one_task": side.seconds(one[number])}
        if peft is not None:
            turn["peft_prompts"] = peft.seconds(base, mixed, owners, False)
            if number == 1:
                turn["peft_labels"] = peft.seconds(base, mixed, owners, True)
        emit({"benchmark": "turn", "number": number, **{name: round(seconds, 2) for name, seconds in turn.items()}})
        if number:  # the first round warms up
            for name, seconds in turn.items():
                found.setdefault(name, []).append(seconds)
    side.engine.close()
    rates = {name: round(ROWS / statistics.median(values), 2) for name, values in found.items()}
    shown = {"rows": ROWS, "tasks": TASKS, "prompt_tokens": statistics.mean(len(row.work.prompt) for row in mixed)}
    against = {f"mixed_by_{name}": spread([own / ours for ours, own in zip(found["mixed"], values, strict=False)])
               for name, values in found.items() if name != "mixed"}  # fmt: skip
    emit({"benchmark": "ratios", **shown, "rows_per_cpu_second": rates, "ratios": against, "dtype": str(base.dtype)})


def check(base: Base, side: Side, peft: Peft, rows: list[LabelRow], names: list[str]) -> None:
    """Both sides compute the same model: log-probabilities of the first token after each prompt."""
    logprobs = peft.forward([list(row.work.prompt) for row in rows], names).float().log_softmax(-1)
    works = [side.reader.prompt_scores(side.models.find(name), row.work.prompt) for name, row in zip(names, rows, strict=True)]
    side.engine.submit(works)
    ours = torch.stack([work.future.result().best_logprobs[-1] for work in works])
    emit({"benchmark": "agreement", "largest_difference": float((logprobs.max(-1).values - ours).abs().max())})


def memory(options: argparse.Namespace) -> None:
    base = load_base(dtype=options.dtype)
    with tempfile.TemporaryDirectory() as folder:
        names = write_routers(base, Path(folder), options.experts, options.routers)
        engine = Engine(base, ServeSettings())
        models = Models(engine, Path(folder) / "routers")
        models.add(*names[:8])
        gc.collect()
        tracemalloc.start()
        started = time.perf_counter()
        models.add(*names[8:])
        seconds = time.perf_counter() - started
        gc.collect()
        added = tracemalloc.get_traced_memory()[0]
    engine.close()
    weights = sum(model.routing.weights.nbytes for model in models.listed()[9:] if model.routing.weights is not None)
    emit({"benchmark": "memory", "routers": len(names) - 8, "python_bytes": added, "weight_bytes": weights,
          "seconds_to_load": round(seconds, 2)})  # fmt: skip


async def request(port: int, body: dict[str, Any] | None, path: str = "/v1/classify") -> tuple[int, bytes]:
    """Status and body of one request on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    raw = b"" if body is None else json.dumps(body).encode()
    verb = "GET" if body is None else "POST"
    head = f"{verb} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n"
    writer.write(f"{head}content-length: {len(raw)}\r\n\r\n".encode() + raw)
    answer = await reader.read()
    writer.close()
    head_of, _, content = answer.partition(b"\r\n\r\n")
    return int(head_of.split()[1]), content


class Load:
    """Requests whose answers are known, sent to a server, and what came back."""

    def __init__(self, port: int, known: list[tuple[dict[str, Any], dict[str, float]]]) -> None:
        self.port, self.known, self.rng = port, known, random.Random(0)
        self.status: dict[int, int] = {}
        self.latencies: list[float] = []
        self.wrong = self.lost = 0
        self.resident: list[float] = []

    async def one(self) -> None:
        body, expected = self.known[self.rng.randrange(len(self.known))]
        started = time.perf_counter()
        try:
            status, content = await request(self.port, body)
        except (OSError, IndexError, ValueError):
            self.lost += 1
            return
        self.status[status] = self.status.get(status, 0) + 1
        if status == 200:
            self.latencies.append(time.perf_counter() - started)
            found = json.loads(content)["data"][0]["probabilities"]
            self.wrong += found.keys() != expected.keys() or any(abs(found[k] - expected[k]) > 1e-3 for k in expected)

    async def closed(self, clients: int, seconds: float) -> float:
        """Answers a second where each of some clients asks again as soon as it has its answer."""
        end = time.perf_counter() + seconds

        async def client() -> None:
            while time.perf_counter() < end:
                await self.one()

        await asyncio.gather(*(client() for _ in range(clients)))
        return len(self.latencies) / seconds

    async def open(self, rate: float, seconds: float) -> None:
        """Requests at random times, `rate` a second, whether or not the former ones are answered."""
        tasks, end, sampled = set[asyncio.Task[None]](), time.perf_counter() + seconds, 0.0
        at = time.perf_counter()
        while at < end:
            at += self.rng.expovariate(rate)
            await asyncio.sleep(max(at - time.perf_counter(), 0))
            task = asyncio.create_task(self.one())
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            if at > sampled + 5:
                sampled, page = at, (await request(self.port, None, "/metrics"))[1].decode()
                if found := re.search(r"^process_resident_memory_bytes (\S+)", page, re.MULTILINE):
                    self.resident.append(float(found[1]))
        await asyncio.gather(*tasks)


def overload(options: argparse.Namespace) -> None:
    base = load_base(dtype="float32")
    with tempfile.TemporaryDirectory() as folder:
        names = write_routers(base, Path(folder), options.experts, TASKS)
        side, texts = Side(base, Path(folder)), notes(base, 64, options.tokens)
        pairs = [(names[i % TASKS], text) for i, text in enumerate(texts)]
        rows = side.rows(pairs)
        side.engine.submit([row.work for row in rows])
        answers = [side.reader.label_answer(side.models.find(name), row, row.work.future.result(), None)
                   for (name, _), row in zip(pairs, rows, strict=True)]  # fmt: skip
        side.engine.close()
        known = [
            ({"model": name, "input": text}, one["probabilities"]) for (name, text), one in zip(pairs, answers, strict=True)
        ]
        words = ["serve", "--routers", str(Path(folder) / "routers"), "--port", "0", "--dtype", "float32", "-o", "max_queue=64"]
        with subprocess.Popen([sys.executable, "-m", "staf.cli", *words], stderr=subprocess.PIPE, text=True) as server:
            line = next(line for line in server.stderr or () if "listening" in line)
            port = int(re.findall(r":(\d+)/", line)[0])
            del base, side
            asyncio.run(measured(port, known, options.minutes))
            server.terminate()
            emit({"benchmark": "stop", "exit_code": server.wait(120)})


async def measured(port: int, known: list[Any], minutes: float) -> None:
    await Load(port, known).closed(32, 15)  # warms up
    capacity = await Load(port, known).closed(32, 30)
    load = Load(port, known)
    await load.open(2 * capacity, 60 * minutes)
    took = sorted(load.latencies)
    emit({
        "benchmark": "overload", "capacity": round(capacity, 1), "sent_per_second": round(2 * capacity, 1), "minutes": minutes,
        "status": load.status, "wrong": load.wrong, "lost": load.lost, "answers_per_second": round(len(took) / 60 / minutes, 1),
        "latency": {name: round(took[min(int(len(took) * share), len(took) - 1)], 2)
                    for name, share in (("median", 0.5), ("p99", 0.99), ("longest", 1.0))},
        "resident_megabytes": {"first": load.resident[0] // 1e6, "last": load.resident[-1] // 1e6,
                               "most": max(load.resident) // 1e6},
    })  # fmt: skip


def spread(values: list[float]) -> dict[str, float]:
    return {"median": round(statistics.median(values), 2), "least": round(min(values), 2), "most": round(max(values), 2)}


def emit(line: dict[str, Any]) -> None:
    print(json.dumps({**line, "threads": torch.get_num_threads(), "machine": platform.machine()}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", choices=("ratios", "memory", "overload"))
    parser.add_argument("--experts", type=Path, help="folder of experts; default: four of random factors")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=96, help="of a note")
    parser.add_argument("--routers", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--no-peft", action="store_true")
    options = parser.parse_args()
    {"ratios": ratios, "memory": memory, "overload": overload}[options.benchmark](options)


if __name__ == "__main__":
    main()
