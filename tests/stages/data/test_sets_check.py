"""What validates, and what `teachclip data check` finds."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from teachclip.configs.loading import load_config, shipped, template_for
from teachclip.configs.published_sets import PUBLISHED, Count, SetName
from teachclip.configs.schema import Config, DataConfig, PrepareConfig
from teachclip.configs.sweeps import paper_counts
from teachclip.errors import ConfigError
from teachclip.stages.data.check import DataCheck, check_data
from teachclip.stages.data.dataset import read_dataset
from teachclip.stages.prepare.stage import prepare

ROW = r"(?m)^\| (`[a-z0-9-]+`) \| ([^|]*) \| ([^|]*) \| ([^|]*) \| ([^|]*) \|"
type Encode = Callable[..., Path]
type Numbered = Callable[..., np.ndarray]


def msrvtt(folder: Path, train: int = 20, test: int = 3) -> DataConfig:
    """An MSR-VTT-1k of this many videos, without video files."""
    ids = {"train": [f"video{k}" for k in range(train)], "test": [f"video{k}" for k in range(7000, 7000 + test)]}
    (folder / "MSRVTT_train.9k.csv").write_text("\n".join(["video_id", *ids["train"]]))
    rows = [f"r,{id},{id},shows {id}" for id in ids["test"]]
    (folder / "MSRVTT_JSFUSION_test.csv").write_text("\n".join(["key,vid_key,video_id,sentence", *rows]))
    sentences = [{"video_id": id, "caption": f"{id} {n}"} for id in ids["train"] for n in range(2)]
    (folder / "MSRVTT_data.json").write_text(json.dumps({"sentences": sentences}))
    return DataConfig(set="msrvtt-1k-9k", annotations=folder, videos=folder)


def splits(config: DataConfig, **changes: Any) -> tuple[str, int, int, int]:
    found = read_dataset(config.model_copy(update=changes))
    return (found.validation, *(len(found.videos_of(split)) for split in ("train", "val", "test")))  # type: ignore[return-value]


def test_without_validation_videos_a_part_of_training_or_the_test_set_validates(tmp_path: Path) -> None:
    config = msrvtt(tmp_path)
    assert splits(config) == ("val", 18, 2, 3)
    assert splits(config, val_fraction=0.0) == ("val", 20, 0, 3)
    assert splits(config, validation="test") == ("test", 20, 0, 3)
    assert splits(config, validation="test", splits=("train",)) == ("val", 18, 2, 0)
    assert splits(config, splits=("test",)) == ("val", 0, 0, 3)


def test_own_data_without_test_videos_is_told(tmp_path: Path) -> None:
    (tmp_path / "captions.csv").write_text("video,caption\na.mp4,x\nb.mp4,y\n")
    config = Config.model_validate({"work": tmp_path / "work", "data": {"captions": tmp_path / "captions.csv"}})
    assert check_data(config).warnings == ("no test videos: there is nothing to evaluate on",)
    of_train = config.model_copy(update={"data": config.data.model_copy(update={"splits": ("train",)})})
    assert check_data(of_train).warnings == ()


def test_validation_videos_of_its_own_validate_whatever_is_configured(tmp_path: Path) -> None:
    rows = [("video", "caption", "split"), *((f"{k}.mp4", "x", ("train", "val", "test")[k % 3]) for k in range(6))]
    with (tmp_path / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    config = DataConfig(captions=tmp_path / "captions.csv")
    assert splits(config) == splits(config, validation="test") == ("val", 2, 2, 2)
    assert splits(config, splits=("train", "test"), validation="test") == ("test", 2, 0, 2)


def checked(config: DataConfig, tmp_path: Path, decode: int | None = 0, **prepared: Any) -> DataCheck:
    settings = PrepareConfig(image_size=96, max_frames=3, workers=1, **prepared)
    return check_data(Config(work=tmp_path / "work", data=config, prepare=settings), decode)


def test_counts_stand_beside_the_papers(tmp_path: Path) -> None:
    found = checked(msrvtt(tmp_path), tmp_path)
    assert [(each.split, each.videos, each.texts, each.paper) for each in found.splits] == [
        ("train", 20, 40, Count(9000, 180_000)),
        ("test", 3, 3, Count(1000, 1000)),
    ]
    assert found.splits[0].files == ("MSRVTT_train.9k.csv", "MSRVTT_data.json")
    assert found.warnings[0] == "train: 20 videos, 8,980 fewer than the paper's 9,000"
    assert found.validation == "2 held out of the training videos (data.val_fraction: 0.1)"
    assert found.missing_count == 23
    assert found.refused == "none of the 23 videos has a file, and none is prepared"


def test_the_published_habit_is_named_for_what_it_is(tmp_path: Path) -> None:
    found = checked(msrvtt(tmp_path).model_copy(update={"validation": "test"}), tmp_path)
    assert found.validation.startswith("the TEST videos choose the best network")


def test_files_that_are_missing_are_named_with_where_they_come_from(tmp_path: Path) -> None:
    config = msrvtt(tmp_path)
    (tmp_path / "MSRVTT_JSFUSION_test.csv").unlink()
    (tmp_path / "MSRVTT_data.json").write_text("{")
    found = checked(config, tmp_path)
    assert found.refused == "2 splits cannot be read: train, test"
    assert "MSRVTT_data.json:1: not JSON" in str(found.splits[0].failed)
    assert [(each.names, each.splits) for each in found.wanted] == [(("MSRVTT_JSFUSION_test.csv",), ("test",))]
    assert "CLIP4Clip" in found.wanted[0].origin
    assert found.home == "ms-multimedia-challenge.com/2017/dataset"


def test_files_in_folders_are_named_with_them(tmp_path: Path) -> None:
    for folder, line in (("VideoSet", "a"), ("QuerySet", "a#0\ta cat"), ("Annotations", "a#0\ta")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "test.txt").write_text(line)
    (tmp_path / "a.mp4").touch()
    config = DataConfig(set="teachclip-files", annotations=tmp_path, splits=("test",))
    found = checked(config, tmp_path)
    assert [(each.files, each.videos, each.texts, each.on_disk, each.paper) for each in found.splits] == [
        (("VideoSet/test.txt", "QuerySet/test.txt", "Annotations/test.txt"), 1, 1, 1, None)
    ]
    assert (found.refused, found.warnings, found.wanted) == (None, (), ())
    (tmp_path / "QuerySet/test.txt").unlink()
    found = checked(config, tmp_path)
    assert found.refused == "1 split cannot be read: test"
    assert [each.names for each in found.wanted] == [("QuerySet/test.txt",)]


def test_videos_without_captions_ask_for_the_other_files(tmp_path: Path) -> None:
    config = msrvtt(tmp_path)
    (tmp_path / "MSRVTT_data.json").rename(tmp_path / "sgn_val.json")
    with (tmp_path / "MSRVTT_train.9k.csv").open("a") as file:
        file.write("\nvideo6513")
    found = checked(config, tmp_path)
    assert found.problems == ("MSRVTT_train.9k.csv:22: 'video6513' has no caption in sgn_val.json",)
    assert "MSRVTT_data.json" in found.wanted[0].names
    assert found.refused == "something is wrong with 1 video or caption"


@pytest.fixture
def clips(tmp_path: Path, numbered: Numbered, encode: Encode) -> DataConfig:
    """Own videos: two alike in two splits, one cut off, one that is not there."""
    encode(tmp_path / "a.mp4", numbered(8), fps=4)
    (tmp_path / "b.mp4").write_bytes((tmp_path / "a.mp4").read_bytes())
    (tmp_path / "c.mp4").write_bytes((tmp_path / "a.mp4").read_bytes()[:900])
    rows = [("a.mp4", "x", "train"), ("a.mp4", "y", "train"), ("c.mp4", "z", "train"), ("d.mp4", "z", "train")]
    rows += [("b.mp4", "x", "test"), ("b.mp4", "w", "test")]
    with (tmp_path / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("video", "caption", "split"), *rows])
    return DataConfig(captions=tmp_path / "captions.csv", val_fraction=0.0)


def test_what_is_missing_does_not_decode_and_is_in_two_splits(clips: DataConfig, tmp_path: Path) -> None:
    found = checked(clips, tmp_path)
    assert (found.missing, found.looked_at, found.same_captions) == (("d.mp4",), "", {"train, test": 1})
    assert found.validation == "none: the last step is kept"
    assert found.refused is None
    found = checked(clips, tmp_path, decode=None)
    assert (found.looked_at, [status.video for status in found.undecodable]) == ("3 videos decoded now", ["c.mp4"])
    assert checked(clips, tmp_path, decode=1).looked_at == "1 video decoded now"
    assert not (tmp_path / "work").exists()
    prepare(Config(work=tmp_path / "work", data=clips, prepare=PrepareConfig(image_size=96, max_frames=3, workers=1)))
    found = checked(clips, tmp_path)
    assert found.same_frames == (("a.mp4 (train)", "b.mp4 (test)"),)
    assert [(each.videos, each.on_disk, each.prepared) for each in found.splits] == [(3, 2, 1), (1, 1, 1)]
    assert ([status.video for status in found.undecodable], found.undecodable_count) == (["c.mp4"], 1)
    for name in "abc":
        (tmp_path / f"{name}.mp4").unlink()
    refused = "2 of the 3 train videos have no file or are damaged; 50 % may be"  # what is prepared needs no file
    assert checked(clips, tmp_path).refused == refused
    assert check_data(Config(work=tmp_path / "work", data=clips), missing=67).refused is None


def test_problems_of_own_captions_are_counted(clips: DataConfig, tmp_path: Path) -> None:
    with clips.captions.open("a") as file:
        file.write("e.mp4,x,dev\ne.mp4,,train\n")
    found = checked(clips, tmp_path)
    assert (found.problem_count, found.refused) == (2, "something is wrong with 2 videos or captions")


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_a_template_reads_the_set_with_its_published_sizes(name: SetName, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.yaml"
    for text in (template_for(name), template_for(name).replace("#splits", "splits").replace("#val", "val")):
        path.write_text(text)
        config = load_config(path)
    assert config.data.set == name
    assert (config.data.annotations, config.data.videos) == (tmp_path / "annotations", tmp_path / "videos")
    long = name in ("activitynet", "didemo")
    network = config.train.network
    assert (config.prepare.max_frames, network.frames, network.words) == ((64,) * 3 if long else (12, 12, 32))
    assert config.train.batch_size == (64 if long else 120)
    assert config.prepare.last_second == (31 if name == "didemo" else None)
    assert config.data.splits == ("test",)
    assert all(names in path.read_text() for needed in PUBLISHED[name].needed for names in needed.names)


def test_templates_of_other_sets(tmp_path: Path) -> None:
    assert template_for("own") == shipped()["own_videos"].read_text().rstrip()
    (tmp_path / "webdataset.yaml").write_text(template_for("webdataset"))
    assert load_config(tmp_path / "webdataset.yaml").data.videos == tmp_path / "shards"
    with pytest.raises(ConfigError, match="did you mean msvd"):
        template_for("msdv")


def test_every_set_has_a_yaml_that_names_it() -> None:
    for name in (*PUBLISHED, "webdataset"):
        assert load_config(shipped()[f"data/{name}"]).data.set == name


def test_the_page_has_the_counts_that_are_compared_with() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs/guide/data.md").read_text(encoding="utf-8")
    rows = {cells[0].strip("`"): cells[2:5] for cells in re.findall(ROW, page)}
    assert set(rows) == set(PUBLISHED)
    for name in PUBLISHED:
        for split, cell in zip(("train", "val", "test"), rows[name], strict=True):
            count = paper_counts(name).get(split)
            told = [int(number.replace(",", "")) for number in re.findall(r"[\d,]+\d", cell)]
            if count is None:
                assert cell == "-" or "(not in the table)" in cell
            else:
                assert told == [count.videos, count.texts]


def some_there(folder: Path, encode: Encode, numbered: Numbered, there: dict[str, int], of: int = 8) -> Config:
    """Own videos: so many of each split's files are there."""
    rows = [("video", "caption", "split")]
    for split, count in there.items():
        for k in range(of):
            rows.append((f"{split}{k}.mp4", f"{split} {k}", split))
            if k < count:
                encode(folder / f"{split}{k}.mp4", numbered(2))
    with (folder / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    data = {"captions": folder / "captions.csv"}
    prepare = {"image_size": 32, "max_frames": 2, "workers": 1}
    return Config.model_validate({"work": folder / "work", "data": data, "prepare": prepare})


@pytest.mark.parametrize(
    ("train", "test", "allowed", "told"),
    [
        (8, 8, 0, None),
        (7, 8, 50, None),
        (4, 4, 50, None),
        (3, 8, 50, "5 of the 8 train videos"),
        (8, 0, 50, "8 of the 8 test videos"),
        (8, 7, 0, "1 of the 8 test videos"),
        (8, 7, 12, "1 of the 8 test videos"),
        (8, 7, 13, None),
        (0, 0, 100, "none of the 16 videos has a file"),
    ],
)
def test_data_of_which_too_much_is_missing_is_refused(
    tmp_path: Path, encode: Encode, numbered: Numbered, train: int, test: int, allowed: float, told: str | None
) -> None:
    config = some_there(tmp_path, encode, numbered, {"train": train, "test": test})
    found = check_data(config, missing=allowed)
    assert (found.refused or "").startswith(told or "")
    assert bool(found.refused) == bool(told)


def test_damaged_videos_count_as_missing_and_prepared_ones_as_there(
    tmp_path: Path, encode: Encode, numbered: Numbered
) -> None:
    config = some_there(tmp_path, encode, numbered, {"train": 8})
    for k in range(5):
        (tmp_path / f"train{k}.mp4").write_bytes(b"<html>")
    assert check_data(config).refused is None  # nobody has looked
    assert (check_data(config, decode=None).refused or "").startswith("5 of the 8 train videos")
    assert (check_data(config, decode=2).refused or "").startswith("2 of 2 videos that were decoded are damaged")
    assert check_data(config, decode=2, missing=100).refused is None
    prepare(config)
    assert (check_data(config).refused or "").startswith("5 of the 8 train videos")
    for k in range(5, 8):
        (tmp_path / f"train{k}.mp4").unlink()
    assert check_data(config, missing=63).refused is None
