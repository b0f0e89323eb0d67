"""Numbers of a run for Weights & Biases: teachclip train CONFIG --set train.logger=wandb_logger:Logger

Beside this file; trackio takes the same lines with `import trackio as wandb`.
"""

from pathlib import Path
from typing import Any

import wandb


class Logger:
    """As docs/guide/training.md describes it; a run that goes on is the same run there."""

    def __init__(self, folder: Path, settings: dict[str, Any], start: int) -> None:
        self.run = wandb.init(project="teachclip", id=folder.name, resume="allow", dir=folder, config=settings)

    def log(self, step: int, numbers: dict[str, float]) -> None:
        """Of a step or a validation."""
        self.run.log(numbers, step=step)

    def close(self) -> None:
        """At the end, and where the run is stopped."""
        self.run.finish()
