"""What each kind of network answers, held to numbers kept beside this file: whoever changes them raises its version.

Score caches are told apart by weights, settings and `score_version`. Were the same weights to give other scores under
the same version, scores of two kinds would stand in one store. So when a test here fails, either the change was a
mistake, or `score_version` of that class goes up by one (also for all kinds, in network.py or clip.py); then

    python -m tests.models.test_score_versions

writes score_versions.json anew. It refuses to where numbers moved and the version did not.

Networks are tiny, of two heads, three layers and float64; their weights come from PCG64's raw bits and not from torch's
generator, so that every machine has the same. Captions and frames go the whole way of stage one.
"""

import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from teachclip.configs.schema import NetworkConfig
from teachclip.stages.models.build import KINDS, build_network, network_class
from teachclip.stages.models.checkpoints.files import network_digest
from teachclip.stages.models.experts.networks import ExpertNetwork
from teachclip.stages.models.frozen.experts import ExpertTeacher
from teachclip.stages.models.frozen.teacher import NetworkTeacher

FILE = Path(__file__).with_name("score_versions.json")
TOLERANCE = 1e-7  # absolute and relative: more than float64 ever needs, less than float32 would
SIZES = {
    "image_size": 48, "patch_size": 16, "vision_width": 128, "vision_layers": 3,
    "text_width": 128, "text_layers": 2, "embed_dim": 128, "context_length": 16,
}  # fmt: skip
CASES: dict[str, dict[str, dict[str, Any]]] = {
    "student": {"afa": {}, "mean": {"pooling": "mean"}, "published": {"mask_padding": False},
                "paper": {"pool_temperature": 1.0, "normalise_frames": False}},
    "xclip": {"plain": {}},
    "ts2net": {"noise": {}, "hard": {"ts2net": {"sigma": 0.0}}, "no shift": {"ts2net": {"shift_layers": ()}}},
    "xpool": {"plain": {}, "published": {"mask_padding": False}, "heads": {"xpool": {"heads": 2}}},
    "drl": {"wti": {}, "ti": {"drl": {"interaction": "ti", "cdcr": 0}}, "dp": {"drl": {"interaction": "dp", "cdcr": 0}},
            "trunk": {"drl": {"frame_scores": "trunk"}}, "best word": {"drl": {"frame_scores": "best-word"}}},
    "openclip": {"plain": {}},
    "ce": {"plain": {}, "relu": {"experts": {"activation": "relu"}}, "alone": {"experts": {"gating": False}},
           "fixed": {"experts": {"fixed_weights": True}}, "missing too": {"experts": {"keep_missing": True}}},
    "moee": {"plain": {}, "fixed": {"experts": {"fixed_weights": True}}},
}  # fmt: skip
EXPERTS = {
    "modalities": {"audio": {"width": 6, "tokens": 4, "clusters": 3}, "face": {"width": 7}, "scene": {"width": 5}},
    "text": {"width": 8, "words": 5, "clusters": 3, "ghosts": 1}, "shared": 9,
}  # fmt: skip
MISSING = [[1, 1, 1], [0, 1, 1], [1, 0, 0], [0, 0, 1]]  # which experts the four videos have
CAPTIONS = ("a red square at the left", "two dogs run", "somebody cooks; then, another one eats with chopsticks", "sea")
FRAMES = 5
SHOWN = [3, 5, 1, 4]  # valid frames of the four videos

type Numbers = dict[str, Any]


def uniform(name: str, count: int) -> np.ndarray:
    """Numbers from -1 to 1 that stand for a name, float64 [count]."""
    seed = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
    bits = np.random.PCG64(seed).random_raw(count) >> np.uint64(11)
    return bits.astype(np.float64) * 2.0**-52 - 1


def network(kind: str, settings: dict[str, Any]) -> torch.nn.Module:
    """A network of this kind, in float64, with weights of its parameters' names."""
    special = settings.get("ts2net", {})
    ts2net = {"shift_layers": (1, 2), "selected": 2, "samples": 40, **special}
    config = {"kind": kind, "trunk": {"sizes": SIZES, "weights": None}, "words": 10, "frames": FRAMES,
              "temporal_layers": 2, **settings, "ts2net": ts2net}  # fmt: skip
    if kind in ("ce", "moee"):
        config = {"kind": kind, "experts": {**EXPERTS, **settings.get("experts", {})}}
    made = build_network(NetworkConfig.model_validate(config)).double()
    for name, parameter in made.named_parameters():
        values = uniform(name, parameter.numel()).reshape(parameter.shape)
        fan = values.size // len(values) if values.ndim > 1 else 1
        centre = 1.0 if values.ndim == 1 and name.endswith("weight") else 0.0  # of a LayerNorm
        parameter.data = torch.from_numpy(np.asarray(centre + (0.3 if values.ndim < 2 else (3 / fan) ** 0.5) * values))
    return made


@torch.inference_mode()
def answers(kind: str, settings: dict[str, Any]) -> Numbers:
    """Scores [4,4] and frame logits [4,F] (None without) of a network of this kind."""
    made = network(kind, settings)
    if isinstance(made, ExpertNetwork):
        return expert_answers(made)
    teacher = NetworkTeacher("golden", made)  # type: ignore[arg-type]
    size = SIZES["image_size"]
    pixels = 127.5 * (1 + uniform("frames", len(SHOWN) * FRAMES * 3 * size * size))
    frames = torch.from_numpy(pixels.astype(np.uint8)).view(len(SHOWN), FRAMES, 3, size, size)
    mask = torch.arange(FRAMES) < torch.tensor(SHOWN)[:, None]
    times = torch.arange(float(FRAMES)).expand(len(SHOWN), -1).masked_fill(~mask, torch.nan)
    texts, videos = teacher.encode_texts(CAPTIONS), teacher.encode_videos(frames, mask, times)
    logits = teacher.frame_logits(texts, videos)
    return {
        "scores": teacher.score(texts, videos).tolist(),
        "frame_logits": None if logits is None else logits.tolist(),
    }


def words(captions: Sequence[str]) -> torch.Tensor:
    """Words that stand for captions [T, 5, 8]."""
    return torch.stack([torch.from_numpy(uniform(caption, 40)).view(5, 8) for caption in captions])


def expert_answers(made: ExpertNetwork) -> Numbers:
    """As `answers`, of features and words."""
    teacher, there = ExpertTeacher("golden", made, words, "words"), torch.tensor(MISSING)
    values = torch.from_numpy(uniform("experts", 4 * 36)).view(4, 36)
    scores = teacher.score(teacher.encode_texts(CAPTIONS), teacher.encode_videos(values, there, torch.zeros(4, 1)))
    return {"scores": scores.tolist(), "frame_logits": None}


def moved(kept: Numbers, now: Numbers) -> str | None:
    """What differs by more than rounding, or None."""
    for key in ("scores", "frame_logits"):
        before, after = (np.array(numbers[key] or [], np.float64) for numbers in (kept, now))
        if before.shape != after.shape:
            return f"{key} {list(before.shape)} are {list(after.shape)} now"
        apart = np.abs(after - before) / (1 + np.abs(before))
        if not (apart <= TOLERANCE).all():
            return f"{key} moved by up to {apart.max():.2g}"
    return None


def kept() -> dict[str, Any]:
    return json.loads(FILE.read_text()) if FILE.exists() else {}


def renew() -> None:
    """Write the numbers anew.

    Raises:
        SystemExit: numbers moved under the same version.
    """
    before, now = kept(), {}
    for kind, cases in CASES.items():
        version = network_class(kind).score_version
        now[kind] = {"score_version": version, "cases": {name: answers(kind, one) for name, one in cases.items()}}
        old = before.get(kind, {"score_version": None, "cases": {}})
        for name, numbers in old["cases"].items():
            if old["score_version"] == version and name in cases and (why := moved(numbers, now[kind]["cases"][name])):
                sys.exit(f"{kind}, {name}: {why}: raise score_version of {network_class(kind).__name__} first")
    FILE.write_text(json.dumps(now, indent=None, separators=(",", ":")).replace('},"', '},\n"') + "\n")


def test_every_kind_has_its_numbers() -> None:
    assert set(CASES) == set(KINDS)
    assert {kind: set(cases) for kind, cases in CASES.items()} == {
        kind: set(numbers["cases"]) for kind, numbers in kept().items()
    }


@pytest.mark.parametrize(("kind", "case"), [(kind, case) for kind, cases in CASES.items() for case in cases])
def test_scores_move_only_with_the_version(kind: str, case: str) -> None:
    version, numbers = network_class(kind).score_version, kept()[kind]
    renewing = "python -m tests.models.test_score_versions"
    assert version == numbers["score_version"], f"score_version of {kind} is new: renew its numbers with {renewing}"
    why = moved(numbers["cases"][case], answers(kind, CASES[kind][case]))
    assert why is None, (
        f"{kind}, {case}: {why}, under the same score_version {version}. If that was not meant, find out why. If it "
        f"was, raise score_version of {network_class(kind).__name__} (the caches that exist are then refused), and "
        f"renew the numbers with {renewing}"
    )


@pytest.mark.parametrize("kind", CASES)
def test_settings_that_change_scores_have_other_digests(kind: str) -> None:
    """What is told apart here without a version is told apart by the digest of weights and settings."""
    digests = {name: network_digest(network(kind, one)) for name, one in CASES[kind].items()}  # type: ignore[arg-type]
    assert len(set(digests.values())) == len(digests)


if __name__ == "__main__":
    renew()
