"""Frames are resized as open_clip resizes pictures, in each of its ways; a cache of the usual way names none."""

import numpy as np
import pytest
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from teachclip.cache.frames.cache import FrameCache
from teachclip.configs.schema import PrepareConfig
from teachclip.errors import CacheMismatchError
from teachclip.stages.data.video.resize import resize_crop
from teachclip.stages.prepare.plan import frame_settings
from teachclip.stages.prepare.stage import prepare


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("shape", [(60, 90), (91, 33), (48, 48), (7, 200)])
def test_pixels_are_open_clips(shape: tuple[int, int], mode: str, interpolation: str) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    settings = PreprocessCfg(size=48, mean=(0, 0, 0), std=(1, 1, 1), interpolation=interpolation, resize_mode=mode)
    theirs = image_transform_v2(settings, is_train=False)(Image.fromarray(rgb))
    expected = np.rint(theirs.numpy().transpose(1, 2, 0) * 255)
    np.testing.assert_array_equal(resize_crop(rgb, 48, mode, interpolation), expected)


def test_the_usual_way_is_not_named_in_a_cache(collection) -> None:
    usual = frame_settings(PrepareConfig())
    assert not {"resize_mode", "interpolation"} & set(usual)
    own = frame_settings(PrepareConfig(resize_mode="squash", interpolation="bilinear"))
    assert own == usual | {"resize_mode": "squash", "interpolation": "bilinear"}


def test_frames_resized_in_two_ways_are_two_caches(collection) -> None:
    collection.clip("a.mp4")
    squashed = collection.config(resize_mode="squash")
    prepare(squashed)
    cache = FrameCache.open(squashed.frames_folder)
    assert (cache.resize_mode, cache.interpolation) == ("squash", "bicubic")
    with pytest.raises(CacheMismatchError, match="resize_mode"):
        prepare(collection.config())
