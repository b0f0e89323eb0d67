"""Options of verbs whose work a Ray cluster can do."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ....errors import ConfigError

if TYPE_CHECKING:
    from ....stages.runtime.cluster import OnCluster

OnRay = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS|local",
        help="Workers of a Ray cluster, or of one of this machine that ends with the command (docs/guide/scale.md).",
    ),
]
RayOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--ray-option", metavar="KEY=VALUE", help="Ray's own setting of a worker, such as num_gpus=1; repeatable."
    ),
]
Mixed = Annotated[
    bool, typer.Option("--mixed", help="With --ray: let in nodes of other versions, or with other devices.")
]


def on_ray(
    address: str | None, options: Sequence[str] | None, mixed: bool, instead: Mapping[str, object]
) -> "OnCluster | None":
    """What is asked of Ray; None where it is not asked.

    Args:
        instead: options that share work out in another way, by name.

    Raises:
        ConfigError: one of those is given, too; options without --ray, or that are none.
    """
    if address is None:
        if options or mixed:
            raise ConfigError(f"{'--ray-option' if options else '--mixed'} is for --ray, which is not given")
        return None
    if given := [name for name, value in instead.items() if value is not None]:
        raise ConfigError(f"{given[0]} and --ray each share out the work; give one of them")
    from ....stages.runtime.cluster import OnCluster

    return OnCluster(address, dict(map(_option, options or ())), mixed)


def refuse_estimate(asked: bool, how: "OnCluster | None") -> None:
    """Refuse to estimate what a cluster takes.

    Raises:
        ConfigError: both are asked for.
    """
    if asked and how is not None:
        raise ConfigError(
            "--estimate says what this machine would take, and knows no cluster",
            hint="leave --ray away; the time is shared by as many processes as decode on the cluster",
        )


def _option(text: str) -> tuple[str, object]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise ConfigError("this is no KEY=VALUE", where=f"--ray-option {text}")
    import yaml

    try:
        return key, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"its value cannot be read: {error}", where=f"--ray-option {text}") from error
