"""One interface, pairs -> labels of several teachers, and its two makers: this process, and one of its own."""

import os
import pickle
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from teachclip.cache.scores.lookup import Held
from teachclip.cache.scores.reading.label_process import LabelProcess
from teachclip.cache.scores.reading.label_threads import LabelThreads
from teachclip.cache.scores.reading.labels import Labels, LabelSource
from teachclip.cache.scores.reading.reader import ScoreReader
from teachclip.cache.scores.shard import write_shard
from teachclip.cache.scores.store import ScoreStore
from teachclip.cache.scores.tile import TileContents
from teachclip.errors import CacheError, TrainingError

type Make = Callable[[Sequence[ScoreReader]], LabelSource]

TEXTS, VIDEOS = np.array([20, 3, 8, 3, 0]), np.array([1, 12, 5])
SCALES = (100.0, 0.3)


@pytest.fixture(params=["threads", "process"])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Makes a source of labels, of either kind; all end with the test."""
    processes: list[LabelProcess] = []

    def process(readers: Sequence[ScoreReader]) -> LabelSource:
        processes.append(LabelProcess(readers))
        return processes[-1]

    yield LabelThreads if request.param == "threads" else process
    for one in processes:
        one.close()


class Stored:
    """A teacher with known scores [T,V] and frame-text logits [T,F], in one tile or in two blocks."""

    def __init__(self, path: Any, scale: float, dtype: str = "float32", frame_logits: bool = True, blocks: int = 1):
        rng = np.random.default_rng(len(path.name))
        self.scale = scale
        self.coarse = rng.normal(0.3, 0.05, (24, 12)).astype(np.float32)
        self.fine = rng.normal(0.2, 0.05, (24, 4)).astype(np.float32) if frame_logits else None
        self.own = np.arange(24) // 2
        texts = [(f"t{k}", bytes([k] * 16)) for k in range(24)]
        videos = [(f"v{k}", bytes([k] * 16)) for k in range(12)]
        cache = ScoreStore.create(path).create_teacher("one", {"name": path.name}, scale, dtype, 4, frame_logits)
        for block, rows in enumerate(np.split(np.arange(24), blocks)):
            columns = np.split(np.arange(12), blocks)[block]
            own = self.own[rows] - columns[0]
            contents = TileContents(
                texts[rows[0] : rows[-1] + 1], videos[columns[0] : columns[-1] + 1], own, times(columns)
            )
            tile = cache.create_tile(f"b{block}", contents, shard_texts=len(rows))
            write_shard(tile, 0, self.coarse[np.ix_(rows, columns)], None if self.fine is None else self.fine[rows])
        self.reader = ScoreStore.open(path).teacher("one").reader(texts, videos)

    def expect(self, labels: Labels[np.ndarray], texts: np.ndarray, videos: np.ndarray) -> None:
        """Assert that these are the labels of a batch, bit for bit."""
        np.testing.assert_array_equal(labels.coarse, self.coarse[np.ix_(texts, videos)])
        assert labels.coarse.dtype == np.float32
        assert labels.scale == self.scale
        np.testing.assert_array_equal(labels.logits, self.coarse[np.ix_(texts, videos)] * np.float32(self.scale))
        if self.fine is None:
            assert labels.frame_logits is None
        else:
            np.testing.assert_array_equal(labels.frame_logits, self.fine[texts])


def times(columns: np.ndarray) -> np.ndarray:
    return np.tile(np.arange(4.0), (len(columns), 1))


def test_labels_of_several_teachers_with_the_scale_of_each(make: Make, tmp_path: Any) -> None:
    teachers = [Stored(tmp_path / "a.zarr", SCALES[0]), Stored(tmp_path / "bb.zarr", SCALES[1], frame_logits=False)]
    source = make([teacher.reader for teacher in teachers])
    for texts, videos in ((np.array([20, 3, 8, 3, 0]), np.array([1, 11, 5])), (np.arange(24), np.arange(12))):
        found = source.start(texts, videos).result()
        assert len(found) == 2
        for teacher, labels in zip(teachers, found, strict=True):
            teacher.expect(labels, texts, videos)


@pytest.mark.parametrize("frame_logits", [True, False])
def test_labels_within_blocks_and_a_pair_between_them(make: Make, tmp_path: Any, frame_logits: bool) -> None:
    teacher = Stored(tmp_path / "a.zarr", 50.0, frame_logits=frame_logits, blocks=2)
    assert teacher.reader.groups is not None
    source = make([teacher.reader])
    for texts, videos in ((np.array([3, 11, 0]), np.array([5, 0])), (np.array([23, 12]), np.array([6, 11, 7]))):
        teacher.expect(source.start(texts, videos).result()[0], texts, videos)
    with pytest.raises(CacheError, match="1 pair of this batch has no score, t3 with v7 for one") as error:
        source.start(np.array([3]), np.array([0, 7])).result()
    assert "groups" in (error.value.hint or "")
    teacher.expect(source.start(np.array([0]), np.array([0])).result()[0], np.array([0]), np.array([0]))


@pytest.mark.parametrize("dtype", ["uint16", "float16"])
def test_stored_types_are_decoded_alike(make: Make, make_store: Any, dtype: str) -> None:
    made = make_store(dtype=dtype)
    reader = made.cache.reader(made.texts, made.videos)
    (labels,) = make([reader]).start(TEXTS, VIDEOS).result()
    whole = reader.read(np.arange(21), np.arange(13))
    np.testing.assert_array_equal(labels.coarse, whole.coarse[np.ix_(TEXTS, VIDEOS)])
    np.testing.assert_allclose(labels.coarse, made.coarse[np.ix_(TEXTS, VIDEOS)], atol=2e-4, rtol=0)
    np.testing.assert_array_equal(labels.frame_logits, made.fine[TEXTS])


def test_carried_frame_logits_replace_the_readers_own_or_are_left_out(make: Make, make_store: Any) -> None:
    made = make_store()
    reader = made.cache.reader(made.texts, made.videos)
    carried = np.random.default_rng(0).random((21, 3), np.float32)
    readers = [reader, reader.with_frame_logits(carried), reader.with_frame_logits(None)]
    own, other, none = make(readers).start(TEXTS, VIDEOS).result()
    np.testing.assert_array_equal(own.frame_logits, made.fine[TEXTS])
    np.testing.assert_array_equal(other.frame_logits, carried[TEXTS])
    assert none.frame_logits is None
    for labels in (other, none):
        np.testing.assert_array_equal(labels.coarse, own.coarse)
        assert labels.scale == own.scale == 100.0


def test_damage_is_told_by_shard_with_the_result(make: Make, make_store: Any) -> None:
    made = make_store()
    source = make([made.cache.reader(made.texts, made.videos)])
    (made.tile.folder / "coarse/c.1.0").unlink()
    begun = source.start(np.arange(8, 16), VIDEOS)
    with pytest.raises(CacheError, match="shard 1"):
        begun.result()
    assert len(source.start(np.array([1, 20]), VIDEOS).result()) == 1


def test_what_was_begun_before_is_dropped(make: Make, make_store: Any) -> None:
    made = make_store()
    reader = made.cache.reader(made.texts, made.videos)
    source = make([reader])
    source.start(np.arange(21), np.arange(13))
    (labels,) = source.start(TEXTS, VIDEOS).result()
    np.testing.assert_array_equal(labels.coarse, reader.read(TEXTS, VIDEOS).coarse)


def test_without_teachers_there_are_no_labels() -> None:
    assert LabelThreads([]).start(TEXTS, VIDEOS).result() == []


def test_what_is_sent_is_the_same_on_the_other_side(make_store: Any) -> None:
    """Nothing is left out on the way, and none of the ids, digests and times that reading rows does not take."""
    reader = made_reader(make_store)
    sent = pickle.dumps(reader.requested)
    arrived = pickle.loads(sent)  # noqa: S301, our own
    assert b"clips/v0.mp4" not in sent
    assert arrived.texts == reader.requested.texts
    for theirs, ours in zip(arrived.parts, reader.requested.parts, strict=True):
        assert vars(theirs).keys() == vars(ours).keys()
        assert vars(theirs.tile) == vars(ours.tile)
        for name in ("texts", "rows", "videos", "columns", "codec"):
            np.testing.assert_array_equal(getattr(theirs, name), getattr(ours, name))
    assert not any(isinstance(value, Held) for part in arrived.parts for value in vars(part).values())


def made_reader(make_store: Any) -> ScoreReader:
    made = make_store()
    reader: ScoreReader = made.cache.reader(made.texts, made.videos)
    return reader


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def read_for_ever(source: LabelSource) -> None:
    while True:
        source.start(TEXTS, VIDEOS).result()


def test_ctrl_c_in_the_middle_leaves_nothing_behind(make_store: Any) -> None:
    """A signal's handler raises wherever the reading is just then; the source that is in use ends, and is not used."""
    reader = made_reader(make_store)
    before = signal.signal(signal.SIGALRM, interrupted)
    try:
        for delay in (0.01, 0.4):  # while the process starts, and while it answers
            process = LabelProcess([reader])
            for source in (process, LabelThreads([reader])):
                signal.setitimer(signal.ITIMER_REAL, delay)
                with pytest.raises(KeyboardInterrupt):
                    read_for_ever(source)
            process.close()
            with pytest.raises(ProcessLookupError):
                os.kill(process.pid, 0)
            with pytest.raises(TrainingError):
                process.start(TEXTS, VIDEOS)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_killed_process_is_told_and_the_other_maker_goes_on(make_store: Any) -> None:
    reader = made_reader(make_store)
    with LabelProcess([reader]) as process:
        process.start(TEXTS, VIDEOS).result()
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(TrainingError, match="killed: SIGKILL"):
            process.start(TEXTS, VIDEOS).result()
    assert len(LabelThreads([reader]).start(TEXTS, VIDEOS).result()) == 1


def test_both_arrays_are_changed_and_the_scale_stays() -> None:
    labels = Labels(np.ones((2, 3), np.float32), np.full((2, 4), 2.0, np.float32), 7.0)
    doubled = labels.map(lambda array: 2 * array)
    np.testing.assert_array_equal(doubled.coarse, np.full((2, 3), 2.0))
    np.testing.assert_array_equal(doubled.frame_logits, np.full((2, 4), 4.0))
    assert doubled.scale == 7.0
    assert Labels(labels.coarse, None, 7.0).map(np.negative).frame_logits is None
