"""Every model and every pair of open_clip's lists, without weights and without memory; the table of the families."""

import importlib.util
from collections import defaultdict
from pathlib import Path

import open_clip
import pytest
import torch
from teachclip.configs.schema import TrunkConfig
from teachclip.stages.models.clip.base import Trunk
from teachclip.stages.models.clip.catalog import description, resolved
from teachclip.stages.models.clip.described import Described
from teachclip.stages.models.clip.towers import OpenClipTrunk, ReadAsZero
from teachclip.stages.models.clip.trunk import ClipTrunk

PAGE = Path(__file__).parents[4] / "docs/guide/trunks.md"
MODELS = [model for model in open_clip.list_models() if not model.startswith("tiny ")]
PAIRS = open_clip.list_pretrained()
HAS_TRANSFORMERS = importlib.util.find_spec("transformers") is not None
NEED_TRANSFORMERS = {model for model in MODELS if Described(open_clip.get_model_config(model)).needs_transformers}
NEED_ITS_TOWERS = {model for model in MODELS if open_clip.get_model_config(model)["text_cfg"].get("hf_model_name")}
ONE_OF_EACH = (
    "ViT-B-32", "ViT-B-16-SigLIP", "MobileCLIP-S1", "PE-Core-T-16-384", "EVA02-B-16", "ViTamin-S", "convnext_tiny",
    "RN50", "coca_ViT-B-32", "ViT-L-14-CLIPA", "ViT-L-14-worldwide", "swin_base_patch4_window7_224",
    pytest.param(
        "roberta-ViT-B-32", marks=pytest.mark.skipif(not HAS_TRANSFORMERS, reason="transformers is not installed")
    ),
)  # fmt: skip


def on_meta(config: TrunkConfig) -> Trunk:
    """Without memory; what is computed has shapes and no numbers."""
    found = resolved(config)
    with torch.device("meta"):
        if found.sizes is not None:
            return ClipTrunk(found.sizes)
        assert found.towers is not None
        return OpenClipTrunk(found.towers)


@torch.no_grad()
def check(model: str) -> None:
    """Features of frames and sentences of the shapes that they should have, and words where they are said to be."""
    trunk = on_meta(TrunkConfig(model=model, weights=None)).eval()
    config = open_clip.get_model_config(model)
    pixels = torch.empty(2, 3, trunk.image_size, trunk.image_size, device="meta")
    assert trunk.encode_frames(pixels).shape == (2, config["embed_dim"])
    slots = trunk.word_slots(min(12, trunk.context_length))
    ids = torch.empty(3, slots, dtype=torch.long, device="meta")
    if isinstance(trunk, ClipTrunk):  # which looks for the last word
        assert trunk.encode_words(ids)[1].shape == (3, config["embed_dim"])
        return
    with ReadAsZero():  # transformers asks whether there is padding
        assert trunk.encode_sentences(ids).shape == (3, config["embed_dim"])
    if trunk.words:
        assert trunk.encode_words(ids)[0].shape == (3, slots, config["embed_dim"])


@pytest.mark.parametrize("model", ONE_OF_EACH)
def test_one_model_of_each_family_is_built(model: str) -> None:
    check(model)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_every_model_is_built(model: str) -> None:
    if model in NEED_ITS_TOWERS and not HAS_TRANSFORMERS:
        pytest.skip("transformers is not installed")
    check(model)


def test_every_pair_is_resolved_as_its_weights_were_trained() -> None:
    for model, tag in PAIRS:
        found, source = resolved(TrunkConfig(model=model, weights=tag)), open_clip.get_pretrained_cfg(model, tag)
        assert found.tag == tag
        made = found.sizes.quick_gelu if found.sizes else found.towers.get("quick_gelu", False)
        assert made == source.get("quick_gelu", False), (model, tag)
        pixels = found.pixels.model_dump()
        assert pixels == {key: source[key] for key in pixels}, (model, tag)


def test_how_many_need_transformers() -> None:
    """As the page says."""
    text = PAGE.read_text(encoding="utf-8")
    without = [pair for pair in PAIRS if pair[0] not in NEED_TRANSFORMERS]
    said = f"{len(MODELS) - len(NEED_TRANSFORMERS)} of the {len(MODELS)} models and {len(without)} of the {len(PAIRS)}"
    assert said in " ".join(text.split())


def rows() -> list[str]:
    """The families as the page has them."""
    families: dict[str, list[str]] = defaultdict(list)
    for model in MODELS:
        families[description(resolved(TrunkConfig(model=model, weights=None))).family].append(model)
    return [_row(family, models) for family, models in sorted(families.items(), key=lambda item: -len(item[1]))]


def _row(family: str, models: list[str]) -> str:
    own = [description(resolved(TrunkConfig(model=model, weights=None))) for model in models]
    pairs = [pair for pair in PAIRS if pair[0] in models]
    sizes = sorted({each.image_size for each in own})
    modes = sorted({resolved(TrunkConfig(model=m, weights=t)).pixels.resize_mode for m, t in pairs})
    cells = [
        family,
        str(len(models)),
        str(len(pairs)),
        f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}",
        ", ".join(modes) or "shortest",
        _some([each.words for each in own]),
        _some([each.patches for each in own]),
        _some([each.needs_transformers for each in own]),
    ]
    return f"| {' | '.join(cells)} |"


def _some(values: list[bool]) -> str:
    count = sum(values)
    return "yes" if count == len(values) else "no" if not count else f"{count} of {len(values)}"


def test_the_page_has_the_table_of_the_families() -> None:
    section = PAGE.read_text(encoding="utf-8").split("## The families")[1].split("\n\nWithout")[0]
    table = [line for line in section.splitlines() if line.startswith("|")][2:]
    assert table == rows(), "\n".join(rows())
