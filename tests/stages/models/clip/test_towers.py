"""Every family of open_clip's models: the features that open_clip computes, and what each gives besides."""

from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from teachclip.configs.schema import NetworkConfig, TrunkConfig
from teachclip.errors import CheckpointError, ConfigError
from teachclip.stages.models.build import build_network
from teachclip.stages.models.checkpoints.files import (
    class_token_digest,
    load_network,
    network_digest,
    save_network,
)
from teachclip.stages.models.checkpoints.inspect import inspect
from teachclip.stages.models.clip.base import Trunk
from teachclip.stages.models.clip.catalog import description, resolved
from teachclip.stages.models.clip.loading import build_trunk
from teachclip.stages.models.named import OPENCLIP, named_model
from teachclip.stages.train.step.speed import prepare_for_speed
from torch import Tensor, nn

CAPTIONS = ["a dog runs", "the cat sleeps on a red chair", "one two three four five six seven eight nine ten eleven"]
GIVE_WORDS = {"PE-Core", "EVA", "ViTamin", "ConvNeXt", "Swin", "ResNet"}
Theirs = Callable[[str], nn.Module]


def saved(model: nn.Module, path: Path) -> Path:
    """As open_clip writes it."""
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return path


def ours(family: str, model: nn.Module, tmp_path: Path) -> Trunk:
    path = saved(model, tmp_path / "open_clip_model.safetensors")
    return build_trunk(TrunkConfig(model=f"tiny {family}", weights=str(path))).eval()


def config(family: str, **settings: object) -> NetworkConfig:
    trunk = TrunkConfig(model=f"tiny {family}", weights=None)
    return NetworkConfig(trunk=trunk, **{"frames": 3, "words": 8, "temporal_layers": 1, **settings})


@torch.no_grad()
def test_features_are_open_clips_own(family: str, theirs: Theirs, tmp_path: Path) -> None:
    model = theirs(family)
    trunk = ours(family, model, tmp_path)
    pixels = torch.randn(3, 3, trunk.image_size, trunk.image_size)
    torch.testing.assert_close(trunk.encode_frames(pixels), model.encode_image(pixels, normalize=False))
    ids = open_clip.SimpleTokenizer(context_length=16)(CAPTIONS)
    expected = model.encode_text(ids, normalize=False)
    torch.testing.assert_close(trunk.encode_sentences(trunk.tokenizer(CAPTIONS, trunk.context_length)), expected)
    short = trunk.word_slots(10)  # the third caption has more words
    torch.testing.assert_close(trunk.encode_sentences(trunk.tokenizer(CAPTIONS[:2], short)), expected[:2])
    assert trunk.words == (family in GIVE_WORDS)
    if trunk.words:
        words, sentences = trunk.encode_words(ids)
        torch.testing.assert_close(sentences, expected)
        assert words.shape == (3, 16, 64)


def test_a_network_trains_is_saved_and_loads_to_the_same(family: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build_network(config(family))
    size = network.trunk.image_size
    frames = torch.randint(0, 256, (2, 3, 3, size, size), dtype=torch.uint8)
    mask = torch.tensor([[True, True, True], [True, False, False]])
    ids = network.tokenize(CAPTIONS[:2])
    assert ids.shape[1] == network.config.words == (8 if network.trunk.word_slots(8) == 8 else 16)
    before = {name: value.clone() for name, value in network.named_buffers()}
    scores = network.train().score(network.encode_texts(ids), network.encode_videos(frames, mask))
    (network.logit_scale.exp() * scores).square().sum().backward()
    lacking = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert lacking == []
    assert all(torch.equal(value, before[name]) for name, value in network.named_buffers())  # BatchNorms' statistics
    save_network(network, tmp_path / "run" / "best.safetensors")
    loaded = load_network(tmp_path / "run")
    assert loaded.config == network.config
    assert network_digest(loaded) == network_digest(network)
    with torch.no_grad():
        for one, other in zip(
            network.eval().encode_videos(frames, mask).values(),
            loaded.eval().encode_videos(frames, mask).values(),
            strict=True,
        ):
            assert torch.equal(one, other)
        assert torch.equal(network.encode_texts(ids)["vector"], loaded.encode_texts(ids)["vector"])
    found = inspect(tmp_path / "run")
    assert found.refused is None
    assert found.trunk["model"] == f"tiny {family}"
    assert (found.sizes["image_size"], found.sizes["embed_dim"]) == (size, 64)
    again = build_trunk(TrunkConfig(model=f"tiny {family}", weights=str(tmp_path / "run")))
    assert torch.equal(again.logit_scale, network.logit_scale)


def test_a_frozen_trunk_is_the_whole_image_tower(family: str) -> None:
    network = build_network(config(family))
    digest = class_token_digest(network)
    network.freeze_class_tokens()
    network.train()
    trainable = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    assert trainable
    assert not [name for name in trainable if name.startswith("trunk.visual.")]
    assert not any(module.training for module in network.trunk.visual.modules())
    frames = torch.randint(0, 256, (1, 3, 3, *[network.trunk.image_size] * 2), dtype=torch.uint8)
    mask = torch.ones(1, 3, dtype=torch.bool)
    tokens = network.class_tokens(frames, mask)
    assert tokens.shape == (1, 3, network.trunk.width)
    torch.testing.assert_close(network.frame_features(tokens, mask), network.frame_features(frames, mask))
    with torch.no_grad():
        next(iter(network.trunk.text.parameters())).add_(1)
    assert class_token_digest(network) == digest
    with torch.no_grad():
        next(network.trunk.visual.parameters()).add_(1)
    assert class_token_digest(network) != digest


def test_recomputing_changes_no_gradient(family: str) -> None:
    torch.manual_seed(0)
    network = build_network(config(family)).eval()  # no drop path
    ids = network.tokenize(CAPTIONS)
    frames = torch.randint(0, 256, (3, 3, 3, *[network.trunk.image_size] * 2), dtype=torch.uint8)

    def gradients() -> dict[str, Tensor]:
        network.zero_grad()
        videos = network.encode_videos(frames, torch.ones(3, 3, dtype=torch.bool))
        network.score(network.encode_texts(ids), videos).square().sum().backward()
        return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}

    plain = gradients()
    prepare_for_speed(network, recompute=True, channels_last=True)
    for name, gradient in gradients().items():
        torch.testing.assert_close(gradient, plain[name], rtol=1e-4, atol=1e-5, msg=name)


def test_the_zero_shot_model_is_named_like_any(family: str, theirs: Theirs, tmp_path: Path) -> None:
    model = theirs(family)
    path = saved(model, tmp_path / "model.bin")
    named = named_model(f"{OPENCLIP}tiny {family}/{path}")
    ids, cut = named.tokenize([*CAPTIONS, "word " * 20])
    assert cut.tolist() == [False, False, False, True]
    with torch.no_grad():
        expected = model.encode_text(ids, normalize=True)
        torch.testing.assert_close(named.network.encode_texts(ids)["vector"], expected)
    bare = inspect(path)
    assert (bare.kind, bare.refused) == ("trunk", None)
    assert bare.title.startswith("CLIP trunk" if family == "multilingual ViT" else "open_clip model, image tower")
    with pytest.raises(CheckpointError, match="CLIP without anything around it"):
        named_model(path)


@pytest.mark.parametrize("kind", ["xclip", "drl", "ts2net"])
def test_what_a_trunk_does_not_give_is_refused_with_those_that_do(family: str, kind: str) -> None:
    settings = config(family, kind=kind, ts2net={"shift_layers": (), "selected": 1})
    if kind != "ts2net" and family in GIVE_WORDS:
        network = build_network(settings)
        assert network.encode_texts(network.tokenize(CAPTIONS))["words"].shape == (3, 8, 64)
        return
    what = "patches" if kind == "ts2net" else "words"
    with pytest.raises(ConfigError, match=rf"{kind} compares {what}, and the trunk tiny {family}[\s\S]*plain ViT"):
        build_network(settings)


def test_weights_of_another_model_are_refused_by_name(theirs: Theirs, tmp_path: Path) -> None:
    path = saved(theirs("ResNet"), tmp_path / "resnet.safetensors")
    with pytest.raises(CheckpointError, match="weights are of another network"):
        build_trunk(TrunkConfig(model="tiny ConvNeXt", weights=str(path)))


def test_pixels_and_description_are_part_of_what_a_trunk_is(tmp_path: Path) -> None:
    trunk = resolved(TrunkConfig(model="tiny SigLIP", weights=None))
    assert description(trunk).reads_all
    network = build_network(config("SigLIP"))
    other = trunk.model_copy(update={"pixels": trunk.pixels.model_copy(update={"mean": (0.5, 0.5, 0.5)})})
    changed = build_network(network.config.model_copy(update={"trunk": other}))
    changed.load_state_dict(network.state_dict())
    assert network_digest(changed) != network_digest(network)
    save_network(changed, tmp_path / "own.safetensors")
    assert load_network(tmp_path / "own.safetensors").trunk.pixels.mean == (0.5, 0.5, 0.5)
