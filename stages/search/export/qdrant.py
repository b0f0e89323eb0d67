"""Windows as points of a Qdrant collection: on a server, or in a folder by Qdrant's own local mode."""

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Self

import numpy as np
from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ApiException

from .records import Record
from .tables import Made, told

KEY = "QDRANT_API_KEY"
_STAMP = "stamp"
_READ = 10_000  # points of one request
_SENT = 500  # a server takes requests of 32 MB


class QdrantTable:
    """As `Table`. The payload of a point is the record, and its stamp.

    Args:
        client: that is closed with it.
        where: the address, as messages name it.
        name: of the collection.
    """

    def __init__(self, client: QdrantClient, where: str, name: str) -> None:
        self._client, self._where, self._name = client, where, name
        with self._told():
            config = client.get_collection(name).config
        vectors = config.params.vectors
        plain = isinstance(vectors, models.VectorParams)
        self.width = vectors.size if isinstance(vectors, models.VectorParams) else 0
        self.metric = vectors.distance.value.lower() if isinstance(vectors, models.VectorParams) else "named vectors"
        self.made = Made.read((config.metadata or {}).get("made")) if plain else None

    @classmethod
    def open(cls, where: str, name: str, made: Made) -> Self:
        """As `Table.open`; the key of a server is taken from `QDRANT_API_KEY`."""
        address = where.partition(":")[2]
        with _told(where):
            if address.startswith(("http://", "https://")):
                client = QdrantClient(url=address, api_key=os.environ.get(KEY), check_compatibility=False)
            else:
                client = QdrantClient(path=address)
            try:
                if not client.collection_exists(name):
                    params = models.VectorParams(size=made.width, distance=models.Distance.DOT)
                    client.create_collection(name, vectors_config=params, metadata={"made": made.spelt()})
                return cls(client, where, name)
            except BaseException:
                client.close()
                raise

    def stamps(self) -> Mapping[int, str]:
        """As `Table.stamps`."""
        found: dict[int, str] = {}
        offset: object = None
        with self._told():
            while True:
                points, offset = self._client.scroll(
                    self._name, limit=_READ, offset=offset, with_payload=[_STAMP], with_vectors=False
                )
                found.update((int(point.id), str((point.payload or {}).get(_STAMP))) for point in points)
                if offset is None:
                    return found

    def upsert(self, records: Sequence[Record]) -> None:
        """As `Table.upsert`."""
        with self._told():
            for start in range(0, len(records), _SENT):
                points = [
                    models.PointStruct(
                        id=record.id,
                        vector=record.vector.astype(np.float32).tolist(),
                        payload={**record.described, _STAMP: record.stamp},
                    )
                    for record in records[start : start + _SENT]
                ]
                self._client.upsert(self._name, points, wait=True)

    def delete(self, ids: Sequence[int]) -> None:
        """As `Table.delete`."""
        with self._told():
            self._client.delete(self._name, models.PointIdsList(points=list(ids)), wait=True)

    def close(self) -> None:
        """As `Table.close`."""
        self._client.close()

    def _told(self) -> AbstractContextManager[None]:
        return _told(self._where)


def _told(where: str) -> AbstractContextManager[None]:
    failures = (QdrantException, ApiException, OSError, RuntimeError, ValueError)
    return told("Qdrant", where, failures, lambda _: f"see that it runs, and that {KEY} is its key where it wants one")
