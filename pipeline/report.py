"""The report of trained models, as a page (page.py)."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from ..cache.files import publish
from .charts import Line, Points, line_chart
from .markup import Markup, join, tag
from .page import COLOURS, METRICS, card, dot, number, page, table
from .quantities import latency, size

ROW_FRAMES = 12  # clips with more frames wrap
FRAME_PIXELS = 160  # frames are shown at some 80 pixels; twice that for sharp screens


@dataclass(frozen=True)
class Cost:
    """What a model's search costs: bytes kept per video, seconds per query over `videos` videos."""

    bytes_per_video: int
    seconds_per_query: float
    videos: int


@dataclass(frozen=True)
class ModelReport:
    """One model.

    Args:
        name: unique; its colour in the page goes by its place in `Report.models`.
        note: what it is, in a few words.
        t2v: text-to-video metrics, keys as in `METRICS`, R@K in percent.
        v2t: the same, video-to-text.
        against: name of the model whose SumR the page compares it with.
        curves: chart title -> (step, value); models with the same title share a chart.
        chosen: step of the checkpoint that was evaluated.
        cost: measured search cost.
        facts: how it was trained; label -> value.
        config: its configuration, as YAML.
    """

    name: str
    note: str
    t2v: Mapping[str, float]
    v2t: Mapping[str, float]
    against: str | None = None
    curves: Mapping[str, Points] = field(default_factory=dict)
    chosen: float | None = None
    cost: Cost | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    config: str = ""


@dataclass(frozen=True)
class Clip:
    """A query with its video.

    Args:
        title: why it is shown ("gained most from teaching").
        caption: the query.
        video: id of its video.
        frames: uint8 [F, H, W, 3], padding left out.
        times: seconds [F].
        weights: model name -> frame weights [F] that sum to 1.
        ranks: model name -> rank of the video, 1 is best.
    """

    title: str
    caption: str
    video: str
    frames: np.ndarray
    times: Sequence[float]
    weights: Mapping[str, Sequence[float]]
    ranks: Mapping[str, float]


@dataclass(frozen=True)
class Found:
    """One answer: cosine, video id, some of its frames uint8 [n, H, W, 3], what its captions say."""

    cosine: float
    video: str
    frames: np.ndarray
    caption: str = ""


@dataclass(frozen=True)
class Search:
    """A sentence and the videos it found, best first."""

    query: str
    found: Sequence[Found]


@dataclass(frozen=True)
class Report:
    """Everything the page shows.

    Args:
        title: its heading.
        lead: paragraphs that say what came out.
        models: in the order of the tables; at most `COLOURS`.
        data: the data set; label -> value.
        machine: where and with what it ran; label -> value.
        clips: example queries.
        clips_note: how they were chosen and what the bars are.
        searches: searches with one of the models.
        footer: the last line.
    """

    title: str
    lead: Sequence[str]
    models: Sequence[ModelReport]
    data: Mapping[str, str] = field(default_factory=dict)
    machine: Mapping[str, str] = field(default_factory=dict)
    clips: Sequence[Clip] = ()
    clips_note: str = ""
    searches: Sequence[Search] = ()
    footer: str = ""


def write_report(report: Report, path: Path) -> None:
    """Write the page to `path`, complete or not at all."""
    publish(path, render_report(report).encode())


def render_report(report: Report) -> str:
    """The page as HTML. Every text of `report` is shown as text, whatever it contains."""
    colours = {model.name: index % COLOURS for index, model in enumerate(report.models)}
    sections = [
        ("Results", _results(report.models, colours)),
        ("Cost of a search", _costs(report.models, colours)),
        ("Searches", _searches(report.searches)),
        ("Frames and their weights", _clips(report, colours)),
        ("Training", _curves(report.models, colours)),
        ("What was trained on what", _provenance(report, colours)),
    ]
    return page(report.title, report.lead, sections, report.footer)


def _results(models: Sequence[ModelReport], colours: Mapping[str, int]) -> Markup | None:
    if not models:
        return None
    tables = tag(
        "div",
        _metrics_table("Text to video", [(model, model.t2v) for model in models], colours),
        _metrics_table("Video to text", [(model, model.v2t) for model in models], colours),
        class_="columns",
    )
    note = (
        "R@K: percent of queries whose video is among the first K. SumR: R@1 + R@5 + R@10. "
        "MdR, MnR: median and mean rank, 1 is best."
    )
    return join(_bars(models, colours), tables, tag("p", note, class_="note"))


def _bars(models: Sequence[ModelReport], colours: Mapping[str, int]) -> Markup:
    sumr = {model.name: model.t2v["sumr"] for model in models}
    most = max([*sumr.values(), 1e-9])
    rows = []
    for model in models:
        value = sumr[model.name]
        gain = value - sumr[model.against] if model.against is not None else None
        rows.append(
            tag(
                "li",
                tag("span", model.name, tag("small", model.note), class_="name"),
                tag("span", tag("i", style=f"width:{100 * value / most:.2f}%"), class_="track"),
                tag("b", f"{value:.1f}", _gain(gain, model.against)),
                class_=f"c{colours[model.name]}",
            )
        )
    return join(tag("h3", "SumR, text to video"), tag("ul", *rows, class_="bars"))


def _gain(gain: float | None, against: str | None) -> Markup | None:
    if gain is None:
        return None
    return tag("small", f"{gain:+.1f}".replace("-", "−"), title=f"against {against}")


def _metrics_table(
    caption: str, rows: Sequence[tuple[ModelReport, Mapping[str, float]]], colours: Mapping[str, int]
) -> Markup:
    head = tag("tr", tag("th", caption, scope="col"), *(tag("th", label, scope="col") for label, _ in METRICS.values()))
    body = [
        tag(
            "tr",
            tag("th", dot(colours[model.name]), model.name, scope="row"),
            *(tag("td", number(metrics.get(key), form)) for key, (_, form) in METRICS.items()),
        )
        for model, metrics in rows
    ]
    return table(head, body)


def _costs(models: Sequence[ModelReport], colours: Mapping[str, int]) -> Markup | None:
    costs = [(model.name, model.cost) for model in models if model.cost is not None]
    if not costs:
        return None
    least = min(cost.seconds_per_query for _, cost in costs)
    labels = ("", "kept per video", "one query", "videos", "relative")
    body = [
        tag(
            "tr",
            tag("th", dot(colours[name]), name, scope="row"),
            tag("td", size(cost.bytes_per_video)),
            tag("td", latency(cost.seconds_per_query)),
            tag("td", f"{cost.videos:,}"),
            tag("td", f"×{cost.seconds_per_query / least:,.0f}" if least > 0 else "–"),
        )
        for name, cost in costs
    ]
    note = "Comparing one encoded sentence with every video; encoding the sentence and the videos is not counted."
    compared = table(tag("tr", *(tag("th", label) for label in labels)), body)
    return join(tag("div", compared, class_="costs"), tag("p", note, class_="note"))


def _searches(searches: Sequence[Search]) -> Markup | None:
    if not searches:
        return None
    return join(*(tag("article", tag("h3", f"“{one.query}”"), _answers(one.found)) for one in searches))


def _answers(found: Sequence[Found]) -> Markup:
    items = [
        tag(
            "li",
            tag("div", *(_image(frame, answer.video) for frame in answer.frames), class_="shots"),
            tag("p", tag("b", f"{rank}. "), answer.video, tag("small", f"cosine {answer.cosine:.3f}")),
            tag("p", answer.caption, class_="note") if answer.caption else None,
        )
        for rank, answer in enumerate(found, start=1)
    ]
    return tag("ol", *items, class_="found")


def _clips(report: Report, colours: Mapping[str, int]) -> Markup | None:
    if not report.clips:
        return None
    note = tag("p", report.clips_note, class_="note") if report.clips_note else None
    return join(note, *(_clip(clip, colours) for clip in report.clips))


def _clip(clip: Clip, colours: Mapping[str, int]) -> Markup:
    ranks = [
        tag("li", tag("i", class_=f"c{colours[name]}"), f"{name}: rank ", tag("b", f"{rank:g}"))
        for name, rank in clip.ranks.items()
    ]
    most = max(max(weights) for weights in clip.weights.values()) if clip.weights else 1.0
    frames = len(clip.frames)
    labels = [tag("span", name, class_=f"c{colours[name]}") for name in clip.weights]
    cells = [tag("div", *labels, class_="labels")] if labels else []
    for index, frame in enumerate(clip.frames):
        bars = [_weight(name, weights[index], most, frames, colours[name]) for name, weights in clip.weights.items()]
        cells.append(tag("div", _image(frame, f"frame {index + 1}"), *bars, tag("small", f"{clip.times[index]:.1f} s")))
    return tag(
        "article",
        tag("p", clip.title, class_="kicker"),
        tag("h3", f"“{clip.caption}”"),
        tag("p", clip.video, class_="note"),
        tag("ul", *ranks, class_="legend"),
        tag("div", *cells, class_="strip" if frames <= ROW_FRAMES else "strip long", style=f"--frames:{frames}"),
    )


def _weight(name: str, weight: float, most: float, frames: int, colour: int) -> Markup:
    uniform = 100 / frames / most if most > 0 else 0.0
    return tag(
        "span",
        tag("u", style=f"bottom:{min(uniform, 100.0):.1f}%"),
        tag("i", style=f"height:{100 * weight / most if most > 0 else 0:.1f}%"),
        class_=f"weight c{colour}",
        title=f"{name}: {weight:.3f}",
    )


def _curves(models: Sequence[ModelReport], colours: Mapping[str, int]) -> Markup | None:
    titles = dict.fromkeys(title for model in models for title in model.curves)
    charts = [
        line_chart(
            title,
            [
                Line(model.name, colours[model.name], model.curves[title], model.chosen)
                for model in models
                if title in model.curves
            ],
            "optimiser step",
        )
        for title in titles
    ]
    drawn = [chart for chart in charts if chart is not None]
    if not drawn:
        return None
    note = "A ring marks the checkpoint that validation chose. Dense curves are shown faint, with their running mean."
    return join(tag("div", *drawn, class_="columns charts"), tag("p", note, class_="note"))


def _provenance(report: Report, colours: Mapping[str, int]) -> Markup | None:
    cards = [card("Data", report.data), card("Machine", report.machine)]
    cards += [card(model.name, model.facts, colours[model.name], model.config) for model in report.models]
    shown = [each for each in cards if each is not None]
    return tag("div", *shown, class_="cards") if shown else None


def _image(frame: np.ndarray, alt: str) -> Markup:
    """A frame as inline JPEG, at most `FRAME_PIXELS` wide."""
    image = Image.fromarray(np.ascontiguousarray(frame))
    image.thumbnail((FRAME_PIXELS, FRAME_PIXELS))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=85)
    source = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    return tag("img", src=source, alt=alt, width=image.width, height=image.height)
