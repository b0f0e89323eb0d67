"""YAML and --set -> Config; mistakes with file and line."""

from .compare import Difference, Side, differences, unequal
from .load import SHIPPED, changed, dump_config, load_config, named, read_document, read_given, shipped
from .messages import config_error, every_key, nearest
from .template import template_for
from .yaml_lines import Marked, Place, parse

__all__ = [
    "SHIPPED",
    "Difference",
    "Marked",
    "Place",
    "Side",
    "changed",
    "config_error",
    "differences",
    "dump_config",
    "every_key",
    "load_config",
    "named",
    "nearest",
    "parse",
    "read_document",
    "read_given",
    "shipped",
    "template_for",
    "unequal",
]
