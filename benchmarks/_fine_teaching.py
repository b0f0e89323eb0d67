"""Fine teaching in many forms: frame labels of four networks, standardised or sharpened, and the frames that are true.

Forms that no option offers are losses of one's own, named in a configuration as `_fine_teaching:NAME`, and the truth
is a teacher of one's own.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from _teaching_data import Own, Results, World, losses, teacher_run
from teachclip.cache.frames.cache import FrameCache
from teachclip.stages.demo.shapes import FRAMES, make_clip
from torch import Tensor

OWN = Own(500, 5)
KINDS = ("xclip", "xpool", "drl-best-word", "ts2net")
POOL_TEMPERATURES = (1.0, 0.1)
STEPS = ("train.max_steps=300", "train.validate_every=1")
SURE = 20.0  # a frame logit whose softmax leaves other frames nothing
_HERE = "train.loss.fine_kind=_fine_teaching"


def _cross_entropy(raw_weights: Tensor, logits: Tensor, mask: Tensor) -> Tensor:
    """Of softmax(raw_weights) against softmax(logits), both [b, F], over valid frames; mean over videos."""
    hidden = ~mask
    log_w = raw_weights.masked_fill(hidden, float("-inf")).log_softmax(dim=-1).masked_fill(hidden, 0)
    return -(logits.masked_fill(hidden, float("-inf")).softmax(dim=-1) * log_w).sum(dim=-1).mean()


def standardised(raw_weights: Tensor, logits: Tensor, mask: Tensor) -> Tensor:
    """Every video's frame scores brought to mean 0 and deviation 1 over its frames, then softmax."""
    frames = mask.sum(dim=-1, keepdim=True)
    centred = (logits - (logits * mask).sum(dim=-1, keepdim=True) / frames) * mask
    deviation = (centred.square().sum(dim=-1, keepdim=True) / frames).sqrt()
    return _cross_entropy(raw_weights, centred / deviation.clamp(min=1e-6), mask)


def on_pooling_weights(raw_weights: Tensor, logits: Tensor, mask: Tensor) -> Tensor:
    """Supervises the weights that pool, at temperature 0.1, in place of those at 1."""
    return _cross_entropy(raw_weights / 0.1, logits, mask)


def _at(*temperatures: float) -> dict[str, tuple[str, ...]]:
    return {f"at {one:g}": (f"train.loss.fine_temperature={one:g}",) for one in temperatures}


STANDARDISED = {"standardised": (f"{_HERE}:standardised",)}
# Per teacher the forms that are tried. X-Pool's attention is a softmax already: 1 is its own temperature.
FORMS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "truth": _at(1),
    "xclip": {**_at(1, 0.3, 0.1, 0.05), **STANDARDISED},
    "xpool": {**_at(1, 0.5, 0.2), **STANDARDISED},
    "drl-best-word": {**_at(0.1, 0.05), **STANDARDISED},
    "ts2net": {**_at(0.1, 0.05), **STANDARDISED},
}
WHERE_POOLED = {  # beside those, where the weights that pool are others than those at 1
    "truth": {"on pooling weights": (f"{_HERE}:on_pooling_weights",)},
    "xclip": {"on pooling weights at 0.1": (f"{_HERE}:on_pooling_weights", "train.loss.fine_temperature=0.1")},
}


def fine(world: World) -> Results:
    """Frame labels beside InfoNCE at two pooling temperatures, in all forms; the best of X-CLIP's beside coarse too."""
    captions = world.own(OWN)
    results: Results = {f"{kind} teacher": world.teacher_of(kind) for kind in KINDS}
    entries = {kind: world.run(teacher_run(kind)) for kind in KINDS}
    entries["truth"] = f"plugin: '_fine_teaching:Truth', options: {{truth: {_write_truth(world, captions)}}}"
    scores = world.scores(captions, f"{OWN}-fine", entries, ("score.chance_check=false",))

    def trained(pool: float, name: str, teacher: str, weights: Sequence[str], overrides: Sequence[str] = ()) -> None:
        told = (f"train.teachers=[{teacher}]", f"train.network.pool_temperature={pool:g}", *STEPS)
        name = f"{_pool(pool)} {name}"
        run = f"{OWN}-fine-{name.replace(' ', '-')}"
        results[name] = world.trained(captions, run, (*scores, *weights, *told, *overrides))

    for pool in POOL_TEMPERATURES:
        forms = {teacher: dict(of_teacher) for teacher, of_teacher in FORMS.items()}
        for teacher, more in WHERE_POOLED.items() if pool != 1 else ():
            forms[teacher] |= more
        trained(pool, "alone", "", losses(1, 0, 0))
        for teacher, of_teacher in forms.items():
            for form, overrides in of_teacher.items():
                trained(pool, f"{teacher} {form}", teacher, losses(1, 0, 1), overrides)
        trained(pool, "coarse", "xclip", losses(0.2, 1, 0))
        best = max(forms["xclip"], key=lambda form: results[f"{_pool(pool)} xclip {form}"]["val"])
        trained(pool, f"coarse and xclip {best}", "xclip", losses(0.2, 1, 1), forms["xclip"][best])
    return results


def _pool(temperature: float) -> str:
    return f"pool-{temperature:g}"


class Truth:
    """A teacher that knows which frames of a clip show what its captions tell, and nothing else."""

    score_version = 1
    words, scale, frames = 0, 1.0, FRAMES

    def __init__(self, name: str, device: torch.device, truth: str) -> None:
        self.device = device
        with np.load(truth) as known:
            self.shows = dict(zip(known["digests"].tolist(), known["shows"], strict=True))
        self.weights_digest = hashlib.sha256(Path(truth).read_bytes()).hexdigest()

    def encode_videos(self, frames: Tensor, mask: Tensor, times: Tensor) -> dict[str, Tensor]:
        """`shows` [V, F]: SURE where a frame shows an event; 0 in clips without captions, which no frame teaches."""
        rows = [self.shows.get(_digest(clip), np.zeros(FRAMES)) for clip in frames.cpu().numpy()]
        return {"shows": torch.from_numpy(np.stack(rows)).float().to(self.device) * SURE}

    def encode_texts(self, captions: list[str]) -> dict[str, Tensor]:
        """Nothing of them counts."""
        return {"none": torch.zeros(len(captions), 1, device=self.device)}

    def score(self, texts: dict[str, Tensor], videos: dict[str, Tensor]) -> Tensor:
        """[T, V]: no opinion."""
        return texts["none"] @ videos["shows"][:, :1].T

    def frame_logits(self, texts: dict[str, Tensor], videos: dict[str, Tensor]) -> Tensor:
        """[T, F] of text i and video i."""
        return videos["shows"]


def _write_truth(world: World, captions: str) -> Path:
    """Per training clip the digest of its decoded frames and which of them show events."""
    config, path = world.config(captions, ()), (world.place / f"truth-{OWN}.npz").absolute()
    frames = FrameCache.open(config.frames_folder)
    shapes = config.shapes
    clips = range(min(OWN.clips, shapes.train_clips))
    names = [f"clips/train{k:04d}.mp4" for k in clips]
    drawn = (make_clip(np.random.default_rng((shapes.seed, 0, k)), shapes.size, unseen=False) for k in clips)
    shows = np.stack([clip.events > 0 for clip in drawn])
    np.savez(path, digests=[_digest(frames.read([name]).frames[0]) for name in names], shows=shows)
    return path


def _digest(frames: np.ndarray) -> str:
    """Of one clip's frames uint8 [F, 3, S, S]."""
    return hashlib.sha256(np.ascontiguousarray(frames).tobytes()).hexdigest()
