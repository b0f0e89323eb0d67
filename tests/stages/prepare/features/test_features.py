"""Features of files -> caches: what is checked, told, made again and kept."""

import csv
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from teachclip.cache.experts.cache import FeatureCache
from teachclip.configs.schema import Config, DataConfig, ExpertConfig, FeaturesConfig, TextEncoderConfig
from teachclip.errors import CacheError, CacheMismatchError, ConfigError, DataError
from teachclip.stages.data.dataset import read_dataset
from teachclip.stages.data.experts.inputs import ExpertInputs, ExpertSet, WordSet
from teachclip.stages.prepare.features import maker
from teachclip.stages.prepare.features.looking import check_features, estimate_features, look_at_features
from teachclip.stages.prepare.features.stage import features
from teachclip.stages.runtime.reporting import Silent

RNG = np.random.default_rng(3)
VIDEOS = [f"clips/video{k}.mp4" for k in range(7)]
CAPTIONS = {video: ["a cat", "a dog runs"][: 1 + k % 2] for k, video in enumerate(VIDEOS)}


class Told(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, message: str) -> None:
        self.lines.append(message)

    def warn(self, message: str) -> None:
        self.lines.append(f"warning: {message}")


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maker, "SHARD_VIDEOS", 2)


@pytest.fixture
def audio() -> dict[str, Any]:
    """Sequences of one expert by the names that published files have; one video is missing, one is not there."""
    found: dict[str, Any] = {f"video{k}": RNG.random((k + 1, 5)).astype(np.float32) for k in range(6)}
    return found | {"video3": float("nan"), "somebody else's": np.zeros((1, 5), np.float32)}


@pytest.fixture
def words() -> dict[str, Any]:
    return {
        f"video{k}": [RNG.random((2 + n, 4)).astype(np.float32) for n in range(len(CAPTIONS[video]))]
        for k, video in enumerate(VIDEOS)
    }


@pytest.fixture
def config(tmp_path: Path, audio: dict[str, Any], words: dict[str, Any]) -> Config:
    write_captions(tmp_path, CAPTIONS)
    write(tmp_path / "audio.pkl", audio)
    write(tmp_path / "face.pkl", {f"video{k}": np.full(3, k, np.float64) for k in (0, 6)})
    write(tmp_path / "words.pkl", words)
    experts = (
        ExpertConfig(name="face", file=tmp_path / "face.pkl"),
        ExpertConfig(name="audio", file=tmp_path / "audio.pkl"),
    )
    encoder = TextEncoderConfig(name="w2v", file=tmp_path / "words.pkl")
    return Config(
        work=tmp_path / "work",
        data=DataConfig(captions=tmp_path / "captions.csv", val_fraction=0.0),
        features=FeaturesConfig(experts=experts, texts=(encoder,)),
    )


def write(path: Path, value: object) -> None:
    path.write_bytes(pickle.dumps(value))


def write_captions(folder: Path, captions: dict[str, list[str]]) -> None:
    with (folder / "captions.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["video", "caption"])
        rows.writerows((video, caption) for video, those in captions.items() for caption in those)


def with_experts(config: Config, *experts: ExpertConfig) -> Config:
    return config.model_copy(update={"features": config.features.model_copy(update={"experts": experts})})


def without_texts(config: Config) -> Config:
    return config.model_copy(update={"features": config.features.model_copy(update={"texts": ()})})


def test_features_become_caches_and_batches(config: Config, audio: dict[str, Any], words: dict[str, Any]) -> None:
    told = Told()
    result = features(config, told)
    face, heard, spoken = result.caches
    assert (face.name, face.width, face.counts) == ("face", 3, {"ok": 2, "absent": 5})
    assert (heard.name, heard.width, heard.counts) == ("audio", 5, {"ok": 5, "missing": 1, "absent": 1})
    assert (spoken.part, spoken.width, spoken.counts, spoken.made) == ("texts", 4, {"ok": 7}, 7)
    assert "warning: expert 'audio': 1 of 7 videos are absent: clips/video6.mp4" in told.lines
    assert "expert 'audio': 1 video of the file are not in the data set" in told.lines
    assert (result.without_experts, result.without_experts_count) == (("clips/video3.mp4",), 1)

    experts = ExpertSet.open(config, {"face": 0, "audio": 4})
    assert list(experts.sizes) == ["audio", "face"]
    assert experts.usable == tuple(video for video in VIDEOS if "video3" not in video)
    values, there, _ = ExpertInputs(experts, VIDEOS).read(np.array([5, 0, 3, 6]))
    assert values.shape == (4, 4 * 5 + 3)
    np.testing.assert_array_equal(values[0, :20].reshape(4, 5), audio["video5"][:4])
    np.testing.assert_array_equal(values[1, :5], audio["video0"][0])
    assert not values[1, 5:].any()
    np.testing.assert_array_equal(values[3, 20:], [6, 6, 6])
    assert there.tolist() == [[True, False], [True, True], [False, False], [False, True]]

    dataset = read_dataset(config.data)
    spoken_words = WordSet.open(config, "w2v", dataset, words=3).inputs(dataset.texts)
    assert spoken_words[:].shape == (len(dataset.texts), 3, 4)
    place = next(k for k, text in enumerate(dataset.texts) if text.id == "clips/video1.mp4#1")
    np.testing.assert_array_equal(spoken_words[place : place + 1][0], words["video1"][1])


def test_one_vector_of_a_sequence_is_its_mean(config: Config, audio: dict[str, Any]) -> None:
    features(config)
    values, _, _ = ExpertInputs(ExpertSet.open(config, {"audio": 0}), VIDEOS).read(np.array([4]))
    np.testing.assert_allclose(values[0], audio["video4"].mean(axis=0), atol=1e-7)


def test_given_again_nothing_is_made_and_more_videos_are_added(config: Config, tmp_path: Path) -> None:
    features(config)
    before = {path: path.stat().st_mtime_ns for path in config.work.rglob("*.safetensors")}
    assert [cache.made for cache in features(config).caches] == [0, 0, 0]
    assert {path: path.stat().st_mtime_ns for path in config.work.rglob("*.safetensors")} == before
    write_captions(tmp_path, {**CAPTIONS, "clips/video9.mp4": ["new"]})
    assert [cache.made for cache in features(with_experts(config, config.features.experts[0])).caches[:1]] == [2]


def test_a_kill_midway_loses_no_finished_shard(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what is made afterwards is what would have been made at once."""
    features(config)
    whole = {path: path.read_bytes() for path in config.work.rglob("*.safetensors")}
    for path in config.work.rglob("*"):
        if path.is_file():
            path.unlink()
    left, one_width = [3], maker.one_width

    def killed(*arguments: Any) -> int:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return one_width(*arguments)

    monkeypatch.setattr(maker, "one_width", killed)
    with pytest.raises(KeyboardInterrupt):
        features(config)
    with pytest.raises(CacheError, match="not complete"):
        ExpertSet.open(config, {"face": 0})
    monkeypatch.setattr(maker, "one_width", one_width)
    assert [cache.made for cache in features(config).caches] == [1, 7, 7]
    assert {path: path.read_bytes() for path in config.work.rglob("*.safetensors")} == whole


def refused(config: Config, change: Callable[[dict[str, Any]], None], values: dict[str, Any]) -> DataError:
    """What is said of a changed audio file."""
    change(values)
    entry = config.features.experts[1]
    assert entry.file is not None
    write(entry.file, values)
    with pytest.raises(DataError) as told:
        features(with_experts(config, entry))
    assert told.value.where == str(entry.file)
    return told.value


def test_another_width_is_refused_by_video(config: Config, audio: dict[str, Any]) -> None:
    error = refused(config, lambda values: values.update(video4=np.zeros((2, 6), np.float32)), audio)
    assert error.what == "expert 'audio': other widths than 5, which the videos before have"
    assert error.details == ("clips/video4.mp4: 6 numbers a row",)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (np.zeros((2, 2, 5)), r"float64 \[2, 2, 5\] instead of numbers"),
        ("no features", r"instead of numbers \(D\) or \(time, D\)"),
        (np.array([[1, 2, 3, np.nan, 5.0]]), "row 0 has nan in place 3"),
        (np.array([[1, 2, 3, 4, np.inf]]), "row 0 has inf in place 4"),
    ],
)
def test_what_is_no_feature_is_refused_by_video(config: Config, audio: dict[str, Any], value: Any, why: str) -> None:
    error = refused(config, lambda values: values.update(video4=value), audio)
    assert error.what == "expert 'audio': 1 video with features that cannot be used"
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(error.details[0])


@pytest.mark.parametrize("value", [float("nan"), np.float32("nan"), None, np.full(5, np.nan), np.zeros((0, 5))])
def test_what_is_missing_is_missing(config: Config, audio: dict[str, Any], value: Any) -> None:
    entry = config.features.experts[1]
    assert entry.file is not None
    write(entry.file, {**audio, "video4": value})
    features(with_experts(config, entry))
    assert FeatureCache.open(config.expert_folder("audio")).statuses["clips/video4.mp4"] == "missing"


def test_an_expert_that_is_missing_everywhere_is_refused(config: Config, audio: dict[str, Any]) -> None:
    error = refused(config, lambda values: values.update(dict.fromkeys(values, float("nan"))), audio)
    assert error.what == "expert 'audio': none of the 7 videos has features"


def test_features_of_other_videos_are_refused(config: Config, audio: dict[str, Any]) -> None:
    for name in list(audio):
        audio[f"{name} of another set"] = audio.pop(name)
    error = refused(config, lambda values: None, audio)
    assert error.what == "expert 'audio': the file has other videos than the captions"
    assert error.details[0].startswith("the captions are of clips/video0.mp4")


def test_words_of_other_captions_are_refused(config: Config, words: dict[str, Any], tmp_path: Path) -> None:
    write(tmp_path / "words.pkl", {**words, "video1": words["video1"][:1]})
    with pytest.raises(DataError, match="1 video with features that cannot be used") as told:
        features(with_experts(config))
    assert told.value.details == ("clips/video1.mp4: words of 1 caption, and the data set has 2",)
    write(tmp_path / "words.pkl", words)
    for path in config.work.rglob("*"):
        if path.is_file():
            path.unlink()
    features(with_experts(config))
    write_captions(tmp_path, {**CAPTIONS, "clips/video1.mp4": ["a cat", "a dog sleeps"]})
    with pytest.raises(CacheMismatchError, match="other captions than the data set has") as other:
        WordSet.open(config, "w2v", read_dataset(config.data))
    assert other.value.details == ("clips/video1.mp4: other captions",)


def test_words_are_found_by_the_text_of_their_captions(config: Config, words: dict[str, Any], tmp_path: Path) -> None:
    """Of a file that has words of more captions, in another order, written as tokens."""
    raw = {
        f"video{k}": [["nothing"], *(text.title().split() for text in reversed(CAPTIONS[video]))]
        for k, video in enumerate(VIDEOS)
    }
    longer = {video: [np.zeros((1, 4), np.float32), *reversed(arrays)] for video, arrays in words.items()}
    write(tmp_path / "words.pkl", longer)
    write(tmp_path / "raw-captions.pkl", raw)
    encoder = config.features.texts[0].model_copy(update={"captions": tmp_path / "raw-captions.pkl"})
    config = with_experts(config)
    config = config.model_copy(update={"features": config.features.model_copy(update={"texts": (encoder,)})})
    features(config)
    found = FeatureCache.open(config.words_folder("w2v")).read(VIDEOS[1])
    for one, other in zip(found, words["video1"], strict=True):
        np.testing.assert_array_equal(one, other)
    write_captions(tmp_path, {**CAPTIONS, "clips/video1.mp4": ["a cat", "two cats"]})
    with pytest.raises(DataError) as told:
        features(config)
    assert told.value.details == ("clips/video1.mp4: there are no words of the caption 'two cats'",)


def test_a_changed_file_is_refused_and_what_was_made_stays(config: Config, audio: dict[str, Any]) -> None:
    features(config)
    entry = config.features.experts[1]
    assert entry.file is not None
    write(entry.file, {**audio, "video0": np.zeros((1, 5), np.float32)})
    with pytest.raises(CacheMismatchError, match=r"made from something else \(file\)"):
        features(config)
    np.testing.assert_array_equal(ExpertSet.open(config, {"audio": 9}).read(VIDEOS[0])["audio"], audio["video0"])


def test_a_pickle_that_would_run_code_is_refused_and_nothing_is_lost(config: Config, tmp_path: Path) -> None:
    class Runs:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "touched",)

    evil = ExpertConfig(name="evil", file=tmp_path / "evil.pkl")
    write(tmp_path / "evil.pkl", {"video0": Runs()})
    with pytest.raises(DataError, match=r"\(builtins getattr\)|\(pathlib"):
        features(with_experts(config, *config.features.experts, evil))
    assert not (tmp_path / "touched").exists()
    assert ExpertSet.open(config, {"audio": 0}).usable


def test_two_videos_of_one_file_name_are_not_mixed_up(config: Config, tmp_path: Path, audio: dict[str, Any]) -> None:
    write_captions(tmp_path, {"a/video0.mp4": ["x"], "b/video0.mp4": ["y"], "a/video1.mp4": ["z"]})
    features(without_texts(with_experts(config, config.features.experts[1])))
    statuses = FeatureCache.open(config.expert_folder("audio")).statuses
    assert statuses == {"a/video0.mp4": "absent", "b/video0.mp4": "absent", "a/video1.mp4": "ok"}


def test_the_estimate_is_near_and_writes_nothing(config: Config) -> None:
    expected = {one.name: one for one in estimate_features(config)}
    assert not config.work.exists()
    assert (expected["audio"].videos, expected["audio"].remaining, expected["audio"].probed) == (7, 7, 7)
    features(config)
    heard = look_at_features(config)[1]
    assert expected["audio"].bytes == heard.rows * 5 * 4
    assert {one.remaining for one in estimate_features(config)} == {0}


def test_damage_is_found_and_mended(config: Config) -> None:
    features(config)
    assert [check.wrong for check in check_features(config)] == [0, 0, 0]
    path = config.expert_folder("audio") / "00001.safetensors"
    data = bytearray(path.read_bytes())
    data[FeatureCache.open(path.parent).shards[1].start] ^= 1
    path.write_bytes(data)
    check = check_features(config)[1]
    assert (check.name, check.wrong) == ("audio", 1)
    assert "00001.safetensors" in check.problems[0]
    path.unlink()
    assert [cache.made for cache in features(config).caches] == [0, 2, 0]
    assert check_features(config)[1].wrong == 0


def test_nothing_asked_for_and_names_that_are_not_there(config: Config) -> None:
    with pytest.raises(ConfigError, match="no expert and no text encoder is named"):
        features(Config())
    with pytest.raises(ConfigError, match="no expert is called smell"):
        ExpertSet.open(config, {"audio": 0, "smell": 0})
    with pytest.raises(ConfigError, match="no text encoder is called bert"):
        WordSet.open(config, "bert", read_dataset(config.data))
