"""Videos with other digests at the same moments: a reader takes them when it is given their times."""

import numpy as np
import pytest
from teachclip.cache.scores.tile import Key
from teachclip.cache.storage.identity import digest
from teachclip.errors import CacheMismatchError


def decoded_elsewhere(made, *changed: int) -> list[Key]:
    return [(key, digest(b"other") if k in changed else same) for k, (key, same) in enumerate(made.videos)]


def test_other_digests_need_the_times_and_the_same_scores_come(make_store) -> None:
    made = make_store()
    videos = decoded_elsewhere(made, 2, 11)
    np.testing.assert_array_equal(np.flatnonzero(made.cache.changed_videos(videos)), [2, 11])
    with pytest.raises(CacheMismatchError, match="frames changed"):
        made.cache.reader(made.texts, videos)
    times = made.tile.frame_times + 0.9e-6  # another decoder's rounding
    reader = made.cache.reader(made.texts, videos, times)
    expected = made.cache.reader(made.texts, made.videos).read(np.arange(21), np.arange(13))
    np.testing.assert_array_equal(reader.read(np.arange(21), np.arange(13)).coarse, expected.coarse)
    assert [bytes(row) for row in reader.video_digests] == [key for _, key in made.videos]


@pytest.mark.parametrize("harm", ["later", "more", "fewer", "slots"])
def test_other_times_are_refused_by_name(make_store, harm: str) -> None:
    made = make_store()
    times = made.tile.frame_times.copy()
    if harm == "later":
        times[11, 1] += 2e-6
    elif harm == "more":
        times[[11, 3], 3] = [np.nan, 3.0]
    elif harm == "fewer":
        times[11, 3] = np.nan
    else:
        times = times[:, :3]
    with pytest.raises(CacheMismatchError, match="frames of 1 video are of other moments") as caught:
        made.cache.reader(made.texts, decoded_elsewhere(made, 11), times)
    assert list(caught.value.details) == ["clips/v11.mp4"]


def test_times_of_videos_whose_digest_fits_do_not_matter(make_store) -> None:
    made = make_store()
    made.cache.reader(made.texts, made.videos, np.zeros((13, 4)))
