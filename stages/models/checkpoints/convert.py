"""Checkpoints from published names to ours, and back."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from ....cache.storage.publish import publishing
from ....configs.schema import NetworkConfig
from ....errors import CheckpointError
from ....remedies import Again, Change, Option, Remedy
from ...runtime.reporting import Reporter, Silent
from ..clip.trunk import trunk_tensors
from ..weights.files import Weights, read_weights
from .files import METADATA, built, checkpoint_file, network_digest, recognised, save_network
from .published import (
    Pooling,
    PublishedCheckpoint,
    as_teachclip_runs_it,
    family_of,
    published_state,
    read_published,
    title_of,
)
from .trunks import is_bare_trunk

# Settings that no score of the authors' code depends on: of training, of ours alone, or given on its command line.
_NOT_COMPUTED = ("frames", "words", "trunk.model", "xpool.dropout", "drl.cdcr", "drl.frame_scores")

# Settings that change nothing in other kinds of networks.
_OF_KINDS = {
    "mask_padding": ("student", "xpool"),
    "pooling": ("student",),
    "pool_temperature": ("student",),
    "normalise_frames": ("student",),
}


@dataclass(frozen=True)
class Converted:
    """What was written.

    Attributes:
        title: what the network is; names: whose names the file has.
        digest: the network's; tensors: in the file, `kept` of them without use.
        changed: settings with which the authors' code would compute something else (published names only).
    """

    file: str
    title: str
    names: Literal["teachclip", "published"]
    digest: str
    frames: int
    words: int
    tensors: int
    kept: int
    changed: tuple[str, ...]


def convert(
    path: Path,
    out: Path,
    *,
    frames: int | None = None,
    words: int | None = None,
    pooling: Pooling | None = None,
    clip: Path | None = None,
    names: Literal["teachclip", "published"] = "teachclip",
    force: bool = False,
    reporter: Reporter | None = None,
) -> Converted:
    """Write the network of `path` to `out`, in float32: as our safetensors, which hold its configuration and where it
    comes from, or under the names that its authors' code reads.

    Args:
        frames, words, pooling: see `models.published.read_published`.
        clip: a plain CLIP file: write the TS2-Net that TeachCLIP runs (spec TS2-Net 9).
        names: `published` writes a torch state_dict, or safetensors where `out` says so.
        force: `out` may be replaced.

    Raises:
        CheckpointError: `path` cannot be loaded, another number of slots than it records is asked for, or `out` is
            there already.
    """
    reporter = reporter or Silent()
    _check_out(out, names, force)
    path = checkpoint_file(path)
    weights = read_weights(path)
    _refuse_trunk(weights, path)
    found = recognised(weights, str(path), pooling=pooling, frames=frames, words=words)
    if names == "teachclip" and clip is None and METADATA in weights.metadata:
        raise CheckpointError(
            "this file has teachclip's names already",
            where=str(path),
            hint=Remedy("write it back with the names of the authors' code", Again(Option.PUBLISHED_NAMES)),
        )
    original = found
    if clip is not None:
        found = as_teachclip_runs_it(found, trunk_tensors(read_weights(clip).tensors, str(clip)), str(clip))
    network = built(found, str(path))
    found = replace(found, tensors=network.state_dict(), config=network.config)
    changed: tuple[str, ...] = ()
    if names == "published":
        state = published_state(found)
        changed = tuple(_differences(found, state))
        if changed:
            reporter.warn("\n".join(["the authors' code will compute something else:", *changed]))
        written = _write_published(state, out)
    else:
        with publishing(out) as temporary:
            save_network(network, temporary, source=_source(original, path, clip), unused=found.unused)
        written = len(found.tensors) + len(found.unused)
    return Converted(
        str(out),
        found.title,
        names,
        network_digest(network),
        found.config.frames,
        found.config.words,
        written,
        len(found.unused),
        changed,
    )


def _check_out(out: Path, names: str, force: bool) -> None:
    if out.is_dir():
        raise CheckpointError("this is a folder; name the file to be written", where=str(out))
    if out.exists() and not force:
        raise CheckpointError(
            "there is such a file already", where=str(out), hint=Remedy("replace it", Again(Option.REPLACE))
        )
    if names == "teachclip" and out.suffix != ".safetensors":
        raise CheckpointError(
            "teachclip's checkpoints are safetensors files",
            where=str(out),
            hint=f"name it {out.with_suffix('.safetensors')}",
        )


def _refuse_trunk(weights: Weights, path: Path) -> None:
    if METADATA not in weights.metadata and not family_of(weights.tensors) and is_bare_trunk(weights.tensors):
        raise CheckpointError(
            "this is a CLIP trunk, which is used as it is",
            where=str(path),
            hint=Remedy("train from it", Change({"train.network.trunk.weights": str(path)})),
        )


def _source(found: PublishedCheckpoint, path: Path, clip: Path | None) -> dict[str, Any]:
    """Where a network comes from, for its file."""
    source: dict[str, Any] = {"title": found.title, "file": path.name, "sha256": _sha256(path)}
    if found.scale_shape:
        source["logit_scale_shape"] = list(found.scale_shape)
    if clip is not None:
        source["clip"] = {"file": clip.name, "sha256": _sha256(clip)}
    return source


def _write_published(state: dict[str, Tensor], out: Path) -> int:
    state = {name: value.detach().contiguous() for name, value in state.items()}
    with publishing(out) as temporary:
        save_file(state, temporary) if out.suffix == ".safetensors" else torch.save(state, temporary)
    return len(state)


def _differences(found: PublishedCheckpoint, state: dict[str, Tensor]) -> Iterator[str]:
    """Settings of ours that the published names cannot carry, so that the authors' code has others."""
    config = found.config
    there = read_published(
        state, "the published names", pooling=config.pooling if config.kind == "student" else None
    ).config
    if there.kind != config.kind:
        yield f"kind: {config.kind} here; the names are those of {title_of(there)}"
        return
    own, theirs = dict(_flat(config)), dict(_flat(there))
    for name, value in own.items():
        if value != theirs[name] and not name.startswith(_NOT_COMPUTED):
            yield f"{name}: {value} here, {theirs[name]} there"


def _flat(config: NetworkConfig) -> Iterator[tuple[str, Any]]:
    """Settings that bear on this kind of network, by dotted names; heads as they are."""
    kinds = {"ts2net", "xpool", "drl"} - {config.kind}
    for name, value in config.model_dump().items():
        if name == "trunk" and value["sizes"] is not None:
            sizes = value["sizes"]
            for tower in ("vision", "text"):
                sizes[f"{tower}_heads"] = sizes[f"{tower}_heads"] or max(1, sizes[f"{tower}_width"] // 64)
            yield from ((f"trunk.{key}", size) for key, size in sizes.items())
        elif isinstance(value, dict):
            yield from ((f"{name}.{key}", setting) for key, setting in value.items() if name not in kinds)
        elif name not in _OF_KINDS or config.kind in _OF_KINDS[name]:
            yield name, value


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
