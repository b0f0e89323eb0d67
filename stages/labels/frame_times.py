"""A teacher's frame scores, given to a student that sees other frames of the same videos.

A frame score belongs to a moment of the video. Between two frames of the teacher it is interpolated in time; at the
ends the nearest frame's counts, as far as half the largest distance between the teacher's frames; further out the
teacher has seen nothing, which is refused.

Notation: V videos, F frame slots of the student, G of the teacher. Times are seconds, NaN in padded slots, which come
last.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import CacheMismatchError
from ...plurals import counted
from ...remedies import Change, Remedy

_SHOWN = 5
_ROUNDING = 1e-6  # seconds
_FIX = Remedy(
    "prepare the student's frames within the times that the teacher saw, or train without the fine loss",
    Change({"train.loss.fine": 0}),
)


@dataclass(frozen=True)
class FrameCarrier:
    """From the teacher's frame slots to the student's: score = (1 - share) x score[left] + share x score[right].

    Attributes:
        left, right: the teacher's slots [V, F].
        share: what the right one counts [V, F], float32; 0 leaves the left one as it is, bit for bit.
        empty: slots that get 0: padding that nobody looks at [V, F].
    """

    left: np.ndarray
    right: np.ndarray
    share: np.ndarray
    empty: np.ndarray

    def __call__(self, logits: np.ndarray, videos: np.ndarray) -> np.ndarray:
        """Frame-text logits [T, F] on the student's frames.

        Args:
            logits: the teacher's, float32 [T, G], text i with video `videos[i]`.
            videos: indices of the videos [T].
        """
        share = self.share[videos]
        left, right = (np.take_along_axis(logits, slots[videos], axis=1) for slots in (self.left, self.right))
        between = np.where(share == 0, left, (1 - share) * left + share * right)
        return np.where(self.empty[videos], np.float32(0), between)


def frame_carrier(
    teacher: str, videos: Sequence[str], teacher_times: np.ndarray, student_times: np.ndarray, *, padding_counts: bool
) -> FrameCarrier | None:
    """How to carry a teacher's frame scores to the student's frames; None where both saw the same times.

    Args:
        teacher: its name; videos: ids of the V videos; both for messages.
        teacher_times: [V, G]; student_times: [V, F].
        padding_counts: padded slots take part in the fine loss (`mask_padding: false`, published code). A padded slot
            of the student then gets the score of the teacher's own first padded slot; else 0, which nothing reads.

    Raises:
        CacheMismatchError: a student's frame lies outside the times that the teacher saw, or padding counts and the
            teacher has none; names videos and times.
    """
    if np.array_equal(teacher_times, student_times, equal_nan=True):
        return None
    padded = np.isnan(student_times)
    seen = (~np.isnan(teacher_times)).sum(axis=1)
    _refuse_outside(teacher, videos, teacher_times, student_times, seen)
    if padding_counts:
        _refuse_without_padding(teacher, videos, padded, seen, teacher_times.shape[1])
    left, right, share = _neighbours(teacher_times, student_times, seen)
    first_padded = np.minimum(seen, teacher_times.shape[1] - 1)[:, None]
    left, right = np.where(padded, first_padded, left), np.where(padded, first_padded, right)
    empty = padded & (not padding_counts)
    if teacher_times.shape == student_times.shape:
        same = ((teacher_times == student_times) | (np.isnan(teacher_times) & padded)).all(axis=1)
        left[same] = right[same] = np.arange(teacher_times.shape[1])
        share[same], empty[same] = 0, False
    return FrameCarrier(left, right, np.where(padded, np.float32(0), share), empty)


def _neighbours(
    teacher_times: np.ndarray, student_times: np.ndarray, seen: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The teacher's slots before and after each student's frame, and what the latter counts; [V, F] each."""
    earlier = np.zeros(student_times.shape, np.int64)
    for times in teacher_times.T:
        earlier += times[:, None] <= student_times
    last = np.maximum(seen - 1, 0)[:, None]
    left, right = np.clip(earlier - 1, 0, last), np.clip(earlier, 0, last)
    start, stop = (np.take_along_axis(teacher_times, slots, axis=1) for slots in (left, right))
    inside = stop > start
    share = np.divide(student_times - start, stop - start, out=np.zeros(student_times.shape), where=inside)
    return left, right, share.astype(np.float32)


def _refuse_outside(
    teacher: str, videos: Sequence[str], teacher_times: np.ndarray, student_times: np.ndarray, seen: np.ndarray
) -> None:
    distances = np.nan_to_num(np.diff(teacher_times, axis=1))
    margin = distances.max(axis=1, initial=0) / 2 + _ROUNDING
    first = np.where(seen > 0, teacher_times[:, 0], np.inf)
    last = np.where(
        seen > 0, np.take_along_axis(teacher_times, np.maximum(seen - 1, 0)[:, None], axis=1)[:, 0], -np.inf
    )
    outside = (student_times < (first - margin)[:, None]) | (student_times > (last + margin)[:, None])
    found = np.flatnonzero(outside.any(axis=1))
    if len(found):
        lines = [
            f"{videos[k]}: the student's frames at {_seconds(student_times[k][outside[k]])} s, "
            f"the teacher's at {_seconds(teacher_times[k]) if seen[k] else 'no'} s"
            for k in found[:_SHOWN]
        ]
        what = f"frames of {counted(len(found), 'video')} lie outside the times that {teacher} saw"
        raise _refusal(what, lines, len(found))


def _refuse_without_padding(
    teacher: str, videos: Sequence[str], padded: np.ndarray, seen: np.ndarray, slots: int
) -> None:
    found = np.flatnonzero(padded.any(axis=1) & (seen == slots))
    if len(found):
        lines = [f"{videos[k]}: {padded[k].sum()} padded slots of the student's" for k in found[:_SHOWN]]
        what = f"padding takes part in the fine loss, and {teacher} scored none of {counted(len(found), 'video')}"
        raise _refusal(
            what, lines, len(found), Remedy("leave padding out", Change({"train.network.mask_padding": True}))
        )


def _refusal(what: str, lines: list[str], found: int, hint: Remedy = _FIX) -> CacheMismatchError:
    more = [f"... and {found - _SHOWN:,} more"] if found > _SHOWN else []
    return CacheMismatchError(what, details=[*lines, *more], hint=hint)


def _seconds(times: np.ndarray) -> str:
    shown = [f"{time:.4g}" for time in times[~np.isnan(times)]]
    return ", ".join(shown if len(shown) <= 2 * _SHOWN else [*shown[:_SHOWN], "...", *shown[-_SHOWN:]])
