"""Any other trunk that open_clip builds: its two towers as they are, whatever they are made of.

timm's networks (SigLIP, EVA, ViTamin, PE-Core, MobileCLIP, ConvNeXt, ...), ResNets, CoCa's and CLIPA's ViTs; text
towers of open_clip's or of Hugging Face's. Weights have open_clip's names, with the text tower's under `text.`
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from open_clip.convert import convert_state_dict
from open_clip.model import CustomTextCLIP, convert_to_custom_text_state_dict, resize_pos_embed, resize_text_pos_embed
from open_clip.transformer import TextTransformer, text_global_pool
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode

from ....configs.schema import PixelConfig
from ...runtime.plugins import needs
from .base import Trunk
from .described import Described
from .pixels import CLIP_PIXELS
from .quick_gelu import use_light_quick_gelu
from .tokenizers import tokenizer_of
from .trunk import CLIP_NOTES

TEXT_SETTINGS = Path(__file__).with_name("text_settings.json")
"""Settings of the Hugging Face models that open_clip takes text towers from, as their `config.json` has them."""

# What lies in open_clip's files and makes no features: SigLIP's bias, which no softmax sees, and CoCa's decoder.
_UNUSED = ("logit_bias", "text_decoder.", "text.transformer.embeddings.position_ids")
_OURS = "trunk."  # before the names of a trunk in a checkpoint of ours
_OF_TWO_TOWERS = ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "init_logit_scale")
_NORMS = (nn.modules.batchnorm._BatchNorm,)


class OpenClipTrunk(Trunk):
    """Two towers of open_clip's. A frozen trunk keeps the features of a frame, whose `width` is D.

    BatchNorms keep the statistics that came with the weights, in training too: an image's features would depend on the
    others of its batch, and a step in chunks or in many processes would not be the step at once.

    Args:
        towers: open_clip's description of the model (`embed_dim`, `vision_cfg`, `text_cfg`, ...).
    """

    towers: dict[str, Any]

    def __init__(self, towers: Mapping[str, Any], pixels: PixelConfig = CLIP_PIXELS) -> None:
        super().__init__(pixels, tokenizer_of(towers["text_cfg"]))
        self.towers = json.loads(json.dumps(towers))
        told = Described(self.towers)
        model = _both_towers(self.towers)
        use_light_quick_gelu(model)
        self.visual = model.visual
        self.text: Any = model.text
        self.logit_scale = nn.Parameter(model.logit_scale.detach().reshape(()))
        self.image_size, self.embed_dim, self.width = told.image_size, told.embed_dim, told.embed_dim
        self.context_length, self.vocab_size = told.context_length, int(self.text.vocab_size)
        self.words, self.reads_all = told.words, told.reads_all
        self._frozen = False

    def class_tokens(self, pixels: Tensor) -> Tensor:
        """Frame features [N, D] of normalised images [N, 3, S, S]."""
        return _first(self.visual(pixels))

    def project(self, tokens: Tensor) -> Tensor:
        """The same numbers in the weights' precision."""
        return tokens.to(self.dtype)

    def encode_sentences(self, ids: Tensor) -> Tensor:
        """Sentence features [T, D], not normalised, of token ids [T, W]; W is the context length where padding is read
        too (`reads_all`)."""
        if self.reads_all or not isinstance(self.text, TextTransformer):
            return _first(self.text(ids)).to(self.dtype)
        text = self.text
        pooled = text_global_pool(self._hidden_words(ids), ids, text.pool_type, eos_token_id=text.eos_id)
        return self._projected(pooled)

    def encode_words(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Word features [T, W, D] and sentence features [T, D]: of the first word with the largest id, EOT."""
        words = self._projected(self._hidden_words(ids))
        return words, words[torch.arange(ids.shape[0], device=ids.device), ids.argmax(-1)]

    def freeze_class_tokens(self) -> None:
        """Stop training the whole image tower, projection and all; it stays in evaluation mode."""
        self._frozen = True
        self.visual.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> "OpenClipTrunk":
        """As any module's, but for BatchNorms and for a frozen image tower."""
        super().train(mode)
        if self._frozen:
            self.visual.eval()
        for module in self.modules():
            if isinstance(module, _NORMS):
                module.eval()
        return self

    def recompute(self) -> None:
        """As far as the towers can; a ResNet keeps everything."""
        self.visual.set_grad_checkpointing(True)
        self.text.set_grad_checkpointing(True)

    def channels_last(self) -> None:
        """Of every convolution of the image tower, on a GPU: on a CPU the backward pass of grouped convolutions in this
        layout writes where it should not (torch 2.15, "double free or corruption")."""
        if self.logit_scale.is_cuda:
            self.visual.to(memory_format=torch.channels_last)
            self.has_channels_last = True

    def compiled(self) -> Sequence[nn.Module]:
        """The two towers, each at once."""
        return [self.visual, self.text]

    def run_compiled(self) -> None:
        """The text tower."""
        self.text(torch.zeros(2, self.context_length, dtype=torch.long, device=self.logit_scale.device))

    @property
    def identity(self) -> list[object]:
        """The whole description, and the pixels."""
        return [_canonical({key: self.towers.get(key) for key in _OF_TWO_TOWERS[:4]}), *self._pixels()]

    @property
    def frame_identity(self) -> list[object]:
        """The image tower's description, and the pixels."""
        return [_canonical({key: self.towers.get(key) for key in ("vision_cfg", "quick_gelu")}), *self._pixels()]

    def frame_weights(self) -> Iterable[tuple[str, Tensor]]:
        """All of the image tower."""
        return cast(Iterable[tuple[str, Tensor]], self.visual.state_dict().items())

    @property
    def text_blocks(self) -> tuple[Tensor, nn.ModuleList] | None:
        """Positions and blocks of open_clip's own text transformer."""
        if not isinstance(self.text, TextTransformer):
            return None
        return self.text.positional_embedding, self.text.transformer.resblocks

    def tensors_of(self, tensors: Mapping[str, Tensor], *, resize: bool = False) -> dict[str, Tensor]:
        """The tensors of a file under the trunk's names, without those that make no features.

        Args:
            resize: positions of another number are interpolated, as open_clip does with its own files.
        """
        state = dict(tensors)
        if any(name.startswith(f"{_OURS}visual.") for name in state):
            state = {name.removeprefix(_OURS): value for name, value in state.items() if name.startswith(_OURS)}
        state = convert_to_custom_text_state_dict(convert_state_dict(self, state))
        if resize:
            resize_pos_embed(state, self)
            resize_text_pos_embed(state, self)
        if "logit_scale" in state and state["logit_scale"].numel() == 1:
            state["logit_scale"] = state["logit_scale"].reshape(())
        return {name: value for name, value in state.items() if not name.startswith(_UNUSED) and name not in CLIP_NOTES}

    def _hidden_words(self, ids: Tensor) -> Tensor:
        """[T, W, text width] after the last norm: open_clip's own text transformer, on as many words as there are."""
        text, words = self.text, ids.shape[1]
        x = text.token_embedding(ids) + text.positional_embedding[:words]
        causal = torch.full((words, words), float("-inf"), dtype=x.dtype, device=x.device).triu_(1)
        return cast(Tensor, text.ln_final(text.transformer(x, attn_mask=causal)))

    def _projected(self, hidden: Tensor) -> Tensor:
        projection = self.text.text_projection
        if isinstance(projection, nn.Linear):
            hidden = projection(hidden)
        elif projection is not None:
            hidden = hidden @ projection
        return hidden.to(self.dtype)

    def _pixels(self) -> list[object]:
        return [self.pixels.model_dump(mode="json")]


def _first(features: Any) -> Tensor:
    """A tower's features; CoCa's hands its tokens on, too."""
    return cast(Tensor, features[0] if isinstance(features, tuple) else features)


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def _both_towers(towers: Mapping[str, Any]) -> CustomTextCLIP:
    """The model, with random weights; nothing is fetched."""
    settings = {key: towers[key] for key in _OF_TWO_TOWERS if key in towers}
    settings["vision_cfg"] = {**towers["vision_cfg"], "timm_model_pretrained": False}
    with _text_settings(towers["text_cfg"]) as text, _readable_fakes():
        return CustomTextCLIP(**settings | {"text_cfg": text})


class ReadAsZero(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A number that is read off a fake tensor is 0."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return 0 if func is torch.ops.aten._local_scalar_dense.default else func(*args, **(kwargs or {}))


def _readable_fakes() -> AbstractContextManager[object]:
    """Where a model is built to be counted, on fake tensors: timm reads its rates of drop path off one."""
    return ReadAsZero() if isinstance(torch.empty(0), FakeTensor) else nullcontext()  # type: ignore[no-untyped-call]


@contextmanager
def _text_settings(text: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The text tower's description, where a Hugging Face model is named by a folder that holds its settings: known
    ones need no network then."""
    text = {**text, "hf_model_pretrained": False}
    name = text.get("hf_model_name")
    if not name:
        yield text
        return
    needs("transformers", "hf", "train.network.trunk", f"the text tower {name}")
    known = json.loads(TEXT_SETTINGS.read_text(encoding="utf-8"))
    if name not in known:
        yield text
        return
    with TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(known[name]), encoding="utf-8")
        yield text | {"hf_model_name": folder}
