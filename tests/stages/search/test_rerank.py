"""A teacher re-orders what a student found: by its own scores, its features made once and kept whole."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from teachclip.cache.features import feature_files, feature_problem
from teachclip.cache.frames.cache import FrameCache
from teachclip.configs.schema import Config
from teachclip.errors import CheckpointError, TeachclipError
from teachclip.remedies import Prepare, Remedy
from teachclip.stages.models.build import build_network
from teachclip.stages.models.checkpoints.files import load_network, save_network
from teachclip.stages.models.clip.tokens import tokenize
from teachclip.stages.models.teachers.xclip import XClip
from teachclip.stages.search import rerank as rerank_module
from teachclip.stages.search.rerank import Reranker
from teachclip.stages.search.stage import open_searcher, search

QUERY = "clip number 2"


def saved(place: Any, kind: str, name: str = "", **changed: Any) -> Path:
    """A teacher's checkpoint with weights that mean nothing."""
    torch.manual_seed(3)
    settings = {"ts2net": {"shift_layers": [], "selected": 1}} if kind == "ts2net" else {}
    path: Path = place.root / "work" / "runs" / f"{name or kind}.safetensors"
    network = build_network(place.network(kind=kind, **settings, **changed))
    with torch.no_grad():
        for parameter in network.parameters():  # so that no scores are equal
            if parameter.ndim:
                parameter.add_(0.05 * torch.randn_like(parameter))
    save_network(network, path)
    return path


def own_scores(place: Any, path: Path, query: str) -> dict[str, float]:
    """Of every video, by the network itself."""
    network = load_network(path).eval()
    frames = FrameCache.open(place.config().frames_folder)
    clips = frames.read(frames.usable)
    with torch.no_grad():
        videos = network.encode_videos(torch.from_numpy(clips.frames), torch.from_numpy(clips.mask))
        scores = network.score(network.encode_texts(tokenize([query], 10)[0]), videos)[0]
    return dict(zip(frames.usable, scores.tolist(), strict=True))


@pytest.fixture
def trunk_runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many videos went through the X-CLIP teacher, batch by batch."""
    seen: list[int] = []
    encode = XClip.encode_videos

    def counting(self: XClip, frames: torch.Tensor, mask: torch.Tensor) -> Any:
        seen.append(len(frames))
        return encode(self, frames, mask)

    monkeypatch.setattr(XClip, "encode_videos", counting)
    return seen


@pytest.mark.parametrize("kind", ["xclip", "xpool", "ts2net", "drl"])
def test_the_order_is_the_teachers_own(place: Any, kind: str) -> None:
    path = saved(place, kind)
    student = {one.video: one for one in search(place.config(top=5), [QUERY]).queries[0].answers}
    result = search(place.config(top=5), [QUERY], rerank=str(path))
    answers = result.queries[0].answers
    wanted = own_scores(place, path, QUERY)
    assert [one.video for one in answers] == sorted(wanted, key=lambda video: -wanted[video])
    assert [one.rank for one in answers] == [1, 2, 3, 4, 5]
    np.testing.assert_allclose([one.teacher for one in answers], [wanted[one.video] for one in answers], atol=1e-5)
    assert [one.cosine for one in answers] == [student[one.video].cosine for one in answers]
    assert [one.path for one in answers] == [student[one.video].path for one in answers]
    assert result.rerank_seconds is not None
    assert all(one.teacher is None for one in student.values())


def test_only_candidates_are_re_ordered_and_top_are_shown(place: Any) -> None:
    path = saved(place, "xclip")
    student = [one.video for one in search(place.config(top=5), [QUERY]).queries[0].answers]
    teacher = Reranker.open(place.config(), str(path))
    teacher.candidates = 3
    wanted = own_scores(place, path, QUERY)
    with open_searcher(place.config()) as searcher:
        answers = searcher.search([QUERY, "else"], top=2, rerank=teacher).queries[0].answers
    assert [one.video for one in answers] == sorted(student[:3], key=lambda video: -wanted[video])[:2]


def test_a_teacher_is_named_as_in_the_configuration(place: Any) -> None:
    path = saved(place, "xclip")
    settings = place.config(top=5).model_dump()
    settings["score"]["teachers"] = [{"name": "heavy", "checkpoint": path}]
    config = Config.model_validate(settings)
    assert search(config, [QUERY], rerank="heavy").queries == search(config, [QUERY], rerank=str(path)).queries


def test_features_are_made_once_and_kept(place: Any, trunk_runs: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(place, "xclip")
    first = search(place.config(top=5), [QUERY], rerank=str(path))
    assert sum(trunk_runs) == 5
    trunk_runs.clear()
    assert search(place.config(top=5), [QUERY], rerank=str(path)).queries == first.queries
    search(place.config(), ["something else"], rerank=str(path))
    assert trunk_runs == []
    place.draw(place.names[0], 99)
    from teachclip.stages.prepare.stage import prepare

    prepare(place.config())
    search(place.config(), [QUERY], rerank=str(path))
    assert sum(trunk_runs) == 1  # of the video that changed
    trunk_runs.clear()
    search(place.config(), [QUERY], rerank=str(saved(place, "xclip", "other", temporal_layers=0)))
    assert sum(trunk_runs) == 5  # another teacher's features are its own
    monkeypatch.setattr(rerank_module, "MEMORY", 0)
    search(place.config(), [QUERY], rerank=str(path))
    assert sum(trunk_runs) == 5


def test_a_killed_caching_leaves_nothing_broken(place: Any, trunk_runs: list[int]) -> None:
    path = saved(place, "xclip")
    config = place.root / "own.yaml"
    from teachclip.configs.loading import dump_config

    config.write_text(dump_config(place.config(top=5)), encoding="utf-8")
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom teachclip.cache import features\n"
        "from teachclip.configs.loading import load_config\nfrom teachclip.stages.search.stage import search\n"
        "save, count = features.save_file, [0]\n"
        "def dying(arrays, path, **more):\n"
        "    count[0] += 1\n    save(arrays, path, **more)\n"
        "    if count[0] == 4: os.kill(os.getpid(), signal.SIGKILL)\n"
        "features.save_file = dying\n"
        f"search(load_config(Path(sys.argv[1])), [{QUERY!r}], rerank=sys.argv[2])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(config), str(path)], env=os.environ, timeout=200, check=False
    )
    assert ended.returncode == -signal.SIGKILL
    kept = feature_files(place.root / "work" / "rerank")
    assert len([file for file in kept if file.suffix == ".safetensors"]) == 3
    assert [feature_problem(file, every_byte=True) for file in kept] == [None] * len(kept)
    found = search(place.config(top=5), [QUERY], rerank=str(path)).queries[0].answers
    assert sum(trunk_runs) == 2
    wanted = own_scores(place, path, QUERY)
    assert [one.video for one in found] == sorted(wanted, key=lambda video: -wanted[video])


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"frames": 7}, "takes 7 frames of 32 pixels; these are 4 of 32"),
        (
            {"trunk": {"sizes": {"image_size": 48, "patch_size": 16, "vision_width": 64, "vision_layers": 1,
                                 "text_width": 64, "text_layers": 1, "embed_dim": 64, "context_length": 16},
                       "weights": None}},
            "takes 4 frames of 48 pixels; these are 4 of 32",
        ),
    ],
)  # fmt: skip
def test_a_teacher_of_other_frames_is_refused_with_what_to_do(place: Any, changed: dict[str, Any], says: str) -> None:
    path = saved(place, "xclip", **changed)
    with pytest.raises(CheckpointError, match=says) as error:
        search(place.config(), [QUERY], rerank=str(path))
    assert isinstance(error.value.hint, Remedy)
    assert isinstance(error.value.hint.action, Prepare)
    assert "prepared" in error.value.hint.advice


def test_a_teacher_of_another_trunk_has_frames_of_its_own(place: Any) -> None:
    """Its `prepared` frames may lack videos: those come behind, without a score of the teacher's."""
    from teachclip.stages.prepare.stage import prepare

    path = saved(place, "xclip", frames=2)
    settings = place.config(top=5).model_dump()
    settings["prepare"] |= {"frames": "frames2", "max_frames": 2}
    prepare(Config.model_validate(settings))
    place.add("clips/late.mp4", 50)
    prepare(place.config())
    settings = place.config(top=9).model_dump()
    settings["score"]["teachers"] = [{"name": "two", "checkpoint": path, "prepared": "frames2"}]
    answers = search(Config.model_validate(settings), [QUERY], rerank="two").queries[0].answers
    assert len(answers) == 6
    assert (answers[-1].video, answers[-1].teacher) == ("clips/late.mp4", None)
    scores = [one.teacher for one in answers[:-1]]
    assert scores == sorted(scores, key=lambda score: -(score or 0))


def test_what_is_no_teacher_is_said(place: Any) -> None:
    with pytest.raises(CheckpointError, match="'nobody' is neither a teacher in "):
        search(place.config(), [QUERY], rerank="nobody")
    (place.root / "text.safetensors").write_text("text")
    with pytest.raises(TeachclipError, match="damaged"):
        search(place.config(), [QUERY], rerank=str(place.root / "text.safetensors"))
