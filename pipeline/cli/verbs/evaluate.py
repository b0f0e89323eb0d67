"""`teachclip evaluate`: models and test sets -> ranks and metrics."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import RenderableType

from ....errors import ConfigError
from ....plurals import counted
from ....remedies import Change, Remedy
from ..shell.errors import explain
from ..shell.output import Output
from ..shell.remedies import Given, joined
from ..shell.running import AsJson, ConfigFile, Debug, Overrides, Quiet, examples, load_config, running
from ..shell.tables import table

if TYPE_CHECKING:
    from ....configs.schema import Config
    from ....stages.evaluate.one_model import EvaluateResult
    from ....stages.evaluate.stage import Evaluations

On = Annotated[
    list[Path] | None,
    typer.Option("--on", metavar="OTHER", help="Also on the test set of this YAML; may be repeated."),
]
Runs = Annotated[
    list[str] | None,
    typer.Option("--run", metavar="RUN", help="A run folder or checkpoint, for evaluate.run; may be repeated."),
]
EXAMPLES = examples(
    "teachclip evaluate own_videos.yaml",
    "teachclip evaluate own_videos.yaml --set evaluate.split=val --set evaluate.run=runs/teacher",
    "teachclip evaluate own_videos.yaml --set evaluate.ties=published --json",
    "teachclip evaluate own_videos.yaml --on msvd.yaml --on vatex.yaml",
    "teachclip evaluate own_videos.yaml --run runs/student --run runs/teacher",
)
COLUMNS = ("R@1", "R@5", "R@10", "SumR", "MdR", "MnR")
WAYS = {"t2v": "text to video", "v2t": "video to text"}


def evaluate(
    config: ConfigFile,
    on: On = None,
    run: Runs = None,
    sets: Overrides = None,
    json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure how well a model retrieves a split.

    Both ways: videos by text, and texts by video. R@K is the percentage of queries answered within the first K, SumR
    the sum over K = 1, 5, 10, MdR and MnR the median and mean rank; among equals the expected rank counts.

    --on takes the data, the frames and evaluate.split of OTHER, everything else of CONFIG. A test set that cannot be
    evaluated is told with its reason, the others still are, and the exit code is 1.
    """
    with running("evaluate", json, quiet, debug, config, sets) as output:
        settings = load_config(config, sets or ())
        asked = [load_config(config, [*(sets or ()), f"evaluate.run={name}"]) for name in run or ()]
        if not on and len(asked) < 2:
            _one(asked[0] if asked else settings, output, Given(config, sets or ()))
            return
        files = _named(config, on or [])
        others = {path.stem: load_config(path) for path in on or ()}
        with output.waiting("loading"):
            from ....stages.evaluate.stage import evaluate_sets

        found = evaluate_sets(settings, others, [each.evaluate_run for each in asked], output, config.stem)
        given = {name: Given(path) for name, path in files.items()} | {config.stem: Given(config, sets or ())}
        measured = _several(found, given, output)
        _refuse_not_kept(found.results, output, Given(config, sets or ()))
        if not measured:
            raise typer.Exit(1)


def _one(settings: "Config", output: Output, given: Given) -> None:
    with output.waiting("loading"):
        from ....stages.evaluate.stage import evaluate as run

    result = run(settings, output)
    left_out = f"; {counted(result.left_out_videos, 'video')} left out" if result.left_out_videos else ""
    output.result(
        result,
        f"{result.run}: {result.split}, {counted(result.texts, 'caption')}, "
        f"{counted(result.videos, 'video')}{left_out}",
        table("", *COLUMNS, rows=[(title, *_numbers(getattr(result, way))) for way, title in WAYS.items()]),
        *_sure(result),
        *result.marks,
    )
    _refuse_not_kept([result], output, given)


def _refuse_not_kept(results: Sequence["EvaluateResult"], output: Output, given: Given) -> None:
    """Say, once they are shown, which results could not be kept."""
    lost = {result.run: result.not_kept for result in results if result.not_kept}
    for run, why in lost.items():
        advice = "a checkpoint file is measured without keeping anything"
        hint = given.tell(Remedy(advice, Change({"evaluate.run": f"{run}/best.safetensors"})))
        output.failure("error", (f"{run}: these metrics are not kept there: {why}",), hint, None)
    if lost:
        raise typer.Exit(1)


def _named(config: Path, others: list[Path]) -> dict[str, Path]:
    """The files by the names of their test sets."""
    named: dict[str, Path] = {}
    for path in (config, *others):
        if path.stem in named:
            raise ConfigError(
                f"{named[path.stem]} and {path} are both called {path.stem}, as their results would be",
                hint="give one of the files another name",
            )
        named[path.stem] = path
    return named


def _several(found: "Evaluations", given: Mapping[str, Given], output: Output) -> bool:
    """Show what was measured and what could not be; whether everything was.

    Args:
        given: the configuration of each test set, for the commands that messages recommend.
    """
    command = joined(["teachclip", *sys.argv[1:]])
    failures = [(run, name, explain(error, "evaluate", command, given[name])) for run, name, error in found.failed]
    failed = [{"run": run, "data": name, **failure.facts()} for run, name, failure in failures]
    output.result(
        {"results": found.results, "failed": failed},
        *_shown(found.results),
    )
    for run, name, failure in failures:
        first, *details = failure.lines
        output.failure(failure.kind, (f"{run} on {name}: {first}", *details), failure.hint, None)
    return not failures


def _shown(results: Sequence["EvaluateResult"]) -> list[RenderableType]:
    if not results:
        return []
    runs = list(dict.fromkeys(result.run for result in results))
    sets = dict.fromkeys(
        f"{result.data}: {result.split}, {counted(result.texts, 'caption')}, {counted(result.videos, 'video')}"
        for result in results
    )
    names, rows = _short(runs), []
    for result in results:
        what = f"{names[result.run]} on {result.data}" if len(runs) > 1 else result.data
        rows += [(f"{what}, {title}", *_numbers(getattr(result, way))) for way, title in WAYS.items()]
    marks = (f"{result.run} on {result.data}: {mark}" for result in results for mark in result.marks)
    title = [f"{run}:" for run in runs] if len(runs) == 1 else []
    return [*title, *sets, table("", *COLUMNS, rows=rows), *marks]


def _short(runs: Sequence[str]) -> dict[str, str]:
    """Runs by as many last parts of their paths as tell them apart."""
    names: dict[str, str] = {}
    for parts in range(1, max(len(Path(run).parts) for run in runs) + 1):
        names = {run: str(Path(*Path(run).parts[-parts:])) for run in runs}
        if len(set(names.values())) == len(runs):
            break
    return names


def _numbers(metrics: Mapping[str, Any]) -> tuple[float, ...]:
    return tuple(float(metrics[key]) for key in ("r1", "r5", "r10", "sumr", "mdr", "mnr"))


def _sure(result: "EvaluateResult") -> list[str]:
    """How sure R@1 is; where all queries fared alike, drawing among them tells nothing."""
    found = [(title, result.confidence[way]["r1"]) for way, title in WAYS.items() if way in result.confidence]
    shown = ", ".join(
        f"{title} {interval['low']:.1f} to {interval['high']:.1f}"
        if interval["low"] < interval["high"]
        else f"{title} none, as every query fared alike"
        for title, interval in found
    )
    return [f"95 % interval of R@1 over queries: {shown}"] if shown else []
