"""The test against chance: what it stops, and that it never stops a teacher that works."""

import numpy as np
import pytest
from teachclip.stages.score.chance_check import own_ranks


def scores(rng: np.random.Generator, texts: int, videos: int, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """Noise, and `strength` standard deviations more for a caption's own video (the same for a video's captions)."""
    own = np.arange(texts) % videos
    matrix = rng.normal(size=(texts, videos))
    matrix[np.arange(texts), own] += strength
    return matrix, own


def test_ranks_and_recalls() -> None:
    matrix = np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    ranks = own_ranks(matrix, np.array([0, 2, 1, -1]))
    assert ranks is not None
    assert (ranks.texts, ranks.videos, ranks.median, ranks.mean) == (3, 3, 2.0, 2.0)
    assert ranks.normalised == pytest.approx((0 + 1 + 0.5) / 3)
    ranks = own_ranks(np.arange(24.0).reshape(2, 12), np.array([11, 6]))
    assert ranks is not None
    assert (ranks.r1, ranks.r5, ranks.r10, ranks.median) == (50.0, 50.0, 100.0, 3.5)


@pytest.mark.parametrize("videos", [40, 100, 1000])
def test_chance_is_found(videos: int) -> None:
    rng = np.random.default_rng(videos)
    found = [own_ranks(*scores(rng, min(2 * videos, 1024), videos, 0.0)).near_chance for _ in range(20)]
    assert sum(found) >= 18
    constant = own_ranks(np.zeros((videos, videos)), np.arange(videos))
    assert constant is not None
    assert constant.near_chance
    assert constant.normalised == 0.5


@pytest.mark.parametrize(
    ("texts", "videos"), [(1, 2), (2, 2), (3, 3), (4, 12), (8, 8), (27, 27), (200, 20), (400, 200)]
)
def test_a_working_teacher_is_never_stopped(texts: int, videos: int) -> None:
    rng = np.random.default_rng(texts)
    # One standard deviation: a mean normalised rank of 0.24, far worse than any teacher on its training set.
    stopped = [own_ranks(*scores(rng, texts, videos, 1.0)).near_chance for _ in range(300)]
    assert sum(stopped) <= 3


def test_many_captions_of_few_videos_count_as_few() -> None:
    """Three videos out of many, by bad luck ranked low, with a thousand captions each: no evidence."""
    matrix = np.tile(np.arange(50.0), (3000, 1))
    ranks = own_ranks(matrix, np.repeat([10, 20, 30], 1000))
    assert ranks is not None
    assert ranks.normalised > 0.55
    assert not ranks.near_chance


def test_nothing_to_rank() -> None:
    assert own_ranks(np.zeros((3, 1)), np.zeros(3, int)) is None
    assert own_ranks(np.zeros((3, 5)), np.full(3, -1)) is None
