"""An expert of one's own: how bright, how colourful and how restless every frame of a video is.

    features:
      experts:
        - name: colour
          plugin: colour_expert:ColourExpert

`teachclip features CONFIG`, given in this file's folder, calls it once for each video of the frame cache.
"""

import numpy as np


class ColourExpert:
    def __init__(self, device: object, bins: int = 8) -> None:
        self.bins = bins
        self.digest = f"colour expert 1, {bins} bins"  # another digest: other features, made anew

    def __call__(self, frames: np.ndarray, times: np.ndarray) -> np.ndarray:
        """uint8 [F, 3, S, S], seconds [F] -> float [F, D], or None for a video where there is nothing to be found."""
        rows = []
        for frame, before in zip(frames, [frames[0], *frames[:-1]], strict=True):
            shares = [np.histogram(channel, self.bins, (0, 256))[0] / channel.size for channel in frame]
            moved = np.abs(frame.astype(np.float32) - before).mean() / 255
            rows.append(np.concatenate([*shares, [moved]]))
        return np.stack(rows)
