"""A server in front of the S3 server that can be made to fail."""

import http.client
import http.server
import threading
from collections.abc import Callable


class Server(http.server.ThreadingHTTPServer):
    """Fails as `fault` says: a status to be answered; `gone`, `silent`, `short` (a part of the body), or `lost` (the
    answer to what was done); with `only`, at requests whose method and path it picks. `requests` are all of them."""

    daemon_threads, block_on_close, request_queue_size = True, False, 128

    def __init__(self, behind: int) -> None:
        super().__init__(("127.0.0.1", 0), Relay)
        self.behind = behind
        self.fault: int | str | None = None
        self.only: Callable[[str, str], bool] = lambda method, path: True
        self.requests: list[tuple[str, str]] = []
        self.asked, self.released = threading.Event(), threading.Event()


class Relay(http.server.BaseHTTPRequestHandler):
    """Passes requests on to the S3 server, or fails in the way that `server.fault` says."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.server.requests.append((self.command, self.path))
        fault = self.server.fault if self.server.only(self.command, self.path) else None
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length) if length else None
        if fault == "silent":
            self.server.asked.set()
            self.server.released.wait(200)
        if fault in ("silent", "gone"):
            self.close_connection = True
            return
        if isinstance(fault, int):
            self._answer(fault, b"<Error><Code>Fault</Code><Message>made up</Message></Error>")
            return
        to = http.client.HTTPConnection("127.0.0.1", self.server.behind, timeout=120)
        to.request(self.command, self.path, body, dict(self.headers))
        answer = to.getresponse()
        data = answer.read()
        to.close()
        if fault == "lost":
            self.close_connection = True
            return
        self._answer(answer.status, data, dict(answer.getheaders()), cut=fault == "short")

    do_HEAD = do_PUT = do_DELETE = do_GET

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None, cut: bool = False) -> None:
        self.send_response(status)
        kept = {k: v for k, v in (headers or {}).items() if k.lower() in ("etag", "content-range", "last-modified")}
        length = (headers or {}).get("Content-Length") or (headers or {}).get("content-length") or len(body)
        for name, value in {**kept, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass
