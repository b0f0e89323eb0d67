"""TeachText's networks, batches and weights out of the golden files `original_experts_*`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from teachclip.configs.schema import NetworkConfig
from teachclip.stages.models.build import build_network
from teachclip.stages.models.experts.batch import ExpertBatch, ExpertShape
from teachclip.stages.models.experts.networks import CollaborativeExperts, ExpertNetwork, expert_shapes
from teachclip.stages.models.experts.published import under_our_names
from torch import Tensor

Array = np.ndarray[Any, np.dtype[Any]]


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


def words_from_raw(golden, captions: Iterable[tuple[str, int]], dtype: torch.dtype = torch.float64) -> Tensor:
    """Words of captions, each named by its video and its number there; one that does not exist has none."""
    text = network_config(golden.meta["config"]).experts.text
    keys, empty = set(golden.keys), np.empty((0, text.width), np.float32)
    found = [golden[key] if (key := f"raw/text/{video}/{k}") in keys else empty for video, k in captions]
    return word_batch(found, text.words, text.width, dtype)


def fused_from_raw(golden, videos: Iterable[str]) -> Tensor:
    """All captions of each video as one."""
    text = network_config(golden.meta["config"]).experts.text
    captions = [list(golden.group(f"raw/text/{video}/").values()) for video in videos]
    return word_batch([fused(each) for each in captions], text.words, text.width, torch.float64)


def expert_batch(
    videos: Sequence[Mapping[str, Array]], shapes: Mapping[str, ExpertShape], dtype: torch.dtype
) -> ExpertBatch:
    """The batch of V videos, each with its arrays by expert; a missing one is not in the mapping.

    A sequence is cut after `tokens` rows or filled up with zero rows; where one vector is wanted, a sequence's mean
    over time is taken (published: `temporal` avg).

    Raises:
        ValueError: an expert of another width.
    """
    names = sorted(shapes)
    features = {name: torch.zeros(len(videos), *shapes[name].shape, dtype=dtype) for name in names}
    available = torch.zeros(len(videos), len(names), dtype=torch.bool)
    for row, video in enumerate(videos):
        for column, name in enumerate(names):
            if (array := video.get(name)) is not None:
                _fill(features[name][row], torch.from_numpy(np.asarray(array)).to(dtype), name)
                available[row, column] = True
    return ExpertBatch(features, available)


def _fill(place: Tensor, value: Tensor, name: str) -> None:
    if value.shape[-1:] != place.shape[-1:] or value.ndim > 2:
        raise ValueError(f"{name}: {list(value.shape)} instead of vectors of {place.shape[-1]} numbers")
    if place.ndim == 1:
        place.copy_(value if value.ndim == 1 else value.mean(dim=0))
        return
    rows = value.reshape(-1, value.shape[-1])[: len(place)]
    place[: len(rows)] = rows


def word_batch(captions: Sequence[Array], words: int, width: int, dtype: torch.dtype) -> Tensor:
    """Words [T, W, D_t] of T captions of any number of words each [w, D_t]: cut after W, zero rows behind.

    A caption without any word, or one that does not exist, is all zero.

    Raises:
        ValueError: words of another width.
    """
    found = torch.zeros(len(captions), words, width, dtype=dtype)
    for row, caption in enumerate(captions):
        value = torch.from_numpy(np.asarray(caption)).to(dtype)
        if len(value) and value.shape[1:] != (width,):
            raise ValueError(f"words {list(value.shape)} instead of vectors of {width} numbers")
        first = value[:words]
        if len(first):
            found[row, : len(first)] = first
    return found


def fused(captions: Sequence[Array]) -> Array:
    """All captions of a video as one, their words one caption after the other (published: `fuse_captions`)."""
    return np.concatenate([np.asarray(caption) for caption in captions])


def train_videos(golden) -> list[str]:
    return [golden.meta["config"]["train_videos"][k] for k in golden["in/train/video"]]


def eval_captions(golden) -> list[tuple[str, int]]:
    said = golden.meta["config"]
    return [(video, k) for video in said["val_videos"] for k in range(said["test_captions_per_video"])]
