"""The server over HTTP, asked by real clients: openai, curl, a Prometheus parser; what it refuses; how it stops."""

from __future__ import annotations

import http.client
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
import uvicorn
from prometheus_client.parser import text_string_to_metric_families
from served import predicted, write_routers
from tiny_model import CHAT, write_tiny_model

from staf.cli import app as command_line
from staf.errors import ConfigError
from staf.lm.base import Base, load_base
from staf.serve.app import create_app
from staf.serve.asking import Asking
from staf.serve.engine import Engine
from staf.serve.metrics import Metrics
from staf.serve.routers import Models
from staf.serve.server import check_token
from staf.serve.settings import ServeSettings
from staf.serve.stream import TextStream

TEXTS = [f"the {thing} was seen by {count} of us" for count, thing in enumerate(("sky", "rose", "leaf", "blood", "sea"))]
TOKEN = "a-token-of-twenty-letters"


class Served:
    """A server on a free port, in a thread."""

    def __init__(self, base: Base, folder: Path, token: str | None = None, **settings: Any) -> None:
        self.routers, self.base, self.token = write_routers(base, folder), base, token
        self.settings, self.metrics = ServeSettings(**settings), Metrics()
        self.engine = Engine(base, self.settings, self.metrics)
        self.models = Models(self.engine, folder / "routers")
        self.models.add(*self.models.available())
        app = create_app(Asking(self.engine, self.models, self.settings), self.metrics, token)
        self.server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", access_log=False, lifespan="off"))
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Status and JSON, or text, of one request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        own = {"authorization": f"Bearer {self.token}"} if self.token else {}
        connection.request(method, path, raw, {"content-type": "application/json", **own, **headers})
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, json.loads(text) if text.startswith("{") else text

    def close(self) -> None:
        self.server.should_exit = True
        self.thread.join()
        self.engine.close()


@contextmanager
def serving(base: Base, folder: Path, token: str | None = None, **settings: Any) -> Iterator[Served]:
    found = Served(base, folder, token, **settings)
    try:
        yield found
    finally:
        found.close()


@pytest.fixture(scope="module")
def served(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(load_base(str(tiny_folder), dtype="float32", device="cpu"), tmp_path_factory.mktemp("served")) as found:
        yield found


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as found:
        yield found


def message(status: int, answer: Any) -> str:
    assert answer["error"]["code"] == status
    return str(answer["error"]["message"])


def test_labels_have_the_probabilities_of_staf_predict(served: Served) -> None:
    for name in ("colour", "several", "tuned"):
        for threshold in (None, 0.6):
            asked = {"model": name, "input": TEXTS} | ({} if threshold is None else {"threshold": threshold})
            status, found = served.ask("POST", "/v1/classify", asked)
            assert status == 200
            expected = predicted(served.routers[name], served.base, TEXTS, threshold)
            for one, row in zip(found["data"], expected, strict=True):
                assert one["answer"] == row["answer"]
                assert one["probabilities"] == pytest.approx(row["probabilities"], abs=1e-4)
                assert one.get("abstained") == row.get("abstained")
                assert one["truncated"] is False
    status, found = served.ask(
        "POST", "/v1/classify", {"model": "colour", "input": {"context": "owl", "query": "?", "labels": ["blue", "red"]}}
    )
    assert sorted(found["data"][0]["probabilities"]) == ["blue", "red"]
    status, found = served.ask("POST", "/v1/classify", {"model": "colour", "input": "x" * 400})
    assert found["data"][0]["truncated"] is True


def test_openais_client_lists_models_and_reads_chats_and_completions(served: Served, client: openai.OpenAI) -> None:
    listed = [model.id for model in client.models.list()]
    assert listed == [served.base.name, *sorted(served.routers)]
    expected = predicted(served.routers["text"], served.base, TEXTS)
    for text, row in zip(TEXTS, expected, strict=True):
        chat = client.chat.completions.create(model="text", messages=[{"role": "user", "content": text}])
        assert chat.choices[0].message.content == row["answer"]
        assert chat.choices[0].finish_reason in ("stop", "length")
        assert chat.usage is not None
        assert chat.usage.total_tokens > 50
    label = client.chat.completions.create(model="colour", messages=[{"role": "user", "content": TEXTS[0]}], temperature=0)
    assert label.choices[0].message.content == predicted(served.routers["colour"], served.base, TEXTS[:1])[0]["answer"]
    several = client.chat.completions.create(model="several", messages=[{"role": "user", "content": TEXTS[0]}])
    wanted = predicted(served.routers["several"], served.base, TEXTS[:1])[0]["answer"]
    assert several.choices[0].message.content == ("; ".join(wanted) or "none")
    both = client.completions.create(model="text", prompt=["the sky", "a leaf"], max_tokens=5)
    assert [choice.index for choice in both.choices] == [0, 1]
    one = client.completions.create(model="text", prompt="a leaf", max_tokens=5)
    assert one.choices[0].text == both.choices[1].text
    base = client.completions.create(model=served.base.name, prompt="a leaf", max_tokens=5)
    assert base.choices[0].text != one.choices[0].text
    with pytest.raises(openai.NotFoundError, match="no model of that name"):
        client.completions.create(model="missing", prompt="a")
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.completions.create(model="text", prompt="a", temperature=0.7)


@pytest.mark.parametrize("name", ["text", "span", "colour"])
def test_the_parts_of_a_stream_are_the_answer(served: Served, client: openai.OpenAI, name: str) -> None:
    for text in TEXTS[:2]:
        messages: Any = [{"role": "system", "content": "x"}, {"role": "user", "content": [{"type": "text", "text": text}]}]
        plain = client.chat.completions.create(model=name, messages=messages)
        stream = client.chat.completions.create(
            model=name, messages=messages, stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)
        parts = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
        assert "".join(parts) == plain.choices[0].message.content
        assert chunks[-2].choices[0].finish_reason == plain.choices[0].finish_reason
        assert chunks[-1].usage == plain.usage
    for stop in (None, "e", ["\u00e9", "zz"]):
        options: Any = {"model": "text", "prompt": ["the sky", "a leaf"], "max_tokens": 40, **({"stop": stop} if stop else {})}
        whole_text = client.completions.create(**options)
        texts, reasons = ["", ""], ["", ""]
        for chunk in client.completions.create(**options, stream=True):
            for choice in chunk.choices:
                texts[choice.index] += choice.text
                reasons[choice.index] = choice.finish_reason or reasons[choice.index]
        assert texts == [choice.text for choice in whole_text.choices]
        assert reasons == [choice.finish_reason for choice in whole_text.choices]
        if isinstance(stop, str):
            assert all(stop not in text for text in texts)


def test_a_stream_keeps_back_what_may_still_change() -> None:
    final = "a caf\u00e9 \n b"
    for stop, strip in (((" \n c",), False), (("\n\n",), True), ((), True)):
        stream, sent = TextStream(stop, strip), ""
        for size in range(len(final) + 1):
            grown = final[:size] + ("\ufffd" if size == 5 else "")
            sent += stream.more(grown)
            assert final.startswith(sent)
        assert sent + stream.last(final) == final
    stopping = TextStream(("STOP",), False)
    assert [stopping.more(text) for text in ("ab", "abST", "abSTO", "abSTOP", "abSTOPcd")] == ["ab", "", "", "", ""]
    assert stopping.last("ab") == ""


def test_the_base_chats_by_its_template(tmp_path: Path) -> None:
    base = load_base(str(write_tiny_model(tmp_path / "chat", CHAT)), dtype="float32", device="cpu")
    with serving(base, tmp_path / "served") as served, openai.OpenAI(base_url=f"{served.url}/v1", api_key="x") as client:
        chat = client.chat.completions.create(model=base.name, messages=[{"role": "user", "content": "hi"}], max_tokens=7)
        tokenizer = base.tokenizer
        prompt = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True)
        ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        raw = client.completions.create(model=base.name, prompt=ids, max_tokens=7)
        assert chat.choices[0].message.content == raw.choices[0].text
        assert chat.usage is not None
        assert chat.usage.prompt_tokens == len(ids)


def test_echoed_prompts_have_the_log_probabilities_that_harnesses_read(served: Served, client: openai.OpenAI) -> None:
    import torch

    ids = served.base.tokenizer("the sea is green")["input_ids"]
    for limit in (0, 1):
        found = client.completions.create(model=served.base.name, prompt=[ids], echo=True, logprobs=1, max_tokens=limit)
        own = found.choices[0].logprobs
        assert own is not None
        assert own.tokens is not None
        assert own.token_logprobs is not None
        assert own.top_logprobs is not None
        with torch.no_grad():
            logprobs = served.base.model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        expected = [float(logprobs[i, token]) for i, token in enumerate(ids[1:])]
        assert own.token_logprobs[1 : len(ids)] == pytest.approx(expected, abs=1e-4)
        assert own.token_logprobs[0] is None
        assert len(own.tokens) == len(own.token_logprobs) == len(own.top_logprobs) == len(ids) + limit
        assert [max(top.values()) for top in own.top_logprobs[1 : len(ids)]] == pytest.approx(
            logprobs[:-1].max(-1).values.tolist(), abs=1e-4
        )


def test_curl_adds_and_removes_a_router_and_prometheus_reads_the_numbers(served: Served) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not here")

    def curl(*arguments: str) -> str:
        done = subprocess.run(["curl", "-sS", *arguments], capture_output=True, text=True, check=True, timeout=60)
        return done.stdout

    as_json = ("-H", "content-type: application/json")
    assert json.loads(curl("-X", "DELETE", f"{served.url}/v1/routers/other"))["deleted"] is True
    assert "other" not in curl(f"{served.url}/v1/models")
    assert json.loads(curl(*as_json, "-d", '{"name": "other"}', f"{served.url}/v1/routers"))["task"] == "other"
    assert '"other"' in curl(f"{served.url}/v1/models")
    assert json.loads(curl(f"{served.url}/health")) == {"status": "ok"}
    families = {family.name: family for family in text_string_to_metric_families(curl(f"{served.url}/metrics"))}
    counts = {tuple(one.labels.values()): one.value for one in families["staf_requests"].samples if one.name.endswith("_total")}
    assert counts["/v1/routers", "201"] >= 1
    assert families["staf_routers"].samples[0].value == len(served.routers)
    assert {"staf_request_seconds", "staf_batch_rows", "staf_tokens", "staf_rows_waiting"} <= families.keys()


BAD: list[tuple[str, Any, int, str]] = [
    ("/v1/classify", {"model": "colour"}, 400, "input: Field required"),
    ("/v1/classify", {"model": "colour", "input": []}, 400, "the request has 0 texts"),
    ("/v1/classify", {"model": "colour", "input": ["a"] * 65}, 400, "65 texts: 1 to 64"),
    ("/v1/classify", {"model": "colour", "input": "a", "threshold": 2}, 400, "threshold"),
    ("/v1/classify", {"model": "colour", "input": "a", "path": "/etc/passwd"}, 400, "path: Extra inputs"),
    ("/v1/classify", {"model": "colour", "input": {"context": 3}}, 400, "row 1"),
    ("/v1/classify", {"model": "colour", "input": {"context": "\ud800"}}, 400, ""),
    ("/v1/classify", {"model": "text", "input": "a"}, 400, "no labels to choose from"),
    ("/v1/classify", b"{", 400, ""),
    ("/v1/classify", b"[" * 100_000, 400, ""),
    ("/v1/classify", b"\xff\xfe", 400, ""),
    ("/v1/completions", {"model": "text", "prompt": "a", "max_tokens": 10**400}, 400, "max_tokens"),
    ("/v1/completions", {"model": "text", "prompt": "a", "max_tokens": 513}, 400, "at most 512"),
    ("/v1/completions", {"model": "text", "prompt": "", "max_tokens": 3}, 400, "an empty prompt"),
    ("/v1/completions", {"model": "text", "prompt": [], "max_tokens": 3}, 400, "0 texts"),
    ("/v1/completions", {"model": "text", "prompt": [100_000]}, 400, "not one of the"),
    ("/v1/completions", {"model": "text", "prompt": "a" * 3000}, 400, "at most 2048"),
    ("/v1/completions", {"model": "text", "prompt": "\ud800"}, 400, "prompt"),
    ("/v1/completions", {"model": "text", "prompt": "a", "n": 2}, 400, "n:"),
    ("/v1/completions", {"model": "text", "prompt": "a", "stop": ""}, 400, "stop"),
    ("/v1/completions", {"model": "text", "prompt": "a", "logprobs": 1}, 400, "set echo to true"),
    ("/v1/completions", {"model": "text", "prompt": "a", "echo": True}, 400, "max_tokens is 0 or 1"),
    ("/v1/chat/completions", {"model": "text", "messages": []}, 400, "messages"),
    ("/v1/chat/completions", {"model": "text", "messages": [{"role": "assistant", "content": "a"}]}, 400, "the user's"),
    ("/v1/chat/completions", {"model": "span", "messages": [{"role": "user", "content": ""}]}, 400, "no context"),
    ("/v1/routers", {"name": "../routers/colour"}, 404, "no router of that name"),
    ("/v1/routers", {"name": "/etc"}, 404, "no router of that name"),
    ("/v1/other", {}, 404, "Not Found"),
    ("/health", {}, 405, "Method Not Allowed"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body", "status", "said"), BAD, ids=[f"{n}-{one[0]}" for n, one in enumerate(BAD)])
def test_what_is_wrong_with_a_request_is_said(served: Served, path: str, body: Any, status: int, said: str) -> None:
    if isinstance(body, dict) and body.get("max_tokens") == 10**400:
        body = b'{"model": "text", "prompt": "a", "max_tokens": 1' + b"0" * 400 + b"}"
    found, answer = served.ask("POST", path, body)
    assert found == status
    assert said in message(status, answer)


def test_limits_tokens_and_foreign_hosts(served: Served, tmp_path: Path, base: Base) -> None:
    status, answer = served.ask("POST", "/v1/classify", b'{"model": "' + b"a" * (1 << 20) + b'"}')
    assert "1048576 bytes" in message(status, answer)
    assert status == 413
    status, answer = served.ask("GET", "/v1/models", host="evil.example")
    assert status == 403
    for host in ("localhost", f"127.0.0.1:{served.port}", "[::1]:80"):
        assert served.ask("GET", "/v1/models", host=host)[0] == 200
    with serving(base, tmp_path, TOKEN) as guarded:
        assert guarded.ask("GET", "/v1/models", host="anything.example")[0] == 200
        for wrong in ("", "Bearer ", "Bearer " + TOKEN[:-1], TOKEN + "x", "Bearer \xe9"):
            assert guarded.ask("GET", "/metrics", authorization=wrong)[0] == 401
        assert guarded.ask("GET", "/health", authorization="")[0] == 200
    for host in ("0.0.0.0", "::", "192.168.1.2", "example.org"):
        with pytest.raises(ConfigError, match="need a token"):
            check_token(host, None)
        check_token(host, TOKEN)
    for host in ("127.0.0.1", "::1", "localhost", "127.0.0.2"):
        check_token(host, None)
    with pytest.raises(ConfigError, match="at least 16"):
        check_token("127.0.0.1", "short")


def test_a_full_queue_is_429_and_a_draining_server_503(base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(base, tmp_path, max_queue=2) as served:
        gate, real = threading.Event(), served.engine._take
        monkeypatch.setattr(served.engine, "_take", lambda: real() if gate.is_set() else time.sleep(0.01) or [])
        asked: Any = {"model": "colour", "input": TEXTS[:2]}
        answers: list[Any] = []
        first = threading.Thread(target=lambda: answers.append(served.ask("POST", "/v1/classify", asked)))
        first.start()
        while served.engine.waiting < 2:
            time.sleep(0.01)
        status, answer = served.ask("POST", "/v1/classify", asked)
        assert status == 429
        assert "2 rows wait of at most 2" in message(429, answer)
        assert not served.engine.drain(0.01)
        assert served.ask("GET", "/health") == (503, {"status": "draining"})
        assert "the server is stopping" in message(503, served.ask("POST", "/v1/classify", asked)[1])
        assert served.ask("POST", "/v1/completions", {"model": "text", "prompt": "a", "stream": True})[0] == 503
        gate.set()
        first.join(60)
        assert answers[0][0] == 200
        assert served.engine.drain(60)


def test_no_text_of_a_request_is_logged_not_even_by_a_failure(
    base: Base,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    secret = "xylophone in room 7"
    caplog.set_level(logging.DEBUG)
    with serving(base, tmp_path) as served:
        reader = "staf.serve.answers.Reader.label_row"
        for failing in (False, True):
            if failing:

                def fail(*arguments: Any) -> Any:
                    raise RuntimeError(f"cannot read {arguments[-1]}")

                monkeypatch.setattr(reader, fail)
            for path, body in (
                ("/v1/classify", {"model": "colour", "input": secret}),
                ("/v1/classify", {"model": "colour", "input": {"context": secret, "labels": secret}}),
                ("/v1/classify", {"model": "colour", "input": {secret: secret}}),
                ("/v1/classify", {"model": secret, "input": secret, secret: secret}),
                ("/v1/completions", {"model": "text", "prompt": secret, "stop": secret, "user": secret}),
                ("/v1/chat/completions", {"model": "text", "messages": [{"role": "user", "content": secret}], "stream": True}),
            ):  # fmt: skip
                status, answer = served.ask("POST", path, body)
                assert status != 500 or (
                    failing and answer["error"]["message"] == "an error of the server, which logged its kind."
                )
        numbers = str(served.ask("GET", "/metrics")[1])
    assert "RuntimeError in /v1/classify" in caplog.text
    printed = capfd.readouterr()
    for written in (caplog.text, printed.out, printed.err, numbers):
        assert "xylophone" not in written


def test_sigterm_answers_what_was_taken_and_ends_with_exit_code_0(tiny_folder: Path, tmp_path: Path, base: Base) -> None:
    write_routers(base, tmp_path)
    words = [
        sys.executable,
        "-m",
        "staf.cli",
        "serve",
        "--routers",
        str(tmp_path / "routers"),
        "--port",
        "0",
        "--dtype",
        "float32",
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        said = ""
        while not (found := re.search(r"listening on (http://127.0.0.1:(\d+))", said)):
            line = process.stderr.readline()
            assert line, said
            said += line
        with openai.OpenAI(base_url=f"{found[1]}/v1", api_key="none", max_retries=0) as client:
            stream = client.completions.create(model="text", prompt="the sky", max_tokens=400, stream=True, stop=["zzz"])
            parts = [next(iter(stream)).choices[0].text]
            process.send_signal(signal.SIGTERM)
            parts += [chunk.choices[0].text for chunk in stream]
        assert len("".join(parts)) > 10
        assert process.wait(60) == 0
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", int(found[2])), timeout=5).close()
        assert "the sky" not in said + process.stderr.read()


def test_a_server_that_others_reach_needs_a_token_before_anything_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="--token-file"):
        command_line(["serve", "--host", "0.0.0.0"], standalone_mode=False)
