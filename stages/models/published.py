"""Published checkpoints: whose they are, told by names and shapes, and their tensors under our names.

TeachCLIP's and CLIP4Clip's students, X-CLIP, TS2-Net, X-Pool (with OpenAI's or with Hugging Face's names of CLIP) and
DRL (specs: TeachCLIP 1.6, X-CLIP 7, TS2-Net 6, X-Pool 3 and 6, DRL 2).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import ValidationError
from torch import Tensor

from ...configs.schema import DrlConfig, NetworkConfig, TrunkConfig, TrunkSizes, Ts2NetConfig
from ...errors import CheckpointError
from .clip import CLIP_NOTES

Pooling = Literal["afa", "mean"]
State = dict[str, Tensor]

FRAMES, WORDS = 12, 32
"""Slots of checkpoints that do not record them, as all published ones for short videos have them."""

# Published names -> ours, by prefix; X-CLIP's matrices and DRL's weight networks keep their names.
RENAMED = {
    "clip.": "trunk.",
    "frame_position_embeddings.weight": "temporal.positions",
    "transformerClip.": "temporal.",
    "frameLinear.": "afa.hidden.",
    "frameLinear2.": "afa.score.",
    "visual_token_selector.score_predictor.in_conv.0.": "selector.norm.",
    "visual_token_selector.score_predictor.in_conv.1.": "selector.own.",
    "visual_token_selector.score_predictor.out_conv.0.": "selector.pair.",
    "visual_token_selector.score_predictor.out_conv.2.": "selector.score.",
    "pool_frames.cross_attn.q_proj.": "pooling.query.",
    "pool_frames.cross_attn.k_proj.": "pooling.key.",
    "pool_frames.cross_attn.v_proj.": "pooling.value.",
    "pool_frames.cross_attn.out_proj.": "pooling.out.",
    "pool_frames.linear_proj.": "pooling.linear.",
    "pool_frames.layer_norm1.": "pooling.norm1.",
    "pool_frames.layer_norm2.": "pooling.norm2.",
    "pool_frames.layer_norm3.": "pooling.norm3.",
}
SHIFTED = ".attn.net."  # how TS2-Net names the attention that its token shift wraps

# Modules that published code creates and never uses, and numbers that OpenAI's files hold beside weights.
_UNUSED = ("cross.", "similarity_dense.", *(f"clip.{note}" for note in CLIP_NOTES))
_TS2NET_UNUSED = ("text_token_selector.", "visual_prompt_encoder.")


@dataclass(frozen=True)
class Published:
    """A published checkpoint under our names.

    Attributes:
        title: what it is, in words; config: the network that it holds.
        tensors: by our names; unused: names in the file of tensors that the network does not use.
    """

    title: str
    config: NetworkConfig
    tensors: State
    unused: tuple[str, ...]


def read_published(
    state: Mapping[str, Tensor],
    where: str,
    *,
    pooling: Pooling | None = None,
    frames: int | None = None,
    words: int | None = None,
) -> Published:
    """What a published state_dict holds. It computes what the published code does: padding is not masked, and so on.

    Args:
        state: tensors under their published names; on the meta device, where only names and shapes matter.
        where: names the state in messages.
        pooling: how a student pools; by default with AFA where the state has it. `mean` leaves AFA out.
        frames, words: slots, where the checkpoint does not record them.

    Raises:
        CheckpointError: none of those above, tensors that tell its sizes are missing, or it records other slots.
    """
    family = next((family for family in FAMILIES if family.mark(state)), None)
    try:
        if family is None:
            raise KeyError("mark of any of them")
        plain = _openai_names(state)
        config = family.config(plain, pooling)
        config = config.model_copy(update=_slots(config, family.records_slots, frames, words, where))
    except (KeyError, IndexError, ValidationError) as error:
        raise CheckpointError(
            "this is neither a checkpoint of teachclip nor a published student, X-CLIP, TS2-Net, X-Pool or DRL",
            where=where,
            details=[f"it has no usable {error.args[0]}"] if isinstance(error, KeyError) else [],
        ) from error
    unused = [name for name in plain if name.startswith((*_UNUSED, *family.unused))]
    if config.kind == "student" and config.pooling == "mean":
        unused += [name for name in plain if name.startswith("frameLinear")]
    left_out = set(unused)
    tensors = {our_name(name): value for name, value in plain.items() if name not in left_out}
    title = family.title(config)
    return Published(title, config, tensors, tuple(unused))


def our_name(name: str) -> str:
    """Our name of a tensor that has this name (OpenAI's of CLIP) in a published checkpoint."""
    prefix = next((prefix for prefix in RENAMED if name.startswith(prefix)), "")
    return (RENAMED.get(prefix, "") + name.removeprefix(prefix)).replace(SHIFTED, ".attn.")


@dataclass(frozen=True)
class _Family:
    """One kind of published checkpoint."""

    mark: Callable[[Mapping[str, Tensor]], bool]
    title: Callable[[NetworkConfig], str]
    config: Callable[[State, Pooling | None], NetworkConfig]
    records_slots: bool = False
    unused: tuple[str, ...] = ()


def _slots(config: NetworkConfig, recorded: bool, frames: int | None, words: int | None, where: str) -> dict[str, int]:
    asked = {key: value for key, value in (("frames", frames), ("words", words)) if value is not None}
    for key, value in asked.items():
        if recorded and value != getattr(config, key):
            raise CheckpointError(
                f"this checkpoint was made for {getattr(config, key)} {key}, and {value} are asked for", where=where
            )
    return asked


def _student(state: State, pooling: Pooling | None) -> NetworkConfig:
    return _config(state, "student", pooling=pooling or ("afa" if "frameLinear.weight" in state else "mean"))


def _xclip(state: State, pooling: Pooling | None) -> NetworkConfig:
    words, frames = len(state["word_logit_weight"]), len(state["frame_logit_weight"])
    return _config(state, "xclip").model_copy(update={"words": words, "frames": frames})


def _ts2net(state: State, pooling: Pooling | None) -> NetworkConfig:
    """A file with `attn.net.*` was trained with token shift in these blocks, one without it was trained without."""
    shifted = {int(name.split(".")[4]) for name in state if SHIFTED in name}
    return _config(state, "ts2net", ts2net=Ts2NetConfig(shift_layers=tuple(sorted(shifted))))


def _xpool(state: State, pooling: Pooling | None) -> NetworkConfig:
    return _config(state, "xpool")


def _drl(state: State, pooling: Pooling | None) -> NetworkConfig:
    layers = len([name for name in state if re.fullmatch(r"text_weight_fc\.(\d\.)?weight", name)])
    return _config(state, "drl", drl=DrlConfig.model_validate({"layers": layers}))


def _config(state: State, kind: str, **settings: Any) -> NetworkConfig:
    context = len(state["clip.positional_embedding"])
    return NetworkConfig.model_validate(
        {
            "kind": kind,
            "trunk": TrunkConfig(sizes=_sizes(state), weights=None),
            "words": min(WORDS, context),
            "frames": min(FRAMES, context),
            "temporal_layers": _layers(state, "transformerClip."),
            "mask_padding": False,
            **settings,
        }
    )


def _sizes(state: State) -> TrunkSizes:
    patch_size = state["clip.visual.conv1.weight"].shape[-1]
    grid = round((len(state["clip.visual.positional_embedding"]) - 1) ** 0.5)
    return TrunkSizes(
        image_size=patch_size * grid,
        patch_size=patch_size,
        vision_width=len(state["clip.visual.class_embedding"]),
        vision_layers=_layers(state, "clip.visual.transformer."),
        text_width=len(state["clip.ln_final.weight"]),
        text_layers=_layers(state, "clip.transformer."),
        embed_dim=state["clip.text_projection"].shape[1],
        context_length=len(state["clip.positional_embedding"]),
        vocab_size=len(state["clip.token_embedding.weight"]),
        quick_gelu=True,
    )


def _layers(state: State, prefix: str) -> int:
    start = f"{prefix}resblocks."
    return len({name.removeprefix(start).split(".")[0] for name in state if name.startswith(start)})


# Hugging Face's names of CLIP -> OpenAI's; both sides without the prefix `clip.`.
_HF_NAMES = {
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm.": "visual.ln_pre.",
    "vision_model.post_layernorm.": "visual.ln_post.",
    "vision_model.encoder.layers.": "visual.transformer.resblocks.",
    "visual_projection.weight": "visual.proj",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.": "ln_final.",
    "text_model.encoder.layers.": "transformer.resblocks.",
    "text_projection.weight": "text_projection",
}
_HF_BLOCK = {
    ".layer_norm1.": ".ln_1.",
    ".layer_norm2.": ".ln_2.",
    ".self_attn.out_proj.": ".attn.out_proj.",
    ".mlp.fc1.": ".mlp.c_fc.",
    ".mlp.fc2.": ".mlp.c_proj.",
}
_HF_TRANSPOSED = ("clip.visual_projection.weight", "clip.text_projection.weight")
_HF_ATTENTION = re.compile(r"(.*)\.self_attn\.([qkv])_proj\.(weight|bias)")
_HF_MARK = "clip.vision_model.embeddings.class_embedding"


def _openai_names(state: Mapping[str, Tensor]) -> State:
    """The same tensors with OpenAI's names of CLIP; a logit scale of one element is a scalar."""
    renamed: State = {}
    attention: dict[str, dict[str, Tensor]] = {}
    hugging_face = _HF_MARK in state
    for name, value in state.items():
        if hugging_face and name.endswith("position_ids"):
            continue  # a buffer 0, 1, 2 ...
        if hugging_face and (found := _HF_ATTENTION.fullmatch(name)):
            block, part, kind = found.groups()
            attention.setdefault(f"{_hf_name(block + '.')}attn.in_proj_{kind}", {})[part] = value
            continue
        if name == "clip.logit_scale":
            value = value.reshape(())
        renamed[_hf_name(name) if hugging_face else name] = (
            value.T if hugging_face and name in _HF_TRANSPOSED else value
        )
    for name, parts in attention.items():
        if missing := [part for part in "qkv" if part not in parts]:
            raise KeyError(f"{missing[0]}_proj beside {name}")
        renamed[name] = torch.cat([parts[part] for part in "qkv"])
    return renamed


def _hf_name(name: str) -> str:
    """OpenAI's name of one of Hugging Face's."""
    bare = name.removeprefix("clip.")
    prefix = next((prefix for prefix in _HF_NAMES if bare.startswith(prefix)), None)
    if prefix is None or bare == name:
        return name
    bare = _HF_NAMES[prefix] + bare.removeprefix(prefix)
    for theirs, openai in _HF_BLOCK.items():
        bare = bare.replace(theirs, openai)
    return f"clip.{bare}"


def _has(name: str) -> Callable[[Mapping[str, Tensor]], bool]:
    return lambda state: any(key.startswith(name) for key in state)


def _student_title(config: NetworkConfig) -> str:
    return "TeachCLIP student" if config.pooling == "afa" else "CLIP4Clip"


def _ts2net_title(config: NetworkConfig) -> str:
    layers = config.ts2net.shift_layers
    if not layers:
        return "TS2-Net without token shift, as TeachCLIP runs it"
    return f"TS2-Net with token shift in blocks {', '.join(map(str, layers))}, as its authors publish it"


# The first whose mark a checkpoint bears; what all have comes last.
FAMILIES = (
    _Family(_has("global_mat_weight"), lambda config: "X-CLIP", _xclip, records_slots=True),
    _Family(_has("visual_token_selector."), _ts2net_title, _ts2net, unused=_TS2NET_UNUSED),
    _Family(_has("pool_frames."), lambda config: "X-Pool", _xpool),
    _Family(_has("text_weight_fc."), lambda config: "DRL", _drl),
    _Family(_has("clip.visual."), _student_title, _student),
)
