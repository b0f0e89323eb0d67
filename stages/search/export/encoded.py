"""Sentences and videos -> a file of vectors, by the student or plain CLIP that is named."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import batched
from pathlib import Path
from typing import BinaryIO

from ....cache.frames.record import VideoStatus
from ....errors import DataError, printable
from ...runtime.reporting import Reporter, Silent
from ..encoder import Encoder, load
from ..library.files import find_files
from ..questions import questions, refuse_empty
from .files import form_of, vector_file

_TEXTS, _VIDEOS = 5_120, 512  # that are encoded between one writing and the next


@dataclass(frozen=True)
class Encoded:
    """What was written.

    Attributes:
        out: the file; model: what made the vectors, in words; width: numbers per vector.
        vectors: rows written.
        left_out: videos that cannot be used.
    """

    out: str
    model: str
    width: int
    vectors: int
    left_out: tuple[VideoStatus, ...]
    seconds: float


def encode_texts(
    words: Sequence[str], model: str, out: Path, reporter: Reporter | None = None, stdin: BinaryIO | None = None
) -> Encoded:
    """Write a unit vector [D] of every sentence.

    Args:
        words: sentences; `@FILE` and `-` stand for one a line.
        model: as `teachclip.load` has it.
        out: a file, its form by its ending, complete or absent.
        stdin: what `-` reads.

    Raises:
        ConfigError: the file's ending is none that is known, or the model's name is no model's.
        DataError: there is no sentence, or a video among them; a list cannot be read.
        CheckpointError: the model cannot be loaded, or is a teacher.
    """
    reporter, began = reporter or Silent(), time.perf_counter()
    form_of(out)
    sentences = _sentences(words, stdin)
    student = load(model, reporter=reporter)
    width = student.get_sentence_embedding_dimension()
    with (
        vector_file(out, width, _about(student)) as file,
        reporter.progress("sentences", len(sentences), "sentence") as progress,
    ):
        for part in batched(sentences, _TEXTS):
            file.add([{"text": printable(sentence)} for sentence in part], student.encode_texts(part))
            progress.advance(len(part))
    return Encoded(str(out), student.description, width, len(sentences), (), time.perf_counter() - began)


def encode_videos(
    videos: Sequence[str],
    model: str,
    out: Path,
    workers: int = 0,
    reporter: Reporter | None = None,
    stdin: BinaryIO | None = None,
) -> Encoded:
    """Write one unit vector [D] of every video that can be used.

    Args:
        videos: folders, files, patterns, `@LIST` or `-`, as `find_files` has them.
        workers: decoding processes, 0 for one a core.
        model, out, stdin: as `encode_texts` has them.

    Raises:
        As `encode_texts`; DataError: there is no video, or none that can be used.
    """
    reporter, began = reporter or Silent(), time.perf_counter()
    form_of(out)
    found = find_files(videos, stdin)
    found.tell(reporter)
    student = load(model, reporter=reporter)
    width, left_out, written = student.get_sentence_embedding_dimension(), [], 0
    with (
        vector_file(out, width, _about(student)) as file,
        reporter.progress("videos", len(found.files), "video") as progress,
    ):
        for part in batched(found.files, _VIDEOS):
            made = student.encode_videos(part, on_error="report", workers=workers)
            left_out += [status for status in made.statuses if status.status != "ok"]
            if made.paths:
                file.add([{"path": printable(str(path))} for path in made.paths], made.vectors)  # type: ignore[arg-type]
            written += len(made.paths)
            progress.advance(len(part))
        if not written:
            reasons = [f"{each.video}: {each.status}, {each.reason}" for each in left_out[:20]]
            raise DataError("none of these videos can be used", details=reasons)
    return Encoded(str(out), student.description, width, written, tuple(left_out), time.perf_counter() - began)


def _sentences(words: Sequence[str], stdin: BinaryIO | None) -> list[str]:
    asked = questions(words, stdin)
    if video := next((each for each in asked if isinstance(each, Path)), None):
        raise DataError("this is a video, and sentences are encoded", where=str(video), hint="encode videos as such")
    refuse_empty(asked)
    return [str(each) for each in asked]


def _about(student: Encoder) -> dict[str, object]:
    return {"model": student.description, "digest": student.digest, "metric": "dot product of unit vectors"}
