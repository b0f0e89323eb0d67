"""What every verb runs inside: its options, one `Output`, signals and failures turned into exit codes."""

import os
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from .errors import READER_GONE, Terminated, explain
from .output import Output, ReaderGone

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="A YAML file; see `teachclip config template`.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one setting, train.seed=7; may be repeated."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document; messages go to stderr.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but the result and errors.")]
Debug = Annotated[bool, typer.Option("--debug", envvar="TEACHCLIP_DEBUG", help="Show the traceback of an error.")]


def examples(*commands: str) -> str:
    """The part of a verb's help that a test executes line by line."""
    return "\b\nExamples:\n" + "\n".join(f"  {command}" for command in commands)


@contextmanager
def running(
    verb: str, json: bool, quiet: bool, debug: bool, config: Path | None = None, sets: Overrides = None
) -> Iterator[Output]:
    """Run a verb's body; whatever it raises becomes a message and an exit code.

    Args:
        verb: its name; config, sets: the configuration it was given, for the commands that messages recommend.

    Raises:
        typer.Exit: the body did not end well; the message is written.
    """
    output = Output(json=json, quiet=quiet)
    try:
        try:
            with _signals():
                yield output
            output.close()
        except (typer.Exit, ReaderGone):
            raise
        except (Exception, KeyboardInterrupt) as error:
            given = ["CONFIG"] if config is None else [str(config)]
            given += [word for override in sets or () for word in ("--set", override)]
            failure = explain(error, verb, shlex.join(["teachclip", *sys.argv[1:]]), shlex.join(given))
            output.failure(failure.kind, failure.lines, failure.hint, failure.facts())
            if debug:
                sys.stderr.write("".join(traceback.format_exception(error)))
            raise typer.Exit(failure.exit_code) from None
    except ReaderGone:
        _silence()
        raise typer.Exit(READER_GONE) from None


@contextmanager
def _signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end a verb as Ctrl-C does, unless the caller has them ignored (nohup)."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    ours = [number for number, handler in before.items() if handler is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, before[number])


def _silence() -> None:
    """Nobody reads: what Python would still flush at exit goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
        with suppress(OSError, ValueError):
            os.dup2(nowhere, stream.fileno())
