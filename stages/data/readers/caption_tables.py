"""Captions by video id, in each of the shapes that data sets publish them in."""

from collections import defaultdict
from pathlib import Path
from typing import Any

from ....errors import DataError
from ....remedies import ReadPage, Remedy
from .safe_pickle import unpickled
from .text_files import json_of, kind_of

Captions = dict[str, tuple[str, ...]]
MAX_CAPTIONS, MAX_CHARACTERS = 20_000_000, 1 << 31  # a small pickle can name one list a million times


def read_captions(path: Path) -> Captions:
    """Captions by id of a file: a pickle, else JSON.

    Raises:
        DataError: it cannot be read, or has another shape than those of `captions_in`.
    """
    return captions_in(unpickled(path) if path.suffix == ".pkl" else json_of(path), path)


def captions_in(document: Any, path: Path) -> Captions:
    """Captions by id, in file order.

    Shapes: MSR-VTT and TeachCLIP's VATEX {"sentences": [{"video_id", "caption"}]}; SGN's {id: {number: caption}};
    MSVD {id: [caption]} or {id: [[word]]}; VATEX [{"videoID", "enCap": [caption]}] and CLIP2Video's {id: {"enCap"}}.

    Raises:
        DataError: another shape; names the key.
    """
    if isinstance(document, dict) and "sentences" in document:
        return _sentences(document["sentences"], path)
    if isinstance(document, list):
        return _records(document, path)
    if not isinstance(document, dict):
        raise _wrong(path, "", f"holds {kind_of(document)}, not captions by video")
    size = _Size(path)
    return {_text(id, path, "an id"): size.counted(_captions(value, path, str(id))) for id, value in document.items()}


def _sentences(entries: Any, path: Path) -> Captions:
    found: dict[str, list[str]] = defaultdict(list)
    for number, entry in enumerate(_list(entries, path, "sentences")):
        key = f"sentences[{number}]"
        video, caption = (_field(entry, name, path, key) for name in ("video_id", "caption"))
        found[_text(video, path, f"{key}.video_id")].append(_text(caption, path, f"{key}.caption"))
    return {id: tuple(captions) for id, captions in found.items()}


def _records(entries: list[Any], path: Path) -> Captions:
    found: Captions = {}
    for number, entry in enumerate(entries):
        key = f"[{number}]"
        id = _text(_field(entry, "videoID", path, key), path, f"{key}.videoID")
        found[id] = _captions(entry, path, f"{key} ({id})")
    return found


def _captions(value: Any, path: Path, key: str) -> tuple[str, ...]:
    if isinstance(value, dict):
        value = value["enCap"] if "enCap" in value else list(value.values())
    return tuple(_caption(one, path, f"{key}[{k}]") for k, one in enumerate(_list(value, path, key)))


def _caption(value: Any, path: Path, key: str) -> str:
    if isinstance(value, list | tuple):
        return " ".join(_text(word, path, key) for word in value)
    return _text(value, path, key)


class _Size:
    """What a table comes to when everything it names more than once is written out."""

    def __init__(self, path: Path) -> None:
        self.path, self.captions, self.characters = path, 0, 0

    def counted(self, captions: tuple[str, ...]) -> tuple[str, ...]:
        self.captions += len(captions)
        self.characters += sum(map(len, captions))
        if self.captions > MAX_CAPTIONS or self.characters > MAX_CHARACTERS:
            raise _wrong(self.path, "", "names the same captions again and again: more of them than memory can hold")
        return captions


def _field(entry: Any, name: str, path: Path, key: str) -> Any:
    if not isinstance(entry, dict) or name not in entry:
        found = f"; found: {', '.join(map(str, entry))}" if isinstance(entry, dict) else f", it is {kind_of(entry)}"
        raise _wrong(path, key, f"has no {name!r}{found}")
    return entry[name]


def _list(value: Any, path: Path, key: str) -> Any:
    if not isinstance(value, list | tuple):
        raise _wrong(path, key, f"is {kind_of(value)}, not a list")
    return value


def _text(value: Any, path: Path, key: str) -> str:
    if not isinstance(value, str):
        raise _wrong(path, key, f"is {kind_of(value)}, not a string")
    return value


def _wrong(path: Path, key: str, what: str) -> DataError:
    shown = key if len(key) <= 80 else key[:77] + "..."
    return DataError(
        f"{shown} {what}".strip(), where=str(path), hint=Remedy("what this file looks like", ReadPage("guide/data"))
    )
