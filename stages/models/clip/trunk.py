"""The plain ViT of CLIP: open_clip's own modules, under open_clip's own weight names.

open_clip's `encode_text` takes `context_length` words and returns one vector, its `encode_image` one vector per image
after the last block computed every token. Here its modules are called with as many words as there are, every word
vector can be had, and of the last visual block only the class token is computed; the numbers are the same.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ....configs.schema import PixelConfig, TrunkSizes
from ....errors import CheckpointError, ConfigError
from ....remedies import Change, Remedy
from ..weights.files import listed
from .attention import use_light_attention
from .base import Trunk
from .pixels import CLIP_PIXELS
from .quick_gelu import use_light_quick_gelu
from .tokens import without_padding

HEAD_WIDTH = 64
SHIFT_PARTS = 7  # one token in so many comes from the previous frame, another from the next
CLIP_NOTES = ("input_resolution", "context_length", "vocab_size")  # numbers that OpenAI's files hold beside weights


def head_count(width: int, heads: int | None = None) -> int:
    """Attention heads of a transformer: `heads`, or width // 64 (at least 1), as CLIP and the published code have it.

    Raises:
        ConfigError: the heads do not divide the width.
    """
    heads = heads or max(1, width // HEAD_WIDTH)
    if width % heads:
        raise ConfigError(f"a width of {width} cannot be divided among {heads} attention heads")
    return heads


class ClipTrunk(Trunk):
    """Image and text towers of CLIP (specs: trunk of TeachCLIP 1.1 and 1.2, X-CLIP 2).

    LayerNorm eps is 1e-5, heads are width // 64 unless given. Notation: N images, T texts, W words, D embed_dim.
    A frozen trunk keeps the class token of a frame, whose `width` is the tower's.
    """

    words = patches = True
    sizes: TrunkSizes

    def __init__(self, sizes: TrunkSizes, pixels: PixelConfig = CLIP_PIXELS) -> None:
        super().__init__(pixels)
        vision_heads = head_count(sizes.vision_width, sizes.vision_heads)
        clip = CLIP(
            sizes.embed_dim,
            CLIPVisionCfg(
                layers=sizes.vision_layers,
                width=sizes.vision_width,
                head_width=sizes.vision_width // vision_heads,
                mlp_ratio=sizes.vision_mlp_ratio,
                patch_size=sizes.patch_size,
                image_size=sizes.image_size,
            ),
            CLIPTextCfg(
                context_length=sizes.context_length,
                vocab_size=sizes.vocab_size,
                width=sizes.text_width,
                heads=head_count(sizes.text_width, sizes.text_heads),
                layers=sizes.text_layers,
            ),
            quick_gelu=sizes.quick_gelu,
        )
        use_light_quick_gelu(clip)
        use_light_attention(clip)
        self.sizes = sizes
        self.image_size, self.width, self.embed_dim = sizes.image_size, sizes.vision_width, sizes.embed_dim
        self.context_length, self.vocab_size = sizes.context_length, sizes.vocab_size
        self.visual = clip.visual
        self.token_embedding: nn.Embedding = clip.token_embedding
        self.positional_embedding: nn.Parameter = clip.positional_embedding
        self.transformer: Any = clip.transformer
        self.ln_final: nn.LayerNorm = clip.ln_final
        self.text_projection: nn.Parameter = clip.text_projection
        self.logit_scale = clip.logit_scale

    def class_tokens(self, pixels: Tensor) -> Tensor:
        """Class tokens [N, width] of normalised images [N, 3, S, S], after the last block, before `ln_post`."""
        x = self._embed_patches(pixels)
        *blocks, last = self.visual.transformer.resblocks
        for block in blocks:
            x = self._through(block, x)
        # Nothing reads the other tokens of the last block.
        normed = last.ln_1(x)
        token = x[:, :1] + last.attention(normed[:, :1], normed, normed)
        token = token + last.mlp(last.ln_2(token))
        return cast(Tensor, token[:, 0])

    def all_tokens(self, pixels: Tensor, slots: Tensor, shift_layers: Collection[int] = ()) -> Tensor:
        """Every token of every frame [V, F, tokens, D], projected, not normalised, the class token first.

        Args:
            pixels: normalised images [N, 3, S, S], in any order; an image that fills several slots need come but once.
            slots: which image stands in each of the F frame slots of V videos [V, F].
            shift_layers: blocks, from 0, whose attention sees tokens of the neighbouring frames (`shift_tokens`).
        """
        x = self._embed_patches(pixels)
        first_shifted = min(shift_layers, default=None)
        for index, block in enumerate(self.visual.transformer.resblocks):
            if index == first_shifted:
                x = x[slots.flatten()]  # from here on an image depends on its neighbours
            if index in shift_layers:
                normed = block.ln_1(x)
                x = x + block.attention(shift_tokens(normed.view(*slots.shape, *normed.shape[1:])).flatten(0, 1))
                x = x + block.mlp(block.ln_2(x))
            else:
                x = self._through(block, x)
        tokens = self.project(x)
        return tokens[slots] if first_shifted is None else tokens.view(*slots.shape, *tokens.shape[1:])

    def project(self, tokens: Tensor) -> Tensor:
        """Features [..., D], not normalised, of tokens [..., width] after the last block; in the weights' precision."""
        features = self.visual.ln_post(tokens.to(self.dtype)) @ self.visual.proj
        return cast(Tensor, features).to(self.dtype)

    def encode_words(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Word features [T, W, D] and sentence features [T, D], not normalised, of token ids [T, W].

        W is any number up to the context length. Padding is not masked: causal attention keeps it from the words
        before it. The sentence is the word with the largest id, the first of them: EOT.
        """
        words = (self.ln_final(self._hidden_words(ids)) @ self.text_projection).to(self.dtype)
        return words, words[torch.arange(ids.shape[0], device=ids.device), ids.argmax(-1)]

    def encode_sentences(self, ids: Tensor) -> Tensor:
        """Sentence features [T, D], as `encode_words` gives them, without computing what follows the last EOT.

        On a GPU, which would have to be waited for, `ids` come without such columns (`tokens.without_padding`).
        """
        if ids.device.type == "cpu" and not torch.compiler.is_exporting():  # a graph cannot depend on the ids
            ids = without_padding(ids)
        sentences = self._hidden_words(ids)[torch.arange(ids.shape[0], device=ids.device), ids.argmax(-1)]
        return cast(Tensor, self.ln_final(sentences) @ self.text_projection).to(self.dtype)

    def freeze_class_tokens(self) -> None:
        """Stop training everything that class tokens depend on; `ln_post` and `proj` go on."""
        visual = self.visual
        visual.class_embedding.requires_grad_(False)
        visual.positional_embedding.requires_grad_(False)
        for module in (visual.conv1, visual.ln_pre, visual.transformer):
            module.requires_grad_(False)

    def recompute(self) -> None:
        """Keep only the inputs of blocks for the backward pass, which computes the rest again; blocks of TS2-Net whose
        attention sees neighbouring frames, and the class token's last block, are kept whole."""
        self.visual.transformer.grad_checkpointing = True
        self.transformer.grad_checkpointing = True

    def channels_last(self) -> None:
        """Of the patch convolution alone."""
        self.visual.conv1.to(memory_format=torch.channels_last)
        self.has_channels_last = True

    def compiled(self) -> Sequence[nn.Module]:
        """Every transformer block of both towers."""
        return [*self.visual.transformer.resblocks, *self.transformer.resblocks]

    def run_compiled(self) -> None:
        """The first block of the text tower."""
        self.transformer.resblocks[0](torch.zeros(2, 3, self.sizes.text_width, device=self.logit_scale.device))

    @property
    def identity(self) -> list[object]:
        """Heads of both towers, and the activation; pixels where they are not OpenAI's."""
        heads = [tower.resblocks[0].attn.num_heads for tower in (self.visual.transformer, self.transformer)]
        return [*heads, self.sizes.quick_gelu, *self._other_pixels()]

    @property
    def frame_identity(self) -> list[object]:
        """Heads of the image tower, and the activation; pixels where they are not OpenAI's."""
        return [self.visual.transformer.resblocks[0].attn.num_heads, self.sizes.quick_gelu, *self._other_pixels()]

    def frame_weights(self) -> Iterable[tuple[str, Tensor]]:
        """Those of the image tower up to its last block."""
        behind = ("ln_post.", "proj")
        return ((name, value) for name, value in self.visual.state_dict().items() if not name.startswith(behind))

    @property
    def text_blocks(self) -> tuple[Tensor, nn.ModuleList]:
        """Positions and blocks."""
        return self.positional_embedding, self.transformer.resblocks

    def _other_pixels(self) -> list[object]:
        return [] if self.pixels == CLIP_PIXELS else [self.pixels.model_dump(mode="json")]

    def _through(self, block: nn.Module, x: Tensor) -> Tensor:
        """Images' tokens [N, tokens, width] after one block."""
        if self.visual.transformer.grad_checkpointing and torch.is_grad_enabled():
            return cast(Tensor, checkpoint(block, x, use_reentrant=False, preserve_rng_state=False))  # no noise in it
        return cast(Tensor, block(x))

    def _embed_patches(self, pixels: Tensor) -> Tensor:
        """Class token and patches before the first block, [N, tokens, width]."""
        visual = self.visual
        patches = visual.conv1(pixels).flatten(2).transpose(1, 2)
        first = visual.class_embedding.to(patches.dtype).expand(patches.shape[0], 1, -1)
        x = torch.cat([first, patches], dim=1) + visual.positional_embedding.to(patches.dtype)
        return cast(Tensor, visual.ln_pre(x))

    def _hidden_words(self, ids: Tensor) -> Tensor:
        """Text tower before `ln_final`, [T, W, text width]."""
        words = ids.shape[1]
        x = self.token_embedding(ids) + self.positional_embedding[:words]
        causal = torch.full((words, words), float("-inf"), dtype=x.dtype, device=x.device).triu_(1)
        return cast(Tensor, self.transformer(x, attn_mask=causal))


def shift_tokens(tokens: Tensor) -> Tensor:
    """Tokens [V, F, N, width] of which some are the previous or the next frame's (specs: TS2-Net 1).

    Every `shift_step`-th one from 1 comes from the previous frame; every such one from 4 comes from the next, which
    wins where both would. The first and the last frame keep theirs. Padding is not looked at.
    """
    step = shift_step(tokens.shape[2])
    shifted = tokens.clone()
    shifted[:, 1:, 1::step] = tokens[:, :-1, 1::step]
    shifted[:, :-1, 4::step] = tokens[:, 1:, 4::step]
    return shifted


def shift_step(tokens: int) -> int:
    """The distance between tokens of a frame that are shifted one way.

    Raises:
        ConfigError: too few tokens.
    """
    if tokens < SHIFT_PARTS:
        raise ConfigError(
            f"token shift needs {SHIFT_PARTS} tokens a frame; this trunk has {tokens}",
            hint=Remedy("use smaller patches, or no shift", Change({"train.network.ts2net.shift_layers": "[]"})),
        )
    return tokens // SHIFT_PARTS


def trunk_tensors(tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """The tensors of a CLIP by OpenAI's names, wherever in a checkpoint it lies; empty where there is none.

    Raises:
        CheckpointError: there are several.
    """
    anchor = "visual.class_embedding"
    prefixes = [name.removesuffix(anchor) for name in tensors if f".{name}".endswith(f".{anchor}")]
    if len(prefixes) > 1:
        raise CheckpointError(
            f"{len(prefixes)} CLIPs lie in this file",
            where=where,
            details=listed("prefixes of their names", prefixes),
            hint="save the one that is meant, alone",
        )
    if not prefixes:
        return {}
    prefix = prefixes[0]
    found = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    return {name: value for name, value in found.items() if name not in CLIP_NOTES}
