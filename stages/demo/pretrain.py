"""Pre-trains a small CLIP trunk on captioned pictures, for the demo: there are no weights of CLIP in the package."""

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from ...cache.storage.identity import JSON, flatten, refuse_difference
from ...cache.storage.publish import publishing
from ...cache.training_state import load_state, save_state
from ...configs.schema import ShapesConfig, TrunkSizes
from ...remedies import DeleteFile, Remedy
from ..models.clip.pixels import normalise
from ..models.clip.tokens import tokenize
from ..models.clip.trunk import ClipTrunk
from ..runtime.reporting import Reporter, Silent
from ..train.losses.contrastive import info_nce
from .shapes import make_picture

SAVE_SECONDS = 20.0
WEIGHT_DECAY = 0.05
WARMUP = 0.1
START_SCALE = math.log(1 / 0.07)
# open_clip starts positions near zero; so small a trunk then takes long to find out where things are.
POSITION_SCALE = 4.0


@dataclass(frozen=True)
class PretrainResult:
    """The weights file (`train.network.trunk.weights` takes it), the steps, and whether it was there already."""

    weights: str
    steps: int
    loss: float
    already_done: bool


def pretrain(
    config: ShapesConfig, sizes: TrunkSizes, words: int, path: Path, reporter: Reporter | None = None
) -> PretrainResult:
    """Train a trunk of `sizes` on rendered pictures by InfoNCE and write it to `path`; a stopped run goes on.

    Raises:
        CacheMismatchError: `path` holds a trunk made from other settings; names them.
    """
    reporter = reporter or Silent()
    made_from = flatten({"shapes": _relevant(config), "sizes": sizes.model_dump(), "words": words})
    if path.exists():
        return _found(path, made_from, config)
    pixels, ids = _pictures(config, sizes.image_size, words, reporter)
    torch.manual_seed(config.seed)
    trunk = ClipTrunk(sizes)
    with torch.no_grad():
        trunk.visual.positional_embedding.mul_(POSITION_SCALE)
        trunk.logit_scale.fill_(START_SCALE)
    loss = _train(config, trunk, pixels, ids, path.with_suffix(".state"), made_from, reporter)
    with publishing(path) as temporary:
        state = {name: value.detach().contiguous() for name, value in trunk.state_dict().items()}
        save_file(state, temporary, metadata={"made_from": json.dumps(made_from), "loss": str(loss)})
    path.with_suffix(".state").unlink(missing_ok=True)
    return PretrainResult(str(path), config.picture_steps, loss, already_done=False)


def _relevant(config: ShapesConfig) -> dict[str, JSON]:
    return {key: value for key, value in config.model_dump().items() if key.startswith("picture") or key == "seed"}


def _found(path: Path, made_from: dict[str, JSON], config: ShapesConfig) -> PretrainResult:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    hint = Remedy("remove it to train it again", DeleteFile(str(path)))
    found = json.loads(metadata.get("made_from", "{}"))
    refuse_difference(made_from, found, where=str(path), hint=hint, what="the trunk")
    return PretrainResult(str(path), config.picture_steps, float(metadata["loss"]), already_done=True)


def _pictures(config: ShapesConfig, size: int, words: int, reporter: Reporter) -> tuple[Tensor, Tensor]:
    """Pictures uint8 [N, 3, S, S] and their captions' token ids [N, W]."""
    pixels, captions = torch.empty(config.pictures, 3, size, size, dtype=torch.uint8), []
    with reporter.progress("pictures", config.pictures, "picture") as progress:
        for k in range(config.pictures):
            image, caption = make_picture(np.random.default_rng([config.seed, 3, k]), size)
            pixels[k] = torch.from_numpy(image).permute(2, 0, 1)
            captions.append(caption)
            progress.advance()
    return pixels, tokenize(captions, words)[0]


def _train(
    config: ShapesConfig,
    trunk: ClipTrunk,
    pixels: Tensor,
    ids: Tensor,
    state_path: Path,
    made_from: dict[str, JSON],
    reporter: Reporter,
) -> float:
    """The last losses' running mean."""
    decayed = [value for value in trunk.parameters() if value.ndim > 1]
    others = [value for value in trunk.parameters() if value.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=config.picture_lr, betas=(0.9, 0.98), fused=True)
    start, running = 0, math.log(config.picture_batch)
    if state_path.exists() and (state := load_state(state_path))["made_from"] == made_from:
        start, running = state["step"], state["running"]
        trunk.load_state_dict(state["weights"])
        optimiser.load_state_dict(state["optimiser"])
    saved = time.perf_counter()
    title = "pre-train the trunk on pictures"
    with reporter.progress(title, config.picture_steps, "step", done=start) as progress:
        for step, chosen in _batches(config, start):
            for group in optimiser.param_groups:
                group["lr"] = config.picture_lr * _schedule(step, config.picture_steps)
            images = functional.normalize(trunk.encode_frames(normalise(pixels[chosen])), dim=-1)
            texts = functional.normalize(trunk.encode_sentences(ids[chosen]), dim=-1)
            loss = info_nce(trunk.logit_scale.exp() * texts @ images.T)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(trunk.parameters(), 1.0)
            optimiser.step()
            running += 0.02 * (loss.item() - running)
            progress.advance(loss=running)
            if time.perf_counter() - saved > SAVE_SECONDS:
                weights, moments = trunk.state_dict(), optimiser.state_dict()
                at = {"step": step + 1, "running": running, "made_from": made_from}
                save_state(state_path, {**at, "weights": weights, "optimiser": moments})
                saved = time.perf_counter()
    return running


def _batches(config: ShapesConfig, start: int) -> Iterator[tuple[int, Tensor]]:
    """Each step draws from a generator of its own, so that a stopped run goes on to the same weights."""
    for step in range(start, config.picture_steps):
        rng = np.random.default_rng([config.seed, 4, step])
        yield step, torch.from_numpy(rng.integers(0, config.pictures, config.picture_batch))


def _schedule(step: int, steps: int) -> float:
    """Linear warm-up, then half a cosine."""
    return min((step + 1) / (WARMUP * steps), 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps))))
