"""Pickled captions are read without running code."""

import os
import pickle
import pickletools
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from teachclip.errors import DataError
from teachclip.stages.data.readers import safe_pickle
from teachclip.stages.data.readers.caption_tables import captions_in
from teachclip.stages.data.readers.safe_pickle import unpickled

WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SHARED_WORD = "the"  # one object in many places: pickles refer back to it


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pickles") / "raw-captions.pkl"


@settings(deadline=None, max_examples=50)
@given(
    st.dictionaries(
        WORDS, st.lists(st.one_of(st.lists(WORDS | st.just(SHARED_WORD)), st.tuples(WORDS, WORDS), WORDS)), max_size=4
    ),
    st.integers(0, pickle.HIGHEST_PROTOCOL),
)
def test_every_protocol_comes_back(file: Path, captions: dict[str, Any], protocol: int) -> None:
    file.write_bytes(pickle.dumps(captions, protocol))
    assert unpickled(file) == captions


@pytest.mark.parametrize(
    "data",
    [
        b"(dp0\nS'v1'\np1\n(lp2\n(lp3\nS'a'\np4\naS'caf\\xe9'[:0]\n",  # cut off inside a string's quotes
        b"\x80\x02}q\x00U\x02v1q\x01]q\x02]q\x03(U\x01aq\x04U\x04catsq\x05ea",  # no end
    ],
)
def test_a_pickle_that_is_cut_off_says_so(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    with pytest.raises(DataError, match="not a pickle that can be read") as caught:
        unpickled(file)
    assert caught.value.where == str(file)


def test_pickles_of_python_2(file: Path) -> None:
    """Byte strings, which hold UTF-8, and old protocols; in the form that MSVD's captions have."""
    file.write_bytes(b"(dp0\nS'v1'\np1\n(lp2\n(lp3\nS'a'\np4\naS'cat'\np5\naa(lp6\ng4\naVcaf\\u00e9\np7\naas.")
    assert captions_in(unpickled(file), file) == {"v1": ("a cat", "a café")}
    for written, meant in (
        (r"'caf\xc3\xa9'", "café"),
        (r"'caf\xe9'", "café"),
        (r"'it\'s\t'", "it's\t"),
        ('"it\'s"', "it's"),
    ):
        file.write_bytes(f"(dp0\nS'v1'\np1\n(lp2\nS{written}\np3\nas.".encode())
        assert captions_in(unpickled(file), file) == {"v1": (meant,)}
    for written in ("a", "'a", "'a'b'", "'a' + 'b'", r"'a\d'", "'a'.upper()", ""):
        file.write_bytes(f"(dp0\nS'v1'\np1\n(lp2\nS{written}\np3\nas.".encode())
        with pytest.raises(DataError, match="not quoted as Python 2 does"):
            unpickled(file)
    text = "café".encode()
    words = b"".join(b"U" + struct.pack("<B", len(word)) + word for word in (b"a", text))
    file.write_bytes(b"\x80\x02}q\x00U\x02v1]q\x01](" + words + b"eas.")
    assert captions_in(unpickled(file), file) == {"v1": ("a café",)}


class _Runs:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_runs_a_command_is_refused_and_not_run(file: Path, protocol: int) -> None:
    touched = file.parent / "touched"
    file.write_bytes(pickle.dumps({"video": [["a", _Runs(f"touch {touched}")]]}, protocol))
    with pytest.raises(DataError, match=r"opcode (GLOBAL \(posix system\)|STACK_GLOBAL) at byte \d+; nothing") as told:
        unpickled(file)
    assert told.value.where == str(file)
    assert not touched.exists()


ALLOWED = {
    *("PROTO", "FRAME", "MARK", "STOP", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT", "GET", "BINGET", "LONG_BINGET"),
    *("EMPTY_DICT", "DICT", "SETITEM", "SETITEMS", "EMPTY_LIST", "LIST", "APPEND", "APPENDS"),
    *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING", "SHORT_BINSTRING"),
}


@pytest.mark.parametrize("opcode", [each for each in pickletools.opcodes if each.name not in ALLOWED])
def test_every_other_opcode_is_refused(file: Path, opcode: pickletools.OpcodeInfo) -> None:
    """With values of its kind on the stack, so that it would find what it works on."""
    argument = b"" if opcode.arg is None else ARGUMENTS[opcode.arg.name]
    file.write_bytes(b"\x80\x04](](](" + opcode.code.encode("latin-1") + argument + b".")
    with pytest.raises(DataError, match=f"holds more than captions: opcode {opcode.name}"):
        unpickled(file)


ARGUMENTS = {
    "decimalnl_short": b"1\n", "decimalnl_long": b"1L\n", "int4": b"\0" * 4, "uint1": b"\0", "uint2": b"\0\0",
    "uint4": b"\0" * 4, "uint8": b"\0" * 8, "long1": b"\x01\x01", "long4": b"\x01\0\0\0\x01", "floatnl": b"1.0\n",
    "float8": b"\0" * 8, "bytes1": b"\x01a", "bytes4": b"\x01\0\0\0a", "bytes8": b"\x01" + b"\0" * 7 + b"a",
    "bytearray8": b"\x01" + b"\0" * 7 + b"a", "stringnl_noescape": b"posix\n", "stringnl_noescape_pair": b"posix\na\n",
}  # fmt: skip


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04a.",  # append to nothing
        b"\x80\x04]]s.",  # an item into a list
        b"\x80\x04}(]]u.",  # a key that is no string
        b"\x80\x04}(\x8c\x01au.",  # a key without a value
        b"\x80\x04h\x05.",  # fetch what was never kept
        b"\x80\x04e.",  # no mark
        b"\x80\x04(\x85.",  # a tuple of a mark
        b"\x80\x04]].",  # two values
        b"\x80\x04.",  # none
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7fab.",  # a string of 8 EiB
        b"r\xff\xff\xff\xff.",  # memo slot 4,294,967,295
        b"",
        b"not a pickle",
    ],
)
def test_nonsense_is_an_error_and_no_crash(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    with pytest.raises(DataError):
        captions_in(unpickled(file), file)


@settings(deadline=None, max_examples=50)
@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(file: Path, data: bytes) -> None:
    for start in (b"", b"\x80\x02}(U\x01a]("):
        file.write_bytes(start + data + b".")
        with suppress(DataError):
            captions_in(unpickled(file), file)


def test_one_list_named_again_and_again_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand names for a thousand captions of a thousand words come in 6 kB and would take gigabytes."""
    words = ["word"] * 1000
    file.write_bytes(pickle.dumps(dict.fromkeys(map(str, range(1000)), [words] * 1000)))
    assert file.stat().st_size < 20_000
    monkeypatch.setattr("teachclip.stages.data.readers.caption_tables.MAX_CHARACTERS", 20_000_000)
    with pytest.raises(DataError, match="again and again"):
        captions_in(unpickled(file), file)


def test_a_list_that_holds_itself_is_refused(file: Path) -> None:
    endless: list[Any] = []
    endless.append(endless)
    file.write_bytes(pickle.dumps({"v": endless}))
    with pytest.raises(DataError, match="not a string"):
        captions_in(unpickled(file), file)


def test_more_opcodes_than_captions_have_are_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safe_pickle, "MAX_OPCODES", 1000)
    file.write_bytes(b"]" * 2000 + b".")
    with pytest.raises(DataError, match="more than 1,000 opcodes"):
        unpickled(file)
    monkeypatch.setattr(safe_pickle, "MAX_BYTES", 100)
    with pytest.raises(DataError, match="larger than"):
        unpickled(file)


def test_the_argument_table_covers_every_opcode() -> None:
    kinds = {each.arg.name for each in pickletools.opcodes if each.name not in ALLOWED and each.arg is not None}
    assert kinds <= ARGUMENTS.keys()
