"""open_clip's models by name: their sizes, and where their weights lie."""

import os
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import open_clip
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

from ....configs.schema import TrunkConfig, TrunkSizes
from ....errors import CheckpointError, ConfigError, UnreachableError
from .hub import HUB, cached_file, cached_weights, quiet_hub, why_out_of_reach

_DESCRIBED = {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu"}
_VISION_DESCRIBED = {"image_size", "layers", "width", "head_width", "patch_size", "mlp_ratio"}
_TEXT_DESCRIBED = {"context_length", "vocab_size", "width", "heads", "layers"}


def named_sizes(model: str) -> TrunkSizes:
    """The sizes of an open_clip model made of open_clip's own ViT and text transformer.

    Raises:
        ConfigError: no such model, or one that is made of something else (timm, ResNet, Hugging Face text, CoCa).
        UnreachableError: a model of the hub (`hf-hub:org/repo`) that is not here, and the hub does not answer.
    """
    if model.startswith("local-dir:"):  # a place that no other machine knows, and no digest
        raise ConfigError(
            "a folder of open_clip's is not read as a model",
            where="train.network.trunk.model",
            hint="give the trunk's `sizes`, and the file in the folder as its `weights`",
        )
    config = _of_hub(model) if model.startswith(HUB) else open_clip.get_model_config(model)
    if config is None:
        near = get_close_matches(model, open_clip.list_models(), n=3)
        raise ConfigError(
            f"open_clip has no model {model!r}",
            where="train.network.trunk.model",
            hint=f"did you mean {' or '.join(near)}?" if near else "ViT-B-32-quickgelu is one it has",
        )
    vision, text = config["vision_cfg"], config["text_cfg"]
    foreign = [*(set(config) - _DESCRIBED), *(set(vision) - _VISION_DESCRIBED), *(set(text) - _TEXT_DESCRIBED)]
    if isinstance(vision.get("layers"), list):
        foreign.append("ResNet")
    if foreign:
        raise ConfigError(
            f"{model!r} is not made of open_clip's plain ViT and text transformer: {', '.join(sorted(foreign))}",
            where="train.network.trunk.model",
            hint="choose a plain one: ViT-B-32-quickgelu, ViT-B-16-quickgelu, ViT-L-14-quickgelu",
        )
    heads = vision["width"] // vision.get("head_width", 64)
    return TrunkSizes(
        image_size=vision["image_size"],
        patch_size=vision["patch_size"],
        vision_width=vision["width"],
        vision_layers=vision["layers"],
        vision_heads=heads,
        vision_mlp_ratio=vision.get("mlp_ratio", 4.0),
        text_width=text["width"],
        text_layers=text["layers"],
        text_heads=text["heads"],
        embed_dim=config["embed_dim"],
        context_length=text.get("context_length", 77),
        vocab_size=text.get("vocab_size", 49408),
        quick_gelu=config.get("quick_gelu", False),
    )


def _of_hub(model: str) -> dict[str, Any]:
    """The configuration of a model on the hub, from the copy that is here or from there."""
    where = "train.network.trunk.model"
    hint = "choose one of open_clip's own models, such as ViT-B-32-quickgelu, or give the trunk's `sizes`"
    name = "open_clip_config.json"
    try:
        file = cached_file(model.removeprefix(HUB), name)
        if file is None and (reason := why_out_of_reach(model.removeprefix(HUB), name)) is not None:
            raise UnreachableError(f"{model} cannot be looked up", where=where, details=[reason], hint=hint)
        with quiet_hub():
            found = open_clip.get_model_config(f"local-dir:{file.parent}" if file else model)
        if not {"embed_dim", "vision_cfg", "text_cfg"} <= set(found):
            raise ValueError(f"its {name} describes no CLIP")
    except UnreachableError:
        raise
    except Exception as error:  # a repository that is not there shows as many kinds of errors
        reason = f"{type(error).__name__}: {error}".split("\n")[0]
        raise ConfigError(f"{model} is no model of open_clip's", where=where, details=[reason], hint=hint) from error
    return dict(found)


def weights_file(config: TrunkConfig, sizes: TrunkSizes) -> Path | None:
    """The file of the trunk's weights, fetched when `config.weights` is an open_clip tag; None for random weights.

    Raises:
        ConfigError: neither a file nor a tag of this model, or a tag trained with another activation.
        CheckpointError: the tag's file cannot be fetched.
    """
    if config.weights is None:
        return None
    path = Path(config.weights)
    if path.exists():
        return path / "best.safetensors" if path.is_dir() else path
    tags = [] if config.sizes else open_clip.list_pretrained_tags_by_model(config.model)
    if config.weights not in tags:
        raise ConfigError(
            f"{config.weights!r} is no file" + ("" if config.sizes else f", and no weights of {config.model}"),
            where="train.network.trunk.weights",
            hint=_instead(config, tags),
        )
    source = open_clip.get_pretrained_cfg(config.model, config.weights)
    if source.get("quick_gelu", False) != sizes.quick_gelu:
        other = config.model.removesuffix("-quickgelu") if sizes.quick_gelu else f"{config.model}-quickgelu"
        raise ConfigError(
            f"the weights {config.weights!r} were trained with another activation than {config.model} has",
            where="train.network.trunk",
            hint=f"use model: {other}",
        )
    _refuse_other_pixels(config, source)
    return _fetch(config.model, config.weights, source)


def _instead(config: TrunkConfig, tags: Sequence[str]) -> str:
    """What can stand for weights that are neither a file nor a tag."""
    if str(config.weights).startswith(HUB):
        return "weights are not fetched by the name of a repository: fetch its file, and name the file here"
    if config.sizes:
        return "with `sizes`, name a file or use null"
    return f"its weights: {', '.join(tags)}" if tags else "open_clip knows no weights of it: name a file or use null"


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else value


def _refuse_other_pixels(config: TrunkConfig, source: dict[str, Any]) -> None:
    """Frames are normalised, resized and cropped as OpenAI's CLIP has them, whatever the weights."""
    wanted = {
        "mean": OPENAI_DATASET_MEAN,
        "std": OPENAI_DATASET_STD,
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    other = [key for key, value in wanted.items() if _plain(source.get(key)) not in (None, _plain(value))]
    if other:
        raise ConfigError(
            f"the weights {config.weights!r} of {config.model} were trained on pixels prepared otherwise: "
            + ", ".join(other),
            where="train.network.trunk.weights",
            hint="choose weights trained with CLIP's own normalisation, such as openai",
        )


def _fetch(model: str, tag: str, source: dict[str, Any]) -> Path:
    if source.get("hf_hub"):
        if (here := cached_weights(source["hf_hub"])) is not None:
            return here
        if (reason := why_out_of_reach(*os.path.split(source["hf_hub"]))) is not None:
            raise _not_fetched(model, tag, source, reason)
    try:
        with quiet_hub():
            return Path(open_clip.download_pretrained(source))
    except Exception as error:  # a missing network shows as many kinds of errors
        raise _not_fetched(model, tag, source, f"{type(error).__name__}: {error}".split("\n")[0]) from error


def _not_fetched(model: str, tag: str, source: dict[str, Any], reason: str) -> CheckpointError:
    places = [source[key] for key in ("url", "hf_hub") if source.get(key)]
    return CheckpointError(
        f"the weights {tag!r} of {model} cannot be downloaded",
        details=[f"the file: {place}" for place in places] + [reason],
        hint="fetch it on another machine and set train.network.trunk.weights to where it lies here",
    )
