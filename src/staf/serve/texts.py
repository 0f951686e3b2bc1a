"""Completions and chats: what OpenAI's clients ask for and read, at once or as a stream."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import Any

from starlette.responses import StreamingResponse

from staf.data.answers import NONE
from staf.errors import BadData
from staf.lm.generation import decoded
from staf.lm.scoring import TokenLogprobs
from staf.routing.store import SEPARATOR
from staf.serve.answers import final_text, finish_reason
from staf.serve.asking import Asking
from staf.serve.engine import Generation
from staf.serve.requests import Chat, Completion, Written, error_body
from staf.serve.routers import ServedModel
from staf.serve.stream import TextStream

COMPLETION_TOKENS, CHAT_TOKENS = 16, 256
"""Of a text whose request names no number."""
Response = dict[str, Any] | StreamingResponse


class Texts:
    """The endpoints that write texts."""

    def __init__(self, asking: Asking) -> None:
        self._asking, self._reader, self._base = asking, asking.reader, asking.reader.base

    async def completions(self, body: Completion) -> Response:
        """The text after each prompt, which is read as it is; with echo the prompts and their log-probabilities."""
        model, prompts = self._asking.models.find(body.model), body.prompts
        self._asking.check_rows(len(prompts))
        limit = COMPLETION_TOKENS if body.max_tokens is None else body.max_tokens
        tokens = await self._asking.reading(lambda: [p if isinstance(p, list) else self._reader.tokens_of(p) for p in prompts])
        if body.echo:
            return await self._echoed(body, model, tokens, limit)
        if body.logprobs is not None or not limit:
            raise BadData("logprobs and max_tokens 0 are for the tokens of a prompt: set echo to true.")
        works = [self._reader.text(model, prompt, limit, body.stops) for prompt in tokens]

        def choice(index: int, text: str, reason: str | None) -> dict[str, Any]:
            return {"index": index, "text": text, "logprobs": None, "finish_reason": reason}

        head = _head("cmpl", "text_completion", body)
        if body.stream:
            return self._stream(works, body, head, choice, strip=False)
        answers = await self._asking.answers(works)
        choices = [
            choice(index, *self._finished(work, found)) for index, (work, found) in enumerate(zip(works, answers, strict=True))
        ]
        return {**head, "choices": choices, "usage": _usage(works)}

    async def chat(self, body: Chat) -> Response:
        """The answer to a chat: of the base by its chat template, of a router to the last message."""
        model, messages = self._asking.models.find(body.model), body.messages
        limit = body.max_completion_tokens or body.max_tokens
        if limit == 0:
            raise BadData("max_tokens 0 writes nothing.")
        if model.prompt is not None and messages[-1].role != "user":
            raise BadData("a router answers the last message, which must be the user's.")
        head = _head("chatcmpl", "chat.completion.chunk" if body.stream else "chat.completion", body)
        if model.has_labels:
            return await self._label_chat(body, model, head)

        def work() -> Generation:
            if model.prompt is not None:
                return self._reader.task_text(model, messages[-1].text, limit, body.stops)
            prompt = self._reader.chat_tokens([{"role": message.role, "content": message.text} for message in messages])
            return self._reader.text(model, prompt, limit or min(CHAT_TOKENS, self._asking.settings.max_new_tokens), body.stops)

        works = [await self._asking.reading(work)]
        if body.stream:
            return self._stream(works, body, head, _delta, strip=model.prompt is not None)
        (found,) = await self._asking.answers(works)
        return {
            **head,
            "choices": [_message(*self._finished(works[0], found, model.prompt is not None))],
            "usage": _usage(works),
        }

    async def _label_chat(self, body: Chat, model: ServedModel, head: dict[str, Any]) -> Response:
        """A router's label or labels, as a message."""
        ((found,), tokens) = await self._asking.labels(model, [body.messages[-1].text], None)
        text = found["answer"] if isinstance(found["answer"], str) else SEPARATOR.join(found["answer"]) or NONE
        if not body.stream:
            return {**head, "choices": [_message(text, "stop")], "usage": _counted(tokens, 0)}

        async def parts() -> AsyncIterator[bytes]:
            yield _event({**head, "choices": [_delta(0, text, None)]})
            yield _event({**head, "choices": [_delta(0, "", "stop")]})
            if body.stream_options is not None and body.stream_options.include_usage:
                yield _event({**head, "choices": [], "usage": _counted(tokens, 0)})
            yield DONE

        return StreamingResponse(parts(), media_type="text/event-stream")

    def _finished(self, work: Generation, tokens: Sequence[int], strip: bool = False) -> tuple[str, str]:
        text = final_text(self._base, work, tokens)
        return text.strip() if strip else text, finish_reason(self._base, work, tokens)

    def _stream(
        self, works: list[Generation], body: Written, head: dict[str, Any],
        choice: Callable[[int, str, str | None], dict[str, Any]], strip: bool,
    ) -> StreamingResponse:  # fmt: skip
        """The works as they are written; they are queued before this returns, so that a refusal has its status."""
        loop, changed = asyncio.get_running_loop(), asyncio.Event()

        def notify(_: Any = None) -> None:
            with suppress(RuntimeError):  # the loop is closed, and nobody reads
                loop.call_soon_threadsafe(changed.set)

        for work in works:
            work.on_step = notify
        self._asking.engine.submit(works)
        for work in works:
            work.future.add_done_callback(notify)
        streams = [TextStream(work.stop, strip) for work in works]

        async def parts() -> AsyncIterator[bytes]:
            left = list(range(len(works)))
            try:
                while left:
                    await changed.wait()
                    changed.clear()
                    for index in list(left):
                        work = works[index]
                        if not work.future.done():
                            if work.constraint is None and (part := streams[index].more(decoded(self._base, [*work.answer]))):
                                yield _event({**head, "choices": [choice(index, part, None)]})
                            continue
                        left.remove(index)
                        if (error := work.future.exception()) is not None:
                            yield _event(error_body(503, str(error) if isinstance(error, BadData) else "no answer in time."))
                            return
                        text, reason = self._finished(work, work.future.result(), strip)
                        yield _event({**head, "choices": [choice(index, streams[index].last(text), reason)]})
                if body.stream_options is not None and body.stream_options.include_usage:
                    yield _event({**head, "choices": [], "usage": _usage(works)})
                yield DONE
            finally:
                for work in works:
                    work.abandoned = True

        return StreamingResponse(parts(), media_type="text/event-stream")

    async def _echoed(self, body: Completion, model: ServedModel, prompts: list[list[int]], limit: int) -> Response:
        """Prompts with the log-probabilities of their tokens, and the likeliest token after each where one is asked for."""
        if limit > 1 or body.stream or body.stops:
            raise BadData("with echo, max_tokens is 0 or 1, and there is no stream or stop.")
        works = [self._reader.prompt_scores(model, prompt) for prompt in prompts]
        found = await self._asking.answers(works)
        choices = [
            {"index": index, "finish_reason": "length", **self._logprobs(prompt, own, limit, body.logprobs)}
            for index, (prompt, own) in enumerate(zip(prompts, found, strict=True))
        ]
        usage = _counted(sum(map(len, prompts)), limit * len(prompts))
        return {**_head("cmpl", "text_completion", body), "choices": choices, "usage": usage}

    def _logprobs(self, prompt: list[int], found: TokenLogprobs, limit: int, logprobs: int | None) -> dict[str, Any]:
        ids = [*prompt, int(found.best[-1])] if limit else prompt
        text, words = (self._base.tokenizer.decode(ids)), [self._base.tokenizer.decode([token]) for token in ids]
        if logprobs is None:
            return {"text": text, "logprobs": None}
        own = [None, *found.own.tolist(), *found.best_logprobs[-1:].tolist()][: len(ids)]
        best, values = found.best.tolist(), found.best_logprobs.tolist()
        tops: list[Any] = [None]
        for position in range(len(ids) - 1):
            likeliest = self._base.tokenizer.decode([best[position]])
            tops.append({words[position + 1]: own[position + 1], likeliest: values[position]} if logprobs else {})
        offsets = [0]
        for word in words[:-1]:
            offsets.append(offsets[-1] + len(word))
        return {
            "text": text,
            "logprobs": {"tokens": words, "token_logprobs": own, "top_logprobs": tops, "text_offset": offsets},
        }


DONE = b"data: [DONE]\n\n"


def _head(prefix: str, kind: str, body: Written) -> dict[str, Any]:
    return {"id": f"{prefix}-{secrets.token_hex(12)}", "object": kind, "created": int(time.time()), "model": body.model}


def _event(value: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(value)}\n\n".encode()


def _delta(index: int, text: str, reason: str | None) -> dict[str, Any]:
    return {"index": index, "delta": {"role": "assistant", "content": text}, "logprobs": None, "finish_reason": reason}


def _message(text: str, reason: str) -> dict[str, Any]:
    return {"index": 0, "message": {"role": "assistant", "content": text}, "logprobs": None, "finish_reason": reason}


def _usage(works: Sequence[Generation]) -> dict[str, int]:
    return _counted(sum(len(work.prompt) for work in works), sum(len(work.answer) for work in works))


def _counted(prompt: int, written: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}
