"""The sections of a report as one HTML file."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ....cache.storage.publish import publish
from ..contents import Report
from .layout import page
from .markup import Markup, join, tag
from .pictures import Album, clips, searches
from .results import costs, ranks, results
from .runs import curves, provenance
from .teacher_card import card_sections

if TYPE_CHECKING:
    pass


def write_report(report: Report, path: Path) -> None:
    """Write the page to `path`, complete or not at all."""
    publish(path, render_report(report).encode(errors="backslashreplace"))


def render_report(report: Report) -> str:
    """The page as HTML. Every text of `report` is shown as text, whatever it contains."""
    colours = _colours(report)
    album = Album()
    sections = [
        ("Results", results(report, colours)),
        ("Ranks", ranks(report.models, colours)),
        ("Searches", searches(report.searches, album)),
        ("Queries and their frames", clips(report, colours, album)),
        ("Training", curves(report.models, colours)),
        ("Teachers", None if report.card is None else _teachers(card_sections(report.card, colours))),
        ("Cost of a search", costs(report.models, colours)),
        ("What was trained on what", provenance(report, colours)),
    ]
    sections.append(("What is not on this page", _left_out([*report.left_out, *album.left_out])))
    return page(report.title, report.lead, sections, report.footer)


def _left_out(told: Sequence[str]) -> Markup | None:
    return tag("ul", *(tag("li", each) for each in told), class_="plain") if told else None


def _colours(report: Report) -> dict[str, int]:
    """Of the models, and of the teachers that are shown beside them."""
    names = [model.name for model in report.models]
    names += [name for clip in report.clips for name in clip.weights]
    names += [each.teacher for each in report.card.teachers] if report.card else []
    return {name: number for number, name in enumerate(dict.fromkeys(names))}


def _teachers(sections: Sequence[tuple[str, Markup | None]]) -> Markup:
    """The report card below a heading of its own."""
    return join(*(tag("div", tag("h3", name), body, class_="part") for name, body in sections if body))
