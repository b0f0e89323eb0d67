"""TeachText's networks, batches and weights out of the golden files `original_experts_*`."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from teachclip.configs.schema import NetworkConfig
from teachclip.stages.models.build import build_network
from teachclip.stages.models.experts.batch import ExpertBatch, expert_batch, fused, word_batch
from teachclip.stages.models.experts.networks import CollaborativeExperts, ExpertNetwork, expert_shapes
from teachclip.stages.models.experts.published import under_our_names


def network_config(said: dict[str, Any], **changes: Any) -> NetworkConfig:
    """The network of a golden file; `said` is its `config`, `changes` are of the section `experts`."""
    experts = {
        name: {
            "width": expert["dim"],
            **({"tokens": expert["max_tokens"], "clusters": expert["clusters"]} if expert["kind"] == "vlad" else {}),
        }
        for name, expert in said["experts"].items()
    }
    text = {"width": said["text_dim"], "words": said["max_words"]}
    text |= {"clusters": said["text_clusters"], "ghosts": said["ghost_clusters_text"]}
    section = {
        "modalities": experts,
        "text": text,
        "include_self": bool(said["include_self"]),
        "activation": "mish" if said["use_mish"] else "relu",
        "pair_layers": said["num_g_layers"],
        "pair_norm": bool(said["use_bn_reason"]),
        **({"shared": said["ce_shared_dim"]} if said.get("ce_shared_dim") else {}),
        **changes,
    }
    return NetworkConfig.model_validate({"kind": "ce" if said["use_ce"] else "moee", "experts": section})


def network_of(golden, prefix: str = "state/", dtype: torch.dtype = torch.float64, **changes: Any) -> ExpertNetwork:
    """The network with the weights of a golden file, by their published names; what it has no place for is left out."""
    config = network_config(golden.meta["config"], **changes)
    network = build_network(config).to(dtype)
    assert isinstance(network, ExpertNetwork)
    state = {name: torch.from_numpy(np.array(value)) for name, value in golden.group(prefix).items()}
    if isinstance(network, CollaborativeExperts) and not network.gating:
        state = {k: v for k, v in state.items() if ".batch_norm2." not in k and ".g_reason" not in k}
    network.load_state_dict(under_our_names(state, config, "golden")[0])
    return network.eval()


def batch_from_raw(golden, videos: Iterable[str], dtype: torch.dtype = torch.float64) -> ExpertBatch:
    """The videos' experts, from the arrays as a feature file holds them."""
    shapes = expert_shapes(network_config(golden.meta["config"]).experts)
    keys = set(golden.keys)
    found = [
        {name: golden[key] for name in shapes if (key := f"raw/expert/{name}/{video}") in keys} for video in videos
    ]
    return expert_batch(found, shapes, dtype)


def words_from_raw(golden, captions: Iterable[tuple[str, int]], dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Words of captions, each named by its video and its number there; one that does not exist has none."""
    text = network_config(golden.meta["config"]).experts.text
    keys, empty = set(golden.keys), np.empty((0, text.width), np.float32)
    found = [golden[key] if (key := f"raw/text/{video}/{k}") in keys else empty for video, k in captions]
    return word_batch(found, text.words, text.width, dtype)


def fused_from_raw(golden, videos: Iterable[str]) -> torch.Tensor:
    """All captions of each video as one."""
    text = network_config(golden.meta["config"]).experts.text
    captions = [list(golden.group(f"raw/text/{video}/").values()) for video in videos]
    return word_batch([fused(each) for each in captions], text.words, text.width, torch.float64)


def train_videos(golden) -> list[str]:
    return [golden.meta["config"]["train_videos"][k] for k in golden["in/train/video"]]


def eval_captions(golden) -> list[tuple[str, int]]:
    said = golden.meta["config"]
    return [(video, k) for video in said["val_videos"] for k in range(said["test_captions_per_video"])]
