"""A re-ranker as a teacher: pairs that another teacher chooses, scored, taught with, and told about beforehand."""

import csv
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from teachclip.cache.scores.store import ScoreStore
from teachclip.configs.loading import dump_config
from teachclip.errors import CacheError, CheckpointError, ConfigError, DataError, PluginError
from teachclip.pipeline.cli.main import app
from teachclip.stages.data.dataset import read_dataset
from teachclip.stages.evaluate.stage import evaluate
from teachclip.stages.labels.denoise import denoise
from teachclip.stages.runtime.run_folder import RunFolder
from teachclip.stages.score.chance_check import own_ranks
from teachclip.stages.score.estimate import estimate_scores
from teachclip.stages.score.rescore import rescore
from teachclip.stages.score.stage import score
from teachclip.stages.train.stage import train
from typer.testing import CliRunner

OVERLAP = """
class Overlap:
    score_version = 1
    seen = []

    def __init__(self, name, device, factor=1.0):
        self.factor, self.weights_digest = factor, f"overlap {factor}"

    def predict(self, pairs):
        Overlap.seen.append(pairs)
        return [self.factor * len(set(a.split()) & set(b.split())) for a, b in pairs]


class Brightness(Overlap):
    def predict(self, pairs):
        Overlap.seen.append(pairs)
        return [sum(sum(picture.getpixel((0, 0))) for picture in pictures) / 1000 for _, pictures in pairs]


class Wrong(Overlap):
    def predict(self, pairs):
        return [[1.0, 2.0] for _ in pairs]


class Broken(Overlap):
    def predict(self, pairs):
        return [float("nan")] * len(pairs)


class Lacking:
    score_version = "1"
"""
XCLIP = {"name": "xclip", "checkpoint": "runs/xclip"}
TEST_TEXTS = 12  # captions of the world's six test videos


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of the module above, in the current folder."""
    name = f"overlap_{abs(hash(tmp_path)):x}"
    (tmp_path / f"{name}.py").write_text(OVERLAP)
    monkeypatch.chdir(tmp_path)
    yield name
    sys.modules.pop(name, None)


def entry(model: str, **settings: Any) -> dict[str, Any]:
    return {"name": "pairs", "cross_encoder": {"model": model, "by": "xclip", "top": 4} | settings}


@pytest.fixture
def config(world: Any, module: str, tmp_path: Path) -> Any:
    """`config(Class, **settings)`: the world scored by X-CLIP and a re-ranker into a store of the test's own."""

    def make(kind: str = "Overlap", model: str = "", section: dict[str, Any] | None = None, **settings: Any) -> Any:
        given = {"teachers": [XCLIP, entry(model or f"{module}:{kind}", **settings)], "store": tmp_path / "s.zarr"}
        train = {"run": tmp_path / "run", "teachers": ["pairs"], "epochs": 1, "loss": {"fine": 0.0}}
        return world.config(score=given | (section or {}), train=train, evaluate={"run": tmp_path / "run"})

    return make


def stored(settings: Any, name: str = "pairs") -> tuple[Any, np.ndarray]:
    """A teacher's tile, and its scores."""
    from teachclip.cache.scores.reading.tile_rows import TileRows

    (tile,) = ScoreStore.open(settings.score_store).teacher(name).tiles
    return tile, TileRows(tile).scores(np.arange(tile.spec.texts))


def test_the_best_of_another_teacher_and_the_own_video_are_scored(config: Any, module: str, heard: Any) -> None:
    settings = config(section={"coarse": "float32"})
    _, result = score(settings, heard).teachers
    tile, scores = stored(settings)
    _, by = stored(settings, "xclip")
    rows, own = np.arange(28), tile.text_video
    expected = np.zeros(scores.shape, bool)
    np.put_along_axis(expected, np.argsort(-by, axis=1, kind="stable")[:, :4], True, axis=1)
    expected[rows, own] = True
    np.testing.assert_array_equal(~np.isnan(scores), expected)
    captions: dict[str, list[tuple[str, str]]] = {}
    for text in read_dataset(settings.data).texts_of("train"):
        captions.setdefault(text.video, []).append((text.id, text.caption))
    said = {key: caption for each in captions.values() for key, caption in each}
    for row, column in np.argwhere(expected):
        text, video = tile.text_ids[row], tile.video_ids[column]
        document = ". ".join(caption for key, caption in captions[video] if key != text)
        assert scores[row, column] == len(set(said[text].split()) & set(document.split()))
    cache = ScoreStore.open(settings.score_store).teacher("pairs")
    assert (cache.identity["sparse"], cache.frame_logits, cache.scale) == (4, False, 1.0)
    assert str(cache.identity["chosen by"]).startswith("xclip ")
    told = next(line for line in heard.infos if line.startswith("pairs: about"))
    assert "140 pairs, of 28 captions the 4 videos that xclip finds best, and the own one" in told
    assert "hours at" in told
    assert result.own_ranks is not None
    assert result.own_ranks.videos in (4, 5)
    assert score(settings).teachers[1].shards_now == 0


def test_a_killed_run_ends_with_the_same_bytes(config: Any, heard: Any, tmp_path: Path) -> None:
    settings = config(section={"shard_texts": 8, "text_batch": 5})
    score(settings)
    files = [path for path in (tmp_path / "s.zarr/pairs").rglob("c.*") if "videos" not in path.parts]
    whole = {path: path.read_bytes() for path in files}
    for name in ("done/00001.json", "coarse/c.1.0", "coarse_codec/c.1.0"):
        (tmp_path / "s.zarr/pairs/tiles/dense" / name).unlink()
    assert score(settings, heard).teachers[1].shards_now == 1
    assert any(line.startswith("pairs: about 40 pairs, of 8 captions") for line in heard.infos)  # the lost ones
    assert {path: path.read_bytes() for path in files} == whole


def test_frames_come_as_pictures(config: Any, module: str) -> None:
    settings = config("Brightness", video="frames")
    score(settings)
    assert np.nanmin(stored(settings)[1]) > 0
    pairs = sys.modules[module].Overlap.seen[-1]
    assert {(picture.size, picture.mode) for _, pictures in pairs for picture in pictures} == {((32, 32), "RGB")}
    assert {len(pictures) for _, pictures in pairs} <= {3, 4}


def test_it_teaches_a_student(config: Any, heard: Any, tmp_path: Path) -> None:
    settings = config(top=8)
    score(settings)
    train(settings, heard)
    told = next(line for line in [*heard.infos, *heard.warnings] if line.startswith("pairs scored"))
    assert told.startswith("pairs scored 8 of 14 videos for each caption: in a batch of 8, 5.3 on average")
    logged = [line for line in RunFolder(settings.run_folder).metrics() if line["kind"] == "train"]
    assert all(line["coarse"] > 0 for line in logged)
    assert not any("untaught" in line for line in logged)
    assert evaluate(settings).texts == TEST_TEXTS


def test_batches_without_enough_pairs_are_told_and_counted(config: Any, heard: Any) -> None:
    settings = config(top=2)
    settings = settings.model_copy(update={"train": settings.train.model_copy(update={"batch_size": 3})})
    score(settings)
    train(settings, heard)
    assert any("teach nothing" in line for line in heard.warnings)
    logged = [line for line in RunFolder(settings.run_folder).metrics() if line["kind"] == "train"]
    empty = [line for line in logged if line.get("untaught")]
    assert empty
    assert all(line["coarse"] == 0 for line in empty)
    assert any(line.startswith(f"{len(empty)} of {len(logged)} steps had no pairs") for line in heard.infos)


def test_the_estimate_counts_its_pairs_and_says_a_time(config: Any, tmp_path: Path) -> None:
    settings = config()
    dense, sparse = estimate_scores(settings).teachers
    assert (dense.pairs, sparse.pairs, sparse.pairs_left) == (28 * 14, 28 * 5, 28 * 5)
    assert dense.seconds is None
    assert sparse.seconds is not None
    assert sparse.timed == 64
    (tmp_path / "config.yaml").write_text(dump_config(settings))
    said = CliRunner().invoke(app, ["cache", "estimate", str(tmp_path / "config.yaml")]).stdout
    assert "measured on 64 pairs now" in said


def test_what_needs_every_pair_says_so(config: Any, heard: Any) -> None:
    settings = config()
    score(settings)
    with pytest.raises(ConfigError, match="is a re-ranker, which scores few pairs"):
        rescore(settings, "pairs", 4, 0, heard)
    denoised = settings.model_copy(update={"denoise": settings.denoise.model_copy(update={"teachers": ("pairs",)})})
    with pytest.raises(CacheError, match="pairs scored 4 videos of each caption, and this needs every pair"):
        denoise(denoised, heard)
    online = settings.model_copy(update={"train": settings.train.model_copy(update={"teaching": "online"})})
    with pytest.raises(ConfigError, match="is a re-ranker"):
        train(online)


@pytest.mark.parametrize(
    ("kind", "error", "said"),
    [
        ("Wrong", PluginError, r"predict returns an array \[\d+, 2\] instead of a number for each of \d+ pairs"),
        ("Broken", CacheError, "scores that are not finite"),
        (
            "Lacking",
            PluginError,
            "(?s)lacks what a re-ranker needs.*version: '1'.*weights_digest: missing.*pairs",
        ),
    ],
)
def test_a_class_that_is_no_re_ranker(config: Any, kind: str, error: type[Exception], said: str, module: str) -> None:
    if kind == "Lacking":
        Path(f"{module}.py").write_text(OVERLAP + "\n    def __init__(self, name, device):\n        pass\n")
    with pytest.raises(error, match=said):
        score(config(kind))


def test_who_chooses_must_have_scored_all(config: Any, module: str) -> None:
    with pytest.raises(CacheError, match="pairs scores what clip finds best, and clip has no scores yet"):
        score(config(by="clip"))
    settings = config()
    score(settings)
    third = entry(f"{module}:Overlap", by="pairs") | {"name": "third"}
    again = settings.score.model_copy(update={"teachers": (type(settings.score.teachers[0])(**third),)})
    with pytest.raises(ConfigError, match="pairs scored few pairs itself"):
        score(settings.model_copy(update={"score": again}))
    with pytest.raises(ValueError, match="cannot choose its own candidates"):
        config(by="pairs")


def test_videos_with_one_caption_have_nothing_to_compare(world: Any, config: Any, tmp_path: Path) -> None:
    rows = list(csv.reader((world.root / "captions.csv").read_text().splitlines()))
    kept = [rows[0], *(row for k, row in enumerate(rows[1:]) if k != 1)]
    with (world.root / "fewer.csv").open("w", newline="") as file:
        csv.writer(file).writerows(kept)
    settings = config()
    data = settings.data.model_copy(update={"captions": world.root / "fewer.csv"})
    with pytest.raises(DataError, match="1 video has fewer than two captions") as refused:
        score(settings.model_copy(update={"data": data}))
    assert "set it to frames" in str(refused.value)


def test_ranks_are_among_what_was_scored() -> None:
    random = np.random.default_rng(0)
    scores = np.full((60, 40), np.nan)
    for row in range(60):
        scores[row, (row + np.arange(5)) % 40] = random.normal(size=5)
    good = scores.copy()
    good[np.arange(60), np.arange(60) % 40] = 9
    found, chance = own_ranks(good, np.arange(60) % 40), own_ranks(scores, np.arange(60) % 40)
    assert found is not None
    assert chance is not None
    assert (found.r1, found.videos, found.near_chance) == (100, 5, False)
    assert chance.near_chance
    assert 0.35 < chance.normalised < 0.65


# Of sentence-transformers

LETTERS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "a",
    "red",
    "square",
    "at",
    "the",
    "left",
    "something",
    ":",
    ".",
]


def tiny(folder: Path, labels: int = 1, kind: str = "BertForSequenceClassification") -> None:
    """A random re-ranker in the format that real ones are saved in."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed: make test-extras")
    settings = transformers.BertConfig(
        vocab_size=len(LETTERS), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=64, num_labels=labels,
    )  # fmt: skip
    getattr(transformers, kind)(settings).save_pretrained(folder)
    vocabulary = {letter: number for number, letter in enumerate(LETTERS)}
    transformers.BertTokenizer(vocab=vocabulary, model_max_length=64).save_pretrained(folder)


@pytest.fixture
def reranker(tmp_path: Path) -> Path:
    pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed: make test-extras")
    import torch

    torch.manual_seed(0)
    tiny(tmp_path / "reranker")
    return tmp_path / "reranker"


@pytest.mark.extras
def test_a_cross_encoder_scores_raw_logits_and_teaches(config: Any, reranker: Path, heard: Any) -> None:
    import torch
    import transformers

    settings = config(model=str(reranker), top=8, scale=5.0, section={"coarse": "float32"})
    score(settings, heard)
    tile, scores = stored(settings)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(reranker).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(reranker)
    captions = {text.id: text for text in read_dataset(settings.data).texts_of("train")}
    row = 3
    (column,) = np.flatnonzero(~np.isnan(scores[row]))[:1]
    mine = captions[tile.text_ids[row]]
    others = [each.caption for each in captions.values() if each.video == tile.video_ids[column] and each.id != mine.id]
    with torch.no_grad():
        expected = model(**tokenizer(mine.caption, ". ".join(others), return_tensors="pt")).logits[0, 0]
    assert float(scores[row, column]) == pytest.approx(float(expected), rel=1e-4)
    assert ScoreStore.open(settings.score_store).teacher("pairs").scale == 5.0
    train(settings, heard)
    logged = [line for line in RunFolder(settings.run_folder).metrics() if line["kind"] == "train"]
    assert all(line["coarse"] > 0 for line in logged)
    assert evaluate(settings).texts == TEST_TEXTS


@pytest.mark.extras
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ("base", "is no re-ranker: it holds BertModel, whose score would be random"),
        ("labels", "gives 3 numbers for a pair, not one"),
        ("pickled", r"pickled weights only \(pytorch_model.bin\)"),
        ("pictures", "reads text, and no video"),
    ],
)
def test_a_folder_that_holds_no_re_ranker(config: Any, reranker: Path, spoil: str, said: str) -> None:
    settings = {"video": "frames"} if spoil == "pictures" else {}
    if spoil in ("base", "labels"):
        shutil.rmtree(reranker)
        tiny(reranker, *((3,) if spoil == "labels" else (1, "BertModel")))
    elif spoil == "pickled":
        (reranker / "model.safetensors").rename(reranker / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=said):
        score(config(model=str(reranker), **settings))


@pytest.mark.extras
def test_another_re_ranker_under_the_same_name_is_refused(config: Any, reranker: Path) -> None:
    settings = config(model=str(reranker))
    score(settings)
    changed = json.loads((reranker / "tokenizer_config.json").read_text())
    (reranker / "tokenizer_config.json").write_text(json.dumps(changed | {"model_max_length": 32}))
    with pytest.raises(CacheError, match="weights"):
        score(settings)
