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


_SIX = "two data seeds, three training seeds; an experiment that was not kept as a script"
_WEIGHTS = "benchmarks/teaching.py, weights, draw 7:1"
_EARLIER = "the demo of earlier releases, whose teacher learnt from the student's clips; teachers trained twice"

CURVE: tuple[Experience, ...] = (
    Experience(200, 1, 60.0, None, (13.5,), False, _WEIGHTS),
    Experience(400, 1, 67.6, 133.4, (16.0, 17.9, 18.3, 14.2, 13.3, 10.1), False, _SIX),
    Experience(400, 1, 67.9, 129.1, (11.3, 16.5, 9.5), False, "a data seed nobody had looked at, three training seeds"),
    Experience(800, 1, 82.8, 133.4, (13.3, 8.6, 10.8, 7.8, 2.8, 8.0), False, _SIX),
    Experience(800, 1, 79.6, None, (12.7,), False, _WEIGHTS),
    Experience(500, 5, 88.8, 136.0, (9.1, 8.0, 7.7, 5.0), False, _SIX),
    Experience(1000, 5, 97.8, None, (5.2,), False, _WEIGHTS),
    Experience(800, 1, 82.7, 84.7, (-0.4,), True, "one draw of that experiment, a teacher of the student's own clips"),
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
