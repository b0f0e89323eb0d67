"""The demo: the whole chain on clips that it renders, from video files to a page."""

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ...cache.storage.publish import publish
from ...cache.storage.untrusted import others
from ...configs.loading import load_config
from ...configs.schema import Config
from ...errors import CacheMismatchError, DataError
from ...remedies import OTHER, DeleteFolder, MakeDemo, Remedy
from ...stages.demo.pretrain import PretrainResult, pretrain
from ...stages.demo.render import UNCAPTIONED, render
from ...stages.evaluate.stage import evaluate
from ...stages.prepare.stage import prepare
from ...stages.runtime.cores import cores
from ...stages.runtime.reporting import Reporter, Silent
from ...stages.runtime.run_folder import RunFolder
from ...stages.score.stage import ScoreResult, score
from ...stages.search.searcher import SearchResult
from ...stages.search.stage import search
from ...stages.train.run import TrainResult
from ...stages.train.stage import train
from ..report.page.render import write_report
from ..steps import Step, Steps
from .crew import Crew, Task
from .report import Model, Roles, demo_report

QUERIES = (
    "a yellow star moves to the right",
    "a red star moves left, and then a circle goes up",
    "something white slides downwards",
)
STEPS = 9
SIDE_BY_SIDE = 4  # processes at most; each takes a gigabyte
TRUNK = Path("trunk.safetensors")  # below `work`
# What lies in a demo's folder, `other` where `reproduce` has been at work.
_OURS = (
    *("captions.csv", "clips", "demo.yaml", "other", "report.html", "teacher.csv", "teacher.yaml", UNCAPTIONED),
    "work",
)
# What every verb takes, so that a reader can go on from the demo. The student that was taught most searches.
SETTINGS = f"""\
# The demo's configuration, for every verb: teachclip search demo.yaml "a red circle moves left"
extends: demo
work: work
data:
  captions: captions.csv
  unlabelled: {UNCAPTIONED}
train:
  run: runs/taught
  teachers: [xclip]
  network:
    trunk:
      weights: work/{TRUNK}
evaluate:
  run: runs/taught
search:
  run: runs/wide
"""
TEACHER_SETTINGS = """\
# The demo's teacher: it is trained on clips and captions of somebody else, of which the students see none.
extends: demo.yaml
data:
  captions: teacher.csv
train:
  run: runs/xclip
  teachers: []
  loss: {infonce: 1.0, coarse: 0.0, fine: 0.0}
  network:
    kind: xclip
  max_steps: 600
  validate_every: 1
"""


@dataclass(frozen=True)
class Recipe:
    """A network of the demo.

    Args:
        name, note: what tables call it, and what it is.
        run: its run folder.
        overrides: how its configuration differs from `SETTINGS`.
        against: name of the network it is compared with.
        theirs: trained on the teacher's clips, by `TEACHER_SETTINGS`.
        unlabelled: clips without captions beside the pairs of each step, or as many as there are.
    """

    name: str
    note: str
    run: str
    overrides: tuple[str, ...] = ()
    against: str | None = None
    theirs: bool = False
    unlabelled: int = 0


# Without teaching so few clips are learnt by heart soon, and 600 steps are worse than any of these: the validation
# clips choose (docs/guide/teaching.md). Steps, and epochs from one validation to the next.
BUDGETS = {50: 2, 100: 4, 200: 8}
_ALONE = ("train.teachers=[]", "train.loss.infonce=1", "train.loss.coarse=0", "train.loss.fine=0")
# It reads every token of a frame, which a frozen trunk's cache has not: fewer steps, of which each takes a second.
_TS2NET = (
    "train.trunk=full",
    "train.max_steps=150",
    "train.network.ts2net.shift_layers=[]",
    "train.network.ts2net.samples=20",
)
TEACHER = Recipe(
    "X-CLIP teacher",
    "compares every word with every frame; it learnt from other people's clips",
    "runs/xclip",
    theirs=True,
)
MEAN = Recipe(
    "mean pooling alone",
    "one vector per clip, all frames count alike",
    "runs/mean",
    (*_ALONE, "train.network.pooling=mean", "train.max_steps=100", "train.validate_every=4"),
)
ALONE = Recipe("student alone", "one vector per clip, frames weighted (AFA)", "runs/alone", _ALONE)
TAUGHT = Recipe("student taught", "the same, and the teacher's scores to learn from", "runs/taught", (), ALONE.name)
WIDE = Recipe(
    "taught, uncaptioned too",
    "the same, and the teacher's scores of clips that nobody has described",
    "runs/wide",
    against=ALONE.name,
    unlabelled=128,
)
REFERENCE = Recipe(
    "with the teacher's clips",
    "a student alone that had all clips and captions of the teacher: what nobody here has",
    "runs/reference",
    ("train.network.kind=student",),
    theirs=True,
)


@dataclass(frozen=True)
class DemoModel:
    """A trained network: its run folder, and its text-to-video and video-to-text metrics on the test clips."""

    name: str
    run: str
    t2v: Mapping[str, Any]
    v2t: Mapping[str, Any]


@dataclass(frozen=True)
class DemoResult:
    """What the demo made.

    Attributes:
        report: the page.
        settings: a configuration that every verb takes; its student is the taught one.
        searches: three sentences, asked of the student that was taught with uncaptioned clips, too.
    """

    report: str
    settings: str
    models: tuple[DemoModel, ...]
    searches: SearchResult
    steps: tuple[Step, ...]
    seconds: float


def run_demo(folder: Path, reporter: Reporter | None = None, overrides: Sequence[str] = ()) -> DemoResult:
    """Render clips, train a teacher and students without and with teaching, compare them, write `folder`/report.html.

    Every step keeps what it made: a demo that was stopped goes on where it was, a finished one only measures again.

    Args:
        folder: everything is made here.
        overrides: changes to the shipped configuration `demo`, as `load_config` takes them.

    Raises:
        TeachclipError: the folder holds something else, or what was made with other settings; or a stage fails.
    """
    began = time.perf_counter()
    try:
        with closing(Chain(folder, reporter or Silent(), tuple(overrides))) as chain:
            models, searches = _run(chain, began)
    except CacheMismatchError as error:
        another = Remedy("take another folder", MakeDemo(OTHER))
        again = Remedy("start this one again", DeleteFolder(str(folder)), then=MakeDemo(str(folder)), otherwise=another)
        hint = another if others(folder, _OURS) else again
        raise CacheMismatchError(error.what, where=error.where, hint=hint, details=error.details) from error
    return DemoResult(
        report=str(chain.page),
        settings=str(chain.settings),
        models=tuple(DemoModel(m.name, m.trained.run, m.evaluated.t2v, m.evaluated.v2t) for m in models),
        searches=searches,
        steps=tuple(chain.steps.done),
        seconds=time.perf_counter() - began,
    )


def _run(chain: "Chain", began: float) -> tuple[Sequence[Model], SearchResult]:
    chain.make_data()
    budgets = [_within(steps) for steps in BUDGETS]
    untaught = (TEACHER, MEAN, *budgets, REFERENCE)
    trained = chain.train("train the teacher, and students without one", untaught)
    chain.score()
    trained |= chain.train("train students with teaching", (TAUGHT, WIDE))
    alone = best_on_validation({recipe: trained[recipe] for recipe in budgets})
    shown = (TEACHER, MEAN, alone, TAUGHT, WIDE, REFERENCE)
    models = chain.evaluate({recipe: trained[recipe] for recipe in shown})
    searches = chain.search()
    chain.report(models, searches, began)
    return tuple(models.values()), searches


def best_on_validation(trained: Mapping[Recipe, TrainResult]) -> Recipe:
    """The one that its validation clips choose; of equals the first."""
    return max(trained, key=lambda recipe: trained[recipe].best["value"])


class Chain:
    """The demo's steps; each is a stage with its own configuration. Networks are trained side by side."""

    def __init__(self, folder: Path, reporter: Reporter, overrides: tuple[str, ...], steps: int = STEPS) -> None:
        self.folder, self.overrides = folder, overrides
        self.settings, self.teacher_settings = folder / "demo.yaml", folder / "teacher.yaml"
        self.page = folder / "report.html"
        self.steps, self._crew = Steps(reporter, total=steps), Crew(min(cores(), SIDE_BY_SIDE))
        begun = self.settings.exists() or self.teacher_settings.exists()
        if not begun and (found := others(folder, ())):
            hint = Remedy("take a folder of its own", MakeDemo(OTHER))
            raise DataError(f"this folder holds something else than a demo: {found[0]}", where=str(folder), hint=hint)
        if self.settings.exists() and not self.teacher_settings.exists():
            hint = Remedy("take another folder", MakeDemo(OTHER))
            what = "a demo of an earlier release, whose teacher had the student's own clips"
            raise CacheMismatchError(what, where=str(folder), hint=hint)
        for path, text in ((self.teacher_settings, TEACHER_SETTINGS), (self.settings, SETTINGS)):
            if not path.exists():
                publish(path, text.encode())

    def close(self) -> None:
        """End the processes that train."""
        self._crew.close()

    def config(self, recipe: Recipe = TAUGHT) -> Config:
        """The configuration that one network of the demo is evaluated with, on the students' test clips."""
        return self._load(self.settings, recipe)

    def training_config(self, recipe: Recipe = TEACHER) -> Config:
        """The configuration that it is trained with."""
        return self._load(self.teacher_settings if recipe.theirs else self.settings, recipe)

    def _load(self, settings: Path, recipe: Recipe) -> Config:
        runs = (f"train.run={recipe.run}", f"evaluate.run={recipe.run}")
        config = load_config(settings, (*recipe.overrides, *runs, *self.overrides))
        if not recipe.unlabelled:
            return config
        unlabelled = min(recipe.unlabelled, config.shapes.uncaptioned_clips)
        return config.model_copy(update={"train": config.train.model_copy(update={"unlabelled": unlabelled})})

    def make_data(self) -> None:
        """Clips, their frames, and a trunk that has seen pictures."""
        config = self.config()
        trunk, weights = config.train.network.trunk.sizes, config.work / TRUNK
        assert trunk is not None
        work = partial(pretrain, config.shapes, trunk, config.train.network.words, weights)
        pictures = Task("trunk", work, config.shapes.picture_steps)
        if not (found := weights.exists()):
            self._crew.start(pictures)  # beside the clips

        def trunk_of(output: Reporter) -> PretrainResult:
            return work(output) if found else self._crew.finish([pictures], "pre-train the trunk", output)[0]

        self.steps.run(
            "render captioned clips",
            lambda output: render(config.shapes, self.folder, output, _cores_but_one()),
            lambda made: not made.drawn,
        )
        self.steps.run("prepare: clips to frames", self._prepare, lambda decoded: not decoded)
        self.steps.run("pre-train a small CLIP on pictures", trunk_of, lambda made: made.already_done)

    def _prepare(self, output: Reporter) -> int:
        """How many videos had to be decoded, of the student's and of the teacher's data set."""
        configs = self.config(), self.training_config()
        workers = {"workers": configs[0].prepare.workers or _cores_but_one()}
        both = (one.model_copy(update={"prepare": one.prepare.model_copy(update=workers)}) for one in configs)
        return sum(prepare(config, output).decoded for config in both)

    def train(self, title: str, recipes: Sequence[Recipe]) -> dict[Recipe, TrainResult]:
        """Networks that do not wait for each other."""
        configs = [self.training_config(recipe) for recipe in recipes]
        tasks = [Task(each.run_folder.name, partial(train, each), each.train.max_steps or 0) for each in configs]

        def work(output: Reporter) -> list[TrainResult]:
            if all(RunFolder(each.run_folder).result for each in configs):  # not worth a process
                return [task.job(output) for task in tasks]
            for task in tasks:
                self._crew.start(task)
            return self._crew.finish(tasks, title, output)

        trained = self.steps.run(title, work, lambda made: all(one.already_done for one in made))
        return dict(zip(recipes, trained, strict=True))

    def train_teacher(self, kind: str) -> TrainResult:
        """A teacher of the kind `kind`; xclip is the demo's own."""
        own = _TS2NET if kind == "ts2net" else ()
        recipe = Recipe(f"{kind} teacher", "", f"runs/{kind}", (*own, f"train.network.kind={kind}"), theirs=True)
        return self.train(f"train the teacher {kind}", [recipe])[recipe]

    def score(self) -> None:
        """The soft labels of every teacher in `score.teachers`."""
        config = self.config()

        def nothing_new(made: ScoreResult) -> bool:
            return not any(teacher.shards_now for teacher in made.teachers)

        self.steps.run("score: the teacher's soft labels, once", lambda output: score(config, output), nothing_new)

    def evaluate(self, results: Mapping[Recipe, TrainResult]) -> dict[Recipe, Model]:
        """Every network on the test clips."""
        configs = [self.config(recipe) for recipe in results]
        tasks = [Task(config.evaluate_run.name, partial(evaluate, config), 0) for config in configs]

        def measure(output: Reporter) -> dict[Recipe, Model]:
            for task in tasks:
                self._crew.start(task)
            evaluated = self._crew.finish(tasks, "evaluate", output)
            return {
                recipe: Model(recipe.name, recipe.note, recipe.against, config, trained, found)
                for (recipe, trained), config, found in zip(results.items(), configs, evaluated, strict=True)
            }

        return self.steps.run("evaluate on clips that no model has seen", measure)

    def search(self) -> SearchResult:
        """Three sentences, asked of the student that was taught most."""
        config = self.config()
        return self.steps.run("search with sentences", lambda output: search(config, QUERIES, output))

    def report(self, models: Mapping[Recipe, Model], searches: SearchResult, began: float) -> None:
        alone = next(model for recipe, model in models.items() if recipe.name == ALONE.name)
        roles = Roles(models[TEACHER], alone, (models[TAUGHT], models[WIDE]), models[REFERENCE])

        def write(output: Reporter) -> None:
            seconds = time.perf_counter() - began
            write_report(demo_report(list(models.values()), roles, searches, seconds, output), self.page)

        self.steps.run("write the page", write)


def _within(budget: int) -> Recipe:
    """The student alone, trained for `budget` steps."""
    steps = (f"train.max_steps={budget}", f"train.validate_every={BUDGETS[budget]}")
    note = f"{ALONE.note}; {budget} steps, of {_listed(BUDGETS)} the best on validation"
    return replace(ALONE, note=note, run=f"{ALONE.run}-{budget}", overrides=(*ALONE.overrides, *steps))


def _listed(numbers: Iterable[int]) -> str:
    *first, last = map(str, numbers)
    return f"{', '.join(first)} and {last}"


def _cores_but_one() -> int:
    """On the one the trunk is trained meanwhile."""
    return max(1, cores() - 1)
