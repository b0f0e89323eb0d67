"""A store for zarr-python that hands out nothing unchecked, and lists nothing that is no Zarr node.

Only functions import this file: it imports zarr.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import Protocol

import zarr
from zarr import Group as Group  # for the types of those who do not import zarr
from zarr.abc.buffer import Buffer, BufferPrototype
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store


class Chunk(Protocol):
    """A file of an array."""

    @property
    def size(self) -> int:
        """Bytes that it must have."""
        ...

    def complete(self) -> bool:
        """Whether it is there and counts."""
        ...

    def read(self, start: int, stop: int) -> bytes:
        """Some of its bytes; raises CacheError when it does not count or is not as it should be."""
        ...


def open_checked(where: str, files: Mapping[str, bytes | Chunk]) -> Group:
    """The group in a folder, or at an address, that has these files, by path; read-only."""
    return zarr.open_group(_CheckedStore(where, files), mode="r", zarr_format=3)


class _CheckedStore(Store):
    supports_writes = False
    supports_deletes = False
    supports_listing = True

    def __init__(self, where: str, files: Mapping[str, bytes | Chunk]) -> None:
        super().__init__(read_only=True)
        self._where, self._files = where, files

    def __str__(self) -> str:
        return self._where

    def __eq__(self, other: object) -> bool:
        return self is other

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        file = self._files.get(key)
        if file is None:
            return None
        if isinstance(file, bytes):
            start, stop = _span(byte_range, len(file))
            return prototype.buffer.from_bytes(file[start:stop])
        data = await asyncio.to_thread(file.read, *_span(byte_range, file.size))
        return prototype.buffer.from_bytes(data)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        return list(await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges)))

    async def exists(self, key: str) -> bool:
        file = self._files.get(key)
        return isinstance(file, bytes) or (file is not None and await asyncio.to_thread(file.complete))

    async def getsize(self, key: str) -> int:
        file = self._files[key]
        return len(file) if isinstance(file, bytes) else file.size

    async def list(self) -> AsyncIterator[str]:
        for key in self._files:
            if await self.exists(key):
                yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        for key in self._below(prefix):
            if await self.exists(key):
                yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        length = len(_folder(prefix))
        for name in dict.fromkeys(key[length:].split("/")[0] for key in self._below(prefix)):
            yield name

    def _below(self, prefix: str) -> Iterator[str]:
        return (key for key in self._files if key.startswith(_folder(prefix)))

    async def set(self, key: str, value: Buffer) -> None:
        self._check_writable()

    async def delete(self, key: str) -> None:
        self._check_writable()

    async def delete_dir(self, prefix: str) -> None:
        self._check_writable()


def _folder(prefix: str) -> str:
    return f"{prefix.rstrip('/')}/" if prefix else ""


def _span(byte_range: ByteRequest | None, size: int) -> tuple[int, int]:
    if byte_range is None:
        return 0, size
    if isinstance(byte_range, RangeByteRequest):
        return min(byte_range.start, size), min(byte_range.end, size)
    if isinstance(byte_range, OffsetByteRequest):
        return min(byte_range.offset, size), size
    return max(0, size - byte_range.suffix), size
