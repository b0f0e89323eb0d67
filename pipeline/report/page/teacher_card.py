"""The teachers' report card as a page."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from ....plurals import counted
from ...wording import duration, number
from .charts import Line, line_chart
from .elements import Bar, Figures, Row, Section, Table, of_model
from .results import WAYS, metric_cells, metric_table
from .teacher_worth import worth

if TYPE_CHECKING:
    from ....stages.analysis.report_card import ReportCard

FIRST = 5  # captions in doubt that are shown before anybody asks
SHARES = (5, 25, 50, 75, 95)  # percent of captions, of the table of flatness
RULE = (
    "A rule of teachclip's own, not published and not tested by training: Fisher's discriminant of the teachers' "
    "standardised rows, with their correlation taken halfway to none. A teacher that sets the captions' own videos "
    "further apart counts more; two that say the same share their weight. Weights sum to 1, so that the coarse loss "
    "counts as much as with the plain mean. Teachers look better on what they were trained on than on anything new."
)


def write_card(card: "ReportCard", path: Path) -> None:
    """Write the page to `path`, complete or not at all."""
    from .html import write_page  # with the templates, which the card on a terminal does not need

    write_page(render_card(card), path)


def render_card(card: "ReportCard") -> str:
    """The page as HTML. Every text of `card` is shown as text, whatever it contains."""
    from .html import colours_of, page

    lead = (
        f"{counted(len(card.teachers), 'teacher')} on the {counted(card.texts, 'caption')} "
        f"and {counted(card.videos, 'video')} in {card.store}."
    )
    known = "Ranks are of the captions that were scored, as a rule the training set: teachers know them."
    footer = f"teachclip cache report; {duration(card.seconds)}"
    colours = colours_of([each.teacher for each in card.teachers])
    return page("Teachers' report card", [lead, known], card_sections(card), colours, footer)


def card_sections(card: "ReportCard") -> list[Section]:
    """What the card has, section by section."""
    found = [worth(card.worth), _retrieval(card), _agreement(card), _flatness(card), _weights(card), _doubtful(card)]
    return [section for section in found if section is not None]


def weights_options(weights: Mapping[str, float], between: str = " ") -> str:
    """What to add to `teachclip train` to weight the teachers so; names are quoted where YAML reads something else."""
    teachers = {name: name if yaml.safe_load(name) == name else f'"{name}"' for name in weights}
    pairs = ", ".join(f"{teachers[name]}: {weight:g}" for name, weight in weights.items())
    sets = (
        f"train.teachers=[{', '.join(teachers.values())}]",
        "train.loss.teachers=weighted",
        f"train.loss.teacher_weights={{{pairs}}}",
    )
    return between.join(f"--set {shlex.quote(each)}" for each in sets)


def _retrieval(card: "ReportCard") -> Section:
    tables = []
    for way, title in WAYS.items():
        found = [(each.teacher, getattr(each, way)) for each in card.teachers]
        rows = [of_model(name, *metric_cells(vars(metrics) if metrics else {})) for name, metrics in found]
        tables.append(metric_table(title, rows))
    head = ("teacher", "captions", "not scored yet", "ranked among", "mean normalised rank", "own video stands out by")
    rows = [
        of_model(
            each.teacher,
            f"{each.texts:,}",
            f"{each.left_out:,}",
            f"{each.most:,}" if each.fewest == each.most else f"{each.fewest:,} to {each.most:,}",
            number(each.normalised, ".4f"),
            number(each.separation, ".2f"),
        )
        for each in card.teachers
    ]
    note = (
        "R@K: percent of captions whose own video is among the first K; ties share their places. Normalised rank: 0 is "
        "the first place, 1 the last, 0.5 chance. The own video stands out by so many standard deviations of its row, "
        "on average."
    )
    return Section("Retrieval", "figures.html", Figures(tables, wide=Table(head, rows), note=note))


def _agreement(card: "ReportCard") -> Section | None:
    if not card.agreement:
        return None
    rows = [
        Row(
            f"{each.first} and {each.second}",
            [f"{each.texts:,}", number(each.pearson, ".3f"), percent(each.same_first), percent(each.top10)],
            (each.first, each.second),
        )
        for each in card.agreement
    ]
    note = (
        "Over pairs that both have scored. Correlation: Pearson, of each caption's row, mean over captions. First ten: "
        "how many of them both have among theirs."
    )
    head = ("teachers", "captions", "correlation", "same first video", "of the first ten")
    return Section("Agreement", "figures.html", Figures(wide=Table(head, rows), note=note))


def percent(share: float | None) -> str:
    """A share in percent, or a dash."""
    return number(None if share is None else 100 * share, ".1f") + ("" if share is None else "%")


def _flatness(card: "ReportCard") -> Section | None:
    known = [(each.teacher, each.flatness) for each in card.teachers if each.flatness is not None]
    if not known:
        return None
    rows = [
        of_model(
            teacher,
            f"{flatness.texts:,}",
            f"{flatness.mean:.5f}",
            *(f"{flatness.quantiles[share]:.5f}" for share in SHARES),
            f"{flatness.peak:.3f}",
        )
        for teacher, flatness in known
    ]
    head = ("teacher", "captions", "mean entropy", *(f"{share}%" for share in SHARES), "largest weight x frames")
    lines = [
        Line(teacher, [(float(share), value) for share, value in flatness.quantiles.items()])
        for teacher, flatness in known
    ]
    chart = line_chart("Normalised entropy of y_f", lines, "percent of captions with less")
    note = (
        "Entropy of y_f, the softmax of a teacher's frame-text scores at temperature 1, over that of equal weights: 1 "
        "is flat and teaches nothing about frames, 0 is a single frame. train.loss.fine_temperature sharpens it."
    )
    shown = Figures(wide=Table(head, rows), charts=[chart] if chart else (), note=note)
    return Section("Frame weights", "figures.html", shown)


def _weights(card: "ReportCard") -> Section | None:
    if card.weights is None:
        return None
    most = max(card.weights.values())
    bars = [Bar(name, f"width:{100 * each / most:.2f}%", f"{each:.3f}") for name, each in card.weights.items()]
    shown = {"bars": bars, "options": weights_options(card.weights, " \\\n"), "rule": RULE}
    return Section("Suggested weights", "weights.html", shown)


def _doubtful(card: "ReportCard") -> Section | None:
    if not card.doubtful:
        return None
    changed = f"{card.other_captions:,}" if card.other_captions else ""
    shown = {"first": card.doubtful[:FIRST], "more": card.doubtful[FIRST:], "changed": changed}
    return Section("Captions in doubt", "doubtful.html", shown)
