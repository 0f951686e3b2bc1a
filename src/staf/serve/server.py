"""The process of a server: what it is started with, and how it stops: SIGTERM lets what was taken be answered."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from threading import Thread
from types import FrameType
from typing import Any

import uvicorn

from staf.errors import ConfigError, MissingData
from staf.log import Log
from staf.serve.app import create_app
from staf.serve.asking import Asking
from staf.serve.engine import Engine
from staf.serve.metrics import Metrics
from staf.serve.routers import Models
from staf.serve.settings import ServeSettings
from staf.stages.context import Context

LEAST_TOKEN = 16
"""Characters of a token."""
SEND_TIMEOUT = 10
"""Seconds that answers get to be sent in once the engine has stopped."""


class Server(uvicorn.Server):
    """Drains the engine at the first signal, and stops at once at the second."""

    def __init__(self, config: uvicorn.Config, engine: Engine, log: Log) -> None:
        super().__init__(config)
        self._engine, self._log, self._drainer = engine, log, Thread(target=self._drain, daemon=True)

    async def startup(self, sockets: Any = None) -> None:
        """Listen, and say where."""
        await super().startup(sockets)
        for server in self.servers[:1]:
            host, port = server.sockets[0].getsockname()[:2]
            self._log(f"listening on http://{f'[{host}]' if ':' in host else host}:{port}/v1")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take no new request, answer those that were taken, then exit."""
        if self._drainer.ident is not None:
            self.should_exit = self.force_exit = True
        else:
            self._drainer.start()

    def _drain(self) -> None:
        self._log("stopping: requests that were taken are answered")
        if not self._engine.drain(self._engine.settings.drain_timeout):
            self._log("some of them had no answer in time")
        self.should_exit = True


def serve(
    context: Context, settings: ServeSettings, *, routers: Path | None, experts: Path | None, host: str, port: int,
    token: str | None,
) -> None:  # fmt: skip
    """Serve the routers of a folder, and the base, until SIGTERM or an interruption.

    Args:
        experts: their folder; None is where each router's were when it was made.
        token: that requests must bear; needed where `host` is not this machine's loopback.

    Raises:
        MissingData: there is no such folder. ConfigError: no token. Others as `Models.add`.
    """
    check_token(host, token)
    if routers is not None and not routers.is_dir():
        raise MissingData(f"no folder {routers} of routers. Give one whose subfolders are routers, as staf adapt --out writes.")
    metrics, log = Metrics(), context.progress.log
    engine = Engine(context.base, settings, metrics)
    try:
        models = Models(engine, routers, experts)
        log(f"{len(models.add(*models.available()))} routers in memory")
        config = uvicorn.Config(
            create_app(Asking(engine, models, settings), metrics, token), host, port, log_level="warning", access_log=False,
            lifespan="off", ws="none", server_header=False, limit_concurrency=settings.max_queue + 128,
            timeout_graceful_shutdown=SEND_TIMEOUT,
        )  # fmt: skip
        Server(config, engine, log).run()
    finally:
        engine.close()


def check_token(host: str, token: str | None) -> None:
    """Raise ConfigError where a server that others can reach has no token, or a short one."""
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if token is None and not loopback:
        raise ConfigError(
            f"--host {host} can be reached from other machines: requests need a token then. Write one into a file "
            "(python -c 'import secrets; print(secrets.token_urlsafe())') and give it with --token-file."
        )
    if token is not None and (len(token) < LEAST_TOKEN or not token.isascii() or not token.isprintable()):
        raise ConfigError(f"a token has at least {LEAST_TOKEN} printable ASCII characters.")
