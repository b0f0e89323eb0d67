"""YAML read into plain values that know the line they stand on.

Only YAML 1.2's core types are known (`1e-4` is a number, `no` is text), no tag makes an object, a key given twice is
refused, and what a file can grow into is bounded. Whatever the text, the outcome is a `Marked` or a `ConfigError`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from ...errors import ConfigError

type Scalar = str | int | float | bool | None
type Plain = Scalar | list[Plain] | dict[str, Plain]

MAX_NODES = 20_000
_TAG = "tag:yaml.org,2002:"
_PATTERNS = {
    "null": re.compile(r"^(?:~|null|Null|NULL|)$"),
    "bool": re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"),
    "int": re.compile(r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$"),
    "float": re.compile(
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
}
_NOT_UTF_8 = re.compile(r"[\udc80-\udcff]")  # as Python holds a byte of a path
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True)
class YamlPlace:
    """Where a value was given: a file and line, or a `--set` argument. Relative paths start at `folder`."""

    source: str
    folder: Path
    line: int | None = None

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


@dataclass(frozen=True)
class Marked:
    """A value and its place; a value below a key stands where the key stands."""

    value: "Scalar | list[Marked] | dict[str, Marked]"
    place: YamlPlace

    def plain(self) -> Plain:
        """The value without its places."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value

    def child(self, key: str | int) -> "Marked | None":
        """The value below a key of a mapping, or at a place of a list; None where there is none."""
        if isinstance(self.value, dict) and key in self.value:
            return self.value[str(key)]
        if isinstance(self.value, list) and isinstance(key, int) and key < len(self.value):
            return self.value[key]
        return None

    def find(self, keys: "tuple[str | int, ...]") -> "Marked":
        """The value at `keys`, or the innermost one on the way that exists."""
        here = self
        for key in keys:
            if (below := here.child(key)) is None:
                break
            here = below
        return here


def merge(low: Marked, high: Marked) -> Marked:
    """`high` over `low`: sections are joined key by key, everything else is replaced."""
    if not (isinstance(low.value, dict) and isinstance(high.value, dict)):
        return high
    joined = dict(low.value)
    for key, child in high.value.items():
        joined[key] = merge(joined[key], child) if key in joined else child
    return Marked(joined, high.place)


def parse_yaml(text: str, place: YamlPlace, count_lines: bool = True) -> Marked:
    """The value of one YAML document.

    Args:
        text: the document.
        place: what it comes from.
        count_lines: each value stands on its own line; otherwise (`--set`) all of them stand at `place`.

    Raises:
        ConfigError: the text is not YAML, gives a key twice, uses tags, or grows too large.
    """
    return _Reader(place, count_lines).read(text)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (PyYAML's own form)


class Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.1 or 1.2 would read as something else."""


for _name, _pattern in _PATTERNS.items():
    _Loader.add_implicit_resolver(_TAG + _name, _pattern, None)
    Dumper.add_implicit_resolver(_TAG + _name, _pattern, None)


class _Reader:
    def __init__(self, place: YamlPlace, count_lines: bool) -> None:
        self.place = place
        self.count_lines = count_lines
        self.nodes = 0

    def read(self, text: str) -> Marked:
        try:
            node = yaml.compose(text, Loader=_Loader)
            return Marked(None, self.place) if node is None else self._marked(node, self._place(node))
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark is not None and self.count_lines else None
            raise ConfigError(
                f"not valid YAML: {error.problem or error.context}", where=str(self._at(line or self.place.line))
            ) from None
        except yaml.reader.ReaderError as error:
            raise ConfigError(
                f"not valid YAML: character #x{error.character:04x} at position {error.position} is not allowed",
                where=str(self.place),
            ) from None
        except RecursionError:
            raise ConfigError("nested too deeply to be a configuration", where=str(self.place)) from None
        except (ValueError, OverflowError) as error:  # from PyYAML's scanner: "\UFFFFFFFF" is no character
            raise ConfigError(f"not valid YAML: {error}", where=str(self.place)) from None

    def _at(self, line: int | None) -> YamlPlace:
        return YamlPlace(self.place.source, self.place.folder, line)

    def _place(self, node: yaml.Node) -> YamlPlace:
        return self._at(node.start_mark.line + 1) if self.count_lines else self.place

    def _marked(self, node: yaml.Node, place: YamlPlace) -> Marked:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise ConfigError(f"more than {MAX_NODES} values: not a configuration", where=str(place))
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return Marked(dict(self._items(node)), place)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return Marked([self._marked(child, self._place(child)) for child in node.value], place)
        if isinstance(node, yaml.ScalarNode):
            return Marked(self._scalar(node, place), place)
        raise self._tag_error(node, place)

    def _items(self, node: yaml.MappingNode) -> Iterator[tuple[str, Marked]]:
        seen: dict[str, YamlPlace] = {}
        for key_node, child in node.value:
            place = self._place(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError("a key must be a word", where=str(place))
            key = _printable(str(key_node.value), place)
            if key in seen:
                first = f", first at line {seen[key].line}" if self.count_lines else ""
                raise ConfigError(f"{key}: given twice{first}", where=str(place), hint="Keep one of the two.")
            seen[key] = place
            yield key, self._marked(child, place)

    def _scalar(self, node: yaml.ScalarNode, place: YamlPlace) -> Scalar:
        text, kind = str(node.value), node.tag.removeprefix(_TAG)
        if kind == "str":
            _printable(_NOT_UTF_8.sub("", text), place)
            return text
        if kind not in _PATTERNS or not _PATTERNS[kind].match(text):  # `!!int word` names a kind that it is not
            raise self._tag_error(node, place)
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        if kind == "float":
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))

    def _tag_error(self, node: yaml.Node, place: YamlPlace) -> ConfigError:
        tag = node.tag.replace(_TAG, "!!")
        return ConfigError(f"the tag {tag} is not allowed here", where=str(place), hint="Write the plain value.")


def _printable(text: str, place: YamlPlace) -> str:
    if found := _UNPRINTABLE.search(text):
        raise ConfigError(f"{text[:60]!r} holds the character {found.group()!r}", where=str(place))
    return text
