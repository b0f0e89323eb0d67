"""How a graph is kept: as ONNX, which onnxruntime runs, or as torch.export has it."""

import importlib.util
import io
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from torch import Tensor
from torch.export import ExportedProgram

from ....errors import ConfigError
from .towers import OUTPUT, Precision, Tower

OPSET = 20
ONE_FILE = 1 << 30
"""Bytes of weights: a model of more keeps them in a file beside, as ONNX files end at 2 GiB."""
_NEEDS = ("onnx", "onnxscript", "onnxruntime")

type FormName = Literal["onnx", "torch"]
type Run = Callable[[Sequence[Tensor]], Tensor]


@dataclass(frozen=True)
class Form:
    """Attributes:
    ending: of its files.
    write: a tower's graph into a file; the mapping is told in the file, where it can be.
    load: the file as what makes vectors float32 [N, D] of inputs, on the CPU.
    """

    ending: str
    write: Callable[[Tower, ExportedProgram, Path, Mapping[str, str]], None]
    load: Callable[[Path], Run]


def form_of(name: FormName, precision: Precision) -> Form:
    """The form of this name, for weights of this precision.

    Raises:
        ConfigError: a library that it needs is not installed; it has no such weights.
    """
    if name == "torch" and precision == "int8":
        raise ConfigError("weights in int8 are of ONNX alone", hint="export it as ONNX, or in float16")
    missing = [] if name == "torch" else [each for each in _NEEDS if importlib.util.find_spec(each) is None]
    if missing:
        raise ConfigError(
            f"ONNX needs {', '.join(missing)}: not installed here",
            hint="install them with the extra: pip install 'teachclip[onnx]'",
        )
    return _INT8 if precision == "int8" else _FORMS[name]


def _write_onnx(tower: Tower, program: ExportedProgram, path: Path, about: Mapping[str, str]) -> None:
    with _quiet("onnxscript"):  # warns of what it leaves as it is
        made = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(tower.inputs),
            output_names=[OUTPUT],
            verbose=False,
        )
    assert made is not None
    model: Any = made.model
    for value, dims in zip(
        (*model.graph.inputs, *model.graph.outputs), (*tower.dims, {0: tower.dims[0][0]}), strict=True
    ):
        for place, name in dims.items():
            value.shape[place] = name
    for node in model.graph:
        node.metadata_props.clear()  # where its code lies on this machine
    model.metadata_props.update(about)
    made.save(path, external_data=_size(program) > ONE_FILE)


def _write_int8(tower: Tower, program: ExportedProgram, path: Path, about: Mapping[str, str]) -> None:
    """Weights in int8, and what they are multiplied with too, as it comes."""
    from onnxruntime.quantization import quantize_dynamic

    with TemporaryDirectory(dir=path.parent) as folder, _quiet(""):  # advises to optimise first, for other models
        whole = Path(folder) / path.name
        _write_onnx(tower, program, whole, about)
        # Of 7 bits: processors without instructions for int8 add up products in 16 bits, and 8 would overflow.
        quantize_dynamic(whole, path, reduce_range=True, use_external_data_format=_size(program) > ONE_FILE)


def _size(program: ExportedProgram) -> int:
    return sum(value.nbytes for value in program.state_dict.values())


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _load_onnx(path: Path) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]

    def run(given: Sequence[Tensor]) -> Tensor:
        (found,) = session.run(None, {name: value.numpy() for name, value in zip(names, given, strict=True)})
        return torch.from_numpy(found)

    return run


def _write_torch(tower: Tower, program: ExportedProgram, path: Path, about: Mapping[str, str]) -> None:
    held = io.BytesIO()  # on a full disk torch's own file ends the process
    torch.export.save(program, held, extra_files=dict(about))
    path.write_bytes(held.getbuffer())


def _load_torch(path: Path) -> Run:
    module = torch.export.load(path).module()

    def run(given: Sequence[Tensor]) -> Tensor:
        with torch.no_grad():
            found: Tensor = module(*given)
        return found

    return run


_INT8 = Form(".onnx", _write_int8, _load_onnx)
_FORMS = {"onnx": Form(".onnx", _write_onnx, _load_onnx), "torch": Form(".pt2", _write_torch, _load_torch)}
