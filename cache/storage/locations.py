"""Where a store may lie: a local folder, or an address (s3://, gs://; http://, https://, which are only read).

TensorStore moves the bytes. Endpoint, region and credentials of S3 come from where the `aws` command takes them;
without credentials requests are anonymous. A web server cannot list what it has: there, the manifest of an export does.
"""

import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import tensorstore as ts

from ...errors import CacheError, UnreachableError, printable
from ...remedies import ExportScores, Hint, Remedy

type Location = Path | Remote

PATIENCE = 60.0
"""Seconds that a server may take for one answer, and one more for every `_SLOWEST` bytes."""
MANIFEST = "manifest.json"

_SLOWEST = 100_000
_BLOCK = 2**22
_WORKERS = 16
_MOST_LISTED = 2**28
_MANIFEST_ABOVE = 3  # OUT/scores.zarr/TEACHER/tiles
_RETRIES = {"max_retries": 6, "initial_delay": "200ms", "max_delay": "4s"}  # some ten seconds in all
_URL = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.DOTALL)
_HINTS = {
    "s3": "AWS_ENDPOINT_URL names the server (none: Amazon's), AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or "
    "AWS_PROFILE who asks (none: anybody), AWS_REGION the region",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS names who asks (none: anybody)",
}
_RENAME = "rename it, or the folder that it is in"
_SERVER = re.compile(r"PERMISSION_DENIED|UNAUTHENTICATED|ABORTED|UNAVAILABLE|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED|CURL")

_ABSENT = b"\2"  # TensorStore's generation of a file that is not there

_thread = threading.local()


@cache
def context() -> ts.Context:
    """What all stores share: threads, memory for indices and rows, and how often a server is asked again.

    Few threads on few cores: on two, four and two of them took 2 to 5 % of a step's time, one and one about 1 %.
    """
    cores = os.cpu_count() or 1
    return ts.Context(
        {
            "cache_pool": {"total_bytes_limit": 64 * 2**20},  # 180,000 texts have 3 MB of indices
            "file_io_concurrency": {"limit": min(4, max(1, cores // 2))},
            "data_copy_concurrency": {"limit": min(2, max(1, cores // 2))},
            "s3_request_retries": _RETRIES,
            "gcs_request_retries": _RETRIES,
            "http_request_retries": _RETRIES,
        }
    )


def location_of(location: str | Location) -> Location:
    """The folder or address that `location` names.

    Raises:
        CacheError: an address of a kind that is not known, or malformed; a path that is not UTF-8.
    """
    if isinstance(location, Remote):
        return location
    found = _URL.fullmatch(location) if isinstance(location, str) else None
    if printable(str(location)) != str(location):
        raise CacheError("this path is not UTF-8, and TensorStore opens no other", where=str(location), hint=_RENAME)
    return _remote(found[1], found[2]) if found else Path(location)


def refuse_read_only(location: Location) -> None:
    """Refuse to write to a web server.

    Raises:
        CacheError: it is one.
    """
    if isinstance(location, Remote) and location.scheme in ("http", "https"):
        raise CacheError(
            "a web server is only read",
            where=str(location),
            hint="write to a folder or an s3:// address, and put it there in the way that the server has",
        )


def folder(location: str | Location, what: str, hint: Hint) -> Path:
    """The local folder that `location` names.

    Args:
        what: why it cannot be an address.
        hint: what to do instead.

    Raises:
        CacheError: it is an address.
    """
    found = location_of(location)
    if isinstance(found, Remote):
        raise CacheError(f"an address, but {what}", where=str(found), hint=hint)
    return found


@dataclass(frozen=True)
class _Root:
    """A bucket or a web server."""

    scheme: str
    url: str
    spec: dict[str, Any]
    kvstore: ts.KvStore


class Remote:
    """A file or folder at an address; it is extended with `/`, as a path is.

    Every method raises UnreachableError when the server refuses, fails or does not answer in time.
    """

    __slots__ = ("_key", "_root")

    def __init__(self, root: _Root, key: str) -> None:
        self._root, self._key = root, key

    def __reduce__(self) -> tuple[Callable[[str], "Location"], tuple[str]]:
        return location_of, (str(self),)  # in another process: opened anew, as its environment says

    def __truediv__(self, name: str) -> "Remote":
        return Remote(self._root, f"{self._key}/{name}" if self._key else name)

    def __str__(self) -> str:
        return f"{self._root.url}/{self._key}"

    @property
    def scheme(self) -> str:
        """`s3`, `gs`, `http` or `https`."""
        return self._root.scheme

    @property
    def name(self) -> str:
        """The last part."""
        return self._key.rpartition("/")[2]

    @property
    def parent(self) -> "Remote":
        """All but the last part."""
        return Remote(self._root, self._key.rpartition("/")[0])

    def kvstore(self) -> dict[str, Any]:
        """TensorStore's description of this folder."""
        return {**self._root.spec, "path": f"{self._root.spec.get('path', '')}{self._key}/"}

    def exists(self) -> bool:
        """Whether there is a file of this name."""
        return self.stamp() is not None

    def stamp(self) -> bytes | None:
        """What another file in the same place would differ in (its entity tag); None when there is none."""
        found = self._answer(self._root.kvstore.read(self._key, byte_range=slice(0, 0)))
        return None if found.state == "missing" else bytes(found.stamp.generation)

    def files(self) -> list[str]:
        """Every file below, by its path from here."""
        if self.scheme in ("http", "https"):
            return self._listed()
        prefix = f"{self._key}/" if self._key else ""
        every = ts.KvStore.KeyRange(prefix, f"{prefix[:-1]}0") if prefix else None  # "0" comes after "/"
        found = self._answer(self._root.kvstore.list(every, strip_prefix_length=len(prefix.encode())))
        return sorted(key.decode(errors="replace") for key in found)

    def _listed(self) -> list[str]:
        above, prefix = self, ""
        for _ in range(_MANIFEST_ABOVE + 1):
            raw = (above / MANIFEST).read(most=_MOST_LISTED)
            if raw is not None:
                try:
                    names = sorted(json.loads(raw)["files"])
                except (ValueError, KeyError, TypeError) as error:
                    raise CacheError("does not list files", where=str(above / MANIFEST)) from error
                return [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
            above, prefix = above.parent, f"{above.name}/{prefix}"
        raise CacheError(
            "a web server does not list its files, and there is no manifest of an export",
            where=str(self),
            hint=Remedy("publish the folder of an export, manifest.json included", ExportScores()),
        )

    def holds(self, size: int) -> bool | None:
        """Whether the file has more than `size` bytes; None when there is none."""
        try:
            found = self._root.kvstore.read(self._key, byte_range=slice(size, size + 1))
            return True if self._answer(found, beyond_end=True).state == "value" else None
        except _BeyondEnd:
            return False

    def read(self, size: int | None = None, most: int = 2**40) -> bytes | None:
        """The whole file; None when there is none.

        Raises:
            CacheError: it does not have `size` bytes, or has more than `most`.
        """
        limit = most if size is None else size
        longer = self.holds(limit)
        if longer is None:
            return None
        if longer:
            raise CacheError(f"has more than {limit:,} bytes", where=str(self))
        if size is None:
            found = self._answer(self._root.kvstore.read(self._key), limit)
            return None if found.state == "missing" else bytes(found.value)
        data = b"".join(self.blocks(size))
        if len(data) != size:
            raise CacheError(f"has {len(data):,} bytes instead of {size:,}", where=str(self))
        return data

    def blocks(self, size: int) -> Iterator[bytes]:
        """The file's first `size` bytes, fewer when it is shorter; whether it is longer, `holds` says.

        Raises:
            FileNotFoundError: there is none.
        """
        for start in range(0, size, _BLOCK):
            block = self.part(start, min(start + _BLOCK, size))
            if not block:
                return
            yield block

    def part(self, start: int, stop: int) -> bytes:
        """The file's bytes from `start` to `stop`, fewer when it is shorter.

        Raises:
            FileNotFoundError: there is none.
        """
        return self.stamped_part(start, stop)[0]

    def stamped_part(self, start: int, stop: int) -> tuple[bytes, bytes]:
        """The same, and the stamp of the file that these bytes are of; without bytes none.

        Raises:
            FileNotFoundError: there is none.
        """
        try:
            future = self._root.kvstore.read(self._key, byte_range=slice(start, stop))
            found = self._answer(future, stop - start, beyond_end=True)
        except _BeyondEnd:
            return b"", b""
        if found.state == "missing":
            raise FileNotFoundError(str(self))
        return bytes(found.value), bytes(found.stamp.generation)

    def write(self, data: bytes) -> None:
        """Put a file there, whole, over the one that may be there."""
        self._answer(self._root.kvstore.write(self._key, data), len(data))

    def create(self, data: bytes) -> bool:
        """Put a file there, whole, unless there is one; False where there was one, be it from an earlier attempt of
        this very request whose answer was lost: what lies there is then to be compared."""
        found = self._answer(self._root.kvstore.write(self._key, data, if_equal=_ABSENT), len(data))
        return bool(found.generation)

    def replace(self, data: bytes, stamp: bytes) -> bool:
        """Put a file there, whole, in place of the one that has this stamp; False where there is no such one, be it
        that an earlier attempt of this very request has replaced it."""
        found = self._answer(self._root.kvstore.write(self._key, data, if_equal=stamp), len(data))
        return bool(found.generation)

    def remove(self) -> None:
        """Remove a file; where there is none, nothing."""
        self._answer(self._root.kvstore.write(self._key, None))

    def _answer(self, future: "ts.Future[Any]", size: int = 0, beyond_end: bool = False) -> Any:
        try:
            return patient(future, size)
        except (ValueError, OSError, NotImplementedError) as error:
            if beyond_end and str(error).startswith("OUT_OF_RANGE"):
                raise _BeyondEnd from error
            raise _unreachable(self.scheme, str(self), error) from error


class _BeyondEnd(Exception):
    """Bytes that a file does not have."""


class Pending[T](Protocol):
    """What comes later: a future of TensorStore's, or something like it."""

    def result(self, timeout: float | None = None) -> T:
        """Wait for it."""
        ...


def patient[T](future: Pending[T], size: int = 0) -> T:
    """The result of a request for `size` bytes; waits in short steps, so that whoever stops is not held up.

    Raises:
        TimeoutError: no answer in time, or nobody waits for it any more.
    """
    end = time.monotonic() + PATIENCE + size / _SLOWEST
    while True:
        try:
            return future.result(timeout=0.2)
        except TimeoutError:
            stopped = getattr(_thread, "stopped", None)
            if time.monotonic() > end or (stopped and stopped.is_set()):
                raise


def refuse_unreachable(where: Location, error: Exception) -> None:
    """Raise UnreachableError if it was the server, not the data, that failed a read by TensorStore."""
    if isinstance(where, Remote) and (isinstance(error, TimeoutError) or _SERVER.search(str(error))):
        raise _unreachable(where.scheme, str(where), error) from error


def _unreachable(scheme: str, where: str, error: Exception) -> UnreachableError:
    text = re.split(r" \[[\w-]+[ =]", str(error), maxsplit=1)[0].replace("\n", " ").strip()[:200]
    if code := re.search(r"http_response_code='(\d+)'", str(error)):
        text += f", HTTP {code[1]}"
    if isinstance(error, TimeoutError):
        what = "the server does not answer in time"
    elif "PERMISSION_DENIED" in text or "UNAUTHENTICATED" in text:
        what = f"the server refuses ({text})"
    elif "credentials provider" in text:
        what = "there are no credentials: neither in the environment nor, of this profile, in a file"
    else:
        what = f"the server cannot be reached or fails ({text})"
    settings = _HINTS.get(scheme)
    hint = "check the address and the network, then give the same command again" + (f"; {settings}" if settings else "")
    return UnreachableError(what, where=where, hint=hint)


def at_once[A, B](where: Location, function: Callable[[A], B], items: Iterable[A]) -> list[B]:
    """[function(item) for item in items]; at an address several at a time, since each waits for answers."""
    each = list(items)
    if isinstance(where, Path) or len(each) < 2 or hasattr(_thread, "stopped"):
        return [function(item) for item in each]
    stopped = threading.Event()
    pool = ThreadPoolExecutor(min(_WORKERS, len(each)), initializer=setattr, initargs=(_thread, "stopped", stopped))
    try:
        return list(pool.map(function, each))
    finally:
        stopped.set()
        pool.shutdown(wait=False, cancel_futures=True)


def _remote(scheme: str, rest: str) -> Remote:
    bucket, _, key = rest.partition("/")
    known: dict[str, Callable[[], dict[str, Any]]] = {
        "s3": lambda: {"driver": "s3", "bucket": bucket, **_aws()},
        "gs": lambda: {"driver": "gcs", "bucket": bucket},
        "http": lambda: {"driver": "http", "base_url": f"{scheme}://{bucket}", "path": "/"},
        "https": lambda: {"driver": "http", "base_url": f"{scheme}://{bucket}", "path": "/"},
    }
    where = f"{scheme}://{rest}"
    if scheme not in known:
        raise CacheError(
            f"addresses of the kind {scheme}:// are not known", where=where, hint=f"known: {'://, '.join(known)}://"
        )
    parts = [part for part in key.split("/") if part]
    if not bucket or ".." in parts or "." in parts or urlsplit(where).query or urlsplit(where).fragment:
        raise CacheError("not an address of a folder", where=where, hint=f"such as {scheme}://bucket/scores.zarr")
    spec = known[scheme]()
    try:
        kvstore = ts.KvStore.open(spec, context=context()).result()
    except ValueError as error:
        if "credentials provider" in str(error):
            raise _unreachable(scheme, where, error) from error
        raise CacheError(f"not an address of a folder: {error}", where=where) from error
    return Remote(_Root(scheme, f"{scheme}://{bucket}", spec, kvstore), "/".join(parts))


def _aws() -> dict[str, Any]:
    """Endpoint, region and credentials, as the `aws` command finds them."""
    here = os.environ
    endpoint = here.get("AWS_ENDPOINT_URL_S3") or here.get("AWS_ENDPOINT_URL")
    region = here.get("AWS_REGION") or here.get("AWS_DEFAULT_REGION") or ("us-east-1" if endpoint else None)
    found = {"endpoint": endpoint and endpoint.rstrip("/"), "aws_region": region}
    return {**{name: value for name, value in found.items() if value}, "aws_credentials": _aws_credentials()}


def _aws_credentials() -> dict[str, str]:
    """Roles of the machine only where the environment declares one: to look for them takes seconds elsewhere."""
    here = os.environ
    files = {
        "credentials_file": Path(here.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials").expanduser(),
        "config_file": Path(here.get("AWS_CONFIG_FILE") or "~/.aws/config").expanduser(),
    }
    if here.get("AWS_ACCESS_KEY_ID"):
        return {"type": "environment"}
    if here.get("AWS_PROFILE") or files["credentials_file"].exists():
        # TensorStore finds neither the profile nor the files by itself, and wants both files.
        named = {name: str(path) if path.exists() else os.devnull for name, path in files.items()}
        return {"type": "profile", "profile": here.get("AWS_PROFILE") or "default", **named}
    if here.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") or here.get("AWS_CONTAINER_CREDENTIALS_FULL_URI"):
        return {"type": "ecs"}
    return {"type": "default" if here.get("AWS_WEB_IDENTITY_TOKEN_FILE") else "anonymous"}
