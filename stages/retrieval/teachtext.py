"""What TeachText's protocol has beside its ranks (metrics.py, `teachtext`): specs: experts 12."""

import numpy as np

from .metrics import Array, Metrics, Scores


def geometric_mean(metrics: Metrics) -> float:
    """The geometric mean of R@1, R@5 and R@10, 0 where one of them is (specs: experts 12)."""
    return float((metrics.r1 * metrics.r5 * metrics.r10) ** (1 / 3))


def averaged_captions(scores: Scores, text_video: Array) -> Scores:
    """The scores [v, w] of videos' captions, their mean: a query is a video, all its captions together.

    Args:
        scores, text_video: as in `retrieval_metrics`; every video that is asked for has a caption.
    """
    of_video = [np.flatnonzero(text_video == video) for video in range(int(text_video.max(initial=-1)) + 1)]

    def averaged(videos: Array, columns: slice) -> Array:
        texts = np.concatenate([of_video[video] for video in videos])
        starts = np.cumsum([0, *(len(of_video[video]) for video in videos[:-1])])
        counts = np.array([len(of_video[video]) for video in videos])
        sums: Array = np.add.reduceat(np.asarray(scores(texts, columns), np.float64), starts, axis=0)
        mean: Array = sums / counts[:, None]
        return mean

    return averaged
