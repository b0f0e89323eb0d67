"""Charts in the page's own units; templates/chart.html draws them, coloured by the style sheet: dark mode and paper
need nothing else."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..contents import Points

WIDTH, HEIGHT = 440, 270
RIGHT, TOP, BOTTOM = 14, 10, 40
DIGIT = 8  # width of a digit of the axes' numbers
MAX_POINTS = 160
MANY_TICKS = 8  # more on a logarithmic axis: only powers of ten get their number


@dataclass(frozen=True)
class Line:
    """One curve.

    Args:
        name: of its model.
        points: (x, y); points that are not finite are left out.
        mark: x of the point that gets a ring (the checkpoint that was chosen).
    """

    name: str
    points: Points
    mark: float | None = None


@dataclass(frozen=True)
class Bars:
    """One model's bars: a value for each bin of a chart."""

    name: str
    values: Sequence[float]


@dataclass(frozen=True)
class Curve:
    """A line as it is drawn: paths, the first below its running mean or empty, and where its ring is."""

    name: str
    faint: str
    line: str
    ring: tuple[float, float] | None


@dataclass(frozen=True)
class Chart:
    """A drawing, `WIDTH` by `HEIGHT`.

    Args:
        names: of the models in it.
        kind: what one model has; described: what it shows, for those who do not see it.
        area: x, y, width and height of what the axes enclose.
        heights: y of the lines across, with their numbers; places: x of what stands below, likewise.
        bars: model -> x, y, width and height of each bar.
    """

    title: str
    names: Sequence[str]
    kind: str
    described: str
    x_label: str
    area: tuple[float, float, float, float]
    heights: Sequence[tuple[float, str]]
    places: Sequence[tuple[float, str]]
    curves: Sequence[Curve] = ()
    bars: Sequence[tuple[str, Sequence[tuple[float, float, float, float]]]] = ()
    width: int = WIDTH
    height: int = HEIGHT

    @property
    def slug(self) -> str:
        """The title as a name within the page."""
        return "".join(letter if letter.isalnum() else "-" for letter in self.title.lower())


def line_chart(title: str, lines: Sequence[Line], x_label: str, *, log_x: bool = False) -> Chart | None:
    """A chart with axes and a legend; dense curves are drawn faint, with their running mean on top.

    Args:
        log_x: for x >= 1 whose ratios matter; such curves are drawn as they are.

    Returns:
        None when no line has a finite point.
    """
    drawn = [Line(line.name, finite(line.points), line.mark) for line in lines]
    drawn = [line for line in drawn if line.points]
    if not drawn:
        return None
    means = [line.points if log_x else running_mean(line.points) for line in drawn]
    axes = _Axes.around([point for mean in means for point in mean], log_x)
    told = [f"{line.name} from {mean[0][1]:.4g} to {mean[-1][1]:.4g}" for line, mean in zip(drawn, means, strict=True)]
    return Chart(
        title=title,
        names=[line.name for line in drawn],
        kind="one line per model",
        described="; ".join(told),
        x_label=x_label,
        area=axes.area,
        heights=axes.heights,
        places=axes.places,
        curves=[_curve(axes, line, mean) for line, mean in zip(drawn, means, strict=True)],
    )


def bar_chart(title: str, bins: Sequence[str], bars: Sequence[Bars], x_label: str) -> Chart | None:
    """Bars side by side in bins, in percent or counts from 0; None without bins or bars."""
    if not bins or not bars:
        return None
    axes = _Axes(list(map(float, range(len(bins) + 1))), ticks(0.0, max([1e-9, *(max(each.values) for each in bars)])))
    wide = (axes.x(1) - axes.x(0)) * 0.84 / len(bars)
    told = [f"{each.name} {', '.join(f'{value:.3g}' for value in each.values)}" for each in bars]
    return Chart(
        title=title,
        names=[each.name for each in bars],
        kind="one bar per model and bin",
        described=f"{x_label} {', '.join(bins)}: {'; '.join(told)}",
        x_label=x_label,
        area=axes.area,
        heights=axes.heights,
        places=[(round(axes.x(number + 0.5), 1), label) for number, label in enumerate(bins)],
        bars=[
            (each.name, [_bar(axes, number, place, wide, value) for number, value in enumerate(each.values)])
            for place, each in enumerate(bars)
        ],
    )


def _bar(axes: "_Axes", number: int, place: int, wide: float, value: float) -> tuple[float, float, float, float]:
    left, top = axes.x(number + 0.08) + place * wide, axes.y(value)
    return round(left, 2), round(top, 2), round(max(wide - 1, 0.8), 2), round(axes.y(0) - top, 2)


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
    def left(self) -> int:
        return 12 + DIGIT * max(len(f"{value:g}") for value in self.y_ticks)

    @property
    def area(self) -> tuple[float, float, float, float]:
        return self.left, TOP, WIDTH - self.left - RIGHT, HEIGHT - TOP - BOTTOM

    @property
    def heights(self) -> list[tuple[float, str]]:
        """Where the y axis has its numbers."""
        return [(round(self.y(value), 1), f"{value:g}") for value in self.y_ticks]

    @property
    def places(self) -> list[tuple[float, str]]:
        """Where the x axis has its numbers."""
        return [
            (round(self.x(value), 1), f"{value:g}")
            for value in self.x_ticks
            if not self.log_x or len(self.x_ticks) <= MANY_TICKS or math.log10(value).is_integer()
        ]

    def x(self, value: float) -> float:
        low, high = self._place(self.x_ticks[0]), self._place(self.x_ticks[-1])
        return self.left + (self._place(value) - low) / (high - low) * (WIDTH - self.left - RIGHT)

    def _place(self, value: float) -> float:
        return math.log(max(value, 1.0)) if self.log_x else value

    def y(self, value: float) -> float:
        low, high = self.y_ticks[0], self.y_ticks[-1]
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def path(self, points: Points) -> str:
        return "M" + "L".join(f"{self.x(x):.1f} {self.y(y):.1f}" for x, y in points)


def _curve(axes: _Axes, line: Line, mean: Points) -> Curve:
    faint = "" if mean is line.points else axes.path(line.points[:: max(1, len(line.points) // (2 * MAX_POINTS))])
    ring = None
    if line.mark is not None:
        x, y = min(mean, key=lambda point: abs(point[0] - (line.mark or 0.0)))
        ring = round(axes.x(x), 1), round(axes.y(y), 1)
    return Curve(line.name, faint, axes.path(mean), ring)
