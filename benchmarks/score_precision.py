"""How far the ways to store scores move the coarse loss and its gradient, away from float32; and what they cost.

    python benchmarks/score_precision.py [--scores matrix.npy] [--batch 120 240] [--out score_precision.json]

The scores are a real teacher's, of MSR-VTT's test captions and videos (data/scores/Cap4Video_msrvtt_video_matrix.npy in
the folder that TEACHCLIP_SHARED names, by default `shared` beside the repository); without it random ones like them,
which the output says. A student's scores are the teacher's with noise of `noise` times their deviation: 3 like one that
has just begun, 0.3 like one that has learnt. Losses are computed in float64, so that only what was stored differs;
numbers are relative to the loss, or to the gradient's length, with float32 labels: the largest over all draws.
"""

import argparse
import json
import os
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import torch
from _machine import machine
from teachclip.cache.scores.format.arrays import ITEM_BYTES, TileSpec
from teachclip.cache.scores.format.codes import decode_scores, encode_scores
from teachclip.cache.scores.format.sizes import shard_bytes
from teachclip.configs.schema import ScoreConfig
from teachclip.stages.train.losses.teaching import coarse_loss

REAL = "data/scores/Cap4Video_msrvtt_video_matrix.npy"
SHARED = Path(os.environ.get("TEACHCLIP_SHARED", Path(__file__).resolve().parents[2] / "shared"))
KINDS = ("pearson", "ce", "huber")
NOISE = (0.3, 1.0, 3.0)
BOUND = 1e-4

type Moved = dict[str, float]


def load(path: Path | None) -> tuple[np.ndarray, str]:
    """Scores float32 [T,V], text i with video i, and what they are."""
    path = path or SHARED / REAL
    if path.exists():
        return np.load(path).astype(np.float32), path.name
    rng = np.random.default_rng(0)
    scores = rng.normal(0.115, 0.03, (1000, 1000)) + 0.12 * np.eye(1000)
    return scores.astype(np.float32), "random scores, since there are no real ones here"


def bytes_per_pair(dtype: str, texts: int = 180_000, videos: int = 9_000) -> float:
    """Of a store of MSR-VTT-9k's training set, checksums, indices and codecs included."""
    layout = TileSpec(texts, videos, 12, False, dtype, 1024, 1, 1)  # type: ignore[arg-type]
    rows = len(layout.rows(0))
    return sum(shard_bytes(layout, 0).values()) / (rows * videos)


def loss_and_gradient(kind: str, student: torch.Tensor, labels: np.ndarray) -> tuple[float, torch.Tensor]:
    """The coarse loss of student logits float64 [b,b], and its gradient."""
    leaf = student.clone().requires_grad_()
    loss = coarse_loss(kind, leaf, torch.from_numpy(labels))
    (gradient,) = torch.autograd.grad(loss, leaf)
    return loss.item(), gradient


def moved(
    draw: Callable[[], np.ndarray], stored: dict[str, np.ndarray], batch: int, scale: float, noise: float, draws: int
) -> dict[str, dict[str, Moved]]:
    """dtype -> loss -> the largest relative effect on the loss and on its gradient.

    Args:
        draw: gives texts of a batch, whose videos have the same places.
        stored: dtype -> scores as they come out of a store, float32 [T,V].
    """
    rng = np.random.default_rng([batch, int(scale), int(10 * noise)])
    found = {dtype: {kind: {"loss": 0.0, "gradient": 0.0} for kind in KINDS} for dtype in stored}
    for _ in range(draws):
        chosen = draw()[:batch]
        pairs = np.ix_(chosen, chosen)
        logits = {dtype: scale * scores[pairs].astype(np.float64) for dtype, scores in stored.items()}
        exact = logits["float32"]
        student = torch.from_numpy(exact + noise * exact.std() * rng.normal(size=exact.shape))
        for kind in KINDS:
            loss, gradient = loss_and_gradient(kind, student, exact)
            for dtype, labels in logits.items():
                other, other_gradient = loss_and_gradient(kind, student, labels)
                effect = found[dtype][kind]
                effect["loss"] = max(effect["loss"], abs(other - loss) / abs(loss))
                turned = (other_gradient - gradient).norm() / gradient.norm()
                effect["gradient"] = max(effect["gradient"], float(turned))
    return found


def smallest(worst: dict[str, float], bound: float = BOUND) -> str:
    """The dtype of the fewest bytes whose effect on the coarse loss stays below `bound`; of equals the most exact."""
    fit = [dtype for dtype, effect in worst.items() if effect < bound]
    return min(fit, key=lambda dtype: (ITEM_BYTES[dtype], worst[dtype]))  # type: ignore[index]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scores", type=Path, help=".npy file of scores [T,T], text i with video i")
    parser.add_argument("--batch", type=int, nargs="+", default=[120, 240])
    parser.add_argument("--scale", type=float, nargs="+", default=[1.0, 20.0, 50.0, 100.0, 200.0])
    parser.add_argument("--draws", type=int, default=10, help="batches of each kind")
    parser.add_argument("--out", type=Path, help="JSON file for the numbers")
    chosen = parser.parse_args()
    scores, source = load(chosen.scores)
    stored = {dtype: decode_scores(*encode_scores(scores, dtype)) for dtype in ITEM_BYTES}
    rng = np.random.default_rng(0)
    cases = [
        {"batch": batch, "scale": scale, "noise": noise}
        | {"moved": moved(lambda: rng.permutation(len(scores)), stored, batch, scale, noise, chosen.draws)}
        for batch, scale, noise in product(chosen.batch, chosen.scale, NOISE)
    ]
    worst = {
        dtype: {
            kind: {what: max(case["moved"][dtype][kind][what] for case in cases) for what in ("loss", "gradient")}
            for kind in KINDS
        }
        for dtype in ITEM_BYTES
    }
    best = smallest({dtype: max(effect[kind]["loss"] for kind in KINDS) for dtype, effect in worst.items()})
    size = {dtype: bytes_per_pair(dtype) for dtype in ITEM_BYTES}
    print(f"{source}, {scores.shape[0]:,} x {scores.shape[1]:,}; {chosen.draws} batches of each kind; {machine()}")
    print("\nlargest relative effect, loss / gradient, over all batch sizes, scales and students")
    print(f"  {'':8} {'bytes/pair':>10}  " + "".join(f"{kind:>20}" for kind in KINDS))
    for dtype, effect in worst.items():
        line = "".join(f"{effect[kind]['loss']:>10.1e} /{effect[kind]['gradient']:>8.1e}" for kind in KINDS)
        print(f"  {dtype:8} {size[dtype]:>10.4f}  {line}")
    print("\nlargest effect on the coarse loss (pearson), by scale of the logits")
    print(f"  {'':8} " + "".join(f"{scale:>10g}" for scale in chosen.scale))
    for dtype in ITEM_BYTES:
        by_scale = [
            max(case["moved"][dtype]["pearson"]["loss"] for case in cases if case["scale"] == scale)
            for scale in chosen.scale
        ]
        print(f"  {dtype:8} " + "".join(f"{effect:>10.1e}" for effect in by_scale))
    print(f"\nthe smallest below {BOUND:g} is {best}; the default is {ScoreConfig().coarse}")
    if chosen.out:
        facts = {"machine": machine(), "scores": source, "draws": chosen.draws, "bytes_per_pair": size}
        facts |= {"worst": worst, "cases": cases, "bound": BOUND, "smallest": best, "default": ScoreConfig().coarse}
        chosen.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
