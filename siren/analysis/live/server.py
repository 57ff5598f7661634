"""Serves the pages of runs: read only, to this machine only, newer documents as server-sent events.

    /                      the list of runs
    /events                newer lists
    /runs/NAME/            the page of a run, the same as its `report.html`
    /runs/NAME/events      newer documents of the run

Events are those of the HTML standard, section 9.2 (html.spec.whatwg.org, "Server-sent events").
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any

from siren.analysis import records
from siren.analysis.live.listing import Runs
from siren.analysis.page.document import run_document
from siren.analysis.page.html import page
from siren.analysis.page.source import RunReader
from siren.errors import MissingExtraError, RunFolderError, UsageError

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

HOST = "127.0.0.1"
HOSTS = (HOST, "localhost")
"""By what names a browser may ask: a page from elsewhere that has its name point here cannot read on."""

POLL_S = 0.4
"""How often files are looked at."""

BEAT_S = 15.0
"""A connection on which nothing happens says so this often, so that a lost one is found."""

HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

log = logging.getLogger(__name__)

Document = Mapping[str, Any]
Newer = Callable[[], Document | None]
"""Answers with a document if it is another one than the last, else None."""


def make_app(runs: Runs, ending: Callable[[], bool] = lambda: False) -> Starlette:
    """The application.

    Args:
        runs: What may be looked at.
        ending: Whether the server is about to end; streams end then.

    Raises:
        MissingExtraError: Starlette is not installed.
    """
    try:
        from starlette.applications import Starlette
        from starlette.concurrency import run_in_threadpool
        from starlette.exceptions import HTTPException
        from starlette.middleware import Middleware
        from starlette.middleware.trustedhost import TrustedHostMiddleware
        from starlette.responses import HTMLResponse, RedirectResponse, StreamingResponse
        from starlette.routing import Route
    except ImportError as error:
        raise MissingExtraError("starlette", "dash") from error

    def reader_of(request: Request) -> RunReader:
        path = runs.path(request.path_params["name"])
        if path is None:
            raise HTTPException(404, "there is no such run here: look at the list, /")
        try:
            return RunReader(path)
        except RunFolderError as error:
            raise HTTPException(500, str(error)) from error

    def show_runs(request: Request) -> Response:
        if runs.only:
            return RedirectResponse(f"/runs/{runs.only}/", headers=HEADERS)
        return HTMLResponse(page(runs.document(), live=True), headers=HEADERS)

    def show_run(request: Request) -> Response:
        try:
            document = run_document(reader_of(request).read())
        except RunFolderError as error:
            raise HTTPException(500, str(error)) from error
        return HTMLResponse(page(document, live=True), headers=HEADERS)

    def stream(newer: Newer) -> Response:
        events = _events(lambda: run_in_threadpool(newer), ending)
        return StreamingResponse(events, media_type="text/event-stream", headers=HEADERS)

    async def stream_runs(request: Request) -> Response:
        return stream(_other_lists(runs))

    async def stream_run(request: Request) -> Response:
        return stream(_newer_documents(await run_in_threadpool(reader_of, request)))

    return Starlette(
        routes=[
            Route("/", show_runs, methods=["GET"]),
            Route("/events", stream_runs, methods=["GET"]),
            Route("/runs/{name}/", show_run, methods=["GET"]),
            Route("/runs/{name}/events", stream_run, methods=["GET"]),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(HOSTS), www_redirect=False)],
    )


def serve(runs: Runs, listening: socket.socket) -> None:
    """Serves until a signal ends it.

    Args:
        runs: What may be looked at.
        listening: From `listen`.

    Raises:
        MissingExtraError: uvicorn or Starlette is not installed.
    """
    check_installed()
    import uvicorn

    server: uvicorn.Server | None = None
    app = make_app(runs, lambda: server is not None and server.should_exit)
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="warning",
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    server.run([listening])


def check_installed() -> None:
    """Refuses to go on without the packages that serve.

    Raises:
        MissingExtraError: uvicorn or Starlette is not installed.
    """
    for name in ("uvicorn", "starlette"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise MissingExtraError(name, "dash") from error


def listen(port: int) -> socket.socket:
    """A socket on this machine's own address.

    Args:
        port: 0 for any that is free.

    Raises:
        UsageError: The port cannot be had.
    """
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
    except (OSError, OverflowError) as error:
        listening.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"port {port} cannot be had ({reason}): give another --port, or 0") from error
    listening.listen()
    return listening


def _newer_documents(reader: RunReader) -> Newer:
    def newer() -> Document | None:
        return run_document(reader.read()) if reader.changed() else None

    return newer


def _other_lists(runs: Runs) -> Newer:
    last: Document = {}

    def newer() -> Document | None:
        nonlocal last
        document = runs.document()
        if document == last:
            return None
        last = document
        return document

    return newer


async def _events(newer: Callable[[], Any], ending: Callable[[], bool]) -> AsyncIterator[str]:
    """Each newer document as an event; the first one at once."""
    silent_s = 0.0
    while not ending():
        try:
            document = await newer()
        except RunFolderError as error:  # written to in this moment, perhaps
            log.warning("%s", error)
            document = None
        if document is not None:
            silent_s = 0.0
            yield f"data: {records.to_text(document)}\n\n"
        elif silent_s >= BEAT_S:
            silent_s = 0.0
            yield ": still here\n\n"
        await asyncio.sleep(POLL_S)
        silent_s += POLL_S
