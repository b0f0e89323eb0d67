"""The whole chain on real clips of many makers, with a tiny random trunk."""

import json
from pathlib import Path
from typing import Any

import pytest
from teachclip.configs.schema import Config
from teachclip.stages.evaluate.stage import evaluate
from teachclip.stages.prepare.stage import prepare
from teachclip.stages.score.stage import score
from teachclip.stages.search.index import index
from teachclip.stages.search.stage import search
from teachclip.stages.train.stage import train

TRUNK = {
    "sizes": {
        "image_size": 64, "patch_size": 16, "vision_width": 64, "vision_layers": 1,
        "text_width": 64, "text_layers": 1, "embed_dim": 64, "context_length": 32,
    },
    "weights": None,
}  # fmt: skip


@pytest.fixture
def captions(shared: Path, tmp_path: Path) -> Path:
    """The clips' own captions, plus a row for the damaged file."""
    rows = [json.loads(line) for line in (shared / "data/videos/captions.jsonl").read_text().splitlines()]
    rows = [{"video": row["video"], "caption": row["caption"]} for row in rows]
    rows.append({"video": "decord_corrupted.mp4", "caption": "a file that does not decode"})
    path = tmp_path / "captions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_real_clips_from_file_to_answer(shared: Path, captions: Path, tmp_path: Path) -> None:
    def config(**train_section: Any) -> Config:
        network = {"trunk": TRUNK, "words": 24, "frames": 6, "temporal_layers": 1, **train_section.pop("network", {})}
        return Config.model_validate(
            {
                "work": tmp_path / "work",
                "data": {"captions": captions, "videos": shared / "data/videos"},
                "prepare": {"image_size": 64, "max_frames": 6, "workers": 2},
                "score": {"teachers": [{"name": "xclip", "checkpoint": "runs/xclip"}], "chance_check": False},
                "train": {"network": network, "batch_size": 8, "max_steps": 4, "optim": {"lr": 1e-3}, **train_section},
                "evaluate": {"split": "val"},
            }
        )

    prepared = prepare(config())
    assert prepared.counts == {"ok": 27, "corrupt": 1}
    train(config(run="runs/xclip", network={"kind": "xclip"}))
    score(config())
    result = train(config(teachers=["xclip"]))
    assert result.videos + evaluate(config()).videos == 27
    assert result.left_out_videos == 1
    index(config())
    answers = search(config(), ["a person plays the guitar"])
    assert len(answers.queries[0].answers) == 5
