"""A student, or plain CLIP, as two files that programs run without teachclip, checked before they are there.

A folder holds the text and the video tower, what the tokenizer reads, and `export.json`: whose vectors these are, what
goes in, and how far from ours they were found to be.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .... import __version__
from ....cache.storage.publish import publishing_folder
from ....errors import CheckpointError, ConfigError
from ....remedies import Again, Option, Remedy
from ...runtime.reporting import Reporter, Silent
from ..checkpoints.published import title_of
from ..named import NamedModel, named_model
from .forms import OPSET, Form, FormName, form_of
from .towers import OUTPUT, Precision, Tower, towers_of

FORMAT, VERSION = "teachclip towers", 1
SETTINGS = "export.json"
TOLERANCE = {"float32": 1e-4, "float16": 1e-2, "int8": 0.1}
"""How far a unit vector may lie from the one that the network makes in float32."""


@dataclass(frozen=True)
class ExportedModel:
    """What was written.

    Attributes:
        folder, form, precision: as asked for; model: what it is, in words; digest: vectors of equal ones are compared.
        width: numbers a vector; bytes: per tower, of its files.
        differ: per tower the farthest that a vector lies from ours; tolerance: what it may.
    """

    folder: str
    form: str
    precision: str
    model: str
    digest: str
    width: int
    bytes: dict[str, int]
    differ: dict[str, float]
    tolerance: float
    seconds: float


def export_model(
    name: str,
    folder: Path,
    form: FormName = "onnx",
    precision: Precision = "float32",
    *,
    replace: bool = False,
    reporter: Reporter | None = None,
) -> ExportedModel:
    """Write the two towers of a model into a folder, which is complete or absent.

    Args:
        name: as `named_model` has it; `@64` behind it cuts vectors.
        folder: becomes the export; it is absent or empty, or an export that is replaced.
        form: `onnx`, or `torch` for what torch.export saves.
        precision: of the weights; float16 is computed with in float32, int8 as onnxruntime does (of `onnx` alone).
        replace: an export that is there makes way for the new one.

    Raises:
        CheckpointError: the model cannot be loaded, is a teacher, cannot be made a graph of, or its graph computes
            other vectors.
        ConfigError: a library is missing; something else is in the folder; the network sees expert features.
    """
    began, reporter = time.perf_counter(), reporter or Silent()
    kept_as = form_of(form, precision)
    _refuse_others(folder, replace)
    model = named_model(
        name, "cpu", reporter, instead="export a student: this network can teach one, and re-order what it found"
    )
    sizes, differ = {}, {}
    with publishing_folder(folder) as making:
        for tower in towers_of(model.network, precision):
            differ[tower.name] = _written(tower, model, kept_as, making, precision)
            sizes[tower.name] = sum(file.stat().st_size for file in making.glob(f"{tower.name}{kept_as.ending}*"))
        tokenizer = model.network.trunk.tokenizer.save(making)
        told = _settings(model, kept_as, form, precision, differ) | {"tokenizer": tokenizer}
        (making / SETTINGS).write_text(json.dumps(told, indent=1), encoding="utf-8")
    width = model.network.vector_width
    seconds, most = time.perf_counter() - began, TOLERANCE[precision]
    return ExportedModel(
        str(folder), form, precision, model.description, model.digest, width, sizes, differ, most, seconds
    )


def _refuse_others(folder: Path, replace: bool) -> None:
    """Leave alone what is no export, and an export unless it is to be replaced."""
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists() and not (folder / SETTINGS).is_file():
        raise ConfigError("something else is there", where=str(folder), hint="name a folder that is not there yet")
    if folder.exists() and not replace:
        raise ConfigError(
            "an exported model is there", where=str(folder), hint=Remedy("replace it", Again(Option.REPLACE))
        )


def _written(tower: Tower, model: NamedModel, form: Form, folder: Path, precision: Precision) -> float:
    """Write a tower and run it; by how much it differs."""
    path = folder / f"{tower.name}{form.ending}"
    try:
        program = tower.traced()
        form.write(tower, program, path, {"teachclip.digest": model.digest, "teachclip.tower": tower.name})
        run = form.load(path)
        given = list(tower.samples())
        found = [run(each) for each in given]
    except OSError:  # a full disk is nothing of the network's
        raise
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise CheckpointError(
            f"no graph can be made of its {tower.name} tower",
            where=model.description,
            details=[f"{type(error).__name__}: {reason}"],
            hint="its trunk has parts that are not exported; teachclip itself runs it",
        ) from error
    differ = max(_difference(one, tower.expected(each)) for one, each in zip(found, given, strict=True))
    if not differ <= TOLERANCE[precision]:  # nor what is no number
        raise CheckpointError(
            f"the exported {tower.name} tower makes vectors that lie {differ:.2g} from its own, and "
            f"{TOLERANCE[precision]:g} is allowed",
            where=model.description,
            hint="run it with teachclip" if precision == "float32" else "export it in float32",
        )
    return differ


def _difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm(dim=1).max()) if one.shape == other.shape else float("inf")


def _settings(
    model: NamedModel, kept_as: Form, form: FormName, precision: Precision, differ: dict[str, float]
) -> dict[str, Any]:
    """What `export.json` tells, but for the tokenizer."""
    network = model.network
    config, trunk, width = network.config, network.trunk, network.vector_width
    pixels = trunk.pixels
    size = trunk.image_size
    ids = ["texts", config.words if network.reads_padding else "words"]
    return {
        "format": FORMAT,
        "version": VERSION,
        "teachclip": __version__,
        "model": title_of(config),
        "digest": model.digest,
        "width": width,
        "form": form,
        "opset": OPSET if form == "onnx" else None,
        "torch": torch.__version__,
        "precision": precision,
        "text": {
            "file": f"text{kept_as.ending}",
            "inputs": {"ids": {"type": "int64", "shape": ids}},
            "outputs": {OUTPUT: {"type": "float32", "shape": ["texts", width]}},
            "words": config.words,
            "differs_by": differ["text"],
        },
        "video": {
            "file": f"video{kept_as.ending}",
            "inputs": {
                "frames": {"type": "uint8", "shape": ["videos", "frames", 3, size, size], "colours": "RGB"},
                "mask": {"type": "bool", "shape": ["videos", "frames"]},
            },
            "outputs": {OUTPUT: {"type": "float32", "shape": ["videos", width]}},
            "frames": config.frames,
            "pad_to_frames": config.pooling == "afa" and not config.mask_padding and config.kind == "student",
            "differs_by": differ["video"],
        },
        "pixels": {
            "image_size": size,
            "resize_mode": pixels.resize_mode,
            "interpolation": pixels.interpolation,
            "normalised_inside": {"mean": list(pixels.mean), "std": list(pixels.std)},
        },
    }
