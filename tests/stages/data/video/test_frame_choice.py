"""Which frames are kept: what the published cases (tests/goldens) do not say."""

import math

import pytest
from pydantic import ValidationError
from teachclip.configs.schema import PrepareConfig
from teachclip.stages.data.video.frame_choice import chosen, frame_numbers, sampled_numbers


@pytest.mark.parametrize("fps", [0, 0.0, -0.0, -1.0, -25.0, math.nan, math.inf])
def test_a_rate_that_is_none_is_refused(fps: float) -> None:
    with pytest.raises(ValueError, match="cannot sample"):
        sampled_numbers(10, fps)
    with pytest.raises(ValueError, match="cannot sample"):
        frame_numbers(10, fps, 1, 4, "uniform")


@pytest.mark.parametrize("given", [{"sample_fps": -1}, {"start": -1}, {"end": -1}, {"start": -3, "end": 2}])
def test_what_is_negative_is_refused(given: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="cannot sample"):
        sampled_numbers(10, 25.0, **given)


def test_the_smallest_rates_and_seconds_are_taken() -> None:
    assert sampled_numbers(3, 1e-9) == [0, 1, 2]
    assert sampled_numbers(30, 10.0, start=0, end=0) == [0]
    assert sampled_numbers(30, 10.0, start=1, end=1) == [10]
    assert sampled_numbers(5, 2.0, sample_fps=0) == [0, 1, 2, 3, 4]
    assert sampled_numbers(0, 25.0) == []


def test_the_last_second_is_inclusive() -> None:
    assert frame_numbers(100, 10.0, 1, 12, "uniform", last_second=3) == [0, 10, 20, 30]
    assert frame_numbers(100, 10.0, 1, 2, "tail", last_second=3) == [20, 30]


@pytest.mark.parametrize("count", [0, 1, 3, 4])
def test_few_frames_are_all_kept(count: int) -> None:
    for choice in ("uniform", "head", "tail"):
        assert chosen(count, 4, choice) == list(range(count))


@pytest.mark.parametrize(
    ("key", "wrong", "least"),
    [
        ("sample_fps", -1, 0),
        ("last_second", -1, 0),
        ("max_frames", 0, 1),
        ("image_size", 0, 1),
        ("shard_videos", 0, 1),
        ("workers", -1, 0),
        ("jpeg_quality", 0, 1),
        ("timeout", 0.0, 1e-3),
    ],
)
def test_settings_below_the_least_are_refused(key: str, wrong: float, least: float) -> None:
    with pytest.raises(ValidationError, match=key):
        PrepareConfig.model_validate({key: wrong})
    assert getattr(PrepareConfig.model_validate({key: least}), key) == least
