"""YAML and --set -> Config; mistakes with file and line."""

from .compare import Difference, Side, differences, unequal
from .load import SHIPPED, dump_config, load_config, named, read_document, read_given, shipped, with_changes
from .messages import config_error, every_key, nearest
from .template import template_for
from .yaml_lines import Marked, YamlPlace, merge, parse_yaml

__all__ = [
    "SHIPPED",
    "Difference",
    "Marked",
    "Side",
    "YamlPlace",
    "config_error",
    "differences",
    "dump_config",
    "every_key",
    "load_config",
    "merge",
    "named",
    "nearest",
    "parse_yaml",
    "read_document",
    "read_given",
    "shipped",
    "template_for",
    "unequal",
    "with_changes",
]
