"""What a checkpoint file is, its sizes, and what is odd about it; also of files that would be refused."""

import hashlib
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ....configs.schema import NetworkConfig, TrunkConfig, TrunkSizes
from ....errors import CheckpointError, TeachclipError
from ....plurals import counted
from ....remedies import Hint
from ..clip.catalog import description
from ..clip.tokens import VOCABULARY
from ..clip.trunk import CLIP_NOTES, ClipTrunk, head_count, trunk_tensors
from ..experts.published import is_published_experts
from ..weights.files import Weights, listed, load_into, read_weights
from ..weights.names import to_openai
from ..weights.sizes import block_numbers, trunk_sizes
from .files import METADATA, built, checkpoint_file, network_digest, recognised, saved_note
from .published import SHIFT_LAYERS, PublishedCheckpoint, family_of
from .trunks import other_trunk

LN_100 = math.log(100)
NAMED = 4
_TOWERS = {
    "image tower": ("visual.",),
    "text tower": ("token_embedding", "transformer.", "ln_final", "text_projection"),
}


@dataclass(frozen=True)
class Refusal:
    """Why a file cannot be used: as an error would say it."""

    what: str
    details: tuple[str, ...]
    hint: Hint | None


@dataclass(frozen=True)
class Inspection:
    """What a checkpoint file holds.

    Attributes:
        title: whose it is; kind: of network, `trunk` for CLIP alone, None when it is not known.
        format: safetensors, torch or torchscript; sha256: of the file.
        source: what it was converted from, by us.
        sizes: of the network, as far as they can be told; heads are derived (width / 64) unless we recorded them.
        assumed: which of these no tensor records.
        settings: special to this kind of network.
        trunk: of a network of ours: its `family`; its `model` and the `tag` of the weights that training started from,
            where these are recorded; `pixels` where they are not as OpenAI's.
        parameters: numbers in all tensors; dtypes: how many tensors have which.
        scale: exp(logit_scale).
        digest: the network's; None for a trunk and for what is refused.
        odd: what one should know before using it; refused: why it cannot be used.
    """

    file: str
    format: str
    bytes: int
    sha256: str
    title: str
    kind: str | None
    source: dict[str, Any] | None
    sizes: dict[str, int]
    assumed: tuple[str, ...]
    settings: dict[str, Any]
    trunk: dict[str, Any]
    tensors: int
    parameters: int
    dtypes: dict[str, int]
    logit_scale: float | None
    scale: float | None
    digest: str | None
    odd: tuple[str, ...]
    refused: Refusal | None


@dataclass
class _Seen:
    """What is known so far."""

    title: str = "not known here"
    kind: str | None = None
    sizes: dict[str, int] = field(default_factory=dict)
    assumed: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    trunk: dict[str, Any] = field(default_factory=dict)
    digest: str | None = None
    odd: list[str] = field(default_factory=list)
    refused: Refusal | None = None


def inspect(path: Path) -> Inspection:
    """Look at a checkpoint: a run folder's best, a file of ours, a published one, or a CLIP.

    Raises:
        CheckpointError: no file, or one whose tensors cannot be read.
    """
    path = checkpoint_file(path)
    weights = read_weights(path)
    seen = _Seen(odd=[*weights.wrapped, *_odd_types(weights.tensors)])
    source: dict[str, Any] | None = None
    try:
        if METADATA in weights.metadata:
            source = saved_note(weights, str(path)).get("source")
        if (
            METADATA not in weights.metadata
            and family_of(weights.tensors) is None
            and not is_published_experts(weights.tensors)
            and _is_trunk(weights.tensors, str(path))
        ):
            _look_at_trunk(weights, seen, str(path))
        else:
            _look_at_network(weights, seen, str(path))
    except TeachclipError as error:
        seen.refused = Refusal(error.what, error.details, error.hint)
    scales = [value for name, value in weights.tensors.items() if name.endswith("logit_scale") and value.numel() == 1]
    logit_scale = scales[0].item() if scales else None
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Inspection(
        file=str(path),
        format=weights.format,
        bytes=path.stat().st_size,
        sha256=digest,
        title=seen.title,
        kind=seen.kind,
        source=source,
        sizes=seen.sizes,
        assumed=seen.assumed,
        settings=seen.settings,
        trunk=seen.trunk,
        tensors=len(weights.tensors),
        parameters=sum(value.numel() for value in weights.tensors.values() if value.is_floating_point()),
        dtypes=_dtypes(weights.tensors),
        logit_scale=logit_scale,
        scale=None if logit_scale is None else math.exp(min(logit_scale, 700.0)),
        digest=seen.digest,
        odd=(*seen.odd, *_odd_scale(logit_scale)),
        refused=seen.refused,
    )


def _look_at_network(weights: Weights, seen: _Seen, where: str) -> None:
    family = family_of(weights.tensors)
    if family is not None and METADATA not in weights.metadata:
        seen.title = family.name
        seen.sizes = _sizes_told(weights.tensors)
    found = recognised(weights, where)
    config = found.config
    seen.title, seen.kind = found.title, config.kind
    seen.sizes = _sizes(config)
    seen.assumed = tuple(key for key in ("frames", "words") if key not in found.slots)
    seen.settings = _settings(config)
    seen.trunk = {} if config.on_experts else _trunk(config.trunk)
    seen.odd += _odd_network(found)
    seen.digest = network_digest(built(found, where))


def _is_trunk(tensors: dict[str, Tensor], where: str) -> bool:
    """Whether CLIP alone lies in the file, or a part of it: nothing of another network."""
    if any(name.startswith(("visual.", "transformer.resblocks.")) for name in tensors):
        return True
    notes = sum(name.rpartition(".")[2] in CLIP_NOTES for name in tensors)
    return len(trunk_tensors(tensors, where)) + notes == len(tensors) and not any(
        name.startswith("trunk.") for name in tensors
    )


def _look_at_trunk(weights: Weights, seen: _Seen, where: str) -> None:
    tensors = trunk_tensors(weights.tensors, where) or weights.tensors
    if (other := other_trunk(tensors)) is not None:
        seen.kind, seen.title, seen.sizes = "trunk", other.title, other.sizes
        return
    openai = weights.torchscript or any(note in weights.tensors for note in CLIP_NOTES)
    seen.title = "not a whole CLIP trunk"
    told, wrong = trunk_sizes(tensors, "")
    gelu = told.pop("quick_gelu")
    seen.sizes = _with_heads({name: size for name, size in told.items() if size})
    if wrong:
        towers = " and ".join(
            tower for tower, start in _TOWERS.items() if not any(name.startswith(start) for name in tensors)
        )
        raise CheckpointError(
            "this CLIP trunk is not whole" + (f": the {towers} missing" if towers else ""),
            where=where,
            details=listed("needed and not there, or of no use", wrong),
        )
    with torch.device("meta"):
        trunk = ClipTrunk(TrunkSizes(**told, quick_gelu=gelu))
    load_into(trunk, tensors, where, assign=True)
    seen.kind = "trunk"
    seen.title = "CLIP trunk, OpenAI's own TorchScript archive" if weights.torchscript else "CLIP trunk, a state dict"
    if not openai:
        seen.odd.append("the activation is not recorded: OpenAI's weights need a -quickgelu model, others mostly not")


def _sizes(config: NetworkConfig) -> dict[str, int]:
    if config.on_experts:
        experts = config.experts
        text = {f"text_{name}": size for name, size in experts.text.model_dump().items()}
        shared = {"shared": experts.shared} if config.kind == "ce" else {}
        return {"experts": len(experts.modalities), **shared, **text}
    trunk = config.trunk
    if trunk.sizes is None:  # a saved network's make is resolved
        own = description(trunk)
        told = {name: getattr(own, name) for name in ("image_size", "embed_dim", "context_length")}
    else:
        told = {
            name: value
            for name, value in trunk.sizes.model_dump().items()
            if isinstance(value, int) and not isinstance(value, bool)
        }
    told |= {"frames": config.frames, "words": config.words, "temporal_layers": config.temporal_layers}
    return _with_heads(told)


def _sizes_told(tensors: dict[str, Tensor]) -> dict[str, int]:
    """Of a file that may not be whole."""
    try:
        tensors = to_openai(tensors)
    except (KeyError, RuntimeError, IndexError):
        return {}
    told, _ = trunk_sizes(tensors, "clip.")
    del told["quick_gelu"]
    numbers, _ = block_numbers(tensors, "transformerClip.")
    return _with_heads({name: size for name, size in told.items() if size} | {"temporal_layers": len(numbers)})


def _with_heads(sizes: dict[str, int]) -> dict[str, int]:
    for tower in ("vision", "text"):
        if f"{tower}_width" in sizes and f"{tower}_heads" not in sizes:
            try:
                sizes[f"{tower}_heads"] = head_count(sizes[f"{tower}_width"])
            except TeachclipError:  # said where the network is built
                continue
    return sizes


def _settings(config: NetworkConfig) -> dict[str, Any]:
    """Settings of this kind of network."""
    if config.on_experts:
        return _expert_settings(config)
    shared: dict[str, Any] = {"mask_padding": config.mask_padding}
    if config.kind == "student":
        return shared | {
            "pooling": config.pooling,
            "pool_temperature": config.pool_temperature,
            "normalise_frames": config.normalise_frames,
        }
    own: dict[str, Any] = getattr(config, config.kind).model_dump() if config.kind in ("ts2net", "xpool", "drl") else {}
    return shared | own


def _expert_settings(config: NetworkConfig) -> dict[str, Any]:
    dumped = config.experts.model_dump(exclude={"modalities", "text", "shared"})
    if config.kind == "moee":
        dumped = {name: dumped[name] for name in ("fixed_weights", "keep_missing")}
    for name, expert in sorted(config.experts.modalities.items()):
        sequence = (
            f", {counted(expert.tokens, 'row')} in {counted(expert.clusters, 'cluster')}" if expert.tokens else ""
        )
        dumped[name] = f"{expert.width} numbers{sequence}"
    return dumped


def _trunk(trunk: TrunkConfig) -> dict[str, Any]:
    """What is recorded of it; a name beside sizes says nothing of where they come from."""
    told: dict[str, Any] = {"family": description(trunk).family}
    if trunk.towers is not None or trunk.tag is not None:
        told |= {"model": trunk.model, "tag": trunk.tag}
    return told | ({} if trunk.pixels is None else {"pixels": trunk.pixels.model_dump()})


def _dtypes(tensors: dict[str, Tensor]) -> dict[str, int]:
    return dict(sorted(Counter(str(value.dtype).removeprefix("torch.") for value in tensors.values()).items()))


def _odd_types(tensors: dict[str, Tensor]) -> Iterator[str]:
    for dtype, count in _dtypes(tensors).items():
        if dtype in ("float16", "bfloat16"):
            yield f"{counted(count, 'tensor')} in {dtype}; everything is computed in float32"
        elif dtype == "float64":
            yield f"{counted(count, 'tensor')} in float64, which lose digits: everything is computed in float32"


def _odd_scale(logit_scale: float | None) -> Iterator[str]:
    if logit_scale is not None and not logit_scale <= LN_100 + 1e-4:
        yield f"logit scale {logit_scale:.4f} is above ln 100 = {LN_100:.4f}, where training stops it"


def _odd_network(found: PublishedCheckpoint) -> Iterator[str]:
    config = found.config
    if missing := [key for key in ("frames", "words") if key not in found.slots]:
        slots = " and ".join(f"{getattr(config, key)} {key}" for key in missing)
        yield f"it does not record its slots: {slots} are assumed, by the digest too"
    if found.unused:
        first = ", ".join(list(found.unused)[:NAMED])
        more = f" and {len(found.unused) - NAMED} more" if len(found.unused) > NAMED else ""
        place = "kept aside" if found.clip_names == "ours" and not found.their_names else "left out"
        yield f"{counted(len(found.unused), 'tensor is', 'tensors are')} not used and {place}: {first}{more}"
    if found.clip_names == "Hugging Face":
        yield "CLIP has Hugging Face's names: q, k, v are packed and both projections transposed for ours"
    if config.kind == "ts2net" and found.clip_names != "ours":
        yield "samples, noise and number of selected patches are not recorded: the authors' are assumed"
        layers = config.ts2net.shift_layers
        if layers and layers != SHIFT_LAYERS:
            yield f"token shift in blocks {', '.join(map(str, layers))}; the authors have it in 10 and 11"
    if config.kind == "xpool" and found.clip_names != "ours":
        yield "heads and dropout of the pooling are not recorded: 1 and 0.3 are assumed"
    if config.kind == "drl" and found.clip_names != "ours":
        yield "no released code takes frame-text scores from DRL; which are taken is a setting of ours"
    if not config.on_experts and config.trunk.sizes is not None and config.trunk.sizes.vocab_size != VOCABULARY:
        yield f"its vocabulary has {config.trunk.sizes.vocab_size} tokens, CLIP's {VOCABULARY}: it cannot read captions"
