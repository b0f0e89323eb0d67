"""Training videos without captions: which there are, what is told, and that no captioned video passes for one."""

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from teachclip.cache.frames.cache import FrameCache
from teachclip.configs.loading import load_config
from teachclip.configs.schema import Config, DataConfig
from teachclip.errors import DataError
from teachclip.stages.data.check import check_data
from teachclip.stages.data.dataset import Dataset, file_finder, locator, named_videos, read_dataset
from teachclip.stages.data.usable_split import usable_split, usable_unlabelled
from teachclip.stages.prepare.estimate import estimate_frames
from teachclip.stages.prepare.stage import prepare
from teachclip.stages.runtime.reporting import Silent

ROWS = "video,caption,split\na.mp4,a cat,train\nb.mp4,,train\nc.mp4,a dog,test\n"
TRAIN = {"uncaptioned": "train"}


def read(folder: Path, text: str = ROWS, name: str = "captions.csv", **options: Any) -> Dataset:
    (folder / name).write_text(text)
    return read_dataset(DataConfig(captions=folder / name, **{"val_fraction": 0.0, **options}))


def told(folder: Path, text: str, **options: Any) -> list[str]:
    with pytest.raises(DataError) as caught:
        read(folder, text, **options)
    return list(caught.value.details)


def ids(dataset: Dataset) -> list[str]:
    return [video.id for video in dataset.unlabelled]


def test_rows_without_a_caption_are_told_unless_they_are_to_train(tmp_path: Path) -> None:
    assert told(tmp_path, ROWS) == ["captions.csv:3: empty caption for video 'b.mp4'"]
    found = read(tmp_path, **TRAIN)
    assert ids(found) == ["b.mp4"]
    assert [(video.id, video.split) for video in found.videos] == [("a.mp4", "train"), ("c.mp4", "test")]
    assert found.unlabelled[0].path == tmp_path / "b.mp4"
    assert [text.id for text in found.texts] == ["a.mp4#0", "c.mp4#0"]


@pytest.mark.parametrize("split", ["val", "test"])
def test_outside_training_a_video_without_a_caption_is_always_told(tmp_path: Path, split: str) -> None:
    rows = f"video,caption,split\na.mp4,x,train\nb.mp4,,{split}\n"
    assert told(tmp_path, rows, **TRAIN) == ["captions.csv:3: empty caption for video 'b.mp4'"]
    lines = [{"video": "a.mp4", "caption": "x"}, {"video": "b.mp4", "split": split}]
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(DataError) as caught:
        read_dataset(DataConfig(captions=tmp_path / "captions.jsonl", **TRAIN))  # type: ignore[arg-type]
    assert list(caught.value.details) == ["captions.jsonl:2: video 'b.mp4' has no caption"]


def test_an_empty_row_of_a_captioned_video_is_told_all_the_same(tmp_path: Path) -> None:
    rows = "video,caption\nb.mp4,\na.mp4,\na.mp4,x\nb.mp4,  \n"
    assert told(tmp_path, rows, **TRAIN) == ["captions.csv:3: empty caption for video 'a.mp4'"]
    assert ids(read(tmp_path, rows.replace("a.mp4,\n", ""), **TRAIN)) == ["b.mp4"]


def test_jsonl_may_leave_the_caption_out(tmp_path: Path) -> None:
    rows = [{"video": "a.mp4", "caption": "x"}, {"video": "b.mp4"}, {"video": "c.mp4", "caption": []}]
    found = read(tmp_path, "\n".join(map(json.dumps, rows)), "captions.jsonl", **TRAIN)
    assert ids(found) == ["b.mp4", "c.mp4"]


def test_none_of_them_is_held_out_for_validation(tmp_path: Path) -> None:
    rows = "video,caption\n" + "".join(f"{k}.mp4,{'x' if k < 10 else ''}\n" for k in range(30))
    found = read(tmp_path, rows, val_fraction=0.3, **TRAIN)
    assert (len(found.videos_of("train")), len(found.videos_of("val")), len(found.unlabelled)) == (7, 3, 20)


def folder_of_files(tmp_path: Path) -> Path:
    clips = tmp_path / "clips"
    (clips / "more").mkdir(parents=True)
    for name in ("a.mp4", "c.mp4", "d.webm", "more/e.MP4", "notes.txt", "._d.webm"):
        (clips / name).touch()
    return clips


def test_files_of_a_folder_are_unlabelled_but_for_those_with_captions(tmp_path: Path) -> None:
    clips = folder_of_files(tmp_path)
    found = read(tmp_path, videos=clips, unlabelled=clips, uncaptioned="train")
    assert ids(found) == ["b.mp4", "unlabelled:d.webm", "unlabelled:more/e.MP4"]
    assert found.unlabelled[2].path == clips / "more/e.MP4"
    config = DataConfig(captions=tmp_path / "captions.csv", videos=clips, unlabelled=clips)
    assert locator(config)("unlabelled:d.webm") == str(clips / "d.webm")
    assert locator(config)("a.mp4") == str(clips / "a.mp4")


def test_without_the_training_split_none_are_read(tmp_path: Path) -> None:
    assert ids(read(tmp_path, unlabelled=tmp_path / "absent", splits=("test",), **TRAIN)) == []


def test_files_that_lead_out_of_the_folder_are_told(tmp_path: Path) -> None:
    clips = folder_of_files(tmp_path)
    (tmp_path / "outside.mp4").touch()
    (clips / "link.mp4").symlink_to(tmp_path / "outside.mp4")
    (line,) = told(tmp_path, "video,caption\na.mp4,x\n", unlabelled=clips)
    assert "'link.mp4' is a link out of the video folder" in line
    assert line.endswith("data.unlabelled")


@pytest.mark.parametrize(
    ("make", "what"), [("none", "no such folder"), ("file", "this is a file"), ("empty", "no video files")]
)
def test_a_folder_that_is_none_is_refused(tmp_path: Path, make: str, what: str) -> None:
    folder = tmp_path / "more"
    if make != "none":
        folder.touch() if make == "file" else folder.mkdir()
    with pytest.raises(DataError, match=what) as caught:
        read(tmp_path, "video,caption\na.mp4,x\n", unlabelled=folder)
    assert caught.value.where == str(folder)
    assert "data.unlabelled" in str(caught.value.hint)


def test_shards_may_hold_videos_without_captions(tmp_path: Path) -> None:
    members = {"0.mp4": b"v", "0.txt": b"x", "1.mp4": b"v", "2.mp4": b"v", "2.json": b'{"split": "val"}'}
    with tarfile.open(tmp_path / "train.tar", "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    settings = {"set": "webdataset", "videos": tmp_path}
    counted = read_dataset(DataConfig.model_validate(settings))
    assert (ids(counted), counted.left_out[0][:20]) == ([], "2 uncaptioned videos")
    found = read_dataset(DataConfig.model_validate(settings | TRAIN))
    assert ids(found) == ["train/1"]
    assert found.left_out == ("1 uncaptioned video: train.tar: '2'",)


def test_a_published_sets_missing_captions_are_no_videos_without_captions() -> None:
    with pytest.raises(ValidationError, match="annotations are not whole"):
        DataConfig(set="msvd", uncaptioned="train")


@pytest.mark.parametrize(
    ("set", "splits", "missing"),
    [("own", ("train",), "test and val"), ("own", ("train", "test"), "val"), ("msvd", ("train", "val"), "test")],
)
def test_splits_that_are_not_read_could_pass_for_videos_without_captions(set: Any, splits: Any, missing: str) -> None:
    with pytest.raises(
        ValidationError, match=f"data.splits: without {missing}, videos of that split could not be told"
    ):
        DataConfig(set=set, splits=splits, unlabelled=Path("more"))


def test_sets_without_validation_files_need_none() -> None:
    for name in ("msrvtt-1k-9k", "teachclip-files"):
        DataConfig(set=name, splits=("train", "test"), unlabelled=Path("more"))  # type: ignore[arg-type]


def test_the_folder_starts_at_the_yaml(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("data: {unlabelled: more}\n")
    assert load_config(tmp_path / "a.yaml").data.unlabelled == tmp_path / "more"


class Heard(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def info(self, message: str) -> None:
        self.said.append(message)


@pytest.fixture
def prepared(collection: Any, tmp_path: Path, encode: Any, numbered: Any) -> tuple[Config, Heard]:
    """Two captioned videos, one of the test split; without captions a copy of that, two others and a broken one."""
    more = tmp_path / "more"
    collection.clip("a.mp4")
    test = collection.clip("b.mp4", first=20)
    os.link(test, (more / "copy.mp4") if more.mkdir() is None else test)
    for name, first in (("new.mp4", 40), ("newer.mp4", 60)):
        encode(more / name, numbered(first + 12)[first:], fps=4)
    (more / "broken.mp4").write_bytes(b"<html>not found</html>")
    (tmp_path / "captions.csv").write_text("video,caption,split\na.mp4,x,train\nb.mp4,y,test\n")
    config = collection.config()
    data = config.data.model_copy(update={"unlabelled": more, "val_fraction": 0.0})
    config = config.model_copy(update={"data": data})
    heard = Heard()
    assert estimate_frames(config).remaining == 6
    result = prepare(config, heard)
    assert (result.videos, result.decoded, result.counts) == (6, 6, {"ok": 5, "corrupt": 1})
    return config, heard


TOLD = "2 videos without captions; left out: 1 without usable frames and 1 with the frames of a captioned video"


def test_a_copy_of_a_captioned_video_is_left_out_and_counted(prepared: tuple[Config, Heard]) -> None:
    config, heard = prepared
    assert heard.said == [TOLD]
    frames, dataset = FrameCache.open(config.frames_folder), read_dataset(config.data)
    found = usable_unlabelled(dataset, frames)
    assert found.videos == ("unlabelled:new.mp4", "unlabelled:newer.mp4")
    assert (found.left_out, found.captioned) == (1, 1)
    split = usable_split(dataset, ["train"], frames)
    both = split.beside(found.videos)
    assert both.videos == ("a.mp4", "unlabelled:new.mp4", "unlabelled:newer.mp4")
    assert (both.texts, both.text_video.tolist()) == (split.texts, [0])
    assert prepare(config, heard).decoded == 0


def test_the_check_counts_them(prepared: tuple[Config, Heard]) -> None:
    config, _ = prepared
    found = check_data(config)
    assert found.unlabelled is not None
    assert (found.unlabelled.videos, found.unlabelled.on_disk) == (4, 4)
    assert (found.unlabelled.prepared, found.unlabelled.captioned) == (3, 1)
    assert [status.video for status in found.undecodable] == ["unlabelled:broken.mp4"]
    assert [(each.split, each.videos) for each in found.splits] == [("train", 1), ("test", 1)]
    without = config.model_copy(update={"data": config.data.model_copy(update={"unlabelled": None})})
    assert check_data(without).unlabelled is None


def test_data_check_shows_them(prepared: tuple[Config, Heard], tmp_path: Path, capsys: Any) -> None:
    from teachclip.pipeline.cli.groups.data import _shown

    config, _ = prepared
    lines = [line for line in _shown(check_data(config)) if isinstance(line, str)]
    assert lines[0] == (
        "training videos without captions: 4, 4 on disk, 3 prepared; "
        "1 have the frames of captioned videos and are left out"
    )


@pytest.mark.parametrize("splits", [("train", "val", "test"), ("test",)])
def test_their_frames_are_not_pruned_and_they_are_not_gone(prepared: tuple[Config, Heard], splits: Any) -> None:
    config, heard = prepared
    of_splits = config.model_copy(update={"data": config.data.model_copy(update={"splits": splits})})
    assert prepare(of_splits, heard, prune=True).pruned == ()
    named = named_videos(of_splits.data)
    assert {"a.mp4", "unlabelled:new.mp4"} <= named
    assert file_finder(of_splits.data)("unlabelled:new.mp4") == config.data.unlabelled / "new.mp4"
    assert file_finder(of_splits.data)("unlabelled:none.mp4") is None
    without = config.model_copy(update={"data": config.data.model_copy(update={"unlabelled": None})})
    assert len(prepare(without, heard, prune=True).pruned) == 4
