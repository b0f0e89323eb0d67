"""What is said where the libraries of the extra `hf` are missing; runs with and without them."""

import importlib.util
from typing import Any

import pytest
from teachclip.configs.schema import TeacherConfig
from teachclip.errors import ConfigError
from teachclip.stages.models.frozen.cross_encoder import CrossEncoder
from teachclip.stages.models.frozen.teacher import load_teacher


@pytest.fixture(autouse=True)
def missing(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    absent = ("transformers", "sentence_transformers")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in absent else find(name, *rest))


@pytest.mark.parametrize(
    ("section", "package"),
    [
        ({"transformers": {"model": "google/siglip2-base-patch16-224"}}, "transformers"),
        ({"cross_encoder": {"model": "cross-encoder/any", "by": "clip"}}, "sentence-transformers"),
    ],
)
def test_the_install_command_is_told(section: dict[str, Any], package: str) -> None:
    config = TeacherConfig(name="today", **section)
    with pytest.raises(ConfigError, match=f"this needs {package}, which is not installed") as refused:
        load_teacher(config, None) if config.transformers else CrossEncoder(config, "cpu")
    assert "pip install 'teachclip[hf]'" in str(refused.value)


def test_a_re_ranker_is_no_teacher_that_gives_features() -> None:
    config = TeacherConfig(name="today", cross_encoder={"model": "a:B", "by": "clip"})
    with pytest.raises(ConfigError, match="is a re-ranker, which scores few pairs"):
        load_teacher(config, None)
