"""Sentences and videos as files of vectors: those of `load`, whole, and told of what cannot be used."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from teachclip.cache.frames.cache import FrameCache
from teachclip.errors import ConfigError, DataError
from teachclip.stages.search.encoder import load
from teachclip.stages.search.export.encoded import encode_texts, encode_videos


@pytest.fixture(scope="module")
def run(prepared: Any) -> Path:
    """A student's run folder."""
    return Path(prepared.root / "work" / "runs" / "a")


def test_sentences(run: Path, tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("two\n\nthree  \n")
    done = encode_texts(
        ["one", f"@{tmp_path / 'more.txt'}", "-"], str(run), tmp_path / "t.npy", stdin=io.BytesIO(b"four")
    )
    assert (done.vectors, done.width) == (4, 64)
    rows = [json.loads(line)["text"] for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert rows == ["one", "two", "three", "four"]
    np.testing.assert_array_equal(np.load(tmp_path / "t.npy"), load(run, device="cpu").encode_texts(rows))


def test_videos_with_one_that_is_none(prepared: Any, run: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    clips = [prepared.root / "own" / name for name in FrameCache.open(prepared.config().frames_folder).usable[:2]]
    done = encode_videos([*map(str, clips), str(tmp_path / "broken.mp4")], str(run), tmp_path / "v.jsonl")
    assert (done.vectors, [Path(each.video).name for each in done.left_out]) == (2, ["broken.mp4"])
    rows = [json.loads(line) for line in (tmp_path / "v.jsonl").read_text().splitlines()]
    assert [row["path"] for row in rows] == [str(clip) for clip in clips]
    np.testing.assert_allclose(np.linalg.norm([row["vector"] for row in rows], axis=1), 1, atol=1e-6)


def test_nothing_is_written_where_nothing_can_be_used(run: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(DataError, match="none of these videos can be used") as told:
        encode_videos([str(tmp_path / "broken.mp4")], str(run), tmp_path / "v.npy")
    assert "broken.mp4" in told.value.details[0]
    assert not (tmp_path / "v.npy").exists()


def test_a_form_that_is_none_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    for encode in (encode_texts, encode_videos):
        with pytest.raises(ConfigError, match="vectors are not written as"):
            encode(["a dog"], "no such model", tmp_path / "v.txt")


def test_a_video_is_no_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    with pytest.raises(DataError, match="this is a video"):
        encode_texts([str(tmp_path / "a.mp4")], "no such model", tmp_path / "v.npy")


def test_names_and_sentences_that_are_not_utf_8_are_spelt(prepared: Any, run: Path, tmp_path: Path) -> None:
    name = FrameCache.open(prepared.config().frames_folder).usable[0]
    shutil.copy(prepared.root / "own" / name, tmp_path / "caf\udce9.mp4")
    encode_videos([str(tmp_path / "caf\udce9.mp4")], str(run), tmp_path / "v.jsonl")
    encode_texts(["caf\udce9"], str(run), tmp_path / "t.jsonl")
    told = [json.loads((tmp_path / f"{kind}.jsonl").read_text()) for kind in "vt"]
    assert (told[0]["path"], told[1]["text"]) == (f"{tmp_path}/caf\\xe9.mp4", "caf\\xe9")
