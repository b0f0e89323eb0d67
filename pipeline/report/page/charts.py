"""Charts as inline SVG: coloured by the page's style sheet, so that dark mode and paper need nothing else."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..contents import Points
from .layout import colour_class
from .markup import Markup, join, tag

WIDTH, HEIGHT = 440.0, 270.0
RIGHT, TOP, BOTTOM = 14.0, 10.0, 40.0
DIGIT = 8.0  # width of a digit of the axes' numbers
MAX_POINTS = 160
MANY_TICKS = 8  # more on a logarithmic axis: only powers of ten get their number


@dataclass(frozen=True)
class Line:
    """One curve.

    Args:
        name: what the legend calls it.
        colour: number of its colour, see `page.colour_class`.
        points: (x, y); points that are not finite are left out.
        mark: x of the point that gets a ring (the checkpoint that was chosen).
    """

    name: str
    colour: int
    points: Points
    mark: float | None = None


@dataclass(frozen=True)
class Bars:
    """One model's bars: a value for each bin of a chart."""

    name: str
    colour: int
    values: Sequence[float]


def line_chart(title: str, lines: Sequence[Line], x_label: str, *, log_x: bool = False) -> Markup | None:
    """A chart with axes and a legend; dense curves are drawn faint, with their running mean on top.

    Args:
        log_x: for x >= 1 whose ratios matter; such curves are drawn as they are.

    Returns:
        A `<figure>`, or None when no line has a finite point.
    """
    drawn = [Line(line.name, line.colour, finite(line.points), line.mark) for line in lines]
    drawn = [line for line in drawn if line.points]
    if not drawn:
        return None
    smooth = [line.points if log_x else running_mean(line.points) for line in drawn]
    axes = _Axes.around([point for curve in smooth for point in curve], log_x)
    pairs = list(zip(drawn, smooth, strict=True))
    clip = f"clip-{_slug(title)}"
    parts = (
        tag("clipPath", tag("rect", **axes.area), id=clip),
        axes.drawn(x_label),
        tag("g", *(_curve(axes, line, mean) for line, mean in pairs), clip_path=f"url(#{clip})"),
        *(_ring(axes, line, mean) for line, mean in pairs if line.mark is not None),
    )
    told = [f"{line.name} from {mean[0][1]:.4g} to {mean[-1][1]:.4g}" for line, mean in pairs]
    return _figure(title, "one line per model", drawn, "; ".join(told), parts)


def bar_chart(title: str, bins: Sequence[str], bars: Sequence[Bars], x_label: str) -> Markup | None:
    """Bars side by side in bins, in percent or counts from 0; None without bins or bars."""
    if not bins or not bars:
        return None
    axes = _Axes(list(map(float, range(len(bins) + 1))), ticks(0.0, max([1e-9, *(max(each.values) for each in bars)])))
    wide = (axes.x(1) - axes.x(0)) * 0.84 / len(bars)
    drawn = [
        tag(
            "g",
            tag("title", each.name),
            *(_bar(axes, number, place, wide, value) for number, value in enumerate(each.values)),
            class_=colour_class(each.colour),
        )
        for place, each in enumerate(bars)
    ]
    labels = [
        tag("text", label, x=axes.x(number + 0.5), y=HEIGHT - BOTTOM + 17, text_anchor="middle")
        for number, label in enumerate(bins)
    ]
    told = [f"{each.name} {', '.join(f'{value:.3g}' for value in each.values)}" for each in bars]
    described = f"{x_label} {', '.join(bins)}: {'; '.join(told)}"
    return _figure(
        title, "one bar per model and bin", bars, described, (axes.heights(), axes.label(x_label), *labels, *drawn)
    )


def _bar(axes: "_Axes", number: int, place: int, wide: float, value: float) -> Markup:
    top, foot = axes.y(value), axes.y(0)
    left = axes.x(number + 0.08) + place * wide
    return tag("rect", x=left, y=top, width=max(wide - 1, 0.8), height=foot - top, rx=1.5)


def _figure(title: str, kind: str, named: Sequence[Line | Bars], told: str, parts: Sequence[Markup]) -> Markup:
    """A drawing under its title and legend; `told` is what it shows, for those who do not see it."""
    legend = [tag("li", tag("i", class_=colour_class(each.colour)), each.name) for each in named]
    drawing = tag(
        "svg",
        tag("title", f"{title}, {kind}"),
        tag("desc", told),
        *parts,
        viewBox=f"0 0 {WIDTH:g} {HEIGHT:g}",
        role="img",
    )
    return tag("figure", tag("figcaption", title), tag("ul", *legend, class_="legend"), drawing, class_="chart")


def finite(points: Points) -> list[tuple[float, float]]:
    """The points that can be drawn, by x."""
    return sorted((x, y) for x, y in points if math.isfinite(x) and math.isfinite(y))


def running_mean(points: Points) -> Points:
    """At most `MAX_POINTS` points, each the mean of its stretch of the curve; short curves as they are."""
    if len(points) <= MAX_POINTS // 4:
        return points
    half = max(1, len(points) // 40)
    step = max(1, len(points) // MAX_POINTS)
    centres = range(0, len(points), step)
    windows = ([y for _, y in points[max(0, i - half) : i + half + 1]] for i in centres)
    return [(points[i][0], sum(window) / len(window)) for i, window in zip(centres, windows, strict=True)]


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers (steps of 1, 2 or 5 times a power of ten) that enclose `low` and `high`."""
    if high <= low:
        spread = abs(low) or 1.0
        low, high = low - spread / 2, high + spread / 2
    rough = (high - low) / about
    magnitude: float = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [k * step for k in range(first, last + 1)]


def log_ticks(high: float) -> list[float]:
    """1, 2, 5, 10, ... up to the first that is `high` or more."""
    steps = (factor * 10.0**power for power in range(16) for factor in (1, 2, 5))
    found = [1.0]
    while found[-1] < high:
        found = [*found, next(step for step in steps if step > found[-1])]
    return found if len(found) > 1 else [1.0, 2.0]


@dataclass(frozen=True)
class _Axes:
    x_ticks: list[float]
    y_ticks: list[float]
    log_x: bool = False

    @classmethod
    def around(cls, points: Points, log_x: bool) -> "_Axes":
        xs, ys = [x for x, _ in points], [y for _, y in points]
        return cls(log_ticks(max(xs)) if log_x else ticks(min(0.0, *xs), max(xs)), ticks(min(ys), max(ys)), log_x)

    @property
    def left(self) -> float:
        return 12 + DIGIT * max(len(f"{value:g}") for value in self.y_ticks)

    @property
    def area(self) -> dict[str, float]:
        return {"x": self.left, "y": TOP, "width": WIDTH - self.left - RIGHT, "height": HEIGHT - TOP - BOTTOM}

    def x(self, value: float) -> float:
        low, high = self._place(self.x_ticks[0]), self._place(self.x_ticks[-1])
        return self.left + (self._place(value) - low) / (high - low) * (WIDTH - self.left - RIGHT)

    def _place(self, value: float) -> float:
        return math.log(max(value, 1.0)) if self.log_x else value

    def y(self, value: float) -> float:
        low, high = self.y_ticks[0], self.y_ticks[-1]
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def drawn(self, x_label: str) -> Markup:
        numbers = [
            tag("text", f"{value:g}", x=self.x(value), y=HEIGHT - BOTTOM + 17, text_anchor="middle")
            for value in self.x_ticks
            if not self.log_x or len(self.x_ticks) <= MANY_TICKS or math.log10(value).is_integer()
        ]
        return join(self.heights(), *numbers, self.label(x_label))

    def heights(self) -> Markup:
        """Lines across at the y axis' numbers."""
        lines = [
            tag("line", x1=self.left, x2=WIDTH - RIGHT, y1=self.y(value), y2=self.y(value), class_="grid")
            for value in self.y_ticks
        ]
        numbers = [
            tag("text", f"{value:g}", x=self.left - 7, y=self.y(value) + 4, text_anchor="end") for value in self.y_ticks
        ]
        return join(*lines, *numbers)

    def label(self, text: str) -> Markup:
        """Below the x axis."""
        return tag("text", text, x=(self.left + WIDTH - RIGHT) / 2, y=HEIGHT - 4, text_anchor="middle", class_="axis")


def _curve(axes: _Axes, line: Line, mean: Points) -> Markup:
    parts = []
    if mean is not line.points:
        parts.append(tag("path", d=_path(axes, _thinned(line.points)), class_="faint"))
    parts.append(tag("path", d=_path(axes, mean), class_="line"))
    return tag("g", tag("title", line.name), *parts, class_=colour_class(line.colour))


def _ring(axes: _Axes, line: Line, mean: Points) -> Markup:
    """Around the point of the curve that is nearest to the mark."""
    x, y = min(mean, key=lambda point: abs(point[0] - (line.mark or 0.0)))
    return tag("circle", cx=axes.x(x), cy=axes.y(y), r=4.5, class_=colour_class(line.colour))


def _thinned(points: Points) -> Points:
    return points[:: max(1, len(points) // (2 * MAX_POINTS))]


def _path(axes: _Axes, points: Points) -> str:
    return "M" + "L".join(f"{axes.x(x):.1f} {axes.y(y):.1f}" for x, y in points)


def _slug(title: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in title.lower())
