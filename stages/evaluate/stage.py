"""Ranks and metrics of models on test sets, from the frame caches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...configs.schema import Config
from ...errors import TeachclipError
from ..runtime.device import choose_device, tell_device
from ..runtime.reporting import Reporter, Silent
from .one_model import EvaluateResult, OneModel


@dataclass(frozen=True)
class Evaluations:
    """Runs by test sets: what was measured, and what could not be, as (run, test set, why)."""

    results: tuple[EvaluateResult, ...]
    failed: tuple[tuple[str, str, TeachclipError], ...]


def evaluate(config: Config, reporter: Reporter | None = None) -> EvaluateResult:
    """Measure `config.evaluate.run` on a split; also written to `evaluation-<split>.json` and `ranks-<split>.npz` in
    the run folder, with the kind of re-ranking in the names when there is one. Where that cannot be, `not_kept` says
    why.

    Raises:
        DataError: the split has no usable captions.
        CheckpointError: the model cannot be loaded.
        CacheError: frames are missing or do not fit the model.
    """
    reporter = reporter or Silent()
    tell_device(choose_device(config.evaluate.device), reporter)
    return OneModel(config, config.evaluate_run, reporter).measure(config)


def evaluate_sets(
    config: Config,
    others: Mapping[str, Config],
    runs: Sequence[Path] = (),
    reporter: Reporter | None = None,
    name: str = "own",
) -> Evaluations:
    """Every run on every test set (TeachCLIP table 6); what cannot be measured does not keep the others from it.

    Args:
        config: says how to evaluate; its test set comes first, called `name`.
        others: further test sets by name: their data, their frames and their `evaluate.split` count. Their results are
            written to the run folder with the set's name in front: `evaluation-<name>-<split>.json`. Where that
            cannot be, `not_kept` says why.
        runs: run folders or checkpoints; by default `config.evaluate.run`.
    """
    reporter = reporter or Silent()
    tell_device(choose_device(config.evaluate.device), reporter)
    sets = {name: config, **others}
    results: list[EvaluateResult] = []
    failed: list[tuple[str, str, TeachclipError]] = []
    for run in runs or [config.evaluate_run]:
        try:
            model = OneModel(config, run, reporter)
        except TeachclipError as error:
            failed.extend((str(run), each, error) for each in sets)
            continue
        for each, of in sets.items():
            try:
                results.append(model.measure(of, each))
            except TeachclipError as error:
                failed.append((str(run), each, error))
    return Evaluations(tuple(results), tuple(failed))
