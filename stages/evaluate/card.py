"""The card of a trained model: what it is, whose data and teachers made it, how well it does, how to use it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ...configs.loading import load_config
from ...configs.schema import Config
from ...errors import TeachclipError
from ...plurals import counted
from ..models.checkpoints.published import title_of
from ..models.common.network import RetrievalNetwork, VideoTextNetwork
from ..runtime.run_folder import RunFolder

UNKNOWN = "not known to teachclip: ask its publisher"
_DATA, _TRUNK = "data", "trunk"


def made_from(run: Path) -> Config | None:
    """The configuration of a run folder; None for a checkpoint file."""
    path = run / "config.yaml"
    return load_config(path) if path.is_file() else None


def sources(config: Config | None) -> list[str]:
    """What a run's model was made from, by the names that licences go by: data set, teachers, the trunk's weights."""
    if config is None:
        return []
    begun = [] if config.train.network.trunk.weights is None else [_TRUNK]
    return [_data(config), *config.train.teachers, *begun]


def card(
    run: Path,
    network: RetrievalNetwork,
    digest: str,
    name: str,
    license: str | None,
    licenses: Mapping[str, str],
    use: Sequence[str] = (),
) -> str:
    """A model card in Markdown, with the front matter that a hub reads.

    Args:
        run: a run folder, whose evaluations stand in it, or a checkpoint file.
        name: how the model will be named, `hf:OWNER/NAME`.
        license: of the model; licenses: of `sources`, by name. None of them is guessed.
        use: commands that show how it is used.
    """
    config, evaluations = made_from(run), _evaluations(run)
    front: dict[str, Any] = {"library_name": "teachclip", "tags": ["text-to-video-retrieval", "teachclip"]}
    if license is not None:
        front["license"] = license
    if evaluations:
        front["model-index"] = [{"name": name.removeprefix("hf:"), "results": list(map(_result, evaluations))}]
    lines = ["---", yaml.safe_dump(front, sort_keys=False, allow_unicode=True).rstrip(), "---", ""]
    lines += [f"# {name.rpartition('/')[2]}", "", *_what(network, digest), "", *_use(use)]
    if config is not None:
        lines += [*_made(run, config, licenses), ""]
    lines += _measured(evaluations)
    return "\n".join(lines).rstrip() + "\n"


def _what(network: RetrievalNetwork, digest: str) -> Iterator[str]:
    config = network.config
    yield f"{title_of(config)}, for finding videos by a sentence, made with teachclip."
    yield ""
    if not isinstance(network, VideoTextNetwork):
        yield f"* sees features made beforehand: {', '.join(sorted(config.experts.modalities))}"
    else:
        yield (
            f"* sees {counted(config.frames, 'frame')} of {counted(network.trunk.image_size, 'pixel')}, "
            f"reads {counted(config.words, 'token')}"
        )
    if isinstance(network, VideoTextNetwork) and network.one_vector:
        width = counted(network.vector_width, "number")
        yield f"* makes one vector of {width} of a video and of a sentence, compared by cosine"
    else:
        yield "* has no single vector of a video: it re-orders what a student finds, and teaches students"
    numbers = sum(parameter.numel() for parameter in network.parameters())
    yield f"* {counted(numbers, 'parameter')}, digest `{digest[:16]}`"


def _use(commands: Sequence[str]) -> list[str]:
    return ["## How to use it", "", "```bash", *commands, "```", ""] if commands else []


def _made(run: Path, config: Config, licenses: Mapping[str, str]) -> Iterator[str]:
    train, result = config.train, RunFolder(run).result or {}
    texts, videos = (f"{result[key]:,}" if key in result else "?" for key in ("texts", "videos"))
    yield "## What it was made from"
    yield ""
    yield "| source | what | licence |"
    yield "|---|---|---|"
    yield f"| {_data(config)} | captions: {texts}, videos: {videos} | {licenses.get(_data(config), UNKNOWN)} |"
    for teacher in train.teachers:
        yield f"| {teacher} | teacher | {licenses.get(teacher, UNKNOWN)} |"
    trunk = train.network.trunk
    if trunk.weights is not None:
        model = "" if trunk.sizes is not None else f", of {trunk.model}"
        yield f"| trunk | {Path(trunk.weights).name}{model} | {licenses.get(_TRUNK, UNKNOWN)} |"
    yield ""
    loss = train.loss
    yield (
        f"steps: {result.get('steps', '?')}, pairs a step: {train.batch_size}, seed {train.seed}; losses: "
        f"InfoNCE {loss.infonce:g}, coarse {loss.coarse:g} ({loss.coarse_kind}), fine {loss.fine:g} ({loss.fine_kind})."
    )
    if best := result.get("best"):
        yield f"Chosen by {best.get('chosen_by', '?')}."


def _measured(evaluations: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "## How well it does"
    yield ""
    if not evaluations:
        yield "It was not measured before it was shared."
        return
    yield "| test set | way | queries | R@1 | R@5 | R@10 | SumR | MdR | MnR |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for found in evaluations:
        for way in ("t2v", "v2t"):
            metrics, intervals = found[way], found.get("confidence", {}).get(way, {})
            cells = [_cell(metrics, intervals, key) for key in ("r1", "r5", "r10", "sumr")]
            rest = [f"{metrics[key]:.1f}" for key in ("mdr", "mnr")]
            yield f"| {_test_set(found)} | {way} | {metrics['queries']} | {' | '.join([*cells, *rest])} |"
    yield ""
    yield "In brackets: 95 % confidence intervals over the test set's videos. " + " ".join(
        sorted({mark for found in evaluations for mark in found.get("marks", ())})
    )


def _cell(metrics: Mapping[str, float], intervals: Mapping[str, Any], key: str) -> str:
    value = f"{metrics[key]:.1f}"
    return f"{value} ({intervals[key]['low']:.1f} to {intervals[key]['high']:.1f})" if key in intervals else value


def _result(found: Mapping[str, Any]) -> dict[str, Any]:
    """As a hub's model-index has it."""
    names = {"r1": "R@1", "r5": "R@5", "r10": "R@10", "sumr": "SumR", "mdr": "MdR", "mnr": "MnR"}
    metrics = [
        {"type": key, "name": f"{names[key]}, text to video", "value": round(found["t2v"][key], 2)} for key in names
    ]
    return {
        "task": {"type": "text-to-video-retrieval"},
        "dataset": {"type": _test_set(found), "name": _test_set(found)},
        "metrics": metrics,
    }


def _test_set(found: Mapping[str, Any]) -> str:
    return " ".join(part for part in (found.get("data") or "own", found["split"]) if part)


def _data(config: Config) -> str:
    return _DATA if config.data.set == "own" else config.data.set


def _evaluations(run: Path) -> list[dict[str, Any]]:
    """What `evaluate` has kept in a run folder, of whole vectors; what cannot be read is left out."""
    found = []
    for path in sorted(run.glob("evaluation-*.json")) if run.is_dir() else ():
        try:
            read = json.loads(path.read_text("utf-8"))
            if {"t2v", "v2t", "split"} <= read.keys() and "@" not in Path(read["run"]).name:
                found.append(read)
        except (OSError, ValueError, AttributeError, TypeError, TeachclipError):
            continue
    return found
