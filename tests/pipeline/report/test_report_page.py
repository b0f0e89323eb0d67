"""The report as a reader's browser gets it."""

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jinja2 import UndefinedError
from teachclip.pipeline.report.contents import Cost, FoundVideo, ModelReport, QueryClip, Report, Search
from teachclip.pipeline.report.page.charts import Line, line_chart, running_mean, ticks
from teachclip.pipeline.report.page.html import COLOURS, templates
from teachclip.pipeline.report.page.pictures import Album
from teachclip.pipeline.report.page.render import render_report, write_report
from teachclip.pipeline.wording import latency

type Parse = Callable[[str], Any]

HOSTILE = "<script>alert('x')</script> & \"quoted\" </style><img src=http://example.org/a.png>"


def metrics(r1: float, r5: float, r10: float, mdr: float, mnr: float) -> dict[str, float]:
    return {"r1": r1, "r5": r5, "r10": r10, "r50": 90.0, "sumr": r1 + r5 + r10, "mdr": mdr, "mnr": mnr, "queries": 40}


def frames(count: int, size: int = 48) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (count, size, size, 3), dtype=np.uint8)


def model(name: str, r1: float, **more: object) -> ModelReport:
    fields = {
        "note": "a note",
        "t2v": metrics(r1, 31.2, 44.8, 12.5, 33.77),
        "v2t": metrics(r1 + 1, 29.9, 41.1, 14.0, 35.01),
        "curves": {"InfoNCE": [(step, 4 / step) for step in range(1, 300)]},
        "facts": {"trained on": "1,000 clips"},
        "config": "train:\n  batch_size: 64\n",
    }
    return ModelReport(name, **{**fields, **more})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def report() -> Report:
    weights = {"teacher": [0.1] * 10, "alone": [0.91] + [0.01] * 9, "taught": [0.05] * 9 + [0.55]}
    clip = QueryClip(
        "gained most",
        "a red box " + HOSTILE,
        "clips/7.mp4",
        frames(10),
        range(10),
        weights,
        {"teacher": 1, "alone": 17},
    )
    found = [
        FoundVideo(0.812, "clips/3.mp4", frames(2), HOSTILE),
        FoundVideo(0.4, "clips/9.mp4", frames(2), "a blue star"),
    ]
    return Report(
        title="Title " + HOSTILE,
        lead=["What came out " + HOSTILE],
        models=[
            model("teacher", 31.4, cost=Cost(3328, 0.012, 400)),
            model("alone", 13.6, cost=Cost(128, 2e-5, 400)),
            model("taught", 15.1, against="alone", chosen=120, config=HOSTILE, facts={HOSTILE: HOSTILE}),
        ],
        data={"clips": HOSTILE},
        machine={"torch": "2.11"},
        clips=[clip],
        clips_note=HOSTILE,
        searches=[Search(HOSTILE, found)],
        footer=HOSTILE,
    )


@pytest.fixture(scope="module")
def page(report: Report, parse: Parse) -> Any:
    return parse(render_report(report))


def test_metrics_of_every_model_and_both_directions_are_in_the_tables(page: Any) -> None:
    assert ["teacher", "31.4", "31.2", "44.8", "107.4", "12.5", "33.8"] in page.rows
    assert ["taught", "15.1", "31.2", "44.8", "91.1", "12.5", "33.8"] in page.rows
    assert ["taught", "16.1", "29.9", "41.1", "87.1", "14", "35.0"] in page.rows


def test_gain_is_against_the_named_model(page: Any, report: Report, parse: Parse) -> None:
    assert "+1.5" in page.texts
    worse = replace(report, models=[model("a", 20.0), model("b", 18.0, against="a")], clips=())
    assert "−2.0" in parse(render_report(worse)).texts


def test_cost_is_relative_to_the_cheapest(page: Any) -> None:
    assert ["teacher", "3.33 kB", "12 ms", "400", "×600"] in page.rows
    assert ["alone", "128 B", "20 µs", "400", "×1"] in page.rows


def test_no_text_becomes_markup(page: Any) -> None:
    assert "script" not in page.elements
    assert page.text.count("<script>alert('x')</script>") == 12
    assert "http://example.org/a.png" not in [value for _, _, value in page.attributes]


def test_nothing_is_loaded_from_anywhere(page: Any, report: Report) -> None:
    loaded = [value for _, key, value in page.attributes if key in {"src", "href", "srcset", "data", "action"}]
    assert loaded
    assert all(value.startswith(("data:", "#")) for value in loaded)
    style = re.search(r"<style>(.*)</style>", render_report(report).split("<body>")[0], re.S)
    assert style is not None
    assert "url(" not in style[1]
    assert "@import" not in style[1]
    assert ("meta", "http-equiv", "Content-Security-Policy") in page.attributes


def test_every_frame_is_shown_with_one_bar_per_model(page: Any) -> None:
    images = [value for element, key, value in page.attributes if element == "img" and key == "src"]
    assert len(images) == 10 + 4
    bars = [value for element, key, value in page.attributes if element == "i" and value.startswith("height:")]
    assert len(bars) == 30
    # all models of a clip share one scale, whose top is the largest weight
    assert bars[:3] == ["height:11.0%", "height:100.0%", "height:5.5%"]
    assert ("span", "title", "taught: 0.550") in page.attributes
    assert "rank " in page.text
    assert "17" in page.texts


def test_curves_have_axes_legend_and_the_chosen_step(page: Any) -> None:
    assert page.elements.count("svg") == 1
    assert page.elements.count("circle") == 1
    assert "optimiser step" in page.texts
    assert page.texts.count("InfoNCE") == 1


def test_links_lead_to_sections(page: Any) -> None:
    ids = {value for _, key, value in page.attributes if key == "id"}
    links = [value for element, key, value in page.attributes if element == "a" and key == "href"]
    assert len(links) == 6
    assert all(link[1:] in ids for link in links)


def test_empty_sections_are_left_out(parse: Parse) -> None:
    page = parse(render_report(Report("Only a title", ["And a line."], [])))
    assert "section" not in page.elements
    assert "And a line." in page.texts


def test_missing_and_unmeasured_numbers_are_dashes(parse: Parse) -> None:
    metrics_without = {"r1": 1.0, "r5": 2.0, "r10": 3.0, "sumr": 6.0, "mdr": math.nan}
    page = parse(render_report(Report("t", [], [model("m", 1.0, t2v=metrics_without, curves={})])))
    assert ["m", "1.0", "2.0", "3.0", "6.0", "–", "–"] in page.rows
    assert "svg" not in page.elements


def test_file_is_published_and_of_sensible_size(report: Report, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "report.html"
    clip = replace(report.clips[0], frames=frames(10, 224))
    write_report(replace(report, clips=[clip] * 6), path)
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]
    assert 50_000 < path.stat().st_size < 1_500_000
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_pictures_that_do_not_fit_are_counted(parse: Parse) -> None:
    album = Album(budget=5000)
    pictures = [album.picture(frame, f"frame {k}") for k, frame in enumerate(frames(20))]
    show = templates().from_string("{% from 'elements.html' import picture with context %}{{ picture(it) }}")
    shown = parse("".join(show.render(it=picture, colours={}) for picture in pictures))
    assert 0 < shown.elements.count("img") < 20
    assert album.used < 5000 + 5000
    assert album.dropped == 20 - shown.elements.count("img") == shown.texts.count("no room")
    assert album.left_out[0].startswith(f"{album.dropped} frames: ")
    assert Album().left_out == []


def test_more_models_than_colours_still_render(parse: Parse) -> None:
    models = [model(f"m{k}", float(k)) for k in range(COLOURS + 2)]
    page = parse(render_report(Report("t", [], models)))
    assert sum(row[0] == "m9" for row in page.rows if row) == 2


def test_a_teacher_that_is_a_model_of_the_page_has_its_colour(report: Report, parse: Parse) -> None:
    weights = {**report.clips[0].weights, "tutor": [0.1] * 10, "other": [0.1] * 10}
    apart = replace(report, clips=[replace(report.clips[0], weights=weights)])
    same = replace(apart, teachers={"tutor": "teacher"})
    for shown, colours in ((apart, ["c0", "c1", "c2", "c3", "c4"]), (same, ["c0", "c1", "c2", "c0", "c3"])):
        attributes = parse(render_report(shown)).attributes
        bars = [value for element, key, value in attributes if element == "span" and value.startswith("weight ")]
        assert bars == [f"weight {colour}" for colour in colours] * 10


def test_templates_escape_texts_and_attributes_and_refuse_what_is_missing() -> None:
    shown = templates().from_string('<p title="{{ it }}">{{ it }}</p>')
    escaped = "&lt;b &#34;&#39;&amp;"
    assert shown.render(it="<b \"'&") == f'<p title="{escaped}">{escaped}</p>'
    with pytest.raises(UndefinedError):
        shown.render()


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 100, [0, 20, 40, 60, 80, 100]),
        (0.31, 1.42, [0.0, 0.5, 1.0, 1.5]),
        (-3, 4, [-4, -2, 0, 2, 4]),
    ],
)
def test_ticks_are_round_and_enclose(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


@pytest.mark.parametrize("value", [0.0, 7.3, -2.0, 1e-12, 1e9])
def test_ticks_of_a_constant_curve_enclose_it(value: float) -> None:
    found = ticks(value, value)
    assert found[0] <= value <= found[-1]
    assert len(found) >= 2


def test_chart_leaves_out_what_is_not_finite() -> None:
    chart = line_chart("c", [Line("a", [(1, math.nan), (2, 3.0), (3, math.inf), (4, 5.0)])], "step")
    assert chart is not None
    assert (chart.curves[0].line.count("L"), chart.described) == (1, "a from 3 to 5")
    assert "nan" not in str(chart)
    assert "inf" not in str(chart)
    assert line_chart("c", [Line("a", [(1, math.nan)])], "step") is None


def test_running_mean_keeps_a_line_and_thins_it() -> None:
    line = [(float(step), 2.0 * step) for step in range(5000)]
    mean = running_mean(line)
    assert len(mean) <= 200
    assert all(y == pytest.approx(2 * x) for x, y in mean[10:-10])
    assert running_mean(line[:20]) == line[:20]


@pytest.mark.parametrize(("seconds", "expected"), [(2.13e-5, "21 µs"), (0.0413, "41.3 ms"), (12.34, "12.3 s")])
def test_latencies_read_well(seconds: float, expected: str) -> None:
    assert latency(seconds) == expected
