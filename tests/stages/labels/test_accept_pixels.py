"""`train.accept: [pixels]`: a cache of the same data set prepared elsewhere teaches; nothing but pixels may differ."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from teachclip.errors import CacheMismatchError
from teachclip.remedies import AcceptPixels
from teachclip.stages.demo.write_h264 import write_h264
from teachclip.stages.labels.denoise import denoise
from teachclip.stages.prepare.stage import prepare
from teachclip.stages.runtime.reporting import Silent
from teachclip.stages.train.stage import train

type Elsewhere = Callable[..., Any]

TAUGHT = {"run": "runs/taught", "teachers": ["xclip"], "max_steps": 2}


class Heard(Silent):
    """A reporter that remembers its warnings."""

    def __init__(self) -> None:
        self.warned: list[str] = []

    def warn(self, message: str) -> None:
        self.warned.append(message)


@pytest.fixture
def elsewhere(world: Any, tmp_path: Path) -> Elsewhere:
    """The world's captions and scores, its clips rendered darker and prepared again; `frames(k)` says how many frames
    clip k has, by default as many as before."""

    def make(frames: Callable[[int], int] = lambda k: 3 + k % 3, **prepared: Any) -> Any:
        root = tmp_path / "elsewhere"
        shutil.copytree(world.root, root, ignore=shutil.ignore_patterns("frames", "runs", "exact.zarr"))
        for k in range(24):
            video = np.full((frames(k), 64, 64, 3), 40 + 4 * k, np.uint8)
            video[:, k : k + 16, 8:24] = (30, 160, 90)
            write_h264(root / f"clips/{k:02d}.mp4", video, fps=1)
        made = type(world)(root)
        prepare(made.config(prepare=dict(prepared)))
        return made

    return make


def run_facts(config: Any) -> dict[str, Any]:
    return json.loads((config.run_folder / "run.json").read_text())


def test_other_pixels_are_refused_and_the_refusal_names_the_option(elsewhere: Elsewhere) -> None:
    with pytest.raises(CacheMismatchError, match="frames changed") as caught:
        train(elsewhere().config(train=dict(TAUGHT)))
    assert caught.value.hint.otherwise.action == AcceptPixels()


def test_other_pixels_are_accepted_said_and_recorded(elsewhere: Elsewhere) -> None:
    made = elsewhere()
    config, heard = made.config(train={**TAUGHT, "accept": ["pixels"]}), Heard()
    result = train(config, heard)
    assert result.other_pixels == {"xclip": 14}
    assert "xclip: scores of other pixels are accepted for 14 of 14 videos" in heard.warned
    assert run_facts(config)["data.pixels that xclip saw"].endswith(", other than here in 14 videos")
    assert json.loads((config.run_folder / "result.json").read_text())["other_pixels"] == {"xclip": 14}
    again = train(config)
    assert again.already_done
    assert again.other_pixels == {"xclip": 14}
    with pytest.raises(CacheMismatchError, match="frames changed"):
        train(made.config(train=dict(TAUGHT)))


def test_where_nothing_differs_accepting_changes_nothing(world: Any) -> None:
    plain = world.config(train={**TAUGHT, "run": "runs/not-accepted"})
    accepting = world.config(train={**TAUGHT, "run": "runs/accepting", "accept": ["pixels"]})
    heard = Heard()
    assert train(plain).other_pixels == train(accepting, heard).other_pixels == {}
    assert run_facts(plain) == run_facts(accepting)
    assert not [line for line in heard.warned if "pixels" in line]


def test_other_moments_are_never_accepted(elsewhere: Elsewhere) -> None:
    made = elsewhere(lambda k: 3 + (k + (k == 5)) % 3)  # clip 5 has three frames, where it had five
    with pytest.raises(CacheMismatchError, match="frames of 1 video are of other moments") as caught:
        train(made.config(train={**TAUGHT, "accept": ["pixels"]}))
    assert list(caught.value.details) == ["clips/05.mp4"]


def test_frames_that_were_chosen_otherwise_are_never_accepted(elsewhere: Elsewhere) -> None:
    made = elsewhere(choice="head")
    with pytest.raises(CacheMismatchError, match=r"made from something else \(prepare.choice\)"):
        train(made.config(prepare={"choice": "head"}, train={**TAUGHT, "accept": ["pixels"]}))


def test_other_captions_are_never_accepted(elsewhere: Elsewhere) -> None:
    made = elsewhere()
    captions = made.root / "captions.csv"
    captions.write_text(captions.read_text().replace("a red square at the left", "a red square to the left"))
    with pytest.raises(CacheMismatchError, match="captions changed"):
        train(made.config(train={**TAUGHT, "accept": ["pixels"]}))


def test_denoising_reads_such_a_cache_too(elsewhere: Elsewhere) -> None:
    made = elsewhere()
    settings = {"denoise": {"teachers": ["xclip"], "keep": 7}}
    with pytest.raises(CacheMismatchError, match="frames changed"):
        denoise(made.config(**settings))
    heard = Heard()
    assert denoise(made.config(**settings, train={"accept": ["pixels"]}), heard).texts == 28
    assert any("other pixels are accepted" in line for line in heard.warned)
