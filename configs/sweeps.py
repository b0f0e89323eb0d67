"""Sweeps: many runs on one frame cache and one score cache, and the paper's tables, which are sweeps that are shipped.

A sweep is a YAML of a base configuration and of runs that differ from it by overrides, `train.loss.coarse: 0`. Each
override keeps the line it stands on, so that a mistake in it is reported there.
"""

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from ..errors import ConfigError
from .loading import SHIPPED, Marked, config_error, nearest, read_document, read_given, with_changes
from .published_sets import SetName
from .schema import Config, Name, Section

TABLES = SHIPPED / "tables"
TAKEN = ("train.run", "evaluate.run")  # a sweep names its runs itself
MOST_SEEDS = 1000
Percent = Annotated[float, Field(ge=0.0, le=100.0)]
Label = Annotated[str, Field(min_length=1, max_length=60)]
Overrides = dict[str, Any]


class PublishedNumbers(Section):
    """What the paper prints for a row on one data set, text to video, in percent."""

    r1: Percent | None = None
    r5: Percent | None = None
    r10: Percent | None = None
    sumr: Annotated[float, Field(ge=0.0, le=300.0)] | None = None
    source: str = Field(description="Where the numbers are taken from.")

    @property
    def numbers(self) -> dict[str, float]:
        """The metrics that are known, by their names in evaluations."""
        return {key: value for key in ("r1", "r5", "r10", "sumr") if (value := getattr(self, key)) is not None}


class RowConfig(Section):
    """One row: a network that is trained, a teacher that is only measured, or numbers that are only quoted."""

    label: Label = Field(description="What the table calls it.")
    overrides: Overrides = Field(default_factory=dict, description="How it differs from the base: dotted key: value.")
    teacher: Name | None = Field(
        None, description="Nothing is trained: the teacher of this name in score.teachers is measured."
    )
    quoted: bool = Field(False, description="Nothing is run: the row only shows the paper's numbers.")
    only: tuple[SetName, ...] = Field((), description="Data sets that have this row; by default all.")
    paper: dict[SetName, PublishedNumbers] = Field(
        default_factory=dict, description="The paper's numbers, by data set."
    )

    @property
    def trained(self) -> bool:
        """Whether there is something to train."""
        return not self.teacher and not self.quoted

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.teacher or self.quoted) and self.overrides:
            what = "a teacher is only measured" if self.teacher else "a quoted row is not run"
            raise ValueError(f"overrides: {what}; leave them out")
        return self


class SweepConfig(Section):
    """Runs, what they have in common, and what the table says about them."""

    title: str = Field("", description="Heading of the table.")
    notes: tuple[str, ...] = Field((), description="Lines below the table.")
    base: Path | None = Field(None, description="The configuration that every run starts from, beside this file.")
    overrides: Overrides = Field(default_factory=dict, description="Changes that all runs have in common.")
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(
        default_factory=dict, description="Dotted key: values; every combination is a row (of every one of `runs`)."
    )
    runs: tuple[RowConfig, ...] = Field((), description="Rows by name.")
    seeds: Annotated[int, Field(gt=0, le=MOST_SEEDS)] = Field(
        1, description="Runs of each row: train.seed, and the next ones."
    )
    against: Label | None = Field(None, description="SweepRow that the others' SumR is compared with, seed by seed.")
    show: Literal["metrics", "cost", "frame-weights"] = Field(
        "metrics",
        description="cost: also what each row's network costs (without rows: what CONFIG's networks cost, nothing "
        "else); frame-weights: also how close the rows' frame weights come to the teacher's.",
    )
    elsewhere: bool = Field(
        False, description="The rows are measured on other test sets, too, which are named when it is run."
    )
    tests: tuple[Path, ...] = Field((), description="Configurations on whose test splits every row is measured, too.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not self.runs and not self.grid and self.show != "cost":
            raise ValueError("runs: there is nothing to run; give `runs`, `grid` or both")
        labels = [row.label for row in self.runs]
        if twice := sorted({label for label in labels if labels.count(label) > 1}):
            raise ValueError(f"runs: each needs a label of its own, {', '.join(twice)} is repeated")
        if self.grid and not all(row.trained for row in self.runs):
            raise ValueError("grid: it multiplies rows that are trained; leave out `teacher` and `quoted` rows")
        return self


@dataclass(frozen=True)
class SweepRow:
    """A row of the table, and what it changes in the base configuration."""

    settings: RowConfig
    changes: tuple[tuple[str, Marked], ...]

    @property
    def label(self) -> str:
        return self.settings.label


@dataclass(frozen=True)
class Sweep:
    """A sweep that was read.

    Attributes:
        name: what folders of its runs lie in.
        common: changes that all rows have in common.
    """

    name: str
    settings: SweepConfig
    rows: tuple[SweepRow, ...]
    common: tuple[tuple[str, Marked], ...]

    @property
    def base(self) -> Path | None:
        """The configuration that the file names, absolute."""
        return self.settings.base

    def configs(
        self, base: Path | None, overrides: Sequence[str] = ()
    ) -> tuple[Config, list[tuple[SweepRow, Config | None]]]:
        """The common configuration, and the rows of its data set with their own; None where nothing is trained.

        Args:
            base: the configuration to start from.
            overrides: `--set` arguments, which change `base`; what the sweep sets itself wins.

        Raises:
            ConfigError: `base`, an override or what they come to is wrong; names the line.
        """
        given = read_given(base, overrides)
        common = with_changes(given, self.common)
        rows = [row for row in self.rows if not row.settings.only or common.data.set in row.settings.only]
        return common, [
            (row, with_changes(given, (*self.common, *row.changes)) if row.settings.trained else None) for row in rows
        ]


def load_sweep(path: Path) -> Sweep:
    """The sweep of a YAML file.

    Raises:
        ConfigError: names the line, the offending key or value and the nearest valid name.
    """
    given = read_document(path, hint="docs/reproduce.md shows how a sweep is written.")
    try:
        settings = SweepConfig.model_validate_json(json.dumps(given.plain()), strict=True)
    except ValidationError as error:
        raise config_error(error, given, SweepConfig) from None
    rows = tuple(_rows(settings, given))
    if settings.against is not None and settings.against not in (labels := [row.label for row in rows]):
        raise ConfigError(
            f"against: no row is called {settings.against!r}{nearest(settings.against, labels)}",
            where=str(given.find(("against",)).place),
        )
    folder = path.parent.absolute()
    settings = settings.model_copy(
        update={
            "base": settings.base and folder / settings.base.expanduser(),
            "tests": tuple(folder / test.expanduser() for test in settings.tests),
        }
    )
    return Sweep(path.stem, settings, rows, _changes(given, "overrides"))


def tables() -> dict[str, Path]:
    """The paper's tables and figures that are shipped, by name."""
    return {path.stem: path for path in sorted(TABLES.glob("*.yaml"))}


def _rows(settings: SweepConfig, given: Marked) -> Iterator[SweepRow]:
    named = settings.runs or ((RowConfig(label="base"),) if settings.grid else ())
    for number, row in enumerate(named):
        own = _changes(given, "runs", number, "overrides")
        for point in _points(given):
            told = ", ".join(f"{key.rpartition('.')[2]} {_told(value)}" for key, value in point)
            label = row.label if not told else told if not settings.runs else f"{row.label}: {told}"
            yield SweepRow(row.model_copy(update={"label": label}), (*own, *point))


def _points(given: Marked) -> Iterator[tuple[tuple[str, Marked], ...]]:
    """Every combination of the grid's values; one empty combination without a grid."""
    grid = given.find(("grid",)).value if isinstance(given.value, dict) and "grid" in given.value else {}
    assert isinstance(grid, dict)
    _refuse_taken(grid)
    choices = [[(key, value) for value in _entries(values)] for key, values in grid.items()]
    yield from itertools.product(*choices)


def _entries(values: Marked) -> list[Marked]:
    assert isinstance(values.value, list)
    return values.value


def _changes(given: Marked, *keys: str | int) -> tuple[tuple[str, Marked], ...]:
    here = given
    for key in keys:
        if (below := here.child(key)) is None:
            return ()
        here = below
    assert isinstance(here.value, dict)
    _refuse_taken(here.value)
    return tuple(here.value.items())


def _refuse_taken(changes: dict[str, Marked]) -> None:
    for key, value in changes.items():
        if key in TAKEN:
            raise ConfigError(f"{key}: a sweep names its runs itself; leave it out", where=str(value.place))


def _told(value: Marked) -> str:
    plain = value.plain()
    if isinstance(plain, list):
        return "+".join(map(str, plain)) or "none"
    return plain if isinstance(plain, str) else json.dumps(plain)
