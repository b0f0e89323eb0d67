"""Counted operations and bytes: equal to hand formulas, and at full size what they always were."""

from collections.abc import Callable

import pytest
import torch
from teachclip.configs.schema import NetworkConfig, TrunkConfig, TrunkSizes
from teachclip.stages.analysis.cost.network import VECTORS, count_network
from teachclip.stages.analysis.cost.table import standard
from teachclip.stages.models.build import build_network
from teachclip.stages.models.teachers import xclip
from torch.utils.flop_counter import FlopCounterMode

type Formula = Callable[[int, int, int], int]

SIZES = TrunkSizes(
    image_size=24, patch_size=8, vision_width=48, vision_layers=3, vision_heads=2, text_width=40, text_heads=2,
    text_layers=2, embed_dim=64, context_length=12, vocab_size=50,
)  # fmt: skip


def small(
    kind: str = "student",
    frames: int = 4,
    words: int = 6,
    width: int = 64,
    layers: int | None = None,
    **changes: object,
) -> NetworkConfig:
    depth = {} if layers is None else {"vision_layers": layers, "text_layers": layers}
    trunk = TrunkConfig(sizes=SIZES.model_copy(update={"embed_dim": width, **depth}), weights=None)
    content = {"kind": kind, "frames": frames, "words": words, "temporal_layers": 2, "trunk": trunk, **changes}
    return NetworkConfig.model_validate({"ts2net": {"shift_layers": (), "samples": 5}, **content})


def block(tokens: int, width: int) -> int:
    """Multiply-adds of a transformer block: q, k, v and output, two products with the tokens, a hidden layer of 4."""
    return 4 * width**2 * tokens + 2 * tokens**2 * width + 8 * width**2 * tokens


def last_block(tokens: int, width: int) -> int:
    """The same, computed for the class token alone; all tokens are keys and values."""
    return 2 * width**2 * tokens + 2 * width**2 + 2 * tokens * width + 8 * width**2


# Of one pair, by frames F, words W, width D; and of one search, whatever its videos.
PAIRS: dict[str, Formula] = {
    "student": lambda F, W, D: D,
    "openclip": lambda F, W, D: D,
    "ts2net": lambda F, W, D: F * D,
    "drl": lambda F, W, D: W * F * D + W + F,
    "xpool": lambda F, W, D: 2 * F * D + 3 * F**2 + 3 * F,
    "xclip": lambda F, W, D: D * (1 + W) * (1 + F) + 2 * W**2 + 2 * F**2 + F * W**2 + W * F**2,
}
SEARCHES: dict[str, Formula] = {
    "xpool": lambda F, W, D: D**2 + 6 * D,
    "xclip": lambda F, W, D: D**2 * (1 + W),
}


@pytest.mark.parametrize(("frames", "words", "width"), [(4, 6, 64), (8, 6, 64), (5, 11, 128)])
@pytest.mark.parametrize("kind", PAIRS)
def test_a_pair_costs_what_its_formula_says(kind: str, frames: int, words: int, width: int) -> None:
    found = count_network(small(kind, frames, words, width, layers=1, temporal_layers=0))
    assert found.pair == PAIRS[kind](frames, words, width)
    assert found.query == SEARCHES.get(kind, lambda *_: 0)(frames, words, width)


def test_x_pool_as_published_pools_for_every_pair() -> None:
    F, D = 4, 64
    assert count_network(small("xpool"), published_form=True).pair == 2 * F * D + 2 * D**2 + D


@pytest.mark.parametrize("pooling", ["afa", "mean"])
@pytest.mark.parametrize("frames", [4, 5])
def test_encoding_costs_what_its_layers_do(pooling: str, frames: int) -> None:
    found = count_network(small(frames=frames, pooling=pooling))
    patches, vision, text, D, words = 9, 48, 40, 64, 6
    image = 3 * 8**2 * vision * patches + 2 * block(patches + 1, vision) + last_block(patches + 1, vision) + vision * D
    pool = frames * D + (frames * (D**2 + D) if pooling == "afa" else 0)
    assert found.video == frames * image + 2 * block(frames, D) + pool
    assert found.text == 2 * block(words, text) + text * D


@pytest.mark.parametrize("kind", ["student", "openclip", "xclip", "ts2net", "xpool"])
def test_a_real_search_does_what_was_counted(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xclip, "_can_be_shared", lambda _: False)  # what a CPU does beside, a GPU does not
    config, videos = small(kind), 7
    found = count_network(config)
    network = build_network(config).eval()
    ids = torch.tensor([[48, 3, 4, 5, 6, 49]])
    frames = torch.randint(256, (videos, 4, 3, 24, 24), dtype=torch.uint8)
    texts, encoded = network.encode_texts(ids), network.encode_videos(frames, torch.ones(videos, 4, dtype=torch.bool))
    with FlopCounterMode(display=False, custom_mapping=VECTORS) as counter:
        network.score(texts, encoded)
    assert counter.get_total_flops() == 2 * (found.query + videos * found.pair)


@pytest.mark.parametrize(
    ("kind", "shapes"),
    [
        ("student", {"vector": (64,)}),
        ("openclip", {"vector": (64,)}),
        ("xclip", {"vector": (64,), "frames": (4, 64)}),
        ("ts2net", {"frames": (4, 64), "matched": (4,)}),
        ("drl", {"frames": (4, 64), "weights": (4,), "mask": (4,)}),
    ],
)
def test_only_what_a_score_needs_is_stored(kind: str, shapes: dict[str, tuple[int, ...]]) -> None:
    found = count_network(small(kind))
    assert {each.name: each.shape for each in found.stored} == shapes
    numbers = sum(torch.Size(shape).numel() for name, shape in shapes.items() if name != "mask")
    masks = 4 * ("mask" in shapes)
    assert (found.bytes_float32, found.bytes_float16) == (4 * numbers + masks, 2 * numbers + masks)


FULL = {  # parameters, pair, once per search, video, text, bytes in float32 and in float16
    "student (AFA)": (164_189_442, 512, 0, 49_547_157_504, 1_220_804_608, 2048, 1024),
    "CLIP4Clip (mean)": (163_926_273, 512, 0, 49_544_005_632, 1_220_804_608, 2048, 1024),
    "CLIP as it is": (151_277_313, 512, 0, 49_392_420_864, 1_220_804_608, 2048, 1024),
    "X-CLIP": (164_454_065, 238_880, 8_650_752, 49_544_005_632, 1_228_931_072, 26_624, 13_312),
    "TS2-Net": (164_189_697, 6144, 0, 53_907_133_440, 1_220_804_608, 24_624, 12_312),
    "X-Pool": (152_593_665, 12_756, 265_216, 49_405_499_392, 1_221_066_752, 51_072, 25_536),
    "DRL": (164_452_611, 196_652, 0, 49_547_151_360, 1_237_336_064, 24_636, 12_324),
}


@pytest.mark.parametrize("name", FULL)
def test_full_size_networks_are_counted_without_weights(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("weights were asked for")

    monkeypatch.setattr("teachclip.stages.models.clip.loading._load", refuse)
    config = standard()[name]
    named = config.model_copy(update={"trunk": config.trunk.model_copy(update={"weights": "openai"})})
    found = count_network(named)
    expected = (found.parameters, found.pair, found.query, found.video, found.text)
    assert (*expected, found.bytes_float32, found.bytes_float16) == FULL[name]


@pytest.mark.parametrize(("kind", "video", "text", "width"), [
    # A sequence's pooling; reductions; four pairs of three layers; a gate each. The text's pooling; units; weights.
    ("ce", 2 * 3 * 5 * 2 + (10 + 7) * 8 + 4 * (16 + 8 + 8) * 8 + 2 * 8 * 8,
     6 * 4 * 4 + 6 * 4 * 3 + 2 * (12 + 8) * 8 + 12 * 2, 16),
    ("moee", 2 * 3 * 5 * 2 + (10 + 5) * 5 + (7 + 7) * 7,
     6 * 4 * 4 + 6 * 4 * 3 + (12 + 5) * 5 + (12 + 7) * 7 + 12 * 2, 12),
])  # fmt: skip
def test_networks_on_experts(kind: str, video: int, text: int, width: int) -> None:
    modalities = {"a": {"width": 5, "tokens": 3, "clusters": 2}, "b": {"width": 7}}
    words = {"width": 4, "words": 6, "clusters": 3, "ghosts": 1}
    experts = {"modalities": modalities, "shared": 8, "text": words}
    config = NetworkConfig.model_validate({"kind": kind, "experts": experts})
    found = count_network(config)
    assert (found.video, found.text, found.query) == (video, text, 0)
    assert found.pair == width + 2  # products of the vectors, and of the weights of the experts that are there
    assert [(each.name, each.shape) for each in found.stored] == [("vectors", (width,)), ("available", (2,))]
    assert (found.bytes_float32, found.bytes_float16) == (4 * width + 2, 2 * width + 2)
    assert found.parameters == sum(each.numel() for each in build_network(config).parameters())
