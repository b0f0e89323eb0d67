"""A report of runs: what their folders tell, side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .... import __version__
from ....configs.schema import Config
from ....errors import DataError, TeachclipError
from ....plurals import counted
from ....remedies import Evaluate, Remedy
from ....stages.retrieval.confidence import difference
from ....stages.runtime.reporting import Reporter, Silent
from ...wording import signed
from ..contents import Gain, ModelReport, Report
from ..page.render import write_report
from .facts import comparisons, model_report
from .queries import query_clips
from .run import RunFiles, number, read_runs, teachers_among

if TYPE_CHECKING:
    from ....stages.analysis.report_card import ReportCard
    from ....stages.analysis.teacher_worth import TeachersWorth
    from ....stages.data.dataset import Dataset
    from ....stages.retrieval.query_ranks import QueryRanks

PREFERRED = ("test", "val", "train")  # of evaluations, unless one is named
CARD_PAIRS = 400_000_000  # scores of a store whose report card is made in passing


@dataclass(frozen=True)
class RunFacts:
    """One run of a report: its folder, how far it is, its metrics in the evaluation that is shown, what is damaged."""

    name: str
    folder: str
    finished: bool
    steps: int
    t2v: Mapping[str, Any] | None
    v2t: Mapping[str, Any] | None
    intervals: Mapping[str, Any]
    marks: tuple[str, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class ReportResult:
    """What `report` wrote.

    Attributes:
        page, bytes: the file.
        evaluation: the one that is compared, as a rule a split; None where no run was evaluated.
        differences: paired, a run less another (bootstrap.difference).
        notices, left_out: what the page says of its numbers, and of what it does not show.
        teachers: whether those that taught are any good; None without cached scores.
    """

    page: str
    bytes: int
    evaluation: str | None
    runs: tuple[RunFacts, ...]
    differences: tuple[Gain, ...]
    notices: tuple[str, ...]
    left_out: tuple[str, ...]
    teachers: "TeachersWorth | None" = None


def report(
    folders: Sequence[Path],
    out: Path,
    *,
    split: str | None = None,
    title: str | None = None,
    reporter: Reporter | None = None,
) -> ReportResult:
    """Write one HTML page of any number of runs; whatever of them cannot be read or found is left out, and said.

    Args:
        folders: run folders; the first is what the others are compared with.
        split: the evaluation that is compared, `evaluation-SPLIT.json`; by default test, where a run has it.

    Raises:
        DataError: a folder is no run, or none of them was evaluated on `split`.
    """
    reporter = reporter or Silent()
    runs = read_runs(folders)
    for run in runs:
        for problem in run.problems:
            reporter.warn(f"{run.folder}: {problem}")
    evaluation = _evaluation(runs, split)
    made = build_report(runs, evaluation, title, reporter)
    write_report(made, out)
    facts = [_facts_of(run, model, evaluation) for run, model in zip(runs, made.models, strict=True)]
    return ReportResult(
        str(out),
        out.stat().st_size,
        evaluation,
        tuple(facts),
        tuple(made.gains),
        tuple(made.notices),
        tuple(made.left_out),
        made.card.worth if made.card else None,
    )


def build_report(
    runs: Sequence[RunFiles],
    evaluation: str | None,
    title: str | None,
    reporter: Reporter,
    pairs: Sequence[tuple[str, str]] = (),
) -> Report:
    """What the page of these runs holds, `evaluation` of theirs compared.

    Args:
        pairs: runs, each with the one that it is compared with, by name; the queries are those of the first pair. By
            default every run is compared with the first, and the queries are those of the best.
    """
    left_out: list[str] = []
    asked = _ranks(runs, evaluation, left_out)
    models = [model_report(run, evaluation, asked.get(run.name), left_out) for run in runs]
    gains = _gains(asked, pairs or _pairs(asked, models), left_out)
    focus, against = pairs[0] if pairs else (None, None)
    clips, note = query_clips([run for run in runs if run.name in asked], asked, reporter, left_out, focus, against)
    return Report(
        title=title or ("A run of teachclip" if len(runs) == 1 else f"{counted(len(runs), 'run')} of teachclip"),
        lead=_lead(models, runs, evaluation, gains),
        models=models,
        clips=clips,
        clips_note=note,
        gains=gains,
        card=_report_card(runs, reporter, left_out),
        teachers=teachers_among(runs),
        comparisons=comparisons(runs),
        notices=_notices(runs, models, evaluation),
        left_out=left_out,
        footer=f"teachclip {__version__}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC.",
    )


def _evaluation(runs: Sequence[RunFiles], split: str | None) -> str | None:
    """The evaluation that is compared: the one asked for, else test, else what most runs have."""
    known = [name for run in runs for name in run.evaluations]
    if split is not None and split not in known:
        raise DataError(
            f"none of these runs was evaluated on {split!r}; there is {', '.join(sorted(set(known))) or 'nothing'}",
            hint=Remedy("evaluate on it", Evaluate({"evaluate.split": split, "evaluate.run": str(runs[0].folder)})),
        )
    order = sorted(set(known), key=lambda name: (name not in PREFERRED, -known.count(name), name))
    return split or next((name for name in PREFERRED if name in known), order[0] if order else None)


def _ranks(runs: Sequence[RunFiles], evaluation: str | None, left_out: list[str]) -> dict[str, "QueryRanks"]:
    """The ranks of single queries, run by run."""
    found: dict[str, QueryRanks] = {}
    for run in runs:
        if evaluation is None or evaluation not in run.evaluations:
            continue
        try:
            ranks = run.ranks(evaluation)
        except DataError as error:
            left_out.append(f"Queries of {run.name}: {error.what}.")
            continue
        if ranks is None:
            left_out.append(f"Queries of {run.name}: it was evaluated before ranks were kept; evaluate it again.")
        else:
            found[run.name] = ranks
    return found


def _pairs(asked: Mapping[str, "QueryRanks"], models: Sequence[ModelReport]) -> list[tuple[str, str]]:
    """Every run with the first; of three and more also with the best, where that is another."""
    names = [model.name for model in models if model.name in asked]
    sumr = {model.name: model.t2v.get("sumr", 0.0) for model in models}
    pairs = [(name, names[0]) for name in names[1:]]
    if len(names) > 2 and (best := max(names, key=lambda name: sumr[name])) != names[0]:
        pairs += [(name, best) for name in names[1:] if name != best]
    return pairs


def _gains(asked: Mapping[str, "QueryRanks"], pairs: Sequence[tuple[str, str]], left_out: list[str]) -> list[Gain]:
    """The differences of those runs that were asked the same."""
    found = []
    for name, against in pairs:
        try:
            found.append(Gain(name, against, difference(asked[name], asked[against])))
        except DataError as error:
            left_out.append(f"Difference of {name} from {against}: {error.what}.")
    return found


def _lead(
    models: Sequence[ModelReport], runs: Sequence[RunFiles], evaluation: str | None, gains: Sequence[Gain]
) -> list[str]:
    shown = [model for model in models if model.t2v]
    if evaluation is None or not shown:
        unfinished = sum(run.result is None for run in runs)
        told = f"{unfinished} of {len(runs)} not finished" if unfinished else "all finished"
        return [f"Not evaluated yet ({told}): `teachclip evaluate CONFIG --set evaluate.run=RUN` measures them."]
    best = max(shown, key=lambda model: model.t2v["sumr"])
    measured = next(run.evaluations[evaluation] for run in runs if run.name == best.name)
    texts, videos = (number(measured, key) or 0 for key in ("texts", "videos"))
    interval = best.intervals.get("t2v", {}).get("sumr")
    sure = f" (95 % interval {interval.low:.1f} to {interval.high:.1f})" if interval else ""
    told = f"Measured on {evaluation}: {counted(round(texts), 'caption')}, {counted(round(videos), 'video')}. "
    if len(shown) == 1:
        return [f"{told}SumR, text to video, is {best.t2v['sumr']:.1f}{sure}."]
    told += f"{best.name} has the highest SumR, text to video: {best.t2v['sumr']:.1f}{sure}."
    gain = next((gain for gain in gains if gain.model == best.name and gain.against == shown[0].name), None)
    if gain is not None:
        less = gain.sumr
        told += f" That is {signed(less.value)} ({signed(less.low)} to {signed(less.high)}) from {gain.against}."
    return [told]


def _notices(runs: Sequence[RunFiles], models: Sequence[ModelReport], evaluation: str | None) -> list[str]:
    """What a reader must know before the numbers."""
    told = [f"{model.name}: {'; '.join(model.marks)}." for model in models if model.marks]
    measured = [run.evaluations[evaluation] for run in runs if evaluation is not None and evaluation in run.evaluations]
    sets = {(number(each, "texts"), number(each, "videos")) for each in measured}
    if len(sets) > 1:
        told.append("These runs were measured on different sets of captions or videos: their numbers do not compare.")
    if len({str(each.get("ties")) for each in measured}) > 1:
        told.append("Ties are counted in different ways.")
    absent = [run.name for run in runs if evaluation and evaluation not in run.evaluations]
    if absent and measured:
        told.append(f"Not evaluated on {evaluation}: {', '.join(absent)}.")
    return told


def _report_card(runs: Sequence[RunFiles], reporter: Reporter, left_out: list[str]) -> "ReportCard | None":
    """Of the store whose scores taught; of several the first."""
    from ....cache.scores.store import ScoreStore
    from ....stages.analysis.report_card import report_card

    taught = [
        run.config for run in runs if run.config and run.config.train.teachers and run.config.train.teaching == "cached"
    ]
    stores = list(dict.fromkeys(config.score_store for config in taught))
    for other in stores[1:]:
        left_out.append(
            f"The teachers in {other}: a page shows one store. `teachclip cache report {other} --out PAGE` shows it."
        )
    if not stores:
        return None
    try:
        store = ScoreStore.open(stores[0])
        pairs = sum(tile.spec.texts * tile.spec.videos for name in store.teachers for tile in store.teacher(name).tiles)
        if pairs > CARD_PAIRS:
            left_out.append(
                f"The teachers' report card, of {pairs:,} scores; `teachclip cache report {stores[0]} --out PAGE` "
                "makes it."
            )
            return None
        dataset = _dataset(taught[0])
        captions = {} if dataset is None else {text.id: text.caption for text in dataset.texts}
        return report_card(store, captions, reporter, None if dataset is None else (taught[0], dataset))
    except TeachclipError as error:
        left_out.append(f"The teachers' report card: {error.where or stores[0]}: {error.what}.")
        return None


def _dataset(config: Config) -> "Dataset | None":
    from ....stages.data.dataset import read_dataset

    try:
        return read_dataset(config.data)
    except TeachclipError:
        return None


def _facts_of(run: RunFiles, model: ModelReport, evaluation: str | None) -> RunFacts:
    measured = run.evaluations.get(evaluation or "")
    return RunFacts(
        run.name,
        str(run.folder),
        run.result is not None,
        run.step,
        dict(model.t2v) if measured else None,
        dict(model.v2t) if measured else None,
        {way: {key: asdict(each) for key, each in found.items()} for way, found in model.intervals.items()},
        tuple(model.marks),
        run.problems,
    )
