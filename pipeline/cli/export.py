"""`teachclip export`: an index's vectors -> a file, or a database."""

from pathlib import Path
from typing import Annotated

import typer

from ..wording import duration
from .shell.running import AsJson, Debug, Quiet, examples, running
from .shell.tables import facts

Index = Annotated[Path, typer.Argument(metavar="INDEX", help="A folder that `teachclip index` filled.")]
To = Annotated[
    str,
    typer.Option(
        "--to",
        metavar="WHERE",
        help="A file, its form by its ending: NAME.parquet, NAME.jsonl, NAME.npy, NAME.bigfile; or a database: "
        "qdrant:URL, qdrant:FOLDER, postgresql://USER@HOST/DATABASE, lancedb:FOLDER.",
    ),
]
InTable = Annotated[str | None, typer.Option("--table", metavar="NAME", help="Of a database, by default teachclip.")]
Model = Annotated[
    str | None,
    typer.Option("--model", metavar="MODEL", help="Of an index with vectors of several: whose; by default the last."),
]
Width = Annotated[
    int | None,
    typer.Option("--width", min=1, help="Cut vectors to their first so many numbers, as NAME@64 does for sentences."),
]

EXAMPLES = examples(
    "teachclip export index/ --to vectors.parquet",
    "teachclip export index/ --to vectors.npy --width 64",
    "teachclip export index/ --to vectors.npy --model openclip:ViT-B-32/openai",
    "teachclip export index/ --to qdrant:http://localhost:6333 --table clips",
    "teachclip export index/ --to postgresql://me@localhost/media --table clips",
    "teachclip export index/ --to lancedb:vectors/",
)


def export(
    index: Index,
    to: To,
    table: InTable = None,
    model: Model = None,
    width: Width = None,
    json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write the vectors of an index with their windows' numbers, paths, times and tags.

    A file is complete or absent. A table is brought up to date: what is new or changed is written, what is gone is
    deleted, and an export that was stopped goes on when it is given again (docs/guide/export.md).
    """
    with running("export", json, quiet, debug) as output:
        with output.waiting("loading"):
            from ...stages.search.export.stage import export_index

        done = export_index(index, to, table, model, output, width)
        rows = [("to", done.to), ("model", f"{done.model}, {done.width} numbers a window")]
        rows.append(("windows", f"{done.windows}; {done.written} written now in {duration(done.seconds)}"))
        if done.deleted:
            rows.append(("deleted", str(done.deleted)))
        output.result(done, facts(*rows))
