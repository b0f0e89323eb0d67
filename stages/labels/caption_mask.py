"""The mask of captions that training leaves out: a JSON document that says by which rule, and what it was made for.

`denoise` writes it, `train` reads it. docs/denoising.md describes it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from ...cache.storage.identity import JSON, digest_of
from ...cache.storage.publish import publish
from ...cache.storage.sealed import seal, unseal
from ...cache.storage.untrusted import Document, read_file
from ...errors import CacheError, CacheMismatchError
from ...remedies import Denoise, Remedy
from ..data.dataset import Text

FORMAT = "teachclip-captions-mask"
VERSION = 1
RULE = (
    "A caption is kept when its own video ranks at `keep` or better among all training videos, by the mean of the "
    "teachers' similarities (`combine`), equal scores sharing their mean rank; `last` says what becomes of videos "
    "that would lose all captions. This rule is teachclip's own; TeachText published masks, not the rule."
)
MOST_BYTES = 2**30
_AGAIN = Remedy("make it again, with the denoise settings that it was made with", Denoise())


@dataclass(frozen=True)
class CaptionMask:
    """Which captions are left out, and why.

    Attributes:
        keep, combine, last: the rule's settings.
        teachers: digest of what each teacher's scores were made from, by name.
        texts, videos: how many captions were ranked among how many videos.
        captions: `captions_digest` of the training split.
        dropped: ids of the captions left out, and their own videos' ranks.
        kept_last: ids of captions that rank as badly, but are the best of a video that would have lost all.
        removed_videos: videos that lose all their captions.
        digest: stands for all of it; known once it is written or read.
    """

    keep: int
    combine: str
    last: str
    teachers: Mapping[str, str]
    texts: int
    videos: int
    captions: str
    dropped: Mapping[str, float]
    kept_last: Mapping[str, float]
    removed_videos: tuple[str, ...]
    digest: str = field(default="", compare=False)

    def write(self, path: Path) -> None:
        """Publish it at `path`: complete or not at all, the same bytes for the same mask."""
        values: dict[str, JSON] = {
            "keep": self.keep,
            "combine": self.combine,
            "last": self.last,
            "teachers": dict(self.teachers),
            "texts": self.texts,
            "videos": self.videos,
            "captions": self.captions,
            "dropped": dict(self.dropped),
            "kept_last": dict(self.kept_last),
            "removed_videos": list(self.removed_videos),
        }
        publish(path, seal({"format": FORMAT, "version": VERSION, "rule": RULE, **values}))

    def refuse_other(self, texts: Sequence[Text], path: Path) -> None:
        """Refuse captions that this mask was not made for.

        Args:
            texts: all captions of the training split, usable or not.
            path: where the mask lies, for the message.

        Raises:
            CacheMismatchError: they differ in an id, a word or their number.
        """
        if captions_digest(texts) != self.captions:
            raise CacheMismatchError(
                "this mask was made for other captions than those of the training split now",
                where=str(path),
                hint=_AGAIN,
            )


def read_mask(path: Path) -> CaptionMask:
    """The mask at `path`.

    Raises:
        CacheError: there is none, or it is damaged or of another format.
    """
    if not path.exists():
        raise CacheError(
            "there is no captions mask", where=str(path), hint=Remedy("denoise the captions first", Denoise())
        )
    try:
        document, checksum = unseal(read_file(path, most=MOST_BYTES), path)
    except CacheError as error:
        raise CacheError(error.what, where=error.where, hint=_AGAIN) from error
    names = [item.name for item in fields(CaptionMask) if item.name != "digest"]
    if (document.get("format"), document.get("version")) != (FORMAT, VERSION) or not document.keys() >= set(names):
        raise CacheError("this is no captions mask that this release reads", where=str(path), hint=_AGAIN)
    return _mask({name: document[name] for name in names}, checksum)


def _mask(values: Document, checksum: str) -> CaptionMask:
    return CaptionMask(**{**values, "removed_videos": tuple(values["removed_videos"])}, digest=checksum)


def captions_digest(texts: Sequence[Text]) -> str:
    """A hash of all (id, caption) pairs, in their order."""
    return digest_of(part for text in texts for part in (text.id, text.caption))
