"""open_clip's models by name: what they are made of, how their weights want pixels, and where these lie."""

import json
import os
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import open_clip
from pydantic import ValidationError

from ....configs.schema import PixelConfig, TrunkConfig, TrunkSizes
from ....errors import CheckpointError, ConfigError, UnreachableError
from ...runtime.reporting import Reporter, Silent
from .described import Described
from .hub import HUB, cached_file, cached_weights, quiet_hub, why_out_of_reach
from .pixels import CLIP_PIXELS
from .tokens import VOCABULARY

_HUB_CONFIG = "open_clip_config.json"
_MODEL = "train.network.trunk.model"
_WEIGHTS = "train.network.trunk.weights"
_QUICK = "-quickgelu"


def resolved(config: TrunkConfig, reporter: Reporter | None = None) -> TrunkConfig:
    """`config` with what open_clip says of its model: `sizes` of a plain ViT, `towers` of any other, with the
    activation and the `pixels` that the weights were trained with; `tag` where the weights are one. Nothing is built,
    and of weights nothing is fetched. What has `sizes` or `towers` already stays as it is.

    Weights of a file want pixels as all of the model's tags do, where these agree, else as OpenAI's do.

    Args:
        reporter: is told of an activation that is not the named model's own.

    Raises:
        ConfigError: there is no such model, or the weights are neither a file nor a tag of it.
        UnreachableError: a model of the hub (`hf-hub:org/repo`) that is not here, and the hub does not answer.
    """
    if config.sizes is not None or config.towers is not None:
        return config
    towers = _described(config.model)
    source = _source(config)
    found: dict[str, Any] = {"model": config.model, "pixels": config.pixels or _pixels(config, source)}
    if source is not None and bool(source.get("quick_gelu")) != bool(towers.get("quick_gelu")):
        towers["quick_gelu"] = bool(source.get("quick_gelu"))
        activation = "QuickGELU" if towers["quick_gelu"] else "GELU"
        (reporter or Silent()).info(
            f"{config.model} is built with {activation}, as its weights {config.weights!r} were trained"
        )
        if towers["quick_gelu"] and config.weights in open_clip.list_pretrained_tags_by_model(
            f"{config.model}{_QUICK}"
        ):
            found["model"] += _QUICK
    sizes = _plain_sizes(towers)
    found |= {"sizes": sizes} if sizes is not None else {"towers": towers}
    return config.model_copy(update=found | {"tag": None if source is None else config.weights})


def description(config: TrunkConfig) -> Described:
    """What the trunk of a resolved configuration is made of and gives."""
    if config.towers is not None:
        return Described(config.towers)
    sizes = config.sizes
    assert sizes is not None
    text = {"context_length": sizes.context_length, "vocab_size": sizes.vocab_size}
    vision = {"image_size": sizes.image_size, "patch_size": sizes.patch_size}
    return Described({"embed_dim": sizes.embed_dim, "vision_cfg": vision, "text_cfg": text})


def weights_file(config: TrunkConfig) -> Path | None:
    """The file of a resolved configuration's weights, fetched when they are an open_clip tag; None for random ones.

    Raises:
        ConfigError: they are neither a file nor a tag of this model.
        CheckpointError: the tag's file cannot be fetched.
    """
    if config.weights is None:
        return None
    path = Path(config.weights)
    if path.exists():
        return path / "best.safetensors" if path.is_dir() else path
    if config.tag != config.weights:
        raise ConfigError(
            f"{config.weights!r} is no file", where=_WEIGHTS, hint=_instead(config.weights, (), "with `sizes`, ")
        )
    return _fetch(config.model, config.weights, open_clip.get_pretrained_cfg(config.model, config.weights))


def _described(model: str) -> dict[str, Any]:
    """open_clip's description, a copy."""
    if model.startswith("local-dir:"):  # a place that no other machine knows, and no digest
        raise ConfigError(
            "a folder of open_clip's is not read as a model",
            where=_MODEL,
            hint="give the trunk's `sizes`, and the file in the folder as its `weights`",
        )
    config = _of_hub(model) if model.startswith(HUB) else open_clip.get_model_config(model)
    if config is None:
        near = get_close_matches(model, open_clip.list_models(), n=3)
        raise ConfigError(
            f"open_clip has no model {model!r}",
            where=_MODEL,
            hint=f"did you mean {' or '.join(near)}?" if near else "ViT-B-32-quickgelu is one it has",
        )
    if not Described(config).square:
        size = config["vision_cfg"]["image_size"]
        raise ConfigError(f"{model} sees images of {size} pixels, and frames are square", where=_MODEL)
    return dict(config)


def _plain_sizes(config: Mapping[str, Any]) -> TrunkSizes | None:
    """The sizes of a model made of open_clip's plain ViT and text transformer; None for any other."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    if not Described(config).plain:
        return None
    return TrunkSizes(
        image_size=Described(config).image_size,
        patch_size=vision["patch_size"],
        vision_width=vision["width"],
        vision_layers=vision["layers"],
        vision_heads=vision["width"] // vision.get("head_width", 64),
        vision_mlp_ratio=vision.get("mlp_ratio", 4.0),
        text_width=text["width"],
        text_layers=text["layers"],
        text_heads=text["heads"],
        embed_dim=config["embed_dim"],
        context_length=text.get("context_length", 77),
        vocab_size=text.get("vocab_size", VOCABULARY),
        quick_gelu=config.get("quick_gelu", False),
    )


def _source(config: TrunkConfig) -> dict[str, Any] | None:
    """What open_clip says of the weights, where they are one of the model's tags; None for files and random weights."""
    if config.weights is None or Path(config.weights).exists():
        return None
    tags = open_clip.list_pretrained_tags_by_model(config.model)
    if config.weights not in tags:
        raise ConfigError(
            f"{config.weights!r} is no file, and no weights of {config.model}",
            where=_WEIGHTS,
            hint=_instead(config.weights, tags),
        )
    return dict(open_clip.get_pretrained_cfg(config.model, config.weights))


def _pixels(config: TrunkConfig, source: Mapping[str, Any] | None) -> PixelConfig:
    if source is not None:
        return _as_pixels(source, config)
    if config.model.startswith(HUB):
        return _as_pixels(_hub_config(config.model).get("preprocess_cfg", {}), config)
    tags = open_clip.list_pretrained_tags_by_model(config.model)
    wanted = [_as_pixels(open_clip.get_pretrained_cfg(config.model, tag), config) for tag in tags]
    return wanted[0] if wanted and all(each == wanted[0] for each in wanted) else CLIP_PIXELS


def _as_pixels(said: Mapping[str, Any], config: TrunkConfig) -> PixelConfig:
    given = {key: said[key] for key in PixelConfig.model_fields if said.get(key) is not None}
    try:
        return PixelConfig.model_validate({key: tuple(v) if isinstance(v, list) else v for key, v in given.items()})
    except ValidationError as error:
        key = ".".join(map(str, error.errors()[0]["loc"][:1]))
        raise ConfigError(
            f"{config.model} wants pixels prepared in a way that there is not here: {key} {given.get(key)!r}",
            where="train.network.trunk.pixels",
            hint="set them yourself: mean, std, interpolation, resize_mode",
        ) from error


def _of_hub(model: str) -> dict[str, Any]:
    """The configuration of a model on the hub, from the copy that is here or from there."""
    hint = "choose one of open_clip's own models, such as ViT-B-32-quickgelu, or give the trunk's `sizes`"
    try:
        file = cached_file(model.removeprefix(HUB), _HUB_CONFIG)
        if file is None and (reason := why_out_of_reach(model.removeprefix(HUB), _HUB_CONFIG)) is not None:
            raise UnreachableError(f"{model} cannot be looked up", where=_MODEL, details=[reason], hint=hint)
        with quiet_hub():
            found = open_clip.get_model_config(f"local-dir:{file.parent}" if file else model)
        if not {"embed_dim", "vision_cfg", "text_cfg"} <= set(found):
            raise ValueError(f"its {_HUB_CONFIG} describes no CLIP")
    except UnreachableError:
        raise
    except Exception as error:  # a repository that is not there shows as many kinds of errors
        reason = f"{type(error).__name__}: {error}".split("\n")[0]
        raise ConfigError(f"{model} is no model of open_clip's", where=_MODEL, details=[reason], hint=hint) from error
    return dict(found)


def _hub_config(model: str) -> dict[str, Any]:
    """The whole file of a model that has just been looked up."""
    file = cached_file(model.removeprefix(HUB), _HUB_CONFIG)
    return {} if file is None else dict(json.loads(file.read_text(encoding="utf-8")))


def _instead(weights: str, tags: Sequence[str], where: str = "") -> str:
    """What can stand for weights that are neither a file nor a tag."""
    if weights.startswith(HUB):
        return "weights are not fetched by the name of a repository: fetch its file, and name the file here"
    if where:
        return f"{where}name a file or use null"
    if near := get_close_matches(weights, tags, n=1):
        return f"did you mean {near[0]}? Its weights: {', '.join(tags)}"
    if others := open_clip.list_pretrained_models_by_tag(weights):
        return f"weights of that name are {', '.join(others[:4])}'s" + (f"; its own: {', '.join(tags)}" if tags else "")
    return f"its weights: {', '.join(tags)}" if tags else "open_clip knows no weights of it: name a file or use null"


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
