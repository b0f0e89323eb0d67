"""Runs prepare on the collection in the folder named, for a test to interrupt; it does not end by itself."""

import sys
from pathlib import Path

from readers_for_tests import never_the_last
from teachclip.configs.schema import Config
from teachclip.stages.prepare import stage

if __name__ == "__main__":
    decode_videos = stage.decode_videos
    stage.decode_videos = lambda jobs, config, ahead: decode_videos(jobs, config, ahead, never_the_last)
    stage.prepare(Config.model_validate_json(Path(sys.argv[1]).read_text()))
