"""Requests that mean harm, each with its answer; the server goes on after every one."""

import socket
import threading
import time
from typing import Any
from urllib.parse import urlencode

import pytest
from teachclip.pipeline.serve import server as server_module
from teachclip.pipeline.serve.access import Access
from teachclip.pipeline.serve.guard import POLICY

from .conftest import NASTY, TOKEN, Served, Shelf, multipart, serving

SAID = {"Authorization": f"Bearer {TOKEN}"}
FORM = {"Content_Type": "application/x-www-form-urlencoded"}
SENT = {**SAID, "Content_Type": "multipart/form-data; boundary=edge"}
UPLOAD, VIDEO, TAGS = "/api/search/clip", "/api/windows/1/video", "/api/windows/1/tags"
NO_CLIP = multipart(b"<html>no</html>")
EVIL = {**SAID, "Origin": "http://evil.example"}
RAW = ("Content-Type: multipart/form-data; boundary=edge", f"Authorization: Bearer {TOKEN}")


def raw(port: int, request: bytes, slowly: float = 0.0, seconds: float = 120.0) -> bytes:
    """What comes back for these bytes until the server closes, or an answer is whole; TimeoutError when it is quiet."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        for k in range(0, len(request), 1 if slowly else len(request) or 1):
            try:
                connection.sendall(request[k : k + (1 if slowly else len(request))])
            except ConnectionError:
                break
            if slowly:
                time.sleep(slowly)
        got = b""
        try:
            while part := connection.recv(65536):
                got += part
                if b"\r\n\r\n" in got and b"}" in got:
                    break
        except ConnectionError:
            pass
        return got


def head(path: str, *lines: str, method: str = "GET", host: str | None = None, port: int = 0) -> bytes:
    given = [f"{method} {path} HTTP/1.1", *([f"Host: {host or f'127.0.0.1:{port}'}"] if host != "" else []), *lines]
    return ("\r\n".join(given) + "\r\n\r\n").encode("latin-1")


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


# what it is called, method, path, headers, body, answer, part of what is said
TABLE: list[tuple[str, str, str, dict[str, str], bytes | None, int, str]] = [
    ("no token", "GET", "/api/search?q=a", {}, None, 401, "wants its token"),
    ("a wrong token", "GET", "/api/info", {"Authorization": "Bearer nothing"}, None, 401, "token"),
    ("an empty token", "GET", "/api/info", {"Authorization": "Bearer "}, None, 401, "token"),
    ("the token as a password", "GET", "/api/info", {"Authorization": f"Basic {TOKEN}"}, None, 401, "token"),
    ("the token in the address", "GET", f"/api/info?token={TOKEN}", {}, None, 401, "token"),
    ("the token itself as a cookie", "GET", "/api/info", {"Cookie": f"teachclip={TOKEN}"}, None, 401, "token"),
    ("a token that is no ASCII", "GET", "/api/info", {"Authorization": "Bearer \xe9"}, None, 401, "token"),
    ("a cookie that is none", "GET", "/api/info", {"Cookie": "[]=;;\x01="}, None, 401, "token"),
    ("media without a token", "GET", VIDEO, {}, None, 401, "token"),
    ("another Host (DNS rebinding)", "GET", "/api/info", {**SAID, "Host": "evil.example"}, None, 421, "name"),
    ("another port in Host", "GET", "/api/info", {**SAID, "Host": "127.0.0.1:1"}, None, 421, "name"),
    ("an empty Host", "GET", "/api/info", {**SAID, "Host": ""}, None, 421, "name"),
    ("a Host that ends in ours", "GET", "/", {**SAID, "Host": "evil.example/127.0.0.1"}, None, 421, "name"),
    ("an upload from another site", "POST", UPLOAD,
     {**SENT, **EVIL}, multipart(b"x"), 403, "another site"),
    ("an upload from a sandbox", "POST", UPLOAD, {**SENT, "Origin": "null"},
     multipart(b"x"), 403, "another site"),
    ("an upload that a browser calls foreign", "POST", UPLOAD,
     {**SENT, "Sec_Fetch_Site": "cross-site"}, multipart(b"x"), 403, "another site"),
    ("a log-in from another site", "POST", "/login", {**FORM, "Origin": "https://evil.example"},
     urlencode({"token": TOKEN}).encode(), 403, "another site"),
    ("a log-out from another site", "POST", "/logout", {**SAID, "Origin": "http://127.0.0.1.evil.example"}, b"", 403,
     "another site"),
    ("a tag from another site", "PUT", f"{TAGS}?tag=x", EVIL, b"", 403, "another site"),
    ("a tag taken by what a browser calls foreign", "DELETE", f"{TAGS}?tag=x",
     {**SAID, "Sec_Fetch_Site": "same-site"}, None, 403, "another site"),
    ("a tag without a token", "PUT", f"{TAGS}?tag=x", {}, b"", 401, "token"),
    ("a tag to another Host", "DELETE", f"{TAGS}?tag=x", {**SAID, "Host": "evil.example"}, None, 421, "name"),
    ("a tag by a form", "POST", f"{TAGS}?tag=x", {**SAID, **FORM}, b"tag=x", 405, "Method"),
    ("a tag by a link", "GET", f"{TAGS}?tag=x", SAID, None, 405, "Method"),
    ("a tag that is too long", "PUT", f"{TAGS}?tag={'x' * 5000}", SAID, b"", 422, "tag"),
    ("a tag with a zero byte", "PUT", f"{TAGS}?tag=a%00b", SAID, b"", 400, "one line"),
    ("traversal by a row", "GET", "/api/windows/..%2f..%2fetc%2fpasswd/video", SAID, None, 404, "no such page"),
    ("traversal in a row", "GET", "/api/windows/../../../etc/passwd", SAID, None, 404, "no such page"),
    ("traversal of static files", "GET", "/static/..%2f..%2fapp.py", SAID, None, 404, "no such page"),
    ("static files by dots", "GET", "/static/../app.py", SAID, None, 404, "no such page"),
    ("a static file of another name", "GET", "/static/app.py", SAID, None, 404, "no such page"),
    ("a row of words", "GET", "/api/windows/one/video", SAID, None, 422, "row"),
    ("a row below one", "GET", "/api/windows/-1/video", SAID, None, 422, "row"),
    ("a row beyond SQLite", "GET", f"/api/windows/{10**30}/video", SAID, None, 422, "row"),
    ("a row that is not there", "GET", f"/api/windows/{2**63 - 1}/video", SAID, None, 404, "no such window"),
    ("more like what is not there", "GET", "/api/windows/999/like", SAID, None, 404, "no such window"),
    ("a path for a row", "GET", "/api/windows/%2Fetc%2Fpasswd", SAID, None, 404, "no such page"),
    ("SQL for a row", "GET", "/api/windows/1%20OR%201=1", SAID, None, 422, "row"),
    ("a range behind the end", "GET", VIDEO, {**SAID, "Range": "bytes=999999999-"}, None, 416, "part"),
    ("a range backwards", "GET", VIDEO, {**SAID, "Range": "bytes=9-1"}, None, 416, "part"),
    ("many ranges", "GET", VIDEO, {**SAID, "Range": "bytes=0-1,2-3"}, None, 416, "part"),
    ("a range of nothing", "GET", VIDEO, {**SAID, "Range": "bytes=-0"}, None, 416, "part"),
    ("a range without numbers", "GET", VIDEO, {**SAID, "Range": "bytes=-"}, None, 416, "part"),
    ("a range of other units", "GET", VIDEO, {**SAID, "Range": "lines=1-2"}, None, 416, "part"),
    ("a range of huge numbers", "GET", VIDEO, {**SAID, "Range": f"bytes={10**40}-"}, None, 416, "part"),
    ("too many answers", "GET", "/api/search?q=a&top=1000000", SAID, None, 422, "top"),
    ("no answers", "GET", "/api/search?q=a&top=0", SAID, None, 422, "top"),
    ("an empty sentence", "GET", "/api/search?q=", SAID, None, 422, "q"),
    ("a sentence of blanks", "GET", "/api/search?q=%20%20", SAID, None, 400, "empty sentence"),
    ("a very long sentence", "GET", f"/api/search?q={'a' * 5000}", SAID, None, 422, "q"),
    ("a time that is none", "GET", "/api/search?q=a&since=nan", SAID, None, 422, "since"),
    ("a path with a zero byte", "GET", "/api/search?q=a&under=%00", SAID, None, 200, ""),
    ("a clip that is text", "POST", UPLOAD, SENT, NO_CLIP, 400, "cannot be used"),
    ("a clip that is empty", "POST", UPLOAD, SENT, multipart(b""), 400, "empty"),
    ("a playlist that names files", "POST", UPLOAD, SENT,
     multipart(b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "a.m3u8"), 400, "cannot be used"),
    ("a clip by the name of a path", "POST", UPLOAD, SENT,
     multipart(b"x", "../../../etc/passwd"), 400, "cannot be used"),
    ("a clip in another field", "POST", UPLOAD, SENT, multipart(b"x", field="other"), 422, "field"),
    ("a clip that is no form", "POST", UPLOAD, {**SAID, "Content_Type": "video/mp4"}, b"x", 415, "form-data"),
    ("a form without an edge", "POST", UPLOAD, {**SAID, "Content_Type": "multipart/form-data"}, b"x", 400, ""),
    ("a form that is cut off", "POST", UPLOAD, SENT, b"--edge\r\nContent-Dis", 422, "field"),
    ("a clip that is too large", "POST", UPLOAD, SENT, multipart(b"x" * 300_000), 413, "larger"),
    ("a log-in that is too large", "POST", "/login", FORM, b"token=" + b"x" * 100_000, 413, "larger"),
    ("another method", "DELETE", "/api/windows/1", SAID, None, 405, ""),
    ("tracing", "TRACE", "/api/info", SAID, None, 405, ""),
    ("a question before a foreign upload", "OPTIONS", UPLOAD, EVIL, None, 403, "another site"),
    ("the framework's own pages", "GET", "/docs", SAID, None, 404, "no such page"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "wanted", "said"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_hostile_requests(
    guarded: Served, method: str, path: str, headers: dict[str, str], body: bytes | None, wanted: int, said: str
) -> None:
    answer = guarded.ask(path, method, body, **headers)
    assert answer.status == wanted, answer.body
    if wanted >= 400:
        assert said in answer.what
        assert set(answer.json) == {"error"}
        assert "Traceback" not in answer.body.decode()
    assert TOKEN not in answer.body.decode("latin-1")
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert guarded.ask("/api/info", **SAID).status == 200


def test_the_policy_runs_no_inline_script_or_style() -> None:
    assert "unsafe" not in POLICY
    assert POLICY.startswith("default-src 'none'; script-src 'self'; style-src 'self';")


def test_two_hosts_are_none(guarded: Served) -> None:
    port = guarded.port
    request = head("/api/info", f"Host: 127.0.0.1:{port}", f"Authorization: Bearer {TOKEN}", host="evil.example")
    assert status(raw(port, request)) in (400, 421)
    assert status(raw(port, head("/api/info", f"Authorization: Bearer {TOKEN}", host=""))) in (400, 421)
    assert status(raw(port, f"GET /api/info HTTP/1.0\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())) == 421


def test_a_length_that_is_said_is_not_waited_for(guarded: Served) -> None:
    lines = (
        "Content-Type: multipart/form-data; boundary=edge",
        "Content-Length: 99999999999",
        f"Authorization: Bearer {TOKEN}",
    )
    answer = raw(guarded.port, head("/api/search/clip", *lines, method="POST", port=guarded.port))
    assert status(answer) == 413


def test_a_body_without_a_length_ends_at_the_limit(guarded: Served) -> None:
    lines = (
        "Content-Type: multipart/form-data; boundary=edge",
        "Transfer-Encoding: chunked",
        f"Authorization: Bearer {TOKEN}",
    )
    request = head("/api/search/clip", *lines, method="POST", port=guarded.port)
    start = multipart(b"").removesuffix(b"\r\n--edge--\r\n")
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (start, *[b"y" * 50_000] * 8))
    assert status(raw(guarded.port, request + chunks)) == 413


@pytest.mark.parametrize("kind", ["upload", "log-in"])
def test_a_slow_body_is_not_waited_for(served: Served, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of it never comes, and there is an answer."""
    monkeypatch.setattr("teachclip.pipeline.serve.guard.BODY_SECONDS", 1.0)
    form = "multipart/form-data; boundary=edge" if kind == "upload" else "application/x-www-form-urlencoded"
    path = "/api/search/clip" if kind == "upload" else "/login"
    lines = (f"Content-Type: {form}", "Content-Length: 5000", f"Authorization: Bearer {TOKEN}")
    with serving(served.index, TOKEN, upload_seconds=1.0) as impatient:
        began = time.monotonic()
        answer = raw(impatient.port, head(path, *lines, method="POST", port=impatient.port) + b"--edge")
        assert time.monotonic() - began > 0.5
    assert status(answer) == 408
    assert b"connection: close" in answer.lower()


def test_slow_first_lines_are_not_waited_for(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "HEAD_SECONDS", 0.5)
    for already in (b"", b"GET /api/info HTTP/1.1\r\nHost: "):
        began = time.monotonic()
        assert raw(served.port, already) == b""  # closed by the server
        assert time.monotonic() - began > 0.3
    with socket.create_connection(("127.0.0.1", served.port), timeout=120) as connection:
        connection.sendall(head("/api/info", port=served.port))
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        connection.sendall(b"GET /api/info HT")
        rest = b"x"
        while rest:
            rest = connection.recv(65536)


@pytest.mark.parametrize("junk", [b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"\x00" * 5000, b"A" * 100_000])
def test_what_is_no_http(guarded: Served, junk: bytes) -> None:
    assert raw(guarded.port, junk + b"\r\n\r\n")[:12] in (b"", b"HTTP/1.1 400")
    assert guarded.ask("/api/info", **SAID).status == 200


def test_names_are_text_and_nothing_else(served: Served, shelf: Shelf) -> None:
    answer = served.ask("/api/search?q=clip&top=50")
    assert answer.headers["content-type"] == "application/json"
    assert NASTY in [one["name"] for one in answer.json["answers"]]
    assert "<img" not in served.ask("/").body.decode().split("<template", 1)[0]


def test_the_token_is_said_once_and_kept_in_a_cookie(guarded: Served) -> None:
    first = guarded.ask("/")
    assert (first.status, first.headers["location"]) == (303, "/login")
    page = guarded.ask("/login").body.decode()
    assert 'method="post"' in page
    assert TOKEN not in page
    origin = {"Origin": guarded.url.rstrip("/")}
    wrong = guarded.ask("/login", "POST", urlencode({"token": "no"}).encode(), **FORM, **origin)
    assert wrong.status == 401
    assert "set-cookie" not in wrong.headers
    entered = guarded.ask("/login", "POST", urlencode({"token": TOKEN}).encode(), **FORM, **origin)
    assert (entered.status, entered.headers["location"]) == (303, "/")
    cookie = entered.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}
    assert TOKEN not in cookie
    kept = {"Cookie": cookie.split(";")[0]}
    assert guarded.ask("/", **kept).status == 200
    assert guarded.ask("/api/info", **kept).status == 200
    assert guarded.ask("/api/windows/1/poster.jpg", **kept).status == 200
    left = guarded.ask("/logout", "POST", b"", **kept, **origin)
    assert "Max-Age=0" in left.headers["set-cookie"]


def test_a_cookie_of_another_server_is_none(guarded: Served) -> None:
    other = Access.of("127.0.0.1", guarded.port, (), TOKEN)
    assert guarded.ask("/api/info", Cookie=f"{other.cookie}={other.session}").status == 401


def test_tokens_are_compared_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the function whose time tells nothing, over digests of one length."""
    compared: list[tuple[Any, Any]] = []

    def compare(a: Any, b: Any) -> bool:
        compared.append((a, b))
        return bool(a == b)

    monkeypatch.setattr("teachclip.pipeline.serve.access.hmac.compare_digest", compare)
    access = Access.of("127.0.0.1", 1, (), TOKEN)
    for said in ("", "a", TOKEN[:-1], TOKEN * 100):
        assert not access.is_token(said)
    assert access.is_token(TOKEN)
    assert {(len(a), len(b)) for a, b in compared} == {(32, 32)}
    assert TOKEN not in repr(access)


def test_nothing_of_a_request_is_logged(guarded: Served, capfd: pytest.CaptureFixture[str], caplog: Any) -> None:
    caplog.set_level(0)
    guarded.ask("/api/info?token=abc", **SAID)
    guarded.ask("/api/info", Authorization="Bearer secret-of-somebody")
    guarded.ask("/login", "POST", urlencode({"token": TOKEN}).encode(), **FORM)
    out = capfd.readouterr()
    told = out.out + out.err + caplog.text
    assert "abc" not in told
    assert "secret-of-somebody" not in told
    assert TOKEN not in told


def test_who_breaks_off_is_no_failure_of_the_server(served: Served, caplog: Any) -> None:
    lines = ("Content-Type: multipart/form-data; boundary=edge", "Content-Length: 50000")
    with socket.create_connection(("127.0.0.1", served.port)) as connection:
        connection.sendall(head("/api/search/clip", *lines, method="POST", port=served.port) + b"--edge")
        time.sleep(0.3)
    time.sleep(0.3)
    assert "Exception" not in caplog.text
    assert served.ask("/api/info").status == 200


def test_many_who_hand_in_clips_are_told_to_wait(served: Served, shelf: Shelf) -> None:
    content, answers = (shelf.clips / "clip-0.mp4").read_bytes(), []
    threads = [threading.Thread(target=lambda: answers.append(served.hand_in(content))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status for answer in answers} <= {200, 503}
    assert 200 in {answer.status for answer in answers}
    assert served.ask("/api/search?q=a").status == 200
