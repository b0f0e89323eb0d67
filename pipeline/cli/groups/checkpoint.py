"""`teachclip checkpoint`: what a checkpoint file is, and its conversion."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ....errors import ConfigError
from ....plurals import counted
from ...wording import size
from ..shell.remedies import Given
from ..shell.running import AsJson, Debug, Quiet, examples, running
from ..shell.tables import facts

if TYPE_CHECKING:
    from ....stages.models.checkpoints.inspect import Inspection

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Say what a checkpoint file is; convert published ones and back."
)


class Names(StrEnum):
    """Whose tensor names are written."""

    teachclip = "teachclip"
    published = "published"


class Pools(StrEnum):
    """How a student makes one vector of its frames."""

    afa = "afa"
    mean = "mean"


class RunBy(StrEnum):
    """Whose code runs the network."""

    teachclip = "teachclip"


File = Annotated[Path, typer.Argument(metavar="FILE", help="A checkpoint file, or a run folder.")]
Out = Annotated[Path, typer.Argument(metavar="OUT", help="The file to be written.")]
Frames = Annotated[
    int | None, typer.Option("--frames", metavar="N", min=1, help="Frame slots, where FILE does not record them.")
]
Words = Annotated[
    int | None, typer.Option("--words", metavar="N", min=3, help="Word slots, where FILE does not record them.")
]
Pooling = Annotated[
    Pools | None, typer.Option("--pooling", help="How a published student pools; by default with AFA, where it has it.")
]
As = Annotated[RunBy | None, typer.Option("--as", help="Write the TS2-Net that TeachCLIP's code runs; needs --clip.")]
ClipWeights = Annotated[
    Path | None, typer.Option("--clip", metavar="FILE", help="With --as teachclip: the plain CLIP, ViT-B-32.pt.")
]
WhoseNames = Annotated[
    Names, typer.Option("--names", help="Write our names and the configuration, or the names of the authors' code.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace OUT if it is there.")]

INSPECT_EXAMPLES = examples(
    "teachclip checkpoint inspect pytorch_model.bin",
    "teachclip checkpoint inspect work/runs/student --json",
)
CONVERT_EXAMPLES = examples(
    "teachclip checkpoint convert pytorch_model.bin xclip.safetensors",
    "teachclip checkpoint convert model_best.pth xpool.safetensors --frames 12 --words 32",
    "teachclip checkpoint convert ts2net.bin ts2net.safetensors --as teachclip --clip ViT-B-32.pt",
    "teachclip checkpoint convert work/runs/student pytorch_model.bin --names published --force",
)


@app.command(epilog=INSPECT_EXAMPLES)
def inspect(file: File, json: AsJson = False, quiet: Quiet = False, debug: Debug = False) -> None:
    """Say what FILE is, its sizes, its digest and what is odd about it.

    Recognised by names and shapes: teachclip's own checkpoints, TeachCLIP's and CLIP4Clip's students, X-CLIP, TS2-Net,
    X-Pool, DRL, and CLIP alone. A file that cannot be used is explained too, and ends with exit code 1.
    """
    with running("checkpoint", json, quiet, debug) as output:
        with output.waiting("loading"):
            from ....stages.models.checkpoints.inspect import inspect as look

            found = look(file)
        refused = found.refused
        if refused and refused.hint:
            refused = replace(refused, hint=Given().tell(refused.hint))
            found = replace(found, refused=refused)
        output.result(found, facts(*_rows(found)))
        if refused:
            hint = None if refused.hint is None else str(refused.hint)
            output.failure("error", (f"{found.file}: {refused.what}", *refused.details), hint, None)
            raise typer.Exit(1)


@app.command(epilog=CONVERT_EXAMPLES)
def convert(
    file: File,
    out: Out,
    frames: Frames = None,
    words: Words = None,
    pooling: Pooling = None,
    run_by: As = None,
    clip: ClipWeights = None,
    names: WhoseNames = Names.teachclip,
    force: Force = False,
    json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write FILE's network to OUT, in float32, complete or not at all.

    By default a safetensors file with our names, the configuration and FILE's digest. With --names published a torch
    state_dict (or safetensors, where OUT ends so) that the authors' code loads.
    """
    with running("checkpoint", json, quiet, debug) as output:
        if (run_by is None) != (clip is None):
            raise ConfigError("--as teachclip and --clip FILE belong together", hint="give both, or neither")
        with output.waiting("converting"):
            from ....stages.models.checkpoints.convert import convert as run

            done = run(
                file,
                out,
                frames=frames,
                words=words,
                pooling=None if pooling is None else pooling.value,
                clip=clip,
                names=names.value,
                force=force,
                reporter=output,
            )
        kept = f", {done.kept} of them kept though nothing uses them" if done.kept else ""
        output.result(
            done,
            facts(
                ("written", f"{done.file}, with {done.names}{"'s" * (done.names == 'teachclip')} names"),
                ("what", done.title),
                ("slots", f"{counted(done.frames, 'frame')}, {counted(done.words, 'word')}"),
                ("tensors", f"{done.tensors}{kept}"),
                ("digest", done.digest),
            ),
        )


def _rows(found: "Inspection") -> Iterator[tuple[str, object]]:
    """The facts of a file, those that are known."""
    yield "file", f"{found.file} ({found.format}, {size(found.bytes)})"
    yield "what", found.title
    if found.source:
        yield "from", f"{found.source['title']}: {_named(found.source)}"
        if "clip" in found.source:
            yield "", f"with attention of {_named(found.source['clip'])}"
    sizes = {name: str(value) for name, value in found.sizes.items()}
    if "image_size" in sizes:
        patches = f", patches of {sizes['patch_size']}" if "patch_size" in sizes else ""
        yield "image", f"{sizes['image_size']} pixels{patches}"
    if found.trunk:
        yield "trunk", _trunk(found.trunk)
    for tower, title in (("vision", "image tower"), ("text", "text tower")):
        if f"{tower}_layers" in sizes and f"{tower}_width" in sizes:
            heads = f", heads: {sizes[f'{tower}_heads']}" if f"{tower}_heads" in sizes else ""
            yield title, f"{sizes[f'{tower}_layers']} layers, width {sizes[f'{tower}_width']}{heads}"
    for name, title in (("context_length", "positions"), ("vocab_size", "vocabulary"), ("embed_dim", "D")):
        if name in sizes:
            yield title, sizes[name]
    if "temporal_layers" in sizes:
        yield "temporal", counted(int(sizes["temporal_layers"]), "layer")
    for name in ("frames", "words"):
        if name in sizes:
            yield name, f"{sizes[name]}, {'assumed' if name in found.assumed else 'recorded'}"
    if found.settings:
        yield "settings", ", ".join(f"{name} {_setting(value)}" for name, value in found.settings.items())
    types = ", ".join(f"{count} {dtype}" for dtype, count in found.dtypes.items())
    yield "tensors", f"{found.tensors}: {types}" if types else found.tensors
    yield "parameters", f"{found.parameters:,}"
    if found.logit_scale is not None:
        yield "logit scale", f"{found.logit_scale:.4f}, exp {found.scale:.2f}"
    if found.digest:
        yield "digest", found.digest
    yield from (("odd" if number == 0 else "", line) for number, line in enumerate(found.odd))


def _trunk(trunk: Mapping[str, Any]) -> str:
    told = [trunk["family"], *(trunk[key] for key in ("model", "tag") if trunk.get(key))]
    if pixels := trunk.get("pixels"):
        told.append(f"pixels {pixels['resize_mode']}, {pixels['interpolation']}, mean {_setting(pixels['mean'])}")
    return ", ".join(told)


def _named(source: Mapping[str, str]) -> str:
    return f"{source['file']}, sha256 {source['sha256'][:16]}"


def _setting(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)
