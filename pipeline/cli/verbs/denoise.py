"""`teachclip denoise`: score cache -> mask of captions that training leaves out."""

from typing import TYPE_CHECKING

from ....plurals import counted
from ..shell.running import AsJson, ConfigFile, Debug, Overrides, Quiet, examples, load_config, running
from ..shell.tables import facts, table

if TYPE_CHECKING:
    from ....stages.labels.denoise import DenoiseResult

EXAMPLES = examples(
    "teachclip denoise own_videos.yaml --set denoise.teachers=[xclip]",
    "teachclip denoise own_videos.yaml --set denoise.keep=80 --set denoise.last=drop-video --set denoise.mask=m80.json",
    "teachclip train own_videos.yaml --set train.captions_mask=captions-mask.json --set train.run=runs/denoised",
)
NAMED = 10
CUT = 60


def denoise(
    config: ConfigFile, sets: Overrides = None, json: AsJson = False, quiet: Quiet = False, debug: Debug = False
) -> None:
    """Find captions that the teachers cannot place, for training to leave out.

    A caption is kept when its own video ranks at denoise.keep or better among all training videos, by the mean of the
    teachers' cached scores. This rule is teachclip's own: TeachText published masks, not the rule that made them.
    Nothing is left out until train.captions_mask names the mask.
    """
    with running("denoise", json, quiet, debug, config, sets) as output:
        settings = load_config(config, sets or ())
        with output.waiting("loading"):
            from ....stages.labels.denoise import denoise as run

        result = run(settings, output)
        left_out = (
            f"; {counted(result.left_out_videos, 'video')} without usable frames" if result.left_out_videos else ""
        )
        output.result(
            result,
            facts(
                ("mask", result.mask),
                ("teachers", ", ".join(result.teachers)),
                ("rule", f"own video ranks at {result.keep} or better (teachclip's own rule, not TeachText's)"),
                (
                    "ranked",
                    f"{counted(result.texts, 'caption')} among {counted(result.videos, 'video')}, "
                    f"median {result.median:g}{left_out}",
                ),
                ("kept", result.kept),
                ("dropped", result.dropped),
                ("last caption kept", _named(result.kept_last)),
                ("videos left out", _named(result.removed)),
                ("to use it", f"--set train.captions_mask={result.mask}"),
            ),
            "worst captions:",
            table("rank", "video", "caption", rows=_worst(result)),
        )


def _named(videos: tuple[str, ...]) -> str:
    shown = ": " + ", ".join(videos[:NAMED]) + (", ..." if len(videos) > NAMED else "") if videos else ""
    return f"{counted(len(videos), 'video')}{shown}"


def _worst(result: "DenoiseResult") -> list[tuple[object, ...]]:
    return [(one.rank, one.video, _cut(one.caption)) for one in result.worst]


def _cut(caption: str) -> str:
    return caption if len(caption) <= CUT else f"{caption[: CUT - 1]}…"
