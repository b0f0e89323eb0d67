"""`teachclip encode`: sentences or videos -> a file of vectors."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType

from ....plurals import counted
from ...wording import duration
from ..shell.running import AsJson, Debug, Quiet, examples, running
from ..shell.tables import facts, table

if TYPE_CHECKING:
    from ....stages.search.export.encoded import Encoded
    from ..shell.output import Output

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Write vectors of sentences or videos to a file.")

Model = Annotated[
    str,
    typer.Option(
        "--model", metavar="MODEL", help="A run folder, a checkpoint, or plain CLIP as openclip:MODEL/WEIGHTS."
    ),
]
Out = Annotated[Path, typer.Option("--out", metavar="FILE", help="NAME.parquet, NAME.jsonl, NAME.npy or NAME.bigfile.")]
Sentences = Annotated[
    list[str], typer.Argument(metavar="SENTENCE...", help="Each in quotes; @FILE or - for one a line.")
]
Videos = Annotated[
    list[str],
    typer.Argument(metavar="VIDEOS...", help="Folders, files, patterns, @LIST or - for a list of paths."),
]
Workers = Annotated[int, typer.Option("--workers", min=0, help="Decoding processes; 0 for one per core.")]

TEXTS_EXAMPLES = examples(
    'teachclip encode texts "a dog runs on the beach" --model runs/student --out texts.jsonl',
    "teachclip encode texts @sentences.txt --model openclip:ViT-B-32/openai --out texts.npy",
)
VIDEOS_EXAMPLES = examples("teachclip encode videos clips/ --model runs/student --out videos.parquet")


@app.command(epilog=TEXTS_EXAMPLES)
def texts(
    sentences: Sentences, model: Model, out: Out, json: AsJson = False, quiet: Quiet = False, debug: Debug = False
) -> None:
    """Write a unit vector of every sentence, with the sentence, in order; empty lines of a file are left out."""
    with running("encode", json, quiet, debug) as output:
        with output.waiting("loading"):
            from ....stages.search.export.encoded import encode_texts

        _tell(encode_texts(sentences, model, out, output), "sentence", output)


@app.command(epilog=VIDEOS_EXAMPLES)
def videos(
    videos: Videos,
    model: Model,
    out: Out,
    workers: Workers = 0,
    json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write one unit vector of every video, of its whole length, with its path.

    Those that cannot be used are named and left out. An index (`teachclip index`) keeps vectors of windows, can be
    brought up to date, and is exported with `teachclip export`.
    """
    with running("encode", json, quiet, debug) as output:
        with output.waiting("loading"):
            from ....stages.search.export.encoded import encode_videos

        _tell(encode_videos(videos, model, out, workers, output), "video", output)


def _tell(done: "Encoded", what: str, output: "Output") -> None:
    rows = [("out", done.out), ("model", done.model)]
    rows.append(("vectors", f"{counted(done.vectors, what)}, {done.width} numbers each, in {duration(done.seconds)}"))
    left_out: list[RenderableType] = []
    if done.left_out:
        left_out = [
            f"{counted(len(done.left_out), 'video is', 'videos are')} left out:",
            table("video", "status", "reason", rows=[(each.video, each.status, each.reason) for each in done.left_out]),
        ]
    output.result(done, facts(*rows), *left_out)
