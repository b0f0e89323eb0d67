"""Videos of any length arrive in parts: in order, from the beginning after a mishap, each within its time."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from teachclip.configs.schema import PrepareConfig
from teachclip.stages.data.video.workers import Arrived, decode_in_parts

CONFIG = PrepareConfig(image_size=4, workers=1, timeout=3.0)


def arrived(tmp_path: Path, reader: Any, *names: str) -> dict[str, tuple[str, list[int]]]:
    """Of each video its status and what the last turn sent, every frame by its value."""
    jobs = [(name, tmp_path / name) for name in names]
    parts: dict[int, list[int]] = {}
    found: dict[str, tuple[str, list[int]]] = {}
    for event in decode_in_parts(jobs, CONFIG, reader):
        if isinstance(event, Arrived):
            own = parts.setdefault(event.index, [])
            if event.part.first:
                own.clear()
            own += event.part.frames[:, 0, 0, 0].tolist()
        else:
            found[names[event.index]] = (event.record.status.status, parts.get(event.index, []))
    return found


def test_parts_come_in_order(tmp_path: Path, spawned: Callable[[str], Any]) -> None:
    """And a video may take longer than the limit as long as each of its parts does not."""
    found = arrived(tmp_path, spawned("in_parts"), "a.mp4", "slow.mp4", "b.mp4")
    assert found == dict.fromkeys(("a.mp4", "slow.mp4", "b.mp4"), ("ok", [10, 10, 11, 11, 12, 12]))


@pytest.mark.parametrize("what", ["kill", "hang"])
def test_after_a_mishap_the_parts_come_from_the_beginning(
    tmp_path: Path, spawned: Callable[[str], Any], what: str
) -> None:
    found = arrived(tmp_path, spawned("in_parts"), f"{what}.mp4", "a.mp4")
    assert found == {f"{what}.mp4": ("ok", [20, 20, 21, 21, 22, 22]), "a.mp4": ("ok", [10, 10, 11, 11, 12, 12])}


def test_what_always_fails_has_a_status(tmp_path: Path, spawned: Callable[[str], Any]) -> None:
    found = arrived(tmp_path, spawned("in_parts"), "kill always.mp4", "hang always.mp4", "a.mp4")
    assert {name: status for name, (status, _) in found.items()} == {
        "kill always.mp4": "failed",
        "hang always.mp4": "timeout",
        "a.mp4": "ok",
    }
