"""The paper's tables: sweeps that are shipped, run on a user's data set or on the demo's rendered clips."""

from collections.abc import Sequence
from dataclasses import dataclass
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

DEMO_STEPS = "train.max_steps=150"  # the demo itself takes 600: tables have many rows
DEMO_TEACHERS = ("xclip", "xpool", "drl")
DEMO_NOTE = (
    "Rendered clips, a frozen trunk and few steps: this shows that the machinery runs, not the paper's effect. "
    "No number here says anything about real videos."
)
OTHER_CLIPS = ("shapes.seed=11", "shapes.size=96", "shapes.train_clips=1", "shapes.val_clips=1")


@dataclass(frozen=True)
class Ground:
    """What a table is run on: a configuration, changes to it, test sets beside its own, and what must be said."""

    base: Path
    overrides: tuple[str, ...] = ()
    tests: tuple[TestSet, ...] = ()
    notes: tuple[str, ...] = ()


def table(name: str) -> Sweep:
    """One of the paper's tables.

    Raises:
        ConfigError: there is none of this name.
    """
    known = tables()
    if name not in known:
        raise ConfigError(f"no such table: {name}{nearest(name, list(known))}", hint=f"There are: {', '.join(known)}")
    return load_sweep(known[name])


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
    names = [name for name in needed_teachers(sweep, None) if name in DEMO_TEACHERS] or [DEMO_TEACHERS[0]]
    teachers = ", ".join(f"{{name: {name}, checkpoint: runs/{name}}}" for name in names)
    scored = f"score.teachers=[{teachers}]"
    chain = Chain(folder, reporter, (*making, scored), steps=4 + len(names) + sweep.settings.elsewhere)
    chain.make_data()
    for name in names:
        chain.train_teacher(name)
    chain.score()
    tests = (
        (chain.steps.run("render and prepare other clips", lambda out: _other(folder, making, out)),)
        if sweep.settings.elsewhere
        else ()
    )
    return Ground(chain.settings, (scored, DEMO_STEPS, *making, *overrides), tests, (DEMO_NOTE,))


def demo_unmade(folder: Path, overrides: Sequence[str] = ()) -> Ground:
    """The demo as it will be: nothing is made, for a dry run."""
    settings = folder / "demo.yaml"
    places = () if settings.exists() else (f"work={folder / 'work'}", f"data.captions={folder / 'captions.csv'}")
    return Ground(settings if settings.exists() else shipped()["demo"], (DEMO_STEPS, *places, *overrides))


def _other(folder: Path, making: Sequence[str], reporter: Reporter) -> TestSet:
    """Clips of another seed and size, for tests only."""
    place = folder / "other"
    places = (f"work={place / 'work'}", f"data.captions={place / 'captions.csv'}", "data.splits=[test]")
    config: Config = load_config(folder / "demo.yaml", (*making, *OTHER_CLIPS, *places))
    render(config.shapes, place, reporter)
    prepare(config, reporter)
    return TestSet("other-clips", config)
