"""Pydantic's findings in plain words: where, which key, the offending value, what is allowed, the nearest name."""

import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ...errors import ConfigError
from ...plurals import counted
from ..schema import Config, Section
from .yaml_lines import Marked, YamlPlace

type Keys = tuple[str | int, ...]

_KINDS = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "path_type": "text",
    "tuple_type": "a list, [...]",
    "dict_type": "a section: keys and values below it",
    "list_type": "a list, [...]",
    "model_type": "a section: keys and values below it",
    "model_attributes_type": "a section: keys and values below it",
    "string_pattern_mismatch": "a name of letters, digits, '.', '_' and '-' that begins with a letter or digit",
}
_BOUNDS = {
    "greater_than": ("greater than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}


def config_error(error: ValidationError, given: Marked, root: type[Section] = Config) -> ConfigError:
    """What `error` found in the configuration `given`, a `root`, each finding with its place."""
    findings = [_finding(detail, given, root) for detail in error.errors(include_url=False)]
    findings.sort(key=lambda finding: (finding[0].source, finding[0].line or 0))
    if len(findings) == 1:
        place, text = findings[0]
        return ConfigError(text, where=str(place))
    return ConfigError(
        f"{counted(len(findings), 'mistake')} in the configuration",
        details=[f"{place}: {text}" for place, text in findings],
    )


def nearest(name: str, names: Sequence[str]) -> str:
    """`; did you mean ...?` when one of `names` resembles `name`, else nothing."""
    close = get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def section_at(keys: Keys, root: type[Section] = Config) -> type[Section] | None:
    """The model that describes the section at `keys`; list positions are skipped."""
    section: type[Section] | None = root
    for key in keys:
        if isinstance(key, str):
            if section is None or key not in section.model_fields:
                return None
            section = _section_of(section.model_fields[key].annotation)
    return section


def every_key(section: type[Section] = Config, above: str = "") -> Iterator[str]:
    """Every key of the schema, dotted."""
    for name, field in section.model_fields.items():
        yield f"{above}{name}"
        if below := _section_of(field.annotation):
            yield from every_key(below, f"{above}{name}.")


def _section_of(annotation: object) -> type[Section] | None:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next((found for found in map(_section_of, get_args(annotation)) if found is not None), None)


def _finding(detail: ErrorDetails, given: Marked, root: type[Section]) -> tuple[YamlPlace, str]:
    keys, kind = tuple(detail["loc"]), detail["type"]
    if kind == "value_error":  # a rule of the schema: its message starts with the key it is about
        message = detail["msg"].removeprefix("Value error, ")
        named = re.match(r"([a-z_0-9.]+): ", message)
        if named:
            keys = (*keys, *named.group(1).split("."))
        return given.find(keys).place, message
    place = given.find(keys).place
    text = _unknown_key(keys, root) if kind == "extra_forbidden" else f"{_dotted(keys)}: {_wrong_value(detail)}"
    if place.line is None and kind == "extra_forbidden":  # `--set key=value` shows the key already
        text = text.partition(": ")[2]
    return place, text


def _unknown_key(keys: Keys, root: type[Section]) -> str:
    *above, last = keys
    section = section_at(tuple(above), root)
    prefix = "".join(f"{key}." for key in above)
    siblings = {name: f"{prefix}{name}" for name in section.model_fields} if section else {}
    close = get_close_matches(str(last), siblings, n=1)
    elsewhere = [key for key in every_key(root) if key.split(".")[-1] == str(last)]
    meant = [siblings[close[0]]] if close else elsewhere[:3]
    hint = f"; did you mean {' or '.join(meant)}?" if meant else f"; known here: {', '.join(siblings)}"
    return f"{_dotted(keys)}: no such key{hint}"


def _wrong_value(detail: ErrorDetails) -> str:
    kind, context, value = detail["type"], detail.get("ctx", {}), _shown(detail["input"])
    if kind == "missing":
        return "is missing"
    if kind == "literal_error":
        allowed = re.findall(r"'([^']*)'", str(context["expected"]))
        return f"{value} is not one of {', '.join(allowed)}{nearest(str(detail['input']), allowed)}"
    if kind in _BOUNDS:
        words, bound = _BOUNDS[kind]
        return f"{value} must be {words} {context[bound]}"
    if kind in _KINDS:
        quote = "; put it in quotes" if kind in ("string_type", "path_type") and _is_scalar(detail["input"]) else ""
        return f"{value} must be {_KINDS[kind]}{quote}"
    return f"{value}: {detail['msg'][:1].lower()}{detail['msg'][1:]}"


def _is_scalar(value: object) -> bool:
    return isinstance(value, int | float)


def _shown(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _dotted(keys: Keys) -> str:
    return ".".join(str(key) for key in keys)
