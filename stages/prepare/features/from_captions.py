"""Words of captions, made by a text model of Hugging Face: its last hidden states, special tokens included."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch

from ....cache.experts.shard import FeatureRecord
from ....cache.storage.identity import JSON, digest_of
from ....configs.schema import Config, TextEncoderConfig
from ...data.dataset import Dataset
from ...data.experts.inputs import captions_by_video, video_captions_digest
from ...models.frozen.model_files import ModelFiles, find_model, loading, open_tokenizer, refuse_random
from ...runtime.device import choose_device, plain_float32
from ...runtime.plugins import needs

_LONGEST = 512
"""Tokens of a caption that are kept, where the model itself says no fewer."""
_NOT_NEEDED = ("pooler.", "decoder.")
"""Begins the names of weights behind the last hidden states of an encoder."""


class FromCaptions:
    """Words [W, D] of every caption (`FeatureSource`): one row a token, as the tokenizer makes them of the caption.

    Captions of equal length are computed together, without padding, so that none depends on the others.

    Raises:
        ConfigError: the extra `hf` is not installed, or there is no such folder.
        CheckpointError: there is no such model, it lacks something, or it cannot be loaded.
        UnreachableError: the hub does not answer.
    """

    def __init__(self, config: Config, encoder: TextEncoderConfig, dataset: Dataset) -> None:
        assert encoder.huggingface is not None
        below_work = config.work / encoder.huggingface
        self.title = f"text encoder {encoder.name!r}"
        self.where = str(below_work) if below_work.is_dir() else encoder.huggingface
        self.device, self.at_once = choose_device(config.features.device), config.features.batch
        where = f"features.texts.{encoder.name}.huggingface"
        needs("transformers", "hf", where)
        files = find_model(self.where, None, where)
        with loading(self.where, where):
            self.tokenizer = open_tokenizer(files, where)
            self.model, random = _loaded(files, self.device, where)
        self.identity: dict[str, JSON] = {
            "made by": "last hidden states",
            "model": _weights_digest(self.model, random),
            "tokenizer": digest_of([_tokenizer_digest(self.tokenizer)]),
        }
        self.captions = captions_by_video(dataset)
        self.videos: Sequence[str] = list(self.captions)
        self.sources: Sequence[bytes] = [video_captions_digest(captions) for captions in self.captions.values()]
        self.longest = min(_LONGEST, int(self.tokenizer.model_max_length), _positions(self.model.config))

    def make(self, videos: Sequence[str]) -> list[FeatureRecord]:
        """See `FeatureSource`."""
        captions = [caption for video in videos for caption in self.captions[video]]
        words = self._words(captions)
        records = []
        for video in videos:
            count = len(self.captions[video])
            records.append(FeatureRecord(video, "ok", parts=tuple(words[:count])))
            del words[:count]
        return records

    @torch.no_grad()
    def _words(self, captions: Sequence[str]) -> list[Any]:
        tokens = [self.tokenizer(text, truncation=True, max_length=self.longest)["input_ids"] for text in captions]
        found: dict[int, Any] = {k: np.zeros((0, 0), np.float32) for k, each in enumerate(tokens) if not each}
        by_length = sorted((k for k in range(len(tokens)) if tokens[k]), key=lambda k: len(tokens[k]))
        while by_length:
            length = len(tokens[by_length[0]])
            batch = [k for k in by_length[: self.at_once] if len(tokens[k]) == length]
            del by_length[: len(batch)]
            ids = torch.tensor([tokens[k] for k in batch], device=self.device)
            with plain_float32(self.device):
                states = self.model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
            found |= zip(batch, states.float().cpu().numpy(), strict=True)
        return [found[k] for k in range(len(captions))]


def _loaded(files: ModelFiles, device: torch.device, where: str) -> tuple[Any, set[str]]:
    """The model, and names of its weights that no file has and no hidden state needs."""
    from transformers import AutoModel

    model, found = AutoModel.from_pretrained(
        files.folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, output_loading_info=True
    )
    random = {name for name in found["missing_keys"] if name.startswith(_NOT_NEEDED)}
    refuse_random(set(found["missing_keys"]) - random, where)
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    return model.to(device).float().eval(), random


def _positions(config: Any) -> int:
    """Tokens that the model has positions for; RoBERTa's begin behind its padding."""
    count = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or _LONGEST
    pad = getattr(config, "pad_token_id", None)
    return int(count) - (pad + 1 if getattr(config, "model_type", "") in ("roberta", "xlm-roberta") and pad else 0)


def _weights_digest(model: Any, random: Collection[str]) -> str:
    parts: list[bytes | str] = [str(model.config.to_json_string(use_diff=False))]
    for name, tensor in sorted(model.state_dict().items()):
        if name in random:
            continue
        parts += [name, np.ascontiguousarray(tensor.detach().cpu().numpy()).tobytes()]
    return digest_of(parts)


def _tokenizer_digest(tokenizer: Any) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return str(sorted(tokenizer.get_vocab().items())) if backend is None else str(backend.to_str())
