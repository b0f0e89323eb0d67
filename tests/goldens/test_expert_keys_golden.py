"""TeachText's full-size networks by names and shapes (`keys_experts_*`), on the meta device."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from teachclip.stages.models.build import build_network
from teachclip.stages.models.checkpoints.published import read_published_experts
from teachclip.stages.models.experts.networks import pooled_widths
from teachclip.stages.models.experts.published import published_expert_name


def _said(told: dict[str, Any]) -> dict[str, Any]:
    """What its config.json says, as far as it bears on the network."""
    shapes = {key: shape for key, (shape, _) in told["keys"].items()}
    pooled = [name for name in told["experts_in_order"] if f"pooling.{name}.clusters" in shapes]
    gating = "ce.g_reason_1.weight" in shapes
    args = {
        "use_ce": "pairwise" if gating else "",
        "use_mish": 1,
        "use_bn_reason": 1,
        "num_g_layers": 3 if gating else 1,
        "num_h_layers": 0 if gating else 1,
        "include_self": int(gating),
        "mimic_ce_dims": 0,
        "l2renorm": False,
        "keep_missing_modalities": False,
    }
    experts = {"modalities": [*reversed(told["experts_in_order"]), "dropped"], "drop_feats": "dropped"}
    tokens = {name: 11 + k for k, name in enumerate((*pooled, "text"))}
    return {"experts": experts, "arch": {"args": args}, "data_loader": {"args": {"max_tokens": tokens}}}


def _meta(told: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {
        key: torch.empty(shape, dtype=getattr(torch, dtype), device="meta")
        for key, (shape, dtype) in told["keys"].items()
    }


@pytest.mark.parametrize("name", ["ce", "ceplus", "moee"])
def test_full_size_key_lists_round_trip(golden_files, name: str) -> None:
    for path in golden_files(f"keys_experts_msrvtt_{name}", ".json"):
        told = json.loads(Path(path).read_text(encoding="utf-8"))
        found = read_published_experts(_meta(told), _said(told), path.name)
        config = found.config
        assert config.kind == ("moee" if name == "moee" else "ce")
        with torch.device("meta"):
            network = build_network(config)
        assert list(told["experts_in_order"]) == network.names
        raw = [config.experts.modalities[each].width for each in network.names]
        widths = list(zip(raw, pooled_widths(config.experts), network.widths, strict=True))
        assert widths == [(each["raw"], each["in"], each["out"]) for each in told["experts_in_order"].values()]
        own = {
            published_expert_name(key, config): (list(value.shape), str(value.dtype).removeprefix("torch."))
            for key, value in network.state_dict().items()
        }
        assert own == {key: (shape, dtype) for key, (shape, dtype) in told["keys"].items()}
        assert sum(p.numel() for p in network.parameters()) == told["total_params"]
        assert config.experts.text.width == told["text_dim"]
        assert config.experts.text.words == len(network.poolings) + 11
