"""Resize, crop and normalisation equal the published ones."""

from typing import Any

import numpy as np
import pytest
import torch
from teachclip.stages.data.video.resize import resize_crop
from teachclip.stages.models.clip.pixels import MEAN, STD, normalise


def images(golden: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    names = sorted(key.removesuffix("/in/rgb") for key in golden.keys if key.endswith("/in/rgb"))
    return [(golden[f"{name}/in/rgb"], golden[f"{name}/out/tensor"]) for name in names]


@pytest.mark.golden("images")
def test_pixels_equal_the_published_ones(golden: Any) -> None:
    assert images(golden)
    for rgb, published in images(golden):
        kept = resize_crop(rgb, published.shape[1])
        assert kept.dtype == np.uint8
        pixels = normalise(torch.from_numpy(kept.transpose(2, 0, 1).copy()))
        # two float32 operations on values up to 2.7
        np.testing.assert_allclose(pixels.numpy(), published, atol=1e-6, rtol=0)


@pytest.mark.golden("images")
def test_the_cached_bytes_are_exactly_the_published_ones(golden: Any) -> None:
    for rgb, published in images(golden):
        undone = published * np.reshape(STD, (3, 1, 1)) + np.reshape(MEAN, (3, 1, 1))
        np.testing.assert_array_equal(resize_crop(rgb, published.shape[1]).transpose(2, 0, 1), np.rint(undone * 255))


def test_precision_of_normalisation_follows_the_network() -> None:
    frames = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).view(2, 3, 4, 4)
    assert normalise(frames).dtype == torch.float32
    exact = (frames.double() / 255 - torch.tensor(MEAN).double().view(3, 1, 1)) / torch.tensor(STD).double().view(
        3, 1, 1
    )
    torch.testing.assert_close(normalise(frames, torch.float64), exact, rtol=0, atol=1e-6)
