"""Results as a page shows them: metrics with intervals, differences, ranks, cost."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...wording import count, latency, number, signed, size
from .charts import Bars, Line, bar_chart, line_chart, log_ticks
from .layout import METRICS, colour_class, heads, note, row, table, unfold
from .markup import Markup, join, tag

if TYPE_CHECKING:
    from ....stages.retrieval.confidence import Interval, Intervals
    from ..contents import Cost, Gain, ModelReport, Report

WAYS = {"t2v": "Text to video", "v2t": "Video to text"}
COMPARED = ("r1", "r5", "r10", "sumr")  # metrics that have intervals
EDGES = (1, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)

type Colours = Mapping[str, int]


def results(report: "Report", colours: Colours) -> Markup | None:
    """What must be known first, metrics of all models side by side, differences between them."""
    shown = [model for model in report.models if model.t2v]
    notices = tag("ul", *(tag("li", each) for each in report.notices), class_="notices") if report.notices else None
    if not shown:
        return notices
    tables = tag("div", *(_metrics(way, shown, colours) for way in WAYS), class_="columns")
    text = (
        "R@K: percent of queries whose video is among the first K. SumR: R@1 + R@5 + R@10. "
        "MdR, MnR: median and mean rank, 1 is best."
    )
    if any(model.intervals for model in shown):
        text += (
            " 95 %: where 95 % of the values lie when the videos, each with all its captions, are drawn again with "
            "replacement; it tells nothing of other training seeds."
        )
    return join(notices, _bars(shown, colours), tables, note(text), _gains(report.gains, colours))


def _bars(models: Sequence["ModelReport"], colours: Colours) -> Markup:
    sumr = {model.name: model.t2v["sumr"] for model in models}
    intervals = {model.name: model.intervals.get("t2v", {}).get("sumr") for model in models}
    most = max([*sumr.values(), *(each.high for each in intervals.values() if each), 1e-9])
    rows = []
    for model in models:
        value, interval = sumr[model.name], intervals[model.name]
        gain = value - sumr[model.against] if model.against in sumr else None
        rows.append(
            tag(
                "li",
                tag("span", model.name, tag("small", model.note), class_="name"),
                tag(
                    "span",
                    tag("i", style=f"width:{100 * value / most:.2f}%"),
                    _whisker(interval, 0, most),
                    class_="track",
                ),
                tag("b", f"{value:.1f}", _gain(gain, model.against)),
                class_=colour_class(colours[model.name]),
            )
        )
    return join(tag("h3", "SumR, text to video"), tag("ul", *rows, class_="bars"))


def _whisker(interval: "Interval | None", low: float, high: float) -> Markup | None:
    """An interval as a bar on a track from `low` to `high`."""
    if interval is None:
        return None
    left, right = (100 * (edge - low) / (high - low) for edge in (interval.low, interval.high))
    return tag(
        "u",
        style=f"left:{left:.2f}%;width:{right - left:.2f}%",
        title=f"95 %: {interval.low:.1f} to {interval.high:.1f}",
    )


def _gain(gain: float | None, against: str | None) -> Markup | None:
    return None if gain is None else tag("small", signed(gain), title=f"against {against}")


def _metrics(way: str, models: Sequence["ModelReport"], colours: Colours) -> Markup:
    body = []
    for model in models:
        metrics: Mapping[str, float] = getattr(model, way)
        cells = [number(metrics.get(key), form) for key, (_, form) in METRICS.items()]
        body.append(row(model.name, *cells, colour=colours[model.name]))
        if way in model.intervals:
            body.append(row("95 %", *(_range(model.intervals[way].get(key)) for key in METRICS), kind="interval"))
    return table(heads(WAYS[way], *(label for label, _ in METRICS.values())), body, "metrics")


def _range(interval: "Interval | None") -> Markup | None:
    return None if interval is None else join(f"{interval.low:.1f}–", tag("wbr"), f"{interval.high:.1f}")


def _gains(gains: Sequence["Gain"], colours: Colours) -> Markup | None:
    if not gains:
        return None
    groups = dict.fromkeys(gain.against for gain in gains)
    parts = [_group(against, [gain for gain in gains if gain.against == against], colours) for against in groups]
    text = (
        "Paired: both models are asked the same queries, drawn again with replacement. Clear: the interval does not "
        "hold 0. Of many comparisons some are clear by chance, and another training seed can move SumR by some points."
    )
    return join(*parts, note(text))


def _group(against: str, gains: Sequence["Gain"], colours: Colours) -> Markup:
    far = max([abs(edge) for gain in gains for edge in (gain.sumr.low, gain.sumr.high)] + [1e-9]) * 1.04
    rows = [
        tag(
            "li",
            tag("span", gain.model, class_="name"),
            tag("span", _whisker(gain.sumr, -far, far), _point(gain.sumr, far), class_="track zero"),
            tag("b", signed(gain.sumr.value), tag("small", _verdict(gain.sumr))),
            class_=colour_class(colours[gain.model]),
        )
        for gain in gains
    ]
    body = [
        row(gain.model, *(_difference(gain.differences, *cell) for cell in _CELLS), colour=colours[gain.model])
        for gain in gains
    ]
    columns = [METRICS[key][0] if way == "t2v" else f"{METRICS[key][0]}, v2t" for way, key in _CELLS]
    return join(
        tag("h3", f"Difference in SumR from {against}"),
        tag("ul", *rows, class_="bars"),
        table(heads(f"Less {against}", *columns), body, "metrics differences"),
    )


_CELLS = (*(("t2v", key) for key in COMPARED), ("v2t", "r1"), ("v2t", "sumr"))


def _point(interval: "Interval", far: float) -> Markup:
    return tag("i", style=f"left:{50 + 50 * interval.value / far:.2f}%")


def _verdict(interval: "Interval") -> str:
    if interval.low <= 0 <= interval.high:
        return "not clear"
    return "clear gain" if interval.value > 0 else "clear loss"


def _difference(differences: "Intervals", way: str, key: str) -> Markup:
    found = differences[way][key]
    clear = _verdict(found) != "not clear"
    text = tag("b", signed(found.value)) if clear else signed(found.value)
    return join(text, tag("small", f"{signed(found.low)} ", tag("span", f"to {signed(found.high)}")))


def ranks(models: Sequence["ModelReport"], colours: Colours) -> Markup | None:
    """Where the queries' own videos rank: how many in each bin, and within the first K."""
    shown = [model for model in models if len(model.ranks)]
    if not shown:
        return None
    most = max(model.candidates for model in shown)
    edges = [edge for edge in EDGES if edge < most] + [most]
    labels = [_label(low + 1, high) for low, high in zip([0, *edges], edges, strict=False)]
    shares = {model.name: _shares(model.ranks, edges) for model in shown}
    histogram = bar_chart(
        "Rank of a query's own video, % of queries",
        [_short(edge) for edge in edges],
        [Bars(model.name, colours[model.name], shares[model.name]) for model in shown],
        "rank, up to",
    )
    recall = line_chart(
        "Recall within the first K, %",
        [Line(model.name, colours[model.name], _recall(model.ranks, model.candidates)) for model in shown],
        "K",
        log_x=True,
    )
    body = [
        row(model.name, *(f"{share:.1f}" for share in shares[model.name]), colour=colours[model.name])
        for model in shown
    ]
    return join(
        tag("div", histogram, recall, class_="columns charts"),
        unfold("the histogram in numbers", table(heads("% of queries at rank", *labels), body)),
    )


def _label(low: int, high: int) -> str:
    return f"{high:,}" if low == high else f"{low:,}–{high:,}"


def _short(rank: int) -> str:
    return f"{rank // 1000}k" if rank >= 1000 and rank % 1000 == 0 else str(rank)


def _shares(ranks: Sequence[float], edges: Sequence[int]) -> list[float]:
    """Percent of ranks, halves rounded down, in (0, e1], (e1, e2] ..."""
    whole = np.floor(np.asarray(ranks, np.float64))
    counts = np.histogram(whole, [0.5, *(edge + 0.5 for edge in edges)])[0]
    return [float(share) for share in 100 * counts / len(whole)]


def _recall(ranks: Sequence[float], candidates: int) -> list[tuple[float, float]]:
    whole = np.sort(np.floor(np.asarray(ranks, np.float64)))
    grid = np.unique(np.geomspace(1, max(candidates, 2), 60).astype(int))
    places = sorted({*grid.tolist(), *(int(tick) for tick in log_ticks(candidates) if tick <= candidates)})
    return [(float(k), float(100 * np.searchsorted(whole, k, side="right") / len(whole))) for k in places]


def costs(models: Sequence["ModelReport"], colours: Colours) -> Markup | None:
    """Bytes, operations and seconds of a search, as far as they are known."""
    known = [(model.name, model.cost) for model in models if model.cost is not None]
    if not known:
        return None
    timed = [cost.seconds_per_query for _, cost in known if cost.seconds_per_query is not None]
    least = min(timed, default=0.0)
    counted = any(cost.pair_flops is not None for _, cost in known)
    body = [
        row(
            name,
            size(cost.bytes_per_video),
            *(_counted(cost) if counted else ()),
            *(_timed(cost, least) if timed else ()),
            colour=colours[name],
        )
        for name, cost in known
    ]
    labels = ["kept per video"]
    labels += ["FLOPs per pair", "FLOPs per video", "parameters"] if counted else []
    labels += ["one query", "videos", "relative"] if timed else []
    text = "Kept per video: in float16."
    if counted:
        text += (
            " FLOPs, two to a multiply-add, are counted in the networks' own modules: to compare one text with one "
            "video, and to encode one video."
        )
    if timed:
        text += " One query: comparing one encoded sentence with every video; encoding is not in it."
    return join(tag("div", table(heads("network", *labels), body), class_="costs"), note(text))


def _counted(cost: "Cost") -> list[str]:
    return ["–" if value is None else count(value) for value in (cost.pair_flops, cost.video_flops, cost.parameters)]


def _timed(cost: "Cost", least: float) -> list[str]:
    seconds = cost.seconds_per_query
    if seconds is None:
        return ["–"] * 3
    relative = f"×{seconds / least:,.0f}" if least > 0 and math.isfinite(least) else "–"
    return [latency(seconds), f"{cost.videos:,}", relative]
