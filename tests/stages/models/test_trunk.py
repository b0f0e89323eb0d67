"""The trunk against open_clip's own forward pass, and how its weights are found."""

import open_clip
import pytest
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from safetensors.torch import save_file
from teachclip.configs.schema import PixelConfig, TrunkConfig, TrunkSizes
from teachclip.errors import CheckpointError, ConfigError
from teachclip.stages.models.checkpoints.files import save_network
from teachclip.stages.models.clip import catalog
from teachclip.stages.models.clip.catalog import resolved
from teachclip.stages.models.clip.loading import build_trunk
from teachclip.stages.models.clip.trunk import ClipTrunk

VARIANTS = {
    "quick-gelu": {},
    "gelu": {"quick_gelu": False},
    "heads": {"vision_heads": 4, "text_heads": 2},
    "wide-mlp": {"vision_mlp_ratio": 4.5},
    "one-layer": {"vision_layers": 1, "text_layers": 1},
}


def _open_clip(sizes: TrunkSizes) -> CLIP:
    heads = sizes.vision_heads or sizes.vision_width // 64
    return CLIP(
        sizes.embed_dim,
        CLIPVisionCfg(
            layers=sizes.vision_layers,
            width=sizes.vision_width,
            head_width=sizes.vision_width // heads,
            mlp_ratio=sizes.vision_mlp_ratio,
            patch_size=sizes.patch_size,
            image_size=sizes.image_size,
        ),
        CLIPTextCfg(
            context_length=sizes.context_length,
            vocab_size=sizes.vocab_size,
            width=sizes.text_width,
            heads=sizes.text_heads or sizes.text_width // 64,
            layers=sizes.text_layers,
        ),
        quick_gelu=sizes.quick_gelu,
    ).double()


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_trunk_computes_what_open_clip_computes_under_its_names(sizes, ids, changes) -> None:
    sizes = sizes.model_copy(update=changes)
    theirs = _open_clip(sizes)
    trunk = ClipTrunk(sizes).double()
    trunk.load_state_dict(theirs.state_dict())
    pixels = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    padded = torch.zeros(len(ids), sizes.context_length, dtype=torch.int64)
    padded[:, : ids.shape[1]] = ids
    for training in (True, False):  # torch has faster attention kernels for evaluation
        with torch.set_grad_enabled(training):
            torch.testing.assert_close(trunk.train(training).encode_frames(pixels), theirs.encode_image(pixels))
            expected = theirs.train(training).encode_text(padded)
            torch.testing.assert_close(trunk.encode_sentences(ids), expected, rtol=0, atol=1e-12)
            words, sentences = trunk.encode_words(ids)
            torch.testing.assert_close(sentences, expected, rtol=0, atol=1e-12)
            assert words.shape == (len(ids), ids.shape[1], sizes.embed_dim)


def test_fewer_words_change_no_word_before_them(sizes, ids) -> None:
    trunk = ClipTrunk(sizes).double().eval()
    all_words, _ = trunk.encode_words(ids)
    some_words, _ = trunk.encode_words(ids[:, :6])
    torch.testing.assert_close(all_words[:, :6], some_words, rtol=0, atol=1e-12)


def test_an_earlier_eot_inside_the_caption_ends_the_sentence(sizes, ids) -> None:
    trunk = ClipTrunk(sizes).double().eval()
    doubled = ids.clone()
    doubled[2, 4] = 299
    after = doubled.clone()
    after[2, 5:] = 7
    torch.testing.assert_close(trunk.encode_sentences(doubled), trunk.encode_sentences(after), rtol=0, atol=1e-12)


@pytest.mark.parametrize("width", [65, 200])
def test_a_width_that_its_heads_do_not_divide_is_refused(sizes, width) -> None:
    changed = sizes.model_copy(update={"text_width": width, "text_heads": 3})
    with pytest.raises(ConfigError, match=f"{width}.*3 attention heads"):
        ClipTrunk(changed)


@pytest.mark.parametrize(("model", "width", "heads"), [("ViT-B-32-quickgelu", 768, 12), ("ViT-H-14", 1280, 16)])
def test_named_models_have_their_own_sizes(model, width, heads) -> None:
    with torch.device("meta"):
        trunk = build_trunk(TrunkConfig(model=model, weights=None))
    theirs = open_clip.get_model_config(model)
    assert trunk.width == width == theirs["vision_cfg"]["width"]
    assert trunk.visual.transformer.resblocks[0].attn.num_heads == heads
    assert trunk.sizes.quick_gelu == theirs.get("quick_gelu", False)
    assert trunk.embed_dim == theirs["embed_dim"]


def test_an_unknown_model_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError) as refusal:
        build_trunk(TrunkConfig(model="ViT-B32-quickgelu"))
    assert "ViT-B-32-quickgelu" in str(refusal.value)


def test_a_failed_download_says_which_file_to_fetch_and_where_to_name_it(monkeypatch) -> None:
    def offline(*_: object, **__: object) -> str:
        raise OSError("Name or service not known")

    monkeypatch.setattr(catalog, "why_out_of_reach", lambda *_: None)
    monkeypatch.setattr(open_clip, "download_pretrained", offline)
    with pytest.raises(CheckpointError) as refusal:
        build_trunk(TrunkConfig(model="ViT-B-32-quickgelu", weights="openai"))
    message = str(refusal.value)
    assert "ViT-B-32.pt" in message
    assert "train.network.trunk.weights" in message


def test_a_folder_of_open_clips_is_refused_with_what_to_set() -> None:
    with pytest.raises(ConfigError, match=r"not read as a model[\s\S]*`sizes`"):
        build_trunk(TrunkConfig(model="local-dir:/nowhere", weights=None))


def test_weights_of_another_activation_are_built_with_it_in_one_line_said(heard) -> None:
    found = resolved(TrunkConfig(model="ViT-B-32", weights="openai"), heard)
    assert found.sizes == resolved(TrunkConfig(model="ViT-B-32-quickgelu", weights=None)).sizes
    assert (found.model, found.tag) == ("ViT-B-32-quickgelu", "openai")
    assert heard.infos == ["ViT-B-32 is built with QuickGELU, as its weights 'openai' were trained"]
    assert resolved(found) == found


def test_a_tag_with_sizes_of_ones_own_is_refused(sizes) -> None:
    with pytest.raises(ConfigError, match="'openai' is no file"):
        build_trunk(TrunkConfig(sizes=sizes, weights="openai"))


def _same(first: ClipTrunk, second: ClipTrunk) -> None:
    theirs = second.state_dict()
    for name, value in first.state_dict().items():
        torch.testing.assert_close(value, theirs[name], rtol=0, atol=0)


def _torchscript(state: dict[str, torch.Tensor], path) -> None:
    """A TorchScript archive with these names, as OpenAI's files are."""
    root = torch.nn.Module()
    for name, value in state.items():
        module, *rest = root, *name.split(".")
        for part in rest[:-1]:
            if part not in dict(module.named_children()):
                module.add_module(part, torch.nn.Module())
            module = module.get_submodule(part)
        module.register_parameter(rest[-1], torch.nn.Parameter(value.clone(), requires_grad=False))
    for name, number in (("input_resolution", 32), ("context_length", 16), ("vocab_size", 300)):
        root.register_buffer(name, torch.tensor(number))
    torch.jit.save(torch.jit.script(root), path)


@pytest.mark.filterwarnings("ignore:.*torch.jit.(script|save)")
@pytest.mark.parametrize("kind", ["safetensors", "bin", "training", "torchscript", "half"])
def test_trunk_weights_come_from_a_file(sizes, tmp_path, kind) -> None:
    torch.manual_seed(3)
    source = ClipTrunk(sizes)
    if kind == "half":
        source = source.half()
    path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pt")
    state = source.state_dict()
    if kind == "safetensors":
        save_file(state, path)
    elif kind == "torchscript":
        _torchscript(state, path)
    elif kind == "training":
        torch.save({"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}, path)
    else:
        torch.save(state, path)
    _same(build_trunk(TrunkConfig(sizes=sizes, weights=str(path))), source.float())


@pytest.mark.filterwarnings("ignore:.*torch.jit.(script|save)")
def test_openai_archives_are_refused_for_a_trunk_of_another_activation(sizes, tmp_path) -> None:
    _torchscript(ClipTrunk(sizes).state_dict(), tmp_path / "ViT.pt")
    gelu = sizes.model_copy(update={"quick_gelu": False})
    with pytest.raises(CheckpointError, match="QuickGELU"):
        build_trunk(TrunkConfig(sizes=gelu, weights=str(tmp_path / "ViT.pt")))


@pytest.mark.parametrize("kind", ["student", "xclip"])
def test_trunk_weights_come_from_any_checkpoint_of_ours(make_network, sizes, tmp_path, kind) -> None:
    network = make_network(kind=kind)
    save_network(network, tmp_path / "run" / "best.safetensors")
    for weights in (tmp_path / "run", tmp_path / "run" / "best.safetensors"):
        _same(build_trunk(TrunkConfig(sizes=sizes, weights=str(weights))), network.trunk)


def test_a_trunk_of_other_sizes_is_refused_naming_the_tensors(sizes, tmp_path) -> None:
    torch.save(ClipTrunk(sizes).state_dict(), tmp_path / "w.pt")
    deeper = sizes.model_copy(update={"vision_layers": 3, "vocab_size": 301})
    with pytest.raises(CheckpointError) as refusal:
        build_trunk(TrunkConfig(sizes=deeper, weights=str(tmp_path / "w.pt")))
    message = str(refusal.value)
    assert "12 missing" in message
    assert "and 2 more" in message
    assert "token_embedding.weight: (300, 64) instead of (301, 64)" in message


@pytest.mark.parametrize(
    ("model", "weights", "pixels"),
    [
        ("ViT-L-14", "laion2b_s32b_b82k", {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}),
        ("ViT-B-16-SigLIP", "webli", {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "resize_mode": "squash"}),
        ("ViT-B-16-SigLIP", None, {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "resize_mode": "squash"}),
        ("MobileCLIP-S2", "datacompdr", {"mean": (0, 0, 0), "std": (1, 1, 1), "interpolation": "bilinear"}),
        ("ViT-B-32", "laion2b_s34b_b79k", {}),
        ("ViT-L-14", None, {}),  # whose tags do not agree
    ],
)
def test_pixels_are_those_that_the_weights_were_trained_with(model, weights, pixels) -> None:
    assert resolved(TrunkConfig(model=model, weights=weights)).pixels == PixelConfig(**pixels)
    own = PixelConfig(mean=(0.1, 0.2, 0.3))
    assert resolved(TrunkConfig(model=model, weights=weights, pixels=own)).pixels == own


@pytest.mark.parametrize(
    ("model", "tag", "says"),
    [
        ("ViT-B-32", "laion2b_s34b_b79", "did you mean laion2b_s34b_b79k"),
        ("ViT-B-16-SigLIP", "openai", "weights of that name are RN50, .* its own: webli"),
        ("ViT-S-32", "nothing", "open_clip knows no weights of it"),
    ],
)
def test_a_tag_of_another_model_is_answered_with_the_nearest(model, tag, says) -> None:
    with pytest.raises(ConfigError, match=f"'{tag}' is no file, and no weights of {model}[\\s\\S]*{says}"):
        resolved(TrunkConfig(model=model, weights=tag))


def test_other_pixels_change_what_a_trunk_is_and_plain_ones_do_not(sizes) -> None:
    """So that a finished network's digest stays."""
    plain, own = ClipTrunk(sizes), ClipTrunk(sizes, PixelConfig(mean=(0.5, 0.5, 0.5)))
    assert plain.identity == [2, 1, True]
    assert own.identity[:3] == plain.identity
    assert len(own.identity) == 4
    assert plain.recorded(TrunkConfig()).model_dump().keys() == {"model", "sizes", "weights"}
