"""One tiny model of every family that open_clip builds, under names that it knows meanwhile; weights are random."""

from collections.abc import Callable
from functools import partial
from typing import Any

import open_clip
import pytest
import timm
import torch
from open_clip.model import CLIP, CustomTextCLIP
from timm.layers import LayerNorm
from timm.models import eva, fastvit, swin_transformer, vision_transformer, vitamin
from torch import nn

SIZE = 64  # of images; timm's pyramids need so many

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
BOTH_WAYS = TEXT | {"no_causal_mask": True}
VISION = {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16}
_EVA = {
    "img_size": 32, "patch_size": 16, "embed_dim": 64, "depth": 2, "num_heads": 2, "use_rot_pos_emb": True,
    "ref_feat_shape": (2, 2),
}  # fmt: skip


def _timm(name: str, size: int, **settings: Any) -> dict[str, Any]:
    return {"timm_model_name": name, "timm_pool": "", "timm_proj": "linear", "image_size": size, **settings}


FAMILIES: dict[str, dict[str, Any]] = {
    "SigLIP": {
        "init_logit_bias": -10, "custom_text": True,
        "vision_cfg": _timm("tiny_siglip", 32, timm_pool="map", timm_proj="none"),
        "text_cfg": BOTH_WAYS | {"proj_bias": True, "pool_type": "last", "norm_kwargs": {"eps": 1e-6}},
    },
    "MobileCLIP": {
        "custom_text": True, "vision_cfg": _timm("tiny_fastvit", SIZE, timm_pool="avg", timm_proj=None),
        "text_cfg": BOTH_WAYS,
    },
    "PE-Core": {
        "custom_text": True, "vision_cfg": _timm("tiny_pe", 32, timm_pool="map", timm_proj=None), "text_cfg": TEXT,
    },
    "EVA": {
        "custom_text": True, "vision_cfg": _timm("tiny_eva", 32, timm_pool="token", timm_proj=None), "text_cfg": TEXT,
    },
    "ViTamin": {
        "custom_text": True, "vision_cfg": _timm("tiny_vitamin", SIZE, timm_drop_path=0.1), "text_cfg": TEXT,
    },
    "ConvNeXt": {"vision_cfg": _timm("test_convnext", SIZE, timm_drop_path=0.1), "text_cfg": TEXT},
    "Swin": {"vision_cfg": _timm("tiny_swin", SIZE), "text_cfg": TEXT},
    "ResNet": {
        "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 64, "patch_size": None},
        "text_cfg": TEXT, "quick_gelu": True,
    },
    "CoCa": {
        "custom_text": True,
        "vision_cfg": VISION | {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
        "text_cfg": TEXT | {"embed_cls": True, "output_tokens": True},
        "multimodal_cfg": TEXT | {"attn_pooler_heads": 2},
    },
    "CLIPA": {
        "vision_cfg": VISION | {"no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True},
        "text_cfg": BOTH_WAYS | {"pool_type": "last"},
    },
    "multilingual ViT": {"vision_cfg": VISION, "text_cfg": TEXT | {"pool_type": "eos", "eos_id": 49407}},
}  # fmt: skip
"""By family; text towers of Hugging Face's stand in `test_hugging_face.py`, as they need its library."""

# timm's own makers, each with a variant that it knows and the settings that make it tiny.
_TIMM: dict[str, tuple[Callable[..., nn.Module], str, dict[str, Any]]] = {
    "tiny_siglip": (
        vision_transformer._create_vision_transformer,
        "vit_base_patch16_siglip_224",
        {"img_size": 32, "patch_size": 16, "embed_dim": 64, "depth": 2, "num_heads": 2, "class_token": False},
    ),
    "tiny_fastvit": (
        fastvit._create_fastvit,
        "fastvit_mci0",
        {
            "layers": (1, 1, 1, 1),
            "embed_dims": (16, 16, 32, 64),
            "mlp_ratios": (2, 2, 2, 2),
            "se_downsamples": (False, False, True, True),
            "pos_embs": (None, None, None, partial(fastvit.RepConditionalPosEnc, spatial_shape=(7, 7))),
            "token_mixers": ("repmixer", "repmixer", "repmixer", "attention"),
            "lkc_use_act": True,
        },
    ),
    "tiny_pe": (
        eva._create_eva,
        "vit_pe_core_tiny_patch16_384",
        _EVA
        | {"attn_type": "rope", "use_pre_transformer_norm": True, "rope_grid_offset": 1.0, "rope_grid_indexing": "xy"}
        | {"attn_pool_num_heads": 2, "attn_pool_mlp_ratio": 4.0, "norm_layer": partial(LayerNorm, eps=1e-5)},
    ),
    "tiny_eva": (
        eva._create_eva,
        "eva02_base_patch16_clip_224",
        _EVA | {"qkv_fused": False, "swiglu_mlp": True, "scale_mlp": True, "scale_attn_inner": True},
    ),
    "tiny_vitamin": (
        vitamin._create_vitamin,
        "vitamin_small_224",
        {
            "img_size": SIZE,
            "embed_dim": 64,
            "depth": 1,
            "num_heads": 2,
            "mlp_layer": vitamin.GeGluMlp,
            "mlp_ratio": 2.0,
            "class_token": False,
            "global_pool": "avg",
            "embed_cfg": vitamin.VitCfg(
                embed_dim=(16, 32, 64),
                depths=(1, 1, 1),
                stem_width=16,
                conv_cfg=vitamin.VitConvCfg(norm_layer="layernorm2d", norm_eps=1e-6),
                head_type="1d",
            ),
        },
    ),
    "tiny_swin": (
        swin_transformer._create_swin_transformer,
        "swin_base_patch4_window7_224",
        {"img_size": SIZE, "window_size": 2, "embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)},
    ),
}


def _entry(name: str) -> Callable[..., nn.Module]:
    make, variant, settings = _TIMM[name]

    def entry(**given: Any) -> nn.Module:
        unasked = ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")
        return make(variant, **settings | {key: value for key, value in given.items() if key not in unasked})

    return entry


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    """open_clip knows the models, timm their image towers."""
    for name in _TIMM:
        monkeypatch.setitem(timm.models._registry._model_entrypoints, name, _entry(name))
    for family, towers in FAMILIES.items():
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, f"tiny {family}", {"embed_dim": 64, **towers})


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    """One family after the other; the model is called `tiny FAMILY`."""
    return str(request.param)


@pytest.fixture
def theirs() -> Callable[[str], CLIP | CustomTextCLIP]:
    """The model as open_clip builds it, in evaluation mode."""

    def make(family: str) -> CLIP | CustomTextCLIP:
        torch.manual_seed(3)
        model = open_clip.create_model(f"tiny {family}", pretrained_text=False)
        with torch.no_grad():  # statistics and scales of their own, so that nothing cancels by accident
            for name, value in model.state_dict().items():
                if value.is_floating_point() and value.ndim == 1 and "logit" not in name:
                    value.add_(0.1 * torch.rand_like(value))
        return model.eval()

    return make
