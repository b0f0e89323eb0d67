"""Section `search`."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from .section import Positive, Section


class SearchConfig(Section):
    """Vectors of videos and answers to sentences."""

    run: Path = Field(Path("runs/student"), description="Run folder or checkpoint that embeds.")
    index: Path = Field(Path("index"), description="Folder of the vectors, below `work`.")
    top: Positive = Field(5, description="Answers per query.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where the model runs.")
