"""Networks as files: ours (safetensors with their configuration), and published ones (published.py)."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor

from ....configs.schema import NetworkConfig
from ....errors import CheckpointError
from ....remedies import Hint, Remedy, Settings, Train
from ...runtime.reporting import Reporter, Silent
from ..build import build_network, score_versions
from ..common.network import RetrievalNetwork, VideoTextNetwork
from ..experts.published import CONFIG, is_published_experts, read_config
from ..weights.files import Weights, absent, listed, load_into, read_metadata, read_weights, refuse_not_utf_8
from .published import (
    Pooling,
    PublishedCheckpoint,
    check_slots,
    findings,
    read_published,
    read_published_experts,
    title_of,
)
from .shared import fetched, is_shared

FORMAT = 1
METADATA = "teachclip"
BEST = "best.safetensors"  # of a run folder
_FILES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".tar")  # endings of checkpoints that others write
_UNUSED = "unused."  # before the published names of tensors that came with a converted file and are not used


def save_network(
    network: RetrievalNetwork,
    path: Path,
    *,
    source: Mapping[str, Any] | None = None,
    unused: Mapping[str, Tensor] | None = None,
    weights: Mapping[str, Tensor] | None = None,
) -> None:
    """Write weights and configuration as one safetensors file; `storage.publish.publishing` gives a path that is safe.

    Args:
        source: what the network was converted from, kept in the file.
        unused: tensors of that file which the network does not use, by their published names, kept so that they can be
            given back.
        weights: those of its state_dict, where the network itself has been trained on meanwhile.

    Raises:
        CheckpointError: the path is not UTF-8.
    """
    refuse_not_utf_8(path)
    of_others = None if network.config.on_experts else {"experts"}  # a section that came later: bytes stay the same
    note = {"format": FORMAT, "network": network.config.model_dump(mode="json", exclude=of_others)}
    if source is not None:
        note["source"] = dict(source)
    own = network.state_dict() if weights is None else weights
    tensors = {**own, **{f"{_UNUSED}{name}": value for name, value in (unused or {}).items()}}
    state = {name: value.detach().contiguous().cpu() for name, value in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path, metadata={METADATA: json.dumps(note)})


def load_network(
    path: Path,
    device: str | torch.device = "cpu",
    reporter: Reporter | None = None,
    *,
    frames: int | None = None,
    words: int | None = None,
) -> RetrievalNetwork:
    """The network of a checkpoint, in float32: a run folder's best, a file of ours, or a published one.

    Args:
        reporter: is told what a published file is, and of tensors that are left out.
        frames, words: slots, for published checkpoints that do not record them; another number than a checkpoint
            records is refused.

    Raises:
        CheckpointError: no checkpoint, a damaged one, one with tensors missing, unknown or of other shapes, or made
            for other numbers of frames or words.
    """
    path = checkpoint_file(path)
    weights = read_weights(path)
    found = recognised(weights, str(path), frames=frames, words=words)
    if METADATA not in weights.metadata:
        _tell(found, str(path), reporter)
    return built(found, str(path)).to(device)


def from_published(
    state: Mapping[str, Tensor],
    *,
    pooling: Pooling | None = None,
    frames: int | None = None,
    words: int | None = None,
    where: str = "checkpoint",
    reporter: Reporter | None = None,
) -> RetrievalNetwork:
    """The network that a published state_dict holds, recognised by names and shapes; see `published.read_published`.

    Args:
        reporter: is told what it is, and of tensors that are left out.

    Raises:
        CheckpointError: none that is known, or tensors missing, unknown or of other shapes.
    """
    found = read_published(state, where, pooling=pooling, frames=frames, words=words)
    _tell(found, where, reporter)
    return built(found, where)


def recognised(
    weights: Weights,
    where: str,
    *,
    pooling: Pooling | None = None,
    frames: int | None = None,
    words: int | None = None,
) -> PublishedCheckpoint:
    """What a file holds, ours or published, before a network is made of it.

    Raises:
        CheckpointError: none that is known, or one made for other settings than are asked for.
    """
    if METADATA not in weights.metadata:
        if any(name.startswith("trunk.") for name in weights.tensors):
            raise CheckpointError(
                "these are tensors of teachclip without the configuration that belongs to them",
                where=where,
                hint="use the file as teachclip wrote it; its metadata was lost on the way",
            )
        if is_published_experts(weights.tensors) and weights.path is not None:
            return read_published_experts(weights.tensors, read_config(weights.path), where)
        return read_published(weights.tensors, where, pooling=pooling, frames=frames, words=words)
    note = saved_note(weights, where)
    config = NetworkConfig.model_validate(note["network"])
    if pooling not in (None, config.pooling):
        raise CheckpointError(f"this checkpoint pools with {config.pooling}, and {pooling} is asked for", where=where)
    check_slots(config, {"frames": frames, "words": words}, where)
    used = {name: value for name, value in weights.tensors.items() if not name.startswith(_UNUSED)}
    unused = {name.removeprefix(_UNUSED): value for name, value in weights.tensors.items() if name not in used}
    scale_shape = tuple(note.get("source", {}).get("logit_scale_shape", ()))
    return PublishedCheckpoint(
        f"{title_of(config)}; a file of teachclip's", config, used, unused, ("frames", "words"), scale_shape=scale_shape
    )


def saved_note(weights: Weights, where: str) -> dict[str, Any]:
    """What our own file says of itself: `format`, `network` and, when it was converted, `source`.

    Raises:
        CheckpointError: it cannot be read, or another release wrote it.
    """
    try:
        note: dict[str, Any] = json.loads(weights.metadata[METADATA])
        if note["format"] != FORMAT:
            raise CheckpointError(
                f"this checkpoint has format {note['format']}; this release reads {FORMAT}",
                where=where,
                hint="update teachclip",
            )
        NetworkConfig.model_validate(note["network"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            "the configuration in this checkpoint cannot be read",
            where=where,
            details=findings(error) if isinstance(error, ValidationError) else [],
        ) from error
    return note


def built(found: PublishedCheckpoint, where: str) -> RetrievalNetwork:
    """The network, in float32, with its weights.

    Raises:
        CheckpointError: tensors missing, unknown, of other shapes or not finite, under the names that the file has.
    """
    with torch.device("meta"):  # costs no time and no memory
        network = build_network(found.config)
    load_into(network, found.tensors, where, assign=True, named=found.name_in_file)
    return network


def _tell(found: PublishedCheckpoint, where: str, reporter: Reporter | None) -> None:
    left_out = listed("tensors that it does not use, left out", found.unused)
    (reporter or Silent()).info("\n".join([f"{where}: {found.title}", *left_out]))


def network_config_of(path: Path) -> NetworkConfig | None:
    """The configuration of a checkpoint that says it: ours, or TeachText's; None for others, and where there is none.

    Raises:
        CheckpointError: it is damaged, or a folder without a checkpoint.
    """
    path = checkpoint_file(path)
    if path.suffix == ".safetensors":
        weights = Weights({}, read_metadata(path), "safetensors", path=path)
        return NetworkConfig.model_validate(saved_note(weights, str(path))["network"]) if weights.metadata else None
    if not path.is_file() or not path.with_name(CONFIG).is_file():
        return None
    weights = read_weights(path)
    return recognised(weights, str(path)).config if is_published_experts(weights.tensors) else None


def load_clip_network(
    path: Path, device: str | torch.device = "cpu", reporter: Reporter | None = None
) -> VideoTextNetwork:
    """As `load_network`, for what looks at frames.

    Raises:
        CheckpointError: as `load_network`; also a network on expert features, which has no trunk.
    """
    network = load_network(path, device, reporter)
    if not isinstance(network, VideoTextNetwork):
        raise CheckpointError(
            f"this is {title_of(network.config)}: it compares features of videos with words of captions, both computed "
            "beforehand, so that it can take no frames and no new sentence",
            where=str(path),
            hint="it can be evaluated on its data set, score as a teacher, and teach a student that sees frames",
        )
    return network


def network_digest(network: RetrievalNetwork) -> str:
    """A hash of the weights, their names, and the settings that change what the same weights compute."""
    trunk = network.trunk.identity if isinstance(network, VideoTextNetwork) else []
    return _digest([network.config.kind, *trunk, *network.settings()], network.state_dict().items())


def checkpoint_digest(path: Path) -> str:
    """A hash of a checkpoint's bytes and of the networks' score versions: where it is equal, so are the scores.

    It needs no network; other bytes may still hold the same network (`network_digest`).

    Raises:
        CheckpointError: there is no checkpoint.
    """
    path = checkpoint_file(path)
    try:
        with path.open("rb") as file:
            total = hashlib.file_digest(file, "sha256")
    except FileNotFoundError:
        raise absent(path) from None
    except OSError as error:
        raise CheckpointError(f"this checkpoint cannot be read: {error.strerror}", where=str(path)) from error
    total.update(json.dumps(score_versions(), sort_keys=True).encode())
    return total.hexdigest()


def class_token_digest(network: VideoTextNetwork) -> str:
    """A hash of the weights and settings that class tokens depend on: those of the visual trunk."""
    return _digest(network.trunk.frame_identity, network.trunk.frame_weights())


def _digest(settings: list[object], tensors: Iterable[tuple[str, Tensor]]) -> str:
    total = hashlib.sha256(json.dumps(settings).encode())
    for name, value in sorted(tensors, key=lambda item: item[0]):
        array = value.detach().cpu().contiguous().numpy()
        total.update(f"{name} {array.dtype} {array.shape};".encode())
        total.update(array.reshape(-1).view("uint8").data)
    return total.hexdigest()


def checkpoint_file(path: Path) -> Path:
    """The checkpoint file: `path` itself, a run folder's best, or a shared model's, which is fetched.

    Raises:
        CheckpointError: a folder without one; a shared model that is not there.
        UnreachableError: a shared model's hub does not answer.
    """
    if is_shared(path):
        return fetched(str(path))
    if not path.is_dir():
        return path
    if not (path / BEST).is_file():
        raise CheckpointError(f"this run folder has no {BEST}", where=str(path), hint=_in_folder(path))
    return path / BEST


@contextmanager
def trained_with(settings: Settings) -> Iterator[None]:
    """Reading a checkpoint: where training would make it, it takes these settings, too."""
    try:
        yield
    except CheckpointError as error:
        if not isinstance(error.hint, Remedy) or not isinstance(error.hint.action, Train):
            raise
        hint = replace(error.hint, action=Train({**error.hint.action.settings, **settings}))
        raise CheckpointError(error.what, where=error.where, hint=hint, details=error.details) from error


def _in_folder(path: Path) -> Hint:
    """What a folder that is no finished run of ours may be good for."""
    names = sorted(each.name for each in path.iterdir())
    if any(name.endswith(".distcp") for name in names):
        return "it holds the shards of torch.distributed.checkpoint: save the full state as one file, and name that"
    files = [name for name in names if name.endswith(_FILES)]
    if files and "config.yaml" not in names:  # which is in our run folders from the beginning
        return f"name a file in it: {', '.join(files[:3])}" + (f" or one of {len(files) - 3} more" * (len(files) > 3))
    return Remedy("train it first", Train({"train.run": str(path.absolute())}))
