"""Sweeps in YAML: what they expand to, what they refuse, and the tables that are shipped."""

import re
from pathlib import Path

import pytest
from teachclip.configs.loading import shipped
from teachclip.configs.published_sets import SetName, SplitName
from teachclip.configs.sweeps import RowConfig, SweepConfig, load_sweep, paper_counts, tables
from teachclip.errors import ConfigError


def written(folder: Path, text: str, name: str = "losses.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_grid_is_every_combination_and_multiplies_rows(tmp_path: Path) -> None:
    sweep = load_sweep(
        written(
            tmp_path,
            """
            grid:
              train.loss.coarse: [0, 1]
              train.optim.lr: [1e-4, 3e-4]
            runs:
              - label: mean
                overrides: {train.network.pooling: mean}
              - label: afa
            """,
        )
    )
    assert [row.label for row in sweep.rows][:3] == [
        "mean: coarse 0, lr 0.0001",
        "mean: coarse 0, lr 0.0003",
        "mean: coarse 1, lr 0.0001",
    ]
    assert len(sweep.rows) == 8
    _, rows = sweep.configs(None)
    found = [(c.train.network.pooling, c.train.loss.coarse, c.train.optim.lr) for _, c in rows if c is not None]
    assert found[0] == ("mean", 0, 1e-4)
    assert found[-1] == ("afa", 1, 3e-4)
    assert len(set(found)) == 8


def test_rows_win_over_set_and_set_over_the_base(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("train: {batch_size: 30, epochs: 3, seed: 5}")
    text = "base: base.yaml\noverrides: {train.epochs: 4}\nruns: [{label: a, overrides: {train.seed: 7}}, {label: b}]"
    sweep = load_sweep(written(tmp_path, text))
    assert sweep.base == tmp_path / "base.yaml"
    _, rows = sweep.configs(sweep.base, ["train.batch_size=20", "train.epochs=9", "train.seed=6"])
    assert [(c.train.batch_size, c.train.epochs, c.train.seed) for _, c in rows if c] == [(20, 4, 7), (20, 4, 6)]


def test_sections_and_lists_can_be_overridden_and_paths_start_at_the_file(tmp_path: Path) -> None:
    text = """
    runs:
      - label: a
        overrides:
          train: {teachers: [x, y], loss: {fine: 0}}
          data.captions: other.csv
    """
    _, [(_, config)] = load_sweep(written(tmp_path, text)).configs(None)
    assert config is not None
    assert (config.train.teachers, config.train.loss.fine, config.train.loss.coarse) == (("x", "y"), 0, 1)
    assert config.data.captions == tmp_path / "other.csv"


def test_rows_of_other_data_sets_are_left_out(tmp_path: Path) -> None:
    sweep = load_sweep(written(tmp_path, "runs: [{label: a}, {label: b, only: [msvd]}]"))
    assert [row.label for row, _ in sweep.configs(None)[1]] == ["a"]
    assert [row.label for row, _ in sweep.configs(None, ["data.set=msvd"])[1]] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("base: a.yaml\ngird: {}", "losses.yaml:2: gird: no such key; did you mean grid?"),
        ("grid:\n  train.loss.corse: [1]", "train.loss.corse: no such key; did you mean train.loss.coarse?"),
        ("grid:\n  train.batch_size: [a]", "losses.yaml:2: train.batch_size: 'a' must be a whole number"),
        ("grid: 3", "losses.yaml:1: grid: 3 must be a section"),
        ("grid:\n  train.batch_size: 3", "losses.yaml:2: grid.train.batch_size: 3 must be a list"),
        ("runs:\n - label: a\n   overrides:\n    train.optim.lr: -1", "losses.yaml:4: train.optim.lr: -1 must be"),
        ("runs:\n - label: a\n   overrides:\n    train.run: x", "losses.yaml:4: train.run: a sweep names its runs"),
        ("runs:\n - lable: a", "runs.0.lable: no such key; did you mean runs.0.label?"),
        ("runs: [{label: a}, {label: a}]", "runs: each needs a label of its own, a is repeated"),
        ("seeds: 0\nruns: [{label: a}]", "losses.yaml:1: seeds: 0 must be greater than 0"),
        ("seeds: 3", "runs: there is nothing to run"),
        ("against: bb\nruns: [{label: bbb}]", "losses.yaml:1: against: no row is called 'bb'; did you mean bbb?"),
        ("runs: [{label: a, teacher: x, overrides: {train.seed: 1}}]", "a teacher is only measured"),
        ("grid: {train.seed: [1]}\nruns: [{label: a, quoted: true}]", "grid: it multiplies rows that are trained"),
        ("runs: [{label: a, paper: {msvdd: {r1: 3, source: x}}}]", "did you mean msvd?"),
        ("runs: [{label: a, paper: {msvd: {r1: 3}}}]", "runs.0.paper.msvd.source: is missing"),
        ("runs: [{label: a, missing: x}]", "missing: it is said of a quoted row"),
        ("runs:\n - {label: a, against: b}\n - label: bb", "losses.yaml:2: against: no row is called 'b'; did you"),
        ("runs: [{label: a, only: [msvd]}, {label: a, only: [msvd, vatex]}]", "runs: each needs a label of its own"),
        ("extends: nothing.yaml", "nothing.yaml: no such file"),
        ("extends: losses.yaml", "losses.yaml:1: extends: goes in a circle"),
        ("extends: 3\nruns: [{label: a}]", "losses.yaml:1: extends: 3 must be text"),
        ("- a", "it should hold keys and values"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_sweep(path).configs(None)
    assert told in str(caught.value).replace(f"{tmp_path}/", "")


def test_a_file_that_is_not_there_is_told_with_the_nearest(tmp_path: Path) -> None:
    written(tmp_path, "runs: [{label: a}]")
    with pytest.raises(ConfigError, match=r"no such file; did you mean losses\.yaml\?") as caught:
        load_sweep(tmp_path / "loses.yaml")
    assert str(caught.value.hint) == "how a sweep is written: docs/guide/reproduce.md"


def test_the_page_shows_sweeps_that_load_and_every_key(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/guide/reproduce.md").read_text(encoding="utf-8")
    examples = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    sweeps = [load_sweep(written(tmp_path, text)) for text in examples]
    (tmp_path / "msrvtt.yaml").write_text("data: {set: msrvtt-1k-9k}")
    assert [len(sweep.configs(sweep.base)[1]) for sweep in sweeps] == [3, 20]
    named = set(
        re.findall(r"`(?:runs\[\]\.)?([a-z]+)`", "".join(re.findall(r"(?m)^\| `.*?\|", page.split("## Sweeps")[1])))
    )
    of_tables = {"sees", "elsewhere", "each_of", "mean_over", "counts", "paper_mean", "paper_cost"}
    assert named == {*SweepConfig.model_fields, *RowConfig.model_fields} - {"runs", "label"} - of_tables
    commands = set(re.findall(r"`reproduce (\w+)[ `]", page))
    assert commands == set(tables())


def test_a_sweep_extends_another(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    written(tmp_path / "other", "base: b.yaml\ntests: [t.yaml]\nseeds: 3\nruns: [{label: a}, {label: b}]", "x.yaml")
    sweep = load_sweep(written(tmp_path, "extends: other/x.yaml\nseeds: 2\nagainst: b"))
    assert [row.label for row in sweep.rows] == ["a", "b"]
    assert (sweep.settings.seeds, sweep.settings.against, sweep.name) == (2, "b", "losses")
    assert (sweep.base, *sweep.settings.tests) == (tmp_path / "other/b.yaml", tmp_path / "other/t.yaml")


def test_rows_of_different_data_sets_may_be_called_alike(tmp_path: Path) -> None:
    text = """
    source: a paper
    runs:
      - {label: a, only: [msvd], paper: {msvd: {r1: 1}}}
      - {label: a, only: [own], paper: {vatex: {r1: 2}}}
    """
    sweep = load_sweep(written(tmp_path, text))
    assert {name: each.r1 for name, each in sweep.paper("a").items()} == {"msvd": 1, "vatex": 2}
    assert len(sweep.configs(None, ["data.set=msvd"])[1]) == 1


def test_the_papers_tables_are_shipped_and_are_no_configurations() -> None:
    assert list(tables()) == ["figure1", "figure3", *(f"table{number}" for number in range(1, 8)), "teachtext"]
    assert not any("tables" in name for name in shipped())


@pytest.mark.parametrize("name", sorted(set(tables()) - {"table2", "teachtext"}))  # teachtext is of no recipe
@pytest.mark.parametrize("recipe", ["default", "official", "paper"])
def test_a_table_expands_on_every_recipe(name: str, recipe: str) -> None:
    sweep = load_sweep(tables()[name])
    _, rows = sweep.configs(shipped()[f"recipes/{recipe}"], ["data.set=msrvtt-1k-9k"])
    trained = [config for _, config in rows if config is not None]
    assert len({config.model_dump_json() for config in trained}) == len(trained)
    assert any(config is not None or row.settings.teacher for row, config in rows)
    for row, config in rows:
        if config is not None and not config.train.teachers:
            assert (config.train.loss.coarse, config.train.loss.fine) == (0, 0)
        assert bool(row.settings.missing) == row.settings.quoted
        for published in row.settings.paper.values():
            assert published.numbers


def test_the_student_is_taught_by_two_on_msrvtt_1k_and_by_x_clip_elsewhere() -> None:
    sweep = load_sweep(tables()["table7"])
    for name, teachers in (("msrvtt-1k-9k", ("xclip", "xpool")), ("msvd", ("xclip",)), ("didemo", ("xclip",))):
        [config] = [c for row, c in sweep.configs(None, [f"data.set={name}"])[1] if row.label == "TeachCLIP"]
        assert config is not None
        assert config.train.teachers == teachers


# The figures of the paper, table by table, beside the YAML files.

type Cells = list[list[str]]
SETS: list[SetName] = ["msrvtt-1k-9k", "msrvtt-3k", "msvd", "vatex", "activitynet", "didemo"]
SPLITS: list[SplitName] = ["train", "val", "test"]
KEYS = {"R1": "r1", "R5": "r5", "R10": "r10", "SumR": "sumr"}


@pytest.fixture(scope="module")
def figures(shared: Path) -> dict[int, Cells]:
    """The rows of the paper's tables by number, headings first; rows that only head a group are left out."""
    file = shared / "specs/paper.md"
    if not file.is_file():
        pytest.skip(f"the paper's figures are not at {file}")
    parts = re.split(r"(?m)^## Table (\d)", file.read_text(encoding="utf-8"))
    lines = {
        int(number): [line for line in text.split("\n## ")[0].splitlines() if line.startswith("| ")]
        for number, text in zip(parts[1::2], parts[2::2], strict=True)
    }
    return {
        number: [[cell.strip() for cell in row.strip("|").split("|")] for row in rows if not row.startswith("| *")]
        for number, rows in lines.items()
    }


def number(cell: str) -> float | None:
    """`196.9 (+0.6)`, `-`, `0.5K`, `53.64G`."""
    found = re.match(r"([\d.,]+)([KG]?)", cell)
    return None if found is None else float(found[1].replace(",", "")) * {"": 1, "K": 1e3, "G": 1e9}[found[2]]


def rows_of(name: str) -> list[RowConfig]:
    """The rows as the paper has them: two of one label are one."""
    return list({row.label: row for row in reversed(load_sweep(tables()[name]).settings.runs)}.values())[::-1]


def test_tables_3_to_5_are_the_papers_row_by_row(figures: dict[int, Cells]) -> None:
    for table in (3, 4, 5):
        heads, *cells = figures[table]
        rows, sweep = rows_of(f"table{table}"), load_sweep(tables()[f"table{table}"])
        assert len(rows) == len(cells)
        sums = {row.label: row.paper["msrvtt-1k-9k"].sumr for row in rows}
        for row, line in zip(rows, cells, strict=True):
            printed = {KEYS[head]: number(cell) for head, cell in zip(heads, line, strict=True) if head in KEYS}
            known = row.paper["msrvtt-1k-9k"].numbers
            assert {key: known[key] for key in printed} == printed, (table, row.label)
            gain, base = re.search(r"\(([+-][\d.]+)\)", line[-1]), row.against or sweep.settings.against
            assert (gain is None) == (base in (None, row.label)), (table, row.label)
            if gain is not None and base is not None:
                assert (sums[row.label] or 0) - (sums[base] or 0) == pytest.approx(float(gain[1]))
    assert [row.label for row in rows_of("table3")] == [line[0] for line in figures[3][1:]]
    assert [row.label[0] for row in rows_of("table5")] == [line[0] for line in figures[5][1:]]


def test_table_1_is_the_papers_row_by_row(figures: dict[int, Cells]) -> None:
    rows = rows_of("table1")
    assert [row.label for row in rows] == [line[0] for line in figures[1][1:]]
    for row, line in zip(rows, figures[1][1:], strict=True):
        cost, known = row.paper_cost, row.paper["msrvtt-1k-9k"]
        assert cost is not None
        assert [cost.pair, cost.kb, cost.video, known.r1, known.sumr] == [*map(number, line[1:])], row.label
    assert rows_of("figure1") == rows


def test_table_2_is_the_papers(figures: dict[int, Cells]) -> None:
    for name, line in zip(SETS, figures[2][1:], strict=True):
        counts = paper_counts(name)
        cells = [re.findall(r"[\d,]+\d", cell) for cell in line[1:]]
        found = [[f"{c.videos:,}", f"{c.texts:,}"] if (c := counts.get(split)) else [] for split in SPLITS]
        assert found == cells, name


def test_table_6_is_the_papers(figures: dict[int, Cells]) -> None:
    rows = rows_of("table6")
    assert [row.label for row in rows] == [line[0] for line in figures[6][1:]]
    for row, line in zip(rows, figures[6][1:], strict=True):
        assert [*(row.paper[name].sumr for name in SETS[2:]), row.paper_mean] == [*map(number, line[1:])], row.label


def test_table_7_is_the_papers(figures: dict[int, Cells]) -> None:
    sweep, rows, cells = load_sweep(tables()["table7"]), rows_of("table7"), figures[7][1:]
    told = [row.label.removesuffix(" with CLIP").removesuffix(" on videos") for row in rows]
    assert told == [line[0].split(",")[0] for line in cells]
    for row, line in zip(rows, cells, strict=True):
        for name, cell in zip(SETS, line[1:7], strict=True):
            known = sweep.paper(row.label).get(name)
            found = [known.r1, known.r5, known.sumr] if known else []
            assert found == ([] if cell == "-" else [*map(number, cell.split("/"))]), (row.label, name)
        assert row.paper_mean == number(line[7])
    student = sweep.paper("TeachCLIP")
    assert (student["vatex"].r10, student["msrvtt-1k-9k"].r10) == (96.1, 82.6)
