"""A re-ranker as a teacher: it reads a sentence and a video together, so that every pair costs a pass of its own.

Scores are therefore sparse: those of the videos that another teacher finds best (stages/score/sparse.py).
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ....configs.schema import TeacherConfig
from ....errors import CheckpointError, PluginError
from ....plurals import counted
from ...runtime.device import plain_float32
from ...runtime.plugins import load_plugin, needs, users_code
from .model_files import MODULES, ModelFiles, find_model, loading
from .own import GROUP, wrong_attributes

if TYPE_CHECKING:
    from PIL.Image import Image

type Document = str | list[Image]
"""What a video is to a re-ranker: a text, or its frames as pictures."""

AT_ONCE = 32
"""Pairs in a pass."""


class CrossEncoder:
    """Scores pairs of a sentence and a video's text or pictures.

    Args:
        config: whose `cross_encoder` names a model of sentence-transformers or a class of the user's own.
        device: where it runs.

    Attributes:
        score_version, weights_digest: as of `Teacher`.

    Raises:
        ConfigError: sentence-transformers is not installed, or there is no such folder or class.
        CheckpointError: it is no re-ranker, or takes no pictures where `video` is frames.
        PluginError: the class lacks something.
        UnreachableError: the hub does not answer.
    """

    score_version = 1

    def __init__(self, config: TeacherConfig, device: torch.device) -> None:
        assert config.cross_encoder is not None
        self.name, self._device = config.name, device
        settings, where = config.cross_encoder, f"score.teachers.{config.name}.cross_encoder"
        self._title = f"teacher {config.name!r} ({settings.model})"
        self._class: Callable[..., Any] | None = None
        if settings.own:
            self._class = load_plugin(settings.model, GROUP, f"{where}.model")
            self._model = self._made(self._class, settings.options)
            return
        needs("sentence_transformers", "hf", where)
        files = find_model(settings.model, settings.revision, f"{where}.model")
        self.weights_digest = files.digest
        with loading(settings.model, where):
            self._model = _model(files, device, where)
            if settings.video == "frames" and not self._model.supports("video"):
                what = f"{settings.model} reads {', '.join(map(str, self._model.modalities))}, and no video"
                raise CheckpointError(what, where=f"{where}.video", hint="set it to captions")

    @torch.no_grad()
    def predict(self, pairs: Sequence[tuple[str, Document]]) -> np.ndarray:
        """Scores float32 [N] of pairs, raw: no sigmoid, no softmax.

        Raises:
            PluginError: the class fails, or gives something else.
        """
        if self._class is None:
            with plain_float32(self._device):
                found = self._model.predict(
                    list(pairs), batch_size=AT_ONCE, activation_fn=nn.Identity(), show_progress_bar=False
                )
        else:
            with plain_float32(self._device), users_code(f"{self._title}: predict", self._class):
                found = self._model.predict(list(pairs))
        if isinstance(found, Tensor):
            found = found.detach().float().cpu().numpy()
        try:
            scores = np.asarray(found, np.float32)
        except (TypeError, ValueError) as error:
            raise self._wrong(len(pairs), type(found).__name__) from error
        if scores.shape != (len(pairs),):
            raise self._wrong(len(pairs), f"an array {list(scores.shape)}")
        return scores

    def _made(self, plugin: Callable[..., Any], options: dict[str, Any]) -> Any:
        with users_code(f"{self._title}: making it", plugin):
            made = plugin(name=self.name, device=self._device, **options)
            said: dict[str, Any] = {key: getattr(made, key, None) for key in ("score_version", "weights_digest")}
        lacks = wrong_attributes(said)
        if not callable(getattr(made, "predict", None)):
            lacks.append("the method predict(pairs)")
        if lacks:
            raise PluginError(f"{self._title} lacks what a re-ranker needs", details=lacks)
        self.score_version, self.weights_digest = said["score_version"], said["weights_digest"]
        return made

    def _wrong(self, count: int, what: str) -> PluginError:
        wanted = f"a number for each of {counted(count, 'pair')}"
        return PluginError(f"{self._title}: predict returns {what} instead of {wanted}")


def _model(files: ModelFiles, device: torch.device, where: str) -> Any:
    from sentence_transformers import CrossEncoder as Reads
    from transformers import AutoConfig

    settings = AutoConfig.from_pretrained(files.folder, local_files_only=True, trust_remote_code=False)
    kinds = settings.architectures or ["nothing"]
    if not (files.folder / MODULES).is_file() and not any("SequenceClassification" in kind for kind in kinds):
        what = f"{files.folder.name} is no re-ranker: it holds {', '.join(kinds)}, whose score would be random"
        raise CheckpointError(what, where=where)
    model = Reads(
        str(files.folder),
        device=str(device),
        trust_remote_code=False,
        local_files_only=True,
        model_kwargs={"use_safetensors": True, "dtype": torch.float32},
    )
    if (labels := model.config.num_labels) != 1:
        raise CheckpointError(f"{files.folder.name} gives {labels} numbers for a pair, not one", where=where)
    return model.eval()
