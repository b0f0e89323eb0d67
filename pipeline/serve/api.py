"""The HTTP API: what can be asked, and what is answered, as JSON and pictures."""

import os
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Annotated, Any, BinaryIO

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Path, Query, Request, Response
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.responses import StreamingResponse

from ...cache.library.library import Library
from ...cache.library.rows import Window
from ...cache.library.tags import LONGEST
from ...errors import TeachclipError, printable
from ...stages.search.serving.open_index import Answers, Filters, Found, OpenIndex, second_of
from ...stages.search.serving.pictures import clip_frames, picture, strip
from ...stages.search.serving.workbench import Workbench
from . import media

MOST = 200  # answers of one question
POSTER, STRIP = 240, 96  # pixels high
PICTURE_SECONDS, CLIP_SECONDS = 20.0, 60.0
ALBUM_BYTES = 64 << 20
CACHED = "private, max-age=600"

Row = Annotated[int, Path(ge=1, le=2**63 - 1, description="A window's number, as answers give it.")]
Top = Annotated[int, Query(ge=1, le=MOST, description="How many videos at most.")]
Under = Annotated[str | None, Query(max_length=4096, description="Only videos below this folder.")]
Tag = Annotated[str | None, Query(max_length=LONGEST, description="Only videos with this tag.")]
Given = Annotated[str, Query(alias="tag", min_length=1, max_length=LONGEST, description="The tag.")]
Time = Annotated[
    float | None, Query(allow_inf_nan=False, ge=0, le=1e11, description="Of the file, seconds since 1970.")
]


class Album:
    """Pictures that were made, the latest ones, as long as they fit."""

    def __init__(self, most: int = ALBUM_BYTES) -> None:
        self.most, self.used = most, 0
        self._kept: OrderedDict[tuple[object, ...], bytes] = OrderedDict()
        self._lock = Lock()

    def get(self, key: tuple[object, ...], make: Callable[[], bytes]) -> bytes:
        """The picture of this key, made where it is not there."""
        with self._lock:
            if (there := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
                return there
        made = make()
        with self._lock:
            if key not in self._kept:
                self._kept[key] = made
                self.used += len(made)
            while self.used > self.most:
                self.used -= len(self._kept.popitem(last=False)[1])
        return made


def routes(index: OpenIndex, bench: Workbench) -> APIRouter:
    """Every address below /api of an index; videos are opened on the bench."""
    router, album = APIRouter(prefix="/api"), Album()
    looking, handing_in = CapacityLimiter(4), CapacityLimiter(2)
    library = index.library

    @router.get("/info")
    def info() -> dict[str, Any]:
        """The index: its model, windows, videos by status, tags; `recall`, where a search does not look through all."""
        return {
            "model": printable(library.model.name),
            "digest": library.model.digest,
            "asks": None if index.lacking is None else told(index.lacking),
            "windows": len(library),
            "recall": library.recall,
            "videos": library.counts(),
            "tags": library.tags(),
            "folders": [printable(root) for root in library.roots()],
        }

    @router.get("/search")
    def sentence(
        q: Annotated[str, Query(min_length=1, max_length=2000, description="A sentence.")],
        top: Top = 12,
        under: Under = None,
        tag: Tag = None,
        since: Time = None,
        until: Time = None,
    ) -> dict[str, Any]:
        """Videos that a sentence describes, best first, each with its best window."""
        return _shown(index.sentence(q, top, Filters(under, since, until, tag)), library)

    @router.post("/search/clip")
    async def clip(
        request: Request,
        top: Top = 12,
        under: Under = None,
        tag: Tag = None,
        since: Time = None,
        until: Time = None,
    ) -> dict[str, Any]:
        """Videos like a clip that is handed in: multipart/form-data with one file, `clip`. It is not kept."""
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            raise HTTPException(415, "a clip is handed in as multipart/form-data, in a field named clip")
        if index.lacking is not None:
            raise index.lacking
        filters = Filters(under, since, until, tag)
        if handing_in.available_tokens <= 0:
            raise HTTPException(503, "too many clips are handed in at once; try again in a moment")
        async with handing_in, request.form(max_files=1, max_fields=4) as form:
            given = form.get("clip")
            if not isinstance(given, UploadFile):
                raise HTTPException(422, "a clip is handed in as a file, in a field named clip")
            return await to_thread.run_sync(lambda: _shown(like_clip(given.file, top, filters), library))

    def like_clip(file: BinaryIO, top: int, filters: Filters) -> Answers:
        path = media.path_of(file)  # puts what was held in memory on the disk, into a file that has no name
        file.flush()
        frames = bench.do(clip_frames, path, index.reading(CLIP_SECONDS), seconds=CLIP_SECONDS + 5)
        return index.clip(frames, top, filters)

    @router.get("/windows/{row}")
    def window(row: Row) -> dict[str, Any]:
        """A window, and the others of its video."""
        found = media.window_of(library, row)
        others = [{"row": one.row, "start": one.start, "stop": one.stop} for one in library.windows_of(found.path)]
        return _window(found) | {"windows": others, "tags": library.tags(found.path)}

    @router.get("/windows/{row}/like")
    def like(
        row: Row, top: Top = 12, under: Under = None, tag: Tag = None, since: Time = None, until: Time = None
    ) -> dict[str, Any]:
        """Videos like a window, without its own."""
        media.window_of(library, row)
        return _shown(index.like(row, top, Filters(under, since, until, tag)), library)

    @router.put("/windows/{row}/tags")
    def give_tag(row: Row, tag: Given) -> dict[str, Any]:
        """Give the window's video a tag; its tags then."""
        path = media.window_of(library, row).path
        library.add_tag(path, tag)
        return {"tags": library.tags(path)}

    @router.delete("/windows/{row}/tags")
    def take_tag(row: Row, tag: Given) -> dict[str, Any]:
        """Take a tag from the window's video, where it has it; its tags then."""
        path = media.window_of(library, row).path
        library.remove_tag(path, tag)
        return {"tags": library.tags(path)}

    @router.get("/windows/{row}/poster.jpg", response_class=Response)
    async def poster(row: Row) -> Response:
        """The frame that counts most."""
        return await to_thread.run_sync(lambda: drawn(row, "poster"), limiter=looking)

    @router.get("/windows/{row}/strip.jpg", response_class=Response)
    async def frames(row: Row) -> Response:
        """The window's frames side by side, in cells of equal width."""
        return await to_thread.run_sync(lambda: drawn(row, "strip"), limiter=looking)

    def drawn(row: int, kind: str) -> Response:
        with media.opened(library, row) as found:
            second, times = second_of(found.window), list(found.window.times)

            def make() -> bytes:
                if kind == "poster":
                    return bench.do(picture, found.path, second, POSTER, seconds=PICTURE_SECONDS)
                return bench.do(strip, found.path, times, STRIP, seconds=PICTURE_SECONDS)

            image = album.get((row, kind, found.size, found.mtime_ns), make)
        return Response(image, media_type="image/jpeg", headers={"cache-control": CACHED})

    @router.head("/windows/{row}/video", include_in_schema=False)
    @router.get("/windows/{row}/video", response_class=Response)
    def video(row: Row, request: Request) -> Response:
        """The file of the window's video, whole or a part of it (Range, one a request, of at most 4 MB)."""
        found = media.open_media(library, row)
        kind = media.type_of(found.window.path)
        headers = {"accept-ranges": "bytes", "etag": found.tag, "content-disposition": "inline"}
        try:
            if kind is None:
                raise HTTPException(415, "browsers cannot play this kind of file; its path is the way to it")
            wanted = request.headers.getlist("range")
            if request.method == "HEAD" or not wanted:
                headers["content-length"] = str(found.size)
                if request.method == "HEAD":
                    found.file.close()
                    return Response(media_type=kind, headers=headers)
                return StreamingResponse(media.pieces(found.file), media_type=kind, headers=headers)
            start, stop = media.part_of(",".join(wanted), found.size)
            content = media.read_part(found.file, start, stop)
        except BaseException:
            found.file.close()
            raise
        found.file.close()
        headers["content-range"] = f"bytes {start}-{start + len(content) - 1}/{found.size}"
        return Response(content, 206, media_type=kind, headers=headers)

    return router


def told(error: TeachclipError) -> dict[str, Any]:
    """An error of ours, in words."""
    what = f"{error.where}: {error.what}" if error.where else error.what
    return {"what": printable(what), "hint": None if error.hint is None else printable(str(error.hint))}


def _shown(answers: Answers, library: Library) -> dict[str, Any]:
    tags = library.tags_of([one.window.video for one in answers.found])
    return {
        "answers": [_found(one) | {"tags": tags.get(one.window.video, [])} for one in answers.found],
        "windows": len(library),
        "seconds": round(answers.seconds, 6),
        "fits": answers.fits,
        "notes": list(answers.notes),
    }


def _found(found: Found) -> dict[str, Any]:
    ranked = {"rank": found.rank, "cosine": round(found.cosine, 4)}
    return ranked | _window(found.window) | {"second": round(found.second, 3)}


def _window(window: Window) -> dict[str, Any]:
    return {
        "row": window.row,
        "name": printable(os.path.basename(window.path)),
        "path": printable(window.path),
        "start": window.start,
        "stop": window.stop,
        "second": round(second_of(window), 3),
        "times": [round(time, 3) for time in window.times],
        "weights": None if window.weights is None else [round(weight, 6) for weight in window.weights],
        "playable": media.type_of(window.path) is not None,
    }
