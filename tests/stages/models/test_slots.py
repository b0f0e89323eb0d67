"""More words or frames than a network has positions for: refused at every door."""

import json
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from teachclip.configs.schema import NetworkConfig, TeacherConfig
from teachclip.errors import CheckpointError, ConfigError
from teachclip.stages.models.build import KINDS as EVERY
from teachclip.stages.models.build import build_network, network_class
from teachclip.stages.models.checkpoints.convert import convert
from teachclip.stages.models.checkpoints.files import from_published, load_network
from teachclip.stages.models.checkpoints.inspect import inspect
from teachclip.stages.models.clip import hub
from teachclip.stages.models.clip.trunk import ClipTrunk
from teachclip.stages.models.frozen.teacher import load_teacher
from teachclip.stages.models.weights.names import published_name

KINDS = [kind for kind in EVERY if kind not in ("ce", "moee")]  # those that have a trunk


@pytest.mark.parametrize("kind", KINDS)
def test_a_configuration_with_more_words_than_positions_is_refused(sizes, kind) -> None:
    trunk = {"sizes": sizes.model_dump(), "weights": None}
    assert NetworkConfig(kind=kind, trunk=trunk, words=16).words == 16
    with pytest.raises(ValidationError, match=r"words: 17 are more than .*context_length: 16"):
        NetworkConfig(kind=kind, trunk=trunk, words=17)
    with pytest.raises(ValidationError, match="words: 32 are more"):
        NetworkConfig(kind=kind, trunk=trunk)  # which has 32 unless they are set


def test_a_teacher_is_refused_where_it_is_configured(sizes) -> None:
    with pytest.raises(ValidationError, match="words: 17 are more"):
        TeacherConfig(name="t", openclip={"sizes": sizes.model_dump(), "weights": None}, words=17)
    TeacherConfig(name="t", openclip={"sizes": sizes.model_dump(), "weights": None}, words=16)


@pytest.mark.parametrize("kind", KINDS)
def test_a_named_model_is_refused_before_its_weights_are_fetched(monkeypatch, kind) -> None:
    monkeypatch.setattr(hub, "_ask", lambda *_: pytest.fail("asked"))
    config = NetworkConfig(kind=kind, words=78)
    with pytest.raises(
        ConfigError, match="78 words are asked for; this trunk's text tower has 77 positions"
    ) as refusal:
        build_network(config)
    assert "train.network.words=77" in str(refusal.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_around_a_given_trunk_is_refused(sizes, kind) -> None:
    with pytest.raises(ConfigError, match="17 words"):
        network_class(kind)(NetworkConfig(kind=kind, words=17, ts2net={"shift_layers": ()}), ClipTrunk(sizes))


@pytest.fixture
def student(make_network, tmp_path: Path) -> Path:
    """A published student, of 16 positions for words and for frames."""
    state = make_network(mask_padding=False).state_dict()
    torch.save({published_name(name): value for name, value in state.items()}, tmp_path / "n.bin")
    return tmp_path / "n.bin"


SAID = {"words": "text tower has 16 positions, and 17 words", "frames": "transformer has 16 positions, and 17 frames"}


@pytest.mark.parametrize("slot", SAID)
def test_published_checkpoints_are_refused_at_every_door(student, slot) -> None:
    network = load_network(student, **{slot: 16})
    assert getattr(network.config, slot) == 16
    doors = [
        lambda: load_network(student, **{slot: 17}),
        lambda: from_published(torch.load(student, weights_only=True), **{slot: 17}),
        lambda: convert(student, student.with_name("out.safetensors"), **{slot: 17}),
        lambda: load_teacher(TeacherConfig(name="t", checkpoint=student, **{slot: 17}), student),
    ]
    for door in doors:
        with pytest.raises(CheckpointError, match=SAID[slot]):
            door()
    assert not student.with_name("out.safetensors").exists()


def test_a_network_without_temporal_positions_takes_any_number_of_frames(make_network, tmp_path) -> None:
    state = make_network(temporal_layers=0, pooling="mean", mask_padding=False).state_dict()
    torch.save({published_name(name): value for name, value in state.items()}, tmp_path / "n.bin")
    assert load_network(tmp_path / "n.bin", frames=40).config.frames == 40


def test_an_xclip_of_more_words_than_positions_is_refused(make_network, tmp_path) -> None:
    state = {published_name(k): v for k, v in make_network(kind="xclip", mask_padding=False).state_dict().items()}
    for name in ("word_logit_weight", "word_mat_weight", "word_mat_weight2"):
        state[name] = torch.eye(17)
    with pytest.raises(CheckpointError, match="words: 17 are more"):
        from_published(state)


def test_a_file_of_ours_is_refused_in_words(make_network, tmp_path) -> None:
    network = make_network()
    note = {"format": 1, "network": network.config.model_dump(mode="json") | {"words": 17}}
    save_file(network.state_dict(), tmp_path / "n.safetensors", metadata={"teachclip": json.dumps(note)})
    with pytest.raises(CheckpointError, match="words: 17 are more"):
        load_network(tmp_path / "n.safetensors")
    refused = inspect(tmp_path / "n.safetensors").refused
    assert refused is not None
    assert "words: 17 are more" in refused.details[0]


def test_more_frames_than_the_text_tower_has_positions_are_no_limit_of_ours(make_network) -> None:
    """A network of ours has a position for every frame."""
    network = make_network(frames=20)
    assert network.temporal is not None
    assert len(network.temporal.positions) == 20
