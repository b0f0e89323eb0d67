"""Whether a file holds what it held when it was read, whatever its time says."""

import hashlib
import math
import time
from dataclasses import replace
from typing import BinaryIO

from ....cache.frames.record import FileStamp, VideoRecord, VideoStatus
from ....cache.storage.identity import DIGEST_BYTES
from ....configs.schema import PrepareConfig
from .source import VideoSource, open_bytes, stamp_of

BLOCK = 2**20
UNKNOWN = FileStamp().content


def content_of(file: BinaryIO, until: float = math.inf) -> bytes:
    """16 bytes: BLAKE2b of what is left of `file`; zeros when that takes longer than `until`, of the monotonic clock.

    Raises:
        OSError: it cannot be read.
    """
    total = hashlib.blake2b(digest_size=DIGEST_BYTES)
    while block := file.read(BLOCK):
        total.update(block)
        if time.monotonic() > until:
            return UNKNOWN
    return total.digest()


def read_again(id: str, source: VideoSource, config: PrepareConfig) -> VideoRecord:
    """A record without frames that says what the file is now; its content is unknown where it changed meanwhile.

    As a worker's reader, in place of one that decodes.

    Raises:
        OSError: the file is gone, or cannot be read.
    """
    stamp = stamp_of(source)
    with open_bytes(source) as file:
        content = content_of(file)
    changed = stamp_of(source) != stamp
    return VideoRecord(VideoStatus(id, "ok"), stamp=stamp if changed else replace(stamp, content=content))
