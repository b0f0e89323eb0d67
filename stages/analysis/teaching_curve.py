"""What coarse teaching brought, by how many captioned clips the student's owner had: measurements, to compare with.

All are of rendered clips, SumR text to video on 400 test clips that no model had seen (docs/guide/teaching.md). They
say nothing certain about real videos.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

EVIDENCE = "measured on rendered clips, which says nothing certain about real videos (docs/guide/teaching.md)"
FAR = 2.0  # doublings of clips and of captions together


@dataclass(frozen=True)
class Experience:
    """A size at which coarse teaching was measured.

    Attributes:
        clips: with captions, of the student's owner; captions: of each.
        alone, teacher: SumR of the student alone and of the teacher, means over draws; None where it was not kept.
        gains: SumR of the student taught coarsely less that of the student alone, draw by draw.
        equal: the teacher had learnt from the student's own clips, and so knew little more.
        source: where the numbers come from.
    """

    clips: int
    captions: int
    alone: float
    teacher: float | None
    gains: tuple[float, ...]
    equal: bool
    source: str

    @property
    def gain(self) -> float:
        """Mean over draws."""
        return statistics.mean(self.gains)


_DRAWS = "benchmarks/teaching.py, draws: four data seeds, eight draws"
_CURVE = "benchmarks/teaching.py, curve: one draw"
_TRIAL = "two data seeds, up to three training seeds; an experiment that was not kept as a script"
_EARLIER = "the demo of earlier releases, whose teacher learnt from the student's clips; teachers trained twice"

CURVE: tuple[Experience, ...] = (
    Experience(400, 1, 67.7, 134.6, (12.1, 16.3, 18.15, 12.0, 14.15, 18.25, 14.45, 6.25), False, _DRAWS),
    Experience(400, 1, 67.7, 66.4, (-6.55, 7.6, 5.5, -2.4, -0.25, 2.5, -0.75, -6.25), True, _DRAWS),
    Experience(100, 1, 54.4, 138.8, (10.4,), False, _CURVE),
    Experience(200, 1, 60.0, 138.8, (15.0,), False, _CURVE),
    Experience(800, 1, 79.6, 138.8, (13.2,), False, _CURVE),
    Experience(1600, 1, 94.8, 138.8, (2.1,), False, _CURVE),
    Experience(400, 2, 76.7, 138.8, (10.0,), False, _CURVE),
    Experience(400, 5, 85.8, 138.8, (8.6,), False, _CURVE),
    Experience(1600, 5, 103.9, 138.8, (6.1,), False, _CURVE),
    Experience(800, 1, 82.8, 133.4, (13.3, 8.6, 10.8, 7.8, 2.8, 8.0), False, _TRIAL),
    Experience(500, 5, 88.8, None, (9.1, 8.0, 7.7, 5.0), False, _TRIAL),
    Experience(1000, 5, 99.1, 119.3, (3.7, 3.2, 2.1, 1.6, 0.8, -0.5), True, _EARLIER),
)


def nearest(clips: int, texts: int, *, equal: bool, curve: Sequence[Experience] = CURVE) -> Experience | None:
    """The size that is nearest, by doublings, to so many captioned clips with so many captions in all; of equals that
    with most draws. None where every one is far.

    Args:
        equal: ask for teachers that knew little more than the student alone.
    """

    def distance(one: Experience) -> float:
        return abs(math.log2(one.clips / clips)) + abs(math.log2(one.captions * clips / texts))

    known = [one for one in curve if one.equal == equal and clips and texts and distance(one) <= FAR]
    return min(known, key=lambda one: (distance(one), -len(one.gains)), default=None)
