"""`teachclip search` at a terminal, asked again and again; words that were meant otherwise."""

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import pytest
import torch
from teachclip.configs.loading import dump_config
from teachclip.configs.schema import Config
from teachclip.errors import DataError
from teachclip.pipeline.cli.asking import ask_at_terminal
from teachclip.pipeline.cli.shell.errors import Terminated
from teachclip.pipeline.cli.shell.output import Output
from teachclip.pipeline.cli.shell.remedies import Given
from teachclip.stages.models.build import build_network
from teachclip.stages.models.checkpoints.files import save_network
from teachclip.stages.search.library.stage import index_videos

from ...conftest import World
from .conftest import Invoke
from .test_search_verb import asked as asked

LIMIT = 120.0  # seconds that an answer may take on a busy machine


class Terminal:
    """A command in a terminal of its own."""

    def __init__(self, words: tuple[str, ...], folder: Path) -> None:
        self.master, theirs = pty.openpty()
        program = "from teachclip.pipeline.cli.main import main; main()"
        environment = {**os.environ, "TERM": "dumb"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, *words],
            cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True,
            preexec_fn=_controlled,
        )  # fmt: skip
        os.close(theirs)
        self.seen = ""

    def until(self, pattern: str) -> str:
        """What is shown up to and with the pattern, since the last time."""
        end = time.monotonic() + LIMIT
        while (found := re.search(pattern, self.seen)) is None:
            assert select.select([self.master], [], [], max(0.0, end - time.monotonic()))[0], self.seen
            self.seen += self._read()
        shown, self.seen = self.seen[: found.end()], self.seen[found.end() :]
        return shown

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def ended(self, key: str) -> tuple[int, str]:
        """Its exit code, and what it showed last, after this key: pressed after a moment, and again, for Python
        overlooks a signal that comes just before it waits for a line."""
        end = time.monotonic() + LIMIT
        while self.process.poll() is None and time.monotonic() < end:
            time.sleep(0.5)
            with suppress(OSError):  # it ends just now
                self.type(key)
            while select.select([self.master], [], [], 30.0)[0] and (part := self._read()):
                self.seen += part
        return self.process.wait(1.0), self.seen

    def _read(self) -> str:
        try:
            return os.read(self.master, 65536).decode(errors="replace").replace("\r\n", "\n")
        except OSError:  # nobody has it open any more
            return ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)


def _controlled() -> None:
    """Ctrl-C of this terminal reaches the process."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.fixture(scope="module")
def place(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an index `index` of two clips, and `mine.yaml` of prepared ones, both with a student."""
    root = tmp_path_factory.mktemp("asked")
    config: Config = world.config(
        search={"run": root / "student", "index": root / "vectors", "top": 2, "device": "cpu"}
    )
    torch.manual_seed(1)
    (root / "student").mkdir()
    save_network(build_network(config.train.network), root / "student/best.safetensors")
    (root / "mine.yaml").write_text(dump_config(config))
    (root / "clips").mkdir()
    for name in ("00.mp4", "07.mp4"):
        shutil.copy(world.root / "clips" / name, root / "clips")
    (root / "broken.mp4").write_bytes(b"x")
    index_videos([str(root / "clips")], root / "index", str(root / "student"), device="cpu", workers=1)
    return root


def test_an_index_is_asked_until_ctrl_c(place: Path) -> None:
    with Terminal(("search", "index", "--top", "1"), place) as terminal:
        terminal.until(r"an empty line ends it[^?]*\? ")
        terminal.type("a red square\n")
        assert re.search(r'"a red square"\nrank +cosine', terminal.until(r"\n\? "))
        terminal.type("broken.mp4\n")
        assert "error: broken.mp4: this clip cannot be used: corrupt, " in terminal.until(r"\n\? ")
        terminal.type("clips/07.mp4\n")
        shown = terminal.until(r"\n\? ")
        assert re.search(r"(?s)like clips/07.mp4\nrank .*\n +1  1\.000 .*/clips/07.mp4\n", shown), shown
        code, rest = terminal.ended("\x03")
    assert code == 0
    assert "Traceback" not in rest
    assert "error" not in rest


def test_a_configuration_is_asked_until_ctrl_d(place: Path) -> None:
    with Terminal(("search", "mine.yaml"), place) as terminal:
        terminal.until(r"an empty line ends it[^?]*\? ")
        for sentence in ("a red square", "a blue square"):
            terminal.type(f"{sentence}\n")
            assert re.search(rf'"{sentence}"\nrank +cosine .*\n +1 .*\n +2 .*\n', terminal.until(r"\n\? "))
        terminal.type("clips/07.mp4\n")
        assert "a CONFIG by sentences alone" in terminal.until(r"\n\? ")
        assert terminal.ended("\x04")[0] == 0


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """What a person types: lines, or what is raised instead of one."""

    def of(*lines: str | BaseException) -> None:
        left = iter(lines)

        def line(prompt: str) -> str:
            given = next(left)
            if isinstance(given, BaseException):
                raise given
            return given

        monkeypatch.setattr("builtins.input", line)

    return of


@pytest.mark.parametrize("last", ["", "   ", EOFError(), KeyboardInterrupt()], ids=repr)
def test_what_ends_the_asking(typed: Callable[..., None], last: Any, capsys: pytest.CaptureFixture[str]) -> None:
    typed("a dog", last)
    ask_at_terminal(Output(), lambda asked: [f"{each}: found" for each in asked], Given())
    assert capsys.readouterr().out == "a dog: found\n"


def test_a_kill_is_no_end_of_the_asking(typed: Callable[..., None]) -> None:
    typed(Terminated())
    with pytest.raises(Terminated):
        ask_at_terminal(Output(), lambda _: [], Given())


def test_a_mistake_costs_one_question(typed: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    def answer(asked: list[Any]) -> list[str]:
        if asked == ["bad"]:
            raise DataError("it is bad", hint="ask better")
        return [str(asked)]

    typed("bad", "none.mp4", "-", "a dog", "")
    ask_at_terminal(Output(), answer, Given())
    out, told = capsys.readouterr()
    assert out == "['a dog']\n"
    assert "error: it is bad\nask better\n" in told
    assert "error: none.mp4: there is no such video" in told
    assert "error: standard input: there is no sentence in it" in told


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["a dog", "index"], ["index", "a dog"]),
        (["a dog", "index", "--top", "3"], ["index", "a dog", "--top", "3"]),
        (["a dog", "a cat", "demo"], ["demo", "a dog", "a cat"]),
        (["dog", "own_videos.yaml"], ["own_videos.yaml", "dog"]),
    ],
)
def test_what_is_searched_comes_first(invoke: Invoke, asked: list[Any], words: list[str], meant: list[str]) -> None:
    result = invoke("search", *words)
    assert result.exit_code == 2
    quoted = " ".join(f"'{word}'" if " " in word else word for word in meant)
    assert result.stderr.splitlines() == [
        f"error: {words[0]}: there is no such index or configuration",
        f"what is searched comes first: teachclip search {quoted}",
    ]
    assert not asked


def test_words_that_may_be_one_sentence_are_remarked_on(invoke: Invoke, asked: list[Any], folder: Path) -> None:
    result = invoke("search", "index", "a", "dog", "runs")
    assert asked[0][0][1] == ["a", "dog", "runs"]
    assert result.stderr == (
        "each of the 3 words was a sentence of its own; one sentence is quoted: teachclip search index 'a dog runs'\n"
    )
    (folder / "dog.mp4").touch()
    (folder / "list").write_text("a dog")
    for words in (["dog"], ["a dog", "cat"], ["dog", "dog.mp4"], ["dog", "@list"], ["dog", "--like", "3"]):
        assert invoke("search", "index", *words).stderr == ""
    assert "search own_videos.yaml 'dog cat'" in invoke("search", "own_videos.yaml", "dog", "cat").stderr
