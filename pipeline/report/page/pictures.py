"""Queries, searches and frames as a page shows them."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ....plurals import counted
from .elements import Section

if TYPE_CHECKING:
    from ..contents import FoundVideo, QueryClip, Report, Search

ROW_FRAMES = 12  # clips with more frames wrap
FRAME_PIXELS = 160  # frames are shown at some 80 pixels; twice that for sharp screens
IMAGE_BYTES = 6 << 20  # of all images of a page, as text


@dataclass(frozen=True)
class Picture:
    """A frame as a page has it: a data address, empty where there was no room, and what it is."""

    source: str
    alt: str
    width: int = 0
    height: int = 0


class Album:
    """Frames as inline JPEGs, as long as they fit into a page; those that do not are counted."""

    def __init__(self, budget: int = IMAGE_BYTES) -> None:
        self.budget, self.used, self.dropped = budget, 0, 0

    def picture(self, frame: np.ndarray, alt: str) -> Picture:
        """A frame uint8 [H, W, 3], at most `FRAME_PIXELS` wide."""
        if self.used >= self.budget:
            self.dropped += 1
            return Picture("", alt)
        image = Image.fromarray(np.ascontiguousarray(frame))
        image.thumbnail((FRAME_PIXELS, FRAME_PIXELS))
        buffer = io.BytesIO()
        image.save(buffer, format="JPEG", quality=85)
        source = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
        self.used += len(source)
        return Picture(source, alt, image.width, image.height)

    def clip(self, mp4: bytes) -> str:
        """An MP4 as a data address; empty where there is none or no room."""
        source = "data:video/mp4;base64," + base64.b64encode(mp4).decode() if mp4 else ""
        if self.used + len(source) > self.budget:
            return ""
        self.used += len(source)
        return source

    @property
    def left_out(self) -> list[str]:
        """What readers must be told of images that did not fit."""
        if not self.dropped:
            return []
        dropped = counted(self.dropped, "frame")
        return [f"{dropped}: a page takes {self.budget >> 20} MB of pictures, so that it can be sent."]


def searches(given: Sequence["Search"], album: Album) -> Section | None:
    """Sentences and what they found."""
    asked = [
        (one.query, [_answer(answer, f"{rank}. ", album) for rank, answer in enumerate(one.found, start=1)])
        for one in given
    ]
    return Section("Searches", "searches.html", asked) if asked else None


def _answer(found: "FoundVideo", heading: str, album: Album) -> Mapping[str, Any]:
    """A video below a heading."""
    return {
        "heading": heading,
        "video": found.video,
        "cosine": "" if found.cosine is None else f"cosine {found.cosine:.3f}",
        "caption": found.caption,
        "clip": album.clip(found.mp4),
        "shots": [album.picture(frame, f"{found.video}, a frame") for frame in found.frames],
    }


def queries(report: "Report", album: Album) -> Section | None:
    """Queries with their video's frames, what these count, and what was found."""
    if not report.clips:
        return None
    shown = {"note": report.clips_note, "queries": [_query(clip, album) for clip in report.clips]}
    return Section("Queries and their frames", "queries.html", shown)


def _query(clip: "QueryClip", album: Album) -> Mapping[str, Any]:
    return {
        "title": clip.title,
        "caption": clip.caption,
        "video": clip.video,
        "ranks": [(name, f"{rank:,g}") for name, rank in clip.ranks.items()],
        "weighing": list(clip.weights),
        "only_weighed": [name for name in clip.weights if name not in clip.ranks],
        "wraps": len(clip.times) > ROW_FRAMES,
        "frames": _frames(clip, album) if len(clip.frames) or clip.weights else [],
        "found": [
            _answer(each, f"{', '.join(each.by)}: {'this video, ' if each.right else ''}", album) for each in clip.found
        ],
    }


def _frames(clip: "QueryClip", album: Album) -> list[Mapping[str, Any]]:
    """Frames, below each a bar for each model, in percent of the largest; `alike` is where all frames count alike."""
    most = max((max(weights) for weights in clip.weights.values()), default=1.0) or math.inf
    return [
        {
            "picture": album.picture(clip.frames[index], f"frame {index + 1}") if len(clip.frames) else None,
            "time": f"{time:.1f} s",
            "alike": f"{min(100 / len(clip.times) / most, 100):.1f}%",
            "bars": [
                (name, f"{100 * weights[index] / most:.1f}%", f"{name}: {weights[index]:.3f}")
                for name, weights in clip.weights.items()
            ],
        }
        for index, time in enumerate(clip.times)
    ]
