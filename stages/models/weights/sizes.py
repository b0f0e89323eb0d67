"""The sizes of a CLIP, read off the names and shapes of its tensors (OpenAI's names)."""

import re
from collections.abc import Mapping
from math import isqrt
from typing import Any

from torch import Tensor

# A size, and the tensor, number of dimensions and axis that tell it.
_TOLD_BY = {
    "patch_size": ("visual.conv1.weight", 4, 3),
    "positions": ("visual.positional_embedding", 2, 0),
    "vision_width": ("visual.class_embedding", 1, 0),
    "text_width": ("ln_final.weight", 1, 0),
    "embed_dim": ("text_projection", 2, 1),
    "context_length": ("positional_embedding", 2, 0),
    "vocab_size": ("token_embedding.weight", 2, 0),
}
_TOWERS = {"vision_layers": "visual.transformer.", "text_layers": "transformer."}


def trunk_sizes(state: Mapping[str, Tensor], prefix: str) -> tuple[dict[str, Any], list[str]]:
    """The sizes (of `TrunkSizes`) that can be told, and what is missing or of no use for the others.

    Args:
        state: tensors; those of CLIP start with `prefix`.
    """
    sizes: dict[str, Any] = {"quick_gelu": True}
    wrong: list[str] = []
    for size, (name, dimensions, axis) in _TOLD_BY.items():
        value = state.get(f"{prefix}{name}")
        if value is None:
            wrong.append(f"{prefix}{name}")
        elif value.ndim != dimensions or 0 in value.shape:
            wrong.append(f"{prefix}{name}: of shape {tuple(value.shape)}, not of {dimensions} dimensions")
        else:
            sizes[size] = value.shape[axis]
    for size, tower in _TOWERS.items():
        numbers, gaps = block_numbers(state, f"{prefix}{tower}")
        sizes[size] = len(numbers)
        wrong += gaps or ([] if numbers else [f"{prefix}{tower}resblocks.*"])
    positions = sizes.pop("positions", None)
    if positions is not None and isqrt(positions - 1) ** 2 != positions - 1:
        wrong.append(f"{prefix}visual.positional_embedding: {positions} rows are no class token and a square grid")
    elif positions is not None and "patch_size" in sizes:
        sizes["image_size"] = sizes["patch_size"] * isqrt(positions - 1)
    return sizes, wrong


def block_numbers(state: Mapping[str, Tensor], prefix: str) -> tuple[list[int], list[str]]:
    """Numbers of a transformer's blocks, and the names of blocks that are missing between them."""
    start = f"{prefix}resblocks."
    found = {name.removeprefix(start).split(".")[0] for name in state if name.startswith(start)}
    numbers = sorted({int(number) for number in found if re.fullmatch(r"[0-9]{1,4}", number)})
    gaps = [number for number in range(min(numbers[-1], 10 * len(numbers))) if number not in numbers] if numbers else []
    return numbers, [f"{start}{number}.*: no such block, though there is a block {numbers[-1]}" for number in gaps]
