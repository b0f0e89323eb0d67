"""What pages are made of, as plain values: words, and places on a track. templates/elements.html shows them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .charts import Chart


@dataclass(frozen=True)
class Section:
    """A part of a page: its title, and a template with the values that it calls `shown`."""

    title: str
    template: str
    shown: Any


@dataclass(frozen=True)
class Difference:
    """A table's cell: a difference with the ends of its interval; `clear` where that does not hold 0."""

    value: str
    low: str
    high: str
    clear: bool


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Args:
        dots: the models (or teachers) whose colours it has.
        kind: a class of the style sheet.
    """

    name: str
    cells: Sequence[str | Difference]
    dots: Sequence[str] = ()
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """A table.

    Args:
        head: a label a column, that of the rows' names first.
        kind: classes of the style sheet.
        of_models: whether the columns are models; a phone shows their names cell by cell.
    """

    head: Sequence[str]
    rows: Sequence[Row]
    kind: str = ""
    of_models: bool = False


@dataclass(frozen=True)
class Bar:
    """A model's value on a track.

    Args:
        place: where the value is, as CSS; interval: the ends of its interval, likewise, and `told` in words.
        value: in words; aside: what belongs to it, and `hint`, what that is.
        note: what the model is.
    """

    name: str
    place: str
    value: str
    interval: str = ""
    told: str = ""
    aside: str = ""
    hint: str = ""
    note: str = ""


@dataclass(frozen=True)
class Figures:
    """Tables and charts, and what they mean: for figures.html.

    Args:
        tables: side by side; wide: one over the whole width; folded: one to be unfolded, with its title.
    """

    tables: Sequence[Table] = ()
    wide: Table | None = None
    charts: Sequence[Chart] = ()
    folded: tuple[str, Table] | None = None
    note: str = ""


def of_model(name: str, *cells: str | Difference) -> Row:
    """The row of a model or teacher, with its colour."""
    return Row(name, cells, (name,))
