"""How models were trained, and on what, as a page shows it."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .charts import Line, line_chart
from .layout import card, heads, note, row, table
from .markup import Markup, join, tag

if TYPE_CHECKING:
    from ..contents import ModelReport, Report, RunComparison

COLUMNS = 6  # tables of more runs have no columns

type Colours = Mapping[str, int]


def curves(models: Sequence["ModelReport"], colours: Colours) -> Markup | None:
    """A chart for each curve, the models in one."""
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
    text = "A ring marks the checkpoint that was chosen. Dense curves are shown faint, with their running mean."
    return join(tag("div", *drawn, class_="columns charts"), note(text))


def provenance(report: "Report", colours: Colours) -> Markup | None:
    """Data, machine and models as cards; settings and data side by side."""
    cards = [card("Data", report.data), card("Machine", report.machine)]
    cards += [card(model.name, model.facts, colours[model.name], model.config, model.marks) for model in report.models]
    shown = [each for each in cards if each is not None]
    compared = [_compared(each) for each in report.comparisons if each.rows]
    if not shown and not compared:
        return None
    return join(tag("div", *shown, class_="cards") if shown else None, *compared)


def _compared(comparison: "RunComparison") -> Markup:
    apart = {key for key, values in comparison.rows.items() if len(set(values)) > 1}
    mixed = 0 < len(apart) < len(comparison.rows)
    body = [
        row(key, *values, kind="apart" if mixed and key in apart else None, labels=comparison.models)
        for key, values in comparison.rows.items()
    ]
    return tag(
        "div",
        tag("h3", comparison.title),
        note(comparison.note) if comparison.note else None,
        table(
            heads(comparison.title, *comparison.models),
            body,
            "compared many" if len(comparison.models) > COLUMNS else "compared",
        ),
        class_="part",
    )
