"""Which models make a library's vectors: students, and plain CLIP from a file; teachers are refused."""

from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from teachclip.configs.schema import NetworkConfig
from teachclip.errors import CheckpointError, ConfigError, TeachclipError
from teachclip.stages.models.build import build_network
from teachclip.stages.models.checkpoints.files import network_digest, save_network
from teachclip.stages.models.clip import catalog
from teachclip.stages.search.library.models import load_model

from ..conftest import NETWORK

CPU = torch.device("cpu")
TINY = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
}


def saved(path: Path, **changed: Any) -> str:
    torch.manual_seed(3)
    save_network(build_network(NetworkConfig.model_validate({**NETWORK, **changed})), path)
    return str(path)


@pytest.fixture
def tiny_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of open_clip's own, of a model `Tiny` that it knows."""
    known = open_clip.get_model_config
    monkeypatch.setattr(open_clip, "get_model_config", lambda name: TINY if name == "Tiny" else known(name))
    network = build_network(
        NetworkConfig.model_validate({"kind": "openclip", "words": 16, "trunk": {"model": "Tiny", "weights": None}})
    )
    torch.save(network.trunk.state_dict(), tmp_path / "tiny.pt")
    return tmp_path / "tiny.pt"


def test_a_student(tmp_path: Path) -> None:
    name = saved(tmp_path / "run/best.safetensors")
    for given in (name, str(tmp_path / "run")):
        loaded = load_model(given, CPU)
        assert not loaded.network.training
        assert loaded.digest == network_digest(loaded.network)
        described = loaded.described
        assert (described.name, described.digest, described.width, described.frames) == (given, loaded.digest, 64, 4)


def test_plain_clip_from_a_file(tiny_clip: Path) -> None:
    loaded = load_model(f"openclip:Tiny/{tiny_clip}", CPU)
    assert loaded.described.name == f"openclip:Tiny/{tiny_clip}"
    assert (loaded.described.width, loaded.described.frames) == (32, 12)
    assert loaded.network.config.words == 16
    wanted = torch.load(tiny_clip, weights_only=True)["visual.proj"]
    torch.testing.assert_close(loaded.network.trunk.visual.proj.detach(), wanted)


def test_the_activation_of_openai_is_chosen_by_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """As open_clip does: ViT-B-32 with OpenAI's weights is the model with QuickGELU."""
    asked: list[str] = []

    def fetch(model: str, tag: str, source: Any) -> Path:
        asked.append(f"{model} {tag}")
        raise CheckpointError("the weights cannot be downloaded", hint="set train.network.trunk.weights")

    monkeypatch.setattr(catalog, "_fetch", fetch)
    for name in ("openclip:ViT-B-32/openai", "openclip:ViT-B-32-quickgelu/openai", "openclip:ViT-B-32/laion2b_e16"):
        with pytest.raises(CheckpointError, match="cannot be downloaded") as caught:
            load_model(name, CPU)
        assert caught.value.where == name
        assert "name the file: openclip:ViT-B-32" in str(caught.value.hint)
    assert asked == ["ViT-B-32-quickgelu openai", "ViT-B-32-quickgelu openai", "ViT-B-32 laion2b_e16"]


@pytest.mark.parametrize(
    ("name", "what", "hint"),
    [
        ("openclip:ViT-B-32", "named with its weights", "openclip:MODEL/WEIGHTS"),
        ("openclip:ViT-B-23/openai", "no model 'ViT-B-23'", "ViT-B-32"),
        ("openclip:ViT-B-32/opnai", "'opnai' is no file", "openai"),
        ("ViT-B-32/openai", "no such checkpoint", "plain CLIP is named openclip:"),
        ("runs/none", "no such checkpoint", "name a run folder"),
    ],
)
def test_names_that_mean_nothing(name: str, what: str, hint: str) -> None:
    with pytest.raises(TeachclipError, match=what) as caught:
        load_model(name, CPU)
    assert caught.value.where == name
    assert hint in str(caught.value.hint)
    assert "train.network" not in str(caught.value)
    assert isinstance(caught.value, CheckpointError | ConfigError)


def test_a_teacher_is_told_as_one(tmp_path: Path) -> None:
    name = saved(tmp_path / "teacher.safetensors", kind="xclip")
    with pytest.raises(CheckpointError, match=r"of kind xclip.*no single vector per video") as caught:
        load_model(name, CPU)
    assert "a student that it taught, or plain CLIP: openclip:" in str(caught.value.hint)


def test_something_else_than_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_text("not one")
    with pytest.raises(CheckpointError, match="damaged"):
        load_model(str(tmp_path / "x.safetensors"), CPU)
