"""The server: a socket at an address, and a loop that answers until it is stopped."""

import asyncio
import errno
import os
import secrets
import socket
import stat
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ...errors import ConfigError
from .access import LOOPBACK

HEAD_SECONDS = 10.0  # that the lines before a request's body may take
CONNECTIONS = 256
TOKEN_LEAST = 16  # letters
ANYWHERE = ("0.0.0.0", "::", "")


class PatientProtocol(H11Protocol):
    """HTTP whose reader does not wait for ever for a request's first lines."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.access_log = False  # whatever loggers somebody has set up
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop()
        elif self._late is None:
            self._wait()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle is None or self.cycle.response_complete:
            self._stop()  # what is quiet now has uvicorn's own limit

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._late = self.loop.call_later(HEAD_SECONDS, self._close)

    def _stop(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _close(self) -> None:
        self._late = None
        if self.transport is not None:
            self.transport.close()


def bound(address: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        ConfigError: the port is in use or not for us, the address is none of this machine's.
    """
    try:
        found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise ConfigError("there is no such address", where=f"--host {address}", hint=str(error)) from None
    family, kind, protocol, _, place = found[0]
    made = socket.socket(family, kind, protocol)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(place)
        made.listen(128)
    except OSError as error:
        made.close()
        raise _not_bound(error, address, port) from None
    return made


def _not_bound(error: OSError, address: str, port: int) -> ConfigError:
    if error.errno == errno.EADDRINUSE:
        hint = f"end what listens there, or take another one: --port {port + 1 if port < 65535 else port - 1}"
        return ConfigError("this port is in use", where=f"{address}:{port}", hint=hint)
    if error.errno == errno.EADDRNOTAVAIL:
        return ConfigError("this is no address of this machine", where=f"--host {address}")
    if error.errno in (errno.EACCES, errno.EPERM):
        return ConfigError("this port is not for you", where=f"--port {port}", hint="take one above 1023")
    return ConfigError(f"nothing can listen there: {error.strerror}", where=f"{address}:{port}")


def server(app: Any) -> uvicorn.Server:
    """Runs the application; `run(sockets=[bound(...)])` returns when it is stopped. It logs no requests."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=PatientProtocol,
            ws="none",
            lifespan="off",
            loop="asyncio",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=CONNECTIONS,
            timeout_keep_alive=20,
            timeout_graceful_shutdown=2,
            h11_max_incomplete_event_size=32 << 10,
        )
    )


def token_of(address: str, file: Path | None) -> str | None:
    """The token of a file, which is made, for its owner alone, where there is none; None without a file.

    Raises:
        ConfigError: others than this machine may ask, and there is no file; it can be read by others, or is too short.
    """
    if file is None:
        if address in LOOPBACK:
            return None
        what = "others may ask at this address, so it takes a token"
        raise ConfigError(
            what, where=f"--host {address}", hint="--token-file FILE: it is read, or made where there is none"
        )
    try:
        made = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        return _read_token(file)
    except OSError as error:
        raise ConfigError(f"no token can be written there: {error.strerror}", where=f"--token-file {file}") from None
    with os.fdopen(made, "w", encoding="ascii") as opened:
        token = secrets.token_urlsafe(32)
        opened.write(f"{token}\n")
    return token


def _read_token(file: Path) -> str:
    try:
        found = file.stat()
        if stat.S_IMODE(found.st_mode) & 0o077:
            raise ConfigError("others can read this token", where=str(file), hint=f"chmod 600 {file}")
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"this token cannot be read: {error}", where=str(file)) from None
    if len(token) < TOKEN_LEAST:
        raise ConfigError(
            f"this token is shorter than {TOKEN_LEAST} letters", where=str(file), hint="delete it: one is made"
        )
    return token


def names_of(address: str, names: list[str]) -> list[str]:
    """The further names of a server.

    Raises:
        ConfigError: it listens everywhere, and no name says what it is asked for by.
    """
    if address in ANYWHERE and not names:
        what = "a server that listens everywhere must know its own name"
        raise ConfigError(what, where=f"--host {address}", hint="--name NAME, as it stands in the browser's address")
    return names
