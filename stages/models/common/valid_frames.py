"""Frames of videos of which it is known, before a GPU is asked, which slots hold one."""

from typing import NamedTuple

from torch import Tensor


class ValidFrames(NamedTuple):
    """What a batch brings along, so that no step waits until the GPU has counted its mask.

    frames: uint8 [V, F, 3, S, S]; places: of the valid ones among the V x F slots, ascending [N], where the frames are.
    """

    frames: Tensor
    places: Tensor


type Frames = Tensor | ValidFrames
"""As `VideoTextNetwork.class_tokens` takes them."""


def valid_places(mask: Tensor) -> Tensor:
    """Places of the valid slots [N] of a mask [V, F]; waited for where the mask is on a GPU."""
    return mask.flatten().nonzero().squeeze(1)
