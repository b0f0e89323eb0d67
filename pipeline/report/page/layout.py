"""The page around its sections; tables, cards, rows."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from .markup import Markup, join, tag

COLOURS = 8  # classes c0 to c7 of report.css
STYLES = 3  # each colour plain, and with classes d1 and d2: other dashes and dots
METRICS = {
    "r1": ("R@1", ".1f"),
    "r5": ("R@5", ".1f"),
    "r10": ("R@10", ".1f"),
    "sumr": ("SumR", ".1f"),
    "mdr": ("MdR", "g"),
    "mnr": ("MnR", ".1f"),
}
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # the browser itself refuses to load anything


def page(title: str, lead: Sequence[str], sections: Sequence[tuple[str, Markup | None]], footer: str = "") -> str:
    """The page as HTML.

    Args:
        title: its heading; lead: paragraphs below it.
        sections: title and body; those without a body are left out.
        footer: the last line.
    """
    shown = [(f"s{i}", name, body) for i, (name, body) in enumerate(sections) if body]
    links = [tag("a", name, href=f"#{anchor}") for anchor, name, _ in shown]
    paragraphs = [tag("p", text, class_="lead") for text in lead]
    header = tag("header", tag("h1", title), *paragraphs, tag("nav", *links))
    main = tag("main", *(tag("section", tag("h2", name), body, id=anchor) for anchor, name, body in shown))
    style = Markup(Path(__file__).with_name("report.css").read_text(encoding="utf-8"))
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("link", rel="icon", href="data:,"),
        tag("title", title),
        tag("style", style),
    )
    body = tag("body", header, main, tag("footer", footer) if footer else None)
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def table(head: Markup, body: Sequence[Markup], kind: str | None = None) -> Markup:
    """Rows under a head; `kind` is a class of the style sheet."""
    return tag("div", tag("table", tag("thead", head), tag("tbody", *body), class_=kind), class_="scroll")


def heads(*labels: str) -> Markup:
    """The head of a table, a label a column."""
    return tag("tr", *(tag("th", label, scope="col") for label in labels))


def row(
    name: str, *cells: str | None, colour: int | None = None, kind: str | None = None, labels: Sequence[str] = ()
) -> Markup:
    """A row of a table: what it is of, with its colour, and its cells.

    Args:
        kind: a class of the style sheet.
        labels: of the cells, for where there is no room for columns.
    """
    first = tag("th", None if colour is None else dot(colour), name, scope="row")
    told: Sequence[str | None] = labels or [None] * len(cells)
    return tag(
        "tr", first, *(tag("td", cell, data_label=label) for cell, label in zip(cells, told, strict=True)), class_=kind
    )


def note(*parts: str | None) -> Markup:
    """A paragraph in small print."""
    return tag("p", *parts, class_="note")


def unfold(title: str, *children: str | None) -> Markup:
    """What is shown when it is asked for."""
    return tag("details", tag("summary", title), *children)


def card(
    title: str, facts: Mapping[str, str], colour: int | None = None, config: str = "", marks: Sequence[str] = ()
) -> Markup | None:
    """Label and value, one below the other, what must be known of them, and a configuration to unfold; None without
    any."""
    if not facts and not config and not marks:
        return None
    rows = [join(tag("dt", label), tag("dd", value)) for label, value in facts.items()]
    details = unfold("configuration", tag("pre", config)) if config else None
    heading = tag("h3", dot(colour) if colour is not None else None, title)
    told = tag("ul", *(tag("li", mark) for mark in marks), class_="marks") if marks else None
    return tag("article", heading, told, tag("dl", *rows), details, class_="card")


def colour_class(colour: int) -> str:
    """Classes of the style sheet for the `colour`-th model of a page, from 0."""
    style = colour // COLOURS % STYLES
    return f"c{colour % COLOURS}" + (f" d{style}" if style else "")


def dot(colour: int) -> Markup:
    """A model's or teacher's colour."""
    return tag("i", class_=f"dot {colour_class(colour)}")
