"""`teachclip push`: a trained model with its card -> a repository that others load from."""

from pathlib import Path
from typing import Annotated

import typer

from ...errors import ConfigError
from ..wording import size
from .shell.running import AsJson, Debug, Quiet, examples, running
from .shell.tables import facts

Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder or a checkpoint.")]
Repository = Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The repository on the Hugging Face hub.")]
Folder = Annotated[
    Path | None,
    typer.Option("--folder", metavar="FOLDER", help="Where the repository's files are written; by default NAME."),
]
License = Annotated[str | None, typer.Option("--license", metavar="ID", help="Of the model, such as apache-2.0.")]
Licenses = Annotated[
    list[str] | None,
    typer.Option(
        "--license-of",
        metavar="SOURCE=ID",
        help="Of the `data`, the `trunk` or a teacher by its name; may be repeated.",
    ),
]
OnlyWrite = Annotated[bool, typer.Option("--only-write", help="Write the files and push nothing.")]
Private = Annotated[bool, typer.Option("--private", help="A repository that is new is shown to nobody else.")]

EXAMPLES = examples(
    "teachclip push runs/student me/video-search --only-write",
    "teachclip push runs/student me/video-search --license apache-2.0 --license-of data=CC-BY-4.0",
)


def push(
    run: Run,
    repository: Repository,
    folder: Folder = None,
    license: License = None,
    licenses: Licenses = None,
    only_write: OnlyWrite = False,
    private: Private = False,
    json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Share a model: its checkpoint, its settings and a card with data, teachers, licences and metrics.

    Others name it hf:OWNER/NAME wherever a model is named. Log in first with `hf auth login`; look at the card with
    --only-write. Nothing of this machine, no path and no caption, is in what is pushed.
    """
    with running("push", json, quiet, debug) as output:
        given = dict(_pair(each) for each in licenses or ())
        with output.waiting("loading"):
            from ...stages.evaluate.share import share

        place = folder or Path(repository.rpartition("/")[2] or "model")
        with output.waiting("writing" if only_write else "pushing"):
            done = share(
                run,
                repository,
                place,
                license=license,
                licenses=given,
                use=_use(repository),
                push=not only_write,
                private=private,
            )
        for source in done.unlicensed:
            output.warn(f"nobody has named the licence of {source}, and the card says so: --license-of {source}=ID")
        rows = [("model", done.name), ("files", f"{done.folder}, {size(done.size)}")]
        rows.append(("pushed", done.pushed or "no: look at the card, then push without --only-write"))
        output.result(done, facts(*rows))


def _use(repository: str) -> list[str]:
    name = f"hf:{repository.removeprefix('hf:')}"
    return [f"teachclip index clips/ --model {name}", 'teachclip search index "a dog runs on the beach"']


def _pair(text: str) -> tuple[str, str]:
    source, equals, license = text.partition("=")
    if not (equals and source and license):
        raise ConfigError("--license-of is given as SOURCE=ID", where=text, hint="for example data=CC-BY-4.0")
    return source, license
