"""Results as a page shows them: metrics with intervals, differences, ranks, cost."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...wording import count, latency, number, signed, size
from ..contents import METRICS
from .charts import Bars, Line, bar_chart, line_chart, log_ticks
from .elements import Bar, Difference, Figures, Row, Section, Table, of_model

if TYPE_CHECKING:
    from ....stages.retrieval.confidence import Interval
    from ..contents import Cost, Gain, ModelReport, Report

WAYS = {"t2v": "Text to video", "v2t": "Video to text"}
DIFFERENCES = (*(("t2v", key) for key in ("r1", "r5", "r10", "sumr")), ("v2t", "r1"), ("v2t", "sumr"))
EDGES = (1, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)


def results(report: "Report") -> Section | None:
    """What must be known first, metrics of all models side by side, differences between them."""
    models = [model for model in report.models if model.t2v]
    if not models and not report.notices:
        return None
    shown = {
        "notices": report.notices,
        "bars": _bars(models),
        "tables": [_metrics(way, models) for way in WAYS],
        "intervals": any(model.intervals for model in models),
        "groups": _groups(report.gains) if models else [],
    }
    return Section("Results", "results.html", shown)


def _bars(models: Sequence["ModelReport"]) -> list[Bar]:
    """SumR of the models, on a track from 0."""
    sumr = {model.name: model.t2v["sumr"] for model in models}
    intervals = {model.name: model.intervals.get("t2v", {}).get("sumr") for model in models}
    most = max([*sumr.values(), *(each.high for each in intervals.values() if each), 1e-9])
    return [
        Bar(
            model.name,
            f"width:{100 * sumr[model.name] / most:.2f}%",
            f"{sumr[model.name]:.1f}",
            *_whisker(intervals[model.name], 0, most),
            aside=signed(sumr[model.name] - sumr[model.against]) if model.against in sumr else "",
            hint=f"against {model.against}",
            note=model.note,
        )
        for model in models
    ]


def _whisker(interval: "Interval | None", low: float, high: float) -> tuple[str, str]:
    """An interval on a track from `low` to `high`, as CSS, and in words."""
    if interval is None:
        return "", ""
    left, right = (100 * (edge - low) / (high - low) for edge in (interval.low, interval.high))
    return f"left:{left:.2f}%;width:{right - left:.2f}%", f"95 %: {interval.low:.1f} to {interval.high:.1f}"


def _metrics(way: str, models: Sequence["ModelReport"]) -> Table:
    rows = []
    for model in models:
        rows.append(of_model(model.name, *metric_cells(getattr(model, way))))
        if way in model.intervals:
            intervals = [model.intervals[way].get(key) for key in METRICS]
            cells = [f"{each.low:.1f}–{each.high:.1f}" if each and each.low < each.high else "" for each in intervals]
            rows.append(Row("95 %", cells, kind="interval"))
    return metric_table(WAYS[way], rows)


def metric_table(title: str, rows: Sequence[Row]) -> Table:
    """Rows of `metric_cells` below their labels."""
    return Table([title, *(label for label, _ in METRICS.values())], rows, "metrics")


def metric_cells(metrics: Mapping[str, float]) -> list[str]:
    """Metrics in words, in the order of `METRICS`."""
    return [number(metrics.get(key), form) for key, (_, form) in METRICS.items()]


def _groups(gains: Sequence["Gain"]) -> list[Mapping[str, Any]]:
    """Differences, those from the same model together."""
    labels = [METRICS[key][0] if way == "t2v" else f"{METRICS[key][0]}, v2t" for way, key in DIFFERENCES]
    found: list[Mapping[str, Any]] = []
    for against in dict.fromkeys(gain.against for gain in gains):
        group = [gain for gain in gains if gain.against == against]
        rows = [
            of_model(gain.model, *(_difference(gain.differences[way][key]) for way, key in DIFFERENCES))
            for gain in group
        ]
        table = Table([f"Less {against}", *labels], rows, "metrics differences")
        found.append({"against": against, "bars": _gains(group), "table": table})
    return found


def _gains(gains: Sequence["Gain"]) -> list[Bar]:
    """Differences in SumR, on a track with 0 in its middle."""
    far = max([abs(edge) for gain in gains for edge in (gain.sumr.low, gain.sumr.high)] + [1e-9]) * 1.04
    return [
        Bar(
            gain.model,
            f"left:{50 + 50 * gain.sumr.value / far:.2f}%",
            signed(gain.sumr.value),
            *_whisker(gain.sumr, -far, far),
            aside=("clear gain" if gain.sumr.value > 0 else "clear loss") if _clear(gain.sumr) else "not clear",
        )
        for gain in gains
    ]


def _clear(interval: "Interval") -> bool:
    return not interval.low <= 0 <= interval.high


def _difference(found: "Interval") -> Difference:
    return Difference(signed(found.value), signed(found.low), signed(found.high), _clear(found))


def ranks(models: Sequence["ModelReport"]) -> Section | None:
    """Where the queries' own videos rank: how many in each bin, and within the first K."""
    shown = [model for model in models if len(model.ranks)]
    if not shown:
        return None
    most = max(model.candidates for model in shown)
    edges = [edge for edge in EDGES if edge < most] + [most]
    labels = [_label(low + 1, high) for low, high in zip([0, *edges], edges, strict=False)]
    shares = {model.name: _shares(model.ranks, edges) for model in shown}
    charts = [
        bar_chart(
            "Rank of a query's own video, % of queries",
            [_short(edge) for edge in edges],
            [Bars(name, values) for name, values in shares.items()],
            "rank, up to",
        ),
        line_chart(
            "Recall within the first K, %",
            [Line(model.name, _recall(model.ranks, model.candidates)) for model in shown],
            "K",
            log_x=True,
        ),
    ]
    rows = [of_model(name, *(f"{share:.1f}" for share in values)) for name, values in shares.items()]
    folded = ("the histogram in numbers", Table(["% of queries at rank", *labels], rows))
    return Section("Ranks", "figures.html", Figures(charts=[each for each in charts if each], folded=folded))


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


def costs(models: Sequence["ModelReport"]) -> Section | None:
    """Bytes, operations and seconds of a search, as far as they are known."""
    known = [(model.name, model.cost) for model in models if model.cost is not None]
    if not known:
        return None
    timed = [cost.seconds_per_query for _, cost in known if cost.seconds_per_query is not None]
    counted = any(cost.pair_flops is not None for _, cost in known)
    head, note = ["network", "kept per video"], "Kept per video: in float16."
    if counted:
        head += ["FLOPs per pair", "FLOPs per video", "parameters"]
        note += (
            " FLOPs, two to a multiply-add, are counted in the networks' own modules: to compare one text with one "
            "video, and to encode one video."
        )
    if timed:
        head += ["one query", "videos", "relative"]
        note += " One query: comparing one encoded sentence with every video; encoding is not in it."
    rows = [
        of_model(
            name,
            size(cost.bytes_per_video),
            *(_counted(cost) if counted else ()),
            *(_timed(cost, min(timed)) if timed else ()),
        )
        for name, cost in known
    ]
    return Section("Cost of a search", "figures.html", Figures(wide=Table(head, rows), note=note))


def _counted(cost: "Cost") -> list[str]:
    return ["–" if value is None else count(value) for value in (cost.pair_flops, cost.video_flops, cost.parameters)]


def _timed(cost: "Cost", least: float) -> list[str]:
    seconds = cost.seconds_per_query
    if seconds is None:
        return ["–"] * 3
    relative = f"×{seconds / least:,.0f}" if least > 0 and math.isfinite(least) else "–"
    return [latency(seconds), f"{cost.videos:,}", relative]
