"""What the API answers, over real HTTP."""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from teachclip.cache.library import library as of_library
from teachclip.cache.library.database import to_read
from teachclip.cache.library.library import Library
from teachclip.errors import CheckpointError
from teachclip.pipeline.serve import media
from teachclip.stages.models.clip.tokens import tokenize_telling
from teachclip.stages.models.named import named_model
from teachclip.stages.runtime.reporting import Silent
from teachclip.stages.search.serving.from_frames import index_frames
from teachclip.stages.search.serving.open_index import OpenIndex

from .conftest import NASTY, Served, Shelf, serving


def names(answer: Any) -> list[str]:
    return [one["name"] for one in answer.json["answers"]]


def test_a_sentence_finds_what_the_network_says(served: Served) -> None:
    found = served.ask("/api/search?q=clip%20number%202&top=4")
    assert found.status == 200
    assert served.index is not None
    model = served.index.model
    assert model is not None
    with torch.inference_mode():
        wanted = model.network.encode_texts(tokenize_telling(["clip number 2"], 10)[0])["vector"][0].numpy()
    library = served.index.library
    cosines = library.matrix().astype(np.float32) @ wanted
    best = [int(library.rows[k]) for k in np.argsort(-cosines)[:4]]
    answers = found.json["answers"]
    assert [one["row"] for one in answers] == best
    assert [one["rank"] for one in answers] == [1, 2, 3, 4]
    np.testing.assert_allclose([one["cosine"] for one in answers], np.sort(cosines)[::-1][:4], atol=1e-3)
    frames = library.frames(best)
    for one in answers:
        nearest = int(np.argmax(frames[one["row"]].astype(np.float32) @ wanted))
        assert one["second"] == one["times"][nearest]
        assert sum(one["weights"]) == pytest.approx(1, abs=1e-3)
        assert Path(one["path"]).is_file()


def test_more_like_a_window_leaves_its_own_video_out(served: Served, shelf: Shelf) -> None:
    row = shelf.row("clip-1.mp4")
    found = served.ask(f"/api/windows/{row}/like?top=50")
    assert len(names(found)) == 5
    assert "clip-1.mp4" not in names(found)
    assert [one["cosine"] for one in found.json["answers"]] == sorted(
        (one["cosine"] for one in found.json["answers"]), reverse=True
    )


def test_a_clip_finds_itself_and_is_not_kept(served: Served, shelf: Shelf) -> None:
    before = {path.name for path in Path("/tmp").glob("*")} | {path.name for path in shelf.root.rglob("*")}
    found = served.hand_in((shelf.clips / "clip-2.mp4").read_bytes())
    assert found.status == 200
    assert names(found)[0] == "clip-2.mp4"
    assert found.json["answers"][0]["cosine"] > 0.99
    after = {path.name for path in Path("/tmp").glob("*")} | {path.name for path in shelf.root.rglob("*")}
    assert not [name for name in after - before if "tmp" in name and "pytest" not in name]


def test_the_index_is_described(served: Served, shelf: Shelf) -> None:
    said = served.ask("/api/info").json
    assert said["videos"] == {"ok": 6}
    assert said["windows"] == 6
    assert said["asks"] is None
    assert said["recall"] is None
    assert said["model"] == str(shelf.config.search_run)
    assert said["digest"] == named_model(shelf.config.search_run).digest
    assert served.ask("/api/search?q=clip").json["fits"] is None  # so few windows do not tell
    assert str(shelf.root) in said["folders"]


def test_a_window_is_described(served: Served, shelf: Shelf) -> None:
    row = shelf.row(NASTY)
    said = served.ask(f"/api/windows/{row}").json
    assert (said["name"], said["row"], said["playable"]) == (NASTY, row, True)
    assert said["windows"] == [{"row": row, "start": 0.0, "stop": pytest.approx(4.0)}]
    assert not served.ask(f"/api/windows/{shelf.row('old.avi')}").json["playable"]


def test_pictures_show_the_seconds_that_are_said(served: Served, shelf: Shelf) -> None:
    row = shelf.row("clip-0.mp4")
    said = served.ask(f"/api/windows/{row}").json
    answer = served.ask(f"/api/windows/{row}/strip.jpg")
    assert answer.headers["content-type"] == "image/jpeg"
    strip = np.asarray(Image.open(io.BytesIO(answer.body)))
    assert strip.shape == (96, 160 * len(said["times"]), 3)
    for k, second in enumerate(said["times"]):
        cell = strip[48, 160 * k : 160 * (k + 1)].astype(int)
        red = np.flatnonzero((cell[:, 0] > 160) & (cell[:, 1] < 90))
        assert red.mean() == pytest.approx(3 * round(10 * second) + 17.5, abs=3)
    poster = np.asarray(Image.open(io.BytesIO(served.ask(f"/api/windows/{row}/poster.jpg").body)))
    assert poster.shape == (240, 400, 3)
    red = np.flatnonzero((poster[120, :, 0] > 160) & (poster[120, :, 1] < 90)) / 2.5
    assert red.mean() == pytest.approx(3 * round(10 * said["second"]) + 17.5, abs=3)
    assert served.ask(f"/api/windows/{shelf.row('old.avi')}/strip.jpg").status == 200


def test_a_video_comes_in_parts(served: Served, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    row, whole = shelf.row("clip-3.mp4"), (shelf.clips / "clip-3.mp4").read_bytes()
    address = f"/api/windows/{row}/video"
    full = served.ask(address)
    assert (full.status, full.body, full.headers["content-type"]) == (200, whole, "video/mp4")
    assert full.headers["accept-ranges"] == "bytes"
    head = served.ask(address, "HEAD")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(whole)))
    for wanted, first, last in (("0-9", 0, 9), ("10-", 10, len(whole) - 1), ("-7", len(whole) - 7, len(whole) - 1),
                                (f"5-{10**17}", 5, len(whole) - 1)):  # fmt: skip
        part = served.ask(address, Range=f"bytes={wanted}")
        assert (part.status, part.body) == (206, whole[first : last + 1])
        assert part.headers["content-range"] == f"bytes {first}-{last}/{len(whole)}"
    monkeypatch.setattr(media, "RANGE_BYTES", 100)
    part = served.ask(address, Range="bytes=3-")
    assert (part.status, part.body) == (206, whole[3:103])
    assert part.headers["content-range"] == f"bytes 3-102/{len(whole)}"


def test_what_no_browser_plays_is_not_sent(served: Served, shelf: Shelf) -> None:
    answer = served.ask(f"/api/windows/{shelf.row('old.avi')}/video")
    assert answer.status == 415
    assert "path" in answer.what


def test_filters(served: Served, shelf: Shelf) -> None:
    everything = names(served.ask("/api/search?q=clip&top=50"))
    assert len(everything) == 6
    one = served.ask(f"/api/search?q=clip&under={shelf.clips}/clip-1.mp4")
    assert names(one) == ["clip-1.mp4"]
    assert names(served.ask("/api/search?q=clip&under=/nowhere")) == []
    assert names(served.ask("/api/search?q=clip&tag=none")) == []
    assert names(served.ask("/api/search?q=clip&until=1")) == []


def test_tags_are_given_found_and_taken(own_shelf: Shelf) -> None:
    index = OpenIndex.open(own_shelf.folder)
    row = own_shelf.row("clip-1.mp4")
    address, tag = f"/api/windows/{row}/tags", "%C3%89lan%20%26%20%3Cb%3E%2F1"
    with serving(index) as served:
        assert served.ask(f"{address}?tag=sea", "PUT").json == {"tags": ["sea"]}
        given = served.ask(f"{address}?tag={tag}", "PUT")
        assert (given.status, given.json) == (200, {"tags": ["sea", "Élan & <b>/1"]})
        found = served.ask(f"/api/search?q=clip&tag={tag}").json["answers"]
        assert [(one["name"], one["tags"]) for one in found] == [("clip-1.mp4", ["sea", "Élan & <b>/1"])]
        assert served.ask("/api/info").json["tags"] == ["sea", "Élan & <b>/1"]
        others = served.ask("/api/search?q=clip&top=50").json["answers"]
        assert [one["tags"] for one in others if one["name"] != "clip-1.mp4"] == [[]] * 5
        alike = f"/api/windows/{own_shelf.row('clip-2.mp4')}/like?tag=sea"
        assert names(served.ask(alike)) == ["clip-1.mp4"]
        assert names(served.ask(f"{alike}&until=1")) == []
        assert served.ask(f"{address}?tag=sea", "DELETE").json == {"tags": ["Élan & <b>/1"]}
        assert served.ask(f"{address}?tag=sea", "DELETE").json == {"tags": ["Élan & <b>/1"]}
        assert served.ask(f"{address}?tag=%20", "PUT").status == 400
        assert served.ask(f"{address}?tag=a%0Ab", "PUT").status == 400
        assert served.ask(f"{address}?tag={'x' * 201}", "PUT").status == 422
        assert served.ask(address, "PUT").status == 422
        assert served.ask("/api/windows/99999/tags?tag=x", "PUT").status == 404
    index.close()
    with Library.open(own_shelf.folder) as library:
        assert library.tags() == ["Élan & <b>/1"]


def test_an_index_that_cannot_be_written_says_so(own_shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite says the same of a disk that may only be read."""
    index = OpenIndex.open(own_shelf.folder)
    monkeypatch.setattr(of_library, "to_write", to_read)
    with serving(index) as served:
        refused = served.ask(f"/api/windows/{own_shelf.row('clip-1.mp4')}/tags?tag=x", "PUT")
        assert refused.status == 503
        assert "cannot be opened or written" in refused.what
        assert "writable" in refused.json["error"]["hint"]
    index.close()


def test_a_clip_is_searched_with_filters(served: Served, shelf: Shelf) -> None:
    content = (shelf.clips / "clip-2.mp4").read_bytes()
    found = served.hand_in(content, under=f"{shelf.clips}/clip-1.mp4")
    assert names(found) == ["clip-1.mp4"]


def test_an_index_whose_model_is_gone_says_so_and_still_finds_what_is_alike(own_shelf: Shelf) -> None:
    (own_shelf.config.search_run / "best.safetensors").unlink()
    own_shelf.config.search_run.rmdir()
    index = OpenIndex.open(own_shelf.folder)
    assert isinstance(index.lacking, CheckpointError)
    with serving(index) as served:
        refused = served.ask("/api/search?q=a%20dog")
        assert refused.status == 503
        assert "the model that made this index is gone" in refused.what
        assert str(own_shelf.config.search_run) in refused.what
        assert served.hand_in(b"x").status == 503
        assert "the model that made this index is gone" in served.ask("/").body.decode()
        assert served.ask("/api/info").json["asks"]["hint"]
        assert len(names(served.ask(f"/api/windows/{own_shelf.row('clip-1.mp4')}/like"))) == 5
    index.close()


def test_another_model_of_the_same_name_is_not_asked(own_shelf: Shelf) -> None:
    from teachclip.stages.models.build import build_network
    from teachclip.stages.models.checkpoints.files import save_network

    save_network(build_network(own_shelf.config.train.network), own_shelf.config.search_run / "best.safetensors")
    index = OpenIndex.open(own_shelf.folder)
    assert "another model" in str(index.lacking)
    index.close()


def test_a_deleted_file_is_no_answer_and_its_row_says_so(own_shelf: Shelf) -> None:
    row = own_shelf.row("clip-1.mp4")
    index = OpenIndex.open(own_shelf.folder)
    with serving(index) as served:
        assert "clip-1.mp4" in names(served.ask("/api/search?q=clip"))
        (own_shelf.clips / "clip-1.mp4").unlink()
        assert "clip-1.mp4" not in names(served.ask("/api/search?q=clip"))
        for kind in ("video", "poster.jpg", "strip.jpg"):
            gone = served.ask(f"/api/windows/{row}/{kind}")
            assert gone.status == 404
            assert "not there any more" in gone.what
    index.close()


def test_a_folder_that_may_only_be_read_is_served(own_shelf: Shelf) -> None:
    before = {path: path.stat().st_mtime_ns for path in own_shelf.folder.iterdir()}
    for path in (own_shelf.folder, *own_shelf.folder.iterdir()):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        index = OpenIndex.open(own_shelf.folder)
        with serving(index) as served:
            assert len(names(served.ask("/api/search?q=clip"))) == 6
        index.close()
    finally:
        own_shelf.folder.chmod(0o755)
    kept = {path: path.stat().st_mtime_ns for path in own_shelf.folder.iterdir() if path in before}
    assert kept == before


def test_links_are_resolved_when_they_are_served(own_shelf: Shelf, tmp_path: Path) -> None:
    """A file that has become a link to elsewhere since it was indexed is not shown."""
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(b"nobody's business")
    row, path = own_shelf.row("clip-0.mp4"), own_shelf.clips / "clip-0.mp4"
    index = OpenIndex.open(own_shelf.folder)
    with serving(index) as served:
        os.replace(path, own_shelf.clips / "kept.mp4")
        path.symlink_to(own_shelf.clips / "kept.mp4")
        assert served.ask(f"/api/windows/{row}/video").status == 200
        path.unlink()
        path.symlink_to(secret)
        for kind in ("video", "poster.jpg", "strip.jpg"):
            refused = served.ask(f"/api/windows/{row}/{kind}")
            assert (refused.status, refused.what) == (403, "this file lies outside of the folders that were indexed")
        path.unlink()
        os.replace(own_shelf.clips, own_shelf.root / "other")
        own_shelf.clips.symlink_to(tmp_path)
        (tmp_path / "clip-0.mp4").write_bytes(b"nobody's business")
        assert served.ask(f"/api/windows/{row}/video").status == 403
        (tmp_path / "clip-0.mp4").unlink()
        os.mkfifo(tmp_path / "clip-0.mp4")
        assert served.ask(f"/api/windows/{row}/video").status == 403
    index.close()


def test_frames_of_what_the_data_no_longer_names_are_no_answers(own_shelf: Shelf) -> None:
    captions = own_shelf.root / "captions.csv"
    captions.write_text("".join(line for line in captions.read_text().splitlines(True) if "clip-3" not in line))
    before = own_shelf.row("clip-1.mp4")
    index_frames(own_shelf.config, Silent())
    with Library.open(own_shelf.folder) as library:
        assert len(library) == 5
        assert library.windows_of(own_shelf.clips / "clip-3.mp4") == []
    assert own_shelf.row("clip-1.mp4") == before


def test_the_apis_description_names_every_operation_once(served: Served) -> None:
    paths = served.ask("/api/openapi.json").json["paths"]
    names = [one["operationId"] for path in paths.values() for one in path.values()]
    assert "/api/windows/{row}/video" in paths
    assert len(names) == len(set(names))
