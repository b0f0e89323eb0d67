"""Networks as files: ours (safetensors with their configuration), and the published students' and X-CLIPs'."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor

from ...configs.schema import NetworkConfig, TrunkConfig, TrunkSizes
from ...errors import CheckpointError
from ..reporting import Reporter, Silent
from .build import build_network, score_versions
from .clip import CLIP_NOTES
from .network import VideoTextNetwork
from .weights import listed, load_into, read_weights

FORMAT = 1
METADATA = "teachclip"
BEST = "best.safetensors"  # of a run folder

# Published names -> ours, by prefix; X-CLIP's matrices keep their names.
_RENAMED = {
    "clip.": "trunk.",
    "frame_position_embeddings.weight": "temporal.positions",
    "transformerClip.": "temporal.",
    "frameLinear.": "afa.hidden.",
    "frameLinear2.": "afa.score.",
}
_XCLIP_MARK = "global_mat_weight"
_AFA_MARK = "frameLinear.weight"
# Modules the published student sometimes creates and never uses, and numbers that OpenAI's files hold beside weights.
_UNUSED = ("cross.", "similarity_dense.", *(f"clip.{note}" for note in CLIP_NOTES))


def save_network(network: VideoTextNetwork, path: Path) -> None:
    """Write weights and configuration as one safetensors file; `cache.files.publishing` gives a path that is safe."""
    note = {"format": FORMAT, "network": network.config.model_dump(mode="json")}
    state = {name: value.detach().contiguous().cpu() for name, value in network.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path, metadata={METADATA: json.dumps(note)})


def load_network(path: Path, device: str | torch.device = "cpu", reporter: Reporter | None = None) -> VideoTextNetwork:
    """The network of a checkpoint, in float32: a run folder's best, a file of ours, or a published one.

    Raises:
        CheckpointError: no checkpoint, a damaged one, or one with tensors missing, unknown or of other shapes.
    """
    path = _file_of(path)
    weights = read_weights(path)
    if METADATA not in weights.metadata:
        return from_published(weights.tensors, where=str(path), reporter=reporter).to(device)
    network = _on_meta(_saved_config(weights.metadata[METADATA], path))
    load_into(network, weights.tensors, str(path), assign=True)
    return network.to(device)


def from_published(
    state: Mapping[str, Tensor],
    *,
    pooling: Literal["afa", "mean"] | None = None,
    where: str = "checkpoint",
    reporter: Reporter | None = None,
) -> VideoTextNetwork:
    """The student (TeachCLIP, CLIP4Clip) or X-CLIP that a published state_dict holds, recognised by names and shapes.

    It computes what the published code does: padding is not masked, pooling weights at temperature 0.1.

    Args:
        state: tensors under their published names.
        pooling: how a student pools; by default with AFA where the state has it. `mean` leaves AFA out.
        where: names the state in messages.
        reporter: is told of tensors that are left out.

    Raises:
        CheckpointError: neither of the two, or tensors missing, unknown or of other shapes.
    """
    reporter = reporter or Silent()
    config = published_config({name: tuple(value.shape) for name, value in state.items()}, where, pooling)
    unused = [name for name in state if name.startswith(_UNUSED)]
    if config.kind == "student" and config.pooling == "mean":
        unused += [name for name in state if name.startswith("frameLinear")]
    if unused:
        reporter.info("\n".join([f"{where}: left out what the network does not use", *listed("tensors", unused)]))
    left_out = set(unused)
    tensors = {our_name(name): value for name, value in state.items() if name not in left_out}
    network = _on_meta(config)
    load_into(network, tensors, where, assign=True)
    return network


def our_name(name: str) -> str:
    """Our name of a tensor that has this name in a published checkpoint."""
    prefix = next((prefix for prefix in _RENAMED if name.startswith(prefix)), "")
    return _RENAMED.get(prefix, "") + name.removeprefix(prefix)


def published_config(
    shapes: Mapping[str, tuple[int, ...]], where: str, pooling: Literal["afa", "mean"] | None = None
) -> NetworkConfig:
    """The configuration of a published network, from its tensors' names and shapes.

    Raises:
        CheckpointError: tensors that tell the sizes are missing.
    """
    try:
        xclip = _XCLIP_MARK in shapes
        return NetworkConfig(
            kind="xclip" if xclip else "student",
            pooling=pooling or ("afa" if xclip or _AFA_MARK in shapes else "mean"),
            trunk=TrunkConfig(sizes=_published_sizes(shapes), weights=None),
            words=shapes["word_logit_weight"][0] if xclip else min(32, shapes["clip.positional_embedding"][0]),
            frames=shapes["frame_logit_weight"][0] if xclip else min(12, shapes["clip.positional_embedding"][0]),
            temporal_layers=_layers(shapes, "transformerClip."),
            mask_padding=False,
        )
    except (KeyError, IndexError, ValidationError) as error:
        raise CheckpointError(
            "this is neither a checkpoint of teachclip nor a published student or X-CLIP",
            where=where,
            details=[f"it has no usable {error.args[0]}"] if isinstance(error, KeyError) else [],
        ) from error


def network_digest(network: VideoTextNetwork) -> str:
    """A hash of the weights, their names, and the settings that change what the same weights compute."""
    config, sizes = network.config, network.trunk.sizes
    settings = [config.kind, network.trunk.visual.transformer.resblocks[0].attn.num_heads]
    settings += [network.trunk.transformer.resblocks[0].attn.num_heads, sizes.quick_gelu]
    if config.kind == "student":
        settings += [config.pooling, config.mask_padding, config.pool_temperature, config.normalise_frames]
    return _digest(settings, network.state_dict().items())


def checkpoint_digest(path: Path) -> str:
    """A hash of a checkpoint's bytes and of the networks' score versions: where it is equal, so are the scores.

    It needs no network; other bytes may still hold the same network (`network_digest`).

    Raises:
        CheckpointError: there is no checkpoint.
    """
    path = _file_of(path)
    try:
        with path.open("rb") as file:
            total = hashlib.file_digest(file, "sha256")
    except OSError as error:
        raise CheckpointError(f"this checkpoint cannot be read: {error.strerror}", where=str(path)) from error
    total.update(json.dumps(score_versions(), sort_keys=True).encode())
    return total.hexdigest()


def class_token_digest(network: VideoTextNetwork) -> str:
    """A hash of the weights and settings that class tokens depend on: the visual trunk up to its last block."""
    visual = network.trunk.visual
    settings = [visual.transformer.resblocks[0].attn.num_heads, network.trunk.sizes.quick_gelu]
    behind = ("ln_post.", "proj")
    return _digest(settings, ((k, v) for k, v in visual.state_dict().items() if not k.startswith(behind)))


def _digest(settings: list[object], tensors: Iterable[tuple[str, Tensor]]) -> str:
    total = hashlib.sha256(json.dumps(settings).encode())
    for name, value in sorted(tensors, key=lambda item: item[0]):
        array = value.detach().cpu().contiguous().numpy()
        total.update(f"{name} {array.dtype} {array.shape};".encode())
        total.update(array.reshape(-1).view("uint8").data)
    return total.hexdigest()


def _on_meta(config: NetworkConfig) -> VideoTextNetwork:
    """The network without weights, to be assigned; costs no time and no memory."""
    with torch.device("meta"):
        return build_network(config)


def _file_of(path: Path) -> Path:
    """The checkpoint file: `path` itself, or a run folder's best."""
    if not path.is_dir():
        return path
    if not (path / BEST).is_file():
        raise CheckpointError(
            f"this run folder has no {BEST}", where=str(path), hint="train it first: teachclip train CONFIG"
        )
    return path / BEST


def _saved_config(note: str, path: Path) -> NetworkConfig:
    try:
        saved = json.loads(note)
        if saved["format"] != FORMAT:
            raise CheckpointError(
                f"this checkpoint has format {saved['format']}; this release reads {FORMAT}",
                where=str(path),
                hint="update teachclip",
            )
        return NetworkConfig.model_validate(saved["network"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError("the configuration in this checkpoint cannot be read", where=str(path)) from error


def _published_sizes(shapes: Mapping[str, tuple[int, ...]]) -> TrunkSizes:
    patch_size = shapes["clip.visual.conv1.weight"][-1]
    grid = round((shapes["clip.visual.positional_embedding"][0] - 1) ** 0.5)
    return TrunkSizes(
        image_size=patch_size * grid,
        patch_size=patch_size,
        vision_width=shapes["clip.visual.class_embedding"][0],
        vision_layers=_layers(shapes, "clip.visual.transformer."),
        text_width=shapes["clip.ln_final.weight"][0],
        text_layers=_layers(shapes, "clip.transformer."),
        embed_dim=shapes["clip.text_projection"][1],
        context_length=shapes["clip.positional_embedding"][0],
        vocab_size=shapes["clip.token_embedding.weight"][0],
        quick_gelu=True,
    )


def _layers(shapes: Mapping[str, tuple[int, ...]], prefix: str) -> int:
    start = f"{prefix}resblocks."
    return len({name.removeprefix(start).split(".")[0] for name in shapes if name.startswith(start)})
