"""staf serve."""

from __future__ import annotations

from pathlib import Path

from staf.cli.options import RUNS, overrides
from staf.cli.printing import Terminal


def serve(
    *, routers: Path | None = None, experts: Path | None = None, host: str = "127.0.0.1", port: int = 8000,
    token_file: Path | None = None, base: str | None = None, dtype: str | None = None, override: list[str] | None = None,
    list_options: bool = False,
) -> None:  # fmt: skip
    """Answer over HTTP: one base and the routers of a folder in memory, for OpenAI's clients and for labels.

    SIGTERM or Ctrl-C: requests that were taken are answered, then it ends. docs/serving.md has the requests.
    """
    from staf.config import parse
    from staf.errors import MissingData
    from staf.routing.store import load_router
    from staf.serve.settings import ServeSettings
    from staf.stages.context import Context

    try:
        from staf.serve.server import serve as run
    except ImportError as error:
        raise MissingData(f"staf serve needs the package {error.name}: pip install 'staf-llm[serve]'") from error
    settings = parse(ServeSettings, overrides(override), "staf serve")
    if token_file is not None and not token_file.is_file():
        raise MissingData(f"no file {token_file}. Check the path.")
    token = None if token_file is None else token_file.read_text(encoding="utf-8").strip()
    if base is None and routers is not None and (first := next(routers.glob("*/router.json"), None)) is not None:
        base = load_router(first.parent).base["name"]
    context = Context(base, None, RUNS, Terminal(), dtype=dtype)
    run(context, settings, routers=routers, experts=experts, host=host, port=port, token=token)
