"""TS2-Net trained here, the same twice, and used by `score` like a downloaded one."""

import numpy as np
from teachclip.cache.scores.reading.tile_rows import TileRows
from teachclip.cache.scores.store import ScoreStore
from teachclip.stages.models.checkpoints.files import load_network
from teachclip.stages.score.stage import score
from teachclip.stages.train.stage import train

TRUNK = {
    "sizes": {
        "image_size": 32, "patch_size": 8, "vision_width": 64, "vision_layers": 2,
        "text_width": 16, "text_layers": 1, "embed_dim": 64, "context_length": 16,
    },
    "weights": None,
}  # fmt: skip
NETWORK = {"kind": "ts2net", "trunk": TRUNK, "ts2net": {"shift_layers": (1,), "samples": 50}}


def test_a_trained_one_teaches(world) -> None:
    weights = []
    for run in ("runs/ts2net", "runs/ts2net-again"):
        train(world.config(train={"run": run, "network": dict(NETWORK)}))
        weights.append(load_network(world.root / "work" / run).state_dict())
    assert all(value.equal(weights[1][name]) for name, value in weights[0].items())

    scores = []
    for store, batch in (("ts2net.zarr", 3), ("ts2net-again.zarr", 16)):
        teacher = {"name": "ts2net", "checkpoint": "runs/ts2net"}
        score(world.config(score={"teachers": [teacher], "store": store, "coarse": "float32", "video_batch": batch}))
        (tile,) = ScoreStore.open(world.root / "work" / store).teacher("ts2net").tiles
        scores.append(TileRows(tile).scores(np.arange(tile.spec.texts)))
    np.testing.assert_allclose(scores[0], scores[1], rtol=0, atol=1e-6)  # the noise belongs to the video
    assert np.ptp(scores[0]) > 0.01

    taught = {"run": "runs/taught-by-ts2net", "teachers": ["ts2net"], "epochs": 1}
    assert train(world.config(train=taught, score={"store": "ts2net.zarr"})).best
