"""What a cache was made from: digests of its inputs, and an identity that is compared field by field."""

import hashlib
import json
from collections.abc import Iterable, Mapping

import numpy as np

from ...errors import CacheMismatchError
from ...remedies import Hint

type JSON = bool | int | float | str | list[JSON] | dict[str, JSON] | None

DIGEST_BYTES = 16


def digest(*parts: bytes | memoryview) -> bytes:
    """BLAKE2b of the parts, one after the other, in 16 bytes."""
    total = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        total.update(part)
    return total.digest()


def digest_of(parts: Iterable[bytes | str]) -> str:
    """32 hexadecimal digits that stand for many parts, in their order; where one ends and the next begins counts."""
    total = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        data = part.encode(errors="surrogatepass") if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "little") + data)
    return total.hexdigest()


def text_digest(caption: str) -> bytes:
    """16 bytes that stand for a caption: BLAKE2b of its UTF-8 bytes, exactly as the caption file gives it."""
    return digest(caption.encode(errors="surrogatepass"))


def array_digest(*arrays: np.ndarray) -> bytes:
    """16 bytes that stand for arrays: their types, shapes and values (little-endian, C order)."""
    parts: list[bytes | memoryview] = []
    for array in arrays:
        little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        parts += [f"{little.dtype.str}{list(little.shape)};".encode(), little.tobytes()]
    return digest(*parts)


def canonical(document: JSON | Mapping[str, JSON]) -> bytes:
    """The one way a JSON document is written: keys sorted, no spaces, ASCII, finite numbers only."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def identity_digest(identity: Mapping[str, JSON]) -> str:
    """32 hexadecimal digits that stand for an identity."""
    return digest(canonical(identity)).hex()


def flatten(identity: Mapping[str, JSON], prefix: str = "") -> dict[str, JSON]:
    """Nested identities as one flat dict: {"frames": {"choice": "head"}} becomes {"frames.choice": "head"}."""
    flat: dict[str, JSON] = {}
    for key, value in identity.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def differences(
    expected: Mapping[str, JSON], found: Mapping[str, JSON], what: str = "the cache", other: str = "now it is"
) -> list[str]:
    """One line per field in which two flat identities differ, with both values.

    Args:
        what: in words, what was found; other: what stands before the value that was expected.
    """

    def show(identity: Mapping[str, JSON], field: str) -> str:
        return json.dumps(identity[field]) if field in identity else "not set"

    fields = sorted(expected.keys() | found.keys())
    return [
        f"{field}: {what} has {'none' if field not in found else show(found, field)}, {other} {show(expected, field)}"
        for field in fields
        if show(expected, field) != show(found, field)
    ]


def refuse_difference(
    expected: Mapping[str, JSON],
    found: Mapping[str, JSON],
    where: str,
    hint: Hint | None = None,
    what: str = "the cache",
    other: str = "now it is",
) -> None:
    """Refuse what was made from something else.

    Args:
        expected: flat identity of what is asked for now.
        found: flat identity that it was made from.
        where: it lies.
        hint: what to do.
        what, other: as `differences` tells them.

    Raises:
        CacheMismatchError: `details` has one line per field that differs, with both values.
    """
    lines = differences(expected, found, what, other)
    if lines:
        names = ", ".join(line.split(":")[0] for line in lines)
        raise CacheMismatchError(f"made from something else ({names})", where=where, hint=hint, details=lines)
