"""Numbers in words: units, metrics, signs; for pages and the command line."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence


def duration(seconds: float) -> str:
    """`3.2 s`, `1 min 12 s`, `2 h 05 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def latency(seconds: float) -> str:
    """`21 µs`, `41.3 ms`, `3.2 s`."""
    if seconds < 1e-3:
        return f"{float(f'{seconds * 1e6:.2g}'):g} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    return duration(seconds)


def found_of_ten(recall: float) -> str:
    """Of a search that does not look through all windows."""
    return f"through lists, which finds {100 * recall:.1f} % of the ten nearest windows"


def size(count: float) -> str:
    """Bytes: `512 B`, `1.2 MB`, `18.1 GB` (powers of ten)."""
    return _scaled(count, (" B", " kB", " MB", " GB", " TB"))


def count(number: float) -> str:
    """Operations, parameters: `512`, `1.02 k`, `151 M`, `105 G`, `1.3 T` (powers of ten)."""
    return _scaled(number, ("", " k", " M", " G", " T"))


def _scaled(number: float, units: Sequence[str]) -> str:
    for unit in units[:-1]:
        if number < 1000:
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.4g}{units[-1]}"


def operations(number: float | None, *, printed: bool = False) -> str:
    """Multiply-adds: `512`, `12.8 K`, `49.55 G`, `-` for None; `0.5 K` as the paper prints it."""
    if number is None:
        return "-"
    for unit, digits in (("", 0), (" K", 1), (" M", 1)):
        if number < 1000 and (unit or not printed):
            return f"{number:.{digits}f}{unit}"
        number /= 1000
    return f"{number:.2f} G"


def reasons(found: Iterable[tuple[str, Iterable[str], Mapping[str, str]]]) -> Iterator[str]:
    """Why costs differ from the paper's: a line for every kind of cost and reason, with the networks it is about.

    Args:
        found: networks, their costs that differ (pair, kb, video), and the reason for each of them.
    """
    names: dict[tuple[str, str], list[str]] = {}
    for name, unlike, why in found:
        for cell in unlike:
            names.setdefault((cell, why.get(cell, "not explained")), []).append(name)
    for (cell, reason), those in names.items():
        yield f"{'KB' if cell == 'kb' else f'per {cell}'} ({'; '.join(those)}): {reason}"


def number(value: float | None, form: str) -> str:
    """A number, or a dash where there is none."""
    return "–" if value is None or not math.isfinite(value) else format(value, form)


def signed(value: float, form: str = ".1f") -> str:
    """A difference: `+1.5`, `−2.0`, and `0.0` without a sign."""
    text = format(value, form)
    return text.lstrip("-") if float(text) == 0 else f"{'+' if value > 0 else '−'}{text.lstrip('-')}"
