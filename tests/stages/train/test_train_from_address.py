"""Training reads cached scores at an address as it reads them from a folder."""

import json
from typing import Any

from teachclip.stages.labels.denoise import denoise
from teachclip.stages.runtime.reporting import Silent
from teachclip.stages.train.stage import train


def test_a_student_learns_from_scores_at_an_address(world: Any, bucket: Any) -> None:
    bucket.put(world.root / "work/scores.zarr", "scores.zarr")
    url = f"{bucket.url}/scores.zarr"
    losses = []
    for run, store in (("near", "scores.zarr"), ("far", url)):
        taught = {"run": f"runs/address-{run}", "teachers": ["xclip"], "max_steps": 3}
        config = world.config(train=taught, score={"store": store})
        train(config)
        lines = (config.run_folder / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(line).get("loss") for line in lines])
    assert losses[0] == losses[1]
    assert any(losses[0])
    config = world.config(score={"store": url}, denoise={"mask": "address.json", "teachers": ["xclip"]})
    denoise(config, Silent())
