"""Numbers agree with their nouns, in every message."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from teachclip.plurals import counted

ROOT = Path(__file__).resolve().parents[2]
NOUNS = (
    *("videos", "captions", "texts", "teachers", "shards", "files", "splits", "runs", "processes", "queries"),
    *("tensors", "pairs", "entries", "rows", "mistakes", "lines", "leftovers", "problems", "sentences"),
)
PLAIN = re.compile(rf"\{{\}} (?:more |new |other |training |validation |usable )?({'|'.join(NOUNS)})\b(?! of the)")
# Where the number is never 1, or no number at all, and what is kept in files, which must not change.
ALLOWED = {
    ("stages/data/check.py", "videos"),  # `{split} videos`: the name of a split
    ("stages/evaluate/one_model.py", "videos"),
    ("stages/train/training_data.py", "captions"),  # keys of a run's identity
    ("stages/train/training_data.py", "videos"),
    ("stages/score/tile_plan.py", "texts"),  # part of a tile's digest
    ("stages/score/rescore.py", "pairs"),
    ("stages/data/readers/webdataset.py", "captions"),
    ("cache/scores/shard.py", "texts"),  # limits, and errors of the code alone
    ("cache/scores/shard.py", "videos"),
    ("cache/scores/tile.py", "texts"),
    ("cache/scores/tile.py", "videos"),
    ("stages/models/weights/sizes.py", "rows"),
    ("pipeline/sweep/paper.py", "runs"),
    ("pipeline/sweep/table.py", "runs"),
    ("pipeline/sweep/run.py", "rows"),
    ("pipeline/report/collect/facts.py", "processes"),  # only where there are more
    ("pipeline/cli/groups/cache/shown.py", "shards"),  # `shards and files`
    ("pipeline/cli/groups/cache/shown.py", "pairs"),  # a rate
}


def plain(tree: ast.AST) -> Iterator[str]:
    """The nouns of f-strings that always stand in the plural behind a value."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
            yield from (match[1] for match in PLAIN.finditer(text))


@pytest.mark.parametrize(
    ("number", "words", "told"),
    [
        (1, ("video",), "1 video"),
        (0, ("video",), "0 videos"),
        (2, ("video",), "2 videos"),
        (12_345, ("query", "queries"), "12,345 queries"),
        (1, ("video is", "videos are"), "1 video is"),
        (3, ("video is", "videos are"), "3 videos are"),
    ],
)
def test_one_is_singular(number: int, words: tuple[str, ...], told: str) -> None:
    assert counted(number, *words) == told


def test_no_message_counts_in_the_plural_alone() -> None:
    found = {
        (path.relative_to(ROOT).as_posix(), noun)
        for folder in ("cache", "configs", "pipeline", "stages")
        for path in (ROOT / folder).rglob("*.py")
        for noun in plain(ast.parse(path.read_text("utf-8")))
    }
    assert sorted(found - ALLOWED) == []
    assert list(plain(ast.parse("f'{n} videos are gone'"))) == ["videos"]
