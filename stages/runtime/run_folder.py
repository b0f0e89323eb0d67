"""The run folder: what a training run was made from, its log, its checkpoints.

run.json            identity: configuration and data; a run is resumed only by the same
config.yaml         the whole configuration, for people
environment.json    where and with what each process worked on it
metrics.jsonl       one line a step, one a validation; events.out.tfevents.* holds the same for TensorBoard
last-STEP.state     weights, optimiser and position: what a killed run goes on from; the last `train.keep` of them
best.safetensors    the chosen network; best-STEP.safetensors until the state that chose it is on the disk
result.json         written last: the run is finished
run.lock            locked by the process that trains, which it names meanwhile
"""

import errno
import fcntl
import json
import math
import os
import platform
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ...cache.storage.identity import flatten, refuse_difference
from ...cache.storage.publish import make_folder, publish, remove_leftovers, sync_folder
from ...cache.storage.untrusted import others
from ...configs.changed_defaults import CHANGED_DEFAULTS, is_named, value_of
from ...configs.loading import dump_config
from ...configs.schema import Config, TrainConfig
from ...errors import CacheError, TrainingError
from ...remedies import OTHER, Change, DeleteFolder, Remedy, Train
from .device import choose_device, resolved

# Fields that change where and how fast a run is, what is kept and shown of it, not what it computes, and those whose
# effect is in `data`: the mask's digest, the scores made of other pixels, the digests of teachers inside the step.
NOT_IDENTITY = {
    *("run", "device", "compile", "channels_last", "recompute", "chunk", "deterministic"),
    *("prefetch", "label_reader", "frames"),
    *("checkpoint_seconds", "keep", "tensorboard", "logger", "max_loss_ratio", "captions_mask", "accept"),
    "online_precision",
}
# Settings that came later: a run that leaves them as they were before is what it was before there were such.
_LATER = {
    *("train.unlabelled", "train.epoch_of", "train.loss.matryoshka"),
    *("train.optim.schedule", "train.optim.epoch_factor"),
}
_ANOTHER_RUN = Change({"train.run": f"runs/{OTHER}"})
# What lies in a run's folder: what training, evaluating and sweeps write there, and what people do.
_OURS = (
    *("run.json", "config.yaml", "environment.json", "metrics.jsonl", "result.json", "run.lock", "*.state"),
    *("best*.safetensors", "events.out.tfevents.*", "evaluation-*.json", "measured-*.json", "ranks-*.npz"),
    *("*.txt", "*.log", "*.out", "*.err", "*.md"),
)
TIMES = {"seconds", "data_wait", "images_per_second", "memory"}
"""Fields of metrics.jsonl that differ from one run of the same training to another."""
_NO_LOCKS = (errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.ENOLCK)  # file systems that have none


class RunFolder:
    """One training run on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.best = folder / "best.safetensors"
        self._log = folder / "metrics.jsonl"
        self._result = folder / "result.json"
        self._environment = folder / "environment.json"

    def claim(self, config: Config, data: Mapping[str, str]) -> None:
        """Take the folder for this configuration and data.

        Raises:
            CacheMismatchError: the folder holds a run of another configuration or data; names what differs.
        """
        identity = _identity(config.train, data)
        path = self.folder / "run.json"
        if self._holds_a_run:
            # Options that are newer than the run are off by default.
            newer = _identity(TrainConfig(device=config.train.device), {})
            before = {key: newer[key] for key in newer.keys() & identity.keys()} | _read_json(path)
            hint = self._otherwise(identity, before, config)
            refuse_difference(identity, before, where=str(self.folder), hint=hint, what="the run")
            return
        publish(self.folder / "config.yaml", dump_config(config).encode())
        publish(path, json.dumps(identity, indent=1).encode())

    @property
    def _holds_a_run(self) -> bool:
        """One that failed before its first checkpoint holds nothing: its configuration may still be mended."""
        begun = (self.folder / "run.json").exists()
        return begun and any(file.exists() for file in (self.best, self._result, *self.states))

    def former_defaults(self, config: Config) -> dict[str, Any]:
        """What a run begun before a default changed goes on with: recorded values by key, where `config` names none.

        Raises:
            CacheError: run.json is damaged.
        """
        unnamed = {key: former for key, former in CHANGED_DEFAULTS.items() if not is_named(config, key)}
        if not unnamed or not self._holds_a_run:
            return {}
        recorded = self.made_from()
        first = next(iter(_read_list(self._environment)), None)
        then = first.get("defaults", {}) if isinstance(first, dict) else {}  # as they were when it was begun
        return {
            key: recorded[key]
            for key, former in unnamed.items()
            if recorded.get(key) in former and then.get(key, recorded[key]) == recorded[key] != value_of(config, key)
        }

    def _otherwise(self, identity: Mapping[str, Any], before: Mapping[str, Any], config: Config) -> Remedy:
        """What helps when the folder holds another run."""
        again = None if others(self.folder, _OURS) else Remedy("start this one again", DeleteFolder(str(self.folder)))
        if not (self.result is not None and self.best.exists() and _longer(identity, before)):
            return Remedy("name another run", _ANOTHER_RUN, otherwise=again)
        further = Change({"train.run": f"runs/{OTHER}", "train.init": str(config.train.run)})
        advice = (
            "this run is finished, and its learning rate has come to its end; go on from its network in another run"
        )
        return Remedy(advice, further, otherwise=again)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else trains in this folder meanwhile; where the file system has no locks, that is not checked.

        Raises:
            TrainingError: another process does, and is named; or the folder holds something else than a run.
        """
        found = [name for name in others(self.folder, _OURS) if not _holds_results(self.folder / name)]
        if found and not (self.folder / "run.json").exists():
            raise TrainingError(
                f"this folder holds something else than a run: {found[0]}{' and more' * (len(found) > 1)}",
                where=str(self.folder),
                hint=Remedy("name a folder of its own", _ANOTHER_RUN),
            )
        make_folder(self.folder)
        with (self.folder / "run.lock").open("a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                raise TrainingError(
                    f"{file.read().strip() or 'another process'} is training this run",
                    where=str(self.folder),
                    hint=Remedy("wait for it, end it, or name another run", _ANOTHER_RUN),
                ) from error
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}")
            file.flush()
            remove_leftovers(self.folder, age=0.0)
            yield
            file.truncate(0)

    @property
    def result(self) -> dict[str, Any] | None:
        """What the finished run reported, or None while it is not finished."""
        return _read_json(self._result) if self._result.exists() else None

    def finish(self, result: Mapping[str, Any]) -> None:
        """The run is finished: publish its result, forget its states."""
        publish(self._result, json.dumps(result, indent=1).encode())
        self.forget_states()

    def forget_states(self) -> None:
        """Remove the states of a finished run, which a process that was killed meanwhile has left."""
        for path in self.states:
            with suppress(OSError):  # somebody else's run, which may only be read
                path.unlink()

    def state(self, step: int) -> Path:
        """Where the training state after `step` steps is kept."""
        return self.folder / f"last-{step:08d}.state"

    @property
    def states(self) -> list[Path]:
        """The training states, newest first; last of all `last.state`, as earlier releases called their only one."""
        return sorted(self.folder.glob("last*.state"), key=_step, reverse=True)

    def keep_states(self, paths: Sequence[Path]) -> None:
        """Remove all training states but these."""
        for path in set(self.states) - set(paths):
            path.unlink(missing_ok=True)

    @property
    def anew(self) -> Remedy:
        """What helps where nothing of the run can be gone on with."""
        return _anew(self.folder)

    @property
    def usable(self) -> str:
        """What a run that ends now can go on from, in words."""
        names = [path.name for path in self.states]
        return f"checkpoints to go on from: {', '.join(names)}" if names else "there is no checkpoint yet"

    def spoiled(self, what: str, details: Sequence[str]) -> TrainingError:
        """The error of a run whose numbers make no sense any more, `what` says how: what is kept, what to do."""
        another = Remedy(
            "with a lower train.optim.lr, or captions without these videos, make another run", _ANOTHER_RUN
        )
        go_on = Remedy("go on from the newest, through the same batches", Train(), otherwise=another)
        return TrainingError(
            what,
            where=str(self.folder),
            details=[*details, self.usable],
            hint=go_on if self.states else another,
        )

    def candidate(self, step: int) -> Path:
        """Where the network chosen after `step` steps is kept until the state that says so is on the disk."""
        return self.folder / f"best-{step:08d}.safetensors"

    def settle(self, best: Mapping[str, Any]) -> None:
        """Make the network that `best` names the chosen one, and remove those that no state names."""
        if best and (chosen := self.candidate(best["step"])).exists():
            chosen.replace(self.best)
            sync_folder(self.folder)
        for path in self.folder.glob("best-*.safetensors"):
            path.unlink(missing_ok=True)

    def log(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Add lines to metrics.jsonl."""
        with self._log.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)

    def sync_log(self) -> None:
        """Make what was logged survive a power cut."""
        with self._log.open("rb") as file:
            os.fsync(file.fileno())

    def cut_log(self, step: int) -> None:
        """Forget what was logged after `step`."""
        kept = [line for line in self.metrics() if line["step"] <= step]
        publish(self._log, "".join(json.dumps(line) + "\n" for line in kept).encode())

    def metrics(self) -> list[dict[str, Any]]:
        """All complete lines of metrics.jsonl."""
        lines = self._log.read_text(encoding="utf-8").splitlines(keepends=True) if self._log.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def made_from(self) -> dict[str, Any]:
        """What run.json says it was made from: flat settings of training, and digests of data.

        Raises:
            CacheError: the file is damaged.
        """
        return _read_json(self.folder / "run.json")

    def record(self, environment: Mapping[str, Any]) -> None:
        """Add to environment.json where and with what this process works on the run."""
        earlier = _read_list(self._environment) if environment["from_step"] else []
        publish(self._environment, json.dumps([*earlier, environment], indent=1).encode())


def told_former(former: Mapping[str, Any], config: Config) -> tuple[str, ...]:
    """`RunFolder.former_defaults` of `config` in words, a line a key."""
    return tuple(
        f"{key} stays {value}, with which this run was begun; the default is {value_of(config, key)} now"
        for key, value in former.items()
    )


def _identity(train: TrainConfig, data: Mapping[str, str]) -> dict[str, Any]:
    settings = flatten({"train": train.model_dump(mode="json", exclude=NOT_IDENTITY)})
    usual = flatten({"train": TrainConfig().model_dump(mode="json")})
    of_others = () if train.network.on_experts else ("train.network.experts.",)
    said = {
        key: value
        for key, value in settings.items()
        if not key.startswith(of_others) and not (key in _LATER and value == usual[key])
    }
    said["train.precision"] = resolved(train.precision, choose_device(train.device))
    return said | flatten({"data": dict(data)})


def _longer(wanted: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """Whether more steps are wanted than a run was made with."""
    limits = [each.get("train.max_steps") or math.inf for each in (wanted, before)]
    return bool(wanted["train.epochs"] > before.get("train.epochs", math.inf) or limits[0] > limits[1])


def _holds_results(folder: Path) -> bool:
    """Whether it is another run, or a teacher's evaluation, as sweeps put them side by side in a folder."""
    return any(any(folder.glob(name)) for name in ("run.json", "evaluation-*.json", "measured-*.json"))


def _anew(folder: Path) -> Remedy:
    """What helps where a run cannot be gone on with; who keeps other things there is not told to delete them."""
    if others(folder, _OURS):
        return Remedy("name another run", _ANOTHER_RUN)
    return Remedy("start this run again", DeleteFolder(str(folder)))


def _step(path: Path) -> int:
    found = re.fullmatch(r"last-(\d+)\.state", path.name)
    return int(found[1]) if found else -1


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CacheError("this file is damaged", where=str(path), hint=_anew(path.parent)) from error
    assert isinstance(value, dict)
    return value


def _read_list(path: Path) -> list[Any]:
    """Nothing depends on it: what cannot be read is left out."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return value if isinstance(value, list) else []
