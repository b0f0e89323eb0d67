"""The configurations of docs/guide/teachtext.md and experts.md load, and what the pages say of them holds."""

import re
from pathlib import Path

import pytest
from teachclip.configs.loading import load_config
from teachclip.configs.schema import ExpertsConfig, FeaturesConfig

GUIDE = Path(__file__).parents[2] / "docs/guide"


def _written(page: str, folder: Path) -> list[Path]:
    """The page's configurations as files."""
    text = (GUIDE / page).read_text(encoding="utf-8")
    paths = []
    for number, block in enumerate(re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)):
        paths.append(folder / f"{number}.yaml")
        paths[-1].write_text(block)
    return paths


@pytest.mark.parametrize("page", ["teachtext.md", "experts.md"])
def test_configurations_load(page: str, tmp_path: Path) -> None:
    paths = _written(page, tmp_path)
    assert paths
    for path in paths:
        load_config(path)


def test_a_student_has_fewer_experts_than_its_teachers(tmp_path: Path) -> None:
    [path] = _written("teachtext.md", tmp_path)
    teacher, student = load_config(path), load_config(path, ["train.network.experts.modalities.audio=null"])
    assert list(teacher.train.network.experts.modalities) == ["scene", "audio"]
    assert list(student.train.network.experts.modalities) == ["scene"]
    loss = student.train.loss
    assert (loss.contrastive, loss.coarse_kind, loss.coarse_on) == ("max-margin", "huber", "cosines")
    assert (loss.teachers, loss.fine, student.evaluate.ties) == ("mean-similarity", 0, "teachtext")


@pytest.mark.parametrize("section", [ExpertsConfig, FeaturesConfig])
def test_every_option_is_on_the_page(section: type[ExpertsConfig] | type[FeaturesConfig]) -> None:
    page = (GUIDE / "experts.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+)`", "".join(re.findall(r"(?m)^\| `.*?\|", page))))
    assert set(section.model_fields) <= named
