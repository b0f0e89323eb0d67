"""The shipped YAMLs: they load, say why, and differ exactly where code and paper do."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from teachclip.configs.loading import load_config, shipped
from teachclip.configs.messages import every_key
from teachclip.configs.schema import CHECKPOINT_PATHS, FILE_PATHS, Config, Section

CODE_AND_PAPER = {
    "train.network.mask_padding",
    "train.network.pool_temperature",
    "train.network.normalise_frames",
    "train.loss.infonce",
    "train.loss.fine",
    "train.loss.coarse_on",
    "train.loss.fine_reduction",
    "train.loss.teachers",
    "train.optim.optimiser",
    "train.optim.afa_lr",
    "train.optim.weight_decay",
    "train.optim.warmup",
    "train.optim.clip_norm",
    "train.optim.tensor_clip_norm",
    "train.optim.freeze",
    "train.batch_size",
    "train.precision",
    "train.select_by",
}
CODE_AND_DEFAULT = {
    "train.network.mask_padding",
    "train.loss.infonce",
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


def test_recipes_name_the_same_keys() -> None:
    """So that `diff` shows every difference and no value depends on the schema's default."""
    keys = [set(leaves(yaml.safe_load(shipped()[f"recipes/{name}"].read_text()))) for name in ("official", "paper")]
    assert keys[0] == keys[1] == set(leaves(yaml.safe_load(shipped()["recipes/default"].read_text())))
    assert all(key.startswith("train.") for key in keys[0])
    assert keys[0] >= CODE_AND_PAPER | CODE_AND_DEFAULT


def leaves(tree: object, above: str = "") -> Iterator[str]:
    if isinstance(tree, dict):
        for key, child in tree.items():
            yield from leaves(child, f"{above}.{key}" if above else key)
    else:
        yield above


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
    paths = {key for key, kind in typed() if kind is Path}
    stated = {*FILE_PATHS, *(key.replace(".*", "") for key in CHECKPOINT_PATHS if not key.endswith(".weights"))}
    assert paths == stated | below_work


def typed(section: type[Section] = Config, above: str = "") -> Iterator[tuple[str, type]]:
    for name, field in section.model_fields.items():
        for part in flatten(field.annotation):
            if issubclass(part, Section):
                yield from typed(part, f"{above}{name}.")
            else:
                yield f"{above}{name}", part
