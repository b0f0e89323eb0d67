"""The disk as a fault finds it: every change passes a hook, which may kill, fail, record or let somebody else write.

The hook is called before each change, and once more in the middle of each write. `Journal` is a hook that records, and
says what a power cut would have left.
"""

import builtins
import io
import os
import random
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.numpy import save
from teachclip.cache import features


@dataclass(frozen=True)
class Event:
    """A change that is about to be made: create, write, half (half of the bytes are written), sync, sync-folder,
    rename, mkdir, remove."""

    kind: str
    path: str
    target: str = ""
    data: bytes = b""


type Hook = Callable[[Event], object]


class Killed(BaseException):  # as if the process were gone: nothing catches it
    """Raised by a hook in place of a kill; it must go on raising, so that no clean-up happens."""


class KillAt:
    """A hook that kills this process at its n-th call."""

    def __init__(self, at: int | None) -> None:
        self.at, self.calls = at, 0

    def __call__(self, event: Event) -> None:
        self.calls += 1
        if self.calls == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def watched(hook: Hook, sync: bool = True, within: Path = Path("/")) -> Iterator[None]:
    """Every change to the disk made through Python passes `hook` first.

    Args:
        hook: called before each change; a hook's own changes do not pass it.
        sync: `False` leaves the syncs themselves out, which a kill does not need.
        within: only what happens below this folder, and in it, counts.
    """
    real = {name: getattr(os, name) for name in ("fsync", "replace", "rename", "mkdir", "unlink", "remove", "rmdir")}
    real_open, real_save, local = io.open, features.save_file, threading.local()

    def tell(kind: str, path: object, target: object = "", data: bytes = b"") -> None:
        if getattr(local, "inside", False) or not str(path).startswith(str(within)):
            return
        local.inside = True
        try:
            hook(Event(kind, str(path), str(target), data))
        finally:
            local.inside = False

    def absolute(path: Any, dir_fd: int | None = None) -> str:
        return os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}") if dir_fd is not None else os.getcwd(), path)

    def fsync(handle: int) -> None:
        folder = stat.S_ISDIR(os.fstat(handle).st_mode)
        tell("sync-folder" if folder else "sync", os.readlink(f"/proc/self/fd/{handle}"))
        if sync:
            real["fsync"](handle)

    def rename(source: Any, target: Any, **more: Any) -> None:
        tell("rename", absolute(source), absolute(target))
        real["rename"](source, target, **more)

    def mkdir(path: Any, mode: int = 0o777, **more: Any) -> None:
        if not os.path.lexists(path) and os.path.isdir(os.path.dirname(absolute(path))):
            tell("mkdir", absolute(path))
        real["mkdir"](path, mode, **more)

    def remove(path: Any, *, dir_fd: int | None = None) -> None:
        if os.path.lexists(absolute(path, dir_fd)):
            tell("remove", absolute(path, dir_fd))
        real["unlink"](path, dir_fd=dir_fd)

    def rmdir(path: Any, *, dir_fd: int | None = None) -> None:
        tell("remove", absolute(path, dir_fd))
        real["rmdir"](path, dir_fd=dir_fd)

    class Handle(io.BufferedWriter):
        def write(self, data: Any) -> int:
            raw = bytes(data)
            tell("write", self.name, data=raw)
            super().write(raw[: len(raw) // 2])
            self.flush()
            tell("half", self.name)
            super().write(raw[len(raw) // 2 :])
            return len(raw)

    def opened(file: Any, mode: str = "r", *args: Any, **more: Any) -> Any:
        if mode != "wb":
            return real_open(file, mode, *args, **more)
        tell("create", absolute(file))
        return Handle(io.FileIO(absolute(file), "w"))

    def save_file(arrays: Any, path: Path, metadata: dict[str, str]) -> None:
        path.write_bytes(save(arrays, metadata))

    changed = {
        **{(os, name): function for name, function in (("fsync", fsync), ("replace", rename), ("rename", rename))},
        **{(os, name): function for name, function in (("mkdir", mkdir), ("unlink", remove), ("remove", remove))},
        (os, "rmdir"): rmdir,
        (io, "open"): opened,
        (builtins, "open"): opened,
        (features, "save_file"): save_file,
    }
    try:
        for (module, name), function in changed.items():
            setattr(module, name, function)
        yield
    finally:
        for name, function in real.items():
            setattr(os, name, function)
        io.open = builtins.open = real_open  # type: ignore[assignment]
        features.save_file = real_save


# A power cut


@dataclass(eq=False)
class _File:
    content: bytes = b""
    synced: bytes = b""


@dataclass(eq=False)
class _Folder:
    entries: dict[str, "_File | _Folder"] = field(default_factory=dict)
    durable: dict[str, "_File | _Folder"] = field(default_factory=dict)
    unsynced: list[dict[str, "_File | _Folder | None"]] = field(default_factory=list)

    def change(self, **entries: "_File | _Folder | None") -> None:
        self.unsynced.append(entries)
        _apply(self.entries, entries)


def _apply(entries: dict[str, Any], change: dict[str, Any]) -> None:
    for name, node in change.items():
        if node is None:
            entries.pop(name, None)
        else:
            entries[name] = node


type Tree = dict[str, bytes | None]
"""Path below the root -> content of a file, None for a folder."""


class Journal:
    """What was written below `root`, what of it was synced, and so what a power cut may leave.

    The cruellest disk that POSIX allows: only `fsync` of a file keeps its bytes, only `fsync` of a folder keeps what
    was created, renamed or removed in it. All else may be kept or lost, in any order; a rename is kept or lost whole.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tree = _Folder()

    def record(self, event: Event) -> None:
        """A hook for `watched`."""
        path = Path(event.path)
        if event.kind == "sync-folder":
            folder = self._node(path)
            assert isinstance(folder, _Folder)
            folder.durable, folder.unsynced = dict(folder.entries), []
        elif event.kind == "rename":
            folder = self._folder(path)
            assert Path(event.target).parent == path.parent
            folder.change(**{path.name: None, Path(event.target).name: folder.entries[path.name]})
        elif event.kind in ("create", "mkdir"):
            self._folder(path).change(**{path.name: _File() if event.kind == "create" else _Folder()})
        elif event.kind == "remove":
            self._folder(path).change(**{path.name: None})
        elif event.kind in ("write", "sync"):
            file = self._node(path)
            assert isinstance(file, _File)
            if event.kind == "write":
                file.content += event.data
            else:
                file.synced = file.content

    def _node(self, path: Path) -> "_File | _Folder":
        node: _File | _Folder = self.tree
        for name in str(path).removeprefix(str(self.root)).split("/")[1:]:
            assert isinstance(node, _Folder)
            node = node.entries[name]
        return node

    def _folder(self, path: Path) -> _Folder:
        folder = self._node(path.parent)
        assert isinstance(folder, _Folder)
        return folder

    def after_cut(self, kept: str, rng: random.Random) -> Tree:
        """What is there after a power cut.

        Args:
            kept: of what was not synced: `nothing`; `names` (every name, no bytes); `some` (any of it, in any order).
            rng: chooses among it.
        """
        tree: Tree = {}
        self._collect(self.tree, "", kept, rng, tree)
        return tree

    def _collect(self, folder: _Folder, prefix: str, kept: str, rng: random.Random, tree: Tree) -> None:
        entries = dict(folder.durable)
        for change in folder.unsynced:
            if kept == "names" or (kept == "some" and rng.random() < 0.5):
                _apply(entries, change)
        for name, node in entries.items():
            if isinstance(node, _Folder):
                tree[prefix + name] = None
                self._collect(node, f"{prefix}{name}/", kept, rng, tree)
            elif kept == "some" and node.content != node.synced:
                whole = node.content
                tree[prefix + name] = rng.choice([node.synced, whole[: len(whole) // 2], bytes(len(whole)), whole])
            else:
                tree[prefix + name] = node.synced


def lay_out(tree: Tree, root: Path) -> None:
    """Put a tree on the disk."""
    root.mkdir()
    for name in sorted(tree):
        content = tree[name]
        if content is None:
            (root / name).mkdir()
        else:
            (root / name).write_bytes(content)
