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
from ..remedies import ReadPage, Remedy
from .loading import SHIPPED, Marked, config_error, merge, nearest, read_document, read_given, with_changes
from .published_sets import Count, SetName, SplitName
from .schema import Config, Name, Section

TABLES = SHIPPED / "tables"
TAKEN = ("train.run", "evaluate.run")  # a sweep names its runs itself
MOST_SEEDS = 1000
_WRITTEN = Remedy("how a sweep is written", ReadPage("guide/reproduce"))
Percent = Annotated[float, Field(ge=0.0, le=100.0)]
Label = Annotated[str, Field(min_length=1, max_length=60)]
Overrides = dict[str, Any]


class PublishedNumbers(Section):
    """What the paper prints for a row on one data set, text to video, in percent."""

    r1: Percent | None = None
    r5: Percent | None = None
    r10: Percent | None = None
    sumr: Annotated[float, Field(ge=0.0, le=300.0)] | None = None
    source: str | None = Field(None, description="Where the numbers are taken from, if not as the table's.")

    @property
    def numbers(self) -> dict[str, float]:
        """The metrics that are known, by their names in evaluations."""
        return {key: value for key in ("r1", "r5", "r10", "sumr") if (value := getattr(self, key)) is not None}


class PublishedCost(Section):
    """What the paper's table 1 prints for a row: multiply-adds per pair and per video, KB per video in float32."""

    pair: Annotated[float, Field(gt=0)]
    kb: Annotated[float, Field(gt=0)]
    video: Annotated[float, Field(gt=0)] | None = None
    why: dict[Literal["pair", "kb", "video"], str] = Field(
        default_factory=dict, description="Why ours of the row's network differs."
    )


class RowConfig(Section):
    """One row: a network that is trained, a teacher that is only measured, or numbers that are only quoted."""

    label: Label = Field(description="What the table calls it.")
    overrides: Overrides = Field(default_factory=dict, description="How it differs from the base: dotted key: value.")
    teacher: Name | None = Field(
        None, description="Nothing is trained: the teacher of this name in score.teachers is measured."
    )
    quoted: bool = Field(False, description="Nothing is run: the row only shows the paper's numbers.")
    missing: str | None = Field(None, description="Of a quoted row: what is missing to run it.")
    against: Label | None = Field(
        None, description="Row that this one's SumR is compared with; by default the table's."
    )
    only: tuple[SetName, ...] = Field((), description="Data sets that have this row; by default all.")
    paper: dict[SetName, PublishedNumbers] = Field(
        default_factory=dict, description="The paper's numbers, by data set."
    )
    paper_mean: float | None = Field(None, description="The paper's mean SumR over the data sets of `mean_over`.")
    paper_cost: PublishedCost | None = Field(None, description="The paper's costs of this row's network.")

    @property
    def trained(self) -> bool:
        """Whether there is something to train."""
        return not self.teacher and not self.quoted

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.teacher or self.quoted) and self.overrides:
            what = "a teacher is only measured" if self.teacher else "a quoted row is not run"
            raise ValueError(f"overrides: {what}; leave them out")
        if self.missing and not self.quoted:
            raise ValueError("missing: it is said of a quoted row, and this one is run")
        return self


class SweepConfig(Section):
    """Runs, what they have in common, and what the table says about them."""

    extends: Path | None = Field(
        None, description="Another sweep, beside this file, whose keys hold where none is here."
    )
    title: str = Field("", description="Heading of the table.")
    source: str | None = Field(None, description="Where the paper's numbers are taken from.")
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
    against: Label | None = Field(None, description="Row that the others' SumR is compared with, seed by seed.")
    show: Literal["metrics", "cost", "frame-weights", "data"] = Field(
        "metrics",
        description="cost: also what each row's network costs; frame-weights: also how close the rows' frame weights "
        "come to the teacher's; data: how large the data sets of `counts` are, nothing is run.",
    )
    sees: Literal["frames", "features"] = Field(
        "frames", description="What the rows' networks see; the demo has no features of experts."
    )
    elsewhere: bool = Field(
        False, description="The rows are measured on other test sets, too, which are named when it is run."
    )
    each_of: tuple[SetName, ...] = Field((), description="The table takes a configuration of each of these data sets.")
    mean_over: tuple[SetName, ...] = Field((), description="Data sets whose SumR is shown side by side, and its mean.")
    counts: dict[SetName, dict[SplitName, tuple[int, int]]] = Field(
        default_factory=dict, description="Videos and texts of the splits of data sets, as the paper counts them."
    )
    tests: tuple[Path, ...] = Field((), description="Configurations on whose test splits every row is measured, too.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not self.runs and not self.grid and self.show != "data":
            raise ValueError("runs: there is nothing to run; give `runs`, `grid` or both")
        if twice := sorted({row.label for row, other in itertools.combinations(self.runs, 2) if _alike(row, other)}):
            raise ValueError(f"runs: each needs a label of its own, {', '.join(twice)} is repeated")
        for number, row in enumerate(self.runs):
            for name, published in row.paper.items():
                if not (published.source or self.source):
                    raise ValueError(f"runs.{number}.paper.{name}.source: is missing; or give `source` for all rows")
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

    @property
    def sets(self) -> tuple[SetName, ...]:
        """The data sets that a table of several configurations takes one of each; empty for other sweeps."""
        return self.settings.each_of or tuple(self.settings.counts)

    def paper(self, label: str) -> dict[SetName, PublishedNumbers]:
        """The paper's numbers of all rows of this label (one for some data sets, another for others), by data set."""
        return {name: each for row in self.rows if row.label == label for name, each in row.settings.paper.items()}

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
    given = _read(path)
    try:
        settings = SweepConfig.model_validate_json(json.dumps(given.plain()), strict=True)
    except ValidationError as error:
        raise config_error(error, given, SweepConfig) from None
    rows = tuple(_rows(settings, given))
    _refuse_unknown(settings.against, rows, given.find(("against",)))
    for number, row in enumerate(settings.runs):
        _refuse_unknown(row.against, rows, given.find(("runs", number, "against")))
    tests = enumerate(settings.tests)
    update = {
        "base": settings.base and _beside(given, settings.base, "base"),
        "tests": tuple(_beside(given, test, "tests", number) for number, test in tests),
    }
    settings = settings.model_copy(update=update)
    return Sweep(path.stem, settings, rows, _changes(given, "overrides"))


def tables() -> dict[str, Path]:
    """The paper's tables and figures that are shipped, by name."""
    return {path.stem: path for path in sorted(TABLES.glob("*.yaml"))}


def paper_counts(name: SetName) -> dict[SplitName, Count]:
    """How large the paper's table 2 says the splits of a data set are; empty where it is not in there."""
    known = load_sweep(tables()["table2"]).settings.counts
    counts = {split: Count(*pair) for split, pair in known.get(name, {}).items()}
    return {"test": Count(*known["msrvtt-1k-9k"]["test"])} if name == "msrvtt-1k-7k" else counts  # one test split


def _read(path: Path, above: tuple[Path, ...] = ()) -> Marked:
    """A sweep's file over the one that it extends."""
    given = read_document(path, _WRITTEN, "a sweep is a YAML file with base, grid, runs")
    keys = set(given.value) if isinstance(given.value, dict) else set()
    if not keys & set(SweepConfig.model_fields) and (sections := sorted(keys & set(Config.model_fields))):
        what = f"this is a configuration ({', '.join(sections)}), not a sweep, which names one as its base"
        raise ConfigError(what, where=str(path), hint=_WRITTEN)
    extended = given.child("extends")
    if extended is None or not isinstance(extended.value, str):  # the schema tells what is wrong with it
        return given
    other = path.parent.absolute() / Path(extended.value).expanduser()
    if other in (*above, path.absolute()):
        raise ConfigError("extends: goes in a circle", where=str(extended.place))
    return merge(_read(other, (*above, path.absolute())), given)


def _beside(given: Marked, path: Path, *keys: str | int) -> Path:
    """A path that stands at `keys`, from the folder of the file that says it."""
    return given.find(keys).place.folder / path.expanduser()


def _alike(row: RowConfig, other: RowConfig) -> bool:
    """Whether a data set has both rows, and they are called the same."""
    apart = row.only and other.only and not set(row.only) & set(other.only)
    return row.label == other.label and not apart


def _refuse_unknown(against: str | None, rows: Sequence[SweepRow], given: Marked) -> None:
    if against is not None and against not in (labels := [row.label for row in rows]):
        what = f"against: no row is called {against!r}{nearest(against, labels)}"
        raise ConfigError(what, where=str(given.place))


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
