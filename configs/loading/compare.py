"""What separates two configurations, key by key, with the reasons that stand beside the values."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..schema import Config
from .load import checked, read_given
from .yaml_lines import Marked, YamlPlace

_COMMENT = re.compile(r"""^(?:[^'"#]|'[^']*'|"[^"]*"|(?<=\S)#)*\s#\s*(?P<text>.*)$""")
_ABSENT = object()


@dataclass(frozen=True)
class Side:
    """What one configuration has for a key.

    Attributes:
        value: plain data; None also where the key is absent.
        given: whether the key is there: entries of lists and optional sections may be missing on one side.
        reason: the comment on the value's line, in the file that sets it; None when there is none or nobody sets it.
    """

    value: Any
    given: bool
    reason: str | None


@dataclass(frozen=True)
class Difference:
    """A key, dotted, for which two configurations differ."""

    key: str
    first: Side
    second: Side


def differences(first: Path, second: Path, overrides: Sequence[str] = ()) -> list[Difference]:
    """The keys for which `first` and `second`, changed by `overrides`, differ, in the schema's order.

    Defaults are worked in, so that what one of them leaves out is compared too. Paths are compared as they are written.

    Raises:
        ConfigError: see `load_config`.
    """
    given = read_given(first), read_given(second, overrides)
    one, other = (dict(_leaves(checked(marked).model_dump(mode="json"))) for marked in given)
    keys = [*one, *(key for key in other if key not in one)]
    return [
        Difference(key, *(_side(flat, key, marked) for flat, marked in zip((one, other), given, strict=True)))
        for key in keys
        if one.get(key, _ABSENT) != other.get(key, _ABSENT)
    ]


def unequal(configs: Sequence[Config]) -> dict[str, list[Any]]:
    """The keys, dotted and in the schema's order, whose values are not the same in all of `configs`, with the value of
    each; None also where a key is absent."""
    flats = [dict(_leaves(config.model_dump(mode="json"))) for config in configs]
    keys = dict.fromkeys(key for flat in flats for key in flat)
    apart = [key for key in keys if any(flat.get(key, _ABSENT) != flats[0].get(key, _ABSENT) for flat in flats)]
    return {key: [flat.get(key) for flat in flats] for key in apart}


def _leaves(tree: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """Values by dotted key; the entries of a list of sections by their number."""
    if isinstance(tree, list) and any(isinstance(entry, dict) for entry in tree):
        tree = {str(number): entry for number, entry in enumerate(tree)}
    if isinstance(tree, Mapping) and tree:
        for key, child in tree.items():
            yield from _leaves(child, f"{above}.{key}" if above else key)
    else:
        yield above, tree


def _side(flat: Mapping[str, Any], key: str, given: Marked) -> Side:
    keys = tuple(int(part) if part.isdecimal() else part for part in key.split("."))
    place = _place(given, keys)
    return Side(flat.get(key), key in flat, None if place is None else _comment(place))


def _place(given: Marked, keys: tuple[str | int, ...]) -> YamlPlace | None:
    """Where the value at `keys` was set; None where it is a default."""
    for key in keys:
        children = given.value
        if isinstance(children, dict) and key in children:
            given = children[str(key)]
        elif isinstance(children, list) and isinstance(key, int) and key < len(children):
            given = children[key]
        else:
            return None
    return given.place


def _comment(place: YamlPlace) -> str | None:
    if place.line is None:  # --set
        return None
    lines = Path(place.source).read_text(encoding="utf-8-sig").splitlines()
    found = _COMMENT.match(lines[place.line - 1])
    return found["text"].strip() or None if found else None
