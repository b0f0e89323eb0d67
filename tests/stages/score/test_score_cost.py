"""Blocks cost what grows with the number of videos; the benchmarks that show what scores cost run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


def run(program: str, *arguments: str) -> str:
    command = [sys.executable, str(BENCHMARKS / program), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_bytes_and_pairs_of_blocks_are_linear_in_videos(tmp_path: Path) -> None:
    out = tmp_path / "blocks.json"
    run(
        "score_blocks.py",
        "--videos",
        "64",
        "128",
        "--block-videos",
        "32",
        "--dense-up-to",
        "64",
        "--out",
        str(out),
    )
    rows = json.loads(out.read_text())["rows"]
    blocks, dense = ([row for row in rows if row["layout"] == layout] for layout in ("blocks", "dense"))
    assert [row["pairs"] for row in blocks] == [5 * 32 * videos for videos in (64, 128)]
    assert [row["pairs"] for row in dense] == [5 * videos**2 for videos in (64, 128)]
    assert blocks[1]["bytes"] == pytest.approx(2 * blocks[0]["bytes"], rel=0.01)
    assert [row["extrapolated"] for row in dense] == [False, True]
    assert dense[1]["seconds"] == pytest.approx(4 * dense[0]["seconds"])
    assert all(row["batch_ms"] > 0 for row in blocks)


def test_every_teacher_is_measured_beside_its_published_form_and_the_machines_limits(tmp_path: Path) -> None:
    """It refuses to measure scores that are not those of the published form."""
    out = tmp_path / "pairs.json"
    shown = run(
        "pair_scores.py", "--texts", "16", "--videos", "48", "--rounds", "1", "--device", "cpu", "--out", str(out)
    )
    (found,) = json.loads(out.read_text())["threads"]
    assert found["threads"] == 1
    assert found["flop_per_second"] > 0
    assert found["bytes_per_second"] > 0
    rows = found["teachers"]
    teachers = {"X-CLIP", "TS2-Net", "X-Pool", "DRL"}
    assert set(rows) == {*teachers, "student", *(f"{name}, published" for name in teachers)}
    assert all(rows[name]["gain"] == pytest.approx(rows[name]["published_us"] / rows[name]["us"]) for name in teachers)
    # Of an X-CLIP pair: 384 similarities of 512 numbers, 45 of other vectors, and the learned matrices.
    products = 384 * 512 + 45 * 512 + 12 * 32 * (32 + 1) + 32 * 12 * (12 + 1) + 2 * (32**2 + 12**2)
    assert rows["X-CLIP"]["flop"] == pytest.approx(2 * products, rel=0.05)
    assert rows["DRL"]["flop"] < 0.6 * rows["DRL, published"]["flop"]
    assert f"| X-CLIP | {rows['X-CLIP']['us']:.3f} |" in shown


@pytest.mark.slow
def test_learning_from_blocks_is_compared(tmp_path: Path) -> None:
    small = """shapes.train_clips=24 shapes.val_clips=8 shapes.test_clips=8 shapes.pictures=200 shapes.picture_steps=4
        train.max_steps=6 train.batch_size=8 score.chance_check=false"""
    arguments = [word for setting in small.split() for word in ("--set", setting)]
    run("blocks_learning.py", "--folder", str(tmp_path), "--seeds", "1", "2", "--block-videos", "12", *arguments)
    found = json.loads((tmp_path / "blocks_learning.json").read_text())
    assert [(row["layout"], row["blocks"]) for row in found["summary"]] == [("dense", 1), ("blocks of 12", 2)]
    assert all(len(row["sumr_over_dense"]) == 2 for row in found["summary"])
