"""A dual encoder of the transformers library as a teacher, without training: CLIP, SigLIP, ALIGN, Chinese-CLIP ..."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from ....configs.schema import TeacherConfig
from ....errors import CheckpointError
from ....remedies import OTHER, Prepare, Remedy
from ...runtime.device import plain_float32
from ...runtime.plugins import needs
from ..checkpoints.published import FRAMES
from ..common.network import Features, masked_mean
from .model_files import ModelFiles, find_model, loading, open_tokenizer, refuse_lack, refuse_random

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_MOST_TOKENS = 77  # where a text tower takes more: a caption is a sentence
_PROCESSORS = {"preprocessor_config.json", "processor_config.json"}
_NEEDS_VIDEO = "its sentence features depend on the video, so that neither is computed once: it has no pair apart"


class DualEncoder:
    """Cosines of sentences with the mean of a video's unit frames, and with each frame (a `Teacher`).

    Pixels are what the model's own image processor makes of the stored frames, tokens its own tokenizer's, padded to a
    fixed length: the features are the library's `get_image_features` and `get_text_features`.

    Raises:
        ConfigError: transformers is not installed, or there is no such folder.
        CheckpointError: it is no dual encoder, lacks something, or cannot be loaded.
        UnreachableError: the hub does not answer.
    """

    score_version = 1

    def __init__(self, config: TeacherConfig, device: torch.device) -> None:
        assert config.transformers is not None
        self.name, self.frames, self._device = config.name, config.frames or FRAMES, device
        where = f"score.teachers.{config.name}.transformers"
        needs("transformers", "hf", where)
        files = find_model(config.transformers.model, config.transformers.revision, f"{where}.model")
        self.weights_digest = files.digest
        with loading(config.transformers.model, where):
            self._model = _model(files, where).to(device)
            self._tokenizer = open_tokenizer(files, where)
            self._processor = _processor(files, where)
        self.words = _tokens(self._tokenizer, self._model, where)
        self.scale = _scale(self._model, where)

    @torch.no_grad()
    def encode_videos(self, frames: Tensor, mask: Tensor, times: Tensor) -> Features:
        """`vector` [V, D] and `frames` [V, F, D], unit length; times are not used.

        Raises:
            CheckpointError: another number of frames than it was given.
        """
        if frames.shape[1] != self.frames:
            raise CheckpointError(
                f"teacher {self.name!r} takes {self.frames} frames; these are {frames.shape[1]}",
                hint=Remedy(
                    "set its `frames`, or prepare others for it and name them as its `prepared`",
                    Prepare({"prepare.max_frames": self.frames, "prepare.frames": OTHER}),
                ),
            )
        with plain_float32(self._device):
            pixels = self._processor(images=list(frames.flatten(0, 1)), return_tensors="pt").to(self._device)
            unit = _unit(self._model.get_image_features(**pixels)).view(*mask.shape, -1)
            return {"vector": functional.normalize(masked_mean(unit, mask), dim=-1), "frames": unit}

    @torch.no_grad()
    def encode_texts(self, captions: Sequence[str]) -> Features:
        """`vector` [T, D], unit length."""
        with plain_float32(self._device):
            tokens = self._tokenizer(
                list(captions), padding="max_length", truncation=True, max_length=self.words, return_tensors="pt"
            ).to(self._device)
            return {"vector": _unit(self._model.get_text_features(**tokens))}

    @torch.no_grad()
    def score(self, texts: Features, videos: Features) -> Tensor:
        """Cosines [T, V]."""
        with plain_float32(self._device):
            return texts["vector"] @ videos["vector"].T

    @torch.no_grad()
    def frame_logits(self, texts: Features, videos: Features) -> Tensor:
        """Cosines [T, F] of sentence i with the frames of video i; of padded frames too."""
        with plain_float32(self._device):
            return torch.einsum("td,tfd->tf", texts["vector"], videos["frames"])

    @property
    def pixels(self) -> str:
        """What its image processor makes of a picture, in words."""
        said = self._processor
        size = dict(getattr(said, "size", None) or {})
        wanted = "x".join(str(size[key]) for key in ("height", "width") if key in size) or size.get("shortest_edge")
        how = "cut to its middle" if getattr(said, "do_center_crop", False) else "whole"
        mean = ", ".join(f"{value:.3g}" for value in getattr(said, "image_mean", None) or ())
        return f"{wanted} pixels, {how}, mean {mean}" if wanted and mean else type(said).__name__


def _unit(found: Any) -> Tensor:
    """Features [N, D] of unit length; the library wraps them from version 5 on."""
    features: Tensor = found if isinstance(found, Tensor) else found.pooler_output
    return functional.normalize(features.float(), dim=-1)


def _model(files: ModelFiles, where: str) -> "PreTrainedModel":
    from transformers import AutoConfig, AutoModel

    settings = AutoConfig.from_pretrained(files.folder, local_files_only=True, trust_remote_code=False)
    if settings.model_type == "xclip":
        raise CheckpointError(f"{files.folder.name} is an X-CLIP of transformers: {_NEEDS_VIDEO}", where=where)
    model, found = AutoModel.from_pretrained(
        files.folder,
        config=settings,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        dtype=torch.float32,
        output_loading_info=True,
    )
    lacking = [name for name in ("get_image_features", "get_text_features") if not hasattr(model, name)]
    if lacking:
        what = (
            f"{type(model).__name__} is no dual encoder of pictures and sentences: it has no {' and no '.join(lacking)}"
        )
        raise CheckpointError(what, where=where)
    refuse_random(found["missing_keys"], where)
    return model.eval().requires_grad_(False)


def _processor(files: ModelFiles, where: str) -> Any:
    from transformers import AutoImageProcessor

    refuse_lack(files, _PROCESSORS, "image processor", where)
    return AutoImageProcessor.from_pretrained(files.folder, local_files_only=True, trust_remote_code=False)


def _tokens(tokenizer: Any, model: "PreTrainedModel", where: str) -> int:
    """Tokens of a caption: what the text tower takes, 77 at most."""
    settings = model.config.get_text_config()
    if len(tokenizer) > settings.vocab_size:
        what = f"its tokenizer knows {len(tokenizer):,} tokens, its text tower {settings.vocab_size:,}"
        raise CheckpointError(f"{what}: they are of two models", where=where)
    positions = getattr(settings, "max_position_embeddings", _MOST_TOKENS)
    return int(min(positions, tokenizer.model_max_length, _MOST_TOKENS))


def _scale(model: "PreTrainedModel", where: str) -> float:
    """exp(logit_scale), or 1 / temperature."""
    known: Mapping[str, Any] = {key: getattr(model, key, None) for key in ("logit_scale", "temperature")}
    if known["logit_scale"] is not None:
        return float(known["logit_scale"].exp())
    if known["temperature"] is not None:
        return 1 / float(known["temperature"])
    raise CheckpointError(f"{type(model).__name__} has no logit scale: what its cosines mean is not known", where=where)
