"""What a model is made of and gives, by open_clip's description of it (`embed_dim`, `vision_cfg`, `text_cfg`)."""

from collections.abc import Mapping
from typing import Any

CONTEXT_LENGTH = 77  # of a model that says nothing of it
# Families, by how the names of timm's image towers begin.
_TIMM = {
    "vit_pe_core": "PE-Core",
    "eva": "EVA",
    "vitamin": "ViTamin",
    "convnext": "ConvNeXt",
    "fastvit": "MobileCLIP",
    "vit_base_mci": "MobileCLIP",
    "vit_large_patch14_clip": "MobileCLIP",
    "swin": "other ViT",
    "vit_": "other ViT",
}
# All that a plain ViT's description says: any other key makes another network of it.
_PLAIN = {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu"}
_PLAIN_VISION = {"image_size", "layers", "width", "head_width", "patch_size", "mlp_ratio"}
_PLAIN_TEXT = {"context_length", "vocab_size", "width", "heads", "layers"}


class Described:
    """Reads a description.

    Attributes:
        towers: the description.
    """

    def __init__(self, towers: Mapping[str, Any]) -> None:
        self.towers = towers
        self._vision: Mapping[str, Any] = towers["vision_cfg"]
        self._text: Mapping[str, Any] = towers["text_cfg"]

    @property
    def family(self) -> str:
        """What people call such models."""
        timm = self._vision.get("timm_model_name") or ""
        if self._text.get("hf_model_name"):
            return "Hugging Face text"
        if "multimodal_cfg" in self.towers:
            return "CoCa"
        if "siglip" in timm:
            return "SigLIP"
        if timm:
            return next((family for start, family in _TIMM.items() if timm.startswith(start)), f"timm's {timm}")
        if isinstance(self._vision.get("layers"), list):
            return "ResNet"
        if self._vision.get("no_ln_pre"):
            return "CLIPA"
        if self._text.get("hf_tokenizer_name"):
            return "multilingual ViT"
        return "plain ViT" if self.plain else "other ViT"

    @property
    def plain(self) -> bool:
        """Whether it is made of open_clip's plain ViT and text transformer, and of nothing else."""
        parts = (self.towers, _PLAIN), (self._vision, _PLAIN_VISION), (self._text, _PLAIN_TEXT)
        return all(set(part) <= keys for part, keys in parts) and not isinstance(self._vision.get("layers"), list)

    @property
    def embed_dim(self) -> int:
        """D."""
        return int(self.towers["embed_dim"])

    @property
    def image_size(self) -> int:
        """S, of square images."""
        size = self._vision.get("image_size", 224)
        return int(size[0] if isinstance(size, list | tuple) else size)

    @property
    def square(self) -> bool:
        """Whether images are."""
        size = self._vision.get("image_size", 224)
        return not isinstance(size, list | tuple) or len(set(size)) == 1

    @property
    def context_length(self) -> int:
        """Words at most, special ones included."""
        return int(self._text.get("context_length") or CONTEXT_LENGTH)

    @property
    def reads_all(self) -> bool:
        """Whether the text tower reads every position, padding too, so that a caption has as many slots always."""
        if self._text.get("hf_model_name"):
            return False
        return bool(self._text.get("no_causal_mask") or self._text.get("embed_cls"))

    @property
    def words(self) -> bool:
        """Whether every word has a vector that does not depend on what follows, and the sentence is the last: what
        X-CLIP and DRL compare."""
        own = not self._text.get("hf_model_name") and not self._text.get("hf_tokenizer_name")
        return own and not self.reads_all and self._text.get("pool_type", "argmax") == "argmax"

    @property
    def patches(self) -> bool:
        """Whether every patch of a frame can be had as TS2-Net wants it: of the plain ViT alone."""
        return self.plain

    @property
    def needs_transformers(self) -> bool:
        """Whether its text tower or its tokenizer is Hugging Face's."""
        return bool(self._text.get("hf_model_name") or self._text.get("hf_tokenizer_name"))
