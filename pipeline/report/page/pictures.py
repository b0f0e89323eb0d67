"""Queries, searches and frames as a page shows them."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from .layout import colour_class, note
from .markup import Markup, join, tag

if TYPE_CHECKING:
    from ..contents import FoundVideo, QueryClip, Report, Search

ROW_FRAMES = 12  # clips with more frames wrap
FRAME_PIXELS = 160  # frames are shown at some 80 pixels; twice that for sharp screens
IMAGE_BYTES = 6 << 20  # of all images of a page, as text

type Colours = Mapping[str, int]


class Album:
    """Frames as inline JPEGs, as long as they fit into a page; those that do not are counted."""

    def __init__(self, budget: int = IMAGE_BYTES) -> None:
        self.budget, self.used, self.dropped = budget, 0, 0

    def image(self, frame: np.ndarray, alt: str) -> Markup:
        """A frame uint8 [H, W, 3], at most `FRAME_PIXELS` wide."""
        if self.used >= self.budget:
            self.dropped += 1
            return tag("span", "no room", class_="blank", title=alt)
        picture = Image.fromarray(np.ascontiguousarray(frame))
        picture.thumbnail((FRAME_PIXELS, FRAME_PIXELS))
        buffer = io.BytesIO()
        picture.save(buffer, format="JPEG", quality=85)
        source = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
        self.used += len(source)
        return tag("img", src=source, alt=alt, width=picture.width, height=picture.height)

    @property
    def left_out(self) -> list[str]:
        """What readers must be told of images that did not fit."""
        if not self.dropped:
            return []
        return [f"{self.dropped:,} frames: a page takes {self.budget >> 20} MB of pictures, so that it can be sent."]


def searches(given: Sequence["Search"], album: Album) -> Markup | None:
    """Sentences and what they found."""
    if not given:
        return None
    return join(*(tag("article", tag("h3", f"“{one.query}”"), _answers(one.found, album)) for one in given))


def _answers(found: Sequence["FoundVideo"], album: Album) -> Markup:
    return tag(
        "ol", *(_answer(answer, f"{rank}. ", album) for rank, answer in enumerate(found, start=1)), class_="found"
    )


def _answer(answer: "FoundVideo", heading: str, album: Album) -> Markup:
    shots = tag("div", *(album.image(frame, f"{answer.video}, a frame") for frame in answer.frames), class_="shots")
    cosine = None if answer.cosine is None else tag("small", f"cosine {answer.cosine:.3f}")
    return tag(
        "li",
        shots if len(answer.frames) else None,
        tag("p", tag("b", heading), answer.video, cosine),
        note(answer.caption) if answer.caption else None,
    )


def clips(report: "Report", colours: Colours, album: Album) -> Markup | None:
    """Queries with their video's frames, what these count, and what was found."""
    if not report.clips:
        return None
    text = note(report.clips_note) if report.clips_note else None
    return join(text, *(_clip(clip, colours, album) for clip in report.clips))


def _clip(clip: "QueryClip", colours: Colours, album: Album) -> Markup:
    ranks = [
        tag("li", tag("i", class_=colour_class(colours[name])), f"{name}: rank ", tag("b", f"{rank:,g}"))
        for name, rank in clip.ranks.items()
    ]
    ranks += [
        tag("li", tag("i", class_=colour_class(colours[name])), f"{name}: weights only")
        for name in clip.weights
        if name not in clip.ranks
    ]
    return tag(
        "article",
        tag("p", clip.title, class_="kicker"),
        tag("h3", f"“{clip.caption}”"),
        note(clip.video),
        tag("ul", *ranks, class_="legend"),
        _strip(clip, colours, album) if len(clip.frames) or clip.weights else None,
        _found(clip, album),
    )


def _strip(clip: "QueryClip", colours: Colours, album: Album) -> Markup:
    """Frames, below each a bar for each model."""
    most = max((max(weights) for weights in clip.weights.values()), default=1.0)
    frames = len(clip.times)
    labels = [tag("span", name, class_=colour_class(colours[name])) for name in clip.weights]
    cells = [tag("div", *labels, class_="labels")] if labels else []
    for index, time in enumerate(clip.times):
        bars = [_weight(name, weights[index], most, frames, colours[name]) for name, weights in clip.weights.items()]
        image = album.image(clip.frames[index], f"frame {index + 1}") if len(clip.frames) else None
        cells.append(tag("div", image, *bars, tag("small", f"{time:.1f} s")))
    kind = " ".join(["strip", *(["long"] if frames > ROW_FRAMES else []), *([] if labels else ["bare"])])
    return tag("div", *cells, class_=kind, style=f"--frames:{frames}")


def _weight(name: str, weight: float, most: float, frames: int, colour: int) -> Markup:
    uniform = 100 / frames / most if most > 0 else 0.0
    return tag(
        "span",
        tag("u", style=f"bottom:{min(uniform, 100.0):.1f}%"),
        tag("i", style=f"height:{100 * weight / most if most > 0 else 0:.1f}%"),
        class_=f"weight {colour_class(colour)}",
        title=f"{name}: {weight:.3f}",
    )


def _found(clip: "QueryClip", album: Album) -> Markup | None:
    """What models ranked first."""
    if not clip.found:
        return None
    answers = [
        _answer(each, f"{', '.join(each.by)}: {'this video, ' if each.right else ''}", album) for each in clip.found
    ]
    return join(tag("h4", "Found first"), tag("ol", *answers, class_="found first"))
