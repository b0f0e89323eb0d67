"""`teachclip score`: frozen teachers -> score cache."""

from ...configs.loading import load_config
from .output import facts
from .running import AsJson, ConfigFile, Debug, Overrides, Quiet, examples, running

EXAMPLES = examples(
    "teachclip score own_videos.yaml",
    'teachclip score own_videos.yaml --set "score.teachers=[{name: xclip, checkpoint: runs/teacher}]"',
    "teachclip score own_videos.yaml --set score.device=cpu --json",
)


def score(
    config: ConfigFile, sets: Overrides = None, json: AsJson = False, quiet: Quiet = False, debug: Debug = False
) -> None:
    """Run each teacher once and keep its scores.

    The scores of the training split serve every student to come; no teacher is needed while one trains. After the
    first shard the ranks of the captions' own videos are shown; near chance it stops, since a teacher that was loaded
    wrongly teaches nothing.
    """
    with running("score", json, quiet, debug) as output:
        settings = load_config(config, sets or ())
        from ...stages.score import score as run

        result = run(settings, output)
        output.result(result, facts(("scores", settings.score_store)))
