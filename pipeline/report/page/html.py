"""A page from its templates: every value is escaped, nothing is loaded, nothing runs."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ....cache.storage.publish import publish
from .elements import Section

FOLDER = Path(__file__).parent
COLOURS = 8  # classes c0 to c7 of report.css
STYLES = 3  # each colour plain, and with classes d1 and d2: other dashes and dots


@cache
def templates() -> Environment:
    """The templates, which fail for a value that they are not given."""
    loader = FileSystemLoader(FOLDER / "templates")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def page(
    title: str, lead: Sequence[str], sections: Sequence[Section], colours: Mapping[str, str], footer: str = ""
) -> str:
    """The page as HTML.

    Args:
        title: its heading; lead: paragraphs below it.
        colours: of every model and teacher that a section names, see `colours_of`.
        footer: the last line.
    """
    style = (FOLDER / "report.css").read_text(encoding="utf-8")
    template = templates().get_template("page.html")
    return template.render(title=title, lead=lead, sections=sections, colours=colours, footer=footer, style=style)


def write_page(html: str, path: Path) -> None:
    """Write a page to `path`, complete or not at all; what UTF-8 cannot hold is shown by its number."""
    publish(path, html.encode(errors="backslashreplace"))


def colours_of(names: Sequence[str]) -> dict[str, str]:
    """Models (or teachers) -> classes of the style sheet, in their order, each once."""
    return {name: _classes(number) for number, name in enumerate(dict.fromkeys(names))}


def _classes(number: int) -> str:
    style = number // COLOURS % STYLES
    return f"c{number % COLOURS}" + (f" d{style}" if style else "")
