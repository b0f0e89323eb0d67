"""Sweeps in YAML: what they expand to, what they refuse, and the tables that are shipped."""

import re
from pathlib import Path

import pytest
from teachclip.configs.loading import shipped
from teachclip.configs.sweeps import RowConfig, SweepConfig, load_sweep, tables
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
    assert caught.value.hint == "docs/guide/reproduce.md shows how a sweep is written."


def test_the_page_shows_sweeps_that_load_and_every_key(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/guide/reproduce.md").read_text(encoding="utf-8")
    examples = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    sweeps = [load_sweep(written(tmp_path, text)) for text in examples]
    (tmp_path / "msrvtt.yaml").write_text("data: {set: msrvtt-1k-9k}")
    assert [len(sweep.configs(sweep.base)[1]) for sweep in sweeps] == [3, 20]
    named = set(
        re.findall(r"`(?:runs\[\]\.)?([a-z]+)`", "".join(re.findall(r"(?m)^\| `.*?\|", page.split("## Sweeps")[1])))
    )
    assert named == {*SweepConfig.model_fields, *RowConfig.model_fields} - {"runs", "label", "elsewhere"}
    commands = set(re.findall(r"`reproduce (\w+) CONFIG", page))
    assert commands == set(tables())


def test_the_papers_tables_are_shipped_and_are_no_configurations() -> None:
    assert list(tables()) == ["figure1", "figure3", "table1", "table3", "table4", "table5", "table6", "table7"]
    assert not any("tables" in name for name in shipped())


@pytest.mark.parametrize("name", sorted(tables()))
@pytest.mark.parametrize("recipe", ["default", "official", "paper"])
def test_a_table_expands_on_every_recipe(name: str, recipe: str) -> None:
    sweep = load_sweep(tables()[name])
    _, rows = sweep.configs(shipped()[f"recipes/{recipe}"], ["data.set=msrvtt-1k-9k"])
    trained = [config for _, config in rows if config is not None]
    assert len({config.model_dump_json() for config in trained}) == len(trained)
    for row, config in rows:
        if config is not None and not config.train.teachers:
            assert (config.train.loss.coarse, config.train.loss.fine) == (0, 0)
        for published in row.settings.paper.values():
            assert published.numbers
            assert "paper" in published.source
