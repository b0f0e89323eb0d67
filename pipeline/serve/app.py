"""The application: the page, its files, the API, and errors in words; behind the guard."""

import asyncio
import logging
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from ... import __version__
from ...errors import CacheError, CheckpointError, TeachclipError, printable
from ...stages.search.serving.open_index import OpenIndex
from ...stages.search.serving.workbench import Busy, Workbench
from .access import Access
from .api import routes, told
from .guard import UPLOAD_BYTES, UPLOAD_SECONDS, Guard, failure

FOLDER = Path(__file__).parent
STATIC = {"app.js": "text/javascript", "app.css": "text/css", "icon.svg": "image/svg+xml"}
WRONG_TOKEN_SECONDS = 0.5
log = logging.getLogger("teachclip.serve")
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # what is wrong with an upload is answered


def application(
    index: OpenIndex | None,
    bench: Workbench,
    access: Access,
    lacking: TeachclipError | None = None,
    upload_bytes: int = UPLOAD_BYTES,
    upload_seconds: float = UPLOAD_SECONDS,
) -> Guard:
    """What a server runs.

    Args:
        index: what is asked; None where there is none yet.
        lacking: what the page says where there is none, or no model to ask with; by default what the index says.
        bench: opens videos.
        access: who may ask.
    """
    app = FastAPI(
        title="teachclip", version=__version__, docs_url=None, redoc_url=None, openapi_url="/api/openapi.json"
    )
    _errors(app)
    if index is not None:
        app.include_router(routes(index, bench))
    _pages(app, index, access, lacking or (index.lacking if index is not None else None))
    return Guard(app, access, upload_bytes, upload_seconds)


def _pages(app: FastAPI, index: OpenIndex | None, access: Access, lacking: TeachclipError | None) -> None:
    files = {name: (FOLDER / "static" / name).read_bytes() for name in STATIC}

    @app.get("/", include_in_schema=False)
    def page() -> HTMLResponse:
        shown: dict[str, Any] = {
            "lacking": None if lacking is None else told(lacking),
            "model": "" if index is None else printable(index.library.model.name),
            "videos": 0 if index is None else index.library.counts().get("ok", 0),
            "ready": index is not None,
            "tags": [] if index is None else index.library.tags(),
            "folders": [] if index is None else [printable(root) for root in index.library.roots()],
            "asks": index is not None and index.lacking is None,
            "guarded": access.token is not None,
        }
        return _rendered("index.html", **shown)

    @app.get("/static/{name}", include_in_schema=False)
    def static(name: str) -> Response:
        if name not in files:
            raise HTTPException(404, "there is no such page")
        return Response(files[name], media_type=STATIC[name], headers={"cache-control": "no-cache"})

    @app.get("/login", include_in_schema=False)
    def login() -> HTMLResponse:
        return _rendered("login.html", wrong=False)

    @app.post("/login", include_in_schema=False)
    async def enter(request: Request) -> Response:
        async with request.form(max_files=0, max_fields=2) as form:
            said = form.get("token")
        if not isinstance(said, str) or not access.is_token(said.strip()):
            await asyncio.sleep(WRONG_TOKEN_SECONDS)
            return _rendered("login.html", 401, wrong=True)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(access.cookie, access.session, httponly=True, samesite="strict", path="/")
        return answer

    @app.post("/logout", include_in_schema=False)
    def leave() -> Response:
        answer = RedirectResponse("/login", 303)
        answer.delete_cookie(access.cookie, httponly=True, samesite="strict", path="/")
        return answer


def _errors(app: FastAPI) -> None:
    @app.exception_handler(HTTPException)
    def refused(request: Request, error: HTTPException) -> JSONResponse:
        what = "there is no such page" if error.detail == "Not Found" else str(error.detail)
        return JSONResponse(failure(what), error.status_code, dict(error.headers or {}))

    @app.exception_handler(RequestValidationError)
    def not_understood(request: Request, error: RequestValidationError) -> JSONResponse:
        said = [f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors()]
        return JSONResponse(failure("; ".join(said)), 422)

    @app.exception_handler(TeachclipError)
    def ours(request: Request, error: TeachclipError) -> JSONResponse:
        unavailable = isinstance(error, CheckpointError | CacheError | Busy)
        return JSONResponse({"error": told(error)}, 503 if unavailable else 400)

    @app.exception_handler(ClientDisconnect)
    def gone(request: Request, error: ClientDisconnect) -> JSONResponse:
        return JSONResponse(failure("the request was broken off"), 400)

    @app.exception_handler(OSError)
    def disk(request: Request, error: OSError) -> JSONResponse:
        return JSONResponse(failure(f"the server's disk: {error.strerror or error}"), 507)

    @app.exception_handler(Exception)
    def unexpected(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse(failure("this should not happen; the server's terminal says more"), 500)


@cache
def _templates() -> Environment:
    loader = FileSystemLoader(FOLDER / "templates")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def _rendered(template: str, status: int = 200, **values: Any) -> HTMLResponse:
    return HTMLResponse(_templates().get_template(template).render(version=__version__, **values), status)
