"""`teachclip config`: what a configuration comes to, one to start from, and what separates two."""

import json as json_format
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from ....configs.published_sets import SetName
from ..shell.running import AsJson, ConfigFile, Debug, Overrides, Quiet, examples, load_config, running

if TYPE_CHECKING:
    from ....configs.loading import Difference, Side

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Print every setting, a file to start from, or differences."
)

SHOW_EXAMPLES = examples(
    "teachclip config show own_videos.yaml",
    "teachclip config show own_videos.yaml --set train.batch_size=64 --json",
)
TEMPLATE_EXAMPLES = examples(
    "teachclip config template > own_videos.yaml",
    "teachclip config template --for msrvtt-1k-9k > msrvtt.yaml",
)
DIFF_EXAMPLES = examples(
    "teachclip config diff recipes/official recipes/paper",
    "teachclip config diff recipes/default own_videos.yaml --set train.batch_size=64",
    "teachclip config diff recipes/official recipes/default --json",
)
Compared = Annotated[str, typer.Argument(metavar="A", help="A YAML file or one that is shipped: recipes/official.")]
With = Annotated[str, typer.Argument(metavar="B", help="Another one.")]
OfB = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one setting of B, train.seed=7; may be repeated."),
]


@app.command(epilog=SHOW_EXAMPLES)
def show(
    config: ConfigFile, sets: Overrides = None, json: AsJson = False, quiet: Quiet = False, debug: Debug = False
) -> None:
    """Print every setting of CONFIG, with what it extends, --set and the defaults worked in."""
    with running("config", json, quiet, debug, config, sets) as output:
        import yaml

        from ....configs.loading import dump_config

        text = dump_config(load_config(config, sets or ()))
        output.result(yaml.safe_load(text), text.rstrip())


@app.command(epilog=TEMPLATE_EXAMPLES)
def template(
    data_set: Annotated[
        str, typer.Option("--for", metavar="SET", help=f"A data set: {', '.join(get_args(SetName))}.")
    ] = "own",
) -> None:
    """Print a commented configuration for your own videos, or for a published data set."""
    with running("config", json=False, quiet=False, debug=False) as output:
        from ....configs.loading import template_for

        output.result(None, template_for(data_set))


@app.command(epilog=DIFF_EXAMPLES)
def diff(
    a: Compared, b: With, sets: OfB = None, json: AsJson = False, quiet: Quiet = False, debug: Debug = False
) -> None:
    """Print the settings that differ between A and B: both values, and the comment beside each in its file.

    What A and B extend and the defaults are worked in; paths are compared as they are written. Differences are no
    error.
    """
    with running("config", json, quiet, debug) as output:
        from ....configs.loading import differences, named

        found = differences(named(a), named(b), sets or ())
        shown = [line for difference in found for line in _shown(difference, a, b)]
        plain = {"a": a, "b": b, "differences": [_plain(difference) for difference in found]}
        output.result(plain, *shown or ["no setting differs"])


def _shown(difference: "Difference", a: str, b: str) -> Iterator[str]:
    """The key, and below it one line per side: `  recipes/paper: 1.0   # why`."""
    yield difference.key
    values = [_value(side) for side in (difference.first, difference.second)]
    names, width = (a, b), max(map(len, values))
    for name, value, side in zip(names, values, (difference.first, difference.second), strict=True):
        reason = f"{value:<{width}}  # {side.reason}" if side.reason else value
        yield f"  {name + ':':<{max(map(len, names)) + 1}} {reason}"


def _value(side: "Side") -> str:
    if not side.given:
        return "-"
    return side.value if isinstance(side.value, str) else json_format.dumps(side.value, ensure_ascii=False)


def _plain(difference: "Difference") -> dict[str, object]:
    return {"key": difference.key, "a": asdict(difference.first), "b": asdict(difference.second)}
