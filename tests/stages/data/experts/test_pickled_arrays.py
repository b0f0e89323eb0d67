"""Pickled arrays are read without running code and without taking the file into memory."""

import os
import pickle
import pickletools
import resource
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from teachclip.errors import DataError
from teachclip.stages.data.experts.pickled_arrays import PickledArray, unpickled_arrays

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
DTYPES = ("float16", "float32", ">f4", "float64", "int8", "uint8", "int64", ">i2", "bool")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pickles") / "features.pkl"


def read(value: Any) -> Any:
    """With arrays in place of what stands for them."""
    if isinstance(value, PickledArray):
        return value.read()
    if isinstance(value, list | tuple):
        return [read(each) for each in value]
    return {key: read(each) for key, each in value.items()} if isinstance(value, dict) else value


def same(found: Any, wanted: Any) -> None:
    if isinstance(wanted, np.ndarray):
        assert found.dtype == wanted.dtype
        np.testing.assert_array_equal(found, wanted)
    elif isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        for key in wanted:
            same(found[key], wanted[key])
    elif isinstance(wanted, list):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            same(one, other)
    else:
        np.testing.assert_equal(found, wanted)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_of_every_protocol_and_type_come_back(file: Path, protocol: int, dtype: str) -> None:
    rng = np.random.default_rng(0)
    long = rng.integers(0, 2 if dtype == "bool" else 100, (7, 300)).astype(dtype)
    features = {
        "video0": long,
        "video1": long[0],
        "fortran": np.asfortranarray(long),
        "view": long[::2, ::3],
        "short": long[0, :3],
        "none": np.zeros((0, 300), dtype),
        "point": np.array(3, dtype),
        "missing": float("nan"),
        "scalar": np.float32(0.5),
        "same": long,
        "words": [long[:2], long[:0], [1, -70000, 2**40, True, None]],
    }
    file.write_bytes(pickle.dumps(features, protocol))
    same(read(unpickled_arrays(file)), features)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 40), st.integers(0, 70), st.sampled_from(DTYPES), st.sampled_from(PROTOCOLS), st.booleans())
def test_arrays_of_any_shape_come_back(
    file: Path, rows: int, width: int, dtype: str, protocol: int, flat: bool
) -> None:
    array = np.random.default_rng(rows).integers(0, 2, (rows, width)).astype(dtype)
    file.write_bytes(pickle.dumps({"v": array[0] if flat and rows else array}, protocol))
    same(read(unpickled_arrays(file)), {"v": array[0] if flat and rows else array})


def of_python_2(array: NDArray[np.float32], protocol: int) -> bytes:
    """{'café': array} as cPickle of Python 2 and NumPy 1 writes it: values are a string, names are bytes."""
    rows, width = array.shape
    if protocol == 0:
        written = repr(array.tobytes())[1:].encode()
        shape = f"(I{rows}\nI{width}\nt".encode()
        return (
            b"(dp1\nS'caf\\xc3\\xa9'\np2\ncnumpy.core.multiarray\n_reconstruct\np3\n(cnumpy\nndarray\np4\n(I0\ntS'b'\n"
            b"tRp5\n(I1\n" + shape + b"cnumpy\ndtype\np6\n(S'f4'\nI0\nI1\ntRp7\n(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nS"
            + written + b"\np8\ntbs."
        )  # fmt: skip
    data = b"T" + struct.pack("<I", array.nbytes) + array.tobytes()
    return (
        b"\x80\x02}q\x01U\x05caf\xc3\xa9q\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85"
        b"U\x01b\x87Rq\x05(K\x01" + b"K" + bytes([rows]) + b"K" + bytes([width]) + b"\x86cnumpy\ndtype\nq\x06U\x02f4K"
        b"\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89" + data + b"tbs."
    )


@pytest.mark.parametrize("protocol", [0, 2])
@pytest.mark.parametrize("rows", [1, 50])
def test_arrays_of_python_2_come_back(file: Path, protocol: int, rows: int) -> None:
    array = np.random.default_rng(1).random((rows, 9)).astype(np.float32)
    file.write_bytes(of_python_2(array, protocol))
    same(read(unpickled_arrays(file)), {"café": array})


def test_values_stay_in_the_file_until_they_are_asked_for(file: Path) -> None:
    file.write_bytes(pickle.dumps({"a": np.ones((100, 100)), "b": np.zeros(4)}))
    found = unpickled_arrays(file)
    assert (found["a"].shape, found["a"].dtype) == ((100, 100), np.float64)
    file.write_bytes(b"")
    with pytest.raises(DataError, match="ends too early") as caught:
        found["a"].read()
    assert caught.value.where == str(file)
    same(found["b"].read(), np.zeros(4))


MEASURED = """
import resource, sys
from pathlib import Path
import numpy
from teachclip.stages.data.experts.pickled_arrays import unpickled_arrays
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
total = sum(float(array.read().sum()) for array in unpickled_arrays(Path(sys.argv[1])).values())
print(total, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def peak_of_reading(path: Path, videos: int, megabytes: int, protocol: int) -> int:
    """Bytes that reading every array of a file of `videos` arrays took beyond the imports."""
    array = np.ones((megabytes * 250, 1000), np.float32)
    with path.open("wb") as out:
        pickler = pickle.Pickler(out, protocol)
        pickler.fast = True  # remembers nothing, or the arrays would be one
        pickler.dump({f"video{k}": array for k in range(videos)})
    ran = subprocess.run([sys.executable, "-c", MEASURED, str(path)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    total, peak = ran.stdout.split()
    assert float(total) == videos * array.size
    return int(peak)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    peak = peak_of_reading(tmp_path / "features.pkl", videos=150, megabytes=2, protocol=4)
    assert (tmp_path / "features.pkl").stat().st_size > 300 * 10**6
    assert peak < 40 * 2**20


@pytest.mark.slow
@pytest.mark.parametrize("protocol", [2, 4])
def test_four_gigabytes_are_read_in_less_than_one(tmp_path: Path, protocol: int) -> None:
    peak = peak_of_reading(tmp_path / "features.pkl", videos=1000, megabytes=4, protocol=protocol)
    assert (tmp_path / "features.pkl").stat().st_size > 4 * 10**9
    assert peak < 10**9


class _Runs:
    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> Any:
        return self.call, self.arguments


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_pickle_that_runs_a_command_is_refused_by_name_and_not_run(file: Path, protocol: int) -> None:
    touched = file.parent / "touched"
    for value in (_Runs(os.system, f"touch {touched}"), [np.ones(3), _Runs(os.system, f"touch {touched}")]):
        file.write_bytes(pickle.dumps({"video": value}, protocol))
        with pytest.raises(DataError, match=r"holds more than arrays: opcode (STACK_)?GLOBAL \(posix system\)") as told:
            unpickled_arrays(file)
        assert told.value.where == str(file)
    assert not touched.exists()


@pytest.mark.parametrize(
    "called",
    [
        "builtins eval", "builtins getattr", "numpy load", "numpy fromfile", "numpy.core.multiarray fromfile",
        "numpy dtype.type", "numpy ndarray.tofile", "os _reconstruct", "numpy.core.multiarray scalar.__class__",
        "codecs encode", "_codecs decode", "numpy.core._internal _reconstruct", "torch._utils _rebuild_tensor_v2",
    ],
)  # fmt: skip
@pytest.mark.parametrize("opcode", ["GLOBAL", "STACK_GLOBAL", "INST"])
def test_no_other_name_is_known(file: Path, called: str, opcode: str) -> None:
    module, name = called.split(" ")
    if opcode == "STACK_GLOBAL":
        data = b"".join(b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, name)) + b"\x93."
    else:
        data = (b"c" if opcode == "GLOBAL" else b"(i") + f"{module}\n{name}\n".encode() + b"."
    file.write_bytes(b"\x80\x04" + data)
    with pytest.raises(DataError, match=rf"opcode {opcode} \({module} {name}\) at byte \d+; nothing of it was run"):
        unpickled_arrays(file)


REFUSED = {
    *("INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "PERSID", "BINPERSID", "EXT1", "EXT2", "EXT4", "DUP", "POP", "POP_MARK"),
    *("EMPTY_SET", "ADDITEMS", "FROZENSET", "NEXT_BUFFER", "READONLY_BUFFER"),
}
ARGUMENTS = {"stringnl_noescape_pair": b"a\nb\n", "stringnl_noescape": b"a\n", "uint1": b"\0", "uint2": b"\0\0",
             "int4": b"\0" * 4}  # fmt: skip


@pytest.mark.parametrize("opcode", [each for each in pickletools.opcodes if each.name in REFUSED])
def test_opcodes_that_make_objects_are_refused(file: Path, opcode: pickletools.OpcodeInfo) -> None:
    argument = b"" if opcode.arg is None else ARGUMENTS[opcode.arg.name]
    file.write_bytes(b"\x80\x04](](](" + opcode.code.encode("latin-1") + argument + b".")
    with pytest.raises(DataError, match=f"holds more than arrays: opcode {opcode.name}"):
        unpickled_arrays(file)


RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
F4 = b"cnumpy\ndtype\n\x8c\x02f4K\x00K\x01\x87R(K\x03\x8c\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"]\x8c\x01ab.", "BUILD"),  # the state of a list
        (b"]]R.", "REDUCE"),  # a list that is called
        (b"cnumpy\nndarray\n)R.", "REDUCE"),  # an array class that is called
        (b"cnumpy\ndtype\n\x8c\x02O8K\x00K\x01\x87R.", "of type O8"),
        (b"cnumpy\ndtype\n\x8c\x03V12K\x00K\x01\x87R.", "of type V12"),
        (b"c_codecs\nencode\n\x8c\x01a\x8c\x05rot13\x86R.", "REDUCE"),
        (RECONSTRUCT + b"(K\x01K\x03\x85" + F4 + b"\x89]tb.", "objects"),
        (RECONSTRUCT + b"(K\x01K\x03\x85" + F4 + b"\x89C\x04abcdtb.", "an array of 12 bytes for which there are 4"),
        (RECONSTRUCT + b"(K\x01J\xff\xff\xff\xff\x85" + F4 + b"\x89C\x00tb.", "shape"),
        (
            RECONSTRUCT + b"(K\x01\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x85" + F4 + b"\x89C\x00tb.",
            "for which there are 0",
        ),
        (b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7fab.", "ends inside"),  # bytes of 8 EiB
        (b"\x8b\xff\xff\xff\x7f.", "absurdly long"),  # a number of 2 GiB
        (b"L" + b"9" * 1000 + b"L\n.", "absurdly long"),
    ],
)
def test_nonsense_is_refused_in_words(file: Path, data: bytes, why: str) -> None:
    file.write_bytes(b"\x80\x04" + data)
    with pytest.raises(DataError, match=why):
        unpickled_arrays(file)


@pytest.fixture(scope="module")
def whole() -> list[bytes]:
    features = {"a": np.arange(300, dtype=np.float32), "b": [np.ones((2, 2)), float("nan")], "c": np.float64(1)}
    return [pickle.dumps(features, protocol) for protocol in PROTOCOLS]


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(PROTOCOLS), st.floats(0, 1, exclude_max=True))
def test_a_file_that_is_cut_off_is_refused(file: Path, whole: list[bytes], protocol: int, where: float) -> None:
    data = whole[protocol]
    file.write_bytes(data[: int(where * len(data))])
    with pytest.raises(DataError):
        read(unpickled_arrays(file))


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(PROTOCOLS), st.floats(0, 1, exclude_max=True), st.integers(0, 255))
def test_a_flipped_byte_is_read_or_refused(
    file: Path, whole: list[bytes], protocol: int, where: float, value: int
) -> None:
    data = bytearray(whole[protocol])
    data[int(where * len(data))] = value
    file.write_bytes(data)
    with suppress(DataError):
        read(unpickled_arrays(file))


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(file: Path, data: bytes) -> None:
    for start in (b"", RECONSTRUCT + b"(K\x01", RECONSTRUCT + b"(K\x01K\x03\x85" + F4):
        file.write_bytes(b"\x80\x04" + start + data + b".")
        with suppress(DataError):
            read(unpickled_arrays(file))


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        unpickled_arrays(tmp_path / "none.pkl")
    with pytest.raises(DataError, match="cannot be read"):
        unpickled_arrays(tmp_path)


def test_peak_is_measured_in_kilobytes_here() -> None:
    told = Path("/proc/self/status").read_text()
    kilobytes = int(told.partition("VmHWM:")[2].split()[0])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss == pytest.approx(kilobytes, rel=0.1)
