"""The numbers of a line of metrics.jsonl, each under one name."""

from collections.abc import Iterator, Mapping
from typing import Any


def numbers(line: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, float]]:
    """Names and numbers, `t2v/r1` for one inside another; the step is none of them."""
    for name, value in line.items():
        if isinstance(value, Mapping):
            yield from numbers(value, f"{above}{name}/")
        elif isinstance(value, int | float) and f"{above}{name}" != "step":
            yield f"{above}{name}", float(value)
