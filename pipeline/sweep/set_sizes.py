"""The paper's table 2: how large data sets are, as `data check` finds them, beside what the paper says."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ...configs.loading import load_config
from ...configs.published_sets import PUBLISHED, Count, SplitName
from ...configs.sweeps import Sweep, paper_counts
from ...stages.data.check import DataCheck, check_data
from ...stages.evaluate.measured import own_name
from ...stages.runtime.reporting import Reporter
from .paper import Ground
from .text import Part

SPLITS: tuple[SplitName, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class SetSizes:
    """A data set's videos and texts by split.

    Attributes:
        ours: as its files give them, of the splits that can be read; empty where no configuration of it is named.
        paper: as the paper counts them; difference: ours minus these.
        findings: what `data check` finds odd or missing.
        failed: whether a split cannot be read.
    """

    set: str
    title: str
    ours: Mapping[SplitName, Count]
    paper: Mapping[SplitName, Count]
    difference: Mapping[SplitName, Count]
    findings: tuple[str, ...]
    failed: bool


@dataclass(frozen=True)
class SizesTable:
    """Table 2: the data sets in the paper's order, then others."""

    title: str
    source: str | None
    sets: tuple[SetSizes, ...]
    notes: tuple[str, ...]


def set_sizes(sweep: Sweep, grounds: Sequence[Ground], reporter: Reporter | None = None) -> SizesTable:
    """Check the data sets that are named; the others show the paper's numbers alone.

    Raises:
        TeachclipError: own captions cannot be read at all.
    """
    found = [_found(ground, reporter) for ground in grounds]
    known = {each.set: each for each in found}
    papers = [known.get(name) or _of_paper(name) for name in map(str, sweep.sets)]
    others = [each for each in found if each.set not in sweep.sets]
    settings = sweep.settings
    notes = (*(note for ground in grounds for note in ground.notes), *settings.notes)
    return SizesTable(settings.title, settings.source, (*papers, *others), notes)


def part(table: SizesTable) -> Part:
    """The table's text, `videos / texts` in a cell."""
    columns = ("", "", *(f"{name:>17}" for name in ("train", "validation", "test")))
    return Part("", columns, tuple(line for each in table.sets for line in _lines(each)))


def findings(table: SizesTable) -> list[str]:
    """What was found odd or missing, a line each."""
    return [f"{each.title}: {line}" for each in table.sets for line in each.findings]


def _found(ground: Ground, reporter: Reporter | None) -> SetSizes:
    config = load_config(ground.base, ground.overrides)
    check = check_data(config, reporter=reporter)
    ours = {split.split: Count(split.videos, split.texts) for split in check.splits if not split.failed}
    paper = paper_counts(config.data.set)
    difference = {
        name: Count(count.videos - paper[name].videos, count.texts - paper[name].texts)
        for name, count in ours.items()
        if name in paper
    }
    failed = any(split.failed for split in check.splits)
    title = _title(config.data.set) or own_name(config)
    return SetSizes(config.data.set, title, ours, paper, difference, tuple(_findings(check)), failed)


def _of_paper(name: str) -> SetSizes:
    paper = {split: count for known in PUBLISHED if known == name for split, count in paper_counts(known).items()}
    return SetSizes(name, _title(name) or name, {}, paper, {}, (), False)


def _title(name: str) -> str | None:
    return next((each.paper for known, each in PUBLISHED.items() if known == name), None)


def _findings(check: DataCheck) -> Iterator[str]:
    yield from check.warnings
    yield from (f"{split.split} cannot be read: {split.failed}" for split in check.splits if split.failed)
    for count, what in (
        (check.problem_count, "problems with videos or captions"),
        (check.missing_count, "videos have no file"),
        (check.undecodable_count, "videos cannot be used"),
        (check.same_frames_count, "pairs of videos in two splits have the same frames"),
    ):
        if count:
            yield f"{count:,} {what}"
    for wanted in check.wanted:
        yield f"to get: {' or '.join(wanted.names)}, for {', '.join(wanted.splits)}, from {wanted.origin}"


def _lines(each: SetSizes) -> Iterator[tuple[str, ...]]:
    label = each.title
    if each.ours or each.failed:
        yield label, "ours", *(_cell(each.ours.get(split)) for split in SPLITS)
        label = ""
    if each.paper:
        yield label, "paper", *(_cell(each.paper.get(split)) for split in SPLITS)
    if any(count.videos or count.texts for count in each.difference.values()):
        yield "", "diff", *(_cell(each.difference.get(split), "+,") for split in SPLITS)


def _cell(count: Count | None, form: str = ",") -> str:
    return f"{'-' if count is None else f'{count.videos:{form}} / {count.texts:{form}}':>17}"
