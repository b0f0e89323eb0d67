"""The demo's data set: clips in which two shapes move one after the other, among others that only appear.

A clip has 12 frames. Two events of two frames each, a shape that moves left, right, up or down; in the other frames
one or two smaller shapes that no caption tells of. So a model must know which frames count, and in which order. Five
captions a clip, attributes left out at random. In validation and test every clip has a colour and shape together that
no training caption names. specs: the design was chosen because teaching can be seen on it, docs/guide/teaching.md.
"""

from dataclasses import dataclass

import numpy as np

from .drawing import COLOURS, SHAPES, Thing, background, picture

FRAMES = 12
EVENT_FRAMES = 2
CAPTIONS = 5
DROPPED = 0.2  # of the attributes in captions of clips
SINGLE = 0.1  # of the captions tell one event only
EVENT_RADIUS = (0.17, 0.23)
OTHER_RADIUS = (0.10, 0.165)
TRAVEL = 0.28
HELD_OUT_PER_SHAPE = 2

WORDS = {
    "circle": ("circle", "disc"),
    "square": ("square", "box"),
    "triangle": ("triangle",),
    "star": ("star",),
    "cross": ("cross", "plus sign"),
    "ring": ("ring", "hoop"),
}
DIRECTIONS = {
    "left": ((-1, 0), ("left", "to the left")),
    "right": ((1, 0), ("right", "to the right")),
    "up": ((0, -1), ("up", "upwards")),
    "down": ((0, 1), ("down", "downwards")),
}
VERBS = ("moves", "slides", "goes", "glides")
PLACES = (
    ("at the top left", "at the top", "at the top right"),
    ("on the left", "in the middle", "on the right"),
    ("at the bottom left", "at the bottom", "at the bottom right"),
)

ShapePair = tuple[str, str]
Rng = np.random.Generator


def _held_out() -> frozenset[ShapePair]:
    """Colour-shape pairs that training never names: two colours of each shape, no colour more than twice."""
    rng = np.random.default_rng(7)
    while True:
        pairs = [
            (str(colour), shape)
            for shape in SHAPES
            for colour in rng.choice(list(COLOURS), HELD_OUT_PER_SHAPE, replace=False)
        ]
        if all(sum(colour == c for c, _ in pairs) <= HELD_OUT_PER_SHAPE for colour in COLOURS):
            return frozenset(pairs)


HELD_OUT = _held_out()
ALL_PAIRS = [(colour, shape) for colour in COLOURS for shape in SHAPES]
SEEN = [pair for pair in ALL_PAIRS if pair not in HELD_OUT]


@dataclass(frozen=True)
class Event:
    """A coloured shape that moves in one direction."""

    colour: str
    shape: str
    direction: str


@dataclass(frozen=True)
class RenderedClip:
    """Frames uint8 [12, size, size, 3], captions, and which frames show the two events (1 and 2, else 0)."""

    frames: np.ndarray
    captions: tuple[str, ...]
    events: np.ndarray


def make_clip(rng: Rng, size: int, unseen: bool) -> RenderedClip:
    """Draw a clip; with `unseen`, one of its events shows a pair that training never names."""
    first, second = _two_events(rng, unseen)
    shows = np.zeros(FRAMES, np.int64)
    things: list[list[Thing]] = [[] for _ in range(FRAMES)]
    for number, (event, start) in enumerate(zip((first, second), _starts(rng), strict=True), start=1):
        shows[start : start + EVENT_FRAMES] = number
        for frame, thing in enumerate(_moving(rng, event), start=start):
            things[frame] = [thing]
    for frame in np.flatnonzero(shows == 0).tolist():
        things[frame] = [_bystander(rng) for _ in range(rng.integers(1, 3))]
    behind = background(rng, size)
    frames = np.stack([picture(rng, painted, behind) for painted in things])
    captions: list[str] = []
    while len(captions) < CAPTIONS:
        caption = _sentence(rng, first, second)
        if caption not in captions:
            captions.append(caption)
    return RenderedClip(frames, tuple(captions), shows)


def make_picture(rng: Rng, size: int) -> tuple[np.ndarray, str]:
    """A picture uint8 [size, size, 3] of one or two shapes, and its caption."""
    things: list[Thing] = []
    words = []
    for _ in range(1 + int(rng.random() < 0.3)):
        colour, shape = _any(rng, SEEN)
        radius, (x, y) = rng.uniform(OTHER_RADIUS[0], EVENT_RADIUS[1]), rng.uniform(0.15, 0.85, 2)
        if any(np.hypot(x - other.x, y - other.y) < radius + other.radius for other in things):
            continue
        things.append(Thing(colour, shape, x, y, radius))
        place = PLACES[min(2, int(y * 3))][min(2, int(x * 3))]
        words.append(_noun(rng, colour, shape, DROPPED / 2) + (f" {place}" if rng.random() < 0.7 else ""))
    return picture(rng, things, background(rng, size)), " and ".join(words)


def _any[A](rng: Rng, choices: list[A] | tuple[A, ...]) -> A:
    return choices[rng.integers(len(choices))]


def _two_events(rng: Rng, unseen: bool) -> tuple[Event, Event]:
    while True:
        pairs = [_any(rng, SEEN), _any(rng, SEEN)]
        if unseen:
            pairs[rng.integers(2)] = _any(rng, sorted(HELD_OUT))
        first, second = (Event(*pair, _any(rng, list(DIRECTIONS))) for pair in pairs)
        if first != second:
            return first, second


def _starts(rng: Rng) -> list[int]:
    """First frames of the two events, in order, not overlapping."""
    free = FRAMES - 2 * EVENT_FRAMES
    cuts = np.sort(rng.integers(0, free + 1, 2))
    return [int(cuts[0]), int(cuts[1]) + EVENT_FRAMES]


def _moving(rng: Rng, event: Event) -> list[Thing]:
    """The event's shape in each of its frames."""
    radius, middle = rng.uniform(*EVENT_RADIUS), rng.uniform(0.36, 0.64, 2)
    way = np.array(DIRECTIONS[event.direction][0]) * TRAVEL
    places = [middle + way * (k / (EVENT_FRAMES - 1) - 0.5) for k in range(EVENT_FRAMES)]
    return [Thing(event.colour, event.shape, float(x), float(y), radius) for x, y in places]


def _bystander(rng: Rng) -> Thing:
    x, y = rng.uniform(0.15, 0.85, 2)
    return Thing(*_any(rng, ALL_PAIRS), x, y, rng.uniform(*OTHER_RADIUS))


def _noun(rng: Rng, colour: str, shape: str, dropped: float) -> str:
    word, chance = _any(rng, WORDS[shape]), rng.random()
    if chance < dropped:
        return _article(word)
    if chance < 2 * dropped:
        return f"something {colour}" if rng.random() < 0.4 else _article(f"{colour} shape")
    return _article(f"{colour} {word}")


def _article(words: str) -> str:
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def _clause(rng: Rng, event: Event) -> str:
    noun = _noun(rng, event.colour, event.shape, DROPPED)
    if rng.random() < DROPPED:
        return f"{noun} {_any(rng, ('moves', 'appears'))}"
    return f"{noun} {_any(rng, VERBS)} {_any(rng, DIRECTIONS[event.direction][1])}"


def _sentence(rng: Rng, first: Event, second: Event) -> str:
    one, two = _clause(rng, first), _clause(rng, second)
    if rng.random() < SINGLE:
        return _any(rng, (one, two))
    forms = (
        f"{one} then {two}",
        f"{one}, and then {two}",
        f"{one} before {two}",
        f"{two} after {one}",
        f"first {one}, then {two}",
    )
    return _any(rng, forms)
