"""Frame scores carried by time: from the teacher's frames to the student's."""

import numpy as np
import pytest
from teachclip.errors import CacheMismatchError
from teachclip.stages.labels.frame_times import FrameCarrier, frame_carrier

NAN = np.nan


def carrier(teacher: list[float], student: list[float], *, padding_counts: bool = False) -> FrameCarrier | None:
    return frame_carrier("xclip", ["v"], np.array([teacher]), np.array([student]), padding_counts=padding_counts)


def carried(
    logits: list[float], teacher: list[float], student: list[float], *, padding_counts: bool = False
) -> list[float]:
    found = carrier(teacher, student, padding_counts=padding_counts)
    assert found is not None
    result = found(np.array([logits], np.float32), np.array([0]))
    assert result.dtype == np.float32
    return result[0].tolist()


def test_the_same_times_need_no_carrying() -> None:
    assert carrier([0, 1, NAN], [0, 1, NAN]) is None


def test_scores_are_interpolated_in_time() -> None:
    assert carried([10, 20, 40, 0], [0, 2, 4, NAN], [0, 1, 3.5]) == [10, 15, 35]


def test_a_linear_score_stays_linear_whatever_the_frames() -> None:
    rng = np.random.default_rng(0)
    teacher = np.sort(rng.uniform(0, 9, (5, 8)), axis=1)
    student = np.sort(rng.uniform(teacher[:, :1], teacher[:, -1:], (5, 4)), axis=1)
    found = frame_carrier("xclip", list("abcde"), teacher, student, padding_counts=False)
    assert found is not None
    own = np.array([4, 0, 0, 2])
    slope = np.array([[1.0], [-2], [3], [0.5]])
    result = found((teacher[own] * slope + 7).astype(np.float32), own)
    np.testing.assert_allclose(result, student[own] * slope + 7, rtol=1e-5)


def test_the_teachers_own_frames_keep_their_bits() -> None:
    logits = np.random.default_rng(1).normal(size=6).astype(np.float32).tolist()
    assert carried(logits, [0, 1, 2, 3, 4, 5], [1, 3, 5]) == [logits[1], logits[3], logits[5]]


def test_beyond_the_ends_the_nearest_frame_counts_half_a_distance_far() -> None:
    assert carried([1, 2, 5], [1, 2, 4], [0.0, 1, 5.0]) == [1, 1, 5]
    for late in (-0.01, 5.01):
        with pytest.raises(CacheMismatchError, match="1 video lie outside the times that xclip saw") as caught:
            carrier([1, 2, 4], [late, 1, 3])
        assert caught.value.details[0].startswith("v: ")
        assert f"{late:.4g} s" in caught.value.details[0]
        assert "1, 2, 4 s" in caught.value.details[0]
        assert "train.loss.fine=0" in str(caught.value.hint)


def test_a_teacher_that_saw_nothing_of_a_video_is_refused() -> None:
    with pytest.raises(CacheMismatchError, match="outside"):
        carrier([NAN, NAN], [0, 1])


def test_a_single_frame_speaks_for_its_own_moment_only() -> None:
    assert carried([3, 0], [1, NAN], [1]) == [3]
    with pytest.raises(CacheMismatchError):
        carrier([1, NAN], [0, 1])


def test_padding_gets_the_teachers_first_padded_score_where_it_counts() -> None:
    teacher, student = [0, 1, NAN, NAN], [0, 0.5, 1, NAN, NAN]
    assert carried([1, 3, 9, 8], teacher, student) == [1, 2, 3, 0, 0]
    assert carried([1, 3, 9, 8], teacher, student, padding_counts=True) == [1, 2, 3, 9, 9]
    with pytest.raises(CacheMismatchError, match="padding takes part") as caught:
        carrier([0, 1], [0, 1, NAN], padding_counts=True)
    assert "mask_padding=true" in str(caught.value.hint)


def test_a_video_with_the_same_times_passes_through_beside_others() -> None:
    teacher = np.array([[0, 1, NAN, NAN], [0.0, 1, 2, 3]])
    student = np.array([[0, 1, NAN, NAN], [0.0, 1.5, 2, 3]])
    for padding_counts in (True, False):
        found = frame_carrier("xclip", ["a", "b"], teacher, student, padding_counts=padding_counts)
        assert found is not None
        logits = np.array([[1, 2, 3, 4], [1, 2, 4, 8]], np.float32)
        assert found(logits, np.array([0, 1])).tolist() == [[1, 2, 3, 4], [1, 3, 4, 8]]


def test_frames_at_equal_times_are_no_division_by_zero() -> None:
    assert carried([1, 2, 4], [0, 0, 2], [0, 1]) == [2, 3]
