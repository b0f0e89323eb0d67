"""Which pictures of a video are damaged, told by the packets that went in and the pictures that came out."""

from collections.abc import Sequence
from typing import Any

INSTANT = 1e-6  # seconds that are no difference


class Health:
    """Which pictures are damaged: those from a loss on, until the next key frame.

    Pictures come out of a decoder later than they go in, so a packet that fails is made good by the first key packet
    behind it. A pause is no loss until a packet between it and the next key picture fails or misses another. In a clip
    that was cut out of a longer video, pictures shown ahead of the first key picture fail, and the next packets may
    complain about it: that breaks nothing behind.

    Attributes:
        lost: packets that failed.
        losses: the pauses in which pictures are missing.
        behind: the pause without a key picture since, before the picture that was seen last.
        whole: when packets are shown that are called damaged and are not.
    """

    def __init__(self, pauses: Sequence[float]) -> None:
        self.pauses, self.lost = pauses, 0
        self.losses: set[float] = set()
        self.behind: float | None = None
        self.whole: set[int | None] = set()
        self._keys: list[float] = []
        self._broken = self._timed = False
        self._heals: int | None = None
        self._key: int | None = None
        self._before: float | None = None

    def sees(self, packet: Any) -> None:
        """Each packet, in order, before it is decoded."""
        self._timed |= packet.pts is not None
        if packet.is_keyframe:
            self._key = packet.pts
            if (when := _second(packet)) is not None:
                self._keys.append(when)
            if self._broken and self._heals is None:
                self._heals = packet.pts

    def fails(self, packet: Any) -> None:
        """The packet is damaged, or could not be decoded."""
        if packet.is_keyframe:
            self._key = None
        ahead = packet.pts is not None and self._key is not None and packet.pts < self._key
        begins = self._before is None and (ahead or self._heals is not None)
        self.lost += 1
        self.misses(packet)
        self._broken, self._heals = True, self._key if begins else None

    def sound(self, frame: Any) -> bool:
        """Whether a picture that came out is whole."""
        if not self._timed:  # AVI: packets without presentation times
            self._broken = self._broken and not frame.key_frame
        elif self._heals is not None and frame.pts is not None and frame.pts >= self._heals:
            self._broken = False
        self.behind = self.pause_before(frame.time)
        self._before = frame.time
        damaged = frame.is_corrupt and frame.pts not in self.whole
        if damaged and self.behind is not None:
            self.losses.add(self.behind)
        return not (self._broken or self.behind in self.losses or damaged)

    def misses(self, packet: Any) -> None:
        """The packet shows that the pause before it was a loss."""
        if (pause := self.pause_before(_second(packet))) is not None:
            self.losses.add(pause)

    def pause_before(self, second: float | None) -> float | None:
        """The last pause before what is shown at `second`, unless a key picture came in between."""
        if second is None:
            return None
        pause = max((pause for pause in self.pauses if pause <= second + INSTANT), default=None)
        if pause is None or any(pause - INSTANT <= key <= second + INSTANT for key in self._keys):
            return None
        return pause


def _second(packet: Any) -> float | None:
    """When a packet is shown, or, in an AVI, decoded."""
    when = packet.dts if packet.pts is None else packet.pts
    return None if when is None or packet.time_base is None else float(when * packet.time_base)
