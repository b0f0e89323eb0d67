"""The parts of the demo that are more than stages in a row: numbered steps, chosen examples, what a gain is worth."""

import numpy as np
import pytest
from teachclip.pipeline.examples import choose_examples, gain_interval
from teachclip.pipeline.steps import Steps
from teachclip.stages.reporting import Progress, Reporter, Silent


class Lines(Silent):
    """A reporter that remembers what it is told, progress included."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, message: str) -> None:
        self.lines.append(message)

    def warn(self, message: str) -> None:
        self.lines.append(f"warning: {message}")

    def progress(self, title: str, total: int | None, unit: str, done: int = 0) -> Progress:
        self.lines.append(f"progress: {title}")
        return super().progress(title, total, unit, done)


def test_a_step_that_finds_everything_is_one_line() -> None:
    lines = Lines()
    steps = Steps(lines, 3)

    def work(output: Reporter) -> int:
        output.info("all there")
        output.progress("count", 5, "thing", done=5)
        return 0

    steps.run("prepare", work, lambda made: made == 0)
    assert len(lines.lines) == 1
    assert lines.lines[0].startswith("1/3 prepare: found, ")
    assert steps.done[0].found


def test_a_step_with_work_is_announced_before_anything_it_shows() -> None:
    lines = Lines()
    steps = Steps(lines, 2)

    def work(output: Reporter) -> int:
        output.info("first")
        output.progress("count", 5, "thing", done=2)
        output.warn("careful")
        output.info("last")
        return 1

    assert steps.run("train", work, lambda made: made == 0) == 1
    steps.run("quiet", lambda output: None)
    expected = [
        "1/2 train",
        "    first",
        "progress:     count",
        "warning: careful",
        "    last",
        "    done in",
        "2/2 quiet",
    ]
    assert [line[: len(want)] for line, want in zip(lines.lines, expected, strict=False)] == expected
    assert lines.lines[-1].startswith("    done in")


def test_a_step_that_fails_keeps_its_error_and_its_heading() -> None:
    lines = Lines()
    steps = Steps(lines, 1)

    def work(output: Reporter) -> None:
        output.progress("count", None, "thing")
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        steps.run("train", work)
    assert lines.lines == ["1/1 train", "progress:     count"]
    assert steps.done == []


def test_examples_are_the_gains_the_loss_and_a_lot_each_of_another_video() -> None:
    text_video = np.repeat(np.arange(20), 2)
    before, after = np.full(40, 10.0), np.full(40, 10.0)
    after[6], after[7], after[12] = 1.0, 1.0, 2.0  # 6 and 7 belong to one video
    before[30], after[30] = 3.0, 19.0
    chosen = choose_examples(before, after, text_video)
    assert chosen[:3] == [("gained most", 6), ("gained most", 12), ("lost most", 30)]
    assert [why for why, _ in chosen[3:]] == ["drawn by lot"] * 2
    assert len({text_video[text] for _, text in chosen}) == 5


def test_few_videos_give_few_examples() -> None:
    assert len(choose_examples(np.array([1.0, 2.0]), np.array([2.0, 1.0]), np.array([0, 0]))) == 1


def test_gain_interval_encloses_the_gain_and_knows_noise_from_effect() -> None:
    rng = np.random.default_rng(1)
    text_video = np.repeat(np.arange(200), 5)
    before = rng.integers(1, 40, 1000).astype(float)
    assert gain_interval(before, before, text_video) == (0.0, 0.0)
    better = np.where(rng.random(1000) < 0.3, 1.0, before)
    gain = sum(100.0 * ((better <= k).mean() - (before <= k).mean()) for k in (1, 5, 10))
    low, high = gain_interval(before, better, text_video)
    assert 0 < low < gain < high
    low, high = gain_interval(before, rng.permutation(before), text_video)
    assert low < 0 < high


def test_captions_of_a_video_are_resampled_together() -> None:
    # five copies of a caption tell no more than one of them
    rng = np.random.default_rng(2)
    before, after = rng.integers(1, 20, 100).astype(float), rng.integers(1, 20, 100).astype(float)
    once = gain_interval(before, after, np.arange(100))
    copies = gain_interval(np.repeat(before, 5), np.repeat(after, 5), np.repeat(np.arange(100), 5))
    assert copies == pytest.approx(once)
