"""The page in a real browser: from a sentence to a playing clip, by mouse and by keys, wide, narrow and dark."""

import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import av
import pytest
from teachclip.cache.library import library as of_library
from teachclip.cache.library.database import to_read
from teachclip.cache.library.library import Library
from teachclip.cache.library.writer import LibraryWriter
from teachclip.stages.search.library.stage import index_videos
from teachclip.stages.search.serving.open_index import OpenIndex

from ..report.conftest import Browser, Tab
from .conftest import COLOURS, NASTY, TOKEN, Served, Shelf, pictures, serving, write_other

NAMES = "[...document.querySelectorAll('.name')].map(n => n.textContent)"
KEYS = {"Enter": 13, "ArrowDown": 40, "ArrowUp": 38, "Escape": 27, "Tab": 9}


def visit(browser: Browser, url: str, width: int = 1200, dark: bool = False) -> Tab:
    """The page at this address."""

    class Address:
        def resolve(self) -> "Address":
            return self

        def as_uri(self) -> str:
            return url

    return browser.open(Address(), width, dark=dark)  # type: ignore[arg-type]


def until(tab: Tab, expression: str, seconds: float = 120.0) -> Any:
    """The value of an expression once it is something."""
    end = time.monotonic() + seconds
    while not (value := tab.evaluate(f"(v => v instanceof Node || v)({expression})")):
        assert time.monotonic() < end, (expression, tab.evaluate("document.body.innerText"), tab.complaints)
        time.sleep(0.05)
    return value


def press(tab: Tab, key: str) -> None:
    """A key, as a keyboard sends it."""
    text = "\r" if key == "Enter" else key if len(key) == 1 else ""
    code = KEYS.get(key, ord(key.upper()[0]))
    down = {"type": "keyDown" if text else "rawKeyDown", "key": key, "windowsVirtualKeyCode": code}
    tab.call("Input.dispatchKeyEvent", **down, **({"text": text} if text else {}))
    tab.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)


def write(tab: Tab, text: str) -> None:
    tab.call("Input.insertText", text=text)


def click(tab: Tab, selector: str) -> None:
    """The mouse, in the middle of an element."""
    place = tab.evaluate(
        f"(() => {{ const e = document.querySelector({selector!r}); e.scrollIntoView({{block: 'center'}});"
        " const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2] })()"
    )
    for kind in ("mousePressed", "mouseReleased"):
        tab.call("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)


def fill(tab: Tab, field: str, value: str) -> None:
    """A filter, as it is chosen with its picker."""
    tab.evaluate(
        f"(e => {{ e.value = {value!r}; e.dispatchEvent(new Event('change', {{bubbles: true}})) }})"
        f"(document.getElementById({field!r}))"
    )


def searched(tab: Tab, sentence: str = "clip number 2") -> None:
    until(tab, "document.activeElement === document.getElementById('q')")
    write(tab, sentence)
    press(tab, "Enter")
    until(tab, "document.querySelectorAll('.result').length === 6")
    until(tab, "[...document.querySelectorAll('.poster')].slice(0, 2).every(i => i.complete && i.naturalWidth)")


def find(name: str) -> str:
    """JavaScript: the result of this name."""
    return f"[...document.querySelectorAll('.result')].find(r => r.found.name === {name!r})"


def quiet(tab: Tab) -> None:
    """Nothing stands in the console: no script failed, the policy stopped nothing."""
    assert tab.complaints == []


def test_a_sentence_shows_videos_and_a_click_plays_at_the_second(browser: Browser, served: Served) -> None:
    tab = visit(browser, served.url)
    searched(tab)
    wanted = served.ask("/api/search?q=clip%20number%202").json["answers"]
    assert tab.evaluate(NAMES) == [a["name"] for a in wanted]
    playable = next(a for a in wanted if a["playable"] and a["second"] > 0.5)
    heights = tab.evaluate(
        f"[...({find(playable['name'])}).querySelectorAll('.strip i')].map(i => parseFloat(i.style.height))"
    )
    most = max(playable["weights"])
    assert heights == pytest.approx([100 * weight / most for weight in playable["weights"]], abs=0.1)
    tab.evaluate(f"({find(playable['name'])}).querySelector('.play').setAttribute('data-test', 'it')")
    click(tab, "[data-test=it]")
    until(tab, "document.getElementById('video').currentTime > 0 && !document.getElementById('video').seeking")
    assert tab.evaluate("document.getElementById('player').open")
    played = tab.evaluate("document.getElementById('video').currentTime")
    assert playable["second"] - 0.11 <= played <= playable["second"] + 1.5 or played >= 3.5
    until(tab, "document.querySelector('#frames img').naturalWidth > 0")
    assert tab.evaluate("document.querySelectorAll('.cells button').length") == len(playable["times"])
    press(tab, "Escape")
    until(tab, "!document.getElementById('player').open")
    until(tab, "!document.getElementById('video').hasAttribute('src')")
    quiet(tab)


def test_by_keys_alone(browser: Browser, served: Served) -> None:
    tab = visit(browser, served.url)
    searched(tab)
    press(tab, "ArrowDown")
    assert tab.evaluate("document.activeElement === document.querySelectorAll('.play')[0]")
    press(tab, "ArrowDown")
    second = tab.evaluate("document.activeElement.closest('.result').found.name")
    press(tab, "Enter")
    until(tab, "document.getElementById('player').open")
    assert second in tab.evaluate("document.getElementById('playing').textContent")
    press(tab, "Escape")
    until(tab, "!document.getElementById('player').open")
    assert tab.evaluate("document.activeElement.closest('.result').found.name") == second
    press(tab, "m")
    until(tab, "document.querySelectorAll('.result').length === 5")
    until(tab, "document.activeElement === document.querySelectorAll('.play')[0]")
    assert second not in tab.evaluate(NAMES)
    press(tab, "/")
    assert tab.evaluate("document.activeElement === document.getElementById('q')")
    assert tab.evaluate("document.getElementById('q').value") == "clip number 2"
    press(tab, "Tab")
    assert tab.evaluate("document.activeElement.textContent") == "Search"
    outline = tab.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    quiet(tab)


def test_back_leads_to_the_earlier_search(browser: Browser, served: Served) -> None:
    tab = visit(browser, f"{served.url}?q=clip%20number%201")
    until(tab, "document.querySelectorAll('.result').length === 6")
    click(tab, ".like")
    until(tab, "document.querySelectorAll('.result').length === 5")
    tab.evaluate("history.back()")
    until(tab, "document.querySelectorAll('.result').length === 6")
    assert tab.evaluate("document.getElementById('q').value") == "clip number 1"


def test_names_are_shown_and_never_run(browser: Browser, served: Served) -> None:
    tab = visit(browser, served.url)
    searched(tab)
    assert NASTY in tab.evaluate(NAMES)
    assert tab.evaluate("document.querySelectorAll('.name img, .path img, #status img, h2 img').length") == 0
    tab.evaluate(f"({find(NASTY)}).querySelector('.play').click()")
    until(tab, "document.getElementById('player').open")
    assert NASTY in tab.evaluate("document.getElementById('playing').textContent")
    press(tab, "Escape")
    tab.evaluate(f"({find(NASTY)}).querySelector('.like').click()")
    until(tab, f"document.getElementById('status').textContent.includes({NASTY!r})")
    assert tab.evaluate("document.querySelectorAll('#status *').length") == 0
    quiet(tab)


def test_what_no_browser_plays_shows_frames_and_path(browser: Browser, served: Served, shelf: Shelf) -> None:
    tab = visit(browser, served.url)
    searched(tab)
    tab.evaluate(f"({find('old.avi')}).querySelector('.play').click()")
    until(tab, "document.querySelector('#frames img').naturalWidth > 0")
    assert tab.evaluate("document.getElementById('video').hidden")
    assert tab.evaluate("document.getElementById('path').textContent") == str(shelf.clips / "old.avi")
    assert "cannot play" in tab.evaluate("document.getElementById('unplayable').textContent")
    quiet(tab)


OTHERS = {  # codec, container, sound, whether it is a kind of file that browsers know
    "hevc.mp4": ("libx265", "mp4", False, True),
    "hevc with sound.mp4": ("libx265", "mp4", True, True),
    "old.mov": ("mpeg4", "mov", True, True),
    "hevc.mkv": ("libx265", "matroska", False, False),
    "old.avi": ("mpeg4", "avi", True, False),
    "tv.ts": ("mpeg2video", "mpegts", False, False),
}


@pytest.fixture(scope="module")
def others(shelf: Shelf, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips that browsers do not play, and their index."""
    root = tmp_path_factory.mktemp("others")
    (root / "clips").mkdir()
    for (name, (codec, container, sound, _)), colour in zip(OTHERS.items(), COLOURS, strict=True):
        if codec not in av.codecs_available:
            pytest.skip(f"PyAV has no {codec}")
        write_other(root / "clips" / name, pictures(colour), codec, container, sound)
    made = index_videos([str(root / "clips")], root / "index", str(shelf.config.search_run), device="cpu", workers=1)
    assert made.counts == {"ok": len(OTHERS)}
    return root


def test_what_a_browser_cannot_play_shows_frames_and_path(browser: Browser, others: Path) -> None:
    """By its container, by its codec, and where it would play the sound alone."""
    index = OpenIndex.open(others / "index")
    with serving(index) as served:
        answers = served.ask("/api/search?q=clip&top=50").json["answers"]
        assert {one["name"]: one["playable"] for one in answers} == {name: kind[3] for name, kind in OTHERS.items()}
        for one in answers:
            film = served.ask(f"/api/windows/{one['row']}/video")
            assert film.status == (200 if one["playable"] else 415)
            assert served.ask(f"/api/windows/{one['row']}/strip.jpg").headers["content-type"] == "image/jpeg"
        tab = visit(browser, f"{served.url}?q=clip")
        until(tab, f"document.querySelectorAll('.result').length === {len(OTHERS)}")
        for name in OTHERS:
            tab.evaluate(f"({find(name)}).querySelector('.play').click()")
            until(tab, "document.getElementById('video').hidden && !document.getElementById('unplayable').hidden")
            assert "cannot play" in tab.evaluate("document.getElementById('unplayable').textContent")
            until(tab, "document.querySelector('#frames img').naturalWidth > 0")
            assert tab.evaluate("document.getElementById('path').textContent") == str(others / "clips" / name)
            press(tab, "Escape")
            until(
                tab, "!document.getElementById('player').open && !document.getElementById('video').hasAttribute('src')"
            )
    index.close()


def test_a_clip_that_is_handed_in(browser: Browser, served: Served, shelf: Shelf) -> None:
    tab = visit(browser, served.url)
    tab.call("DOM.enable")
    root = tab.call("DOM.getDocument")["root"]["nodeId"]
    node = tab.call("DOM.querySelector", nodeId=root, selector="#clip")["nodeId"]
    tab.call("DOM.setFileInputFiles", nodeId=node, files=[str(shelf.clips / "clip-3.mp4")])
    until(tab, "document.querySelectorAll('.result').length === 6")
    assert tab.evaluate("document.querySelector('.name').textContent") == "clip-3.mp4"
    quiet(tab)


def test_tags_and_filters_by_keys_alone(browser: Browser, own_shelf: Shelf) -> None:
    """A tag is given, searched with, and taken away; the address keeps the filters."""
    index = OpenIndex.open(own_shelf.folder)
    with serving(index) as served:
        tab = visit(browser, served.url)
        searched(tab)
        press(tab, "ArrowDown")
        first = tab.evaluate("document.activeElement.closest('.result').found.name")
        path = own_shelf.clips / first
        press(tab, "t")
        assert tab.evaluate("document.activeElement.className") == "newtag"
        write(tab, "sea /m & <b>")
        press(tab, "m")
        press(tab, "Enter")
        until(tab, "document.querySelector('.tag')")
        assert tab.evaluate("document.querySelector('.tag button').textContent") == "sea /m & <b>m"
        assert tab.evaluate("document.activeElement.className") == "tagger plain"
        assert index.library.tags(path) == ["sea /m & <b>m"]
        press(tab, "f")
        assert tab.evaluate("document.activeElement.id") == "under"
        for _ in range(20):
            press(tab, "Tab")
            if tab.evaluate("document.activeElement.id") == "tag":
                break
        write(tab, "sea /m & <b>m")
        press(tab, "Enter")
        until(tab, "document.querySelectorAll('.result').length === 1")
        assert tab.evaluate(NAMES) == [first]
        assert tab.evaluate("document.getElementById('narrowed').textContent") == "Filters: 1"
        tab.call("Page.reload")
        until(tab, "document.querySelectorAll('.result').length === 1")
        assert tab.evaluate("document.getElementById('tag').value") == "sea /m & <b>m"
        tab.evaluate("document.querySelector('.untag').focus()")
        press(tab, "Enter")
        until(tab, "!document.querySelector('.tag')")
        assert tab.evaluate("document.activeElement.className") == "tagger plain"
        assert index.library.tags() == []
        press(tab, "t")
        press(tab, "Escape")
        assert tab.evaluate("document.querySelector('.tagging').hidden")
        tab.evaluate("document.getElementById('clear').focus()")
        press(tab, "Enter")
        until(tab, "document.querySelectorAll('.result').length === 6")
        quiet(tab)
    index.close()


def test_folder_and_dates_narrow_every_kind_of_search(browser: Browser, own_shelf: Shelf) -> None:
    """Days count whole, by the clock of the browser."""
    day = datetime(2020, 5, 17, 23, 59, 59)
    with Library.open(own_shelf.folder) as library:
        model = library.model
    with LibraryWriter.claim(own_shelf.folder, model) as writer:
        for path, known in writer.known().items():
            if path.endswith(("clip-1.mp4", "clip-2.mp4")):
                writer.renew(known.video.id, known.video.size, int(day.timestamp() * 1e9), known.video.content)
    index = OpenIndex.open(own_shelf.folder)
    with serving(index) as served:
        tab = visit(browser, f"{served.url}?q=clip&since=2020-05-17&until=2020-05-17")
        until(tab, "document.querySelectorAll('.result').length === 2")
        assert sorted(tab.evaluate(NAMES)) == ["clip-1.mp4", "clip-2.mp4"]
        press(tab, "ArrowDown")
        press(tab, "m")
        until(tab, "document.querySelectorAll('.result').length === 1")
        fill(tab, "until", "2020-05-16")
        until(tab, "document.getElementById('status').textContent.startsWith('no video')")
        click(tab, "#clear")
        until(tab, "document.querySelectorAll('.result').length === 5")
        fill(tab, "under", str(own_shelf.clips / "clip-3.mp4"))
        until(tab, "document.querySelectorAll('.result').length === 1")
        assert tab.evaluate(NAMES) == ["clip-3.mp4"]
        assert "filtered" in tab.evaluate("document.getElementById('status').textContent")
        assert tab.evaluate("[...document.getElementById('folders').options].map(o => o.value)") == [
            *index.library.roots()
        ]
        quiet(tab)
    index.close()


def test_a_tag_that_cannot_be_written_says_why(
    browser: Browser, own_shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = OpenIndex.open(own_shelf.folder)
    monkeypatch.setattr(of_library, "to_write", to_read)
    with serving(index) as served:
        tab = visit(browser, served.url)
        searched(tab)
        click(tab, ".tagger")
        write(tab, "sea")
        press(tab, "Enter")
        until(tab, "document.getElementById('status').textContent.includes('make the folder readable and writable')")
        assert tab.evaluate("document.querySelector('.newtag').value") == "sea"
    index.close()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
def test_it_fits_its_window(
    browser: Browser, served: Served, width: int, dark: bool, save_picture: Callable[[str, bytes], None]
) -> None:
    tab = visit(browser, served.url, width, dark)
    searched(tab)
    tab.evaluate(
        "document.getElementById('filters').open = true; document.querySelectorAll('.tagging')[1].hidden = false"
    )
    tab.evaluate("const r = document.querySelector('.result'); r.found.tags = ['sea', 'x'.repeat(200)]; showTags(r)")
    fits = "document.documentElement.scrollWidth <= innerWidth"
    assert tab.evaluate(fits)
    inside = (
        "[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1).length"
    )
    assert tab.evaluate(inside) == 0
    light = int(tab.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]"))
    assert light < 60 if dark else light > 200
    until(tab, "[...document.querySelectorAll('.poster')].every(i => i.complete && i.naturalWidth)")
    save_picture(f"page-{width}-{'dark' if dark else 'light'}", tab.screenshot())
    tab.evaluate("document.querySelector('.play').click()")
    until(tab, "document.querySelector('#frames img').naturalWidth > 0")
    assert tab.evaluate(fits)
    assert tab.evaluate("document.getElementById('player').getBoundingClientRect().right <= innerWidth")
    save_picture(f"player-{width}-{'dark' if dark else 'light'}", tab.screenshot())
    quiet(tab)


def test_the_token_is_asked_for(browser: Browser, guarded: Served) -> None:
    tab = visit(browser, guarded.url)
    until(tab, "document.activeElement && document.activeElement.id === 'token'")
    write(tab, "wrong")
    press(tab, "Enter")
    until(tab, "document.querySelector('[role=alert]')")
    until(tab, "document.activeElement && document.activeElement.id === 'token'")
    write(tab, TOKEN)
    press(tab, "Enter")
    until(tab, "document.getElementById('q')")
    assert TOKEN not in tab.evaluate("location.href")
    assert tab.evaluate("document.cookie") == ""
    searched(tab)
    click(tab, "header form:last-child button")
    until(tab, "document.getElementById('token')")
    tab.call("Page.navigate", url=f"{guarded.url}?q=a")
    until(tab, "document.getElementById('token')")
