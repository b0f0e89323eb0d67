"""The demo's data set: the same files from the same seed, stopped or not; captions that say what is to be seen."""

import csv
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file
from teachclip.cache import training_state
from teachclip.configs.schema import PrepareConfig, ShapesConfig, TrunkConfig, TrunkSizes
from teachclip.errors import CacheMismatchError
from teachclip.stages.data.video.decode import read_video
from teachclip.stages.demo import pretrain as pretraining
from teachclip.stages.demo.drawing import COLOURS, SHAPES
from teachclip.stages.demo.pretrain import pretrain
from teachclip.stages.demo.render import render
from teachclip.stages.demo.shapes import CAPTIONS, FRAMES, HELD_OUT, WORDS, make_clip, make_picture
from teachclip.stages.models.clip.loading import build_trunk
from teachclip.stages.runtime.reporting import Silent

SMALL = ShapesConfig(
    train_clips=6, train_captions=2, teacher_clips=4, uncaptioned_clips=3, val_clips=2, test_clips=2,
    pictures=64, picture_steps=6, picture_batch=8,
)  # fmt: skip
SIZES = TrunkSizes(
    image_size=32, patch_size=16, vision_width=64, vision_layers=1, text_width=64, text_layers=1,
    embed_dim=64, context_length=16,
)  # fmt: skip
SHAPE_OF = {word: shape for shape, words in WORDS.items() for word in words}


def named_pairs(caption: str) -> set[tuple[str, str]]:
    """Colours and shapes that a caption names together."""
    return {(colour, shape) for colour in COLOURS for word, shape in SHAPE_OF.items() if f"{colour} {word}" in caption}


def test_rendering_goes_on_to_the_same_files(tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert render(SMALL, whole).drawn == 17
    render(SMALL, stopped)
    (stopped / "captions.csv").unlink()
    for name in ("train0001.mp4", "test0001.mp4"):
        (stopped / "clips" / name).unlink()
    assert render(SMALL, stopped).drawn == 2
    files = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    assert len(files) == 17 + 2
    assert all((whole / file).read_bytes() == (stopped / file).read_bytes() for file in files)
    assert render(SMALL, whole).drawn == 0


def read_captions(path: str) -> list[dict[str, str]]:
    return list(csv.DictReader(Path(path).read_text(encoding="utf-8").splitlines()))


def test_every_clip_has_its_captions_and_its_split(tmp_path: Path) -> None:
    rows = read_captions(render(SMALL, tmp_path).captions)
    assert len(rows) == 6 * 2 + 4 * CAPTIONS == len({(row["video"], row["caption"]) for row in rows})
    assert {row["video"]: row["split"] for row in rows}["clips/val0001.mp4"] == "val"
    assert all((tmp_path / row["video"]).is_file() for row in rows)


def test_the_teacher_learns_from_clips_that_no_student_has(tmp_path: Path) -> None:
    made = render(SMALL, tmp_path)
    own, theirs = read_captions(made.captions), read_captions(made.teacher_captions)
    assert len(theirs) == 4 * CAPTIONS + 2
    shared = {row["video"] for row in own} & {row["video"] for row in theirs}
    assert shared == {row["video"] for row in own if row["split"] == "val"}
    assert {row["video"] for row in theirs if row["split"] == "val"} == shared
    assert all((tmp_path / row["video"]).is_file() for row in theirs)
    uncaptioned = {str(path.relative_to(tmp_path)) for path in (tmp_path / "uncaptioned").iterdir()}
    assert len(uncaptioned) == 3
    assert not uncaptioned & {row["video"] for row in own + theirs}
    clips = [path.read_bytes() for path in sorted(tmp_path.rglob("*.mp4"))]
    assert len(set(clips)) == len(clips)


def test_training_never_names_the_pairs_that_every_other_clip_shows() -> None:
    def pairs(unseen: bool) -> list[set[tuple[str, str]]]:
        clips = [make_clip(np.random.default_rng([1, k]), 64, unseen) for k in range(40)]
        return [set().union(*(named_pairs(caption) for caption in clip.captions)) for clip in clips]

    assert len(HELD_OUT) == 2 * len(SHAPES)
    assert all(not (found & HELD_OUT) for found in pairs(unseen=False))
    assert sum(bool(found & HELD_OUT) for found in pairs(unseen=True)) > 30, "captions may drop the attribute"
    pictured = [named_pairs(make_picture(np.random.default_rng(k), 32)[1]) for k in range(200)]
    assert all(not (found & HELD_OUT) for found in pictured)


def test_clips_decode_to_what_was_drawn(tmp_path: Path) -> None:
    render(SMALL, tmp_path)
    clip = make_clip(np.random.default_rng([SMALL.seed, 0, 3]), SMALL.size, unseen=False)
    assert clip.frames.shape == (FRAMES, SMALL.size, SMALL.size, 3)
    assert sorted(np.bincount(clip.events).tolist()) == [2, 2, FRAMES - 4]
    decoded = read_video("c", tmp_path / "clips/train0003.mp4", PrepareConfig(image_size=SMALL.size)).images
    assert decoded.shape == (FRAMES, 3, SMALL.size, SMALL.size)
    error = np.abs(decoded.transpose(0, 2, 3, 1).astype(float) - clip.frames).mean()
    assert error < 5, "H.264 halves the colours' resolution"


def test_pretraining_gives_weights_that_a_trunk_takes_and_is_done_once(tmp_path: Path) -> None:
    path = tmp_path / "trunk.safetensors"
    first = pretrain(SMALL, SIZES, 12, path)
    before = path.read_bytes()
    assert not first.already_done
    assert pretrain(SMALL, SIZES, 12, path).already_done
    assert path.read_bytes() == before
    build_trunk(TrunkConfig(sizes=SIZES, weights=str(path)))
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    with pytest.raises(CacheMismatchError, match=r"shapes\.picture_lr"):
        pretrain(SMALL.model_copy(update={"picture_lr": 1e-3}), SIZES, 12, path)


def test_pretraining_goes_on_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, stopped = tmp_path / "whole.safetensors", tmp_path / "stopped.safetensors"
    pretrain(SMALL, SIZES, 12, whole)
    monkeypatch.setattr(pretraining, "SAVE_SECONDS", 0.0)

    def save_and_stop(path: Path, at: dict[str, object]) -> None:
        training_state.save_state(path, at)
        if at["step"] == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(pretraining, "save_state", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        pretrain(SMALL, SIZES, 12, stopped, Silent())
    assert not stopped.exists()
    pretrain(SMALL, SIZES, 12, stopped)
    first, second = load_file(whole), load_file(stopped)
    assert all(first[name].equal(second[name]) for name in first)
