"""JSON documents that carry a checksum over their own bytes, and the groups of a store that are made of them."""

import json
import math
import re
from functools import cache
from typing import TYPE_CHECKING, Any

from .identity import canonical, digest
from .locations import Location
from .untrusted import Document, damaged, read_file

if TYPE_CHECKING:
    from zarr.abc.buffer import Buffer

METADATA = "zarr.json"
_CHECKSUM = re.compile(rb'"checksum": ?"([0-9a-f]{32})"')
_BLANK = "0" * 32


def seal(document: Document) -> bytes:
    """The document's bytes with `checksum` (top level, or in a group's attributes) filled in."""
    holder = {**document.get("attributes", document), "checksum": _BLANK}
    raw = canonical({**document, "attributes": holder} if "attributes" in document else holder)
    entry = '"checksum":"{}"'  # nothing else in the document is touched, a name of 32 zeros neither
    return raw.replace(entry.format(_BLANK).encode(), entry.format(digest(raw).hex()).encode())


def unseal(raw: bytes, path: Location) -> tuple[Document, str]:
    """The document in `raw` and its checksum.

    Raises:
        CacheError: the bytes are not those that were sealed, or not JSON.
    """
    found = _CHECKSUM.findall(raw)
    if len(found) != 1 or digest(raw.replace(found[0], _BLANK.encode())).hex() != found[0].decode():
        raise damaged(path, "damaged: its bytes do not match its checksum")
    return parse(raw, path), found[0].decode()


def parse(raw: bytes, path: Location) -> Document:
    """The JSON object in `raw`: each key once, finite numbers only.

    Raises:
        CacheError: it is none.
    """
    try:
        document = json.loads(raw, object_pairs_hook=_unique, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"not a JSON document: {error}") from error
    if not isinstance(document, dict):
        raise damaged(path, "not a JSON object")
    return document


def _unique(pairs: list[tuple[str, Any]]) -> Document:
    document = dict(pairs)
    if len(document) != len(pairs):  # another reader would take the other value
        raise ValueError("a key is there twice")
    return document


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text} is no finite number")
    return value


def group(attributes: Document) -> bytes:
    """The sealed zarr.json of a group."""
    return seal(_described(attributes))


def _described(attributes: Document) -> Document:
    """What zarr-python says of a group."""
    import zarr  # takes as long as all of this package, and whoever reads no scores need not wait for it

    store: dict[str, Buffer] = {}
    zarr.create_group(store, attributes=attributes, zarr_format=3)
    document: Document = json.loads(store[METADATA].to_bytes())
    return document


@cache
def _bare_group() -> Document:
    return _described({})


def open_group(folder: Location) -> tuple[Document, str]:
    """Attributes and checksum of the group in `folder`.

    Raises:
        CacheError: not a group of ours, or damaged.
    """
    return _opened(read_file(folder / METADATA), folder / METADATA)


def group_document(folder: Location) -> bytes:
    """The zarr.json of the group in `folder`; CacheError as for `open_group`."""
    raw = read_file(folder / METADATA)
    _opened(raw, folder / METADATA)
    return raw


def _opened(raw: bytes, path: Location) -> tuple[Document, str]:
    document, checksum = unseal(raw, path)
    attributes = document.get("attributes")
    if not isinstance(attributes, dict) or document != {**_bare_group(), "attributes": attributes}:
        raise damaged(path, "not a Zarr v3 group")
    return attributes, checksum


def whole_number(attributes: Document, key: str, least: int, most: int, path: Location) -> int:
    """The integer `attributes[key]`, refused outside least..most."""
    value = attributes.get(key)
    if type(value) is not int or not least <= value <= most:
        raise damaged(path, f"{key} is {value!r}, not a whole number of {least} to {most}")
    return value
