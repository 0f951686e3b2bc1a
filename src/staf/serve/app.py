"""The HTTP interface: which request does what."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from staf import __version__
from staf.errors import BadData, ConfigError, StafError, UnknownName
from staf.serve.asking import Asking
from staf.serve.guard import Guard
from staf.serve.metrics import Metrics
from staf.serve.requests import AddRouter, Classify, error_body
from staf.serve.routers import ServedModel
from staf.serve.settings import Unavailable
from staf.serve.texts import Texts


class Endpoints:
    """The endpoints that write no text."""

    def __init__(self, asking: Asking, metrics: Metrics) -> None:
        self._asking, self._metrics = asking, metrics

    async def health(self) -> JSONResponse:
        """Whether requests are taken: 200, or 503 while the server stops."""
        draining = self._asking.engine.draining
        return JSONResponse({"status": "draining" if draining else "ok"}, 503 if draining else 200)

    async def metrics(self) -> Response:
        """Numbers for Prometheus."""
        return Response(self._metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def models(self) -> dict[str, Any]:
        """The base and the routers."""
        return {"object": "list", "data": [_described(model) for model in self._asking.models.listed()]}

    async def classify(self, body: Classify) -> dict[str, Any]:
        """Labels with their probabilities for each text; below the threshold none is answered."""
        model, given = self._asking.models.find(body.model), body.input if isinstance(body.input, list) else [body.input]
        self._asking.check_rows(len(given))
        if not model.has_labels:
            raise BadData("this model has no labels to choose from. Give a router of labels, or use /v1/chat/completions.")
        found, tokens = await self._asking.labels(model, given, body.threshold)
        data = [{"object": "classification", "index": index, **answer} for index, answer in enumerate(found)]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return {"object": "list", "model": body.model, "data": data, "usage": usage}

    def add_router(self, body: AddRouter) -> dict[str, Any]:
        """Load a router of the server's folder, or load it anew."""
        (model,) = self._asking.models.add(body.name)
        return _described(model)

    def remove_router(self, name: str) -> dict[str, Any]:
        """Serve a router no more."""
        self._asking.models.remove(name)
        return {"id": name, "object": "model", "deleted": True}


def create_app(asking: Asking, metrics: Metrics, token: str | None = None) -> FastAPI:
    """The application of a server.

    Args:
        token: that requests must bear; None answers this machine only.
    """
    engine, models = asking.engine, asking.models
    metrics.gauge("staf_rows_waiting", "Rows that wait.", lambda: engine.waiting)
    metrics.gauge("staf_routers", "Routers in memory.", lambda: len(models.listed()) - 1)
    app = FastAPI(title="staf serve", version=__version__, docs_url=None, redoc_url=None)
    own, texts = Endpoints(asking, metrics), Texts(asking)
    app.add_api_route("/health", own.health, methods=["GET"])
    app.add_api_route("/metrics", own.metrics, methods=["GET"])
    app.add_api_route("/v1/models", own.models, methods=["GET"])
    app.add_api_route("/v1/classify", own.classify, methods=["POST"])
    app.add_api_route("/v1/completions", texts.completions, methods=["POST"], response_model=None)
    app.add_api_route("/v1/chat/completions", texts.chat, methods=["POST"], response_model=None)
    app.add_api_route("/v1/routers", own.add_router, methods=["POST"], status_code=201)
    app.add_api_route("/v1/routers/{name}", own.remove_router, methods=["DELETE"])
    app.add_exception_handler(StafError, _failed)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _refused)
    app.add_middleware(Guard, settings=asking.settings, metrics=metrics, token=token)
    return app


def _described(model: ServedModel) -> dict[str, Any]:
    described = {"id": model.name, "object": "model", "created": model.created, "owned_by": "staf"}
    if model.prompt is None:
        return described
    return {**described, "task": model.task, "output_type": model.prompt.output_type, "labels": model.prompt.labels}


async def _failed(_: Request, error: Exception) -> JSONResponse:
    status, headers = 409, None  # a router or expert that cannot be used
    if isinstance(error, Unavailable):
        status, headers = error.status, {"retry-after": "1"}
    elif isinstance(error, UnknownName):
        status = 404
    elif isinstance(error, BadData | ConfigError):
        status = 400
    return JSONResponse(error_body(status, str(error)), status, headers)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    """What is wrong with a request, by the names of its fields, without their values."""
    found = error.errors() if isinstance(error, RequestValidationError) else []
    problems = [f"{'.'.join(str(part) for part in one['loc'][1:3])[:100]}: {one['msg']}" for one in found[:5]]
    return JSONResponse(error_body(400, "; ".join(problems)), 400)


async def _refused(_: Request, error: Exception) -> JSONResponse:
    status = error.status_code if isinstance(error, HTTPException) else 400
    detail = str(error.detail) if isinstance(error, HTTPException) else "the request cannot be read"
    return JSONResponse(error_body(status, detail), status, getattr(error, "headers", None))
