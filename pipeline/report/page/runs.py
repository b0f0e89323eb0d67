"""How models were trained, and on what, as a page shows it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .charts import Line, line_chart
from .elements import Figures, Row, Section, Table

if TYPE_CHECKING:
    from ..contents import ModelReport, Report, RunComparison

COLUMNS = 6  # tables of more runs have no columns


def training(models: Sequence["ModelReport"]) -> Section | None:
    """A chart for each curve, the models in one."""
    titles = dict.fromkeys(title for model in models for title in model.curves)
    charts = [
        line_chart(
            title,
            [Line(model.name, model.curves[title], model.chosen) for model in models if title in model.curves],
            "optimiser step",
        )
        for title in titles
    ]
    drawn = [chart for chart in charts if chart is not None]
    note = "A ring marks the checkpoint that was chosen. Dense curves are shown faint, with their running mean."
    return Section("Training", "figures.html", Figures(charts=drawn, note=note)) if drawn else None


@dataclass(frozen=True)
class Card:
    """Label and value, one below the other; of a model, what must be known of it, and its configuration to unfold."""

    title: str
    facts: Mapping[str, str]
    dots: Sequence[str] = ()
    marks: Sequence[str] = ()
    config: str = ""


def provenance(report: "Report") -> Section | None:
    """Data, machine and models as cards; settings and data side by side."""
    cards = [Card("Data", report.data), Card("Machine", report.machine)]
    cards += [Card(model.name, model.facts, (model.name,), model.marks, model.config) for model in report.models]
    shown = [card for card in cards if card.facts or card.marks or card.config]
    compared = [(each.title, each.note, _compared(each)) for each in report.comparisons if each.rows]
    if not shown and not compared:
        return None
    return Section("What was trained on what", "provenance.html", {"cards": shown, "compared": compared})


def _compared(comparison: "RunComparison") -> Table:
    apart = {key for key, values in comparison.rows.items() if len(set(values)) > 1}
    mixed = 0 < len(apart) < len(comparison.rows)
    rows = [Row(key, values, kind="apart" if mixed and key in apart else "") for key, values in comparison.rows.items()]
    kind = "compared many" if len(comparison.models) > COLUMNS else "compared"
    return Table([comparison.title, *comparison.models], rows, kind, of_models=True)
