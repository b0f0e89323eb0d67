"""`teachclip features`: files of experts and words, open_clip trunks, text models -> feature caches."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType

from ...errors import CacheError, ConfigError
from ...plurals import counted
from ...remedies import MakeFeatures, Remedy
from ..wording import duration, size
from .shell.running import AsJson, ConfigFile, Debug, Overrides, Quiet, examples, load_config, running
from .shell.tables import table

if TYPE_CHECKING:
    from ...stages.prepare.features.looking import FeatureCheck, FeatureEstimate
    from ...stages.prepare.features.stage import FeaturesResult, MadeFeatures

Estimate = Annotated[bool, typer.Option("--estimate", help="Only say how many bytes and how long; writes nothing.")]
Info = Annotated[bool, typer.Option("--info", help="Only say what there is.")]
Verify = Annotated[bool, typer.Option("--verify", help="Only read every byte of what there is, and check it.")]

EXAMPLES = examples(
    "teachclip features own_videos.yaml --estimate",
    "teachclip features own_videos.yaml",
    "teachclip features own_videos.yaml --info",
    "teachclip features own_videos.yaml --verify --json",
)


def features(
    config: ConfigFile,
    estimate: Estimate = False,
    info: Info = False,
    verify: Verify = False,
    sets: Overrides = None,
    json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Read or make the features of experts and of captions that the networks ce and moee take.

    Every video has a status for every expert: ok, missing (the file says so) or absent (the file does not know it).
    Given again, only what is missing is made.
    """
    with running("features", json, quiet, debug, config, sets) as output:
        asked = {"--estimate": estimate, "--info": info, "--verify": verify}
        if len(several := [option for option, given in asked.items() if given]) > 1:
            raise ConfigError(f"{' and '.join(several)} are two questions", hint="ask one at a time")
        settings = load_config(config, sets or ())
        with output.waiting("loading"):
            from ...stages.prepare.features import looking
            from ...stages.prepare.features.stage import features as run

        if estimate:
            with output.waiting("making a few"):
                expected = looking.estimate_features(settings, output)
            output.result(expected, _estimated(expected))
        elif info:
            found = looking.look_at_features(settings)
            output.result(found, _made(found))
        elif verify:
            checks = looking.check_features(settings, output)
            output.result(checks, _checked(checks))
            _refuse_damage(checks)
        else:
            result = run(settings, output)
            output.result(result, *_result(result))


def _estimated(expected: "Sequence[FeatureEstimate]") -> RenderableType:
    rows = [
        (one.name, one.part, one.videos, one.remaining, size(one.bytes), duration(one.seconds), size(one.free))
        for one in expected
    ]
    return table("name", "of", "videos", "to make", "disk", "time", "free", rows=rows)


def _made(found: "Sequence[MadeFeatures]") -> RenderableType:
    rows = [
        (
            one.name,
            one.part,
            one.width,
            one.videos,
            *(one.counts.get(status, 0) for status in ("ok", "missing", "absent")),
            one.rows,
            size(one.bytes),
        )
        for one in found
    ]
    return table("name", "of", "width", "videos", "ok", "missing", "absent", "rows", "disk", rows=rows)


def _result(result: "FeaturesResult") -> Iterator[RenderableType]:
    yield _made(result.caches)
    made = sum(one.made for one in result.caches)
    yield f"made now: {made} in {duration(result.seconds)}" if made else "made now: nothing, all was there"
    if count := result.without_experts_count:
        shown = ", ".join(result.without_experts)
        more = f" and {count - len(result.without_experts)} more" if count > len(result.without_experts) else ""
        yield f"{counted(count, 'video has', 'videos have')} no expert at all, and are left out: {shown}{more}"


def _checked(checks: "Sequence[FeatureCheck]") -> RenderableType:
    return table(
        "name", "of", "videos", "damaged", rows=[(one.name, one.part, one.videos, one.wrong) for one in checks]
    )


def _refuse_damage(checks: "Sequence[FeatureCheck]") -> None:
    if wrong := sum(one.wrong for one in checks):
        raise CacheError(
            f"features of {counted(wrong, 'video')} are damaged",
            details=[problem for one in checks for problem in one.problems],
            hint=Remedy("delete these files, then make them again", MakeFeatures()),
        )
