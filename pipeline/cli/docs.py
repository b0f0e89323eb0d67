"""`teachclip docs`: the pages of the documentation, which are installed with the package."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import RenderableType

from ...errors import ConfigError
from .shell.running import AsJson, Debug, Quiet, examples, running
from .shell.tables import facts, table

DOCS = Path(__file__).parents[2] / "docs"

EXAMPLES = examples("teachclip docs", "teachclip docs guide/data", "teachclip docs docs/guide/teachers.md")


def docs(
    page: Annotated[
        str | None,
        typer.Argument(metavar="[PAGE]", help="Which one, as messages name it: docs/guide/data.md, or data."),
    ] = None,
    json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Say where the documentation lies and what its pages are; with PAGE, print that page.

    Messages, help and configurations name pages as docs/guide/data.md. They come with the package, Markdown files.
    """
    with running("docs", json, quiet, debug) as output:
        pages = {path.relative_to(DOCS).with_suffix("").as_posix(): path for path in sorted(DOCS.rglob("*.md"))}
        if page is None:
            titles = {name: path.read_text("utf-8").partition("\n")[0].lstrip("# ") for name, path in pages.items()}
            output.result({"folder": DOCS, "pages": titles}, *_listed(titles))
        else:
            path = _named(page, pages)
            text = path.read_text("utf-8")
            output.result({"page": path, "text": text}, text.rstrip("\n"))


def _listed(titles: dict[str, str]) -> Iterator[RenderableType]:
    yield facts(("folder", DOCS))
    yield table("page", "about", rows=titles.items())


def _named(page: str, pages: dict[str, Path]) -> Path:
    name = page.removeprefix("docs/").removesuffix(".md")
    found = [path for each, path in pages.items() if name in (each, each.rpartition("/")[2])]
    if not found:
        from ...configs.loading import nearest

        lasts = {each.rpartition("/")[2]: each for each in pages}
        raise ConfigError(
            f"no such page{nearest(name, [*pages, *lasts])}", where=page, hint=f"Pages: {', '.join(pages)}"
        )
    return found[0]
