"""What every verb runs inside: its options, one `Output`, signals and failures turned into exit codes."""

import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from ....errors import ConfigError, StoppedEarly
from ....stages.runtime.launch import launch
from ....stages.runtime.stopping import StopRequest
from .errors import READER_GONE, Terminated, explain
from .output import Output, ReaderGone
from .remedies import Given, joined

if TYPE_CHECKING:
    from ....configs.schema import Config

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


def load_config(path: Path, overrides: Sequence[str] = ()) -> "Config":
    """As `teachclip.load_config`. The schema takes longer to load than all else that `--help` needs."""
    from ....configs.loading import load_config as load

    try:
        return load(path, overrides)
    except ConfigError as error:
        if (swapped := in_order(path)) is None:
            raise
        raise ConfigError(error.what, where=error.where, hint=f"CONFIG comes first: {swapped}") from None


def in_order(first: Path) -> str | None:
    """The command line with the YAML file that it holds where `first` stands; None where it holds none behind it."""
    words = list(sys.argv[1:])
    if _is_yaml(str(first)) or str(first) not in words:
        return None
    at = words.index(str(first))
    found = [k for k, word in enumerate(words) if k > at and _is_yaml(word) and not words[k - 1].startswith("--")]
    if not found:
        return None
    words.insert(at, words.pop(found[0]))
    return joined(["teachclip", *words])


def _is_yaml(word: str) -> bool:
    return word.endswith((".yaml", ".yml")) and Path(word).is_file()


@contextmanager
def running(
    verb: str,
    json: bool,
    quiet: bool,
    debug: bool,
    config: Path | None = None,
    sets: Overrides = None,
    stop: StopRequest | None = None,
) -> Iterator[Output]:
    """Run a verb's body; whatever it raises becomes a message and an exit code.

    Args:
        verb: its name; config, sets: the configuration it was given, for the commands that messages recommend.
        stop: what SIGTERM, SIGUSR1 and Ctrl-C ask, where the body can stop well; a second one ends it at once.

    Raises:
        typer.Exit: the body did not end well; the message is written.
    """
    output = Output(json=json, quiet=quiet)
    if launch().rank:  # of several processes the first one speaks, of a failure whoever is first
        output = Output(quiet=True, stdout=io.StringIO())
    try:
        try:
            with _signals(stop):
                yield output
            output.close()
        except (typer.Exit, ReaderGone):
            raise
        except (Exception, KeyboardInterrupt, StoppedEarly) as error:
            command = _command()
            if isinstance(error, StoppedEarly) and error.signal != signal.SIGINT:
                facts = {"stopped": error.step, "steps": error.steps, "go_on": command}
                output.result(facts, f"{error}; go on with: {command}")
                return
            failure = explain(error, verb, command, Given(config, sets or (), _words()))
            if _first_to_tell():
                teller = Output(json=json, quiet=quiet) if launch().rank else output
                teller.failure(failure.kind, failure.lines, failure.hint, failure.facts())
            if debug:
                sys.stderr.write("".join(traceback.format_exception(error)))
            raise typer.Exit(failure.exit_code) from None
    except ReaderGone:
        _silence()
        raise typer.Exit(READER_GONE) from None


def _first_to_tell() -> bool:
    if launch().ranks == 1:
        return True
    from ....stages.runtime.processes import first_to_tell

    return first_to_tell()


def _command() -> str:
    """The command line, to be given again."""
    return joined(_words())


def _words() -> list[str]:
    program, ranks = ["teachclip"], launch().ranks
    if ranks > 1:
        here = int(os.environ.get("LOCAL_WORLD_SIZE", ranks))
        machines = [f"--nnodes={ranks // here}"] if ranks > here else []
        program = ["torchrun", *machines, f"--nproc-per-node={here}", "-m", "teachclip"]
    return [*program, *sys.argv[1:]]


@contextmanager
def _signals(stop: StopRequest | None) -> Iterator[None]:
    """SIGTERM and SIGHUP end a verb as Ctrl-C does, unless the caller has them ignored (nohup); those that `stop` is
    asked by end it when it does not heed them."""

    def end(number: int, frame: FrameType | None) -> None:
        if stop is not None and number != signal.SIGHUP and stop.ask(number):
            return
        raise KeyboardInterrupt if number == signal.SIGINT else Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGTERM, signal.SIGHUP, *(() if stop is None else (signal.SIGINT, signal.SIGUSR1)))
    before = {number: signal.getsignal(number) for number in numbers}
    ours = [number for number, handler in before.items() if handler in (signal.SIG_DFL, signal.default_int_handler)]
    for number in ours:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, before[number])


def not_printed(error: OSError) -> int:
    """Say why help or the version could not be written; the exit code."""
    failure = explain(error, "", _command())
    sys.stderr.write("\n".join((f"error: {failure.lines[0]}", *filter(None, [failure.hint]), "")))
    _silence()
    return failure.exit_code


def _silence() -> None:
    """Nobody reads: what Python would still flush at exit goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
        with suppress(OSError, ValueError):
            os.dup2(nowhere, stream.fileno())
