"""TeachText end to end: experts and words of files, teachers with other encoders and more experts, one student."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from teachclip import load
from teachclip.cache.scores.store import ScoreStore
from teachclip.cache.storage.identity import text_digest
from teachclip.configs.loading import dump_config
from teachclip.configs.schema import Config, DenoiseConfig
from teachclip.configs.sweeps import load_sweep
from teachclip.errors import CacheMismatchError, CheckpointError, ConfigError
from teachclip.pipeline.sweep.plan import plan_sweep
from teachclip.pipeline.sweep.run import run_sweep
from teachclip.stages.data.usable_split import usable_split
from teachclip.stages.data.views import ExpertView, student_view, texts_of
from teachclip.stages.evaluate.measured import Measurer
from teachclip.stages.evaluate.one_model import EvaluateResult
from teachclip.stages.evaluate.stage import evaluate
from teachclip.stages.labels.caption_mask import read_mask
from teachclip.stages.labels.denoise import denoise
from teachclip.stages.prepare.features.stage import features
from teachclip.stages.runtime.reporting import Silent
from teachclip.stages.score.estimate import estimate_scores
from teachclip.stages.score.rescore import rescore
from teachclip.stages.score.stage import score
from teachclip.stages.search.index import index
from teachclip.stages.search.library.stage import index_videos
from teachclip.stages.search.stage import search
from teachclip.stages.train.stage import train

VIDEOS = 24
ENCODERS = {"gpt": 6, "w2v": 5}
EXPERTS: dict[str, dict[str, int]] = {"scene": {"width": 7}, "audio": {"width": 4, "tokens": 3, "clusters": 2}}


def _write(folder: Path) -> None:
    """Videos of which every third has no sound; scenes and words both know which of eight topics a video is of."""
    random = np.random.default_rng(5)
    with (folder / "captions.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["video", "caption", "split"])
        for k in range(VIDEOS):
            split = "test" if k >= 20 else "val" if k >= 16 else "train"
            rows.writerows((f"v{k}.mp4", f"caption {n} of topic {k % 8}, {k}", split) for n in range(1 + k % 2))
    topics = random.standard_normal((8, 7))
    scene = {f"v{k}.mp4": (topics[k % 8] + 0.1 * random.standard_normal(7)).astype(np.float32) for k in range(VIDEOS)}
    np.savez(folder / "scene.npz", **scene)
    audio = {f"v{k}.mp4": random.random((1 + k % 4, 4)).astype(np.float32) for k in range(VIDEOS) if k % 3}
    np.savez(folder / "audio.npz", **audio)
    for name, width in ENCODERS.items():
        topics = random.standard_normal((8, width))
        words = {
            f"v{k}.mp4#{n}": (topics[k % 8] + 0.1 * random.standard_normal((2 + n, width))).astype(np.float32)
            for k in range(VIDEOS)
            for n in range(1 + k % 2)
        }
        np.savez(folder / f"{name}.npz", **words)


def _network(kind: str, encoder: str, *experts: str) -> dict[str, Any]:
    text = {"encoder": encoder, "width": ENCODERS[encoder], "words": 3, "clusters": 2, "ghosts": 1}
    modalities = {name: EXPERTS[name] for name in experts}
    return {"kind": kind, "experts": {"modalities": modalities, "text": text, "shared": 8}}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("experts")
    _write(folder)
    told = {
        "work": str(folder / "work"),
        "data": {"captions": str(folder / "captions.csv")},
        "features": {
            "experts": [
                {"name": "audio", "file": str(folder / "audio.npz")},
                {"name": "scene", "file": str(folder / "scene.npz")},
            ],
            "texts": [{"name": name, "file": str(folder / f"{name}.npz")} for name in ENCODERS],
        },
        "score": {"device": "cpu"},
        "train": {
            "device": "cpu",
            "batch_size": 6,
            "epochs": 2,
            "epoch_of": "videos",
            "tensorboard": False,
            "optim": {
                "optimiser": "radam",
                "lr": 1e-2,
                "weight_decay": 1e-5,
                "schedule": "per-epoch",
                "clip_norm": None,
            },
            "select_by": "geometric-mean",
        },
        "evaluate": {"device": "cpu", "ties": "teachtext"},
    }
    features(Config.model_validate(told), Silent())
    return told


def _config(base: dict[str, Any], run: str, network: dict[str, Any], **changes: Any) -> Config:
    loss = {"coarse_kind": "huber", "coarse_on": "cosines", "teachers": "mean-similarity", "fine": 0.0}
    train_section = {
        **base["train"],
        "run": f"runs/{run}",
        "network": network,
        "loss": loss,
        **changes.pop("train", {}),
    }
    return Config.model_validate({**base, "train": train_section, **changes})


@pytest.fixture(scope="module")
def taught(base: dict[str, Any]) -> Config:
    """Two teachers, with other encoders and more experts, and the student that their mean has taught."""
    teachers = {
        "ce-w2v": _network("ce", "w2v", "audio", "scene"),
        "moee-gpt": _network("moee", "gpt", "audio", "scene"),
    }
    for name, network in teachers.items():
        train(_config(base, name, network))
    entries = [{"name": name, "checkpoint": f"runs/{name}"} for name in teachers]
    student = _network("ce", "gpt", "scene")
    config = _config(base, "taught", student, train={"teachers": list(teachers)}, score={"teachers": entries})
    score(config)
    train(config)
    return config


def test_teachers_with_other_encoders_and_experts_teach_one_student(taught: Config) -> None:
    result = json.loads((taught.run_folder / "result.json").read_text())
    assert result["teachers"] == ["ce-w2v", "moee-gpt"]
    losses = [json.loads(line) for line in (taught.run_folder / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in losses if line["kind"] == "train"]
    assert all(np.isfinite(line["coarse"]) and line["coarse"] > 0 for line in steps)
    store = ScoreStore.open(taught.score_store)
    assert set(store.teachers) == {"ce-w2v", "moee-gpt"}
    for name in store.teachers:
        cache = store.teacher(name)
        assert not cache.frame_logits
        assert cache.scale == 1.0
        assert {key for key in cache.identity if key.startswith("features.")} == {"features.audio", "features.scene"}


def test_an_estimate_counts_no_frame_logits(taught: Config, tmp_path: Path) -> None:
    """Of teachers on experts: what is estimated is what the finished store takes."""
    finished = estimate_scores(taught).teachers
    elsewhere = taught.score.model_copy(update={"store": tmp_path / "new.zarr"})
    new = estimate_scores(taught.model_copy(update={"score": elsewhere})).teachers
    assert [each.shards_left for each in finished] == [0, 0]
    assert [each.shards_left for each in new] == [each.shards for each in finished]
    assert [each.bytes for each in new] == [each.bytes for each in finished]


def test_one_measurer_knows_networks_and_features_apart(base: dict[str, Any]) -> None:
    """As a sweep's does: what stands for a test split is what a measurer of this run alone says."""
    fused = {**base["features"], "captions": "fused"}
    configs = [
        _config(base, "one", _network("ce", "gpt", "scene")),
        _config(base, "more", _network("ce", "gpt", "audio", "scene")),
        _config({**base, "features": fused}, "fused", _network("ce", "gpt", "scene")),
    ]
    measurer = Measurer()
    names = [measurer._file(config, config) for config in configs]
    assert names == [Measurer()._file(config, config) for config in configs]
    assert len(set(names)) == 3


def test_a_default_that_is_spelt_out_is_the_same_measurement(base: dict[str, Any]) -> None:
    config = _config(base, "one", _network("ce", "gpt", "scene"))
    spelt = config.evaluate.model_validate({**base["evaluate"], "captions": "each", "text": None})
    told = config.model_copy(update={"evaluate": spelt})
    assert Measurer()._file(told, told) == Measurer()._file(config, config)


def test_scores_are_the_networks_own(taught: Config) -> None:
    found = rescore(taught, None, 8, 0, Silent())
    assert [each.teacher for each in found] == ["ce-w2v", "moee-gpt"]
    assert all(each.largest <= each.allowed for each in found)


def test_a_finished_store_and_run_are_only_told(taught: Config) -> None:
    assert all(each.shards_now == 0 for each in score(taught).teachers)
    assert train(taught).already_done


def _evaluated(config: Config, **settings: Any) -> EvaluateResult:
    settings = {"run": Path("runs/taught"), **settings}
    return evaluate(config.model_copy(update={"evaluate": config.evaluate.model_copy(update=settings)}))


def test_evaluation_by_teachtexts_protocol(taught: Config) -> None:
    found = _evaluated(taught)
    assert (found.texts, found.videos) == (6, 4)
    assert any("TeachText" in mark for mark in found.marks)
    merged = _evaluated(taught, captions="mean")
    assert (merged.t2v["queries"], merged.v2t["queries"]) == (4, 4)
    assert merged.t2v["r5"] == 100.0


def test_a_sweep_measures_a_teacher_that_sees_no_frames(taught: Config, tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(dump_config(taught))
    rows = [{"label": "CE", "teacher": "ce-w2v"}, {"label": "gone", "teacher": "gone"}]
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({"base": "base.yaml", "runs": rows}))
    sweep = load_sweep(tmp_path / "sweep.yaml")
    made, left_out = run_sweep(plan_sweep(sweep, sweep.base))
    alone = _evaluated(taught, run=Path("runs/ce-w2v"))
    assert made.measured == {"own data": {"t2v": alone.t2v, "v2t": alone.v2t}}
    assert left_out.state == "left out"


def test_denoising_by_their_scores(taught: Config) -> None:
    """Ranks are those of the mean of both teachers' scores; training leaves out what the mask says."""
    denoising = DenoiseConfig(keep=6, mask=Path("mask.json"), teachers=taught.train.teachers, last="drop-video")
    config = taught.model_copy(update={"denoise": denoising})
    found = denoise(config)
    dataset, seen = texts_of(config), ExpertView.open(config, {"audio": 0, "scene": 0})
    split = usable_split(dataset, ["train"], student_view(config, dataset), seen)
    store = ScoreStore.open(config.score_store)
    texts = [(text.id, text_digest(text.caption)) for text in split.texts]
    mean = np.zeros((len(texts), len(split.videos)))
    videos = [(video, seen.digest(video)) for video in split.videos]
    for name in taught.train.teachers:
        reader = store.teacher(name).reader(texts, videos)
        mean += reader.read(np.arange(len(texts)), np.arange(len(videos))).coarse
    own = mean[np.arange(len(texts)), split.text_video]
    ranks = (mean > own[:, None]).sum(axis=1) + 1
    mask = read_mask(config.denoise_mask)
    assert mask.dropped == {text.id: rank for text, rank in zip(split.texts, ranks, strict=True) if rank > 6}
    assert 0 < found.dropped < found.texts
    trained = config.train.model_copy(update={"run": Path("runs/denoised"), "captions_mask": Path("mask.json")})
    result = train(config.model_copy(update={"train": trained}))
    assert (result.texts, result.masked_texts) == (found.kept, found.dropped)


def test_a_search_says_why_it_cannot_be_and_what_can(taught: Config, tmp_path: Path) -> None:
    """There is nothing that would make words of a new sentence, or features of a new video."""
    searching = taught.model_copy(update={"search": taught.search.model_copy(update={"run": Path("runs/taught")})})
    clip = tmp_path / "clip.mp4"
    clip.touch()
    for ask in (
        lambda: search(searching, ["a dog"]),
        lambda: index(searching),
        lambda: load(taught.run_folder),
        lambda: index_videos([str(clip)], tmp_path / "library", str(taught.run_folder)),
    ):
        with pytest.raises(CheckpointError, match=r"TeachText's CE on 1 expert: .* no new sentence") as told:
            ask()
        assert "score as a teacher, and teach a student that sees frames" in str(told.value.hint)


@pytest.mark.parametrize(
    ("loss", "told"),
    [
        ({"fine": 1.0}, "train.loss.fine: ce has no frame weights"),
        ({"fine": 0.0, "coarse_kind": "huber"}, "train.loss.coarse_on: Huber compares numbers"),
    ],
)
def test_what_cannot_teach_is_refused(base: dict[str, Any], loss: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        _config(base, "refused", _network("ce", "gpt", "scene"), train={"teachers": ["x"], "loss": loss})
    for on in ("cosines", "standardised"):
        fits = {"fine": 0.0, "coarse_kind": "huber", "coarse_on": on}
        _config(base, "fits", _network("ce", "gpt", "scene"), train={"teachers": ["x"], "loss": fits})


def test_an_expert_of_another_width_is_named(base: dict[str, Any]) -> None:
    network = _network("ce", "gpt", "scene")
    network["experts"]["modalities"] = {"scene": {"width": 9}}
    with pytest.raises(ConfigError, match="another width") as refusal:
        train(_config(base, "other", network))
    assert "scene: 7 numbers, and the network takes 9" in refusal.value.details


def test_an_encoder_that_is_not_named_or_of_another_width(base: dict[str, Any]) -> None:
    network = _network("ce", "gpt", "scene")
    network["experts"]["text"]["width"] = 4
    with pytest.raises(ConfigError, match="words of gpt have 6 numbers"):
        train(_config(base, "other", network))
    network["experts"]["text"]["encoder"] = None
    with pytest.raises(ConfigError, match="which text encoder"):
        train(_config(base, "other", network))


def test_scores_of_other_features_do_not_teach(taught: Config, base: dict[str, Any], tmp_path: Path) -> None:
    """A store made from features that are others now is refused, naming the expert or the videos."""
    scene = dict(np.load(base["features"]["experts"][1]["file"]))
    np.savez(tmp_path / "scene.npz", **{video: value + 1 for video, value in scene.items()})
    changed = json.loads(json.dumps(base))
    changed["features"]["experts"][1]["file"] = str(tmp_path / "scene.npz")
    changed["features"]["folder"] = "experts2"
    features(Config.model_validate(changed), Silent())
    config = _config(changed, "other-features", _network("ce", "gpt", "scene"), train={"teachers": ["ce-w2v"]})
    config = config.model_copy(update={"score": taught.score})
    with pytest.raises(CacheMismatchError):
        train(config)
    with pytest.raises(CacheMismatchError, match="features"):
        score(config)
