"""Whether anything of an index fits a sentence, told from cosines alone.

What fits a sentence leads: its cosine is far above the mean of all windows. How far depends on the model and on how
many windows there are; so it is compared with the lead of sentences without meaning in the same index.
`benchmarks/nothing_fits.py` measured this beside other rules.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

LEAST = 1.3  # of the lead of sentences without meaning; set on the demo's validation captions
FEWEST = 20  # windows; among fewer nothing can be told
NOTHING_FITS = "nothing fits well: the best answer is about as near as what words without meaning find"
_ROWS = 20_000  # of which a mean is taken
MEANINGLESS = (
    "velvet spoon catch deep small silent",
    "window fold tuesday blanket harbour carry",
    "laugh winter because velvet quickly bright",
    "apple bright yesterday pencil between salt",
    "beside quickly small never whisper silent",
    "follow north because number apple letter",
    "island turn ladder rapid under deep",
    "because yesterday bread candle apple velvet",
    "spoon wheel whisper glass never letter",
    "salt whisper letter forest catch harbour",
    "tall rapid button fold remember harbour",
    "turn catch bread cloud yesterday sing",
    "remember whisper silent never button velvet",
    "iron number glass ladder spoon engine",
    "blanket engine pencil candle sing catch",
    "never velvet follow deep under tall",
)


@dataclass(frozen=True)
class Usual:
    """What is usual of an index.

    Attributes:
        mean: of the vectors of its windows [D].
        lead: by which the best window of a sentence without meaning is above the mean of all, on average.
        windows: of the index when this was measured.
    """

    mean: NDArray[np.float32]
    lead: float
    windows: int

    @classmethod
    def of(cls, matrix: NDArray[np.floating], sentences: NDArray[np.floating], best: Sequence[float]) -> Self:
        """Measured by sentences without meaning.

        Args:
            matrix: vectors of the windows [N, D]; some of them are looked at where there are many.
            sentences: vectors of these sentences [K, D]; best: the cosine of each one's best window.
        """
        mean = matrix[:: max(1, len(matrix) // _ROWS)].mean(axis=0, dtype=np.float32)
        return cls(mean, float(np.mean(np.asarray(best) - sentences @ mean)), len(matrix))

    def lead_of(self, sentence: NDArray[np.floating], best: float) -> float:
        """By how much the best window of a sentence [D] is above the mean of all, in units of `lead`; NaN where that is
        none."""
        return float((best - sentence @ self.mean) / self.lead) if self.lead > 0 else float("nan")
