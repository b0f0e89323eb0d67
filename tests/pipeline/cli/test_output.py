"""The output sink: a terminal, a pipe, --json, --quiet, progress."""

import errno
import io
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from teachclip.pipeline.cli.shell.output import Output, ReaderGone
from teachclip.pipeline.cli.shell.tables import facts, table
from teachclip.pipeline.wording import duration, size


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Result:
    where: Path
    values: tuple[float, ...]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Terminal()


def count(output: Output, clock: Clock, steps: int, seconds: float, total: int | None = 100, done: int = 0) -> None:
    with output.progress("prepare", total, "video", done=done) as progress:
        for _ in range(steps):
            clock.now += seconds
            progress.advance(1, loss=0.123456)


def test_messages_go_to_stderr_results_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output()
    output.info("a message")
    output.warn("[bold]3 videos[/bold] :smile: are left out")
    output.result({"a": 1}, "a line", facts(("name", 3), ("path", "/x")))
    out, err = capsys.readouterr()
    assert out.splitlines() == ["a line", "name  3", "path  /x"]
    assert err.splitlines() == ["a message", "warning: [bold]3 videos[/bold] :smile: are left out"]


def test_json_is_one_document_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(json=True)
    output.info("a message")
    output.result(Result(Path("/x"), (1.5, float("nan"), float("inf"))), "for people")
    out, err = capsys.readouterr()
    assert json.loads(out) == {"where": "/x", "values": [1.5, None, None]}
    assert err == "a message\n"


def test_quiet_leaves_results_and_failures(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    output = Output(quiet=True, clock=clock)
    output.info("a message")
    output.warn("a warning")
    count(output, clock, 30, 1.0)
    output.result({}, "the result")
    output.failure("error", ["it broke", "detail"], "do this", {})
    out, err = capsys.readouterr()
    assert out == "the result\n"
    assert err.splitlines() == ["error: it broke", "  detail", "do this"]


def test_failures_are_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    Output(json=True).failure("error", ["it broke"], None, {"what": "it broke", "exit_code": 1})
    out, err = capsys.readouterr()
    assert json.loads(out) == {"error": {"what": "it broke", "exit_code": 1}}
    assert err == "error: it broke\n"


def test_without_a_terminal_a_line_every_ten_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    count(Output(clock=clock), clock, 25, 1.0)
    assert capsys.readouterr().err.splitlines() == [
        "prepare: 10/100 videos, 1 videos/s, 1 min 30 s left, loss 0.1235",
        "prepare: 20/100 videos, 1 videos/s, 1 min 20 s left, loss 0.1235",
        "prepare: 25/100 videos, 1 videos/s, 25.0 s, loss 0.1235",
    ]


def test_what_was_done_earlier_does_not_count_as_speed(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    count(Output(clock=clock), clock, 10, 1.0, done=80)
    assert "prepare: 90/100 videos, 1 videos/s, 10.0 s left" in capsys.readouterr().err


def test_short_work_says_nothing_and_long_work_always_does(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    count(Output(clock=clock), clock, 19, 0.1)
    assert capsys.readouterr().err == ""
    count(Output(clock=clock), clock, 3, 1.0, total=None)
    assert capsys.readouterr().err == "prepare: 3 videos, 1 videos/s, 3.0 s, loss 0.1235\n"


def test_work_that_breaks_off_says_where(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()

    def work() -> None:
        with Output(clock=clock).progress("train", 10, "step") as progress:
            clock.now += 5
            progress.advance(2)
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        work()
    assert capsys.readouterr().err == "train: stopped at 2/10 steps, 0.4 steps/s, 5.0 s\n"


def test_progress_without_any_count_does_not_divide_by_zero(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with Output(clock=clock).progress("train", 0, "steps"):
        clock.now += 3
    assert capsys.readouterr().err == "train: 0/0 steps, 3.0 s\n"


def test_a_terminal_gets_a_bar_with_rate_and_time_left(terminal: Terminal) -> None:
    clock = Clock()
    output = Output(clock=clock, stderr=terminal)
    with output.progress("train", 100, "step") as outer, output.progress("validate", 4, "video") as inner:
        clock.now += 2
        outer.advance(10, loss=1.25)
        inner.advance(1)
        output.info("in between")
        output._bars.refresh()  # type: ignore[union-attr]  # what its thread does ten times a second
    shown = terminal.getvalue()
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1  # the cursor is hidden once, and given back
    assert "10/100 steps, 5 steps/s, 18.0 s left, loss 1.25" in shown
    assert "1/4 videos" in shown
    assert "in between" in shown
    assert "validate: 1/4 videos, 0.5 videos/s, 2.0 s\n" in shown
    assert shown.endswith("\rtrain: 10/100 steps, 5 steps/s, 2.0 s, loss 1.25\n")


def test_waiting_is_shown_on_a_terminal_only(terminal: Terminal, capsys: pytest.CaptureFixture[str]) -> None:
    with Output().waiting("loading"):
        pass
    assert capsys.readouterr().err == ""
    with Output(stderr=terminal).waiting("loading"):
        pass
    assert "loading" in terminal.getvalue()
    assert "\x1b[2K" in terminal.getvalue()  # and taken off again


def test_errors_are_red_on_a_terminal(terminal: Terminal) -> None:
    Output(stderr=terminal).failure("error", ["it broke"], None, {})
    assert "\x1b[1;31merror: \x1b[0mit broke" in terminal.getvalue()


def test_long_lines_are_neither_wrapped_nor_cut_in_a_pipe(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    path = "/a/very/long/path/" + "x" * 300
    Output().result({}, path, table("rank", "video", rows=[(1, path)]))
    assert capsys.readouterr().out.splitlines() == [path, "rank  video", f"   1  {path}"]


def test_numbers_stand_to_the_right(capsys: pytest.CaptureFixture[str]) -> None:
    Output().result({}, table("", "R@1", "n", rows=[("text", 5.0, 7), ("video", 45.67, 12)]))
    assert capsys.readouterr().out.splitlines() == [
        "        R@1   n",
        "text    5.0   7",
        "video  45.7  12",
    ]


class Closed(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError

    def flush(self) -> None:
        raise BrokenPipeError


class Full(io.StringIO):
    """Stdout on a disk that is full."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_failure_is_told_though_stdout_cannot_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(json=True, stdout=Full())
    with pytest.raises(OSError, match="No space left"):
        output.result({"a": 1})
    output.failure("error", ("no space left on the disk",), "free some", {"what": "no space"})
    assert capsys.readouterr().err == "error: no space left on the disk\nfree some\n"


@pytest.mark.parametrize("as_json", [True, False])
def test_a_closed_pipe_is_no_error_of_ours(as_json: bool) -> None:
    output = Output(json=as_json, stdout=Closed())
    with pytest.raises(ReaderGone):
        output.result({"a": 1}, "text")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (59.9, "59.9 s"), (72, "1 min 12 s"), (3599.6, "1 h 00 min"), (7500, "2 h 05 min")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (18_100_000_000, "18.1 GB"), (1.5e15, "1500 TB"), (2e6, "2 MB")]
)
def test_size(count: float, text: str) -> None:
    assert size(count) == text


def test_no_name_of_a_file_commands_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output()
    output.info("found \x1b[31mred.mp4")
    output.result(
        None,
        table("rank", "video", rows=[(1, "new\nline \x1b]0;title\x07.mp4")]),
        facts(("file", "a\tb")),
        "\x1b[2J: left out",
    )
    printed = capsys.readouterr()
    assert "\x1b" not in printed.out + printed.err
    assert printed.out.splitlines()[1].split("  ")[-1].strip() == r"new\nline \x1b]0;title\x07.mp4"
    assert r"\x1b[31mred.mp4" in printed.err
