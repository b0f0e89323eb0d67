"""Caption denoising: what is ranked, what is dropped, and that training leaves out that and nothing else."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from teachclip.cache.frames.cache import FrameCache
from teachclip.cache.scores.reading.reader import Labels
from teachclip.cache.scores.store import ScoreStore
from teachclip.cache.storage.identity import text_digest
from teachclip.configs.loading import dump_config
from teachclip.configs.schema import Config, DenoiseConfig
from teachclip.errors import CacheError, CacheMismatchError, ConfigError, DataError
from teachclip.pipeline.cli.main import app
from teachclip.remedies import Change, Denoise, Remedy
from teachclip.stages.data.dataset import read_dataset
from teachclip.stages.data.usable_split import UsableSplit, usable_split
from teachclip.stages.labels import denoise as stage
from teachclip.stages.labels.caption_mask import CaptionMask, read_mask
from teachclip.stages.labels.denoise import choose_dropped, denoise, own_video_ranks
from teachclip.stages.runtime.reporting import Silent
from teachclip.stages.runtime.run_folder import RunFolder
from teachclip.stages.score.stage import score
from teachclip.stages.train.stage import train
from typer.testing import CliRunner, Result

AGAIN = Remedy("make it again, with the denoise settings that it was made with", Denoise())


class Heard(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def info(self, message: str) -> None:
        self.said.append(message)

    warn = info


def exact(world: Any, **sections: Any) -> Config:
    """The world with its exact scores."""
    sections.setdefault("score", {"store": "exact.zarr"})
    return world.config(**sections)


def matrix(config: Config) -> tuple[np.ndarray, UsableSplit]:
    """All raw scores [T,V] of the training split."""
    frames = FrameCache.open(config.frames_folder)
    split = usable_split(read_dataset(config.data), ["train"], frames)
    texts = [(text.id, text_digest(text.caption)) for text in split.texts]
    reader = (
        ScoreStore.open(config.score_store)
        .teacher("xclip")
        .reader(texts, [(video, frames.digest(video)) for video in split.videos])
    )
    return reader.read(np.arange(len(texts)), np.arange(len(split.videos))).coarse, split


class Given:
    """Stands for a reader of scores; remembers how many pairs were asked for at once."""

    def __init__(self, scores: list[list[float]] | np.ndarray) -> None:
        self.scores, self.most = np.asarray(scores, np.float32), 0

    def read(self, texts: np.ndarray, videos: np.ndarray) -> Any:
        self.most = max(self.most, len(texts) * len(videos))
        return Labels(self.scores[np.ix_(texts, videos)], None)


def ranks(scores: list[Any], own: list[int], combine: str = "raw") -> list[float]:
    settings = DenoiseConfig.model_validate({"combine": combine})
    readers: list[Any] = [Given(matrix) for matrix in scores]
    return own_video_ranks(readers, np.array(own), len(scores[0][0]), settings, Silent()).tolist()


def test_rank_counts_better_videos_and_half_of_the_equal_ones() -> None:
    assert ranks([[[3, 2, 1], [1, 2, 2], [5, 5, 5], [0, 9, 8]]], [0, 1, 2, 0]) == [1, 1.5, 2, 3]


def test_several_teachers_rank_by_the_mean_of_raw_or_of_standardised_scores() -> None:
    loud, quiet = [[0, 100, 50]], [[0.9, 0.1, 0.0]]
    assert ranks([loud, quiet], [0]) == [3], "the raw mean is the loud teacher's"
    assert ranks([loud, quiet], [0], "standardised") == [2]
    assert ranks([[[1, 1, 1]], quiet], [0], "standardised") == [1], "a teacher that cannot tell has no say"


def test_memory_does_not_grow_with_texts_times_videos(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.random.default_rng(0).normal(size=(50, 20))
    reader: Any = Given(scores)
    own = np.arange(50) % 20
    whole = own_video_ranks([reader], own, 20, DenoiseConfig(), Silent())
    monkeypatch.setattr(stage, "PAIRS_AT_ONCE", 65)
    streamed: Any = Given(scores)
    assert np.array_equal(own_video_ranks([streamed], own, 20, DenoiseConfig(), Silent()), whole)
    assert streamed.most <= 65 < reader.most


def test_a_video_keeps_its_best_caption_or_is_removed_by_name() -> None:
    own, given = np.array([0, 0, 1, 1, 2]), np.array([1, 9, 8, 7, 3.0])
    kept = choose_dropped(given, own, DenoiseConfig(keep=5))
    assert [part.tolist() for part in kept] == [[False, True, True, False, False], [False] * 3 + [True, False], []]
    removed = choose_dropped(given, own, DenoiseConfig(keep=5, last="drop-video"))
    assert [part.tolist() for part in removed] == [[False, True, True, True, False], [False] * 5, [1]]


@pytest.mark.parametrize("last", ["keep-best", "drop-video"])
def test_the_mask_says_what_is_dropped_by_which_rule_and_whose_it_is(world: Any, last: str) -> None:
    config = exact(world, denoise={"keep": 3, "last": last, "mask": f"mask-{last}.json"})
    result = denoise(config)
    scores, split = matrix(config)
    own = scores[np.arange(len(split.texts)), split.text_video]
    expected = (scores > own[:, None]).sum(axis=1) + 1.0  # no two scores are equal
    bad = {text.id: rank for text, rank in zip(split.texts, expected, strict=True) if rank > 3}
    mask = read_mask(config.denoise_mask)
    assert {**mask.dropped, **mask.kept_last} == bad
    assert bad
    left = {text.video for text in split.texts if text.id not in mask.dropped}
    if last == "keep-best":
        assert left == set(split.videos)
        assert result.kept_last
        assert result.removed == ()
    else:
        assert not mask.kept_last
        assert result.removed == tuple(video for video in split.videos if video not in left)
        assert result.removed
    assert (result.kept, result.dropped) == (28 - len(mask.dropped), len(mask.dropped))
    assert result.worst[0].rank == max(expected)
    document = json.loads(config.denoise_mask.read_text())
    assert "This rule is teachclip's own; TeachText published masks, not the rule." in document["rule"]
    assert (document["keep"], document["texts"], document["videos"]) == (3, 28, 14)
    assert list(document["teachers"]) == ["xclip"]
    before = config.denoise_mask.read_bytes()
    denoise(config)
    assert config.denoise_mask.read_bytes() == before


def test_training_leaves_out_what_the_mask_says_and_nothing_else(world: Any) -> None:
    made = exact(world, denoise={"keep": 3, "last": "drop-video", "mask": "for-training.json"})
    found = denoise(made)
    heard = Heard()
    masked = exact(world, train={"run": "runs/masked", "captions_mask": "for-training.json", "teachers": ["xclip"],
                                 "batch_size": 4})  # fmt: skip
    result = train(masked, heard)
    assert result.texts == found.kept == 28 - found.dropped
    assert result.videos == 14 - len(found.removed)
    assert result.masked_texts == found.dropped
    assert result.left_out_videos == 1, "videos without frames are another matter"
    said = f"for-training.json leaves out {found.dropped} of 28 captions, and with them {len(found.removed)} videos"
    assert said in heard.said
    assert result.steps == 2 * (found.kept // 4)
    # The same captions without a mask, in a file of their own: the same training.
    rows = (world.root / "captions.csv").read_text().splitlines()
    dropped = read_mask(made.denoise_mask).dropped
    by_id: dict[str, int] = {}
    kept = [rows[0]]
    for row in rows[1:]:
        video = row.split(",")[0]
        number = by_id[video] = by_id.get(video, -1) + 1
        if f"{video}#{number}" not in dropped:
            kept.append(row)
    fewer = world.root / "fewer.csv"
    fewer.write_text("\n".join(kept))
    data = {"captions": fewer, "videos": world.root}
    alone = world.config(data=data, train={"run": "runs/fewer-captions", "batch_size": 4})
    masked_alone = world.config(
        train={"run": "runs/masked-alone", "captions_mask": "for-training.json", "batch_size": 4}
    )
    for config in (alone, masked_alone):
        train(config)
    assert losses(alone) == losses(masked_alone)


def losses(config: Config) -> list[float]:
    return [line["loss"] for line in RunFolder(config.run_folder).metrics() if line["kind"] == "train"]


def test_another_mask_is_another_run_and_another_place_is_not(world: Any) -> None:
    def config(mask: str, **denoising: Any) -> Config:
        settings = {"run": "runs/which-mask", "captions_mask": mask, "max_steps": 1, "batch_size": 4}
        return exact(world, denoise={"mask": mask, **denoising}, train=settings)

    for mask, keep in (("a.json", 3), ("b.json", 4), ("same-as-a.json", 3)):
        denoise(config(mask, keep=keep))
    train(config("a.json"))
    assert train(config("same-as-a.json")).already_done
    with pytest.raises(CacheMismatchError, match="captions mask"):
        train(config("b.json"))


def test_masks_for_other_captions_and_damaged_ones_are_refused(world: Any, tmp_path: Path) -> None:
    config = exact(
        world, denoise={"mask": "refused.json"}, train={"run": "runs/refused", "captions_mask": "refused.json"}
    )
    with pytest.raises(CacheError, match="no captions mask") as caught:
        train(config)
    assert caught.value.hint == Remedy("denoise the captions first", Denoise())
    denoise(config)
    rows = (world.root / "captions.csv").read_text().replace("a red square at the left", "a red square to the left")
    changed = tmp_path / "changed.csv"
    changed.write_text(rows)
    other = exact(world, data={"captions": changed, "videos": world.root},
                  train={"run": "runs/refused", "captions_mask": "refused.json"})  # fmt: skip
    with pytest.raises(CacheMismatchError, match="other captions") as mismatch:
        train(other)
    assert mismatch.value.hint == AGAIN
    good = config.denoise_mask.read_bytes()
    for bad in (good[:-2], good.replace(b'"keep":100', b'"keep":101'), b"{}", b"\xff\x00", b""):
        assert bad != good
        config.denoise_mask.write_bytes(bad)
        with pytest.raises(CacheError) as damaged:
            train(config)
        assert damaged.value.where == str(config.denoise_mask)
        assert damaged.value.hint == AGAIN


def test_names_that_look_like_a_checksum_survive(tmp_path: Path) -> None:
    names = {"0" * 32: 7.0, '"checksum":"' + "0" * 32 + '"': 8.5}
    mask = CaptionMask(5, "raw", "keep-best", {"t": "d"}, 9, 3, "c", names, {}, ())
    mask.write(tmp_path / "mask.json")
    assert read_mask(tmp_path / "mask.json") == mask


def test_a_mask_that_can_drop_nothing_says_so(world: Any) -> None:
    heard = Heard()
    result = denoise(exact(world, denoise={"mask": "nothing.json"}), heard)
    assert result.dropped == 0
    assert "denoise.keep is 100, of 14 videos: no caption can rank worse" in heard.said


def test_a_mask_that_would_leave_nothing_is_refused(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    config = exact(world, denoise={"keep": 1, "last": "drop-video", "mask": "all-gone.json"})
    monkeypatch.setattr(stage, "own_video_ranks", lambda readers, own, *rest: np.full(len(own), 9.0))
    with pytest.raises(DataError, match="of 28 captions 0 would be left") as caught:
        denoise(config)
    assert caught.value.hint == Remedy("keep worse ranks", Change({"denoise.keep": 10}))
    assert not config.denoise_mask.exists()


def test_teachers_are_those_of_training_or_of_scoring(world: Any) -> None:
    nobody = exact(world, score={"teachers": [], "store": "exact.zarr"})
    with pytest.raises(ConfigError, match="no teacher is named"):
        denoise(nobody)
    assert denoise(exact(world, denoise={"mask": "default.json"})).teachers == ("xclip",)
    scoring = {"store": "two.zarr", "teachers": [{"name": name, "checkpoint": "runs/xclip"} for name in ("a", "b")]}
    score(world.config(score=dict(scoring)))
    two = {name: world.config(score=dict(scoring), **rest) for name, rest in {
        "all": {"denoise": {"mask": "two.json"}},
        "training": {"denoise": {"mask": "two.json"}, "train": {"teachers": ["b"]}},
        "named": {"denoise": {"mask": "two.json", "teachers": ["a"]}, "train": {"teachers": ["b"]}},
    }.items()}  # fmt: skip
    assert {name: denoise(config).teachers for name, config in two.items()} == {
        "all": ("a", "b"), "training": ("b",), "named": ("a",),
    }  # fmt: skip


def test_changed_captions_are_refused_before_anything_is_ranked(world: Any, tmp_path: Path) -> None:
    changed = tmp_path / "changed.csv"
    shutil.copy(world.root / "captions.csv", changed)
    changed.write_text(changed.read_text().replace("a red square at the left", "a red square to the left"))
    with pytest.raises(CacheMismatchError, match="captions changed"):
        denoise(exact(world, data={"captions": changed, "videos": world.root}, denoise={"mask": "never.json"}))


def test_typed_in_a_row(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The verbs as a user gives them: train asks for denoise, denoise says how train takes its mask."""
    path = world.root / "typed.yaml"
    path.write_text(dump_config(exact(world, denoise={"keep": 2}, train={"run": "runs/typed", "max_steps": 1})))

    def typed(*words: str) -> Result:
        monkeypatch.setattr("sys.argv", ["teachclip", *words])
        return CliRunner().invoke(app, words)

    mask = ["--set", "train.captions_mask=captions-mask.json"]
    early = typed("train", str(path), *mask)
    assert early.exit_code == 1
    assert f"denoise the captions first: teachclip denoise {path}" in early.stderr
    done = typed("denoise", str(path))
    assert done.exit_code == 0, done.stderr
    assert "own video ranks at 2 or better (teachclip's own rule, not TeachText's)" in done.stdout
    assert " ".join(mask) in done.stdout
    trained = typed("train", str(path), *mask)
    assert trained.exit_code == 0, trained.stderr
    assert "captions masked" in trained.stdout
