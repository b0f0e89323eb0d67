"""The shipped YAMLs: they load, say why, and differ exactly where code and paper do."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from teachclip.configs.changed_defaults import CHANGED_DEFAULTS, is_named, value_of
from teachclip.configs.loading import YamlPlace, dump_config, every_key, load_config, parse_yaml, shipped
from teachclip.configs.schema import CHECKPOINT_PATHS, FILE_PATHS, Config, Section

ROWS = {  # the fifteen rows of docs/guide/recipes.md: which keys each of them is about
    1: {"train.loss.infonce", "train.loss.fine"},
    2: {"train.loss.fine_reduction"},
    3: {"train.network.pool_temperature"},
    4: {"train.network.normalise_frames"},
    5: {"train.loss.coarse_on"},
    6: {"train.loss.teachers"},
    7: {"train.optim.afa_lr"},
    8: {
        "train.optim.optimiser",
        "train.optim.weight_decay",
        "train.optim.warmup",
        "train.optim.clip_norm",
        "train.optim.tensor_clip_norm",
    },
    9: {"train.batch_size"},
    10: set(),  # which teachers: a run names them
    11: set(),  # the same in both: train.loss.mask_same_video
    12: {"train.network.mask_padding"},
    13: set(),  # the same in both: train.loss.fine_temperature
    14: {"train.optim.freeze"},
    15: set(),  # TS2-Net as a teacher: a matter of scoring
}
CODE_AND_PAPER = set().union(*ROWS.values())
UNUSED = {  # keys of the losses that act only beside another choice than the recipes make
    "train.loss.margin",
    "train.loss.fix_norm",
    "train.loss.one_scale",
    "train.loss.teacher_weights",
    "train.optim.epoch_factor",
    "train.loss.matryoshka",
    "train.loss.coarse_options",
    "train.loss.fine_options",
}
RECIPES = ("official", "paper", "default")
PAGE = Path(__file__).resolve().parents[2] / "docs/guide/recipes.md"
CODE_AND_DEFAULT = {
    "data.validation",
    "train.network.mask_padding",
    "train.loss.fine",
    "train.loss.fine_reduction",
    "train.loss.mask_same_video",
    "train.optim.optimiser",
    "train.optim.tensor_clip_norm",
    "train.precision",
    "train.select_by",
}


def flat(section: Section, above: str = "") -> Iterator[tuple[str, object]]:
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Section):
            yield from flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def recipe(name: str) -> Config:
    return load_config(shipped()[f"recipes/{name}"])


def differing(first: Config, second: Config) -> set[str]:
    one, other = dict(flat(first)), dict(flat(second))
    return {key for key in one if one[key] != other[key]}


def test_recipes_differ_exactly_where_expected() -> None:
    assert differing(recipe("official"), recipe("paper")) == CODE_AND_PAPER
    assert differing(recipe("official"), recipe("default")) == CODE_AND_DEFAULT


def test_the_default_recipe_is_the_schema() -> None:
    assert recipe("default").train == Config().train
    assert recipe("default").data.validation == Config().data.validation


def test_a_changed_default_is_of_a_key_of_train_and_another_than_before() -> None:
    for key, former in CHANGED_DEFAULTS.items():
        assert key.startswith("train.")
        assert value_of(Config(), key) not in former
        assert not is_named(recipe("default"), key)
        assert all(is_named(recipe(name), key) for name in ("official", "paper"))


def test_recipes_name_the_same_keys() -> None:
    """So that `diff` shows every difference and no value depends on the schema's default."""
    texts = [shipped()[f"recipes/{name}"].read_text() for name in RECIPES]
    keys = [{key for key, _ in leaves(yaml.safe_load(text))} for text in texts]
    assert keys[0] == keys[1] == keys[2]
    assert {key for key in keys[0] if not key.startswith("train.")} == {"data.validation"}
    assert keys[0] >= CODE_AND_PAPER | CODE_AND_DEFAULT
    losses_and_steps = {key for key in every_key() if key.startswith(("train.loss.", "train.optim."))}
    assert keys[0] >= losses_and_steps - UNUSED


def test_rows_without_a_key_of_their_own_are_alike_in_code_and_paper() -> None:
    for key, value in (("train.loss.mask_same_video", False), ("train.loss.fine_temperature", 1.0)):
        assert {dict(flat(recipe(name)))[key] for name in ("official", "paper")} == {value}


def rows(*heading: str) -> Iterator[list[str]]:
    """The rows of the table in docs/guide/recipes.md with this heading."""
    lines = iter(PAGE.read_text(encoding="utf-8").splitlines())
    assert any(line == f"| {' | '.join(heading)} |" for line in lines)
    next(lines)
    for line in lines:
        if not line.startswith("|"):
            return
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        assert len(cells) == len(heading), line
        yield cells


def test_the_page_says_which_keys_each_row_of_code_and_paper_is_about() -> None:
    told = {}
    for number, *_, keys in rows("row", "paper", "code", "keys"):
        named = set() if keys.startswith("none") else {f"train.{key}" for key in re.findall("`([^`]+)`", keys)}
        told[int(number)] = named
    assert told == ROWS


def test_the_page_argues_every_key_with_the_recipes_own_values() -> None:
    keys = ((key.strip("`"), cells) for key, *cells in rows("key", *RECIPES, "why"))
    table = {key if key.startswith("data.") else f"train.{key}": cells for key, cells in keys}
    for number, name in enumerate(RECIPES):
        values = dict(leaves(yaml.safe_load(dump_config(recipe(name)))))
        written = {key: parse_yaml(cells[number], YamlPlace("page", Path())).plain() for key, cells in table.items()}
        assert written == {key: values[key] for key in written}
    named = {key for key, _ in leaves(yaml.safe_load(shipped()["recipes/default"].read_text()))}
    assert set(table) == named
    assert all(cells[-1] for cells in table.values())


def leaves(tree: object, above: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(tree, dict) and tree:
        for key, child in tree.items():
            yield from leaves(child, f"{above}.{key}" if above else key)
    else:
        yield above, tree


@pytest.mark.parametrize("name", sorted(shipped()))
def test_every_shipped_file_loads(name: str) -> None:
    load_config(shipped()[name])


def test_the_template_loads_where_a_user_puts_it_with_all_lines_in_use(tmp_path: Path) -> None:
    text = shipped()["own_videos"].read_text()
    file = tmp_path / "own_videos.yaml"
    file.write_text(text)
    assert load_config(file).data.captions == tmp_path / "captions.csv"
    above, marker, below = text.replace("#videos:", "videos:").partition("train the student.\n")
    file.write_text(above + marker + below.replace("#", ""))
    config = load_config(file)
    assert config.train.teachers == ("xclip",)
    assert config.run_folder == config.evaluate_run == config.search_run == tmp_path / "work/runs/taught"
    assert config.data.videos == tmp_path / "clips"


def test_every_field_is_documented() -> None:
    sizes = ("train.network.trunk.sizes.", "score.teachers.openclip.sizes.")  # sizes speak for themselves
    assert [key for key, text in described() if not text and not key.startswith(sizes)] == []


def described(section: type[Section] = Config, above: str = "") -> Iterator[tuple[str, str | None]]:
    known = set(every_key(section, above))
    for name, field in section.model_fields.items():
        yield f"{above}{name}", field.description
        inner = next((part for part in flatten(field.annotation) if issubclass(part, Section)), None)
        if inner is not None:
            assert any(key.startswith(f"{above}{name}.") for key in known)
            yield from described(inner, f"{above}{name}.")


def flatten(annotation: object) -> Iterator[type]:
    if isinstance(annotation, type):
        yield annotation
    for part in getattr(annotation, "__args__", ()):
        yield from flatten(part)


def test_every_path_says_where_it_starts() -> None:
    """A new path of the schema belongs to FILE_PATHS, CHECKPOINT_PATHS or the known few below `work`."""
    below_work = {"prepare.frames", "score.store", "score.teachers.prepared", "train.run", "search.index"}
    below_work |= {"denoise.mask", "train.captions_mask"}
    paths = {key for key, kind in typed() if kind is Path}
    below_work |= {"features.folder"}
    names = (".weights", ".huggingface", ".model")  # these may be names of something else
    stated = {
        *(key.replace(".*", "") for key in FILE_PATHS),
        *(key.replace(".*", "") for key in CHECKPOINT_PATHS if not key.endswith(names)),
    }
    assert paths == stated | below_work


def typed(section: type[Section] = Config, above: str = "") -> Iterator[tuple[str, type]]:
    for name, field in section.model_fields.items():
        for part in flatten(field.annotation):
            if issubclass(part, Section):
                yield from typed(part, f"{above}{name}.")
            else:
                yield f"{above}{name}", part
