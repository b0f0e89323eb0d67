"""Windows: 30 seconds, 15 apart, shared frames, the end of the video in the last; short videos are one."""

import numpy as np
import pytest
from teachclip.stages.search.library.windows import Cut, span

CUT = Cut(12)


@pytest.mark.parametrize(
    ("duration", "starts"),
    [(45.1, [0, 15, 17.5]), (60, [0, 15, 30]), (61, [0, 15, 30, 32.5]), (90, [0, 15, 30, 45, 60])],
)
def test_windows_of_long_videos(duration: float, starts: list[float]) -> None:
    times = np.array(CUT.frame_times(duration))
    assert np.allclose(np.diff(times), 2.5)
    places = list(CUT.windows(len(times)))
    assert {last - first for first, last in places} == {12}
    assert [times[first] for first, _ in places][:-1] == starts[:-1]
    spans = [span(times, *place, duration, CUT) for place in places]
    assert [stop - start for start, stop in spans[:-1]] == [30] * (len(spans) - 1)
    assert spans[-1][1] == duration
    assert 27.5 < spans[-1][1] - spans[-1][0] <= 30
    assert times[-1] >= duration - 2.5


def test_three_hours_are_linear() -> None:
    times = CUT.frame_times(3 * 3600)
    assert len(times) == 4320
    places = list(CUT.windows(len(times)))
    assert len(places) == 719
    assert sum(last - first for first, last in places) == 12 * 719
    assert {frame for place in places for frame in range(*place)} == set(range(4320))


@pytest.mark.parametrize("frames", [1, 5, 12])
def test_up_to_twelve_frames_are_one_window(frames: int) -> None:
    assert list(CUT.windows(frames)) == [(0, frames)]
    times = np.arange(frames) * 3.0
    assert span(times, 0, frames, 40.0, CUT) == (0.0, 40.0)


@pytest.mark.parametrize("frames", [1, 2, 5, 64])
def test_models_of_other_frames(frames: int) -> None:
    cut = Cut(frames)
    times = cut.frame_times(100)
    places = list(cut.windows(len(times)))
    assert {last - first for first, last in places} == {frames}
    assert {frame for place in places for frame in range(*place)} == set(range(len(times)))
