"""The names that people give to splits."""

import difflib
from typing import get_args

from ....configs.published_sets import SplitName

SPLIT_NAMES: tuple[SplitName, ...] = get_args(SplitName)
_ALSO: dict[str, SplitName] = {
    "training": "train",
    "validation": "val",
    "valid": "val",
    "dev": "val",
    "development": "val",
    "testing": "test",
}


def split_named(name: str) -> SplitName | None:
    """The split that `name` means, also as others write it (`validation`, `valid`, `dev`, `training`), or None."""
    word = name.strip().lower()
    return next((split for split in SPLIT_NAMES if split == word), _ALSO.get(word))


def nearest_split(name: str) -> str:
    """`, did you mean 'val'?` for a name that nearly means one, else nothing."""
    near = difflib.get_close_matches(name.strip().lower(), (*SPLIT_NAMES, *_ALSO), n=1, cutoff=0.4)
    meant = split_named(near[0]) if near else None
    return f", did you mean {meant!r}?" if meant else ""
