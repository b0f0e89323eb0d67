"""Times that begin again, as in files that were joined end to end: each part is put behind the one before."""

AGAIN = 1.0  # seconds that times go back when they begin again, more than pictures are reordered


class Clock:
    """The times of one stream, in file order.

    Attributes:
        offsets: seconds to add to the times of each part, 0 for the first.
    """

    def __init__(self) -> None:
        self.offsets = [0.0]
        self._before: float | None = None
        self._end = 0.0

    def offset(self, decoded: float, shown: float, lasts: float) -> float:
        """Seconds to add to the times of a packet: those at which it is decoded and shown, `lasts` seconds long."""
        if self._before is not None and decoded < self._before - AGAIN:
            self.offsets.append(self._end - decoded)
        self._before = decoded
        self._end = max(self._end, shown + lasts + self.offsets[-1])
        return self.offsets[-1]


class Added:
    """Adds the offsets that a `Clock` found to the times of pictures, in the order in which they are shown."""

    def __init__(self, offsets: tuple[float, ...]) -> None:
        self.offsets, self.part = offsets, 0
        self._before: float | None = None

    def up(self, second: float | None) -> float | None:
        if second is None:
            return None
        if self._before is not None and second < self._before - AGAIN:
            self.part += 1
        self._before = second
        return second + self.offsets[min(self.part, len(self.offsets) - 1)]
