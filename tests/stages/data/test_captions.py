"""Caption files: what is read, and that every wrong row is named."""

import csv
import io
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from teachclip.configs.schema import DataConfig
from teachclip.errors import DataError
from teachclip.remedies import Change
from teachclip.stages.data.dataset import Dataset, read_dataset
from teachclip.stages.data.readers.text_files import blank


def read(folder: Path, text: str | bytes, name: str = "captions.csv", **options: object) -> Dataset:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_dataset(DataConfig(captions=path, **{"val_fraction": 0.0, **options}))


def refused(folder: Path, text: str | bytes, name: str = "captions.csv", **options: object) -> DataError:
    with pytest.raises(DataError) as caught:
        read(folder, text, name, **options)
    return caught.value


def test_csv_by_header_names_in_order_of_first_appearance(tmp_path: Path) -> None:
    rows = 'licence,split,video,caption\nMIT,test,b/2.mp4,"a, b ""c"""\nMIT,,a 1.mp4,ü\nMIT,test,b/2.mp4, second \n'
    data = read(tmp_path, b"\xef\xbb\xbf" + rows.encode())
    assert [(video.id, video.split, video.path) for video in data.videos] == [
        ("b/2.mp4", "test", tmp_path / "b/2.mp4"),
        ("a 1.mp4", "train", tmp_path / "a 1.mp4"),
    ]
    assert [(text.id, text.video, text.caption) for text in data.texts] == [
        ("b/2.mp4#0", "b/2.mp4", 'a, b "c"'),
        ("b/2.mp4#1", "b/2.mp4", "second"),
        ("a 1.mp4#0", "a 1.mp4", "ü"),
    ]
    assert [text.id for text in data.texts_of("test")] == ["b/2.mp4#0", "b/2.mp4#1"]
    assert [video.id for video in data.videos_of("train")] == ["a 1.mp4"]


def test_jsonl_with_one_or_several_captions(tmp_path: Path) -> None:
    rows = [
        {"video": "a.mp4", "caption": ["one", "two"], "split": "val", "extra": 1},
        {"video": "b.mp4", "caption": "line\u2028break", "split": None},
        {"video": "a.mp4", "caption": "three", "split": "val"},
    ]
    text = "\ufeff" + "\r\n\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    data = read(tmp_path, text, "captions.jsonl")
    assert [text.id for text in data.texts] == ["a.mp4#0", "a.mp4#1", "a.mp4#2", "b.mp4#0"]
    assert [video.split for video in data.videos] == ["val", "train"]


def test_videos_lie_in_their_own_folder_when_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    data = read(tmp_path, "video,caption\na.mp4,x\n", videos=tmp_path / "clips")
    assert data.videos[0].path == tmp_path / "clips" / "a.mp4"


BAD_ROWS = {
    "../a.mp4": "leaves the video folder",
    "b/../../a.mp4": "leaves the video folder",
    "/etc/passwd": "absolute path",
    "a//b.mp4": "should be written 'a/b.mp4'",
    "./a.mp4": "should be written 'a.mp4'",
    "": "is empty",
    '"a\nb.mp4"': "control character or a line break",
    "a\x07.mp4": "control character or a line break",
    "a\u2028b.mp4": "control character or a line break",
    "link.mp4": "is a link out of the video folder",
    "folder/x.mp4": "is a link out of the video folder",
}


@pytest.mark.parametrize("id", BAD_ROWS, ids=ascii)
def test_ids_that_are_no_file_below_the_folder_are_named(tmp_path: Path, id: str) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    (tmp_path / "outside.mp4").touch()
    (clips / "link.mp4").symlink_to(tmp_path / "outside.mp4")
    (clips / "folder").symlink_to(tmp_path)
    text = f"video,caption\ngood.mp4,x\n{id},y\n"
    error = refused(tmp_path, text, videos=clips)
    (line,) = error.details
    assert line.startswith("captions.csv:3: video ")
    assert BAD_ROWS[id] in line


def test_links_inside_the_folder_and_a_linked_folder_are_fine(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.mp4").touch()
    (tmp_path / "real" / "b.mp4").symlink_to("a.mp4")
    (tmp_path / "clips").symlink_to("real")
    assert len(read(tmp_path, "video,caption\na.mp4,x\nb.mp4,y\n", videos=tmp_path / "clips").videos) == 2


def test_every_wrong_row_is_named_with_its_line(tmp_path: Path) -> None:
    text = (
        "video,caption,split\n"
        "a.mp4,one,train\n"
        "a.mp4,two,test\n"  # 3: two splits
        "b.mp4,,train\n"  # 4: empty
        "c.mp4,see,validation\n"  # 5: unknown split
        "a.mp4,one,train\n"  # 6: duplicate
        'd.mp4,"two\nlines",train\n'  # 7 and 8: fine
        "e.mp4,a,b,train\n"  # 9: a comma without quotes
        "f.mp4,short\n"  # 10
    )
    error = refused(tmp_path, text)
    assert error.what == "6 problems in the captions"
    assert error.where == str(tmp_path / "captions.csv")
    told = {line.split(": ")[0]: line for line in error.details}
    assert list(told) == [f"captions.csv:{line}" for line in (3, 4, 5, 6, 9, 10)]
    assert "'a.mp4' is in split 'test' here and in 'train' before" in told["captions.csv:3"]
    assert "empty caption for video 'b.mp4'" in told["captions.csv:4"]
    assert "unknown split 'validation'" in told["captions.csv:5"]
    assert "did you mean 'val'" in told["captions.csv:5"]
    assert "as in line 2: 'one'" in told["captions.csv:6"]
    assert "4 fields where the header names 3" in told["captions.csv:9"]
    assert error.hint.otherwise.action == Change({"data.duplicates": "keep-first"})


def test_wrong_rows_of_jsonl_are_named_with_their_line(tmp_path: Path) -> None:
    lines = [
        '{"video": "a.mp4", "caption": "x"}',
        '{"video": "b.mp4", "caption": "x"',
        '{"video": "c.mp4"}',
        '{"video": "d.mp4", "caption": []}',
        '{"caption": "x"}',
        '{"video": 7, "caption": "x"}',
        '{"video": "e.mp4", "caption": {"en": "x"}}',
        '{"video": "f.mp4", "caption": ["x", 3]}',
        '{"video": "g.mp4", "caption": "x", "split": 1}',
        '["h.mp4", "x"]',
        '{"video": "i.mp4", "caption": "\\ud800"}',
        '{"video": "j\\ud800.mp4", "caption": "x"}',
        '{"video": "k.mp4", "caption": null}',
        "[" * 100_000,
    ]
    error = refused(tmp_path, "\n".join(lines), "captions.jsonl")
    told = "\n".join(error.details)
    assert {int(line.split(":")[1]) for line in error.details} == set(range(2, len(lines) + 1))
    for part in ("not JSON: ", "'c.mp4' has no caption", "'d.mp4' has no caption", 'no "video"', "lone surrogate"):
        assert part in told
    assert '"caption" is an object, not a string or a list of strings' in told


def test_at_most_twenty_problems_are_shown(tmp_path: Path) -> None:
    error = refused(tmp_path, "video,caption\n" + "".join(f"{k}.mp4,\n" for k in range(33)))
    assert len(error.details) == 21
    assert error.details[-1] == "... and 13 more"
    assert error.what == "33 problems in the captions"


def test_equal_captions_are_kept_once_when_asked(tmp_path: Path) -> None:
    text = "video,caption\na.mp4,x\na.mp4,x \na.mp4,y\nb.mp4,x\n"
    data = read(tmp_path, text, duplicates="keep-first")
    assert [text.id for text in data.texts] == ["a.mp4#0", "a.mp4#1", "b.mp4#0"]


@pytest.mark.parametrize(
    ("name", "content", "told", "where"),
    [
        ("captions.csv", "video,caption\na.mp4,x\nb.mp4,caf\xe9\n".encode("latin-1"), "byte 0xe9 is not UTF-8", ":3"),
        ("captions.csv", "video,caption\na.mp4,x\n".encode("utf-16"), "UTF-16", ""),
        ("captions.csv", b"file,text\na.mp4,x\n", "no column video and no column caption", ":1"),
        ("captions.csv", b"video;caption\na.mp4;x\n", "no column video", ":1"),
        ("captions.csv", b"video,caption,video\na.mp4,x,b\n", "two columns named video", ":1"),
        ("captions.csv", b"", "no column video", ":1"),
        ("captions.csv", b"video,caption\n", "no captions in the file", ""),
        ("captions.jsonl", b"\n \n", "no captions in the file", ""),
        ("captions.csv", b'video,caption\na.mp4,x\nb.mp4,"open\nc.mp4,y\n', "not a readable CSV", ":3"),
        ("captions.csv", b'video,caption\na.mp4,"a" b\n', "not a readable CSV", ":2"),
        ("captions.csv", b"video,caption\na.mp4,x\0y\n" + b"b.mp4," + b"z" * 2_000_000, "not a readable CSV", ":3"),
        ("captions.txt", b"a.mp4 x", "not .txt", ""),
    ],
)
def test_files_that_cannot_be_read_say_why_and_where(
    tmp_path: Path, name: str, content: bytes, told: str, where: str
) -> None:
    error = refused(tmp_path, content, name)
    assert told in error.what
    assert (error.where or "").endswith(name + where)


def test_a_caption_file_that_is_not_there_or_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such caption file"):
        read_dataset(DataConfig(captions=tmp_path / "none.csv"))
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match="cannot be read"):
        read_dataset(DataConfig(captions=tmp_path / "folder.csv"))


def test_validation_videos_do_not_depend_on_the_order_and_hardly_on_additions(tmp_path: Path) -> None:
    def val(ids: list[str], fraction: float = 0.1) -> set[str]:
        text = "video,caption\n" + "".join(f"{id}.mp4,x\n" for id in ids)
        return {video.id for video in read(tmp_path, text, val_fraction=fraction).videos_of("val")}

    ids = [str(k) for k in range(200)]
    assert len(val(ids)) == 20
    assert val(ids[::-1]) == val(ids)
    assert len(val(ids) & val([*ids, *(f"new{k}" for k in range(20))])) >= 17
    assert len(val(["a", "b"])) == 1  # at least one of each
    assert len(val(["a", "b"], 0.9)) == 1
    assert val(["a"]) == set()
    assert val(ids, 0.0) == set()


def test_a_file_that_names_validation_videos_keeps_its_own(tmp_path: Path) -> None:
    text = "video,caption,split\n" + "".join(f"{k}.mp4,x,train\n" for k in range(50)) + "v.mp4,x,val\n"
    assert [video.id for video in read(tmp_path, text, val_fraction=0.5).videos_of("val")] == ["v.mp4"]


segment = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"], exclude_characters="/"), min_size=1)
ids = st.lists(segment.map(str.strip).filter(lambda s: s not in ("", ".", "..")), min_size=1, max_size=3).map("/".join)
ids = ids.filter(lambda id: not blank(id))  # refused, as captions that cannot be seen are
captions = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda s: not blank(s))
datasets = st.dictionaries(
    ids, st.tuples(st.sampled_from(["train", "val", "test"]), st.lists(captions, min_size=1, max_size=3)), min_size=1
)


def as_read(data: Dataset) -> list[tuple[str, str, list[str]]]:
    captions: dict[str, list[str]] = {video.id: [] for video in data.videos}
    for text in data.texts:
        captions[text.video].append(text.caption)
    return [(video.id, video.split, captions[video.id]) for video in data.videos]


def outcome(content: bytes, name: str) -> str:
    """What the user is told, "" when the file is read."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            read(Path(folder), content, name)
        except DataError as error:
            return str(error)
    return ""


@given(datasets)
@settings(deadline=None, max_examples=60)
def test_what_is_written_is_read(written: dict[str, tuple[str, list[str]]]) -> None:
    wanted = [
        (id, split, list(dict.fromkeys(caption.strip() for caption in texts))) for id, (split, texts) in written.items()
    ]
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerows(
        [("video", "caption", "split"), *((id, t, split) for id, (split, texts) in written.items() for t in texts)]
    )
    lines = [json.dumps({"video": id, "caption": t, "split": split}) for id, (split, t) in written.items()]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        assert as_read(read(root, buffer.getvalue(), "c.csv", duplicates="keep-first")) == wanted
        assert as_read(read(root, "\n".join(lines), "c.jsonl", duplicates="keep-first")) == wanted


@given(st.one_of(st.binary(), st.text().map(lambda text: text.encode(errors="surrogatepass"))), st.booleans())
@settings(deadline=None, max_examples=150)
def test_any_bytes_are_read_or_refused_in_words(content: bytes, header: bool) -> None:
    assert outcome((b"video,caption\n" if header else b"") + content, "c.csv") is not None
    assert outcome(content, "c.jsonl") is not None


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
json_values = st.recursive(scalars, lambda values: st.lists(values) | st.dictionaries(st.text(), values))


@given(st.dictionaries(st.sampled_from(["video", "caption", "split", "x"]), json_values) | json_values)
@settings(deadline=None, max_examples=60)
def test_any_json_line_is_read_or_named(value: object) -> None:
    told = outcome(json.dumps(value).encode(), "c.jsonl")
    assert not told or "c.jsonl:1: " in told
