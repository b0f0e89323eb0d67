"""Settings whose default another release changed: a run that was begun before goes on with the value that it recorded.

It does so as long as nobody names the key: neither the user's own file nor `--set`. `recipes/default` names none of
these in that sense, since it says what the defaults are.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

CHANGED_DEFAULTS: Mapping[str, tuple[Any, ...]] = {
    "train.loss.infonce": (1.0,),  # equal weights undo teaching where own captions are few (docs/guide/teaching.md)
}
"""Keys of `train`, dotted -> the values that were its default before, oldest first."""


def is_named(config: BaseModel, key: str) -> bool:
    """Whether whoever made the configuration set the key, to whatever value."""
    first, _, rest = key.partition(".")
    return first in config.model_fields_set and (not rest or is_named(getattr(config, first), rest))


def value_of(config: BaseModel, key: str) -> Any:
    """The value at a dotted key."""
    first, _, rest = key.partition(".")
    return value_of(getattr(config, first), rest) if rest else getattr(config, first)


def with_values[S: BaseModel](config: S, values: Mapping[str, Any]) -> S:
    """The configuration with these values by dotted key, which count as named."""
    for key, value in values.items():
        first, _, rest = key.partition(".")
        changed = with_values(getattr(config, first), {rest: value}) if rest else value
        config = config.model_copy(update={first: changed})
    return config
