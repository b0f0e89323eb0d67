"""Section `train.network`: trunk, student and teacher networks."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from .prepare import Interpolation, ResizeMode
from .section import Fraction, Name, Positive, Section, Weight


class TrunkSizes(Section):
    """Sizes of a CLIP trunk built from scratch (heads are width // 64 unless given)."""

    image_size: Positive = 224
    patch_size: Positive = 32
    vision_width: Positive = 768
    vision_layers: Positive = 12
    vision_heads: Positive | None = None
    vision_mlp_ratio: Annotated[float, Field(gt=0)] = 4.0
    text_width: Positive = 512
    text_layers: Positive = 12
    text_heads: Positive | None = None
    embed_dim: Positive = 512
    context_length: Positive = 77
    vocab_size: Positive = 49408
    quick_gelu: bool = True


Channels = tuple[float, float, float]


class PixelConfig(Section):
    """How a trunk wants its frames, in open_clip's words; the defaults are OpenAI's."""

    mean: Channels = Field((0.48145466, 0.4578275, 0.40821073), description="Subtracted from pixels in 0 to 1.")
    std: Channels = Field((0.26862954, 0.26130258, 0.27577711), description="What they are divided by then.")
    interpolation: Interpolation = Field("bicubic", description="How frames are resized.")
    resize_mode: ResizeMode = Field("shortest", description="Which side is resized, and what becomes of the rest.")


class TrunkConfig(Section):
    """The CLIP trunk: an open_clip model by name, or sizes of one's own."""

    model: str = Field("ViT-B-32-quickgelu", description="open_clip model name; ignored when `sizes` is given.")
    sizes: TrunkSizes | None = Field(None, description="Build a trunk of these sizes instead of a named model.")
    weights: str | None = Field(
        "openai", description="open_clip pretrained tag, a weights file, or null for random weights."
    )
    pixels: PixelConfig | None = Field(
        None, description="How it wants its frames; by default as its weights were trained (open_clip's catalogue)."
    )
    towers: dict[str, Any] | None = Field(
        None, description="open_clip's description of a model that is no plain ViT; recorded in checkpoints."
    )
    tag: str | None = Field(None, description="What the weights were trained from; recorded in checkpoints.")

    @model_serializer(mode="wrap")
    def _without_unset(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Keys that came later are written only where they say something: what was made before them stays the same."""
        return {key: value for key, value in handler(self).items() if value is not None or key not in _LATER}


_LATER = ("pixels", "towers", "tag")


class Ts2NetConfig(Section):
    """What is special to TS2-Net: token shift and token selection (specs: TS2-Net 1, 2)."""

    shift_layers: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (10, 11), description="Visual blocks with token shift, from 0 (authors: 10, 11; TeachCLIP runs it with none)."
    )
    selected: Positive = Field(3, description="Patches selected per frame.")
    samples: Positive = Field(500, description="Samples of the perturbed top-k.")
    sigma: Weight = Field(0.05, description="Standard deviation of its noise; 0 is the hard top-k.")


class XPoolConfig(Section):
    """What is special to X-Pool (specs: X-Pool 3, 4)."""

    heads: Positive = Field(1, description="Heads of the pooling attention (released: 1).")
    dropout: Fraction = Field(0.3, description="Dropout of the pooling, in training (released: 0.3, or 0.4).")


class DrlConfig(Section):
    """What is special to DRL (specs: DRL 1, 4, 5)."""

    interaction: Literal["wti", "ti", "dp"] = Field(
        "wti", description="Weighted token-wise interaction (published), unweighted, or the dot product of two vectors."
    )
    layers: Literal[1, 2, 3] = Field(2, description="Linear layers of the weight networks (published: 2).")
    frame_scores: Literal["temporal", "trunk", "best-word"] = Field(
        "temporal",
        description="Frame-text scores: the sentence with frames after the temporal transformer, with CLIP's frames, "
        "or each frame's best word; no released code says which.",
    )
    cdcr: Literal[0, 1, 2, 3] = Field(3, description="Channel decorrelation in training: 0 for none (published: 3).")
    cdcr_alpha1: Weight = Field(0.11, description="Its weight on the diagonal (README 0.11, script 0.14).")
    cdcr_alpha2: Weight = Field(0.0, description="Its weight off the diagonal (published: 0).")
    cdcr_weight: Weight = Field(0.001, description="Its weight beside InfoNCE (published: 0.001).")

    @model_validator(mode="after")
    def _has_weights(self) -> Self:
        if self.cdcr == 3 and self.interaction != "wti":
            raise ValueError(
                f"cdcr: 3 takes the weights of words and frames, which interaction {self.interaction} does not have; "
                "set cdcr to 0, 1 or 2, or interaction to wti"
            )
        return self


class ModalityConfig(Section):
    """One expert of ce and moee: how wide its features are, and how a sequence of them becomes one vector."""

    width: Positive = Field(description="Numbers of a feature.")
    tokens: Annotated[int, Field(ge=0)] = Field(
        0, description="Rows of a sequence that are taken; 0: one vector a video, of a sequence its mean."
    )
    clusters: Annotated[int, Field(ge=0)] = Field(0, description="NetVLAD clusters that pool a sequence; 0: none.")

    @model_validator(mode="after")
    def _sequences_are_pooled(self) -> Self:
        if bool(self.tokens) != bool(self.clusters):
            raise ValueError(
                f"a sequence has tokens and clusters, a vector neither; tokens: {self.tokens}, clusters: "
                f"{self.clusters}; set both or none"
            )
        return self


class WordsConfig(Section):
    """The words of a caption, as a frozen text encoder gives them, and how they are pooled."""

    encoder: Name | None = Field(None, description="Text encoder of features.texts whose words these are.")
    width: Positive = Field(768, description="Numbers of a word (GPT 768, GPT2-XL 1600, word2vec 300).")
    words: Positive = Field(37, description="Words of a caption that are taken.")
    clusters: Positive = Field(28, description="NetVLAD clusters that pool them.")
    ghosts: Annotated[int, Field(ge=0)] = Field(1, description="Further clusters that take words away.")


class ExpertsConfig(Section):
    """What is special to MoEE and CE."""

    modalities: dict[Name, ModalityConfig] = Field(
        default_factory=dict,
        description="The experts by name, each with its width, tokens and clusters; null takes out one of a "
        "configuration that is extended.",
    )
    text: WordsConfig = Field(default_factory=WordsConfig, description="Words of the captions.")
    shared: Positive = Field(768, description="CE: width that all experts are reduced to.")
    gating: bool = Field(True, description="CE: experts gate each other; `false`, and with one expert: they do not.")
    include_self: bool = Field(True, description="CE: an expert is also its own partner.")
    activation: Literal["mish", "relu"] = Field("mish", description="CE: activation between the layers of a pair.")
    pair_layers: Positive = Field(3, description="CE: linear layers that a pair of experts goes through.")
    pair_norm: bool = Field(True, description="CE: batch norm between them.")
    fixed_weights: bool = Field(False, description="Experts weigh the same in every caption.")
    keep_missing: bool = Field(
        False, description="A score is the plain sum over all experts; else a mean over those that the video has."
    )

    @field_validator("modalities", mode="before")
    @classmethod
    def _without_null(cls, given: Any) -> Any:
        return {name: each for name, each in given.items() if each is not None} if isinstance(given, dict) else given


class NetworkConfig(Section):
    """The network that is trained: the student, or a teacher by itself."""

    kind: Literal["student", "xclip", "ts2net", "xpool", "drl", "openclip", "ce", "moee"] = Field(
        "student",
        description="The light student, or a teacher; openclip is CLIP with the mean of its frames; ce and moee are "
        "TeachText's networks on expert features, student and teacher.",
    )
    pooling: Literal["afa", "mean"] = Field(
        "afa", description="How the student makes one vector of its frames (afa: TeachCLIP; mean: CLIP4Clip)."
    )
    trunk: TrunkConfig = Field(default_factory=TrunkConfig, description="The CLIP trunk.")
    words: Annotated[int, Field(ge=3)] = Field(32, description="Word slots per caption, SOT and EOT included.")
    frames: Positive = Field(12, description="Frame slots per video.")
    temporal_layers: Annotated[int, Field(ge=0)] = Field(
        4,
        description="Layers of the temporal transformer; xpool, openclip, ce and moee have none, whatever is set.",
        validate_default=True,
    )
    mask_padding: bool = Field(
        True,
        description="Leave padded frames out of the AFA weights, X-Pool's attention and the fine loss "
        "(published code: no).",
    )
    pool_temperature: Annotated[float, Field(gt=0)] = Field(
        0.1, description="Temperature of the AFA weights that pool; the supervised ones are at 1 (code: 0.1, paper: 1)."
    )
    normalise_frames: bool = Field(True, description="L2-normalise frames before pooling (code: yes, paper: no).")
    ts2net: Ts2NetConfig = Field(default_factory=Ts2NetConfig, description="TS2-Net's own settings.")
    xpool: XPoolConfig = Field(default_factory=XPoolConfig, description="X-Pool's own settings.")
    drl: DrlConfig = Field(default_factory=DrlConfig, description="DRL's own settings.")
    experts: ExpertsConfig = Field(default_factory=ExpertsConfig, description="What ce and moee have of their own.")

    @property
    def on_experts(self) -> bool:
        """Whether this network sees expert features and words, and neither frames nor token ids."""
        return self.kind in ("ce", "moee")

    @field_validator("temporal_layers")
    @classmethod
    def _without_temporal_transformer(cls, layers: int, info: ValidationInfo) -> int:
        """Recipes set the layers for every kind; here they become what the network has, so that networks compare."""
        return 0 if info.data.get("kind") in ("xpool", "openclip", "ce", "moee") else layers

    @model_validator(mode="after")
    def _has_experts(self) -> Self:
        if self.on_experts and not self.experts.modalities:
            raise ValueError(f"experts.modalities: {self.kind} needs at least one; name each with its width")
        return self

    @model_validator(mode="after")
    def _words_have_positions(self) -> Self:
        """Of a named model the sizes are not known here; the network is refused where it is built."""
        refuse_words(self.words, self.trunk)
        return self


def refuse_words(words: int | None, trunk: TrunkConfig) -> None:
    """Refuse more word slots than a trunk of known sizes has positions for.

    Raises:
        ValueError: naming both.
    """
    if words is not None and trunk.sizes is not None and words > trunk.sizes.context_length:
        raise ValueError(
            f"words: {words} are more than the text tower's positions (trunk.sizes.context_length: "
            f"{trunk.sizes.context_length}); set words to {trunk.sizes.context_length} at most"
        )
