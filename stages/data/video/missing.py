"""Whether pictures are missing behind a pause, which decoders do not notice: a pause alone says nothing.

A screen that stands still is recorded as a pause, and so are packets that were lost. What follows lost ones refers to
pictures that are not there. H.264 and HEVC number what they refer to, and FFmpeg says, as information, where a number
is left out. VP8 does not, but its code adapts from picture to picture: behind a loss it is read with the wrong
statistics, which soon goes past the packet's end, so that the picture depends on what stands there. libvpx says so of
VP9 by itself. Of other codecs nothing is known but what their decoders complain about.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import av
import numpy as np
from numpy.typing import NDArray

type Said = tuple[int, str, str]  # level, who, what
Sign = Literal["missing", "concealed"]

NUMBERED = {"h264": "Frame num gap", "hevc": "Could not find ref with POC"}
CONCEALED = "concealing"
BEHIND = bytes(range(37, 101))  # what is put behind a packet; any bytes but zeros, which decoders take for nothing


class Signs:
    """Told of every packet in order, it says which of them miss a picture, and which were patched up.

    `said` is what FFmpeg says while they are decoded.
    """

    def __init__(self, codec: str, said: list[Said]) -> None:
        self.said, self.heard = said, 0
        self.words = NUMBERED.get(codec)
        self.vp8 = (_decoder("vp8"), _decoder("vp8")) if codec == "vp8" else None
        self.vp9 = _decoder("libvpx-vp9") if codec == "vp9" else None

    def of(self, packet: Any) -> Sign | None:
        """What is wrong with the packet that was decoded last, as far as a decoder that raises nothing shows it."""
        new, self.heard = [message for _, _, message in self.said[self.heard :]], len(self.said)
        if any(message.startswith(CONCEALED) for message in new):
            return "concealed"
        numbered = self.words is not None and any(self.words in message for message in new)
        return "missing" if numbered or (packet.size and self._misread(bytes(packet))) else None

    def _misread(self, data: bytes) -> bool:
        if self.vp8 is not None:
            one, other = (_decoded(decoder, data + end) for decoder, end in zip(self.vp8, (b"", BEHIND), strict=True))
            return one != other if one is None or other is None else not np.array_equal(one, other)
        return self.vp9 is not None and _decoded(self.vp9, data) is None


@contextmanager
def overheard() -> Iterator[list[Said]]:
    """What FFmpeg says meanwhile to this thread, to the last detail."""
    before = av.logging.get_level()
    av.logging.set_level(av.logging.DEBUG)
    try:
        with av.logging.Capture() as said:
            yield said
    finally:
        av.logging.set_level(before)


def _decoder(name: str) -> Any:
    try:
        decoder = av.CodecContext.create(name, "r")
    except av.codec.codec.UnknownCodecError:
        return None
    decoder.thread_count = 1
    return decoder


def _decoded(decoder: Any, data: bytes) -> list[NDArray[np.uint8]] | None:
    """The pictures of a packet, None when it cannot be decoded."""
    try:
        return [frame.to_ndarray() for frame in decoder.decode(av.Packet(data))]
    except MemoryError:
        raise
    except (av.FFmpegError, ValueError):
        return None
