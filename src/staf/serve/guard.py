"""What stands before every request: who may ask, how much is read, what is counted. Nothing of a body is logged."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import Message, Receive, Scope, Send

from staf.serve.metrics import Metrics
from staf.serve.requests import error_body
from staf.serve.settings import ServeSettings

ENDPOINTS = ("/health", "/metrics", "/v1/models", "/v1/classify", "/v1/completions", "/v1/chat/completions", "/v1/routers")
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
logger = logging.getLogger("staf.serve")


class Guard:
    """ASGI middleware.

    Args:
        token: that every request but GET /health must bear; None asks for none, and then only names of this machine are
            taken as the host, so that no page in a browser can reach the server under a name of its own.
    """

    def __init__(self, app: Any, settings: ServeSettings, metrics: Metrics, token: str | None) -> None:
        self._app, self._settings, self._metrics, self._token = app, settings, metrics, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            return
        started, status = time.perf_counter(), [500]

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                status[0] = message["status"]
            await send(message)

        try:
            refused, body = self._refused(scope), b""
            if refused is None:
                refused, body = await self._read(scope, receive)
            await (refused or self._after(body))(scope, receive, counted)
        except Exception as error:  # noqa: BLE001  the message may hold a text, so only the kind of error is logged
            logger.error("%s in %s", type(error).__name__, self._endpoint(scope))
            if status == [500]:
                await _refusal(500, "an error of the server, which logged its kind.")(scope, receive, counted)
        finally:
            self._metrics.request(self._endpoint(scope), status[0], time.perf_counter() - started)

    @staticmethod
    def _endpoint(scope: Scope) -> str:
        path = str(scope["path"])
        return path if path in ENDPOINTS else "/v1/routers" if path.startswith("/v1/routers/") else "other"

    def _refused(self, scope: Scope) -> JSONResponse | None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        if self._token is None:
            host = headers.get(b"host", "")
            name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
            return None if name in LOOPBACK else _refusal(403, "a server without a token answers on localhost only.")
        given = headers.get(b"authorization", "").removeprefix("Bearer ").encode()
        if scope["path"] == "/health" or hmac.compare_digest(given, self._token.encode()):
            return None
        return _refusal(401, "this server asks for its token: Authorization: Bearer TOKEN.")

    async def _read(self, scope: Scope, receive: Receive) -> tuple[JSONResponse | None, bytes]:
        """The body of a request, of at most `max_body` bytes."""
        most, parts, size = self._settings.max_body, list[bytes](), 0
        try:
            async with asyncio.timeout(self._settings.timeout):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return _refusal(400, "the request ended before its body did."), b""
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > most:
                        return _refusal(413, f"the request has more than the {most} bytes that are allowed."), b""
                    if not message.get("more_body"):
                        return None, b"".join(parts)
        except TimeoutError:
            return _refusal(408, "the body did not arrive in time."), b""

    def _after(self, body: bytes) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
        async def call(scope: Scope, receive: Receive, send: Send) -> None:
            given = [{"type": "http.request", "body": body, "more_body": False}]

            async def replayed() -> Message:
                return given.pop() if given else await receive()

            await self._app(scope, replayed, send)

        return call


def _refusal(status: int, message: str) -> JSONResponse:
    headers = {"connection": "close"} if status in (408, 413) else None
    return JSONResponse(error_body(status, message), status, headers)
