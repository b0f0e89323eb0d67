"""What made each shard stands beside the store: shown, told of where it differs, and needed by nothing."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from teachclip import __version__
from teachclip.cache.scores.makers import Maker, makers
from teachclip.cache.scores.store import ScoreStore
from teachclip.cache.scores.upkeep.catalog import MadeShards, teacher_info
from teachclip.cache.scores.upkeep.removal import remove_teacher
from teachclip.pipeline.cli.groups.cache.shown import described
from teachclip.pipeline.cli.shell.output import plain
from teachclip.stages.score.stage import score

MADE = Maker("cpu", "float32, ieee", torch.__version__, __version__)


@pytest.fixture
def scored(process: Any, new_world: Any, fake_teacher: Any) -> Any:
    """A configuration whose store is finished: five shards."""
    config = process.config_of(new_world())
    score(config)
    return config


def notes(config: Any) -> list[Path]:
    return sorted(Path(f"{config.score_store}.made").rglob("*.json"))


def test_they_are_noted_and_shown(scored: Any) -> None:
    store = ScoreStore.open(scored.score_store)
    assert dict(makers(store.teacher("fake").tiles)) == {MADE: 5}
    info = teacher_info(store, "fake")
    assert info.made == (MadeShards(5, *vars(MADE).values()),)
    line = f"5 shards on cpu in float32, ieee; torch {torch.__version__}, teachclip {__version__}"
    assert line in plain(described([info]))


def test_shards_in_another_precision_are_told_before_more_are_added(scored: Any, heard: Any) -> None:
    for note in notes(scored)[:2]:
        note.write_text(json.dumps(json.loads(note.read_text()) | {"precision": "float32, tf32"}))
    next(scored.score_store.glob("fake/tiles/dense/done/00004.json")).unlink()
    score(scored, heard)
    assert heard.warnings[-1] == "fake: 2 shards were made in float32, tf32; now it is float32, ieee"
    assert sum(makers(ScoreStore.open(scored.score_store).teacher("fake").tiles).values()) == 5


@pytest.mark.parametrize("harm", ["gone", "no JSON", "[]", "{}"])
def test_nothing_needs_them(scored: Any, harm: str) -> None:
    for note in notes(scored):
        note.write_text(harm)
    if harm == "gone":
        shutil.rmtree(f"{scored.score_store}.made")
    store = ScoreStore.open(scored.score_store)
    assert teacher_info(store, "fake").made == ()
    assert store.teacher("fake").complete
    assert score(scored).teachers[0].shards_now == 0


def test_they_go_with_their_teacher(scored: Any) -> None:
    assert len(notes(scored)) == 5
    remove_teacher(scored.score_store, "fake")
    assert notes(scored) == []
