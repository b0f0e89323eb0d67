"""How much each of several teachers might count: a rule of teachclip's own, from cached scores alone.

The coarse loss compares rows after bringing them to one mean and spread. So ask for that weighted mean of the teachers'
standardised rows which sets a caption's own video furthest apart from the others, in standard deviations: Fisher's
discriminant, w = C^-1 d, where d is how many deviations each teacher sets it apart (`TeacherCard.separation`) and C the
correlation of the teachers' rows (`Agreement.pearson`). A teacher that sees more counts more; two that say the same
share their weight. C is taken halfway to no correlation, since else a small lead would give one of two similar teachers
everything; whoever would count less than nothing gets 0. Weights sum to 1, so that the coarse loss keeps the weight
that it has with the plain mean.

What it does not know: that a teacher ranks its own training captions better than it ranks new ones, and whether a
student learns more from these weights than from equal ones.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from .agreement import Agreement

SHRINK = 0.5
DIGITS = 3


def suggested_weights(
    separation: Mapping[str, float | None], agreement: Sequence[Agreement]
) -> dict[str, float] | None:
    """Weights by teacher, to three digits, sum 1; None for fewer than two teachers that set anything apart.

    Args:
        separation: per teacher, by how many deviations its rows set the captions' own videos apart.
        agreement: of each two; no correlation counts as none.
    """
    usable = {name: value for name, value in separation.items() if value is not None and value > 0}
    if len(usable) < 2:
        return None
    correlation = np.eye(len(usable))
    place = {name: number for number, name in enumerate(usable)}
    for pair in agreement:
        if pair.pearson is not None and pair.first in place and pair.second in place:
            row, column = place[pair.first], place[pair.second]
            correlation[row, column] = correlation[column, row] = SHRINK * pair.pearson
    found = dict(zip(usable, discriminant(correlation, np.array(list(usable.values()))), strict=True))
    return _rounded({name: float(found.get(name, 0.0)) for name in separation})


def discriminant(correlation: np.ndarray, separation: np.ndarray) -> np.ndarray:
    """w = C^-1 d [N] with negative weights taken out one after the other, the lowest first; sum 1."""
    weights = np.zeros(len(separation))
    kept = np.arange(len(separation))
    while True:
        part = np.linalg.solve(correlation[np.ix_(kept, kept)], separation[kept])
        if len(kept) == 1 or part.min() >= 0:
            weights[kept] = part / part.sum()
            return weights
        kept = np.delete(kept, part.argmin())


def _rounded(weights: dict[str, float]) -> dict[str, float]:
    """To `DIGITS` digits; the largest takes what rounding leaves, so that they still sum to 1."""
    rounded = {name: round(value, DIGITS) for name, value in weights.items()}
    most = max(rounded, key=lambda name: rounded[name])
    others = sum(value for name, value in rounded.items() if name != most)
    return rounded | {most: round(1 - others, DIGITS)}
