"""Dual encoders of transformers as teachers: tiny random models in the format that real ones are saved in."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from teachclip.cache.scores.store import ScoreStore
from teachclip.configs.loading import dump_config
from teachclip.configs.schema import TeacherConfig
from teachclip.errors import CacheMismatchError, CheckpointError, ConfigError, UnreachableError
from teachclip.pipeline.cli.main import app
from teachclip.stages.evaluate.stage import evaluate
from teachclip.stages.models.frozen import model_files
from teachclip.stages.models.frozen.dual_encoder import DualEncoder
from teachclip.stages.models.frozen.teacher import load_teacher
from teachclip.stages.runtime.run_folder import RunFolder
from teachclip.stages.score.stage import score
from teachclip.stages.train.stage import train
from typer.testing import CliRunner

transformers = pytest.importorskip("transformers", reason="transformers is not installed: make test-extras")
pytestmark = pytest.mark.extras

SIDE, WIDTH = 32, 16
CAPTIONS = ["a red square at the left", "left: something red", ""]
TEXT = {"hidden_size": WIDTH, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = {**TEXT, "image_size": SIDE, "patch_size": 16}
LETTERS = "abcdefghijklmnopqrstuvwxyz:,"


def clip(folder: Path) -> None:
    words = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    text = TEXT | {"vocab_size": len(words), "max_position_embeddings": 40, "eos_token_id": len(words) - 1}
    settings = transformers.CLIPConfig(text_config=text, vision_config=VISION, projection_dim=WIDTH)
    transformers.CLIPModel(settings).save_pretrained(folder)
    transformers.CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=40).save_pretrained(folder)
    size = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    transformers.CLIPImageProcessor(**size).save_pretrained(folder)


def word_tokenizer(**values: Any) -> Any:
    """A vocabulary of words, as SigLIP 2's tokenizer.json is one of pieces."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    words = ["<pad>", "<unk>", "</s>", "a", "red", "square", "at", "the", "left", ":", "something"]
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    special = {"pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "</s>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special, **values)


def siglip(folder: Path) -> None:
    text = TEXT | {"vocab_size": 12, "max_position_embeddings": 16, "pad_token_id": 0, "eos_token_id": 2}
    settings = transformers.SiglipConfig(text_config=text | {"projection_size": WIDTH}, vision_config=VISION)
    model = transformers.SiglipModel(settings)
    with torch.no_grad():
        model.logit_scale.fill_(2.0)
        model.logit_bias.fill_(-3.0)
    model.save_pretrained(folder)
    word_tokenizer(model_max_length=16, model_input_names=["input_ids"]).save_pretrained(folder)
    transformers.SiglipImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)


def chinese_clip(folder: Path) -> None:
    letters = [*("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"), *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    text = TEXT | {"vocab_size": len(letters), "max_position_embeddings": 512}
    settings = transformers.ChineseCLIPConfig(text_config=text, vision_config=VISION, projection_dim=WIDTH)
    transformers.ChineseCLIPModel(settings).save_pretrained(folder)
    vocabulary = {letter: number for number, letter in enumerate(letters)}
    transformers.BertTokenizer(vocab=vocabulary, model_max_length=512).save_pretrained(folder)
    size = {"size": {"height": SIDE, "width": SIDE}, "do_center_crop": False}
    transformers.ChineseCLIPImageProcessor(**size).save_pretrained(folder)


def align(folder: Path) -> None:
    vision = {
        "image_size": SIDE, "width_coefficient": 1.0, "depth_coefficient": 1.0, "in_channels": [32, 8],
        "out_channels": [8, WIDTH], "kernel_sizes": [3, 3], "strides": [1, 2], "num_block_repeats": [1, 1],
        "expand_ratios": [1, 2], "depthwise_padding": [], "hidden_dim": WIDTH,
    }  # fmt: skip
    text = TEXT | {"vocab_size": 12, "max_position_embeddings": 512}
    settings = transformers.AlignConfig(
        text_config=text, vision_config=vision, projection_dim=WIDTH, temperature_init_value=0.05
    )
    transformers.AlignModel(settings).save_pretrained(folder)
    word_tokenizer(model_max_length=512).save_pretrained(folder)
    size = {"size": {"height": 40, "width": 40}, "crop_size": {"height": SIDE, "width": SIDE}}
    transformers.EfficientNetImageProcessor(**size, do_center_crop=True).save_pretrained(folder)


KINDS: dict[str, Callable[[Path], None]] = {
    "clip": clip, "siglip": siglip, "chinese-clip": chinese_clip, "align": align,
}  # fmt: skip
WORDS = {"clip": 40, "siglip": 16, "chinese-clip": 77, "align": 77}
SCALES = {"clip": torch.tensor(2.6592).exp(), "siglip": torch.tensor(2.0).exp(), "align": 20.0}
SCALES["chinese-clip"] = SCALES["clip"]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a model of each kind."""
    root = tmp_path_factory.mktemp("models")
    for kind, make in KINDS.items():
        torch.manual_seed(1)
        make(root / kind)
    return root


def entry(model: Path | str, **settings: Any) -> dict[str, Any]:
    return {"name": "dual", "transformers": {"model": str(model)}, "frames": 4} | settings


def teacher(model: Path | str, **settings: Any) -> DualEncoder:
    loaded = load_teacher(TeacherConfig(**entry(model, **settings)), None)
    assert isinstance(loaded, DualEncoder)
    return loaded


def frames(videos: int = 3, side: int = SIDE) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (videos, 4, 3, side, side), dtype=torch.uint8, generator=random)
    mask = torch.arange(4) < torch.tensor([4, 2, 1])[:videos, None]
    return pixels, mask, torch.zeros(videos, 4, dtype=torch.float64).where(mask, torch.nan)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", [SIDE, 50])
def test_features_are_the_librarys_own(models: Path, kind: str, side: int) -> None:
    """From pictures of the stored frames, and captions, to vectors: as its documentation computes them."""
    folder, given = models / kind, frames(side=side)
    mine = teacher(folder)
    assert (mine.words, mine.frames) == (WORDS[kind], 4)
    assert mine.scale == pytest.approx(float(SCALES[kind]), rel=1e-5)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    pixels = transformers.AutoImageProcessor.from_pretrained(folder)(
        images=[each.permute(1, 2, 0).numpy() for each in given[0].flatten(0, 1)], return_tensors="pt"
    )
    tokens = transformers.AutoTokenizer.from_pretrained(folder)(
        CAPTIONS, padding="max_length", truncation=True, max_length=WORDS[kind], return_tensors="pt"
    )
    with torch.no_grad():
        images = model.get_image_features(**pixels).pooler_output.unflatten(0, (3, 4))
        sentences = model.get_text_features(**tokens).pooler_output
    videos, texts = mine.encode_videos(*given), mine.encode_texts(CAPTIONS)
    unit = torch.nn.functional.normalize(images, dim=-1)
    torch.testing.assert_close(videos["frames"], unit, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(texts["vector"], torch.nn.functional.normalize(sentences, dim=-1), rtol=1e-5, atol=1e-6)
    middle = torch.nn.functional.normalize((unit * given[1][..., None]).sum(1) / given[1].sum(1)[:, None], dim=-1)
    torch.testing.assert_close(mine.score(texts, videos), texts["vector"] @ middle.T, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        mine.frame_logits(texts, videos), (unit * texts["vector"][:, None]).sum(-1), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("kind", KINDS)
def test_no_caption_or_video_depends_on_its_neighbours(models: Path, kind: str) -> None:
    mine, given = teacher(models / kind), frames()
    videos, texts = mine.encode_videos(*given), mine.encode_texts(CAPTIONS)
    alone = mine.encode_videos(*(each[1:2] for each in given))
    torch.testing.assert_close(alone["vector"], videos["vector"][1:2], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(mine.encode_texts(CAPTIONS[1:2])["vector"], texts["vector"][1:2], rtol=1e-5, atol=1e-6)


def test_its_own_pixels_are_told(models: Path) -> None:
    assert teacher(models / "siglip").pixels == "32x32 pixels, whole, mean 0.5, 0.5, 0.5"
    assert teacher(models / "clip").pixels == "32 pixels, cut to its middle, mean 0.481, 0.458, 0.408"


def test_it_scores_and_teaches(world: Any, models: Path, heard: Any) -> None:
    settings = world.config(
        score={"teachers": [entry(models / "siglip")], "store": "dual.zarr"},
        train={"run": "runs/dual", "teachers": ["dual"], "epochs": 1},
        evaluate={"run": "runs/dual"},
    )
    (scores,) = score(settings, heard).teachers
    assert (scores.texts, scores.videos) == (28, 14)
    assert any(line.startswith("dual sees 32x32 pixels, whole") for line in heard.infos)
    cache = ScoreStore.open(settings.score_store).teacher("dual")
    assert (cache.frame_logits, cache.identity["words"]) == (True, 16)
    train(settings)
    logged = [line for line in RunFolder(settings.run_folder).metrics() if line["kind"] == "train"]
    assert all(line["coarse"] > 0 and line["fine"] > 0 for line in logged)
    assert evaluate(settings).texts == 12  # captions of the world's six test videos


def test_a_folder_is_known_by_its_contents(world: Any, models: Path, tmp_path: Path) -> None:
    def scored(folder: Path) -> int:
        chosen = {"teachers": [entry(folder)], "store": "known.zarr"}
        return score(world.config(score=chosen)).teachers[0].shards_now

    assert scored(models / "clip") == 2
    shutil.copytree(models / "clip", tmp_path / "elsewhere")
    (tmp_path / "elsewhere/README.md").write_text("a copy")
    assert scored(tmp_path / "elsewhere") == 0
    changed = json.loads((tmp_path / "elsewhere/preprocessor_config.json").read_text())
    (tmp_path / "elsewhere/preprocessor_config.json").write_text(json.dumps(changed | {"image_mean": [0.5, 0.5, 0.5]}))
    with pytest.raises(CacheMismatchError, match="weights"):
        scored(tmp_path / "elsewhere")


# The hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the hub's that holds one commit of one model, and a hub that does not answer."""
    cache = tmp_path / "hub"
    held = cache / "models--somebody--tiny"
    shutil.copytree(models / "siglip", held / "snapshots" / COMMIT)
    (held / "refs").mkdir()
    (held / "refs/main").write_text(COMMIT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(model_files, "why_out_of_reach", lambda *_: "nobody answers")
    monkeypatch.chdir(tmp_path)
    return cache


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_a_model_of_the_hub_is_known_by_its_commit(hub: Path, revision: str | None) -> None:
    found = teacher("somebody/tiny", transformers={"model": "somebody/tiny", "revision": revision})
    assert found.weights_digest == f"somebody/tiny@{COMMIT}"


def test_a_folder_wins_over_the_hub(hub: Path, models: Path, tmp_path: Path) -> None:
    (tmp_path / "somebody").mkdir()
    shutil.copytree(models / "clip", tmp_path / "somebody/tiny")
    assert "@" not in teacher("somebody/tiny").weights_digest
    with pytest.raises(ConfigError, match="is a folder, which has no revision"):
        teacher("", transformers={"model": "somebody/tiny", "revision": "main"})


@pytest.mark.parametrize("revision", [None, "other", COMMIT[::-1]])
def test_a_hub_that_does_not_answer(hub: Path, revision: str | None) -> None:
    model = "somebody/other" if revision is None else "somebody/tiny"
    with pytest.raises(UnreachableError, match="was not fetched before, and the hub does not answer\nnobody answers"):
        teacher("", transformers={"model": model, "revision": revision})


def test_a_name_that_the_hub_does_not_know(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object, **__: object) -> str:
        raise huggingface_hub.errors.EntryNotFoundError("404 no such repository\nsecond line")

    monkeypatch.setattr(model_files, "why_out_of_reach", lambda *_: None)
    monkeypatch.setattr(model_files, "snapshot_download", refuses)
    with pytest.raises(CheckpointError, match=r"the hub has no somebody/odd at revision v2\nEntryNotFoundError: 404"):
        teacher("", transformers={"model": "somebody/odd", "revision": "v2"})


# Refused


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def without(*names: str) -> Callable[[Path], None]:
    return lambda folder: [(folder / name).unlink() for name in names] and None


def half_loaded(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    kept = {key: value for key, value in weights.items() if "projection" not in key}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def other_words(folder: Path) -> None:
    chinese_clip(folder.parent / "other")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder.parent / "other" / name, folder / name)
    settings = json.loads((folder / "config.json").read_text())
    settings["text_config"]["vocab_size"] = 58
    (folder / "config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (pickled, r"pickled weights only \(pytorch_model.bin\), which run code"),
        (without("model.safetensors"), "has no weights"),
        (without("config.json"), "has no config.json"),
        (without("preprocessor_config.json"), "has no image processor"),
        (without("tokenizer.json"), "has no tokenizer"),
        (half_loaded, "its weights lack text_projection.weight, visual_projection.weight, which would be random"),
        (other_words, "its tokenizer knows 61 tokens, its text tower 58: they are of two models"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be loaded\n.*JSON"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"no"), "cannot be loaded\n"),
    ],
)
def test_a_folder_that_lacks_something(models: Path, tmp_path: Path, spoil: Any, said: str) -> None:
    shutil.copytree(models / "clip", tmp_path / "spoilt")
    spoil(tmp_path / "spoilt")
    with pytest.raises(CheckpointError, match=said) as refused:
        teacher(tmp_path / "spoilt")
    assert len(str(refused.value).splitlines()) <= 3


def test_a_model_whose_text_depends_on_the_video(tmp_path: Path) -> None:
    text = TEXT | {"vocab_size": 60, "max_position_embeddings": 16}
    vision = VISION | {"mit_hidden_size": WIDTH, "mit_intermediate_size": 16, "mit_num_attention_heads": 2}
    settings = transformers.XCLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH)
    settings.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").touch()  # not looked at
    with pytest.raises(CheckpointError, match="X-CLIP of transformers: its sentence features depend on the video"):
        teacher(tmp_path)


def test_a_model_that_is_no_dual_encoder(models: Path, tmp_path: Path) -> None:
    model = transformers.AutoModel.from_pretrained(models / "clip")
    model.text_model.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="is no dual encoder of pictures and sentences"):
        teacher(tmp_path)


def test_code_beside_a_model_is_not_run(models: Path, tmp_path: Path) -> None:
    shutil.copytree(models / "clip", tmp_path / "own")
    settings = json.loads((tmp_path / "own/config.json").read_text())
    settings |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}}
    (tmp_path / "own/config.json").write_text(json.dumps(settings))
    (tmp_path / "own/evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        teacher(tmp_path / "own")
    assert not (tmp_path / "ran").exists()


def test_the_command_says_it_in_a_line(world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = world.config(score={"teachers": [entry(tmp_path / "no/such/folder")], "store": "none.zarr"})
    (tmp_path / "config.yaml").write_text(dump_config(settings))
    said = CliRunner().invoke(app, ["score", str(tmp_path / "config.yaml"), "--quiet"]).stderr.splitlines()
    assert "there is no such folder, and no model of the hub is called so" in " ".join(said)
    assert len(said) <= 3


def test_frames_of_another_number_are_refused(models: Path) -> None:
    with pytest.raises(CheckpointError, match="takes 12 frames; these are 4"):
        teacher(models / "clip", frames=12).encode_videos(*frames())


def test_words_are_the_models_own(models: Path) -> None:
    with pytest.raises(ValueError, match="words of its own"):
        TeacherConfig(**entry(models / "clip", words=20))
