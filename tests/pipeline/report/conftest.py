"""Pages as they are read: parsed, and in a real browser. Tests that need one skip where there is none."""

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

VOID = {"br", "img", "link", "meta", "wbr"}
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "headless_shell", "chrome")
SECONDS = 120.0


class Page(HTMLParser):
    """Texts other than blanks, elements and attributes of a page; fails where elements are not closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += [(tag, key, value or "") for key, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open or not data.strip():
            return
        self.texts.append(data)
        if "tr" in self.open:
            self.rows[-1].append(data)

    @property
    def text(self) -> str:
        return "".join(self.texts)


class Browser:
    """Headless Chromium over its debugging pipe, without a network.

    Args:
        program: where it is; profile: an empty folder.
    """

    def __init__(self, program: str, profile: Path) -> None:
        self.events: list[dict[str, Any]] = []
        self._sent, self._rest = 0, b""
        ours, theirs = [], []
        for reads in (False, True):
            read, write = os.pipe()
            ours.append(read if reads else write)
            theirs.append(fcntl.fcntl(write if reads else read, fcntl.F_DUPFD, 20))
            os.close(write if reads else read)
        self._to, self._from = ours
        options = (
            *("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", f"--user-data-dir={profile}"),
            *(
                "--no-first-run",
                "--disable-dev-shm-usage",
                "--disable-background-networking",
                "--proxy-server=127.0.0.1:9",
            ),
        )
        nowhere = os.open(os.devnull, os.O_RDWR)
        actions = [
            (os.POSIX_SPAWN_DUP2, fd, target)
            for fd, target in ((nowhere, 1), (nowhere, 2), *zip(theirs, (3, 4), strict=True))
        ]
        self._process = os.posix_spawn(program, [program, *options], os.environ, file_actions=actions, setpgroup=0)
        for fd in (nowhere, *theirs):
            os.close(fd)

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """The answer to one command of the DevTools protocol; events that come meanwhile are kept."""
        self._sent += 1
        message: dict[str, Any] = {"id": self._sent, "method": method, "params": parameters}
        os.write(self._to, json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        answer = self._next(lambda found: found.get("id") == self._sent)
        assert "error" not in answer, (method, answer)
        result: dict[str, Any] = answer["result"]
        return result

    def wait_for(self, method: str, session: str) -> None:
        """Until an event that has come or comes."""

        def wanted(event: dict[str, Any]) -> bool:
            return event.get("method") == method and event.get("sessionId") == session

        if not any(map(wanted, self.events)):
            self._next(wanted)

    def open(self, page: Path, width: int, height: int = 900, dark: bool = False) -> "Tab":
        """The page in a window of this size."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        tab = Tab(self, self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"])
        for part in ("Page", "Runtime", "Log", "Network"):
            tab.call(f"{part}.enable")
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        tab.call("Emulation.setEmulatedMedia", features=[scheme])
        phone = width < 600
        tab.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1 + phone, mobile=phone
        )
        tab.call("Page.navigate", url=page.resolve().as_uri())
        self.wait_for("Page.loadEventFired", tab.session)
        return tab

    def close(self) -> None:
        os.killpg(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)
        os.close(self._to)
        os.close(self._from)

    def _next(self, wanted: Any) -> dict[str, Any]:
        end = time.monotonic() + SECONDS
        while True:
            while b"\0" in self._rest:
                line, _, self._rest = self._rest.partition(b"\0")
                message: dict[str, Any] = json.loads(line)
                if "method" in message:
                    self.events.append(message)
                if wanted(message):
                    return message
            ready, _, _ = select.select([self._from], [], [], max(0.0, end - time.monotonic()))
            assert ready, "the browser does not answer"
            data = os.read(self._from, 1 << 20)
            assert data, "the browser has ended"
            self._rest += data


class Tab:
    """One open page."""

    def __init__(self, browser: Browser, session: str) -> None:
        self.browser, self.session = browser, session

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self.browser.call(method, self.session, **parameters)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def events(self, *methods: str) -> list[dict[str, Any]]:
        mine = (event for event in self.browser.events if event.get("sessionId") == self.session)
        return [event["params"] for event in mine if event["method"] in methods]

    @property
    def complaints(self) -> list[dict[str, Any]]:
        """Whatever stands in the console."""
        return self.events("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")

    @property
    def requests(self) -> list[str]:
        """Addresses that were asked for, other than the page itself and what it brings along."""
        asked = [event["request"]["url"] for event in self.events("Network.requestWillBeSent")]
        return [url for url in asked if not url.startswith(("file:", "data:"))]

    def screenshot(self) -> bytes:
        """The whole page as a PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"])

    def pdf(self) -> bytes:
        """The page as it is printed on A4."""
        size = {"paperWidth": 8.27, "paperHeight": 11.69, "preferCSSPageSize": True}
        return base64.b64decode(self.call("Page.printToPDF", printBackground=False, **size)["data"])


@pytest.fixture(scope="session")
def parse() -> Callable[[str], Page]:
    """A page's elements, attributes and texts."""
    return Page


@pytest.fixture(scope="module")  # not longer: pages that stay open go on working
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A running Chromium; TEACHCLIP_CHROMIUM names one that is not on the PATH."""
    program = os.environ.get("TEACHCLIP_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"needs a browser: none of {', '.join(NAMES)} is on the PATH, TEACHCLIP_CHROMIUM names none")
    opened = Browser(program, tmp_path_factory.mktemp("chromium"))
    yield opened
    opened.close()
