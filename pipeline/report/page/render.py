"""A report as one HTML file."""

from pathlib import Path

from ..contents import Report
from .elements import Section
from .html import colours_of, page, write_page
from .pictures import Album, queries, searches
from .results import costs, ranks, results
from .runs import provenance, training
from .teacher_card import card_sections


def write_report(report: Report, path: Path) -> None:
    """Write the page to `path`, complete or not at all."""
    write_page(render_report(report), path)


def render_report(report: Report) -> str:
    """The page as HTML. Every text of `report` is shown as text, whatever it contains."""
    album = Album()
    sections = [
        results(report),
        ranks(report.models),
        searches(report.searches, album),
        queries(report, album),
        training(report.models),
        Section("Teachers", "teachers.html", card_sections(report.card)) if report.card else None,
        costs(report.models),
        provenance(report),
    ]
    if left_out := [*report.left_out, *album.left_out]:
        sections.append(Section("What is not on this page", "left_out.html", left_out))
    shown = [section for section in sections if section is not None]
    return page(report.title, report.lead, shown, _colours(report), report.footer)


def _colours(report: Report) -> dict[str, str]:
    """Of the models, and of the teachers that are shown beside them; a teacher that is one of the models has its."""
    models = [model.name for model in report.models]
    teachers = [name for clip in report.clips for name in clip.weights]
    teachers += [each.teacher for each in report.card.teachers] if report.card else []
    same = {name: report.teachers[name] for name in teachers if name in report.teachers and name not in models}
    colours = colours_of([*models, *(name for name in teachers if name not in same)])
    return colours | {name: colours[model] for name, model in same.items()}
