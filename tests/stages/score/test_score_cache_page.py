"""The examples of docs/reference/score-cache.md run, and agree with each other."""

import re
from pathlib import Path

import numpy as np
import zarr

PAGE = Path(__file__).parents[3] / "docs/reference/score-cache.md"


def test_the_pages_examples_run(finished: Path, monkeypatch) -> None:
    monkeypatch.chdir(finished / "work")
    explored, plain, ours, ahead = (
        code.replace('"xclip', '"fake').replace("clips/a.mp4", "v003.mp4").replace("clips/b.mp4", "v011.mp4")
        for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    )
    names: dict[str, object] = {}
    exec(explored, names)
    with zarr.config.set({}):
        exec(plain, names)
    tile = zarr.open_group("scores.zarr", mode="r")["fake/tiles/dense"]
    digests = [bytes(row) for row in tile["video_digests"][:]]
    ids = bytes(tile["video_ids"][:]).decode().split("\n")
    scale, offset = tile["coarse_codec"][0]
    assert names["best"] == (ids[tile["coarse"][0].argmax()], offset + 65534 * scale)
    names |= {
        "captions": [("v003.mp4#0", "number 3 in round 0"), ("v011.mp4#1", "number 11 in round 1")],
        "videos": [(key, d) for key, d in zip(ids, digests, strict=True) if key in ("v003.mp4", "v011.mp4")],
        "text_index": np.array([0, 1]),
        "video_index": np.array([0, 1]),
    }
    exec(ours, names)
    np.testing.assert_allclose(names["logits"], 50.0 * np.array(names["scores"]), rtol=1e-6)
    names |= {"other_reader": names["reader"], "batches": [(np.array([1]), np.array([1])), (np.array([0, 1]),) * 2]}
    exec(ahead, names)
    for read in (names["labels"], names["other_labels"]):
        np.testing.assert_array_equal(50.0 * read.coarse, names["logits"])
