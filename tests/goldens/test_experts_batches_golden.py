"""Batches of expert features and words, from the published kind of pickles to what the networks get."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from teachclip.configs.schema import Config, ExpertConfig, FeaturesConfig, TextEncoderConfig
from teachclip.stages.data.dataset import Dataset, Text, Video
from teachclip.stages.data.experts.feature_files import open_features
from teachclip.stages.data.experts.inputs import ExpertInputs, ExpertSet, WordSet, fused_captions
from teachclip.stages.prepare.features.from_files import FromFile
from teachclip.stages.prepare.features.maker import make_features
from teachclip.stages.runtime.reporting import Silent

raw = pytest.mark.golden("original_experts_moee", "original_experts_ce")


def _dataset(golden) -> Dataset:
    videos = [(video, "train") for video in golden.meta["config"]["train_videos"]]
    videos += [(video, "test") for video in golden.meta["config"]["val_videos"]]
    texts = [
        Text(f"{video}#{key.split('/')[-1]}", video, f"caption {key}")
        for video, _ in videos
        for key in sorted(golden.group(f"raw/text/{video}/"), key=int)
    ]
    return Dataset(tuple(Video(video, Path(video), split) for video, split in videos), tuple(texts))


def _made(golden, folder: Path, fused: bool) -> tuple[Config, Dataset]:
    """Feature caches made of pickles like the published ones; a missing expert is one float NaN there."""
    settings, dataset = golden.meta["config"], _dataset(golden)
    experts = []
    for name in settings["experts"]:
        raw = golden.group(f"raw/expert/{name}/")
        values: dict[str, Any] = {video.id: raw.get(video.id, float("nan")) for video in dataset.videos}
        (folder / f"{name}.pkl").write_bytes(pickle.dumps(values, 2))
        experts.append(ExpertConfig(name=name, file=folder / f"{name}.pkl"))
    words = {
        video.id: [
            golden[f"raw/text/{text.video}/{text.id.split('#')[1]}"] for text in dataset.texts if text.video == video.id
        ]
        for video in dataset.videos
    }
    (folder / "words.pkl").write_bytes(pickle.dumps(words, 4))
    encoder = TextEncoderConfig(name="words", file=folder / "words.pkl")
    features = FeaturesConfig(experts=tuple(experts), texts=(encoder,), captions="fused" if fused else "single")
    config = Config(work=folder / "work", features=features)
    for entry in experts:
        with open_features(entry.file) as file:
            make_features(FromFile(file, entry.name, {}, dataset), config.expert_folder(entry.name), Silent())
    with open_features(encoder.file, captions=True) as file:
        make_features(FromFile(file, "words", {}, dataset, features.captions), config.words_folder("words"), Silent())
    return config, dataset


@raw
def test_experts_and_words_of_both_splits(golden, tmp_path) -> None:
    settings = golden.meta["config"]
    config, dataset = _made(golden, tmp_path, fused=False)
    tokens = {name: expert.get("max_tokens", 0) for name, expert in settings["experts"].items()}
    experts, words = ExpertSet.open(config, tokens), WordSet.open(config, "words", dataset, settings["max_words"])
    assert list(experts.sizes) == settings["experts_sorted"]
    train = [settings["train_videos"][k] for k in golden["in/train/video"]]
    for split, videos in (("train", train), ("eval", settings["val_videos"])):
        values, there, _ = ExpertInputs(experts, videos).read(np.arange(len(videos)))
        columns = values.split([int(np.prod(size.shape)) for size in experts.sizes.values()], dim=1)
        for k, (name, size) in enumerate(experts.sizes.items()):
            wanted = golden[f"in/{split}/experts/{name}"]
            np.testing.assert_array_equal(columns[k].reshape(len(videos), *size.shape), np.nan_to_num(wanted, nan=0.0))
            np.testing.assert_array_equal(there[:, k], golden[f"in/{split}/ind/{name}"] != 0)
    texts = {text.id: text for text in dataset.texts}
    picked = [texts[f"{video}#{k}"] for video, k in zip(train, golden["in/train/picked_caption"], strict=True)]
    every = torch.arange(len(picked))
    np.testing.assert_array_equal(words.inputs(picked)[every], golden["in/train/text"][:, 0])
    masks, wanted = golden["in/eval/query_masks"], golden["in/eval/text"]
    chosen = [
        (text, wanted[row, k])
        for row, video in enumerate(settings["val_videos"])
        for k in range(masks.shape[1])
        if masks[row, k] and (text := texts[f"{video}#{k}"])
    ]
    found = words.inputs([text for text, _ in chosen])[:]
    np.testing.assert_array_equal(found, np.stack([array for _, array in chosen]))


@raw
def test_fused_captions(golden, tmp_path) -> None:
    settings = golden.meta["config"]
    config, dataset = _made(golden, tmp_path, fused=True)
    words = WordSet.open(config, "words", dataset, settings["max_words"])
    fused = {text.video: text for text in fused_captions(dataset).texts}
    train = [settings["train_videos"][k] for k in golden["in/train/video"]]
    for key, videos in (("train_text", train), ("eval_text", settings["val_videos"])):
        found = words.inputs([fused[video] for video in videos])[:]
        np.testing.assert_array_equal(found, golden[f"in/fused/{key}"][:, 0])
