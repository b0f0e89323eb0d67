"""README and docs: links lead somewhere, every page is in the index, paths exist, and code imports public names."""

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import teachclip
from teachclip.configs.loading import dump_config

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
BY_NAME = [str(page.relative_to(ROOT)) for page in PAGES]
SOURCE = ("cache", "configs", "pipeline", "stages", "tests", "benchmarks")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# `stages/train/stage.py`, `tests/cache`; a wildcard or an ellipsis names no single file.
PATH = re.compile(rf"(?<![\w./-])(?:{'|'.join(SOURCE)})/[\w./-]*\w(?![\w*<])")


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = FENCED.sub("", page.read_text("utf-8"))
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> Iterator[tuple[Path, str]]:
    """Files and anchors of a page's links, but for those to the web."""
    for link in LINK.findall(FENCED.sub("", page.read_text("utf-8"))):
        if not re.match(r"[a-z]+:", link):
            file, _, anchor = link.partition("#")
            yield (page.parent / file).resolve() if file else page, anchor


def code_of(text: str) -> Iterator[str]:
    """The Python of a page."""
    yield from (body for language, body in FENCED.findall(text) if language == "python")


@pytest.mark.parametrize("name", BY_NAME)
def test_links_lead_to_files_and_headings(name: str) -> None:
    for file, anchor in links(ROOT / name):
        assert file.exists(), file
        assert not anchor or anchor in anchors(file), (file, anchor)


def test_the_index_has_every_page_and_readme_leads_to_it() -> None:
    index = DOCS / "README.md"
    linked = [file for file, _ in links(index)]
    assert sorted(set(linked)) == sorted({*PAGES} - {index})
    assert index in {file for file, _ in links(ROOT / "README.md")}


@pytest.mark.parametrize("name", BY_NAME)
def test_paths_of_the_source_exist(name: str) -> None:
    missing = [path for path in PATH.findall((ROOT / name).read_text("utf-8")) if not (ROOT / path).exists()]
    assert missing == []


def test_pages_that_the_source_names_exist() -> None:
    folders = [ROOT / name for name in (*SOURCE, "docs")]
    files = [file for folder in folders for kind in ("*.py", "*.yaml", "*.md") for file in folder.rglob(kind)]
    named = {(file, page) for file in files for page in re.findall(r"\bdocs/[\w/.-]+\.md", file.read_text("utf-8"))}
    assert len(named) > 50
    assert sorted((file, page) for file, page in named if not (ROOT / page).exists()) == []


@pytest.mark.parametrize("name", BY_NAME)
def test_code_imports_public_names_alone(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    assert set(re.findall(r"(?:from|import) teachclip\.\S*", text)) <= {"from teachclip.testing"}
    for code in code_of(text):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "teachclip":
                known = importlib.import_module(node.module or "").__all__
                assert {alias.name for alias in node.names} <= set(known)


def test_every_public_name_is_explained() -> None:
    rows = re.findall(r"^\| (`.*?) \|", (DOCS / "reference/python.md").read_text("utf-8"), re.MULTILINE)
    told = re.findall(r"`(\w+)`", " ".join(rows))
    assert sorted([*told, "TeachclipError", "__version__"]) == sorted(teachclip.__all__)


@pytest.mark.parametrize("page", ["teachers", "losses"])
def test_plugins_import_nothing_of_ours(page: str) -> None:
    """The tests of a user's own teacher and losses run this same code."""
    (code,) = code_of((DOCS / f"guide/{page}.md").read_text("utf-8"))
    imports = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in imports if isinstance(node, ast.ImportFrom)}
    assert "torch" in {name.split(".")[0] for name in names}
    assert {name.split(".")[0] for name in names} & {"teachclip", ""} == set()


def test_the_page_on_python_runs(world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Its example takes a student from its videos to an answer; frames and scores of the small world are there."""
    (code,) = code_of((DOCS / "reference/python.md").read_text("utf-8"))
    run = {"run": tmp_path / "run"}
    index = {**run, "index": tmp_path / "index", "top": 3}
    settings = world.config(train={**run, "epochs": 1}, evaluate={**run}, search=index)
    (tmp_path / "own_videos.yaml").write_text(dump_config(settings))
    monkeypatch.chdir(tmp_path)
    exec(code, found := {})
    assert found["config"].train.teachers == ("xclip",)
    assert len(found["found"].answers) == 3
    assert re.fullmatch(r"R@1 [\d.]+\na dog runs on the beach \[\('clips/.*\)\]\n", capsys.readouterr().out)
