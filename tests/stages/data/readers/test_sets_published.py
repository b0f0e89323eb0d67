"""Published data sets, each in every form that its files come in, and what is said of files that are not right."""

import json
import pickle
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from teachclip.configs.schema import DataConfig
from teachclip.errors import DataError
from teachclip.stages.data.dataset import Dataset, read_dataset

type Files = Mapping[str, Any]
SENTENCES = {
    "videos": [{"video_id": f"video{k}", "url": "-", "split": "train"} for k in range(4)],
    "sentences": [
        {"video_id": f"video{k % 4}", "caption": f"caption {k}", "sen_id": 10 * k} for k in range(8)
    ],
}  # fmt: skip
FOUR = {f"video{k}": (f"caption {k}", f"caption {k + 4}") for k in range(4)}
SGN = {id: {str(10 * k): text for k, text in enumerate(texts)} for id, texts in FOUR.items()}
MSRVTT_TEST = 'key,vid_key,video_id,sentence\nret0,msr9,video9,"a man, singing"\nret1,msr8,video8,a dog\n'


def written(folder: Path, files: Files) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        else:
            text = content if isinstance(content, str) else json.dumps(content)
            (folder / name).write_text(text, encoding="utf-8")
    return folder


def read(folder: Path, name: str, files: Files, **data: Any) -> Dataset:
    values = {"set": name, "annotations": written(folder / "annotations", files), "val_fraction": 0.0, **data}
    return read_dataset(DataConfig.model_validate(values))


def captions(dataset: Dataset, split: str) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for text in dataset.texts_of(split):  # type: ignore[arg-type]
        assert text.id == f"{text.video}#{len(found.get(text.video, ()))}"
        found[text.video] = (*found.get(text.video, ()), text.caption)
    assert list(found) == [video.id for video in dataset.videos_of(split)]  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize("name", ["msrvtt-1k-9k", "msrvtt-1k-7k"])
@pytest.mark.parametrize(
    "tables",
    [
        {"MSRVTT_data.json": SENTENCES},
        {"train_val_videodatainfo.json": SENTENCES, "test_videodatainfo.json": {"videos": [], "sentences": []}},
        {"sgn_train.json": {"video2": SGN["video2"]}, "sgn_test.json": {"video0": SGN["video0"], "v": {"0": "-"}}},
    ],
)
def test_msrvtt_1k(tmp_path: Path, name: str, tables: Files) -> None:
    """Training videos have all their captions, in the order of the list; the test file brings one a video."""
    train = {f"MSRVTT_train.{name[-2:]}.csv": "video_id\r\nvideo2\r\nvideo0\r\n"}
    found = read(tmp_path, name, {**train, "MSRVTT_JSFUSION_test.csv": MSRVTT_TEST, **tables})
    assert captions(found, "train") == {"video2": FOUR["video2"], "video0": FOUR["video0"]}
    assert captions(found, "test") == {"video9": ("a man, singing",), "video8": ("a dog",)}
    assert captions(found, "val") == {}


@pytest.mark.parametrize("pattern", ["MSRVTT_full_split_{}.csv", "MSRVTT_{}.full.csv"])
@pytest.mark.parametrize("tables", [{"MSRVTT_data.json": SENTENCES}, {"sgn_val.json": SGN}])
def test_msrvtt_3k(tmp_path: Path, pattern: str, tables: Files) -> None:
    lists = {"train": "video_id\nvideo0\n", "val": "video_id\nvideo1\n", "test": "video_id\nvideo2\nvideo3\n"}
    found = read(tmp_path, "msrvtt-3k", {pattern.format(split): text for split, text in lists.items()} | dict(tables))
    assert [list(captions(found, split)) for split in lists] == [["video0"], ["video1"], ["video2", "video3"]]
    assert captions(found, "test") == {"video2": FOUR["video2"], "video3": FOUR["video3"]}


def test_lists_with_sentences_need_no_table(tmp_path: Path) -> None:
    """TeachCLIP's lists for validation and test have one row per caption."""
    rows = "video_id,sentence\nvideo1,one\nvideo1,two\nvideo1,two\nvideo3,three\n"
    found = read(tmp_path, "vatex", {"VATEX_test.csv": rows}, splits=["test"])
    assert captions(found, "test") == {"video1": ("one", "two", "two"), "video3": ("three",)}


@pytest.mark.parametrize(
    "tables",
    [
        {"raw-captions.pkl": pickle.dumps({"a_1_2": [["a", "cat"], ["a", "dog"]], "b_1_2": [["b"]]}, 2)},
        {"captions_msvd.json": {"a_1_2": ["a cat", "a dog"], "b_1_2": ["b"]}},
    ],
)
def test_msvd(tmp_path: Path, tables: Files) -> None:
    lists = {"train_list.txt": "a_1_2\n\n", "val_list.txt": "b_1_2", "test_list.txt": "\ufeffa_1_3\n"}
    table = {"captions_msvd.json": {"a_1_3": ["c"]}}
    found = read(tmp_path, "msvd", {**lists, **table, **tables}, splits=["train", "val"])
    assert captions(found, "train") == {"a_1_2": ("a cat", "a dog")}
    assert captions(found, "val") == {"b_1_2": ("b",)}


@pytest.mark.parametrize(
    "tables",
    [
        {"VATEX_data.json": {"sentences": [{"video_id": "a", "caption": text} for text in ("one", "two")]}},
        {"vatex_data.json": {"a": {"enCap": ["one", "two"], "chCap": ["-"]}}},
        {"vatex_training_v1.0.json": [{"videoID": "z", "enCap": ["-"]}],
         "vatex_validation_v1.0.json": [{"videoID": "a", "enCap": ["one", "two"], "chCap": ["-"]}]},
    ],
)  # fmt: skip
@pytest.mark.parametrize("lists", [{"VATEX_test.csv": "video_id\na\n"}, {"test_list.txt": "a\n"}])
def test_vatex(tmp_path: Path, lists: Files, tables: Files) -> None:
    found = read(tmp_path, "vatex", {**lists, **tables}, splits=["test"])
    assert captions(found, "test") == {"a": ("one", "two")}


def activity(**sentences: list[str]) -> Files:
    return {f"v_{id}": {"duration": 9.5, "timestamps": [[0, 1]], "sentences": texts} for id, texts in sentences.items()}


def test_activitynet_paragraphs(tmp_path: Path) -> None:
    """All sentences of a video are one text, in order; whitespace at their ends comes with the files."""
    files = {"train.json": activity(a=["One.", " Two. "]), "val_1.json": activity(b=["Three.", "", "  Four."])}
    found = read(tmp_path, "activitynet", {**files, "val_2.json": activity(b=["Other."]), "val_ids.json": ["v_c"]})
    assert captions(found, "train") == {"v_a": ("One. Two.",)}
    assert captions(found, "test") == {"v_b": ("Three. Four.",)}


MOMENTS = [
    {"video": "12@N01_1_a.mov", "description": "first.", "times": [[0, 0], [1, 1]], "num_segments": 6},
    {"video": "34@N01_2_b.", "description": "other", "times": [[5, 5]]},
    {"video": "12@N01_1_a.mov", "description": " second ", "times": [[2, 3]]},
    {"video": "56@N01_3_c.3gp", "description": "in no list", "times": [[0, 0]]},
]
LABELS = (
    "success,video_path,starts,ends,text,formatted_data\n"
    'True,/x/y/12@N01_1_a.mov,tensor([[0]]),tensor([[31]]),first. second,/x/0.pth\n'
    'True,/x/y/34@N01_2_b.,tensor([[0]]),tensor([[31]]),other,/x/1.pth\n'
)  # fmt: skip


@pytest.mark.parametrize(
    "files",
    [
        {"test_list.txt": "12@N01_1_a\n34@N01_2_b\n", "test_data.json": MOMENTS},
        {"ce_test_list.txt": "12@N01_1_a.mov\n34@N01_2_b.\n", "localizingmoments_test_data.json": MOMENTS},
        {"didemo_test_label.csv": LABELS},
        {"test_list.txt": "12@N01_1_a.mp4\n34@N01_2_b.avi", "test_data.json": MOMENTS, "didemo_test_label.csv": "-"},
    ],
)
def test_didemo_paragraphs(tmp_path: Path, files: Files) -> None:
    """The moments of a video are one text, in file order; names differ in their extensions, which ids go without."""
    found = read(tmp_path, "didemo", files, splits=["test"])
    assert captions(found, "test") == {"12@N01_1_a": ("first. second",), "34@N01_2_b": ("other",)}


def test_lsmdc(tmp_path: Path) -> None:
    row = "1_FILM_00.00.01.000-00.00.02.000\t1\t2\t1\t2\t{}\n"
    files = {"LSMDC16_annos_training.csv": row.format('SOMEONE says "hi".') + row.format("She leaves.")}
    found = read(tmp_path, "lsmdc", files, splits=["train"])
    assert captions(found, "train") == {"1_FILM_00.00.01.000-00.00.02.000": ('SOMEONE says "hi".', "She leaves.")}


VIDEOS, QUERIES, TRUTH = (f"{folder}/test.txt" for folder in ("VideoSet", "QuerySet", "Annotations"))
QUERY_FILES = {
    VIDEOS: "b\na\n",
    QUERIES: "a#0\ta cat\nb#0\ta dog\nq 7\tthe\ttabbed dog\n",
    TRUTH: "a#0\ta\nq 7\tb\nb#0\tb\n",
}


def test_teachclip_files(tmp_path: Path) -> None:
    """Videos in the order of the video set, each one's queries in that of the ground truth."""
    found = read(tmp_path, "teachclip-files", QUERY_FILES, splits=["test"])
    assert captions(found, "test") == {"b": ("the\ttabbed dog", "a dog"), "a": ("a cat",)}


def test_teachclip_files_of_every_split(tmp_path: Path) -> None:
    """Saved on Windows, with a byte order mark; lines of a video need not stand together."""
    files = dict(QUERY_FILES)
    for split, id in (("train", "c"), ("val", "d")):
        files[f"VideoSet/{split}.txt"] = f"\ufeff{id}1\r\n{id}2"
        files[f"QuerySet/{split}.txt"] = "\ufeff1\tone\r\n2\ttwo\r\n\r\n3\tthree\r\n"
        files[f"Annotations/{split}.txt"] = f"\ufeff3\t{id}2\r\n1\t{id}1\r\n2\t{id}2\r\n"
    found = read(tmp_path, "teachclip-files", files)
    assert captions(found, "train") == {"c1": ("one",), "c2": ("three", "two")}
    assert captions(found, "val") == {"d1": ("one",), "d2": ("three", "two")}
    assert list(captions(found, "test")) == ["b", "a"]


def refused(folder: Path, name: str, files: Files, **data: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        read(folder, name, files, **data)
    return caught.value


GOOD = {"test_list.txt": "a\n", "captions_msvd.json": {"a": ["one"]}}


@pytest.mark.parametrize(
    ("name", "files", "where", "what"),
    [
        ("msvd", {}, "", "no test_list.txt"),
        ("msvd", {"test_list.txt": "a\n"}, "", "none of raw-captions.pkl, captions_msvd.json"),
        ("msvd", GOOD | {"test_list.txt": "\n"}, "test_list.txt", "names no video"),
        ("msvd", GOOD | {"test_list.txt": "a\nb\na\n"}, "test_list.txt:3", "the id 'a' again, as in test_list.txt:1"),
        ("msvd", GOOD | {"test_list.txt": b"a\n\xff\xfea"}, "test_list.txt:2", "byte 0xff is not UTF-8"),
        ("msvd", GOOD | {"test_list.txt": "a\n".encode("utf-16")}, "test_list.txt", "the file is UTF-16"),
        ("msvd", GOOD | {"captions_msvd.json": '{"a": ["one"'}, "captions_msvd.json:1", "may have been cut off"),
        ("msvd", GOOD | {"captions_msvd.json": '{"a":\n ["one",,]}'}, "captions_msvd.json:2", "not JSON: "),
        ("msvd", GOOD | {"captions_msvd.json": "[" * 200_000}, "captions_msvd.json", "nested too deeply"),
        ("msvd", GOOD | {"captions_msvd.json": '"a"'}, "captions_msvd.json", "holds a string, not captions by video"),
        ("msvd", GOOD | {"captions_msvd.json": {"a": "one"}}, "captions_msvd.json", "a is a string, not a list"),
        ("msvd", GOOD | {"captions_msvd.json": {"a": ["x", 3]}}, "captions_msvd.json", "a[1] is a number, not"),
        ("msvd", GOOD | {"captions_msvd.json": {"a": [["x", None]]}}, "captions_msvd.json", "a[0] is null, not a"),
        ("vatex", {"VATEX_test.csv": "video,caption\na,b\n"}, "VATEX_test.csv:1", "no column video_id"),
        ("vatex", {"VATEX_test.csv": ""}, "VATEX_test.csv:1", "no column video_id"),
        ("vatex", {"VATEX_test.csv": "video_id,sentence\na,b,c\n"}, "VATEX_test.csv:2", "3 fields where the header"),
        ("vatex", {"VATEX_test.csv": 'video_id,sentence\na,"b\n'}, "VATEX_test.csv:2", "not a readable CSV"),
        ("vatex", {"VATEX_test.csv": "video_id\na\na\n"}, "VATEX_test.csv:3", "the id 'a' again"),
        ("vatex", {"test_list.txt": "a", "VATEX_data.json": {"sentences": [{"video_id": "a"}]}}, "VATEX_data.json",
         "sentences[0] has no 'caption'; found: video_id"),
        ("vatex", {"test_list.txt": "a", "VATEX_data.json": {"sentences": {}}}, "VATEX_data.json",
         "sentences is an object, not a list"),
        ("vatex", {"test_list.txt": "a", "VATEX_data.json": [{"videoID": "a", "enCap": 1}]}, "VATEX_data.json",
         "[0] (a) is a number, not a list"),
        ("vatex", {"test_list.txt": "a", "VATEX_data.json": [["a"]]}, "VATEX_data.json", "[0] has no 'videoID'"),
        ("msrvtt-1k-9k", {"MSRVTT_JSFUSION_test.csv": "video_id\nvideo1\n"}, "MSRVTT_JSFUSION_test.csv:1",
         "no column sentence"),
        ("activitynet", {"val_1.json": "[]"}, "val_1.json", "holds a list, not videos by id"),
        ("activitynet", {"val_1.json": {"v_a": {"sentences": "one"}}}, "val_1.json: v_a", 'has no "sentences"'),
        ("activitynet", {"val_1.json": {"v_a": None}}, "val_1.json: v_a", 'has no "sentences"'),
        ("didemo", {"test_list.txt": "a", "test_data.json": "{}"}, "test_data.json", "holds an object, not a list"),
        ("didemo", {"test_list.txt": "a", "test_data.json": [{"video": "a.mp4"}]}, "test_data.json: [0]",
         'has no "video" or no "description"'),
        ("didemo", {"didemo_test_label.csv": "video_path\na\n"}, "didemo_test_label.csv:1", "no column text"),
        ("didemo", {"didemo_test_label.csv": "video_path,text\nx/a.mp4,b\ny/a.avi,c\n"}, "didemo_test_label.csv:3",
         "the video 'a' again"),
        ("didemo", {"didemo_test_label.csv": "video_path,text\na\n"}, "didemo_test_label.csv:2", "1 fields where"),
        ("didemo", {"test_data.json": MOMENTS}, "", "none of test_list.txt, ce_test_list.txt"),
        ("lsmdc", {"LSMDC16_challenge_1000_publictect.csv": "a\tb\n"}, "LSMDC16_challenge_1000_publictect.csv:1",
         "2 fields instead of 6"),
        ("teachclip-files", {}, "", "no VideoSet/test.txt"),
        ("teachclip-files", {VIDEOS: "a\n", QUERIES: "a#0\tx\n"}, "", "no Annotations/test.txt"),
        ("teachclip-files", QUERY_FILES | {VIDEOS: ""}, VIDEOS, "names no video"),
        ("teachclip-files", QUERY_FILES | {VIDEOS: "a\nb\na\n"}, VIDEOS + ":3", "the id 'a' again"),
        ("teachclip-files", QUERY_FILES | {QUERIES: "a#0\tx\nb#0 y\n"}, QUERIES + ":2", "not a query id, a tab and a"),
        ("teachclip-files", QUERY_FILES | {QUERIES: "a#0\tx\nb#0\t\n"}, QUERIES + ":2", "not a query id, a tab and a"),
        ("teachclip-files", QUERY_FILES | {QUERIES: "a#0\tx\n\na#0\ty\n"}, QUERIES + ":3",
         "a second text for query 'a#0'; the first is in line 1"),
        ("teachclip-files", QUERY_FILES | {QUERIES: b"a#0\tx\nb#0\tcaf\xe9\n"}, QUERIES + ":2", "byte 0xe9 is not UTF"),
        ("teachclip-files", QUERY_FILES | {TRUTH: "a#0 a\n"}, TRUTH + ":1", "not a query id, a tab and a video"),
        ("teachclip-files", QUERY_FILES | {TRUTH: "a#0\ta\na#0\tb\n"}, TRUTH + ":2",
         "a second video for query 'a#0'; the first is in line 1"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_one_error_with_file_and_line_or_key(
    tmp_path: Path, name: str, files: Files, where: str, what: str
) -> None:
    error = refused(tmp_path, name, files, splits=["test"])
    assert error.where == str(tmp_path / "annotations") + (f"/{where}" if where else "")
    assert what in error.what


def test_a_folder_in_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "annotations/test_list.txt").mkdir(parents=True)
    error = refused(tmp_path, "msvd", {"captions_msvd.json": {}}, splits=["test"])
    assert error.where == str(tmp_path / "annotations/test_list.txt")
    assert error.what == "the file cannot be read: Is a directory"


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        (GOOD | {"test_list.txt": "a\nb\n"}, "test_list.txt:2: 'b' has no caption in captions_msvd.json"),
        (GOOD | {"captions_msvd.json": {"a": [" "]}}, "test_list.txt:1: video 'a' has only empty captions"),
        (GOOD | {"captions_msvd.json": '{"a": ["\\ud800"]}'}, "test_list.txt:1: video 'a' has a caption with half a"),
        (GOOD | {"test_list.txt": "../a", "captions_msvd.json": {"../a": ["x"]}},
         "test_list.txt:1: video '../a' leaves the video folder (..)"),
        (GOOD | {"test_list.txt": "/a", "captions_msvd.json": {"/a": ["x"]}}, "1: video '/a' is an absolute"),
        (GOOD | {"test_list.txt": "b/a", "captions_msvd.json": {"b/a": ["x"]}}, "1: video 'b/a' holds a slash"),
        (GOOD | {"test_list.txt": "a\x07", "captions_msvd.json": {"a\x07": ["x"]}}, "holds a control character"),
    ],
)  # fmt: skip
def test_a_wrong_video_is_named(tmp_path: Path, files: Files, problem: str) -> None:
    error = refused(tmp_path, "msvd", files, splits=["test"])
    assert error.what == "1 problem in the captions"
    assert problem in error.details[0]


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({QUERIES: QUERY_FILES[QUERIES] + "lone\tx\n"}, f"{QUERIES}:4: query 'lone' has no video in {TRUTH}"),
        ({TRUTH: QUERY_FILES[TRUTH] + "lone\ta\n"}, f"{TRUTH}:4: query 'lone' is not in {QUERIES}"),
        ({VIDEOS: "a\n"}, f"{TRUTH}:2: video 'b' of query 'q 7' is not in {VIDEOS}"),
        ({VIDEOS: "a\nb\nc\n"}, f"{VIDEOS}:3: 'c' has no query in {TRUTH}"),
        ({TRUTH: "a#0\ta\nq 7\tb\nb#0\tb\t1\n"}, rf"{TRUTH}:3: video 'b\t1' of query 'b#0' is not in {VIDEOS}"),
    ],
)
def test_files_that_do_not_fit_together_are_named(tmp_path: Path, files: Files, problem: str) -> None:
    error = refused(tmp_path, "teachclip-files", QUERY_FILES | dict(files), splits=["test"])
    assert error.details[0] == problem


def test_a_video_in_two_splits_is_named(tmp_path: Path) -> None:
    files = GOOD | {"train_list.txt": "a\n", "val_list.txt": "a\n"}
    error = refused(tmp_path, "msvd", files)
    assert error.details == (
        "val_list.txt:1: video 'a' is in split 'val' here and in 'train' before",
        "test_list.txt:1: video 'a' is in split 'test' here and in 'train' before",
    )


def test_only_the_files_of_the_splits_that_are_read_are_needed(tmp_path: Path) -> None:
    found = read(tmp_path, "msvd", GOOD, splits=["test"])
    assert captions(found, "test") == {"a": ("one",)}
    error = refused(tmp_path, "msvd", GOOD)
    assert error.what == "no train_list.txt"
    assert "data.splits=[test]" in str(error.hint)


def test_blank_captions_are_left_out_and_others_keep_their_order(tmp_path: Path) -> None:
    found = read(tmp_path, "msvd", GOOD | {"captions_msvd.json": {"a": ["", " one ", "two"]}}, splits=["test"])
    assert captions(found, "test") == {"a": ("one", "two")}


KEYS = st.sampled_from(["a", "sentences", "video_id", "videoID", "caption", "enCap", "video", "description", "v_a"])
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | KEYS,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(KEYS, below, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("documents")


@settings(deadline=None, max_examples=30)
@given(DOCUMENTS)
def test_whatever_a_json_holds_it_is_read_or_refused(folder: Path, document: Any) -> None:
    for name, file in (
        ("msvd", "captions_msvd.json"),
        ("vatex", "VATEX_data.json"),
        ("activitynet", "val_1.json"),
        ("didemo", "test_data.json"),
    ):
        with suppress(DataError):
            found = read(folder, name, {"test_list.txt": "a\n", file: document}, splits=["test"])
            assert all(text.caption for text in found.texts)


@pytest.fixture(scope="session")
def count(shared: Path) -> Callable[..., dict[str, tuple[int, int]]]:
    """Videos and texts by split, of the real files."""

    def counted(name: str, *splits: str, folder: str | None = None) -> dict[str, tuple[int, int]]:
        annotations = shared / "data/annotations" / (folder or name)
        values = {"set": name, "annotations": annotations, "splits": splits, "val_fraction": 0.0}
        found = read_dataset(DataConfig.model_validate(values))
        return {split: (len(found.videos_of(split)), len(found.texts_of(split))) for split in splits}  # type: ignore[arg-type]

    return counted


def test_real_files_have_the_published_counts(count: Callable[..., dict[str, tuple[int, int]]]) -> None:
    splits = ("train", "val", "test")
    assert count("msvd", *splits) == {"train": (1200, 48_774), "val": (100, 4290), "test": (670, 27_763)}
    assert count("msrvtt-3k", "val", "test", folder="msrvtt") == {"val": (497, 9940), "test": (2990, 59_800)}
    for name in ("msrvtt-1k-9k", "msrvtt-1k-7k"):
        assert count(name, "test", folder="msrvtt") == {"test": (1000, 1000)}
    assert count("activitynet", "train", "test") == {"train": (10_009, 10_009), "test": (4917, 4917)}
    assert count("didemo", *splits) == {"train": (8362, 8362), "val": (1065, 1065), "test": (1004, 1004)}
    assert count("lsmdc", "test") == {"test": (1000, 1000)}


def test_real_lists_have_the_published_counts(shared: Path, tmp_path: Path) -> None:
    """Where captions are not at hand, they are made up: one for each video of the real lists."""
    folder = shared / "data/annotations"
    for name, source, files, expected in [
        ("vatex", "vatex", ["train_list.txt", "val_list.txt", "test_list.txt"], [25_991, 1500, 1500]),
        ("msrvtt-1k-9k", "msrvtt", ["MSRVTT_train.9k.csv", "MSRVTT_JSFUSION_test.csv"], [9000, 0, 1000]),
        ("msrvtt-1k-7k", "msrvtt", ["MSRVTT_train.7k.csv", "MSRVTT_JSFUSION_test.csv"], [7010, 0, 1000]),
        ("msrvtt-3k", "msrvtt", [f"MSRVTT_{split}.full.csv" for split in ("train", "val", "test")], [6513, 497, 2990]),
    ]:
        texts = {file: (folder / source / file).read_text() for file in files}
        ids = [line.split(",")[0] for text in texts.values() for line in text.splitlines()]
        sentences = [{"video_id": id, "caption": f"shows {id}"} for id in ids]
        table = "VATEX_data.json" if name == "vatex" else "MSRVTT_data.json"
        found = read(tmp_path / name, name, {**texts, table: {"sentences": sentences}})
        assert [len(found.videos_of(split)) for split in ("train", "val", "test")] == expected
