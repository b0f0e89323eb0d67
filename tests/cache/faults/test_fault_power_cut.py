"""A power cut: what was not synced is dropped, emptied, half there or zeros. Nothing that was reported is lost."""

import fcntl
import os
import random
import shutil
import struct
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import pytest
from teachclip.cache.scores.upkeep.check import Check

STORE = Path("runs/first/scores.zarr")  # its folders are made with it
KEPT = ("nothing", "names", "some", "some")


class Cuts:
    """Cuts the power after each change that a writer makes, and looks at what is left."""

    def __init__(
        self,
        disk,
        writers,
        root: Path,
        seed: int,
        kept: tuple[str, ...] = KEPT,
        share: float = 1.0,
        reports_only: bool = False,
    ) -> None:
        (root / "disk").mkdir()
        self.disk, self.writers, self.root, self.kept, self.share = disk, writers, root, kept, share
        self.journal = disk.Journal(root / "disk")
        self.path = root / "disk" / STORE
        self.rng = random.Random(seed)
        self.reported: list[str] = []
        self.reports_only = reports_only
        self.cuts = self.states = 0
        self._seen: set[int] = set()

    def run(self, stop_at: int | None = None) -> None:
        """Write the store; at change `stop_at` the writer is killed, and only that."""
        left = iter(range(stop_at)) if stop_at is not None else None

        def hook(event) -> None:
            if left is not None and next(left, None) is None:
                raise self.disk.Killed
            if not self.reports_only:
                self.cut()
            self.journal.record(event)

        with suppress(self.disk.Killed), self.disk.watched(hook, sync=False, within=self.journal.root):
            self.writers.work(self.path, self.report)
        self.cut()

    def report(self, line: str) -> None:
        self.reported.append(line)
        self.cut()

    def cut(self) -> None:
        for kept in self.kept:
            self.cuts += 1
            tree = self.journal.after_cut(kept, self.rng)
            key = hash((frozenset(tree.items()), len(self.reported)))
            if key not in self._seen and self.rng.random() < self.share:
                self._seen.add(key)
                self.states += 1
                self.look(tree)

    def look(self, tree) -> None:
        left = self.root / "left"
        self.disk.lay_out(tree, left)
        path = left / STORE
        assert self.writers.missing(path, self.reported) == []
        if path.exists() and not self.reports_only:
            assert Check(path, full=True).run().findings == ()
        shutil.rmtree(left)


def test_nothing_that_was_reported_is_lost_in_a_power_cut(disk, writers, tmp_path: Path) -> None:
    cuts = Cuts(disk, writers, tmp_path, seed=3, share=0.5)
    cuts.run()
    assert cuts.cuts > 4 * 150


def test_nor_when_the_run_before_was_killed_before_it_synced(disk, writers, tmp_path: Path) -> None:
    """What a killed run renamed and did not sync is found by the next, which then answers for it."""
    events = changes(disk, writers, tmp_path)
    unsynced = [
        at
        for at, event in enumerate(events, 1)
        if event.kind == "rename" or (event.kind == "mkdir" and ".tmp-" not in event.path)
    ]
    assert len(unsynced) > 20
    assert cut_after_kills(disk, writers, tmp_path, unsynced) > 20 * 5


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_change_ten_ways(disk, writers, tmp_path: Path, record_testsuite_property) -> None:
    cuts = Cuts(disk, writers, tmp_path, seed=4, kept=("nothing", "names", *["some"] * 8))
    cuts.run()
    events = changes(disk, writers, tmp_path)
    after = cut_after_kills(disk, writers, tmp_path, range(len(events)))
    record_testsuite_property(
        "power cuts", f"{cuts.cuts} cuts, {cuts.states} different states; {after} after {len(events)} kills"
    )


def changes(disk, writers, folder: Path) -> list:
    """The changes that an uninterrupted run makes."""
    found: list = []
    with disk.watched(found.append, sync=False):
        writers.work(folder / "counted" / STORE)
    return found


def cut_after_kills(disk, writers, folder: Path, points: Iterable[int]) -> int:
    """Kill a run at each of these changes, resume, and cut after each report; how often the power was cut."""
    cuts = 0
    for at in points:
        (folder / str(at)).mkdir()
        both = Cuts(disk, writers, folder / str(at), seed=at, kept=("nothing",), reports_only=True)
        both.run(stop_at=at)
        both.run()
        shutil.rmtree(folder / str(at))
        cuts += both.cuts
    return cuts


class Ext4:
    """A small ext4 on a loop device, whose power can be cut: what the kernel had not written is gone."""

    _SHUTDOWN, _NO_LOG_FLUSH = 0x8004587D, struct.pack("I", 2)

    def __init__(self, folder: Path) -> None:
        self.image, self.folder = folder / "image", folder / "mounted"
        self.folder.mkdir()
        self.image.touch()
        os.truncate(self.image, 8 * 2**20)
        self._call("mkfs.ext4", "-q", "-F", "-b", "1024", str(self.image))
        self.mount()

    @staticmethod
    def _call(*command: str) -> None:
        subprocess.run(command, check=True, capture_output=True)

    def mount(self) -> None:
        self._call("mount", "-o", "loop", str(self.image), str(self.folder))

    def unmount(self) -> None:
        for _ in range(600):  # TensorStore's threads close what they have read in their own time
            if subprocess.run(["umount", str(self.folder)], capture_output=True, check=False).returncode == 0:
                return
            time.sleep(0.1)
        self._call("umount", str(self.folder))

    def cut(self) -> None:
        handle = os.open(self.folder, os.O_RDONLY)
        fcntl.ioctl(handle, self._SHUTDOWN, self._NO_LOG_FLUSH)
        os.close(handle)


def cut_ext4(disk, writers, folder: Path, points: Iterable[int]) -> int:
    """Cut a real file system's power at these changes; look, resume, cut after the end; how many cuts."""
    cuts = 0
    for at in points:
        (folder / str(at)).mkdir()
        try:
            ext4 = Ext4(folder / str(at))
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"needs root, mkfs.ext4 and loop devices: {error}")
        try:
            path, reported, left = ext4.folder / STORE, [], iter(range(at))

            def hook(event, left=left, ext4=ext4) -> None:
                if next(left, None) is None:
                    ext4.cut()
                    raise disk.Killed

            for kill in (hook, lambda event: None):
                with suppress(disk.Killed), disk.watched(kill, within=ext4.folder):
                    writers.work(path, reported.append)
                if kill is not hook:
                    ext4.cut()
                cuts += 1
                ext4.unmount()
                ext4.mount()
                assert writers.missing(path, reported) == []
                if path.exists():
                    assert Check(path, full=True).run().findings == ()
            assert reported[-1] == "finished"
        finally:
            ext4.unmount()
        shutil.rmtree(folder / str(at))
    return cuts


def test_a_real_file_system_whose_power_is_cut(disk, writers, tmp_path: Path) -> None:
    assert cut_ext4(disk, writers, tmp_path, (60, 125, 150, 175)) == 8


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_real_file_system_at_every_change(disk, writers, tmp_path: Path, record_testsuite_property) -> None:
    cuts = cut_ext4(disk, writers, tmp_path, range(len(changes(disk, writers, tmp_path))))
    record_testsuite_property("power cuts of ext4", f"{cuts} cuts of ext4's power")
