"""A Ray cluster: the same worker on every node that has room for it, tasks handed to whoever is free.

Ray places workers, and shows what goes on; what a task makes is published by the worker itself, as it is without Ray.
Only plain data crosses it: the configuration, tasks, counts, messages and errors.
"""

import importlib
import os
import platform
import socket
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch

from ... import __version__
from ...errors import ConfigError, TeachclipError
from ...plurals import counted
from ...remedies import Again, Option, Remedy
from .device import choose_device, device_name
from .plugins import needs
from .reporting import Reporter

LOCAL = "local"
"""In place of an address: a cluster of this machine alone, which ends with the command."""

RETRIES = 3
"""So often a task may lose its worker before it is given up."""

STARTING = 120.0
"""Seconds in which the first workers have to come up; later ones join while others work."""

ANSWERING = 10.0
"""Seconds in which a cluster's address has to answer."""

GROWING = 2.0
"""Seconds after which it is asked again whether the cluster has room for more workers."""

_SEEN, _SHOWN = 64, 20
_AUTHENTICATION = "RAY_AUTH_MODE"
_ALIKE = "workers need the folders, files and environment of this machine"
_COMPARED = ("torch", "numpy", "open_clip_torch", "av", "decord2", "pillow", "h5py")
type DeviceName = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class OnCluster:
    """How work goes to a cluster.

    Attributes:
        address: of a cluster, or `local`.
        options: Ray's own settings of a worker (an actor's `options`): num_cpus, num_gpus, memory, resources,
            max_restarts, ...; by default one GPU where the cluster has any and one is wanted, else one CPU.
        mixed: whether workers may have other versions or another kind of device than the rest.

    Raises:
        ConfigError: so many cores or GPUs are no number.
    """

    address: str
    options: Mapping[str, Any] = field(default_factory=dict)
    mixed: bool = False

    def __post_init__(self) -> None:
        for name in ("num_cpus", "num_gpus"):
            if not isinstance(value := self.options.get(name, 0), int | float):
                raise ConfigError(f"Ray does not take these options of a worker: {name} is {value!r}")


@dataclass(frozen=True)
class Place:
    """What a worker has to see as the one who asks does: the current folder, and files by their paths.

    Attributes:
        folder: the current one; files: that have to be there; device: as configured.
    """

    folder: str
    files: tuple[str, ...]
    device: DeviceName


@dataclass(frozen=True)
class Node:
    """What a worker says of where it is."""

    name: str
    versions: Mapping[str, str]
    device: str
    problems: tuple[str, ...] = ()


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Ray's module, connected; disconnected at the end, unless it was connected before.

    Raises:
        ConfigError: Ray is not installed, there is no such cluster, or it has other versions.
    """
    needs("ray", "ray", address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray = importlib.import_module("ray")
    if ray.is_initialized():
        yield ray
        return
    own: dict[str, Any] = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"} if address == LOCAL else {}
    with _authentication_kept():
        try:
            _refuse_unanswered(address)
            ray.init(
                address=address,  # Ray's own `local`, too: without it, a cluster that is there already is taken
                **own,
                log_to_driver=False,
                configure_logging=False,
            )
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            raise ConfigError(
                f"there is no Ray cluster to use: {str(error).strip().partition('\n')[0]}",
                where=address,
                hint="Ray's own `status` shows whether one is there; `local` takes this machine alone",
            ) from error
        try:
            yield ray
        finally:
            ray.shutdown()


@contextmanager
def _authentication_kept() -> Iterator[None]:
    """A cluster of our own has a token, which later clusters of this process and of its children need not have; Ray
    puts that into the environment, and keeps it and the token in memory."""
    before = os.environ.get(_AUTHENTICATION)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_AUTHENTICATION, None)
        else:
            os.environ[_AUTHENTICATION] = before
        with suppress(ImportError, AttributeError):
            kept = importlib.import_module("ray._raylet")
            kept.Config.initialize("")
            kept.AuthenticationTokenLoader.instance().reset_cache()


def _refuse_unanswered(address: str) -> None:
    """Ray itself asks for minutes whether anybody is there."""
    host, _, port = address.rpartition(":")
    if host and "/" not in host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWERING).close()


def room(ray: Any, how: OnCluster, place: Place) -> int:
    """How many workers the cluster has room for in all, other work of its apart; at least 1."""
    there, options = ray.cluster_resources(), _options(ray, how, place)
    wanted = {"CPU": options.get("num_cpus", 0), "GPU": options.get("num_gpus", 0), **options.get("resources", {})}
    return max(1, min((int(there.get(name, 0) // each) for name, each in wanted.items() if each), default=1))


def cpus_each(how: OnCluster) -> int:
    """How many cores a worker has for itself, at least one."""
    return max(1, int(how.options.get("num_cpus", 1)))


def _options(ray: Any, how: OnCluster, place: Place) -> dict[str, Any]:
    gpus = place.device != "cpu" and ray.cluster_resources().get("GPU", 0) > 0
    return {**({"num_gpus": 1} if gpus else {"num_cpus": 1}), **how.options}


@contextmanager
def marked(folders: Iterable[object]) -> Iterator[tuple[str, ...]]:
    """A file in each folder that nobody but those who share its disk has; none at an address, which is the same for
    all."""
    marks = [folder / f".workers-{uuid.uuid4().hex}" for folder in folders if isinstance(folder, Path)]
    try:
        for mark in marks:
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
        yield tuple(map(str, marks))
    finally:
        for mark in marks:
            mark.unlink(missing_ok=True)


def some_of(files: Sequence[Path]) -> tuple[str, ...]:
    """Of many files a few that workers have to see, of as many folders as possible."""
    one_each = list({file.parent: str(file) for file in files}.values())
    return tuple(one_each[:: -(-len(one_each) // _SEEN)]) if one_each else ()


def refuse_unseen(files: Iterable[Path]) -> None:
    """In a worker: all files have to be there, as they are for the one who asks; so none is taken for missing.

    Raises:
        ConfigError: one is not.
    """
    unseen = [str(file) for file in files if not file.exists()]
    if unseen:
        raise ConfigError(
            f"{socket.gethostname()} does not see {counted(len(unseen), 'file')} that the command sees",
            details=unseen[:_SHOWN],
            hint=f"{_ALIKE}; what was deleted meanwhile is missing for all when the same is done again",
        )


def on_cluster(
    ray: Any,
    how: OnCluster,
    place: Place,
    make: Callable[..., Callable[[Any], Any]],
    arguments: tuple[Any, ...],
    tasks: Sequence[Any],
    reporter: Reporter,
) -> Iterator[Any]:
    """What the tasks' workers return, in the order in which they are done.

    Args:
        ray: as `connected` gives it.
        place: what workers have to see.
        make: called in each worker, once, with `arguments`: what does a task.

    Raises:
        ConfigError: a worker sees other files or has other versions or another kind of device; an option that Ray does
            not know.
        TeachclipError: a task lost its worker again and again, or no worker comes up; else whatever a task raises.
    """
    yield from _Pool(ray, how, place, make, arguments, reporter).run(tasks)


class _Pool:
    def __init__(
        self,
        ray: Any,
        how: OnCluster,
        place: Place,
        make: Callable[..., Callable[[Any], Any]],
        arguments: tuple[Any, ...],
        reporter: Reporter,
    ) -> None:
        self.ray, self.how, self.place, self.reporter = ray, how, place, reporter
        self.options = _options(ray, how, place)
        self._made = (place, make, arguments, cpus_each(how))
        self._starting: dict[Any, Any] = {}
        self._working: dict[Any, tuple[Any, int]] = {}
        self._idle: list[Any] = []
        self._as: Node | None = None
        self._closed = False
        self._fallen = 0  # workers that did not come up, since one did

    def run(self, tasks: Sequence[Any]) -> Iterator[Any]:
        waiting, lost = deque(range(len(tasks))), Counter[int]()
        try:
            self._grow(len(tasks))
            self._await_first()
            while waiting or self._working:
                while waiting and self._idle:
                    worker, number = self._idle.pop(), waiting.popleft()
                    self._working[worker.do.remote(tasks[number])] = worker, number
                for done in self._ready():
                    if done in self._starting:
                        self._greeted(done)
                        continue
                    worker, number = self._working.pop(done)
                    try:
                        kind, told = self.ray.get(done)
                    except self.ray.exceptions.RayActorError as error:
                        lost[number] += 1
                        if lost[number] > RETRIES:
                            raise _given_up(lost[number], error) from error
                        waiting.appendleft(number)
                        continue
                    if kind == "failed":
                        raise told
                    self._idle.append(worker)
                    yield told
                self._grow(len(waiting) + len(self._working))
                if not (self._idle or self._working or self._starting) and waiting:
                    raise self._none_came_up("the last one is gone, and those that could follow do not fit")
        finally:
            for worker in (*self._idle, *self._starting.values(), *(worker for worker, _ in self._working.values())):
                with suppress(Exception):
                    self.ray.kill(worker)

    def _grow(self, tasks: int) -> None:
        count = len(self._starting) + len(self._working) + len(self._idle)
        if self._closed or count >= tasks:
            return
        for _ in range(min(room(self.ray, self.how, self.place), tasks) - count):
            try:
                worker = self.ray.remote(_Worker).options(**self.options).remote(*self._made)
            except (ValueError, TypeError) as error:
                raise ConfigError(f"Ray does not take these options of a worker: {error}") from error
            self._starting[worker.hello.remote()] = worker

    def _ready(self) -> list[Any]:
        ready, _ = self.ray.wait([*self._working, *self._starting], num_returns=1, timeout=GROWING)
        return list(ready)

    def _await_first(self) -> None:
        """Every worker that there is room for says where it is before any begins; all that is wrong is told at once."""
        until, problems, told = time.monotonic() + STARTING, dict[str, tuple[str, ...]](), False
        while self._starting and (time.monotonic() < until or not self._idle):
            ready, _ = self.ray.wait(list(self._starting), num_returns=1, timeout=GROWING)
            if not told and not self._idle and time.monotonic() > until:
                there = {name: count for name, count in self.ray.cluster_resources().items() if name in ("CPU", "GPU")}
                self.reporter.warn(f"waits for room: a worker wants {self.options}, the cluster has {there}")
                told = True
            for done in ready:
                node = self._greeted(done, first=True)
                if node is not None and node.problems:
                    problems[node.name] = node.problems
        if problems:
            raise ConfigError(
                f"{counted(len(problems), 'node', 'nodes')} of this cluster cannot take part",
                where=self.how.address,
                details=[f"{name}: {each}" for name, found in problems.items() for each in found],
                hint=_ALIKE if self.how.mixed else Remedy(f"{_ALIKE}; or let in what differs", Again(Option.MIXED)),
            )
        if self._as is None:
            raise self._none_came_up("see the log of Ray's workers on the nodes")
        self.reporter.info(f"Ray: {counted(len(self._idle), 'worker')} on {self._as.device}")

    def _greeted(self, done: Any, first: bool = False) -> Node | None:
        """A worker that has come up, with what is wrong there; one that comes late and does not fit is sent away."""
        worker = self._starting.pop(done)
        try:
            node: Node = self.ray.get(done)
        except self.ray.exceptions.RayError as error:
            said = next((line for line in reversed(str(error).strip().splitlines()) if line.strip()), "")
            self.reporter.warn(f"a worker did not come up: {said.strip()}")
            self._fallen += 1
            if self._fallen > RETRIES and not self._working and not self._idle:
                raise self._none_came_up(said.strip()) from error
            return None
        self._as, self._fallen = self._as or node, 0
        problems = (*node.problems, *(() if self.how.mixed else _unlike(node, self._as)))
        if problems and not first:
            self.ray.kill(worker)
            self._closed = True  # Ray would place the next one there again
            self.reporter.warn(f"{node.name} cannot take part: {'; '.join(problems)}; no further workers are started")
            return None
        self._idle.append(worker)
        return replace(node, problems=problems)

    def _none_came_up(self, said: str) -> TeachclipError:
        return TeachclipError(
            "no worker of this cluster comes up",
            where=self.how.address,
            details=[said],
            hint=f"{_ALIKE}: teachclip with its libraries, the same Python and Ray",
        )


def _unlike(node: Node, other: Node) -> tuple[str, ...]:
    here = versions()
    found = [
        f"{name} {theirs}, here {own}"
        for name, own in here.items()
        if (theirs := node.versions.get(name, "is not installed")) != own
    ]
    if node.device != other.device:
        found.append(f"computes on {node.device}, others on {other.device}")
    return tuple(found)


def versions() -> dict[str, str]:
    """Of Python, of this package and of those that bits depend on."""
    found = {"Python": platform.python_version(), "teachclip": __version__}
    for name in _COMPARED:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _given_up(times: int, error: Exception) -> TeachclipError:
    return TeachclipError(
        f"a task lost its worker {times} times",
        details=[line for line in str(error).strip().splitlines() if line.strip()][:3],
        hint="memory that runs out kills workers: have Ray give each more of it, or fewer to a node; everything "
        "finished is kept",
    )


class _Worker:
    """Runs in a process of Ray's."""

    def __init__(
        self, place: Place, make: Callable[..., Callable[[Any], Any]], arguments: tuple[Any, ...], cpus: int
    ) -> None:
        self.place, self._make, self._arguments = place, make, arguments
        torch.set_num_threads(cpus)
        with suppress(OSError):
            os.chdir(place.folder)
        self._do: Callable[[Any], Any] | None = None

    def hello(self) -> Node:
        problems = [] if os.getcwd() == self.place.folder else [f"there is no folder {self.place.folder}"]
        problems += [f"there is no {file}" for file in self.place.files if not Path(file).exists()]
        device = "nothing"
        try:
            device = device_name(choose_device(self.place.device))
        except TeachclipError as error:
            problems.append(error.what)
        return Node(socket.gethostname(), versions(), device, tuple(problems))

    def do(self, task: Any) -> tuple[str, Any]:
        """What the task makes, or the error of ours that it ended with."""
        try:
            self._do = self._do or self._make(*self._arguments)
            return "made", self._do(task)
        except (TeachclipError, OSError) as error:
            return "failed", error
