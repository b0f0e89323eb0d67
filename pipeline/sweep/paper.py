"""The paper's tables: sweeps that are shipped, run on a user's data set or on the demo's rendered clips."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from ...configs.loading import load_config, nearest, shipped
from ...configs.schema import Config
from ...configs.sweeps import Sweep, load_sweep, tables
from ...errors import ConfigError
from ...stages.demo.render import render
from ...stages.evaluate.measured import TestSet
from ...stages.prepare.stage import prepare
from ...stages.runtime.reporting import Reporter, Silent
from ..demo.chain import Chain
from .plan import Plan
from .runs import RUNS

OURS = "paper-"  # before a table's name: folders of its runs; those of earlier releases, other tables, lie without it
DEMO_STEPS = "train.max_steps=150"  # the demo itself takes 600: tables have many rows
DEMO_TEACHERS = ("xclip", "ts2net", "xpool", "drl")
DEMO_NOTE = (
    "Rendered clips, a frozen trunk and few steps: this shows that the machinery runs, not the paper's effect. "
    "No number here says anything about real videos."
)
OTHER_CLIPS = (
    "shapes.seed=11",
    "shapes.size=96",
    *(f"shapes.{part}_clips={few}" for part, few in (("train", 1), ("val", 1), ("teacher", 0), ("uncaptioned", 0))),
)


@dataclass(frozen=True)
class Ground:
    """What a table is run on: a configuration (None: the defaults), changes to it, test sets beside its own, and what
    must be said."""

    base: Path | None
    overrides: tuple[str, ...] = ()
    tests: tuple[TestSet, ...] = ()
    notes: tuple[str, ...] = ()


def table(name: str) -> Sweep:
    """One of the paper's tables; its runs lie in a folder of their own, `paper-table5`.

    Raises:
        ConfigError: there is none of this name.
    """
    known = tables()
    if name not in known:
        raise ConfigError(f"no such table: {name}{nearest(name, list(known))}", hint=f"There are: {', '.join(known)}")
    read = load_sweep(known[name])
    return replace(read, name=f"{OURS}{name}")


def grounds(sweep: Sweep, paths: Sequence[Path], overrides: Sequence[str], tests: Sequence[TestSet]) -> list[Ground]:
    """What a table is run on: one configuration, or one of each of its data sets.

    Raises:
        ConfigError: a configuration cannot be read, there are too many, or one is of a data set that the table does not
            hold or that another one is of, too.
    """
    name = sweep.name.removeprefix(OURS)
    if not sweep.sets and len(paths) > 1:
        named = ", ".join(map(str, paths))
        raise ConfigError(f"{name} takes one configuration, and {len(paths)} are named: {named}")
    first: dict[str, Path] = {}
    for path in paths if sweep.sets else ():
        data_set = load_config(path, overrides).data.set
        if data_set not in sweep.sets:
            raise ConfigError(
                f"{path} is of the data set {data_set}, which {name} does not hold",
                hint=f"It holds: {', '.join(sweep.sets)} (data.set)",
            )
        if data_set in first:
            raise ConfigError(f"{first[data_set]} and {path} are both of {data_set}; name one of them")
        first[data_set] = path
    order = sorted(first, key=[str(each) for each in sweep.sets].index)
    ordered = [first[data_set] for data_set in order] if sweep.sets else paths
    return [Ground(path, tuple(overrides), tuple(tests)) for path in ordered]


def others_note(sweep: Sweep, plans: Sequence[Plan]) -> list[str]:
    """Says of folders without `paper-` that their rows are not this table's, and which runs are read all the same."""
    name = sweep.name.removeprefix(OURS)
    notes = []
    for folder in dict.fromkeys(plan.config.work / RUNS / name for plan in plans):
        if folder.is_dir():
            read = {run.folder.name for plan in plans for run in plan.runs if run.folder.parent == folder}
            same = f"read here, as the same networks: {', '.join(sorted(read))}" if read else "none is read here"
            notes.append(f"{folder} holds runs of an earlier release's {name}, another table, or of your own; {same}.")
    return notes


def named_tests(paths: Sequence[Path]) -> tuple[TestSet, ...]:
    """Test sets by their configurations, called by the published data set or by the file.

    Raises:
        ConfigError: one cannot be read, or two would be called alike.
    """
    tests = []
    for path in paths:
        config = load_config(path)
        tests.append(TestSet(path.stem if config.data.set == "own" else config.data.set, config))
    names = [test.name for test in tests]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"two test sets are called {', '.join(twice)}", hint="give their files other names")
    return tuple(tests)


def needed_teachers(sweep: Sweep, base: Path | None) -> list[str]:
    """Every teacher that a row names, in order."""
    _, rows = sweep.configs(base)
    names = [
        name
        for row, config in rows
        for name in ([row.settings.teacher] if row.settings.teacher else config.train.teachers if config else ())
    ]
    return list(dict.fromkeys(names))


def demo_ground(
    sweep: Sweep,
    folder: Path,
    reporter: Reporter | None = None,
    overrides: Sequence[str] = (),
    making: Sequence[str] = (),
) -> Ground:
    """The demo's clips, frames, trunk, teachers and scores, made where they are missing.

    Args:
        folder: the demo's; what `teachclip demo` made there is used.
        overrides: changes to the rows' configuration.
        making: changes to how clips and teachers are made.

    Raises:
        TeachclipError: a stage fails, or the folder holds something that was made with other settings.
    """
    reporter = reporter or Silent()
    names = _demo_teachers(sweep)
    scored = _scored(names)
    steps = 3 + len(names) + bool(names) + sweep.settings.elsewhere
    with closing(Chain(folder, reporter, (*making, scored), steps=steps)) as chain:
        chain.make_data()
        for name in names:
            chain.train_teacher(name)
        if names:
            chain.score()
        tests = (
            (chain.steps.run("render and prepare other clips", lambda out: _other(folder, making, out)),)
            if sweep.settings.elsewhere
            else ()
        )
    return Ground(chain.settings, (scored, DEMO_STEPS, *making, *overrides), tests, (DEMO_NOTE,))


def demo_unmade(sweep: Sweep, folder: Path, overrides: Sequence[str] = ()) -> Ground:
    """The demo as it will be: nothing is made, for a dry run."""
    settings = folder / "demo.yaml"
    scored = _scored(_demo_teachers(sweep))
    if settings.exists():
        return Ground(settings, (scored, DEMO_STEPS, *overrides), (), (DEMO_NOTE,))
    places = (f"work={folder / 'work'}", f"data.captions={folder / 'captions.csv'}")
    return Ground(shipped()["demo"], (scored, DEMO_STEPS, *places, *overrides), (), (DEMO_NOTE,))


def _demo_teachers(sweep: Sweep) -> list[str]:
    """The teachers of a table that the demo trains; none where nothing is run."""
    if sweep.settings.show == "data":
        return []
    return [name for name in needed_teachers(sweep, None) if name in DEMO_TEACHERS] or [DEMO_TEACHERS[0]]


def _scored(names: Sequence[str]) -> str:
    teachers = ", ".join(f"{{name: {name}, checkpoint: runs/{name}}}" for name in names)
    return f"score.teachers=[{teachers}]"


def _other(folder: Path, making: Sequence[str], reporter: Reporter) -> TestSet:
    """Clips of another seed and size, for tests only."""
    place = folder / "other"
    places = (f"work={place / 'work'}", f"data.captions={place / 'captions.csv'}", "data.splits=[test]")
    config: Config = load_config(folder / "demo.yaml", (*making, *OTHER_CLIPS, *places))
    render(config.shapes, place, reporter)
    prepare(config, reporter)
    return TestSet("other-clips", config)
