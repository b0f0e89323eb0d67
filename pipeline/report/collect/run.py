"""Run folders as they are: finished, under way or damaged. What cannot be read is named, everything else is used."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....configs.loading import load_config
from ....configs.schema import Config
from ....errors import DataError, TeachclipError
from ....plurals import counted
from ..contents import Points

if TYPE_CHECKING:
    from ....stages.retrieval.query_ranks import QueryRanks

RUN_FILES = ("run.json", "config.yaml", "metrics.jsonl", "result.json", "best.safetensors")


@dataclass(frozen=True)
class RunFiles:
    """What a run folder (stages/runtime/run_folder.py) tells of itself.

    Attributes:
        name: short, unique among the runs that were read with it.
        config: with the paths of where it lies now; None where config.yaml cannot be used, whose text is `settings`.
        identity: run.json; result: result.json, None while the run is not finished.
        lines: of metrics.jsonl; environments: of environment.json, one for each process that worked on the run.
        evaluations: evaluation-NAME.json by NAME, as a rule a split.
        problems: what is damaged.
    """

    name: str
    folder: Path
    config: Config | None
    settings: str
    identity: Mapping[str, Any]
    result: Mapping[str, Any] | None
    lines: Sequence[Mapping[str, Any]]
    environments: Sequence[Mapping[str, Any]]
    evaluations: Mapping[str, Mapping[str, Any]]
    problems: tuple[str, ...]

    @property
    def step(self) -> int:
        """The last step that was logged."""
        return max((int(number(line, "step") or 0) for line in self.lines), default=0)

    def points(self, kind: str, *keys: str) -> Points:
        """(step, value) of the `kind` of lines (train, val) that have a finite number at `keys`."""
        found = [(number(line, "step"), number(line, *keys)) for line in self.lines if line.get("kind") == kind]
        return [(step, value) for step, value in found if step is not None and value is not None]

    def ranks(self, evaluation: str) -> "QueryRanks | None":
        """The ranks of single queries; None where they were not kept.

        Raises:
            DataError: the file is damaged.
        """
        from ....stages.retrieval.query_ranks import read_query_ranks

        path = self.folder / f"ranks-{evaluation}.npz"
        return read_query_ranks(path) if path.exists() else None


def read_runs(folders: Sequence[Path]) -> list[RunFiles]:
    """The runs in `folders`, each once, in this order.

    Raises:
        DataError: one of them is no run folder.
    """
    once = list({folder.resolve(): folder for folder in folders}.values())
    return [_read(folder, name) for folder, name in zip(once, short_names(once), strict=True)]


def short_names(folders: Sequence[Path]) -> list[str]:
    """The last parts of paths, as many as tell them apart."""
    parts = [folder.resolve().parts[1:] or ("/",) for folder in folders]
    names = ["/".join(each[-1:]) for each in parts]
    for count in range(2, max(map(len, parts), default=0) + 1):
        if len(set(names)) == len(names):
            break
        again = {name for name in names if names.count(name) > 1}
        names = ["/".join(each[-count:]) if name in again else name for each, name in zip(parts, names, strict=True)]
    return names


def teachers_among(runs: Sequence[RunFiles]) -> dict[str, str]:
    """Teachers whose own run is one of these -> that run's name."""
    names = {run.folder.resolve(): run.name for run in runs}
    found = {}
    for config in [run.config for run in runs if run.config is not None]:
        for teacher in config.score.teachers:
            checkpoint = config.teacher_checkpoint(teacher)
            if checkpoint is not None and checkpoint.resolve() in names:
                found[teacher.name] = names[checkpoint.resolve()]
    return found


def number(record: Mapping[str, Any], *keys: str) -> float | None:
    """A finite number below `keys`, or None."""
    value: Any = record
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if usable else None


def _read(folder: Path, name: str) -> RunFiles:
    if not folder.is_dir() or not any((folder / file).exists() for file in RUN_FILES):
        raise _no_run(folder)
    problems: list[str] = []
    config, settings = _config(folder, problems)
    result = _document(folder / "result.json", problems)
    evaluations = {
        path.stem.removeprefix("evaluation-"): _document(path, problems)
        for path in sorted(folder.glob("evaluation-*.json"))
    }
    return RunFiles(
        name,
        folder,
        config,
        settings,
        _document(folder / "run.json", problems) or {},
        result,
        _lines(folder / "metrics.jsonl", problems),
        _environments(folder / "environment.json", problems),
        {name: found for name, found in evaluations.items() if found and number(found, "t2v", "sumr") is not None},
        tuple(problems),
    )


def _no_run(folder: Path) -> DataError:
    if not folder.exists():
        beside = [each.name for each in folder.parent.iterdir() if each.is_dir()] if folder.parent.is_dir() else []
        near = get_close_matches(folder.name, beside, n=1)
        hint = f"did you mean {folder.parent / near[0]}?" if near else "name folders of runs, as training makes them"
        return DataError("no such folder", where=str(folder), hint=hint)
    below = sorted(path.parent for pattern in ("*", "*/*") for path in folder.glob(f"{pattern}/run.json"))
    hint = "name folders of runs, as training makes them" + (f", such as {below[0]}" if below else "")
    return DataError("this is no run folder", where=str(folder), hint=hint)


def _document(path: Path, problems: list[str]) -> Mapping[str, Any] | None:
    """A JSON object; None where there is no file, or one that is none."""
    if not path.exists():
        return None
    try:
        value = json.loads(path.read_bytes())
        if isinstance(value, dict):
            return value
        problems.append(f"{path.name} holds something else than it should")
    except (OSError, ValueError, RecursionError):
        problems.append(f"{path.name} is damaged")
    return None


def _environments(path: Path, problems: list[str]) -> list[Mapping[str, Any]]:
    try:
        value = json.loads(path.read_bytes()) if path.exists() else []
        return [each for each in value if isinstance(each, dict)]
    except (OSError, ValueError, TypeError, RecursionError):
        problems.append(f"{path.name} is damaged")
        return []


def _lines(path: Path, problems: list[str]) -> list[Mapping[str, Any]]:
    """The lines that can be read; the last may still be written to."""
    if not path.exists():
        return []
    try:
        text = path.read_bytes().decode("utf-8", errors="replace")
    except OSError as error:
        problems.append(f"{path.name} cannot be read: {error.strerror}")
        return []
    whole = text[: text.rfind("\n") + 1].split("\n")[:-1]
    found = [_line(line) for line in whole]
    if damaged := found.count(None):
        problems.append(f"{damaged:,} of the {counted(len(whole), 'line')} of {path.name} are damaged and left out")
    return [line for line in found if line is not None]


def _line(text: str) -> Mapping[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _config(folder: Path, problems: list[str]) -> tuple[Config | None, str]:
    path = folder / "config.yaml"
    if not path.exists():
        problems.append("config.yaml is missing")
        return None, ""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
        return _moved(load_config(path), folder), text
    except TeachclipError as error:
        problems.append(f"config.yaml cannot be used: {error.what}")
        return None, text
    except OSError as error:
        problems.append(f"config.yaml cannot be read: {error.strerror}")
        return None, ""


def _moved(config: Config, folder: Path) -> Config:
    """The configuration with `work` where it lies now, if the folders were moved together."""
    inside = config.train.run.parts
    if config.work.exists() or config.train.run.is_absolute() or folder.resolve().parts[-len(inside) :] != inside:
        return config
    return config.model_copy(update={"work": folder.resolve().parents[len(inside) - 1]})
