"""Networks as files: ours (safetensors with their configuration), and published ones (published.py)."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ...configs.schema import NetworkConfig
from ...errors import CheckpointError
from ..reporting import Reporter, Silent
from .build import build_network, score_versions
from .network import VideoTextNetwork
from .published import Pooling, read_published
from .weights import listed, load_into, read_weights

FORMAT = 1
METADATA = "teachclip"
BEST = "best.safetensors"  # of a run folder


def save_network(network: VideoTextNetwork, path: Path) -> None:
    """Write weights and configuration as one safetensors file; `cache.files.publishing` gives a path that is safe."""
    note = {"format": FORMAT, "network": network.config.model_dump(mode="json")}
    state = {name: value.detach().contiguous().cpu() for name, value in network.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path, metadata={METADATA: json.dumps(note)})


def load_network(
    path: Path,
    device: str | torch.device = "cpu",
    reporter: Reporter | None = None,
    *,
    frames: int | None = None,
    words: int | None = None,
) -> VideoTextNetwork:
    """The network of a checkpoint, in float32: a run folder's best, a file of ours, or a published one.

    Args:
        frames, words: slots, for published checkpoints that do not record them; another number than a checkpoint
            records is refused.

    Raises:
        CheckpointError: no checkpoint, a damaged one, one with tensors missing, unknown or of other shapes, or made
            for other numbers of frames or words.
    """
    path = _file_of(path)
    weights = read_weights(path)
    if METADATA not in weights.metadata:
        network = from_published(weights.tensors, where=str(path), reporter=reporter, frames=frames, words=words)
        return network.to(device)
    config = _saved_config(weights.metadata[METADATA], path)
    for key, asked in (("frames", frames), ("words", words)):
        if asked not in (None, getattr(config, key)):
            raise CheckpointError(
                f"this checkpoint was made for {getattr(config, key)} {key}, and {asked} are asked for", where=str(path)
            )
    network = _on_meta(config)
    load_into(network, weights.tensors, str(path), assign=True)
    return network.to(device)


def from_published(
    state: Mapping[str, Tensor],
    *,
    pooling: Pooling | None = None,
    frames: int | None = None,
    words: int | None = None,
    where: str = "checkpoint",
    reporter: Reporter | None = None,
) -> VideoTextNetwork:
    """The network that a published state_dict holds, recognised by names and shapes; see `published.read_published`.

    Args:
        reporter: is told what it is, and of tensors that are left out.

    Raises:
        CheckpointError: none that is known, or tensors missing, unknown or of other shapes.
    """
    reporter = reporter or Silent()
    found = read_published(state, where, pooling=pooling, frames=frames, words=words)
    left_out = listed("tensors that it does not use, left out", found.unused)
    reporter.info("\n".join([f"{where}: {found.title}", *left_out]))
    network = _on_meta(found.config)
    load_into(network, found.tensors, where, assign=True)
    return network


def network_digest(network: VideoTextNetwork) -> str:
    """A hash of the weights, their names, and the settings that change what the same weights compute."""
    config, sizes = network.config, network.trunk.sizes
    settings: list[object] = [config.kind, network.trunk.visual.transformer.resblocks[0].attn.num_heads]
    settings += [network.trunk.transformer.resblocks[0].attn.num_heads, sizes.quick_gelu, *network.settings()]
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
