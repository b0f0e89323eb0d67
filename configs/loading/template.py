"""Configurations to start from: for your own videos, or for a published data set."""

from typing import get_args

from ...errors import ConfigError
from ..published_sets import PUBLISHED, PublishedSet, SetName
from .load import shipped
from .messages import nearest

_STEPS = (
    ("data check", "what is there, and what is missing"),
    ("prepare", "videos -> frames"),
    ("train", "frames -> student (alone as long as no teachers are named)"),
    ("evaluate", "R@1, R@5, R@10 on the test split"),
)


def template_for(name: str) -> str:
    """The text of a configuration for the data set `name`.

    Raises:
        ConfigError: no such data set; names the nearest.
    """
    known: tuple[SetName, ...] = get_args(SetName)
    chosen = next((each for each in known if each == name), None)
    if chosen is None:
        raise ConfigError(
            f"no such data set{nearest(name, list(known))}", where=name, hint=f"Known: {', '.join(known)}"
        )
    if chosen == "own":
        return shipped()["own_videos"].read_text(encoding="utf-8").rstrip()
    if chosen == "webdataset":
        return (
            "# Your own captioned videos in WebDataset shards, tar files; docs/guide/data.md says what is in them.\n"
            f"{_steps(chosen)}extends: [recipes/default, data/webdataset]\n\n"
            "work: work\n\ndata:\n  videos: shards             # train-000000.tar, ..., test-000000.tar"
        )
    return _published(chosen, PUBLISHED[chosen])


def _published(name: SetName, known: PublishedSet) -> str:
    files = "".join(f"    # {_any_of(needed.names)}\n" for needed in known.needed)
    validation = "" if "val" in known.splits else (
        "  #validation: test          # no validation videos: published code takes the test set's best network\n"
    )  # fmt: skip
    return (
        f"# {known.title}. Paths start at this file's folder; `work` gets everything that is made.\n"
        f"{_steps(name)}extends: [recipes/default, data/{name}]     # or recipes/official, recipes/paper\n\n"
        f"work: work\n\ndata:\n  annotations: annotations   # holds, as published:\n{files}"
        f"  videos: videos             # {known.videos}; any extension, any folders below\n{validation}"
        "  #splits: [test]            # when only the files of the test split are there"
    )


def _steps(name: str) -> str:
    width = max(len(verb) for verb, _ in _STEPS) + len(name) + len(".yaml") + 1
    lines = "".join(f"#   teachclip {f'{verb} {name}.yaml':<{width}}   {what}\n" for verb, what in _STEPS)
    return f"#\n{lines}#\n"


def _any_of(names: tuple[str, ...]) -> str:
    first, *others = names
    return f"{first} (or {', '.join(others)})" if others else first
