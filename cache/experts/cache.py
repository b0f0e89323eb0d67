"""A feature cache: of every video of a data set the features of one expert, or the words of its captions.

A folder holds `features.json` (what they were made from; and the shards, once it is complete) and `00000.safetensors`
and so on, each of them `SHARD_VIDEOS` videos in the order of the data set.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import CacheError
from ...remedies import DeleteFolder, MakeFeatures, Remedy
from ..storage.identity import JSON, identity_digest, refuse_difference
from ..storage.publish import publish, remove_leftovers
from ..storage.untrusted import file_size
from .shard import FeatureRecord, FeatureShard, Rows, Status, write_feature_shard

MANIFEST = "features.json"
SHARD_VIDEOS = 64
VERSION = 1
_MAX_MANIFEST = 2**26


class FeatureCache:
    """A complete feature cache, read-only and safe to use from several threads and processes.

    Attributes:
        identity: what the features were made from.
        width: D.
        videos: ids of all videos of the data set, in its order; statuses: what there is of each.
        reasons: why it has no features, by id; empty where it has.
    """

    def __init__(self, folder: Path, identity: Mapping[str, JSON], shards: Sequence[FeatureShard]) -> None:
        self.folder, self.identity, self.shards = folder, identity, tuple(shards)
        self.width = max((shard.width for shard in shards), default=0)
        self._places = {video: (shard, k) for shard in shards for k, video in enumerate(shard.videos)}
        self.videos = tuple(self._places)
        self.statuses: dict[str, Status] = {video: shard.statuses[k] for video, (shard, k) in self._places.items()}
        self.reasons = {video: shard.reasons[k] for video, (shard, k) in self._places.items()}

    @classmethod
    def open(cls, folder: Path) -> "FeatureCache":
        """Open the cache in `folder`.

        Raises:
            CacheError: there is none, it is not complete, or a shard is damaged or foreign.
        """
        manifest = _read_manifest(folder)
        if manifest is None or manifest.shards is None:
            state = "there are no features here" if manifest is None else "the features are not complete"
            raise CacheError(state, where=str(folder), hint=Remedy("make them first", MakeFeatures()))
        digest = identity_digest(manifest.identity)
        return cls(folder, manifest.identity, [FeatureShard.open(folder / name, digest) for name in manifest.shards])

    def has(self, video: str) -> bool:
        """Whether a video has features."""
        return self.statuses.get(video) == "ok"

    def read(self, video: str) -> list[Rows]:
        """The parts [rows, D] of a video; none unless it is ok.

        Raises:
            CacheError: the video is of another data set, or a shard cannot be read or is damaged.
        """
        shard, position = self._place(video)
        return shard.read(position)

    def read_part(self, video: str, part: int) -> Rows:
        """One part [rows, D] of a video.

        Raises:
            CacheError: as `read`; or the video has no such part.
        """
        shard, position = self._place(video)
        if not 0 <= part < shard.parts(position):
            why = self.reasons[video] or f"there is no part {part}"
            raise CacheError(f"{video!r} has no such features: {why}", where=str(self.folder))
        return shard.read_part(position, part)

    def digest(self, video: str) -> bytes:
        """16 bytes that stand for the features of a video."""
        shard, position = self._place(video)
        return shard.digest(position)

    def source(self, video: str) -> bytes:
        """16 bytes that stand for what the features of a video were made from, where it is its own; else zeros."""
        shard, position = self._place(video)
        return shard.sources[position]

    def problems(self) -> Iterator[str | None]:
        """What is wrong with the features of each video, or None; every byte is read."""
        for video in self.videos:
            try:
                self.read(video)
                yield None
            except CacheError as error:
                yield f"{Path(error.where or '').name}: {error.what}"

    def _place(self, video: str) -> tuple[FeatureShard, int]:
        if (place := self._places.get(video)) is None:
            hint = Remedy("the data set has other videos now; bring the features up to date", MakeFeatures())
            raise CacheError(f"video {video!r} is not among the features", where=str(self.folder), hint=hint)
        return place


class FeatureFolder:
    """A feature cache while it is made: shards are added or replaced whole, then it is completed."""

    def __init__(self, folder: Path, identity: Mapping[str, JSON]) -> None:
        self.folder, self.identity = folder, dict(identity)

    @classmethod
    def claim(cls, folder: Path, identity: Mapping[str, JSON]) -> "FeatureFolder":
        """Take `folder` for features with this identity, new or begun earlier.

        Raises:
            CacheMismatchError: they were made from something else; names it.
            CacheError: the folder holds something else, or cannot be written.
        """
        manifest = _read_manifest(folder)
        if manifest is None:
            if folder.exists() and any(path.name != MANIFEST for path in folder.iterdir()):
                raise CacheError("this is no feature cache, and not empty", where=str(folder), hint="choose another")
            _publish_manifest(folder, identity, None)
        else:
            refuse_mismatch(folder, manifest.identity, identity)
            remove_leftovers(folder)
        return cls(folder, identity)

    def stored_identity(self) -> dict[str, JSON] | None:
        """What the features in the folder are made from; None without any."""
        manifest = _read_manifest(self.folder)
        return None if manifest is None else manifest.identity

    def path(self, number: int) -> Path:
        """The file of shard `number`."""
        return self.folder / f"{number:05d}.safetensors"

    def found(self, number: int, videos: Sequence[str], sources: Sequence[bytes]) -> FeatureShard | None:
        """Shard `number`, if it is there, whole, and holds these videos as they are now."""
        try:
            shard = FeatureShard.open(self.path(number), identity_digest(self.identity))
        except CacheError:
            return None
        return shard if (shard.videos, shard.sources) == (tuple(videos), tuple(sources)) else None

    def write(self, number: int, records: Sequence[FeatureRecord]) -> None:
        """Publish shard `number`.

        Raises:
            CacheError: it cannot be written.
        """
        write_feature_shard(self.path(number), identity_digest(self.identity), records)

    def complete(self, count: int) -> FeatureCache:
        """Publish that there are `count` shards: from now on readers see them.

        Raises:
            CacheError: one of them is not there, or they cannot be written.
        """
        names = [self.path(number).name for number in range(count)]
        manifest = _read_manifest(self.folder)
        if manifest is None or manifest.shards != names:
            _publish_manifest(self.folder, self.identity, names)
            for path in self.folder.glob("*.safetensors"):
                if path.name not in names:
                    path.unlink(missing_ok=True)
        return FeatureCache.open(self.folder)


def refuse_mismatch(folder: Path, found: Mapping[str, JSON], wanted: Mapping[str, JSON]) -> None:
    """Refuse features that were made from something else (CacheMismatchError)."""
    hint = Remedy("delete them, and make them again", DeleteFolder(str(folder)), then=MakeFeatures())
    refuse_difference(wanted, found, str(folder), hint, what="what is there")


@dataclass(frozen=True)
class _Manifest:
    identity: dict[str, JSON]
    shards: list[str] | None  # names, None while incomplete


def _read_manifest(folder: Path) -> _Manifest | None:
    path = folder / MANIFEST
    try:
        if file_size(path) > _MAX_MANIFEST:
            raise ValueError("it is absurdly long")
        return _parsed(json.loads(path.read_bytes()))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        hint = Remedy("delete this folder and make it again", DeleteFolder(str(folder)), then=MakeFeatures())
        raise CacheError(f"this does not describe features: {error}", where=str(path), hint=hint) from None


def _parsed(document: Any) -> _Manifest:
    if document["format"] != "teachclip-features" or document["version"] != VERSION:
        raise ValueError(f"format {document['format']!r}, version {document['version']!r}")
    shards = document["shards"]
    if shards is not None and shards != [f"{k:05d}.safetensors" for k in range(len(shards))]:
        raise ValueError("a shard's name is not one")
    return _Manifest(dict(document["identity"]), shards)


def _publish_manifest(folder: Path, identity: Mapping[str, JSON], shards: list[str] | None) -> None:
    document = {"format": "teachclip-features", "version": VERSION, "identity": dict(identity), "shards": shards}
    try:
        publish(folder / MANIFEST, json.dumps(document, indent=1).encode())
    except OSError as error:
        hint = Remedy("make room or choose another folder, then go on", MakeFeatures())
        what = f"the features cannot be written: {error.strerror}"
        raise CacheError(what, where=str(folder), hint=hint) from None
