"""Files that hold a trunk alone which is no plain ViT: what it is made of, told by the names and shapes of tensors."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import open_clip
from torch import Tensor

from ..clip.described import Described
from ..clip.tokens import VOCABULARY

_VIT = "a ViT"
# What a tower is made of, by a part of its tensors' names.
_IMAGE = {
    "visual.trunk.": "timm's",
    "visual.layer1.": "a ResNet",
    "visual.attn_pool.": "CoCa's ViT",
    "visual.": _VIT,
}
_TEXT = {
    "text.transformer.resblocks.": "open_clip's",
    "transformer.resblocks.": "open_clip's",
    "text.transformer.": "Hugging Face's",
}
_NAMED = 4


class OtherTrunk(NamedTuple):
    """What is told: in words, and the sizes that the text tower shows."""

    title: str
    sizes: dict[str, int]


def is_bare_trunk(names: Mapping[str, Any]) -> bool:
    """Whether names are those of a CLIP's towers, as open_clip and OpenAI write them, with nothing before them."""
    return any(name.startswith("visual.") for name in names)


def other_trunk(tensors: Mapping[str, Tensor]) -> OtherTrunk | None:
    """What an open_clip file holds that is no plain ViT; None for a plain one and for what is no whole trunk."""
    plain = "visual.class_embedding" in tensors and "visual.ln_pre.weight" in tensors
    if plain and not any(name.startswith(("text.", "visual.attn_pool.")) for name in tensors):
        return None
    image, text = _made_of(tensors, _IMAGE), _made_of(tensors, _TEXT)
    if image is None or text is None or (image == _VIT and "visual.conv1.weight" not in tensors):
        return None
    sizes = _text_sizes(tensors)
    candidates = [model for model in open_clip.list_models() if sizes and _fits(model, image, sizes)]
    first = ", ".join(candidates[:_NAMED]) + (f" and {len(candidates) - _NAMED} more" if candidates[_NAMED:] else "")
    may_be = f"; by its text tower {first}" if candidates else ""
    return OtherTrunk(f"open_clip model, image tower {image}, text tower {text}{may_be}", sizes)


def _made_of(tensors: Mapping[str, Tensor], kinds: Mapping[str, str]) -> str | None:
    return next((kind for start, kind in kinds.items() if any(name.startswith(start) for name in tensors)), None)


def _text_sizes(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Of open_clip's own text tower; empty for another."""
    found = {name.removeprefix("text."): value for name, value in tensors.items() if not name.startswith("visual.")}
    tokens, positions = found.get("token_embedding.weight"), found.get("positional_embedding")
    if tokens is None or positions is None or tokens.ndim != 2:
        return {}
    blocks = {name.split(".")[2] for name in found if name.startswith("transformer.resblocks.")}
    return {
        "vocab_size": tokens.shape[0],
        "text_width": tokens.shape[1],
        "text_layers": len(blocks),
        "context_length": positions.shape[0] - ("cls_emb" in found),
    }


def _fits(model: str, image: str, sizes: Mapping[str, int]) -> bool:
    towers = open_clip.get_model_config(model)
    vision, text = towers["vision_cfg"], towers["text_cfg"]
    made = "timm's" if vision.get("timm_model_name") else "a ResNet" if isinstance(vision.get("layers"), list) else None
    if (made or _VIT) != image and not (image == "CoCa's ViT" and vision.get("attentional_pool")):
        return False
    theirs = {
        "vocab_size": text.get("vocab_size", VOCABULARY),
        "text_width": text.get("width"),
        "text_layers": text.get("layers"),
        "context_length": Described(towers).context_length,
    }
    return theirs == sizes
