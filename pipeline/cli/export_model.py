"""`teachclip export-model`: a student -> its two towers as ONNX or torch.export has them."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ..wording import duration, size
from .shell.running import AsJson, Debug, Quiet, examples, running
from .shell.tables import facts


class Form(StrEnum):
    """What runs the files."""

    onnx = "onnx"
    torch = "torch"


class Precision(StrEnum):
    """How weights are kept."""

    float32 = "float32"
    float16 = "float16"
    int8 = "int8"


Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A run folder, a checkpoint, hf:OWNER/NAME, or plain CLIP as openclip:MODEL/WEIGHTS; @64 behind it cuts "
        "vectors to their first 64 numbers.",
    ),
]
Out = Annotated[Path, typer.Option("--out", metavar="FOLDER", help="The folder to be made.")]
To = Annotated[Form, typer.Option("--to", help="ONNX, for onnxruntime and others, or a program of torch.export.")]
Weights = Annotated[
    Precision,
    typer.Option("--weights", help="float16: half the bytes. int8, of ONNX: a quarter, and faster on a CPU."),
]
Force = Annotated[bool, typer.Option("--force", help="Replace an exported model that is there.")]

EXAMPLES = examples(
    "teachclip export-model runs/student --out exported",
    "teachclip export-model runs/student@64 --out exported --weights int8",
    "teachclip export-model openclip:ViT-B-32/openai --to torch --out exported",
)


def export_model(
    model: Model,
    out: Out,
    to: To = Form.onnx,
    weights: Weights = Precision.float32,
    force: Force = False,
    json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write a model's text tower and video tower for programs that run without teachclip.

    FOLDER gets both, the tokenizer's files, and export.json, which says what goes in. Each is run on inputs of several
    sizes first: where its vectors differ from teachclip's, nothing is written (docs/guide/deploy.md).
    """
    with running("export-model", json, quiet, debug) as output:
        with output.waiting("loading"):
            from ...stages.models.exported.export import export_model as export

        with output.waiting("exporting"):
            done = export(model, out, to.value, weights.value, replace=force, reporter=output)
        rows = [("written", done.folder), ("model", f"{done.model}, {done.precision} weights")]
        rows += [
            (f"{name} tower", f"{size(done.bytes[name])}, vectors at most {differ:.1g} from teachclip's")
            for name, differ in done.differ.items()
        ]
        output.result(done, facts(*rows, ("seconds", duration(done.seconds))))
