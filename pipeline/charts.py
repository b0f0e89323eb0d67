"""Line charts as inline SVG: coloured by the page's style sheet, so that dark mode and paper need nothing else."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .markup import Markup, join, tag

WIDTH, HEIGHT = 440.0, 270.0
RIGHT, TOP, BOTTOM = 14.0, 10.0, 40.0
DIGIT = 7.5  # width of a digit of the axes' numbers
MAX_POINTS = 160

type Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """One curve.

    Args:
        name: what the legend calls it.
        colour: number of its colour, `c0` to `c7` in the style sheet.
        points: (x, y); points that are not finite are left out.
        mark: x of the point that gets a ring (the checkpoint that was chosen).
    """

    name: str
    colour: int
    points: Points
    mark: float | None = None


def line_chart(title: str, lines: Sequence[Line], x_label: str) -> Markup | None:
    """A chart with axes and a legend; dense curves are drawn faint, with their running mean on top.

    Returns:
        A `<figure>`, or None when no line has a finite point.
    """
    drawn = [Line(line.name, line.colour, finite(line.points), line.mark) for line in lines]
    drawn = [line for line in drawn if line.points]
    if not drawn:
        return None
    smooth = [running_mean(line.points) for line in drawn]
    shown = [point for curve in smooth for point in curve]
    axes = _Axes.around(shown)
    pairs = list(zip(drawn, smooth, strict=True))
    svg = tag(
        "svg",
        tag("title", f"{title}, one line per model"),
        tag("clipPath", tag("rect", **axes.area), id=f"clip-{_slug(title)}"),
        axes.drawn(x_label),
        tag("g", *(_curve(axes, line, mean) for line, mean in pairs), clip_path=f"url(#clip-{_slug(title)})"),
        *(_ring(axes, line, mean) for line, mean in pairs if line.mark is not None),
        viewBox=f"0 0 {WIDTH:g} {HEIGHT:g}",
        role="img",
    )
    legend = [tag("li", tag("i", class_=f"c{line.colour}"), line.name) for line in drawn]
    return tag("figure", tag("figcaption", title), tag("ul", *legend, class_="legend"), svg, class_="chart")


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


@dataclass(frozen=True)
class _Axes:
    x_ticks: list[float]
    y_ticks: list[float]

    @classmethod
    def around(cls, points: Points) -> "_Axes":
        xs, ys = [x for x, _ in points], [y for _, y in points]
        return cls(ticks(min(0.0, *xs), max(xs)), ticks(min(ys), max(ys)))

    @property
    def left(self) -> float:
        return 12 + DIGIT * max(len(f"{value:g}") for value in self.y_ticks)

    @property
    def area(self) -> dict[str, float]:
        return {"x": self.left, "y": TOP, "width": WIDTH - self.left - RIGHT, "height": HEIGHT - TOP - BOTTOM}

    def x(self, value: float) -> float:
        low, high = self.x_ticks[0], self.x_ticks[-1]
        return self.left + (value - low) / (high - low) * (WIDTH - self.left - RIGHT)

    def y(self, value: float) -> float:
        low, high = self.y_ticks[0], self.y_ticks[-1]
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def drawn(self, x_label: str) -> Markup:
        left, foot, end = self.left, HEIGHT - BOTTOM, WIDTH - RIGHT
        grid = [
            tag("line", x1=left, x2=end, y1=self.y(value), y2=self.y(value), class_="grid") for value in self.y_ticks
        ]
        numbers_y = [
            tag("text", f"{value:g}", x=left - 7, y=self.y(value) + 4, text_anchor="end") for value in self.y_ticks
        ]
        numbers_x = [
            tag("text", f"{value:g}", x=self.x(value), y=foot + 17, text_anchor="middle") for value in self.x_ticks
        ]
        label = tag("text", x_label, x=(left + end) / 2, y=HEIGHT - 4, text_anchor="middle", class_="axis")
        return join(*grid, *numbers_y, *numbers_x, label)


def _curve(axes: _Axes, line: Line, mean: Points) -> Markup:
    parts = []
    if mean is not line.points:
        parts.append(tag("path", d=_path(axes, _thinned(line.points)), class_="faint"))
    parts.append(tag("path", d=_path(axes, mean), class_="line"))
    return tag("g", tag("title", line.name), *parts, class_=f"c{line.colour}")


def _ring(axes: _Axes, line: Line, mean: Points) -> Markup:
    """Around the point of the curve that is nearest to the mark."""
    x, y = min(mean, key=lambda point: abs(point[0] - (line.mark or 0.0)))
    return tag("circle", cx=axes.x(x), cy=axes.y(y), r=4.5, class_=f"c{line.colour}")


def _thinned(points: Points) -> Points:
    return points[:: max(1, len(points) // (2 * MAX_POINTS))]


def _path(axes: _Axes, points: Points) -> str:
    return "M" + "L".join(f"{axes.x(x):.1f} {axes.y(y):.1f}" for x, y in points)


def _slug(title: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in title.lower())
