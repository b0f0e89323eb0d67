"""From frames to answers: what is indexed, what is found, what is refused."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from teachclip.cache.vectors import read_vectors
from teachclip.configs.schema import Config
from teachclip.errors import CacheError, CheckpointError, DataError, TeachclipError
from teachclip.remedies import DeleteFolder, Prepare
from teachclip.stages.models.build import build_network
from teachclip.stages.models.checkpoints.files import save_network
from teachclip.stages.prepare.stage import prepare
from teachclip.stages.search import index as index_stage
from teachclip.stages.search.index import index
from teachclip.stages.search.stage import search


def test_answers_are_the_networks_own_cosines_of_every_split(place: Any) -> None:
    made = index(place.config())
    assert (made.videos, made.added, made.kept, made.removed, made.width) == (5, 5, 0, 0, 64)
    assert made.index == str(place.config().index_folder)
    result = search(place.config(top=3), ["clip number 2", "something else"])
    assert [found.query for found in result.queries] == ["clip number 2", "something else"]
    for found in result.queries:
        answers = found.answers
        wanted = sorted(place.exact(found.query).items(), key=lambda item: -item[1])[:3]
        assert [answer.video for answer in answers] == [video for video, _ in wanted]
        assert [answer.rank for answer in answers] == [1, 2, 3]
        # float16 storage: half a unit in the last place of each coordinate
        np.testing.assert_allclose([answer.cosine for answer in answers], [c for _, c in wanted], atol=5e-4)
        assert all(Path(answer.path).is_file() for answer in answers)


def test_top_larger_than_the_collection_gives_all(place: Any) -> None:
    index(place.config())
    (found,) = search(place.config(top=50), ["a"]).queries
    answers = found.answers
    assert {answer.video for answer in answers} == set(place.names)


def test_run_again_encodes_nothing(place: Any) -> None:
    index(place.config())
    before = {path: os.stat(path).st_mtime_ns for path in place.config().index_folder.iterdir()}
    again = index(place.config())
    assert (again.added, again.kept, again.removed, again.remade) == (0, 5, 0, None)
    assert {path: os.stat(path).st_mtime_ns for path in place.config().index_folder.iterdir()} == before


def test_new_videos_are_added_and_gone_ones_leave(place: Any) -> None:
    index(place.config())
    first = read_vectors(place.config().index_folder)
    assert first is not None
    text = (place.root / "own/captions.csv").read_text().splitlines(keepends=True)
    (place.root / "own/captions.csv").write_text("".join([text[0], *text[2:]]))  # the first clip leaves
    place.add("clips/new.mp4", 77)
    config = place.config()
    fresh = config.model_copy(update={"prepare": config.prepare.model_copy(update={"frames": Path("frames2")})})
    prepare(fresh)
    made = index(fresh)
    assert (made.videos, made.added, made.kept, made.removed, made.remade) == (5, 1, 4, 1, None)
    second = read_vectors(config.index_folder)
    assert second is not None
    assert second.videos[-1] == "clips/new.mp4"
    np.testing.assert_array_equal(second.matrix[:4], first.matrix[1:])


def test_a_clip_whose_frames_changed_gets_another_vector(place: Any) -> None:
    index(place.config())
    before = read_vectors(place.config().index_folder)
    changed = place.names[1]
    place.draw(changed, 99)
    assert prepare(place.config()).decoded
    made = index(place.config())
    assert (made.videos, made.added, made.kept, made.removed, made.remade) == (5, 1, 4, 0, None)
    after = read_vectors(place.config().index_folder)
    assert before is not None
    assert after is not None
    rows = dict(zip(after.videos, after.matrix, strict=True))
    for video, old in zip(before.videos, before.matrix, strict=True):
        assert np.array_equal(rows[video], old) == (video != changed), video
    (found,) = search(place.config(top=5), ["clip number 1"]).queries
    wanted = place.exact("clip number 1")
    for answer in found.answers:
        assert answer.cosine == pytest.approx(wanted[answer.video], abs=5e-4)


def test_another_model_remakes_every_vector_and_says_so(place: Any, heard: Any) -> None:
    index(place.config())
    place.student("b", 2)
    made = index(place.config(run="runs/b"), heard)
    assert (made.added, made.kept, made.remade) == (5, 0, "the model")
    assert any("the model changed" in message for message in heard.infos)
    (found,) = search(place.config(run="runs/b", top=1), ["clip number 2"]).queries
    answers = found.answers
    wanted = place.exact("clip number 2", "b")
    assert answers[0].video == max(wanted, key=wanted.__getitem__)


def test_killed_while_encoding_keeps_what_was_published(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_stage, "VIDEOS_AT_ONCE", 2)
    monkeypatch.setattr(index_stage, "SAVE_SECONDS", 0.0)
    read, calls = index_stage.FrameInputs.read, []

    def killed(self: Any, rows: np.ndarray) -> Any:
        calls.append(len(rows))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return read(self, rows)

    monkeypatch.setattr(index_stage.FrameInputs, "read", killed)
    with pytest.raises(KeyboardInterrupt):
        index(place.config())
    monkeypatch.undo()
    made = index(place.config())
    assert (made.kept, made.added, made.videos) == (4, 1, 5)


def test_vectors_that_cannot_be_kept_answer_all_the_same(
    place: Any, heard: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = search(place.config(index="kept"), ["a red clip"]).queries

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(index_stage, "publish_vectors", refuse)
    monkeypatch.setattr(index_stage, "SAVE_SECONDS", -1.0)
    assert search(place.config(), ["a red clip"], heard).queries == expected
    (told,) = heard.warnings
    assert told.startswith(f"{place.config().index_folder}: the vectors are not kept")
    assert told.endswith("Read-only file system")
    with pytest.raises(OSError, match="Read-only"):  # who asks for the index alone has nothing without it
        index(place.config())


def test_mean_pooling_searches_too(place: Any) -> None:
    place.student("mean", 3, pooling="mean")
    index(place.config(run="runs/mean"))
    assert len(search(place.config(run="runs/mean"), ["a"]).queries[0].answers) == 5


@pytest.mark.parametrize("ask", [index, lambda config: search(config, ["a"])])
def test_a_teacher_is_refused(place: Any, ask: Callable[[Config], Any]) -> None:
    place.student("teacher", 4, kind="xclip")
    with pytest.raises(CheckpointError, match="no single vector per video") as caught:
        ask(place.config(run="runs/teacher"))
    assert "search.run" in str(caught.value.hint)


@pytest.mark.parametrize("queries", [[], [""], ["fine", "  \n"]])
def test_empty_sentences_are_refused(place: Any, queries: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        search(place.config(), queries)
    if len(queries) > 1:
        assert "sentence 2" in str(caught.value)


@pytest.mark.parametrize("ask", [index, lambda config: search(config, ["a"])])
def test_without_frames_it_says_what_to_do(place: Any, ask: Callable[[Config], Any]) -> None:
    config = place.config()
    elsewhere = config.model_copy(update={"prepare": config.prepare.model_copy(update={"frames": Path("none")})})
    with pytest.raises(TeachclipError) as caught:
        ask(elsewhere)
    assert caught.value.hint.action == Prepare()


def test_vectors_that_are_not_finite_are_refused_with_the_videos(place: Any) -> None:
    network = build_network(place.network())
    with torch.no_grad():
        next(parameter for name, parameter in network.named_parameters() if "afa" in name).fill_(1e38)
    save_network(network, place.root / "work/runs/a/best.safetensors")
    with pytest.raises(TeachclipError, match="not finite") as caught:
        index(place.config())
    assert place.names[0] in str(caught.value)
    assert read_vectors(place.config().index_folder) is None


def test_damaged_index_is_refused(place: Any) -> None:
    index(place.config())
    (path,) = place.config().index_folder.glob("*.npy")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CacheError, match="damaged") as caught:
        search(place.config(), ["a"])
    assert caught.value.hint.action == DeleteFolder(str(place.config().index_folder))


def test_a_sentence_that_is_cut_is_announced(place: Any, heard: Any) -> None:
    search(
        place.config(),
        ["one two three four five six seven eight", "one two three four five six seven eight nine"],
        heard,
    )
    assert len(heard.warnings) == 1
    assert "nine" in heard.warnings[0]
