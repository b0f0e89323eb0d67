"""Every table fits 80 columns, with names as long as people give them, and nothing of it is cut."""

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console
from teachclip.pipeline.cli.shell.output import Output, plain
from teachclip.pipeline.cli.shell.tables import Facts, Grid, facts, table
from typer.testing import Result

type Teachclip = Callable[..., Result]

RUNS = ("runs/student-vit-b-32-batch-120-seed-3", "runs/student-vit-b-32-batch-120-seed-4")
TEACHERS = ("xclip-vit-b-16-msrvtt-9k", "xclip-vit-b-32-msrvtt-7k")
SCORES = ", ".join(f"{{name: {name}, checkpoint: runs/xclip}}" for name in TEACHERS)
STORE = "work/scores-of-two-teachers.zarr"
OWN = ("own.yaml", "--set", f"score.teachers=[{SCORES}]", "--set", "score.store=scores-of-two-teachers.zarr")
TAUGHT = ("--set", f"train.teachers=[{', '.join(TEACHERS)}]", "--set")
MADE = [
    ["score", *OWN],
    ["train", *OWN, *TAUGHT, f"train.run={RUNS[0]}"],
    ["train", *OWN, *TAUGHT, f"train.run={RUNS[1]}", "--set", "train.seed=4"],
    ["evaluate", *OWN, "--set", f"evaluate.run={RUNS[0]}"],
    ["evaluate", *OWN, "--run", RUNS[0], "--run", RUNS[1], "--on", "another-data-set.yaml"],
]
SHOWN = [
    *MADE,
    ["prepare", *OWN],
    ["prepare", *OWN, "--estimate"],
    ["data", "check", *OWN],
    ["denoise", *OWN, "--set", f"denoise.teachers=[{TEACHERS[0]}]", "--set", "denoise.keep=12"],
    ["search", *OWN, "a red square", "--set", f"search.run={RUNS[0]}"],
    ["weights", *OWN, f"work/{RUNS[0]}", f"work/{RUNS[1]}", "--count", "1"],
    ["report", *(f"work/{run}" for run in RUNS)],
    ["sweep", "mine.yaml", "--dry-run"],
    ["cost"],
    ["cost", "own.yaml"],
    ["reproduce", "table1"],
    ["cache", "ls", STORE],
    ["cache", "info", STORE],
    ["cache", "estimate", *OWN],
    ["cache", "verify", STORE],
    ["cache", "verify", STORE, "--rescore", "2", "--config", *OWN],
    ["cache", "diff", f"{STORE}:{TEACHERS[0]}", f"{STORE}:{TEACHERS[1]}"],
    ["cache", "diff", f"{STORE}:{TEACHERS[0]}", "work/exact.zarr:xclip"],
    ["cache", "report", STORE, "--captions", "own.yaml"],
    ["cache", "gc", STORE, "--dry-run"],
    ["cache", "merge", "work/exact.zarr", STORE],
    ["docs"],
    ["checkpoint", "inspect", f"work/{RUNS[0]}"],
]


def wide(items: Any) -> list[str]:
    """Lines of tables that are wider than 80 columns."""
    tables = plain([item for item in items if isinstance(item, Grid)]).splitlines()
    on_terminal = [line for item in items if isinstance(item, Grid | Facts) for line in lines(item, 80)]
    return [
        line for line in (*tables, *on_terminal) if cell_len(line) > 80 and not re.search(r"\S{60}", line)
    ]  # one long path


def test_every_table_of_every_verb_fits(teachclip: Teachclip, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "another-data-set.yaml").write_text((project / "own.yaml").read_text())
    (project / "mine.yaml").write_text(
        "base: own.yaml\ngrid: {train.optim.weight_decay: [0.1, 0.2], train.network.temporal_layers: [0, 1]}\n"
    )
    found: list[Any] = []
    monkeypatch.setattr(Output, "result", lambda _, result, *shown: found.extend(shown))
    told = {}
    for words in SHOWN:
        found.clear()
        done = teachclip(*words)
        assert done.exit_code == 0, (words, done.output)
        assert any(isinstance(item, Grid | Facts) for item in found) or words[:2] in (["cache", "gc"],), words
        if too_wide := wide(found):
            told[" ".join(words)] = too_wide
    assert told == {}


def lines(item: Any, width: int | None = None) -> list[str]:
    """As on a terminal of this width; None for a pipe."""
    if width is None:
        return plain([item]).splitlines()
    file = io.StringIO()
    Console(file=file, width=width, force_terminal=True, color_system=None).print(item, soft_wrap=True)
    return [line.rstrip() for line in file.getvalue().splitlines()]


def test_what_fits_stays_on_a_line() -> None:
    assert lines(table("model", "R@1", rows=[("a", 5.0), ("long name", 12.25)])) == [
        "model       R@1",
        "a           5.0",
        "long name  12.2",
    ]


def test_headings_and_text_wrap_at_spaces_before_the_table_is_split() -> None:
    wide = table("normalised rank", "reason", rows=[(1, "no such file or folder"), (22, "short")])
    assert lines(wide, 30) == [
        "   normalised",
        "         rank  reason",
        "            1  no such file or",
        "               folder",
        "           22  short",
    ]


def test_a_table_that_is_too_wide_goes_on_below_with_its_first_column() -> None:
    wide = table("model", *(f"metric{k}" for k in range(5)), rows=[("one", 1, 2, 3, 4, 5), ("two", 6, 7, 8, 9, 10)])
    assert lines(wide, 34) == [
        "model  metric0  metric1  metric2",
        "one          1        2        3",
        "two          6        7        8",
        "",
        "model  metric3  metric4",
        "one          4        5",
        "two          9       10",
    ]


@pytest.mark.parametrize("width", [None, 40, 80, 200])
def test_a_path_is_never_broken(width: int | None) -> None:
    path = "/data/" + "long-folder/" * 9 + "clip.mp4"
    for item in (table("rank", "video", rows=[(1, path)]), facts(("frames", path))):
        assert any(path in line for line in lines(item, width))


def test_wide_letters_count_as_two() -> None:
    item = table("name", "n", rows=[("動画" * 20, 1), ("b" * 30, 2)])
    assert lines(item)[-1].index("2") == cell_len("動画" * 20) + 2


def test_long_values_of_facts_stand_below_each_other() -> None:
    assert lines(facts(("videos", "one two three"), ("x", 3)), 16) == ["videos  one two", "        three", "x       3"]
