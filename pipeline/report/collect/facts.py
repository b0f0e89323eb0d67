"""One run in words and curves, several side by side in tables, for a report."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from ....configs.loading import unequal
from ....configs.schema import Config, NetworkConfig
from ....errors import TeachclipError
from ....plurals import counted
from ....stages.analysis.cost.network import FLOPS_PER_MULTIPLY_ADD, NetworkCost, count_network
from ....stages.retrieval.confidence import Interval, Intervals, confidence
from ...wording import duration
from ..contents import METRICS, Cost, ModelReport, Points, RunComparison
from .run import RunFiles, number

if TYPE_CHECKING:
    from ....stages.retrieval.query_ranks import QueryRanks

VALIDATION = {"sumr": "SumR", "r1": "R@1", "r5": "R@5", "r10": "R@10"}
LOSSES = {
    "loss": "Loss, weighted sum",
    "infonce": "InfoNCE of the training batches",
    "coarse": "Coarse loss of the training batches",
    "fine": "Fine loss of the training batches",
    "auxiliary": "Auxiliary loss of the network's own training",
}
# Where things lie, not what they are.
PLACES = {"work", "data.annotations", "train.run", "evaluate.run", "search.run", "search.index"}
SHORT_DIGEST = 12


def model_report(run: RunFiles, evaluation: str | None, ranks: "QueryRanks | None", left_out: list[str]) -> ModelReport:
    """One run as the page shows it."""
    measured: Mapping[str, Any] = run.evaluations.get(evaluation or "", {})
    ways = {way: _metrics(measured.get(way)) for way in ("t2v", "v2t")}
    return ModelReport(
        name=run.name,
        note=_note(run),
        t2v=ways["t2v"],
        v2t=ways["v2t"],
        curves=curves(run),
        chosen=number(_best(run), "step"),
        cost=_cost(run, left_out),
        facts=facts(run),
        config=run.settings,
        intervals=_intervals(measured, ranks),
        ranks=[] if ranks is None else ranks.texts.expected.tolist(),
        candidates=0 if ranks is None else len(ranks.video_ids),
        marks=_marks(run, measured),
    )


def _metrics(measured: Any) -> dict[str, float]:
    found = measured if isinstance(measured, Mapping) else {}
    return {key: value for key in METRICS if (value := number(found, key)) is not None}


def _intervals(measured: Mapping[str, Any], ranks: "QueryRanks | None") -> Intervals:
    """Those that evaluation found, else those of the ranks."""
    told = measured.get("confidence")
    if isinstance(told, Mapping) and told:
        found = {way: _read_intervals(told.get(way)) for way in ("t2v", "v2t")}
        return {way: each for way, each in found.items() if each}
    return {} if ranks is None else confidence(ranks)


def _read_intervals(told: Any) -> dict[str, Interval]:
    found = {}
    for key in METRICS:
        edges = [number(told, key, edge) for edge in ("value", "low", "high")] if isinstance(told, Mapping) else [None]
        if all(edge is not None for edge in edges):
            found[key] = Interval(*(edge for edge in edges if edge is not None))
    return found


def _best(run: RunFiles) -> Mapping[str, Any]:
    best = (run.result or {}).get("best")
    return best if isinstance(best, Mapping) else {}


def _note(run: RunFiles) -> str:
    """What it is, in a few words."""
    if run.config is None:
        return "" if run.result else "not finished"
    network = run.config.train.network
    kind = (
        {"afa": "student, AFA", "mean": "student, mean pooling"}[network.pooling]
        if network.kind == "student"
        else network.kind
    )
    taught = ", ".join(run.config.train.teachers)
    words = f"{kind}; taught by {taught}" if taught else f"{kind}, by itself"
    return words if run.result else f"{words}; not finished"


def _marks(run: RunFiles, measured: Mapping[str, Any]) -> list[str]:
    """What readers of its numbers must know."""
    marks = []
    if run.result is None:
        marks.append(f"not finished: at step {run.step:,}")
    told = measured.get("marks")
    marks += [str(mark) for mark in told] if isinstance(told, list) else []
    by = str(_best(run).get("chosen_by", ""))
    if "test" in by and not any(by in mark for mark in marks):
        marks.append(f"the network was chosen by {by}")
    other = (run.result or {}).get("other_pixels")
    for teacher, count in other.items() if isinstance(other, Mapping) else ():
        marks.append(f"scores of {teacher} are of other pixels in {counted(count, 'video')}, as train.accept allowed")
    if measured.get("ties") == "published":
        marks.append("ties counted the published way")
    if left := number(measured, "left_out_videos"):
        marks.append(f"{left:,.0f} videos of the split have no usable frames and are left out")
    return marks + [f"damaged: {problem}" for problem in run.problems]


def curves(run: RunFiles) -> dict[str, Points]:
    """Chart title -> points, the same titles in the same order for every run."""
    found = {
        f"{label} on the validation split, text to video": run.points("val", "t2v", key)
        for key, label in VALIDATION.items()
    }
    for key, label in LOSSES.items():
        points = run.points("train", key)
        found[label] = points if any(value for _, value in points) else ()
    parts = dict.fromkeys(part for line in run.lines if isinstance(line.get("lr"), Mapping) for part in line["lr"])
    for part in dict.fromkeys(("trunk", "rest", "afa", *parts)):
        found[f"Learning rate: {part}"] = run.points("train", "lr", part)
    found["Norm of the gradients, before the clip"] = run.points("train", "grad_norm")
    found["Frames per second"] = run.points("train", "images_per_second")
    # Earlier releases wrote seconds instead of a share, and no frames per second.
    waits = run.points("train", "data_wait") if found["Frames per second"] else ()
    found["Waiting for data, % of the time"] = [(step, 100 * share) for step, share in waits]
    found["Memory, GB"] = [(step, bytes_ / 1e9) for step, bytes_ in run.points("train", "memory")]
    return found


def facts(run: RunFiles) -> dict[str, str]:
    """How it was trained: label -> value."""
    result = run.result or {}
    told: dict[str, str | None] = {"folder": str(run.folder)}
    if run.config is not None:
        told |= _settings(run.config)
    told["trained on"] = _counts(result)
    told["steps"] = f"{run.step:,}, not finished" if run.result is None else f"{number(result, 'steps') or 0:,.0f}"
    if (step := number(_best(run), "step")) is not None:
        told["chosen"] = f"step {step:,.0f}, by {_best(run).get('chosen_by')}"
    if (seconds := number(result, "seconds")) is not None:
        waited = number(result, "data_wait")
        told["took"] = duration(seconds) + ("" if waited is None else f", {duration(waited)} of it waiting for data")
    for environment in run.environments[-1:]:
        told |= _environment(environment, len(run.environments))
    return {label: value for label, value in told.items() if value}


def _settings(config: Config) -> dict[str, str | None]:
    settings, loss, optim = config.train, config.train.loss, config.train.optim
    network = settings.network
    afa = f" (AFA {optim.afa_lr:g})" if network.kind == "student" and network.pooling == "afa" else ""
    losses = f"{loss.contrastive} {loss.infonce:g}"
    if settings.teachers:
        losses += f", coarse {loss.coarse:g} ({loss.coarse_kind}), fine {loss.fine:g} ({loss.fine_kind})"
    further = f" and {counted(settings.unlabelled, 'video')} without captions" if settings.unlabelled else ""
    return {
        "taught by": ", ".join(settings.teachers) or "nobody",
        "losses": losses.replace("infonce", "InfoNCE"),
        "optimiser": f"{optim.optimiser}, rate {optim.lr:g}{afa}, decay {optim.weight_decay:g}",
        "batch": f"{counted(settings.batch_size, 'pair')}{further}",
        "visual trunk": settings.trunk,
        "seed": str(settings.seed),
    }


def _counts(result: Mapping[str, Any]) -> str | None:
    texts, videos = number(result, "texts"), number(result, "videos")
    if texts is None or videos is None:
        return None
    left = [
        f"{count:,.0f} {what}"
        for key, what in (("left_out_videos", "videos without frames left out"), ("masked_texts", "captions masked"))
        if (count := number(result, key))
    ]
    return ", ".join([f"{counted(round(videos), 'video')} with {counted(round(texts), 'caption')}", *left])


def _environment(told: Mapping[str, Any], processes: int) -> dict[str, str | None]:
    versions = [
        f"{name} {told[name]}" for name in ("teachclip", "torch", "open_clip", "python", "cuda") if told.get(name)
    ]
    ranks = number(told, "processes") or 1
    machine = [
        str(told.get("device") or ""),
        f"{ranks:.0f} processes" if ranks > 1 else "",
        str(told.get("platform") or ""),
    ]
    return {
        "machine": ", ".join(part for part in machine if part),
        "versions": ", ".join(versions),
        "started": f"{processes} times" if processes > 1 else None,
        "command": str(told.get("command") or ""),
    }


@cache
def _counted(network: str) -> NetworkCost:
    """Of a network's configuration as JSON; runs often share one, and counting takes a second."""
    return count_network(NetworkConfig.model_validate_json(network))


def _cost(run: RunFiles, left_out: list[str]) -> Cost | None:
    """Counted from the modules of its network; nothing is computed."""
    if run.config is None:
        return None
    try:
        counted = _counted(run.config.train.network.model_dump_json())
    except (TeachclipError, RuntimeError, ValueError) as error:
        what = error.what if isinstance(error, TeachclipError) else str(error).split("\n")[0]
        left_out.append(f"Cost of {run.name}: its network cannot be built here, {what}.")
        return None
    return Cost(
        counted.bytes_float16,
        pair_flops=FLOPS_PER_MULTIPLY_ADD * counted.pair,
        video_flops=FLOPS_PER_MULTIPLY_ADD * counted.video,
        parameters=counted.parameters,
    )


def comparisons(runs: Sequence[RunFiles]) -> list[RunComparison]:
    """Other evaluations, settings that differ, what data were used."""
    return [each for each in (_other_evaluations(runs), _unequal_settings(runs), _digests(runs)) if each.rows]


def _other_evaluations(runs: Sequence[RunFiles]) -> RunComparison:
    names = sorted({name for run in runs for name in run.evaluations})
    rows = {name: [_scores(run.evaluations.get(name)) for run in runs] for name in names} if len(names) > 1 else {}
    return RunComparison("All evaluations", "R@1 and SumR, text to video.", [run.name for run in runs], rows)


def _scores(measured: Mapping[str, Any] | None) -> str:
    if measured is None:
        return "–"
    return f"{number(measured, 't2v', 'r1') or 0:.1f}, {number(measured, 't2v', 'sumr') or 0:.1f}"


def _unequal_settings(runs: Sequence[RunFiles]) -> RunComparison:
    known = {run.name: run.config for run in runs if run.config is not None}
    apart = unequal(list(known.values())) if known else {}
    rows = {key: [_value(value) for value in values] for key, values in apart.items() if key not in PLACES}
    note = "Every setting that is not the same in all runs, defaults worked in."
    return RunComparison("Settings that differ", note, list(known), rows)


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_value, value)) or "none"
    return "–" if value is None else str(value)


def _digests(runs: Sequence[RunFiles]) -> RunComparison:
    known = [run for run in runs if run.identity]
    keys = dict.fromkeys(key for run in known for key in run.identity if key.startswith("data."))
    rows = {key.removeprefix("data."): [_digest(run.identity.get(key)) for run in known] for key in keys}
    note = "Digests: where two are the same, so was what the runs were trained on."
    return RunComparison("Data", note, [run.name for run in known], rows)


def _digest(value: Any) -> str:
    """A digest's first digits; anything that follows it as it is."""
    head, comma, rest = str("–" if value is None else value).partition(",")
    return head[:SHORT_DIGEST] + comma + rest
