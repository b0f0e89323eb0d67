"""The published data sets: which files say what (specs/teachclip.md section 8; docs/guide/data.md)."""

import posixpath
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ....configs.published_sets import PUBLISHED, Needed, SetName, SplitName
from ....errors import DataError
from .annotated_video import AnnotatedVideo, Annotations
from .csv_rows import csv_rows, header_of
from .id_lists import column_of, read_list
from .text_files import blank, json_of, kind_of, list_of, text_of
from .video_folder import VIDEO_SUFFIXES

SetReader = Callable[[Annotations, SplitName], Sequence[AnnotatedVideo]]


def read_published_set(name: SetName, annotations: Annotations, split: SplitName) -> Sequence[AnnotatedVideo]:
    """The clips of one split, in the order of its list; none when the data set has no such split.

    What is wrong with single clips goes to `annotations.problem`.

    Raises:
        DataError: a file is not there, or cannot be read; names file and line or key.
    """
    return READERS[name](annotations, split) if split in PUBLISHED[name].splits else ()


def _listed(name: SetName, annotations: Annotations, split: SplitName) -> Sequence[AnnotatedVideo]:
    """A list of ids for the split; captions from the list itself, else from tables of captions by id."""
    names, tables = (needed.names for needed in _needed(name, split))
    listed = read_list(annotations.file(*names))
    if not listed.captions:
        return annotations.captioned(listed.clips, split, tables)
    return [AnnotatedVideo(id, split, listed.captions[id], where) for id, where in listed.clips]


def _msrvtt_1k(name: SetName, annotations: Annotations, split: SplitName) -> Sequence[AnnotatedVideo]:
    """The test file brings its one caption a video."""
    if split == "train":
        return _listed(name, annotations, split)
    path = annotations.file(*_needed(name, split)[0].names)
    listed = read_list(path)
    if not listed.captions:
        raise DataError("no column sentence", where=f"{path}:1")
    return [AnnotatedVideo(id, split, listed.captions[id], where) for id, where in listed.clips]


def _activitynet(annotations: Annotations, split: SplitName) -> list[AnnotatedVideo]:
    """All sentences of a video are one text. The captions say which videos there are: 10,009 and 4,917 as in the
    paper; of the lists that go with them (train_ids.json, val_ids.json), 15 and 9 ids have no captions."""
    path = annotations.file(*_needed("activitynet", split)[0].names)
    document = json_of(path)
    if not isinstance(document, dict) or not document:
        raise DataError(f"holds {kind_of(document)}, not videos by id", where=str(path))
    return [
        AnnotatedVideo(
            id, split, _paragraph(_sentences(entry, path, id)), f"{path.name}: {id}", (id.removeprefix("v_"),)
        )
        for id, entry in document.items()
    ]


def _sentences(entry: Any, path: Path, id: str) -> list[str]:
    sentences = entry.get("sentences") if isinstance(entry, dict) else None
    if not isinstance(sentences, list) or not all(isinstance(sentence, str) for sentence in sentences):
        raise DataError('has no "sentences", a list of strings', where=f"{path}: {id}")
    return sentences


def _paragraph(sentences: Sequence[str]) -> tuple[str]:
    return (" ".join(sentence.strip() for sentence in sentences if not blank(sentence)),)


def _didemo(annotations: Annotations, split: SplitName) -> list[AnnotatedVideo]:
    """All descriptions of a video, in file order, are one text.

    Files differ in a name's extension (some have none but the dot), so the id is the name without it.
    """
    lists, captions = (needed.names for needed in _needed("didemo", split))
    path = annotations.file(*captions)
    texts = _didemo_labels(path) if path.suffix == ".csv" else _didemo_moments(path)
    if path.suffix == ".csv":  # some clips short of the list, which is why it stands for itself
        return [AnnotatedVideo(id, split, _paragraph(found), f"{path.name}: {id}") for id, found in texts.items()]
    listed = annotations.file(*lists)
    clips = []
    for number, name in list_of(listed):
        id, where = _without_suffix(name), f"{listed.name}:{number}"
        if id not in texts:
            annotations.problem(f"{where}: {name!r} has no description in {path.name}")
        clips.append(AnnotatedVideo(id, split, _paragraph(texts[id]) if id in texts else (), where))
    return clips


def _didemo_moments(path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    document = json_of(path)
    if not isinstance(document, list):
        raise DataError(f"holds {kind_of(document)}, not a list of moments", where=str(path))
    for number, moment in enumerate(document):
        moment = moment if isinstance(moment, dict) else {}
        video, description = moment.get("video"), moment.get("description")
        if not isinstance(video, str) or not isinstance(description, str):
            raise DataError('has no "video" or no "description"', where=f"{path}: [{number}]")
        found[_without_suffix(video)].append(description)
    return found


def _didemo_labels(path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    rows = csv_rows(text_of(path), path)
    first, names = header_of(rows)
    video, text = (column_of(names, name, f"{path}:{first}") for name in ("video_path", "text"))
    for line, fields in rows:
        if len(fields) != len(names):
            raise DataError(f"{len(fields)} fields where the header names {len(names)}", where=f"{path}:{line}")
        id = _without_suffix(posixpath.basename(fields[video]))
        if id in found:
            raise DataError(f"the video {id!r} again", where=f"{path}:{line}")
        found[id] = [fields[text]]
    return found


def _without_suffix(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and (not suffix or suffix.lower() in VIDEO_SUFFIXES) else name


def _lsmdc(annotations: Annotations, split: SplitName) -> list[AnnotatedVideo]:
    """Six fields a line, separated by tabs, without a header: the clip first, its sentence last."""
    path = annotations.file(*_needed("lsmdc", split)[0].names)
    sentences: dict[str, list[str]] = defaultdict(list)
    where: dict[str, str] = {}
    for number, line in list_of(path):
        fields = line.split("\t")
        if len(fields) != 6:
            raise DataError(f"{len(fields)} fields instead of 6 between tabs", where=f"{path}:{number}")
        where.setdefault(fields[0], f"{path.name}:{number}")
        sentences[fields[0]].append(fields[5].strip())
    return [AnnotatedVideo(id, split, tuple(sentences[id]), place) for id, place in where.items()]


def _teachclip_files(annotations: Annotations, split: SplitName) -> list[AnnotatedVideo]:
    """The videos, in their order; their queries in that of the ground truth, whose lines need not be grouped."""
    videos, queries, truth = (needed.names[0] for needed in _needed("teachclip-files", split))
    listed = read_list(annotations.file(videos)).where
    texts, answers = _by_query(annotations, queries, "text"), _by_query(annotations, truth, "video")
    captions: dict[str, list[str]] = {video: [] for _, video in answers.values()}
    for query, (line, video) in answers.items():
        if video not in listed:
            annotations.problem(f"{truth}:{line}: video {video!r} of query {query!r} is not in {videos}")
        if query in texts:
            captions[video].append(texts[query][1])
        else:
            annotations.problem(f"{truth}:{line}: query {query!r} is not in {queries}")
    for query, (line, _) in texts.items():
        if query not in answers:
            annotations.problem(f"{queries}:{line}: query {query!r} has no video in {truth}")
    clips = []
    for id, where in listed.items():
        where = f"{posixpath.dirname(videos)}/{where}"
        if id not in captions:
            annotations.problem(f"{where}: {id!r} has no query in {truth}")
        clips.append(AnnotatedVideo(id, split, tuple(captions.get(id, ())), where))
    return clips


def _by_query(annotations: Annotations, name: str, what: str) -> dict[str, tuple[int, str]]:
    """The lines of query id, tab and `what`: each query's line number and `what`."""
    path = annotations.file(name)
    found: dict[str, tuple[int, str]] = {}
    for number, line in list_of(path):
        query, tab, rest = line.partition("\t")
        if not tab:
            raise DataError(f"not a query id, a tab and a {what}", where=f"{path}:{number}")
        if query in found:
            raise DataError(
                f"a second {what} for query {query!r}; the first is in line {found[query][0]}",
                where=f"{path}:{number}",
                hint="a query has one text and one video: one line in each file",
            )
        found[query] = number, rest.strip()
    return found


def _needed(name: SetName, split: SplitName) -> list[Needed]:
    return [needed for needed in PUBLISHED[name].needed if split in needed.splits]


READERS: dict[SetName, SetReader] = {
    "msrvtt-1k-9k": partial(_msrvtt_1k, "msrvtt-1k-9k"),
    "msrvtt-1k-7k": partial(_msrvtt_1k, "msrvtt-1k-7k"),
    "msrvtt-3k": partial(_listed, "msrvtt-3k"),
    "msvd": partial(_listed, "msvd"),
    "vatex": partial(_listed, "vatex"),
    "activitynet": _activitynet,
    "didemo": _didemo,
    "lsmdc": _lsmdc,
    "teachclip-files": _teachclip_files,
}
