"""`teachclip config`: what a configuration comes to, and one to start from."""

import typer
import yaml

from ...configs.loading import dump_config, load_config, shipped
from .running import AsJson, ConfigFile, Debug, Overrides, Quiet, examples, running

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Print every setting, or a file to start from.")

SHOW_EXAMPLES = examples(
    "teachclip config show own_videos.yaml",
    "teachclip config show own_videos.yaml --set train.batch_size=64 --json",
)
TEMPLATE_EXAMPLES = examples("teachclip config template > own_videos.yaml")


@app.command(epilog=SHOW_EXAMPLES)
def show(
    config: ConfigFile, sets: Overrides = None, json: AsJson = False, quiet: Quiet = False, debug: Debug = False
) -> None:
    """Print every setting of CONFIG, with what it extends, --set and the defaults worked in."""
    with running("config", json, quiet, debug, config, sets) as output:
        text = dump_config(load_config(config, sets or ()))
        output.result(yaml.safe_load(text), text.rstrip())


@app.command(epilog=TEMPLATE_EXAMPLES)
def template() -> None:
    """Print a commented configuration for your own videos."""
    with running("config", json=False, quiet=False, debug=False) as output:
        output.result(None, shipped()["own_videos"].read_text(encoding="utf-8").rstrip())
