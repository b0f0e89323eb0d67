"""Models by the names that people give them: runs, files, open_clip's models; what is refused, and in which words."""

from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from safetensors.torch import save_file
from teachclip.configs.schema import TrunkSizes
from teachclip.errors import CheckpointError, ConfigError
from teachclip.stages.models.checkpoints.files import BEST, network_digest, save_network
from teachclip.stages.models.clip.tokens import VOCABULARY, tokenize, tokenize_telling
from teachclip.stages.models.common.network import VideoTextNetwork
from teachclip.stages.models.named import OPENCLIP, named_model

MODEL = "tiny-for-tests"
VISION = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}
TEXT = {"context_length": 16, "vocab_size": VOCABULARY, "width": 64, "heads": 1, "layers": 1}
SIZES = TrunkSizes(
    image_size=32, patch_size=16, vision_width=64, vision_layers=1, text_width=64, text_layers=1, embed_dim=64,
    context_length=16,
)  # fmt: skip
Make = Callable[..., VideoTextNetwork]


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    """open_clip knows a tiny model of plain CLIP's make."""
    known = {"embed_dim": 64, "vision_cfg": VISION, "text_cfg": TEXT}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, MODEL, known)


@pytest.fixture(scope="module")
def clip() -> CLIP:
    torch.manual_seed(5)
    return CLIP(64, CLIPVisionCfg(**VISION), CLIPTextCfg(**TEXT)).eval()


def saved(clip: CLIP, path: Path) -> Path:
    """The model's weights, as open_clip writes them."""
    state = {name: value.contiguous() for name, value in clip.state_dict().items()}
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("name", ["open_clip_pytorch_model.bin", "open_clip_model.safetensors"])
def test_an_open_clip_model_gives_the_numbers_of_open_clip(clip: CLIP, tmp_path: Path, name: str) -> None:
    model = named_model(f"{OPENCLIP}{MODEL}/{saved(clip, tmp_path / name)}")
    network = model.network
    assert (network.config.kind, network.config.frames, network.config.words) == ("openclip", 12, 16)
    assert not network.training
    frames = torch.randint(0, 256, (2, 12, 3, 32, 32), dtype=torch.uint8)
    mask = torch.arange(12) < torch.tensor([[12], [3]])
    pixels, slots = network.images(frames, mask)
    with torch.no_grad():
        wanted = torch.nn.functional.normalize(clip.encode_image(pixels), dim=-1)[slots]
        means = [wanted[video][mask[video]].mean(dim=0) for video in range(2)]
        ours = network.encode_videos(frames, mask)["vector"]
        ids, cut = model.tokenize(["a dog runs", "the cat"])
        texts = network.encode_texts(ids)["vector"]
        theirs = clip.encode_text(ids, normalize=True)
    torch.testing.assert_close(ours, torch.nn.functional.normalize(torch.stack(means), dim=-1))
    torch.testing.assert_close(texts, theirs)
    assert cut.tolist() == [False, False]


def test_a_relative_path_is_as_good_as_an_absolute_one(
    clip: CLIP, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weights").mkdir()
    saved(clip, tmp_path / "weights" / "clip.bin")
    monkeypatch.chdir(tmp_path)
    one = named_model(f"{OPENCLIP}{MODEL}/weights/clip.bin")
    other = named_model(f"{OPENCLIP}{MODEL}//{tmp_path.relative_to('/')}/weights/clip.bin")
    assert one.digest == other.digest == network_digest(one.network)
    assert MODEL in one.description
    assert "12 frames of 32 pixels, 64 numbers a vector" in one.description


@pytest.mark.parametrize("kind", ["student", "openclip"])
def test_a_run_folder_and_its_file_are_the_same_model(make_network: Make, tmp_path: Path, kind: str) -> None:
    network = make_network(kind=kind, sizes=SIZES)
    save_network(network, tmp_path / "run" / BEST)
    run, file = named_model(tmp_path / "run"), named_model(str(tmp_path / "run" / BEST))
    assert run.digest == file.digest == network_digest(network)
    assert (run.network.config.kind, run.network.config.words) == (kind, 10)


@pytest.mark.parametrize("kind", ["xclip", "xpool", "ts2net", "drl"])
def test_a_teacher_is_refused_in_words(make_network: Make, tmp_path: Path, kind: str) -> None:
    settings = {"ts2net": {"shift_layers": [], "selected": 1}} if kind == "ts2net" else {}
    save_network(make_network(kind=kind, sizes=SIZES, **settings), tmp_path / "run" / BEST)
    with pytest.raises(CheckpointError, match=f"kind {kind}.* no single vector per video") as error:
        named_model(tmp_path / "run")
    assert "name a student" in str(error.value)
    with pytest.raises(CheckpointError, match="other words"):
        named_model(tmp_path / "run", instead="other words")


@pytest.mark.parametrize("name", ["", MODEL, f"{MODEL}/", "hf-hub:org/repo", "hf-hub:org"])
def test_a_model_is_named_with_its_weights(name: str) -> None:
    with pytest.raises(ConfigError, match="named with its weights") as error:
        named_model(f"{OPENCLIP}{name}")
    assert "openclip:ViT-B-32-quickgelu/openai" in str(error.value)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("ViT-B-33/openai", "did you mean ViT-B-32"),
        ("ViT-B-32-quickgelu/opnai", "'opnai' is no file, and no weights of ViT-B-32-quickgelu"),
        ("RN50/opnai", "did you mean openai"),
    ],
)
def test_what_open_clip_has_not_is_told_by_the_name_that_was_given(name: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as error:
        named_model(f"{OPENCLIP}{name}")
    assert error.value.where == f"{OPENCLIP}{name}"
    assert "train.network" not in str(error.value)


def test_weights_out_of_reach_say_how_to_name_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("teachclip.stages.models.clip.catalog.cached_weights", lambda _: None)
    monkeypatch.setattr("teachclip.stages.models.clip.catalog.why_out_of_reach", lambda *_: "no network")
    with pytest.raises(CheckpointError, match="weights 'openai' of ViT-B-32-quickgelu cannot be downloaded") as error:
        named_model(f"{OPENCLIP}ViT-B-32/openai")  # whose activation the tag was not trained with
    assert "name the file: openclip:ViT-B-32-quickgelu/PATH" in str(error.value)
    assert "train.network" not in str(error.value)


def test_a_bare_clip_file_is_told_how_it_is_named(clip: CLIP, tmp_path: Path) -> None:
    path = saved(clip, tmp_path / "ViT-B-32.pt")
    with pytest.raises(CheckpointError, match=f"openclip:MODEL/{path}"):
        named_model(path)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        named_model(tmp_path / "no.safetensors")
    with pytest.raises(CheckpointError, match=f"no {BEST}"):
        named_model(tmp_path)


def test_a_model_of_other_tokens_is_refused(make_network: Make, tmp_path: Path, sizes: TrunkSizes) -> None:
    save_network(make_network(sizes=sizes), tmp_path / "own.safetensors")
    with pytest.raises(CheckpointError, match="knows 300 tokens"):
        named_model(tmp_path / "own.safetensors")


def test_longer_sentences_are_told_and_read_as_captions_are() -> None:
    sentences = ["a", "one two three four five six seven eight", "one two three four five six seven eight nine"]
    ids, cut = tokenize_telling(sentences, 10)
    assert cut.tolist() == [False, False, True]
    assert torch.equal(ids, tokenize(sentences, 10)[0])
