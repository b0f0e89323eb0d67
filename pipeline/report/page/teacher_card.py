"""The teachers' report card as a page."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from ....cache.storage.publish import publish
from ...wording import duration, number
from .charts import Line, line_chart
from .layout import METRICS, colour_class, heads, note, page, row, table, unfold
from .markup import Markup, join, tag

if TYPE_CHECKING:
    from ....stages.analysis.report_card import DoubtfulCaption, ReportCard, TeacherCard
    from ....stages.retrieval.metrics import Metrics

FIRST = 5  # captions in doubt that are shown before anybody asks
RULE = (
    "A rule of teachclip's own, not published and not tested by training: Fisher's discriminant of the teachers' "
    "standardised rows, with their correlation taken halfway to none. A teacher that sets the captions' own videos "
    "further apart counts more; two that say the same share their weight. Weights sum to 1, so that the coarse loss "
    "counts as much as with the plain mean. Teachers look better on what they were trained on than on anything new."
)

type _Colours = Mapping[str, int]


def write_card(card: "ReportCard", path: Path) -> None:
    """Write the page to `path`, complete or not at all."""
    publish(path, render_card(card).encode())


def render_card(card: "ReportCard") -> str:
    """The page as HTML. Every text of `card` is shown as text, whatever it contains."""
    lead = f"{len(card.teachers)} teachers on the {card.texts:,} captions and {card.videos:,} videos in {card.store}."
    known = "Ranks are of the captions that were scored, as a rule the training set: teachers know them."
    footer = f"teachclip cache report; {duration(card.seconds)}"
    colours = {each.teacher: number for number, each in enumerate(card.teachers)}
    return page("Teachers' report card", [lead, known], card_sections(card, colours), footer)


def card_sections(card: "ReportCard", colours: _Colours) -> list[tuple[str, Markup | None]]:
    """Titles and bodies; `colours` of the teachers, by name."""
    return [
        ("Retrieval", _retrieval(card, colours)),
        ("Agreement", _agreement(card)),
        ("Frame weights", _flatness(card, colours)),
        ("Suggested weights", _weights(card, colours)),
        ("Captions in doubt", _doubtful(card, colours)),
    ]


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


def _retrieval(card: "ReportCard", colours: _Colours) -> Markup:
    def metrics(title: str, of: "Callable[[TeacherCard], Metrics | None]") -> Markup:
        body = []
        for each in card.teachers:
            found = of(each)
            cells = [number(getattr(found, key) if found else None, form) for key, (_, form) in METRICS.items()]
            body.append(row(each.teacher, *cells, colour=colours[each.teacher]))
        return table(heads(title, *(label for label, _ in METRICS.values())), body)

    tables = tag(
        "div",
        metrics("Text to video", lambda each: each.t2v),
        metrics("Video to text", lambda each: each.v2t),
        class_="columns",
    )
    body = [
        row(
            each.teacher,
            f"{each.texts:,}",
            f"{each.left_out:,}",
            f"{each.most:,}" if each.fewest == each.most else f"{each.fewest:,} to {each.most:,}",
            number(each.normalised, ".4f"),
            number(each.separation, ".2f"),
            colour=colours[each.teacher],
        )
        for each in card.teachers
    ]
    labels = (
        "teacher",
        "captions",
        "not scored yet",
        "ranked among",
        "mean normalised rank",
        "own video stands out by",
    )
    text = (
        "R@K: percent of captions whose own video is among the first K; ties share their places. Normalised rank: 0 is "
        "the first place, 1 the last, 0.5 chance. The own video stands out by so many standard deviations of its row, "
        "on average."
    )
    return join(tables, _wide(labels, body, text))


def _wide(labels: Sequence[str], body: Sequence[Markup], text: str, *others: Markup | None) -> Markup:
    """A table over the whole width, what belongs to it, and what it means."""
    shown = tag("div", tag("div", table(heads(*labels), body), class_="columns"), class_="costs")
    return join(shown, *others, note(text))


def _agreement(card: "ReportCard") -> Markup | None:
    if not card.agreement:
        return None
    body = [
        row(
            f"{each.first} and {each.second}",
            f"{each.texts:,}",
            number(each.pearson, ".3f"),
            percent(each.same_first),
            percent(each.top10),
        )
        for each in card.agreement
    ]
    text = (
        "Over pairs that both have scored. Correlation: Pearson, of each caption's row, mean over captions. First ten: "
        "how many of them both have among theirs."
    )
    labels = ("teachers", "captions", "correlation", "same first video", "of the first ten")
    return _wide(labels, body, text)


def percent(share: float | None) -> str:
    """A share in percent, or a dash."""
    return number(None if share is None else 100 * share, ".1f") + ("" if share is None else "%")


def _flatness(card: "ReportCard", colours: _Colours) -> Markup | None:
    known = [(each.teacher, each.flatness) for each in card.teachers if each.flatness is not None]
    if not known:
        return None
    shown = (5, 25, 50, 75, 95)
    body = [
        row(
            teacher,
            f"{flatness.texts:,}",
            f"{flatness.mean:.5f}",
            *(f"{flatness.quantiles[each]:.5f}" for each in shown),
            f"{flatness.peak:.3f}",
            colour=colours[teacher],
        )
        for teacher, flatness in known
    ]
    labels = ("teacher", "captions", "mean entropy", *(f"{each}%" for each in shown), "largest weight x frames")
    lines = [
        Line(teacher, colours[teacher], [(float(share), value) for share, value in flatness.quantiles.items()])
        for teacher, flatness in known
    ]
    text = (
        "Entropy of y_f, the softmax of a teacher's frame-text scores at temperature 1, over that of equal weights: 1 "
        "is flat and teaches nothing about frames, 0 is a single frame. train.loss.fine_temperature sharpens it."
    )
    chart = line_chart("Normalised entropy of y_f", lines, "percent of captions with less")
    return _wide(labels, body, text, tag("div", chart, class_="columns charts"))


def _weights(card: "ReportCard", colours: _Colours) -> Markup | None:
    if card.weights is None:
        return None
    most = max(card.weights.values())
    rows = [
        tag(
            "li",
            tag("span", name, class_="name"),
            tag("span", tag("i", style=f"width:{100 * weight / most:.2f}%"), class_="track"),
            tag("b", f"{weight:.3f}"),
            class_=colour_class(colours[name]),
        )
        for name, weight in card.weights.items()
    ]
    return join(
        tag("ul", *rows, class_="bars"),
        tag("pre", weights_options(card.weights, " \\\n")),
        note(RULE),
    )


def _doubtful(card: "ReportCard", colours: _Colours) -> Markup | None:
    if not card.doubtful:
        return None
    text = "Captions whose own video all teachers rank badly: the caption may belong to another video, or to many."
    changed = f" {card.other_captions:,} captions have changed since they were scored." if card.other_captions else ""
    shown = [_one_in_doubt(each, colours) for each in card.doubtful]
    more = unfold(f"{len(shown) - FIRST} more", *shown[FIRST:]) if len(shown) > FIRST else None
    return join(note(text + changed), *shown[:FIRST], more)


def _one_in_doubt(each: "DoubtfulCaption", colours: _Colours) -> Markup:
    ranks: Sequence[Markup] = [
        tag(
            "li",
            tag("i", class_=colour_class(colours[one.teacher])),
            f"{one.teacher}: rank ",
            tag("b", f"{one.rank:,g}"),
            f" of {one.candidates:,}",
            f"; first: {one.instead}" if one.instead else None,
            f" “{one.says}”" if one.says else None,
        )
        for one in each.teachers
    ]
    return tag(
        "article",
        tag("h3", f"“{each.caption}”" if each.caption is not None else each.id),
        note(f"{each.id}, of {each.video}"),
        tag("ul", *ranks, class_="legend"),
    )
