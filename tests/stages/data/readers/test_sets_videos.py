"""Where the videos of a data set are: files in folders, and parts of tar shards; and what prepare makes of them."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from teachclip.cache.frames.cache import FrameCache
from teachclip.configs.schema import Config, DataConfig, PrepareConfig
from teachclip.errors import CacheMismatchError, DataError
from teachclip.stages.data.check import check_data
from teachclip.stages.data.dataset import locator, read_dataset
from teachclip.stages.data.video.decode import read_video
from teachclip.stages.data.video.source import TarPart, open_bytes
from teachclip.stages.prepare.stage import prepare

type Encode = Callable[..., Path]
type Numbered = Callable[..., np.ndarray]


def msvd(folder: Path, *ids: str) -> DataConfig:
    (folder / "test_list.txt").write_text("\n".join(ids))
    (folder / "captions_msvd.json").write_text(json.dumps({id: [f"{id} shows"] for id in ids}))
    return DataConfig(set="msvd", annotations=folder, videos=folder / "clips", splits=("test",))


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"-")


@pytest.mark.parametrize(
    "name", ["a.mp4", "a.avi", "a.MKV", "a", "deep/er/a.webm", "a.mov.mp4", "a.", "a.3gp", "x.1/a.mp4"]
)
def test_a_video_is_found_by_its_id(tmp_path: Path, name: str) -> None:
    config = msvd(tmp_path, "a")
    touch(tmp_path / "clips", name, "b.mp4", "a.json", "a.txt", "ab.mp4", "a.info.json", "a.part")
    assert [video.path for video in read_dataset(config).videos] == [tmp_path / "clips" / name]
    assert locator(config)("a") == str(tmp_path / "clips" / name)


@pytest.mark.parametrize("id", ["1054_FILM_01.44.29.000-01.44.31.167", "a.b", "-_x.1"])
def test_ids_may_hold_dots(tmp_path: Path, id: str) -> None:
    config = msvd(tmp_path, id)
    touch(tmp_path / "clips", f"films/{id}.avi", f"{id[:-1]}.avi")
    assert read_dataset(config).videos[0].path == tmp_path / f"clips/films/{id}.avi"


@pytest.mark.parametrize("name", ["v_abc.mp4", "abc.mkv", "v_abc"])
def test_activitynet_files_with_and_without_v(tmp_path: Path, name: str) -> None:
    touch(tmp_path, name)
    (tmp_path / "val_1.json").write_text(json.dumps({"v_abc": {"sentences": ["One."]}}))
    config = DataConfig(set="activitynet", annotations=tmp_path, splits=("test",))
    assert [(video.id, video.path) for video in read_dataset(config).videos] == [("v_abc", tmp_path / name)]


def test_a_missing_video_has_a_path_that_prepare_will_not_find(tmp_path: Path) -> None:
    assert read_dataset(msvd(tmp_path, "a")).videos[0].path == tmp_path / "clips/a.mp4"


def test_two_files_for_one_video_are_refused_by_name(tmp_path: Path) -> None:
    touch(tmp_path / "clips", "a.mp4", "old/a.avi")
    with pytest.raises(DataError) as caught:
        read_dataset(msvd(tmp_path, "a"))
    expected = "test_list.txt:1: video 'a' has 2 files: a.mp4 and old/a.avi; keep one of them"
    assert caught.value.details == (expected,)


def test_a_link_out_of_the_folder_is_refused_by_name(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere.mp4", "clips/b.mp4")
    (tmp_path / "clips/a.mp4").symlink_to(tmp_path / "elsewhere.mp4")
    (tmp_path / "clips/c.mp4").symlink_to("b.mp4")
    with pytest.raises(DataError) as caught:
        read_dataset(msvd(tmp_path, "a", "b", "c"))
    (line,) = caught.value.details
    assert line == (
        f"test_list.txt:1: video 'a' is a link out of the video folder, to {tmp_path}/elsewhere.mp4; "
        "name the folder that it leads to: data.videos"
    )


NFC, NFD = "caf\u00e9 \u304c", "cafe\u0301 \u304b\u3099"


def own(folder: Path, *videos: str) -> DataConfig:
    (folder / "captions.csv").write_text("video,caption\n" + "".join(f"{video},x\n" for video in videos))
    return DataConfig(captions=folder / "captions.csv", videos=folder / "clips", val_fraction=0.0)


@pytest.mark.parametrize(("asked", "there"), [(NFC, NFD), (NFD, NFC)], ids=["nfc", "nfd"])
def test_another_unicode_form_is_found(tmp_path: Path, asked: str, there: str) -> None:
    touch(tmp_path / "clips", f"{there}/{there}.mp4")
    for config, id in ((msvd(tmp_path, asked), asked), (own(tmp_path, f"{asked}/{asked}.mp4"), f"{asked}/{asked}.mp4")):
        (video,) = read_dataset(config).videos
        assert (video.id, video.path, video.instead) == (id, tmp_path / f"clips/{there}/{there}.mp4", "")
        assert locator(config)(id) == str(video.path)
    touch(tmp_path / "clips", f"{asked}.mp4")  # the one that is written so is meant
    assert read_dataset(msvd(tmp_path, asked)).videos[0].path == tmp_path / f"clips/{asked}.mp4"


@pytest.mark.parametrize(
    ("asked", "there", "told"),
    [
        ("Dog.mp4", "dog.MP4", "there is 'dog.MP4' (small and capital letters)"),
        ("dog.avi", "dog.mp4", "there is 'dog.mp4' (another extension)"),
        ("dog", "dog.mp4", "there is 'dog.mp4' (another extension)"),
        ("dog.mp4", "dog", "there is 'dog' (another extension)"),
        ("a\\dog.mp4", "a/dog.mp4", "there is 'a/dog.mp4' (/ in place of \\)"),
        ("my%20dog.mp4", "my dog.mp4", "there is 'my dog.mp4' (without %20 and the like)"),
        ("my dog.mp4", "my%20dog.mp4", "there is 'my%20dog.mp4' (with %20 and the like)"),
        ("a/dog.mp4", "b/dog.mp4", "there is 'b/dog.mp4' (in another folder)"),
        ("Dog.avi", "dog.mp4", "there is 'dog.mp4' (another extension, small and capital letters)"),
        ("dog.mp4", "a/b/dog.mp4", "there is 'a/b/dog.mp4' (data.videos: {clips}/a/b)"),
        ("clips/dog.mp4", "dog.mp4", "there is 'dog.mp4' (data.videos: {clips.parent})"),
        ("dog.mp4", "cat.mp4", ""),
        ("dog.mp4", "._dog.mp4", ""),
        (f"{300 * 'g'}.mp4", "dog.mp4", ""),
        ("dog.mp4", "@eaDir/dog.mp4", ""),
    ],
)
def test_not_found_says_what_is_there(tmp_path: Path, asked: str, there: str, told: str) -> None:
    touch(tmp_path / "clips", there)
    (video,) = read_dataset(own(tmp_path, asked)).videos
    assert video.path == tmp_path / "clips" / asked
    assert video.instead == told.format(clips=tmp_path / "clips")
    (missing,) = check_data(Config(work=tmp_path / "work", data=own(tmp_path, asked))).missing
    assert missing == (f"{asked} ({video.instead})" if told else asked)


def test_published_videos_that_are_missing_say_what_is_there(tmp_path: Path) -> None:
    touch(tmp_path / "clips", "VIDEO1.mp4", "._video2.mp4", "@eaDir/video2.mp4", ".DS_Store")
    touch(tmp_path / "elsewhere", "video2.mp4")
    first, second = read_dataset(msvd(tmp_path, "video1", "video2")).videos
    assert first.instead == "there is 'VIDEO1.mp4' (small and capital letters)"
    assert second.instead == ""
    (tmp_path / "clips/more").symlink_to(tmp_path / "elsewhere")
    first, second = read_dataset(msvd(tmp_path, "video1", "video2")).videos
    assert not second.path.exists()
    expected = f"folders that are links are not entered: more (to {tmp_path}/elsewhere); "
    assert second.instead == f"{expected}data.videos can name where they lead to"


def test_prepare_tells_what_is_there(tmp_path: Path) -> None:
    touch(tmp_path / "clips", "dog.mp4")
    with pytest.raises(DataError, match="none of the 1 video can be used") as caught:
        prepare(Config(work=tmp_path / "work", data=own(tmp_path, "Dog.mp4"), prepare=PrepareConfig(workers=1)))
    assert "there is 'dog.mp4' (small and capital letters)" in caught.value.details[0]


def shard(path: Path, members: dict[str, bytes | str | tarfile.TarInfo]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
                continue
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def in_shards(folder: Path) -> DataConfig:
    return DataConfig(set="webdataset", videos=folder, val_fraction=0.0)


def test_shards_hold_videos_and_captions(tmp_path: Path) -> None:
    shard(
        tmp_path / "train-000.tar",
        {
            "0001.mp4": b"one",
            "0001.txt": "a cat\n\n a dog \n",
            "0002.en.json": '{"caption": "a bird", "width": 64}',
            "0002.mp4": b"twotwo",
            "0002.jpg": b"-",
            "sub/0001.avi": b"3",
            "sub/0001.json": '["x", "y"]',
        },
    )
    shard(tmp_path / "val/000.tar", {"0001.mp4": b"4", "0001.json": '{"captions": ["v"]}'})
    shard(tmp_path / "val/001.tar", {"./0001.mp4": b"5", "./0001.json": '{"text": "t", "split": "test"}'})
    config = in_shards(tmp_path)
    found = read_dataset(config)
    assert [(video.id, video.split) for video in found.videos] == [
        ("train-000/0001", "train"),
        ("train-000/0002", "train"),
        ("train-000/sub/0001", "train"),
        ("val/000/0001", "val"),
        ("val/001/0001", "test"),
    ]
    assert [text.caption for text in found.texts] == ["a cat", "a dog", "a bird", "x", "y", "v", "t"]
    contents = []
    for video in found.videos:
        with open_bytes(video.source) as file:
            contents.append(file.read())
    assert contents == [b"one", b"twotwo", b"3", b"4", b"5"]
    assert found.left_out == ()
    assert locator(config)("val/000/0001") == str(tmp_path / "val/000.tar/0001")


def link(name: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return info


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({"a.mp4": link("a.mp4")}, "'a.mp4' is a link, which is not followed"),
        ({"a.mp4": link("a.mp4", tarfile.LNKTYPE)}, "'a.mp4' is a link, which is not followed"),
        ({"a.mp4": link("a.mp4", tarfile.FIFOTYPE)}, "'a.mp4' is no regular file"),
        ({"../a.mp4": b"-"}, "'../a.mp4' is named out of the folder"),
        ({"/a.mp4": b"-"}, "'/a.mp4' is named out of the folder"),
        ({"a.mp4": b"-", "a.avi": b"-", "a.txt": "x"}, "'a.avi' is a second video beside a.mp4"),
        ({"a.txt": "x"}, "'a' has captions and no video"),
        ({"a.mp4": b"-", "a.txt": b"\xff"}, "'a.txt': 'utf-8' codec can't decode"),
        ({"a.mp4": b"-", "a.json": "{"}, "'a.json': Expecting property name"),
        ({"a.mp4": b"-", "a.json": '{"caption": 3}'}, "'a.json': its caption is a number"),
        ({"a.mp4": b"-", "a.json": '{"caption": "x", "split": "vla"}'}, "its split is 'vla', not train, val or test"),
        ({"a.mp4": b"-", "a.json": '{"caption": "x", "split": "vaild"}'}, "did you mean 'val'?"),
        ({"a.mp4": b"-", "a.json": '{"caption": "x", "split": 3}'}, "its split is 3, not train, val or test"),
        ({"a.mp4": b"-", "a.json": '{"caption": ["x", 3]}'}, "its caption is a list, not"),
        ({"a.mp4": b"-", "a.txt": "x" * (1 << 21)}, "'a.txt' is larger than 1 MiB"),
        ({"a\x07.mp4": b"-", "a\x07.txt": "x"}, "holds a control character"),
    ],
)
def test_what_is_wrong_in_a_shard_is_named(tmp_path: Path, members: dict[str, Any], problem: str) -> None:
    shard(tmp_path / "s.tar", members)
    with pytest.raises(DataError) as caught:
        read_dataset(in_shards(tmp_path))
    assert any(line.startswith("s.tar: ") and problem in line for line in caught.value.details)
    shard(tmp_path / "s.tar", {**members, "z.mp4": b"-", "z.txt": "fine"})
    found = read_dataset(in_shards(tmp_path))
    assert [video.id for video in found.videos] == ["s/z"]  # one sample refuses no other
    assert any(line.startswith("s.tar: ") and problem in line for line in found.left_out)


def downloaded(key: str, **meta: Any) -> dict[str, bytes | str]:
    """A sample as video2dataset writes it: caption twice, sound and subtitles beside the video."""
    caption = meta.setdefault("caption", f"caption of {key}")
    meta = {"url": f"https://x/{key}", "key": key, "status": "success", "error_message": None, "split": None, **meta}
    streams = {f"{key}.mp4": key.encode(), f"{key}.m4a": b"-", f"{key}.ogg": b"-", f"{key}.vtt": b"WEBVTT"}
    return {
        **(streams if meta["status"] == "success" else {}),
        f"{key}.txt": "" if caption is None else str(caption),
        f"{key}.json": json.dumps(meta, indent=4),
    }


def test_shards_of_video2dataset_are_read_as_they_are(tmp_path: Path) -> None:
    members = {
        **downloaded("000000"),
        **downloaded("000001", status="failed_to_download", error_message="HTTP Error 404: Not Found"),
        **downloaded("000002", caption=None),
        **downloaded("000003", caption=float("nan")),
        **downloaded("000004", subtitles="x" * (1 << 21), caption="two\nlines"),
        **downloaded("000005", status="failed_to_subsample", caption=3),
        "._000000.mp4": b"AppleDouble",
        "README.txt": "made with video2dataset",
    }
    shard(tmp_path / "00000.tar", members)
    (tmp_path / "00000_stats.json").write_text("{}")
    (tmp_path / "00000.parquet").write_bytes(b"PAR1")
    (tmp_path / "._00000.tar").write_bytes(b"AppleDouble")
    found = read_dataset(in_shards(tmp_path))
    assert {text.video: text.caption for text in found.texts} == {
        "00000/000000": "caption of 000000",
        "00000/000004": "two\nlines",
    }
    assert len(found.texts) == 2
    assert found.left_out == (
        "00000.tar: 'README' has captions and no video",
        "2 failed downloads: 00000.tar: '000001', 00000.tar: '000005'",
        "2 uncaptioned videos: 00000.tar: '000002', 00000.tar: '000003'",
    )
    with open_bytes(found.videos[0].source) as file:
        assert file.read() == b"000000"


def test_samples_that_are_left_out_are_told_and_refuse_nothing(tmp_path: Path) -> None:
    members = {**downloaded("0"), **downloaded("1", status="failed_to_download"), "x.mp4": b"-", "x.json": "{"}
    shard(tmp_path / "shards/0.tar", members)
    found = check_data(Config(work=tmp_path / "work", data=in_shards(tmp_path / "shards")))
    assert found.refused is None
    assert [line.partition(":")[0] for line in found.problems] == ["0.tar", "1 failed download"]
    shard(tmp_path / "shards/0.tar", downloaded("1", status="failed_to_download"))
    found = check_data(Config(work=tmp_path / "work", data=in_shards(tmp_path / "shards")))
    assert found.refused is not None
    with pytest.raises(DataError) as caught:
        read_dataset(in_shards(tmp_path / "shards"))
    assert caught.value.details == ("1 failed download: 0.tar: '1'",)


@pytest.mark.parametrize(
    ("members", "captions"),
    [
        ({"a.json": '{"caption": "x"}', "a.txt": "x"}, ["x"]),
        ({"a.json": '{"caption": "x"}', "a.txt": "other"}, ["x"]),
        ({"a.txt": "x\ny\nx\n"}, ["x", "y"]),
        ({"a.json": '{"width": 64}', "a.txt": "x"}, ["x"]),
        ({"a.json": '{"caption": null}', "a.txt": "x"}, ["x"]),
        ({"a.json": '{"caption": null}', "a.txt": "None"}, []),
        ({"a.json": '{"caption": NaN}', "a.txt": "nan"}, []),
        ({"a.json": '{"caption": null, "text": "x"}'}, ["x"]),
        ({"a.json": '{"captions": ["x", null, "", "x", "y"]}'}, ["x", "y"]),
        ({"a.json": '{"caption": "x"}', "a.info.json": '{"caption": 3}'}, ["x"]),
        ({"a.ogg": b"sound", "a.txt": "x"}, ["x"]),
        ({"a.txt": "none"}, ["none"]),
    ],
)
def test_captions_are_those_of_the_json_else_of_the_txt(
    tmp_path: Path, members: dict[str, bytes | str], captions: list[str]
) -> None:
    for order in (members, dict(reversed(members.items()))):
        shard(tmp_path / "s.tar", {**order, "a.mp4": b"-", "z.mp4": b"-", "z.txt": "z"})
        found = read_dataset(in_shards(tmp_path))
        assert [text.caption for text in found.texts if text.video == "s/a"] == captions
        assert found.left_out == (() if captions else ("1 uncaptioned video: s.tar: 'a'",))


@pytest.mark.parametrize("first", ["film.1.mp4", "film.mp4"])
@pytest.mark.parametrize("second", ["film.2.mp4", "film.2.txt"])
def test_where_keys_with_dots_bite_the_rule_is_said(tmp_path: Path, first: str, second: str) -> None:
    caption = first.replace(".mp4", ".txt")
    shard(tmp_path / "s.tar", {first: b"1", caption: "one", second: b"2", "z.1.mp4": b"-", "z.1.txt": "z"})
    found = read_dataset(in_shards(tmp_path))
    if (first, second) == ("film.mp4", "film.2.txt"):  # as a.en.txt
        assert (len(found.videos), found.left_out) == (2, ())
        return
    assert [video.id for video in found.videos] == ["s/z"]
    (line,) = found.left_out
    assert second in line
    assert first in line
    assert line.endswith("(a key ends at the first dot of a name: write dots inside keys as something else)")


@pytest.mark.parametrize(
    ("word", "split"),
    [("validation", "val"), ("valid", "val"), ("dev", "val"), ("training", "train"), ("Test", "test")],
)
def test_splits_are_understood_as_others_write_them(tmp_path: Path, word: str, split: str) -> None:
    shard(tmp_path / "s.tar", {"a.mp4": b"-", "a.json": json.dumps({"caption": "x", "split": word})})
    shard(tmp_path / f"{word}-000.tar", {"a.mp4": b"-", "a.txt": "x"})
    shard(tmp_path / word / "000.tar", {"a.mp4": b"-", "a.txt": "x"})
    shard(tmp_path / "device.tar", {"a.mp4": b"-", "a.txt": "x"})
    found = {video.id: video.split for video in read_dataset(in_shards(tmp_path)).videos}
    assert found == {"s/a": split, f"{word}-000/a": split, f"{word}/000/a": split, "device/a": "train"}


@pytest.mark.parametrize("ending", ["tar.gz", "tgz", "tar.zst", "tar.bz2"])
def test_compressed_shards_are_named(tmp_path: Path, ending: str) -> None:
    (tmp_path / f"b.{ending}").write_bytes(b"-")
    (tmp_path / f"._b.{ending}").write_bytes(b"-")
    for _ in range(2):
        with pytest.raises(DataError, match="compressed shards cannot be read") as caught:
            read_dataset(in_shards(tmp_path))
        assert f"b.{ending}" in str(caught.value)
        assert "gunzip" in str(caught.value.hint)
        shard(tmp_path / "a.tar", {"a.mp4": b"-", "a.txt": "x"})
    (tmp_path / "a.tar").rename(tmp_path / "b.tar")  # what was unpacked beside it
    assert len(read_dataset(in_shards(tmp_path)).videos) == 1


def test_what_is_no_whole_shard_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no \.tar file"):
        read_dataset(in_shards(tmp_path))
    path = shard(tmp_path / "s.tar", {"a.txt": "x", "a.mp4": bytes(5000)})
    whole = path.read_bytes()
    for damaged in (whole[:4000], b"not a tar" * 100, b""):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="not an uncompressed tar, or cut off") as caught:
            read_dataset(in_shards(tmp_path))
        assert caught.value.where == str(path)
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a.mp4"))
    with pytest.raises(DataError, match="not an uncompressed tar but a gzip file") as caught:
        read_dataset(in_shards(tmp_path))
    assert "gunzip" in str(caught.value.hint)


@pytest.mark.parametrize("second", [b"not a tar" * 100, b"", "cut"])
def test_a_broken_shard_costs_only_what_is_lost(tmp_path: Path, second: bytes | str) -> None:
    shard(tmp_path / "a.tar", {"a.txt": "x", "a.mp4": b"-"})
    path = shard(tmp_path / "b.tar", {"b.txt": "y", "b.mp4": bytes(600), "c.txt": "z", "c.mp4": bytes(5000)})
    path.write_bytes(path.read_bytes()[:5000] if isinstance(second, str) else second)
    dataset = read_dataset(in_shards(tmp_path))
    assert [video.id for video in dataset.videos] == (["a/a", "b/b"] if second == "cut" else ["a/a"])
    (told,) = [line for line in dataset.left_out if "get this shard again" in line]
    assert told.startswith(f"{path}: not an uncompressed tar, or cut off")


def test_a_folder_of_shards_that_is_none_is_told_as_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        read_dataset(in_shards(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="this is a file"):
        read_dataset(in_shards(shard(tmp_path / "s.tar", {"a.txt": "x", "a.mp4": b"1"})))


def test_a_folder_of_annotations_that_is_none_is_told_as_what_it_is(tmp_path: Path) -> None:
    config = msvd(tmp_path, "a")
    with pytest.raises(DataError, match="no such folder"):
        read_dataset(config.model_copy(update={"annotations": tmp_path / "nowhere"}))
    with pytest.raises(DataError, match="this is a file"):
        read_dataset(config.model_copy(update={"annotations": config.annotations / "test_list.txt"}))


def test_a_video_in_a_tar_decodes_as_the_file_does(
    tmp_path: Path, numbered: Numbered, encode: Encode, every_frame: PrepareConfig
) -> None:
    for name, codec in (("a.mp4", "libx264"), ("b.avi", "mpeg4"), ("c.mkv", "libx264")):
        path = encode(tmp_path / name, numbered(12), codec)
        data = path.read_bytes()
        tar = shard(tmp_path / f"{name}.tar", {"x.mp4": bytes(700), name: data})
        start = tar.read_bytes().index(data)
        alone, inside = (
            read_video("x", source, every_frame) for source in (path, TarPart(tar, start, path.stat().st_size))
        )
        assert inside.status == alone.status
        assert inside.status.frames == 12
        np.testing.assert_array_equal(inside.images, alone.images)
        np.testing.assert_array_equal(inside.times, alone.times)
    broken = read_video("x", TarPart(tar, 0, 512), every_frame)
    assert broken.status.status == "corrupt"


def test_prepare_reads_shards_and_notices_what_changed(tmp_path: Path, numbered: Numbered, encode: Encode) -> None:
    clip = encode(tmp_path / "clip.mp4", numbered(8), fps=4).read_bytes()
    captioned = {"a.mp4": clip, "a.txt": "a", "b.mp4": clip[: len(clip) // 2], "b.txt": "b"}
    shard(tmp_path / "shards/train-0.tar", captioned)
    settings = PrepareConfig(image_size=96, max_frames=3, workers=1)
    config = Config(work=tmp_path / "work", data=in_shards(tmp_path / "shards"), prepare=settings)
    assert prepare(config).counts == {"ok": 1, "corrupt": 1}
    assert FrameCache.open(config.frames_folder).usable == ("train-0/a",)
    assert prepare(config).decoded == 0
    shard(tmp_path / "shards/train-0.tar", captioned | {"b.mp4": clip})
    assert prepare(config).counts == {"ok": 2}


def test_didemo_is_looked_at_up_to_second_31(
    tmp_path: Path, numbered: Numbered, encode: Encode, shown_number: Callable[[np.ndarray], int]
) -> None:
    """Frames 0, 2, ... of a clip of 2 frames a second; the last second counts, so that there are 32 at most."""
    (tmp_path / "test_list.txt").write_text("12@N01_1_a.mov\n")
    moments = [{"video": "12@N01_1_a.mov", "description": "x", "times": [[0, 0]]}]
    (tmp_path / "test_data.json").write_text(json.dumps(moments))
    encode(tmp_path / "12@N01_1_a.mp4", numbered(80), fps=2)
    data = DataConfig(set="didemo", annotations=tmp_path, splits=("test",))
    settings = PrepareConfig(image_size=96, max_frames=64, workers=1, last_second=31)
    config = Config(work=tmp_path / "work", data=data, prepare=settings)
    prepare(config)
    clips = FrameCache.open(config.frames_folder).read(["12@N01_1_a"])
    assert clips.mask.sum() == 32
    assert [shown_number(frame) for frame in clips.frames[0][clips.mask[0]]] == list(range(0, 64, 2))
    whole = config.model_copy(update={"prepare": settings.model_copy(update={"last_second": None})})
    with pytest.raises(CacheMismatchError, match="last_second"):
        prepare(whole)


def test_a_video_cut_off_behind_the_last_second_is_whole(tmp_path: Path, numbered: Numbered, encode: Encode) -> None:
    path = encode(tmp_path / "a.mkv", numbered(60), fps=2)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    settings = PrepareConfig(image_size=96, max_frames=64)
    assert read_video("a", path, settings).status.status == "short"
    seen = read_video("a", path, settings.model_copy(update={"last_second": 9}))
    assert (seen.status.status, seen.status.frames) == ("ok", 10)
    assert read_video("a", path, settings.model_copy(update={"last_second": 28})).status.status == "short"
