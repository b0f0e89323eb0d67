"""Published checkpoints are recognised by names and shapes, map one to one onto our names, and come back the same.

Full-size ones on the meta device: names and shapes of `state_dict_*` and `keys_*`, and those that the specs list for
X-Pool (3 and 6) and DRL (2). The goldens' own networks through files, value for value.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from teachclip.errors import CheckpointError
from teachclip.stages.models.build import build_network
from teachclip.stages.models.checkpoints.convert import convert
from teachclip.stages.models.checkpoints.files import from_published
from teachclip.stages.models.checkpoints.inspect import inspect
from teachclip.stages.models.checkpoints.published import published_state, read_published
from teachclip.stages.models.common.network import VideoTextNetwork
from teachclip.stages.models.weights.names import our_name

type Shapes = dict[str, tuple[int, ...]]

KINDS = {
    "state_dict_": "student",
    "keys_xclip": "xclip",
    "keys_ts2net": "ts2net",
    "keys_xpool": "xpool",
    "keys_drl": "drl",
}


def _shapes(path: Path) -> Shapes:
    told = json.loads(path.read_text(encoding="utf-8"))
    entries = told.get("keys", told)
    return {k: tuple(entry["shape"] if isinstance(entry, dict) else entry[0]) for k, entry in entries.items()}


def _round_trip(shapes: Shapes, kind: str) -> VideoTextNetwork:
    """The network of these tensors; its own give the same names and shapes back."""
    found = read_published({name: torch.empty(shape, device="meta") for name, shape in shapes.items()}, "state")
    assert found.config.kind == kind
    with torch.device("meta"):
        network = build_network(found.config)
    own = network.state_dict()
    assert {k: v.shape for k, v in own.items()} == {k: v.shape for k, v in found.tensors.items()}
    back = published_state(replace(found, tensors=own))
    assert {name: tuple(value.shape) for name, value in back.items()} == shapes
    assert {block.attn.head_dim for block in network.trunk.transformer.resblocks} == {64}
    return network


def _total(network: VideoTextNetwork) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("prefix", KINDS)
def test_full_size_key_lists_round_trip(golden_files, prefix) -> None:
    for path in golden_files(prefix, ".json"):
        kind = next(kind for start, kind in KINDS.items() if path.name.startswith(start))
        network = _round_trip(_shapes(path), kind)
        told = json.loads(path.read_text(encoding="utf-8"))
        assert _total(network) == told.get("total_params", _total(network))
        if kind == "xclip":
            assert (network.config.words, network.config.frames) == (
                len(network.word_mat_weight),
                len(network.frame_mat_weight),
            )
        if kind == "ts2net":
            assert network.config.ts2net.shift_layers == (10, 11)


def _clip() -> Shapes:
    """OpenAI's ViT-B/32 by its own names."""
    shapes: Shapes = {
        "positional_embedding": (77, 512), "text_projection": (512, 512), "logit_scale": (),
        "token_embedding.weight": (49408, 512), "ln_final.weight": (512,), "ln_final.bias": (512,),
        "visual.class_embedding": (768,), "visual.positional_embedding": (50, 768), "visual.proj": (768, 512),
        "visual.conv1.weight": (768, 3, 32, 32),
    }  # fmt: skip
    for norm in ("ln_pre", "ln_post"):
        shapes |= {f"visual.{norm}.weight": (768,), f"visual.{norm}.bias": (768,)}
    return shapes | _blocks("visual.transformer.", 768, 12) | _blocks("transformer.", 512, 12)


def _blocks(prefix: str, width: int, layers: int) -> Shapes:
    block: Shapes = {
        "attn.in_proj_weight": (3 * width, width), "attn.in_proj_bias": (3 * width,),
        "attn.out_proj.weight": (width, width), "attn.out_proj.bias": (width,),
        "mlp.c_fc.weight": (4 * width, width), "mlp.c_fc.bias": (4 * width,),
        "mlp.c_proj.weight": (width, 4 * width), "mlp.c_proj.bias": (width,),
        "ln_1.weight": (width,), "ln_1.bias": (width,), "ln_2.weight": (width,), "ln_2.bias": (width,),
    }  # fmt: skip
    return {f"{prefix}resblocks.{n}.{name}": shape for n in range(layers) for name, shape in block.items()}


def _hf_clip() -> Shapes:
    """The same as transformers 4.6 names it."""
    shapes: Shapes = {
        "logit_scale": (), "visual_projection.weight": (512, 768), "text_projection.weight": (512, 512),
        "text_model.embeddings.position_ids": (1, 77), "vision_model.embeddings.position_ids": (1, 50),
        "text_model.embeddings.token_embedding.weight": (49408, 512),
        "text_model.embeddings.position_embedding.weight": (77, 512),
        "vision_model.embeddings.class_embedding": (768,),
        "vision_model.embeddings.patch_embedding.weight": (768, 3, 32, 32),
        "vision_model.embeddings.position_embedding.weight": (50, 768),
    }  # fmt: skip
    for norm, width in (
        ("text_model.final_layer_norm", 512),
        ("vision_model.pre_layrnorm", 768),
        ("vision_model.post_layernorm", 768),
    ):
        shapes |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
    for tower, width in (("text", 512), ("vision", 768)):
        linear = {f"self_attn.{name}_proj": (width, width) for name in ("k", "v", "q", "out")}
        linear |= {"mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width)}
        linear |= {"layer_norm1": (width,), "layer_norm2": (width,)}
        for n in range(12):
            for name, shape in linear.items():
                place = f"{tower}_model.encoder.layers.{n}.{name}"
                shapes |= {f"{place}.weight": shape, f"{place}.bias": shape[:1]}
    return shapes


def _prefixed(prefix: str, shapes: Shapes) -> Shapes:
    return {f"{prefix}{name}": shape for name, shape in shapes.items()}


def test_full_size_xpool_round_trips_with_hugging_face_names() -> None:
    pooling: Shapes = {}
    for linear in ("cross_attn.q_proj", "cross_attn.k_proj", "cross_attn.v_proj", "cross_attn.out_proj", "linear_proj"):
        pooling |= {f"{linear}.weight": (512, 512), f"{linear}.bias": (512,)}
    for norm in ("layer_norm1", "layer_norm2", "layer_norm3"):
        pooling |= {f"{norm}.weight": (512,), f"{norm}.bias": (512,)}
    shapes = _prefixed("clip.", _hf_clip()) | _prefixed("pool_frames.", pooling)
    assert len(shapes) == 416
    network = _round_trip(shapes, "xpool")
    assert _total(network) == 152_593_665
    assert sum(p.numel() for name, p in network.named_parameters() if name.startswith("pooling.")) == 1_316_352


def test_full_size_drl_round_trips() -> None:
    shapes = _prefixed("clip.", _clip()) | _prefixed("transformerClip.", _blocks("", 512, 4))
    shapes["frame_position_embeddings.weight"] = (77, 512)
    for side in ("text", "video"):
        shapes |= {f"{side}_weight_fc.0.weight": (512, 512), f"{side}_weight_fc.0.bias": (512,)}
        shapes |= {f"{side}_weight_fc.2.weight": (1, 512), f"{side}_weight_fc.2.bias": (1,)}
    assert len(shapes) == 359
    assert _total(_round_trip(shapes, "drl")) == 164_452_611


def _state(golden, prefix: str = "state/") -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value) for name, value in golden.group(prefix).items()}


def _is_whole(state: dict[str, torch.Tensor]) -> bool:
    return any(name.startswith(("clip.visual.", "clip.vision_model.")) for name in state)


def _round_trips_through_files(golden, folder: Path) -> None:
    state = _state(golden)
    if not _is_whole(state):
        pytest.skip("a head without a trunk")
    paths = [folder / name for name in ("theirs.bin", "ours.safetensors", "again.bin")]
    torch.save(state, paths[0])
    first = convert(paths[0], paths[1])
    second = convert(paths[1], paths[2], names="published")
    assert first.digest == second.digest == inspect(paths[0]).digest == inspect(paths[1]).digest
    assert second.changed == ()
    back = torch.load(paths[2], weights_only=True)
    assert back.keys() == state.keys()
    for name, value in state.items():
        assert back[name].dtype == value.dtype, name
        assert back[name].shape == value.shape, name
        assert back[name].equal(value), name


@pytest.mark.golden("student_")
def test_students_round_trip(golden, tmp_path) -> None:
    _round_trips_through_files(golden, tmp_path)


@pytest.mark.golden("teacher_")
def test_teachclips_teachers_round_trip(golden, tmp_path) -> None:
    _round_trips_through_files(golden, tmp_path)


@pytest.mark.golden("original_xclip", "original_ts2net", "original_xpool", "original_drl")
def test_original_teachers_round_trip(golden, tmp_path) -> None:
    _round_trips_through_files(golden, tmp_path)


@pytest.mark.golden("train_run")
def test_trained_students_round_trip(golden, tmp_path) -> None:
    _round_trips_through_files(golden, tmp_path)


@pytest.mark.golden("teacher_xpool_head")
def test_a_head_alone_is_half_a_model(golden) -> None:
    with pytest.raises(CheckpointError) as refusal:
        from_published(_state(golden))
    message = str(refusal.value)
    assert "X-Pool checkpoint is not whole: CLIP's image tower and text tower missing" in message
    assert "clip.visual.conv1.weight" in message


@pytest.mark.golden("original_drl_heads")
def test_weight_networks_alone_are_half_a_model(golden) -> None:
    heads = {name.split("/")[0] for name in golden.group("state/")}
    assert heads
    for head in heads:
        with pytest.raises(CheckpointError, match="this DRL checkpoint is not whole"):
            from_published(_state(golden, f"state/{head}/"))


@pytest.mark.golden("original_ts2net")
def test_ts2net_as_teachclip_runs_it(golden, tmp_path) -> None:
    """The attention of the shifted blocks comes from the plain CLIP, everything else from the authors' file."""
    state, clip = _state(golden), _state(golden, "clipstate/")
    shifted = {name: name.replace(".attn.net.", ".attn.") for name in state if ".attn.net." in name}
    assert set(shifted.values()) == {f"clip.{name}" for name in clip}
    trunk = {name.removeprefix("clip."): value for name, value in state.items() if name.startswith("clip.")} | clip
    torch.save(state, tmp_path / "ts2net.bin")
    torch.save(trunk, tmp_path / "clip.pt")
    done = convert(tmp_path / "ts2net.bin", tmp_path / "run.safetensors", clip=tmp_path / "clip.pt")
    assert done.title == "TS2-Net without token shift, as TeachCLIP runs it"
    assert inspect(tmp_path / "run.safetensors").settings["shift_layers"] == ()
    expected = {
        shifted.get(name, name): clip.get(shifted.get(name, name).removeprefix("clip."), value)
        for name, value in state.items()
    }
    convert(tmp_path / "run.safetensors", tmp_path / "again.bin", names="published")
    back = torch.load(tmp_path / "again.bin", weights_only=True)
    assert back.keys() == expected.keys()
    assert all(back[name].equal(value) for name, value in expected.items())
    assert done.digest != convert(tmp_path / "ts2net.bin", tmp_path / "own.safetensors").digest


@pytest.mark.golden("original_ts2net")
def test_a_clip_without_the_blocks_attention_cannot_stand_in(golden, tmp_path) -> None:
    state = _state(golden)
    trunk = {our_name(name).removeprefix("trunk."): value for name, value in state.items() if name.startswith("clip.")}
    torch.save(state, tmp_path / "ts2net.bin")
    torch.save({k: v for k, v in trunk.items() if ".resblocks.10." not in k}, tmp_path / "clip.pt")
    with pytest.raises(CheckpointError, match=r"(?s)cannot stand in.*resblocks\.10\.attn\.in_proj_weight"):
        convert(tmp_path / "ts2net.bin", tmp_path / "run.safetensors", clip=tmp_path / "clip.pt")
    assert not (tmp_path / "run.safetensors").exists()
