"""Tensor names: the published ones, OpenAI's and Hugging Face's names of CLIP, and ours.

A published name is OpenAI's with `clip.` before CLIP's; only X-Pool's released files have Hugging Face's names there
(spec X-Pool 6). Everything works on the meta device, where only names and shapes matter.
"""

import re
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

StateDict = dict[str, Tensor]

SHIFTED = ".attn.net."  # how TS2-Net names the attention that its token shift wraps

# Published names -> ours, by prefix; X-CLIP's matrices and DRL's weight networks keep their names.
_RENAMED = {
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
_PUBLISHED = {ours: theirs for theirs, ours in _RENAMED.items()}

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
_OPENAI_NAMES = {openai: theirs for theirs, openai in _HF_NAMES.items()}
_HF_BLOCK = {
    ".layer_norm1.": ".ln_1.",
    ".layer_norm2.": ".ln_2.",
    ".self_attn.out_proj.": ".attn.out_proj.",
    ".mlp.fc1.": ".mlp.c_fc.",
    ".mlp.fc2.": ".mlp.c_proj.",
}
_HF_ATTENTION = re.compile(r"(.*)\.self_attn\.([qkv])_proj\.(weight|bias)")
_PACKED = re.compile(r"(.*)\.attn\.in_proj_(weight|bias)")
_TRANSPOSED = ("clip.visual.proj", "clip.text_projection")
_POSITION_IDS = {"text": "clip.positional_embedding", "vision": "clip.visual.positional_embedding"}


def our_name(name: str) -> str:
    """Our name of a tensor that has this name (OpenAI's of CLIP) in a published checkpoint."""
    return _replaced(name, _RENAMED).replace(SHIFTED, ".attn.")


def published_name(name: str, shift_layers: Collection[int] = ()) -> str:
    """The published name of one of our tensors, with OpenAI's names of CLIP; the inverse of `our_name`.

    Args:
        shift_layers: visual blocks whose attention TS2-Net's token shift wraps.
    """
    name = _replaced(name, _PUBLISHED)
    if any(name.startswith(f"clip.visual.transformer.resblocks.{layer}.attn.") for layer in shift_layers):
        return name.replace(".attn.", SHIFTED)
    return name


def hf_name(name: str) -> str:
    """Hugging Face's name of a tensor with OpenAI's; `q,k,v` stands where one tensor is three there."""
    if not name.startswith("clip."):
        return name
    if packed := _PACKED.fullmatch(name):
        block, kind = packed.groups()
        return f"{hf_name(f'{block}.').removesuffix('.')}.self_attn.{{q,k,v}}_proj.{kind}"
    name = f"clip.{_replaced(name.removeprefix('clip.'), _OPENAI_NAMES)}"
    for theirs, openai in _HF_BLOCK.items():
        name = name.replace(openai, theirs)
    return name


def is_hugging_face(name: str) -> bool:
    """Whether this is one of Hugging Face's names of CLIP and none of OpenAI's."""
    return name.startswith("clip.") and any(name.startswith(f"clip.{theirs}") for theirs in _HF_NAMES)


def is_openai(name: str) -> bool:
    """Whether this is one of OpenAI's names of CLIP and none of Hugging Face's."""
    return name.startswith("clip.") and not is_hugging_face(name) and _replaced(name[5:], _OPENAI_NAMES) != name[5:]


def to_openai(state: Mapping[str, Tensor]) -> StateDict:
    """Hugging Face's names, transposed projections and separate q, k, v of CLIP as OpenAI has them.

    The buffers `position_ids` (0, 1, 2 ...) are dropped.

    Raises:
        KeyError: naming the first of q, k, v that is missing beside the others.
    """
    renamed: StateDict = {}
    attention: dict[str, dict[str, Tensor]] = {}
    for name, value in state.items():
        if name.endswith(".position_ids"):
            continue
        if found := _HF_ATTENTION.fullmatch(name):
            block, part, kind = found.groups()
            attention.setdefault(f"{block}.{kind}", {})[part] = value
            continue
        openai = _openai_name(name)
        renamed[openai] = value.T if openai in _TRANSPOSED else value
    for place, parts in attention.items():
        block, kind = place.rsplit(".", 1)
        if missing := [part for part in "qkv" if part not in parts]:
            raise KeyError(f"{block}.self_attn.{missing[0]}_proj.{kind}")
        renamed[f"{_openai_name(f'{block}.')}attn.in_proj_{kind}"] = torch.cat([parts[part] for part in "qkv"])
    return renamed


def to_hugging_face(state: Mapping[str, Tensor]) -> StateDict:
    """OpenAI's names of CLIP as Hugging Face's transformers 4.6 has them, its `position_ids` too."""
    renamed: StateDict = {}
    for name, value in state.items():
        if name.startswith("clip.") and _PACKED.fullmatch(name):
            for part, rows in zip("qkv", value.chunk(3), strict=True):
                renamed[hf_name(name).replace("{q,k,v}", part)] = rows
        else:
            renamed[hf_name(name)] = value.T if name in _TRANSPOSED else value
    for tower, positions in _POSITION_IDS.items():
        ids = torch.arange(len(state[positions]), device=state[positions].device)
        renamed[f"clip.{tower}_model.embeddings.position_ids"] = ids[None]
    return renamed


def _openai_name(name: str) -> str:
    """OpenAI's name of one of Hugging Face's."""
    if not is_hugging_face(name):
        return name
    name = f"clip.{_replaced(name.removeprefix('clip.'), _HF_NAMES)}"
    for theirs, openai in _HF_BLOCK.items():
        name = name.replace(theirs, openai)
    return name


def _replaced(name: str, prefixes: Mapping[str, str]) -> str:
    prefix = next((prefix for prefix in prefixes if name.startswith(prefix)), "")
    return prefixes.get(prefix, "") + name.removeprefix(prefix)
