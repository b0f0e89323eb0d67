"""Published checkpoints: whose they are, told by names and shapes, and their tensors under our names.

TeachCLIP's and CLIP4Clip's students, X-CLIP, TS2-Net, X-Pool (with OpenAI's or with Hugging Face's names of CLIP) and
DRL (specs: TeachCLIP 1.6, X-CLIP 7, TS2-Net 6 and 9, X-Pool 3 and 6, DRL 2).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import ValidationError
from torch import Tensor

from ....configs.schema import DrlConfig, NetworkConfig, TrunkConfig, TrunkSizes, Ts2NetConfig
from ....errors import CheckpointError
from ....plurals import counted
from ..clip.trunk import CLIP_NOTES
from ..experts.published import (
    network_config,
    published_expert_name,
    split_unused,
    under_our_names,
)
from ..weights.files import listed
from ..weights.names import (
    SHIFTED,
    StateDict,
    hf_name,
    is_hugging_face,
    is_openai,
    our_name,
    published_name,
    to_hugging_face,
    to_openai,
)
from ..weights.sizes import block_numbers, trunk_sizes
from ..weights.wrapping import networks_in

Pooling = Literal["afa", "mean"]

FRAMES, WORDS = 12, 32
"""Slots of checkpoints that do not record them, as all published ones for short videos have them."""

SHIFT_LAYERS = (10, 11)
"""Visual blocks with token shift in the authors' TS2-Net."""

# Modules that published code creates and never uses, and numbers that OpenAI's files hold beside weights.
_UNUSED = ("cross.", "similarity_dense.", *(f"clip.{note}" for note in CLIP_NOTES))
_TOWERS = {
    "image tower": re.compile(r"clip\.visual\."),
    "text tower": re.compile(r"clip\.(token_embedding|positional_embedding|transformer|ln_final|text_projection)\b"),
}
_HF_ALONE = "It looks like CLIP with Hugging Face's names; take the same CLIP from open_clip, or OpenAI's ViT-B-32.pt."
_SHIFTED_BLOCK = re.compile(rf"clip\.visual\.transformer\.resblocks\.([0-9]{{1,4}}){re.escape(SHIFTED)}")
_MATRICES = (
    "global_mat_weight",
    "local_mat_weight",
    "word_logit_weight",
    "word_mat",
    "frame_logit_weight",
    "frame_mat",
)
_TS2NET_UNUSED = ("text_token_selector.", "visual_prompt_encoder.")


@dataclass(frozen=True)
class PublishedCheckpoint:
    """A published checkpoint under our names.

    Attributes:
        title: what it is, in words; config: the network that it holds.
        tensors: by our names; unused: by published names, what the network does not use.
        slots: which of "frames" and "words" the checkpoint records.
        clip_names: whose names the file has, for CLIP.
        scale_shape: of the logit scale in the file: a scalar, or one element.
        their_names: published names by ours, of networks without a CLIP.
    """

    title: str
    config: NetworkConfig
    tensors: StateDict
    unused: StateDict
    slots: tuple[str, ...] = ()
    clip_names: Literal["ours", "OpenAI", "Hugging Face"] = "ours"
    scale_shape: tuple[int, ...] = ()
    their_names: Mapping[str, str] = field(default_factory=dict)

    def name_in_file(self, name: str) -> str:
        """What the file calls one of our tensors."""
        if self.their_names:
            return self.their_names.get(name) or published_expert_name(name, self.config)
        if self.clip_names == "ours":
            return name
        theirs = published_name(name, self.config.ts2net.shift_layers if self.config.kind == "ts2net" else ())
        return theirs if self.clip_names == "OpenAI" else hf_name(theirs)


@dataclass(frozen=True)
class Family:
    """One kind of published checkpoint.

    Attributes:
        name: whose it is; mark: how the names of tensors tell it.
        config: its configuration, and the names of tensors that would be needed to tell it.
        slots: which of "frames" and "words" it records; unused: prefixes of tensors that nothing reads.
    """

    name: str
    mark: tuple[str, ...]
    config: Callable[[StateDict, Pooling | None], tuple[dict[str, Any], list[str]]]
    slots: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()


def family_of(state: Mapping[str, Tensor]) -> Family | None:
    """Whose checkpoint this is; None for none that is known."""
    return next((family for family in FAMILIES if any(name.startswith(family.mark) for name in state)), None)


def read_published(
    state: Mapping[str, Tensor],
    where: str,
    *,
    pooling: Pooling | None = None,
    frames: int | None = None,
    words: int | None = None,
) -> PublishedCheckpoint:
    """What a published state_dict holds. It computes what the published code does: padding is not masked, and so on.

    Args:
        state: tensors under their published names; on the meta device, where only names and shapes matter.
        where: names the state in messages.
        pooling: how a student pools; by default with AFA where the state has it. `mean` leaves AFA out.
        frames, words: slots, where the checkpoint does not record them.

    Raises:
        CheckpointError: none of those above, tensors that tell its sizes are missing or do not fit each other, or it
            records other slots.
    """
    family = family_of(state)
    if family is None:
        raise CheckpointError(
            "this is neither a checkpoint of teachclip nor a published student, X-CLIP, TS2-Net, X-Pool, DRL, CE or "
            "MoEE",
            where=where,
            details=listed("tensors in it", state),
            hint=_why_not_known(state),
        )
    plain = _with_openai_names(state, where)
    settings, missing = family.config(plain, pooling)
    sizes, not_told = trunk_sizes(plain, "clip.")
    if not_told or missing:
        towers = " and ".join(tower for tower, names in _TOWERS.items() if not any(map(names.match, plain)))
        raise CheckpointError(
            f"this {family.name} checkpoint is not whole" + (f": CLIP's {towers} missing" if towers else ""),
            where=where,
            details=listed("needed and not there, or of no use", [*not_told, *missing]),
        )
    asked = {key: value for key, value in (("frames", frames), ("words", words)) if value is not None}
    config = _config(sizes, settings, where)
    check_slots(config, {key: value for key, value in asked.items() if key in family.slots}, where)
    config = config.model_copy(update=asked)
    _check_positions(config, plain, where)
    unused = _unused(plain, family, config)
    return PublishedCheckpoint(
        title_of(config),
        config,
        _under_our_names({name: value for name, value in plain.items() if name not in unused}, where),
        unused,
        family.slots,
        "Hugging Face" if any(map(is_hugging_face, state)) else "OpenAI",
        tuple(state["clip.logit_scale"].shape) if "clip.logit_scale" in state else (),
    )


def read_published_experts(state: Mapping[str, Tensor], said: Mapping[str, Any], where: str) -> PublishedCheckpoint:
    """What a checkpoint of TeachText's code holds; `said` is its config.json.

    Raises:
        CheckpointError: the two do not make a network that is known here.
    """
    used, unused = split_unused(state)
    config = network_config(used, said, where)
    tensors, theirs = under_our_names(used, config, where)
    return PublishedCheckpoint(title_of(config), config, tensors, unused, ("frames", "words"), their_names=theirs)


def _check_positions(config: NetworkConfig, plain: StateDict, where: str) -> None:
    assert config.trunk.sizes is not None
    positions = config.trunk.sizes.context_length
    if config.words > positions:
        raise CheckpointError(
            f"its text tower has {positions} positions, and {config.words} words are asked for", where=where
        )
    name = "frame_position_embeddings.weight"
    rows = plain.get(name)
    if config.temporal_layers and rows is not None and rows.ndim == 2 and config.frames > len(rows):
        shape = tuple(rows.shape)
        raise CheckpointError(
            f"its temporal transformer has {len(rows)} positions, and {config.frames} frames are asked for",
            where=where,
            details=[f"{name}: {shape} instead of {(config.frames, *shape[1:])}"],
        )


def _why_not_known(state: Mapping[str, Tensor]) -> str | None:
    if any(name.startswith("vision_model.") for name in state):
        return _HF_ALONE
    prefixes = [prefix for prefix in networks_in(state) if prefix]
    if not prefixes:
        return None
    counts = [f"{sum(name.startswith(prefix) for name in state)} names with `{prefix}`" for prefix in prefixes[:3]]
    return (
        f"a network may lie in it: {' and '.join(counts)} of {len(state)}; "
        f"save the tensors of {'one of them' if len(prefixes) > 1 else 'that one'} alone, without the prefix"
    )


def title_of(config: NetworkConfig) -> str:
    """Whose network this is, in words."""
    if config.kind == "student":
        return "TeachCLIP student" if config.pooling == "afa" else "CLIP4Clip"
    if config.on_experts:
        name = "MoEE" if config.kind == "moee" else "CE" if config.experts.gating else "CE without gating"
        return f"TeachText's {name} on {counted(len(config.experts.modalities), 'expert')}"
    if config.kind == "drl":
        return f"DRL with weight networks of {config.drl.layers} layer{'s' * (config.drl.layers > 1)}"
    if config.kind == "ts2net" and not config.ts2net.shift_layers:
        return "TS2-Net without token shift, as TeachCLIP runs it"
    if config.kind == "ts2net":
        layers = config.ts2net.shift_layers
        told = ", as its authors publish it" if layers == Ts2NetConfig().shift_layers else ""
        return f"TS2-Net with token shift in blocks {', '.join(map(str, layers))}{told}"
    return {"xclip": "X-CLIP", "xpool": "X-Pool", "openclip": "CLIP with the mean of its frames"}[config.kind]


def findings(error: ValidationError) -> list[str]:
    """What is wrong with a configuration, one line each."""
    return [": ".join(filter(None, (".".join(map(str, part["loc"])), part["msg"]))) for part in error.errors()]


def check_slots(config: NetworkConfig, asked: Mapping[str, int | None], where: str) -> None:
    """Refuse another number of "frames" or "words" than a checkpoint records.

    Raises:
        CheckpointError: naming both.
    """
    for key, value in asked.items():
        if value not in (None, getattr(config, key)):
            raise CheckpointError(
                f"this checkpoint was made for {getattr(config, key)} {key}, and {value} are asked for", where=where
            )


def published_state(found: PublishedCheckpoint) -> StateDict:
    """The tensors under the names that the authors' code has, X-Pool's CLIP under Hugging Face's.

    Raises:
        CheckpointError: the authors' code has no such network.
    """
    config = found.config
    if config.kind == "openclip":
        raise CheckpointError("nobody has published an `openclip` network: it has no other names than ours")
    if config.on_experts:
        raise CheckpointError("TeachText's code reads a config.json beside its checkpoints, which is not written here")
    if config.trunk.towers is not None:
        raise CheckpointError(
            f"nobody has published a network behind {config.trunk.model}: it has no other names than ours"
        )
    shifted = config.ts2net.shift_layers if config.kind == "ts2net" else ()
    state = {published_name(name, shifted): value for name, value in found.tensors.items()}
    state["clip.logit_scale"] = state["clip.logit_scale"].reshape(found.scale_shape)
    if config.kind == "xpool":
        state = to_hugging_face(state)
    return state | found.unused


def as_teachclip_runs_it(found: PublishedCheckpoint, clip: Mapping[str, Tensor], where: str) -> PublishedCheckpoint:
    """The TS2-Net that TeachCLIP's published code runs with the authors' file (spec TS2-Net 9): no token shift, and
    the attention of the shifted blocks from the plain CLIP file, since their names are not recognised there.

    Args:
        found: the authors' checkpoint. clip: tensors of the CLIP file, under OpenAI's names.
        where: names the CLIP file in messages.

    Raises:
        CheckpointError: no TS2-Net with token shift, or a CLIP file without these tensors.
    """
    layers = found.config.ts2net.shift_layers
    if found.config.kind != "ts2net" or not layers:
        raise CheckpointError(f"this is {found.title}; only a TS2-Net with token shift differs where TeachCLIP runs it")
    replaced = [
        name
        for name in found.tensors
        if any(name.startswith(f"trunk.visual.transformer.resblocks.{layer}.attn.") for layer in layers)
    ]
    taken = {name: name.removeprefix("trunk.") for name in replaced}
    misfits = [
        theirs
        for ours, theirs in taken.items()
        if theirs not in clip or clip[theirs].shape != found.tensors[ours].shape
    ]
    if misfits:
        raise CheckpointError(
            "this CLIP cannot stand in for the attention of the shifted blocks",
            where=where,
            details=listed("missing or of another shape", misfits),
            hint="name the CLIP file that TS2-Net was trained from: OpenAI's ViT-B-32.pt",
        )
    config = found.config.model_copy(update={"ts2net": found.config.ts2net.model_copy(update={"shift_layers": ()})})
    tensors = found.tensors | {ours: clip[theirs] for ours, theirs in taken.items()}
    return replace(found, title=title_of(config), config=config, tensors=tensors)


def _config(sizes: dict[str, Any], settings: dict[str, Any], where: str) -> NetworkConfig:
    context = sizes["context_length"]
    base = {"words": min(WORDS, context), "frames": min(FRAMES, context), "mask_padding": False}
    try:
        trunk = TrunkConfig(sizes=TrunkSizes(**sizes), weights=None)
        return NetworkConfig.model_validate({"trunk": trunk, **base, **settings})
    except ValidationError as error:
        raise CheckpointError(
            "its tensors are of sizes that no network has",
            where=where,
            details=findings(error),
        ) from error


def _with_openai_names(state: Mapping[str, Tensor], where: str) -> StateDict:
    """OpenAI's names of CLIP throughout; a logit scale of one element is a scalar."""
    foreign = [name for name in state if is_hugging_face(name)]
    own = [name for name in state if is_openai(name)]
    if foreign and own:
        raise CheckpointError(
            f"its CLIP has OpenAI's names ({len(own)}) and Hugging Face's ({len(foreign)}), mixed",
            where=where,
            details=[*listed("of OpenAI's names", own[:3]), *listed("of Hugging Face's names", foreign[:3])],
        )
    try:
        plain = to_openai(state) if foreign else dict(state)
    except (KeyError, IndexError, RuntimeError) as error:
        raise CheckpointError(
            "this checkpoint is not whole", where=where, details=[f"no usable {error.args[0]}"]
        ) from error
    if "clip.logit_scale" in plain and plain["clip.logit_scale"].numel() == 1:
        plain["clip.logit_scale"] = plain["clip.logit_scale"].reshape(())
    return plain


def _under_our_names(plain: StateDict, where: str) -> StateDict:
    tensors: StateDict = {}
    twice = []
    for name, value in plain.items():
        if our_name(name) in tensors:
            twice.append(name)
        tensors[our_name(name)] = value
    if twice:
        raise CheckpointError("tensors are there twice, under two names", where=where, details=listed("twice", twice))
    return tensors


def _unused(plain: StateDict, family: Family, config: NetworkConfig) -> StateDict:
    prefixes = (*_UNUSED, *family.unused)
    if config.kind == "student" and config.pooling == "mean":
        prefixes += ("frameLinear.", "frameLinear2.")
    return {name: value for name, value in plain.items() if name.startswith(prefixes)}


def _student(state: StateDict, pooling: Pooling | None) -> tuple[dict[str, Any], list[str]]:
    pooling = pooling or ("afa" if any(name.startswith("frameLinear") for name in state) else "mean")
    return _temporal(state, "student", pooling=pooling)


def _xclip(state: StateDict, pooling: Pooling | None) -> tuple[dict[str, Any], list[str]]:
    marks = {"words": "word_logit_weight", "frames": "frame_logit_weight"}
    missing = [name for name in marks.values() if name not in state or state[name].ndim != 2]
    if missing:
        return {}, missing
    return _temporal(state, "xclip", **{key: len(state[name]) for key, name in marks.items()})


def _ts2net(state: StateDict, pooling: Pooling | None) -> tuple[dict[str, Any], list[str]]:
    """A file with `attn.net.*` was trained with token shift in these blocks, one without it was trained without."""
    shifted = sorted({int(found[1]) for name in state if (found := _SHIFTED_BLOCK.match(name))})
    settings, missing = _temporal(state, "ts2net", ts2net=Ts2NetConfig(shift_layers=tuple(shifted)))
    if len(shifted) == 1:
        other = next((layer for layer in SHIFT_LAYERS if layer != shifted[0]), SHIFT_LAYERS[0])
        missing.append(
            f"clip.visual.transformer.resblocks.{other}{SHIFTED}*: block {shifted[0]} alone has token shift; "
            "the authors' blocks 10 and 11 both have it, or none has"
        )
    return settings, missing


def _xpool(state: StateDict, pooling: Pooling | None) -> tuple[dict[str, Any], list[str]]:
    return {"kind": "xpool", "temporal_layers": 0}, []


def _drl(state: StateDict, pooling: Pooling | None) -> tuple[dict[str, Any], list[str]]:
    layers = len([name for name in state if re.fullmatch(r"text_weight_fc\.(\d+\.)?weight", name)])
    if layers not in (1, 2, 3):
        return {}, [f"text_weight_fc: {layers} linear layers, not 1, 2 or 3"]
    return _temporal(state, "drl", drl=DrlConfig.model_validate({"layers": layers}))


def _temporal(state: StateDict, kind: str, **settings: Any) -> tuple[dict[str, Any], list[str]]:
    numbers, gaps = block_numbers(state, "transformerClip.")
    return {"kind": kind, "temporal_layers": len(numbers), **settings}, gaps


# The first whose mark a checkpoint bears; what all have comes last.
FAMILIES = (
    Family("X-CLIP", _MATRICES, _xclip, slots=("frames", "words")),
    Family("TS2-Net", ("visual_token_selector.", *_TS2NET_UNUSED), _ts2net, unused=_TS2NET_UNUSED),
    Family("X-Pool", ("pool_frames.", "clip.vision_model.", "clip.text_model."), _xpool),
    Family("DRL", ("text_weight_fc.", "video_weight_fc."), _drl),
    Family("student", ("frameLinear", "transformerClip.", "clip.visual.", "clip.transformer."), _student),
)
