"""Full-size published checkpoints are recognised by names and shapes, and map one to one onto our names."""

import json
from pathlib import Path

import torch
from teachclip.stages.models.build import build_network
from teachclip.stages.models.network import VideoTextNetwork
from teachclip.stages.models.published import our_name, read_published


def _network(path: Path, kind: str) -> VideoTextNetwork:
    told = json.loads(path.read_text(encoding="utf-8"))
    entries = told.get("keys", told)
    shapes = {k: tuple(entry["shape"] if isinstance(entry, dict) else entry[0]) for k, entry in entries.items()}
    state = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    config = read_published(state, path.name).config
    assert config.kind == kind
    with torch.device("meta"):
        network = build_network(config)
    found = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert found == {our_name(name): shape for name, shape in shapes.items()}
    assert {block.attn.head_dim for block in network.temporal.resblocks} == {64}
    return network


def test_students(golden_files) -> None:
    for path in golden_files("state_dict_vit", ".json"):
        network = _network(path, "student")
        told = json.loads(path.read_text(encoding="utf-8"))
        assert sum(parameter.numel() for parameter in network.parameters()) == told["total_params"]


def test_xclip_teachers(golden_files) -> None:
    for path in golden_files("keys_xclip", ".json"):
        network = _network(path, "xclip")
        assert network.config.words == len(network.word_mat_weight)
        assert network.config.frames == len(network.frame_mat_weight)
