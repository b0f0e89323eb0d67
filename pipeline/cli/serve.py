"""`teachclip serve`: a page and an API over an index."""

import importlib.util
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...errors import ConfigError, TeachclipError
from ...remedies import MakeDemo, Remedy
from .shell.output import Output
from .shell.paths import DEMO, settings_inside
from .shell.remedies import Given, joined
from .shell.running import AsJson, Debug, Quiet, examples, load_config, running
from .shell.tables import facts

if TYPE_CHECKING:
    from ...stages.search.serving.open_index import OpenIndex

Index = Annotated[
    Path,
    typer.Argument(metavar="INDEX", help="An index folder, a demo's folder, or a CONFIG with a trained student."),
]
Host = Annotated[str, typer.Option("--host", metavar="ADDRESS", help="Where to listen; others' machines need a token.")]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")]
Names = Annotated[
    list[str] | None, typer.Option("--name", help="A further name that browsers call this server by; may be repeated.")
]
TokenFile = Annotated[
    Path | None, typer.Option("--token-file", metavar="FILE", help="Ask for the token in it; made where there is none.")
]
Model = Annotated[
    str | None, typer.Option("--model", help="The index's model, where it lies elsewhere now or is not the latest.")
]

NEEDED = {"fastapi": "fastapi", "uvicorn": "uvicorn", "python_multipart": "python-multipart"}
EXAMPLES = examples(
    "teachclip serve index",
    "teachclip serve demo --port 8080",
    "teachclip serve index --host 192.168.1.20 --token-file token",
)


def serve(
    index: Index,
    host: Host = "127.0.0.1",
    port: Port = 8765,
    names: Names = None,
    token_file: TokenFile = None,
    model: Model = None,
    json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show a page that searches videos, and answer the same as an HTTP API (docs/guide/serve.md), until it is stopped.

    Others than this machine are let in by --host, and must say the token of --token-file. A demo's folder and a CONFIG
    are indexed first from the frames that are prepared.
    """
    config = _config_of(index)
    with running("serve", json, quiet, debug, config) as output, ExitStack() as open_things:
        _refuse_lacking()
        with output.waiting("loading"):
            from ...stages.search.serving.workbench import Workbench
            from ..serve.access import Access
            from ..serve.app import application
            from ..serve.server import bound, names_of, server, token_of

        given = names_of(host, names or [])
        socket = open_things.enter_context(bound(host, port))
        port = socket.getsockname()[1]
        token = token_of(host, token_file)
        lacking: TeachclipError | None = None
        opened: OpenIndex | None = None
        try:
            opened = open_things.enter_context(_opened(index, config, model, output))
            lacking = None if opened.lacking is None else _of_index(opened.lacking, index)
        except TeachclipError as error:
            if config is None:
                raise
            lacking = error if config.name != DEMO else _of_demo(error, index)
        if lacking is not None:
            lacking = _told(lacking, Given(config))
            output.warn(f"{lacking}")
        bench = open_things.enter_context(Workbench())
        app = application(opened, bench, Access.of(host, port, given, token), lacking)
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
        known = len(opened.library) if opened is not None else 0
        rows = [("address", address), ("windows", known), ("model", opened.library.model.name if opened else "none")]
        if token_file is not None:
            rows.append(("token", f"in {token_file}"))
        output.result(dict(rows), facts(*rows), "Ctrl-C ends it.")
        try:
            server(app).run(sockets=[socket])
        except KeyboardInterrupt:  # how it is meant to end
            output.info("ended")


@contextmanager
def _opened(index: Path, config: Path | None, model: str | None, output: Output) -> Iterator["OpenIndex"]:
    from ...stages.search.serving.from_frames import index_frames
    from ...stages.search.serving.open_index import OpenIndex

    folder = index if config is None else index_frames(load_config(config), output)
    opened = OpenIndex.open(folder, model)
    try:
        yield opened
    finally:
        opened.close()


def _config_of(index: Path) -> Path | None:
    """The configuration that is meant, a demo's where its folder is given; None where it is an index."""
    found = settings_inside(index)
    return found if found.suffix in (".yaml", ".yml") else None


def _of_demo(error: TeachclipError, folder: Path) -> TeachclipError:
    """The same error, where the demo makes what is missing."""
    hint = Remedy("let the demo come to its end first", MakeDemo(str(folder)))
    return type(error)(error.what, where=error.where, hint=hint, details=error.details)


def _of_index(error: TeachclipError, folder: Path) -> TeachclipError:
    """The same error, with the command that names the model."""
    instead = joined(["teachclip", "serve", str(folder), "--model", "MODEL"])
    hint = f"name it where it lies now, {instead}, or index again; what is like a clip is found meanwhile"
    return type(error)(error.what, where=error.where, hint=hint, details=error.details)


def _told(error: TeachclipError, given: Given) -> TeachclipError:
    """The same error with what helps as a command."""
    hint = None if error.hint is None else given.tell(error.hint)
    return type(error)(error.what, where=error.where, hint=hint, details=error.details)


def _refuse_lacking() -> None:
    missing = [name for module, name in NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        what = f"serve needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed"
        raise ConfigError(what, hint="install them with the extra: pip install 'teachclip[serve]'")
