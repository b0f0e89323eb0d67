"""Caption files as spreadsheets and editors save them: blank rows, other separators, what cannot be seen."""

import json
import tarfile
from io import BytesIO
from pathlib import Path

import pytest
from teachclip.configs.schema import DataConfig
from teachclip.errors import DataError
from teachclip.stages.data.dataset import Dataset, read_dataset
from teachclip.stages.data.readers.text_files import blank
from teachclip.stages.search.questions import refuse_empty

UNSEEN = ["\u200b", "\u00a0", "\ufeff", "\u2060\u200d", "\u00ad", "\u3164", "\u2800", "\ufe0f", "\x07\t", "\U000e0041"]


def read(folder: Path, text: str | bytes, name: str = "captions.csv") -> Dataset:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_dataset(DataConfig(captions=path, val_fraction=0.0))


def refused(folder: Path, text: str | bytes, name: str = "captions.csv") -> DataError:
    with pytest.raises(DataError) as caught:
        read(folder, text, name)
    return caught.value


@pytest.mark.parametrize("row", ["", ",,", ' , ,""', "\t,,", "\u00a0,\u200b,\ufeff", ",,,,,", '"\n",,'], ids=ascii)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=ascii)
def test_blank_rows_are_ignored_wherever_they_stand(tmp_path: Path, row: str, end: str) -> None:
    lines = [row, "video,caption,split", row, "a.mp4,one,train", row, row, "b.mp4,two,test", row, row]
    found = read(tmp_path, end.join(lines))
    assert [(text.video, text.caption) for text in found.texts] == [("a.mp4", "one"), ("b.mp4", "two")]
    assert [video.split for video in found.videos] == ["train", "test"]
    lines[6] = "../b.mp4,two,test"
    (told,) = refused(tmp_path, end.join(lines)).details
    breaks = sum(line.count("\n") for line in lines[:6])
    assert told.startswith(f"captions.csv:{7 + breaks}: ")  # lines are counted, blank ones too


def test_blank_columns_behind_the_header_are_ignored_and_others_are_not(tmp_path: Path) -> None:
    assert len(read(tmp_path, "video,caption,,\na.mp4,one,,\nb.mp4,two,,\n").texts) == 2
    assert len(read(tmp_path, "video,caption\na.mp4,one,,\nb.mp4,two, \n").texts) == 2
    (told,) = refused(tmp_path, "video,caption\na.mp4,one,more\n").details
    assert "3 fields where the header names 2" in told
    assert len(read(tmp_path, "sep=,\nvideo,caption\na.mp4,one\n").texts) == 1


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("video;caption;split\na.mp4;one, two;train\n", "semicolons"),
        ('"video";"caption"\n"a.mp4";"one"\n', "semicolons"),
        ("sep=;\nvideo;caption\na.mp4;one\n", "semicolons"),
        ("video\tcaption\na.mp4\tone\n", "tabs"),
        ("video|caption\na.mp4|one\n", "vertical bars"),
    ],
)
def test_another_separator_is_named(tmp_path: Path, text: str, word: str) -> None:
    for content in (text, b"\xef\xbb\xbf" + text.encode()):
        error = refused(tmp_path, content)
        assert f"separated by {word}, not by commas" in error.what
        assert "commas" in str(error.hint)
    published = text.replace("video", "video_id").replace("caption", "sentence")
    (tmp_path / "MSRVTT_JSFUSION_test.csv").write_text(published)
    with pytest.raises(DataError, match=f"separated by {word}, not by commas"):
        read_dataset(DataConfig(set="msrvtt-1k-9k", annotations=tmp_path, splits=("test",)))


def test_rows_with_another_separator_than_the_header_are_told(tmp_path: Path) -> None:
    (told,) = refused(tmp_path, "video,caption\na.mp4,one\nb.mp4;two\n").details
    assert (
        told
        == "captions.csv:3: 1 fields where the header names 2 (it holds semicolons: fields are separated by commas)"
    )


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", ["captions.csv", "captions.jsonl"])
def test_utf_16_is_named_with_and_without_its_mark(tmp_path: Path, encoding: str, name: str) -> None:
    error = refused(tmp_path, 'video\tcaption\n{"video": "a.mp4"}'.encode(encoding), name)
    assert error.what == "the file is UTF-16"
    assert "UTF-8" in str(error.hint)


@pytest.mark.parametrize("name", ["captions.tsv", "captions.xlsx", "captions.ods"])
def test_a_table_of_another_kind_is_refused_with_what_is_read(tmp_path: Path, name: str) -> None:
    error = refused(tmp_path, b"PK\3\4", name)
    assert ".csv or .jsonl" in error.what
    assert "CSV in UTF-8" in str(error.hint)


def test_lists_with_blank_rows_are_read_as_without(tmp_path: Path) -> None:
    (tmp_path / "MSRVTT_JSFUSION_test.csv").write_text("video_id,sentence\n,\nvideo1,one\n, \n\u200b,\n")
    config = DataConfig(set="msrvtt-1k-9k", annotations=tmp_path, splits=("test",))
    assert [text.id for text in read_dataset(config).texts] == ["video1#0"]
    (tmp_path / "didemo_test_label.csv").write_text("video_path,text\nx/a.mp4,one\n,\n")
    (tmp_path / "test_list.txt").write_text("a.mp4\n\ufeff\n \u200b\n")
    config = DataConfig(set="didemo", annotations=tmp_path, splits=("test",))
    assert [text.id for text in read_dataset(config).texts] == ["a#0"]


@pytest.mark.parametrize("caption", UNSEEN, ids=ascii)
def test_a_caption_that_cannot_be_seen_is_refused_by_name(tmp_path: Path, caption: str) -> None:
    row = json.dumps({"video": "a.mp4", "caption": ["one", caption]})
    (told,) = refused(tmp_path, row, "captions.jsonl").details
    assert told.startswith("captions.jsonl:1: ")
    assert "'a.mp4'" in told
    if caption.strip():
        assert f"U+{ord(caption[0]):04X}" in told
        assert read(tmp_path, f'video,caption\na.mp4,"{caption}one"\n').texts[0].caption == f"{caption}one".strip()
    with pytest.raises(DataError, match="an empty sentence"):
        refuse_empty([caption])


@pytest.mark.parametrize("caption", UNSEEN, ids=ascii)
def test_elsewhere_it_counts_as_none(tmp_path: Path, caption: str) -> None:
    (tmp_path / "test_list.txt").write_text("a\n")
    captions = tmp_path / "captions_msvd.json"
    config = DataConfig(set="msvd", annotations=tmp_path, splits=("test",))
    captions.write_text(json.dumps({"a": [caption, "one"]}))
    assert [text.caption for text in read_dataset(config).texts] == ["one"]
    captions.write_text(json.dumps({"a": [caption]}))
    with pytest.raises(DataError) as caught:
        read_dataset(config)
    assert caught.value.details == ("test_list.txt:1: video 'a' has only empty captions",)

    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for name, content in (("a.mp4", "-"), ("a.txt", caption), ("b.mp4", "-"), ("b.txt", f"two\n{caption}")):
            member = tarfile.TarInfo(name)
            member.size = len(content.encode())
            tar.addfile(member, BytesIO(content.encode()))
    found = read_dataset(DataConfig(set="webdataset", videos=tmp_path, val_fraction=0.0))
    assert [text.caption for text in found.texts] == ["two"]
    assert found.left_out == ("1 uncaptioned video: s.tar: 'a'",)


@pytest.mark.parametrize(
    "text", ["a", "。", "é", "e\u0301", "\u0939\u093f", "👍", "❤\ufe0f", "\u200bx", "-", "\ufffd", "猫"]
)
def test_what_can_be_seen_is_not_blank(text: str) -> None:
    assert not blank(text)
