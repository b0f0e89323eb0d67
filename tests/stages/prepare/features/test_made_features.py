"""Features that are made here: of frames by a trunk and by one's own expert, of captions by a text model."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from teachclip.cache.experts.cache import FeatureCache
from teachclip.cache.frames.cache import FrameCache
from teachclip.configs.schema import Config
from teachclip.errors import CheckpointError, ConfigError, PluginError
from teachclip.stages.data.dataset import read_dataset
from teachclip.stages.models.checkpoints.files import load_network
from teachclip.stages.prepare.features.stage import features
from teachclip.stages.prepare.stage import prepare
from teachclip.stages.train.stage import train

from ....conftest import World

EXAMPLES = Path(__file__).resolve().parents[4] / "examples"


@pytest.fixture(scope="module")
def asked(world: World) -> Callable[..., Config]:
    """A configuration with these experts and texts, on the world's frames."""
    prepare(world.config())

    def with_features(**sections: Any) -> Config:
        return world.config(features={"folder": f"features-{crc32(str(sections).encode()):x}", **sections})

    return with_features


def test_frame_features_of_a_trunk(world: World, asked: Callable[..., Config]) -> None:
    student = world.config(train={"run": "runs/trunk-of-an-expert", "max_steps": 1})
    train(student)
    config = asked(experts=[{"name": "clip", "model": "runs/trunk-of-an-expert"}])
    result = features(config)
    frames = FrameCache.open(config.frames_folder)
    cache = FeatureCache.open(config.expert_folder("clip"))
    assert result.caches[0].counts["ok"] == len(frames.usable)
    network = load_network(student.run_folder).eval()
    video = frames.usable[1]
    batch = frames.read([video])
    with torch.no_grad():
        wanted = network.frame_features(torch.from_numpy(batch.frames), torch.from_numpy(batch.mask))[0]
    torch.testing.assert_close(torch.from_numpy(cache.read(video)[0]), wanted[batch.mask[0]], atol=1e-5, rtol=0)
    assert cache.source(video) == frames.digest(video)
    assert features(config).caches[0].made == 0


def test_the_example_of_an_own_expert(
    world: World, asked: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(EXAMPLES)
    lines = (EXAMPLES / "colour_expert.py").read_text().partition('"""\n\nimport')[2].splitlines()
    assert len(lines) <= 20
    expert = {"name": "colour", "plugin": "colour_expert:ColourExpert", "options": {"bins": 4}}
    config = asked(experts=[expert])
    features(config)
    frames, cache = FrameCache.open(config.frames_folder), FeatureCache.open(config.expert_folder("colour"))
    assert cache.width == 13
    for video in frames.usable:
        rows = cache.read(video)[0]
        assert len(rows) == frames.read([video]).mask.sum()
        np.testing.assert_allclose(rows[:, :12].reshape(-1, 3, 4).sum(axis=2), 1, atol=1e-6)
        assert rows[0, 12] == 0


class Nothing:
    """An expert that finds something in every second video."""

    digest = "1"

    def __init__(self, device: torch.device, fail: bool = False) -> None:
        self.calls, self.fail = 0, fail

    def __call__(self, frames: np.ndarray, times: np.ndarray) -> np.ndarray | None:
        assert frames.dtype == np.uint8
        assert len(times) == len(frames)
        self.calls += 1
        if self.fail and self.calls == 3:
            raise RuntimeError("no such face")
        return np.ones(3) if self.calls % 2 else None


class Wordless(Nothing):
    digest = ""


def test_own_experts_may_find_nothing_and_fail(asked: Callable[..., Config], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "experts_for_tests", sys.modules[__name__])
    config = asked(experts=[{"name": "half", "plugin": "experts_for_tests:Nothing"}])
    counts = features(config).caches[0].counts
    assert abs(counts["ok"] - counts["missing"]) <= 1
    config = asked(experts=[{"name": "failing", "plugin": "experts_for_tests:Nothing", "options": {"fail": True}}])
    with pytest.raises(PluginError, match=r"expert 'failing' \(experts_for_tests:Nothing\): video .* failed") as told:
        features(config)
    assert told.value.details[0] == "RuntimeError: no such face"
    with pytest.raises(PluginError, match="lacks what an expert needs"):
        features(asked(experts=[{"name": "x", "plugin": "experts_for_tests:Wordless"}]))
    with pytest.raises(ConfigError, match="cannot be loaded"):
        features(asked(experts=[{"name": "x", "plugin": "experts_for_tests:Nobody"}]))


def saved_model(kind: str, folder: Path) -> None:
    """A tiny random text model in the real format, with a tokenizer of whole words."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {word: k for k, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "red", "blue", "square"])}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.normalizer = tokenizers.normalizers.Lowercase()
    special: dict[str, str] = {"unk_token": "[UNK]"}
    if kind == "bert":
        ends = [("[CLS]", 2), ("[SEP]", 3)]
        made.post_processor = tokenizers.processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
        special |= {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=made, **special).save_pretrained(folder)
    torch.manual_seed(1)
    if kind == "bert":
        sizes = transformers.BertConfig(
            vocab_size=8, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
            max_position_embeddings=12,
        )  # fmt: skip
        transformers.BertModel(sizes).save_pretrained(folder)
    elif kind == "gpt2":
        sizes = transformers.GPT2Config(vocab_size=8, n_embd=16, n_layer=2, n_head=2, n_positions=12)
        transformers.GPT2LMHeadModel(sizes).save_pretrained(folder)
    else:
        sizes = transformers.T5Config(vocab_size=8, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
        transformers.T5ForConditionalGeneration(sizes).save_pretrained(folder)


@pytest.mark.extras
@pytest.mark.parametrize("kind", ["bert", "gpt2", "t5"])
def test_words_of_a_hugging_face_model(world: World, asked: Callable[..., Config], tmp_path: Path, kind: str) -> None:
    saved_model(kind, tmp_path / kind)
    import transformers

    config = asked(texts=[{"name": kind, "huggingface": str(tmp_path / kind)}])
    features(config)
    cache = FeatureCache.open(config.words_folder(kind))
    assert cache.width == 16
    dataset = read_dataset(config.data)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / kind)
    model = transformers.AutoModel.from_pretrained(tmp_path / kind).eval()
    model = model.get_encoder() if kind == "t5" else model
    for text in dataset.texts[:7]:
        with torch.no_grad():
            wanted = model(
                **tokenizer(text.caption, return_tensors="pt", return_token_type_ids=False)
            ).last_hidden_state[0]
        found = cache.read(text.video)[int(text.id.split("#")[1])]
        torch.testing.assert_close(torch.from_numpy(found), wanted, atol=1e-6, rtol=0)
    assert features(config).caches[0].made == 0


@pytest.mark.extras
def test_a_text_model_that_is_not_there_is_told(asked: Callable[..., Config], tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    (tmp_path / "empty").mkdir()
    for name, why in (("none", "no such folder"), ("empty", "not a model that save_pretrained wrote")):
        with pytest.raises((ConfigError, CheckpointError), match=why) as told:
            features(asked(texts=[{"name": "x", "huggingface": str(tmp_path / name)}]))
        assert told.value.where == "features.texts.x.huggingface"


def without(file: Path, *parts: str) -> None:
    """The same weights but for those whose names have one of these parts."""
    kept = {name: tensor for name, tensor in load_file(file).items() if not any(part in name for part in parts)}
    save_file(kept, file, {"format": "pt"})


@pytest.mark.extras
def test_weights_that_would_be_random_are_refused(world: World, asked: Callable[..., Config], tmp_path: Path) -> None:
    saved_model("bert", tmp_path / "bert")
    without(tmp_path / "bert/model.safetensors", "layer.1.output.dense")
    with pytest.raises(CheckpointError, match=r"its weights lack encoder\.layer\.1\.output\.dense\.bias, .* random"):
        features(asked(texts=[{"name": "bert", "huggingface": str(tmp_path / "bert")}]))


@pytest.mark.extras
def test_what_hidden_states_do_not_need_may_be_missing(
    world: World, asked: Callable[..., Config], tmp_path: Path
) -> None:
    """A pooler, which is random each time that it is made: the features are the same ones when asked for again."""
    saved_model("bert", tmp_path / "bert")
    without(tmp_path / "bert/model.safetensors", "pooler.")
    config = asked(texts=[{"name": "bert", "huggingface": str(tmp_path / "bert")}])
    assert features(config).caches[0].made > 0
    assert features(config).caches[0].made == 0


@pytest.mark.extras
def test_pickled_weights_of_a_text_model_are_not_read(asked: Callable[..., Config], tmp_path: Path) -> None:
    saved_model("bert", tmp_path / "bert")
    (tmp_path / "bert/model.safetensors").rename(tmp_path / "bert/pytorch_model.bin")
    with pytest.raises(CheckpointError, match="pickled weights only"):
        features(asked(texts=[{"name": "bert", "huggingface": str(tmp_path / "bert")}]))


def test_without_transformers_the_extra_is_named(asked: Callable[..., Config], monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "transformers" else find(name))
    with pytest.raises(ConfigError, match="this needs transformers, which is not installed") as told:
        features(asked(texts=[{"name": "bert", "huggingface": "bert-base-uncased"}]))
    assert told.value.hint == "install it with the extra: pip install 'teachclip[hf]'"
