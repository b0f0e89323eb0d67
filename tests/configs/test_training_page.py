"""docs/guide/training.md lists every option of training, with its default."""

from pathlib import Path

import pytest
import yaml
from teachclip.configs.schema import OptimConfig, Section, TrainConfig

PAGE = Path(__file__).parents[2] / "docs/guide/training.md"
SECTIONS: dict[str, type[Section]] = {"": TrainConfig, "optim.": OptimConfig}


def listed() -> dict[str, str]:
    """Default of every option in the table, by key."""
    table = PAGE.read_text(encoding="utf-8").split("## Every option")[1]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if "| `" in line]
    return {key.strip("`"): default for key, default, *_ in rows}


def test_every_option_is_in_the_table_and_no_other() -> None:
    expected = {f"{prefix}{name}" for prefix, section in SECTIONS.items() for name in section.model_fields}
    assert set(listed()) == expected


@pytest.mark.parametrize("prefix", SECTIONS)
def test_the_defaults_are_those_of_the_schema(prefix: str) -> None:
    shown = listed()
    for name, field in SECTIONS[prefix].model_fields.items():
        if field.default_factory is None and not issubclass(type(field.default), Section):
            default = field.default
            plain = list(default) if isinstance(default, tuple) else default
            found = yaml.safe_load(shown[f"{prefix}{name}"])
            assert str(found) == str(plain) or float(found) == plain, name
