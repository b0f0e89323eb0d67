"""What stands before every answer: `Access`, limits of bodies, headers that make browsers careful."""

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.exceptions import HTTPException

from .access import Access, Refusal

type Message = MutableMapping[str, Any]
type Receive = Callable[[], Awaitable[Message]]
type Send = Callable[[Message], Awaitable[None]]
type App = Callable[[Message, Receive, Send], Awaitable[None]]

UPLOAD = "/api/search/clip"
UPLOAD_BYTES, UPLOAD_SECONDS = 128 << 20, 120.0
BODY_BYTES, BODY_SECONDS = 64 << 10, 10.0
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
)


class Guard:
    """Wraps an application.

    Args:
        app: answers what is let through.
        access: decides that.
        upload_bytes, upload_seconds: limits of a clip that is handed in; other bodies have smaller ones.
    """

    def __init__(
        self, app: App, access: Access, upload_bytes: int = UPLOAD_BYTES, upload_seconds: float = UPLOAD_SECONDS
    ) -> None:
        self.app, self.access = app, access
        self.upload = (upload_bytes, upload_seconds)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        careful = _with_headers(send)
        most, seconds = self.upload if scope["path"] == UPLOAD else (BODY_BYTES, BODY_SECONDS)
        refusal = self.access.refuses(scope["method"], scope["path"], headers) or _too_long(headers, most)
        if refusal is None:
            await self.app(scope, _limited(receive, most, seconds), careful)
        elif refusal.status == 401 and scope["path"] == "/":
            await _respond(careful, 303, b"", (b"location", b"/login"))
        else:
            await _refuse(careful, refusal)


def failure(what: str, hint: str | None = None) -> dict[str, Any]:
    """What every answer that is an error holds."""
    return {"error": {"what": what, "hint": hint}}


def _too_long(headers: dict[str, list[str]], most: int) -> Refusal | None:
    for length in headers.get("content-length", []):
        if not length.isascii() or not length.isdigit() or int(length) > most:
            return _too_large(most)
    return None


def _too_large(most: int) -> Refusal:
    size = f"{most >> 20} MB" if most >= 1 << 20 else f"{most >> 10} kB"
    return Refusal(413, f"this is larger than the {size} that are taken")


def _limited(receive: Receive, most: int, seconds: float) -> Receive:
    """The body as it comes, as long as it is neither too large nor too slow."""
    got, complete, end = 0, False, asyncio.get_running_loop().time() + seconds

    async def limited() -> Message:
        nonlocal got, complete
        if complete:
            return await receive()  # tells when the reader has gone
        try:
            async with asyncio.timeout_at(end):
                message = await receive()
        except TimeoutError:
            raise HTTPException(408, f"the request did not arrive within {seconds:g} seconds") from None
        got += len(message.get("body", b""))
        if got > most:
            raise HTTPException(413, _too_large(most).what)
        complete = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    return limited


def _with_headers(send: Send) -> Send:
    async def careful(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = list(message.get("headers", ()))
            names = {name.lower() for name, _ in given}
            if b"cache-control" not in names:
                given.append((b"cache-control", b"no-store"))
            if message["status"] in (408, 413):  # the rest of the body is not waited for
                given.append((b"connection", b"close"))
            message = {**message, "headers": [*given, *HEADERS]}
        await send(message)

    return careful


async def _refuse(send: Send, refusal: Refusal) -> None:
    body = json.dumps(failure(refusal.what, refusal.hint)).encode()
    more = ((b"www-authenticate", b"Bearer"),) if refusal.status == 401 else ()
    await _respond(send, refusal.status, body, (b"content-type", b"application/json"), *more)


async def _respond(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
