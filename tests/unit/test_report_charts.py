"""The plots show what was measured: every sample, at its place."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest
from markupsafe import Markup

from browser_harness.report.charts import (
    decode_times,
    first_tokens,
    load_waterfall,
    memory_series,
    memory_timeline,
    size_bars,
)
from browser_harness.report.svg import Scale
from manifests.report import DecodeRun, MemoryPoint, PrefillSample
from tests.unit.reports import load_sample, sample_report, wasm_target


def parse(drawing: Markup) -> ET.Element:
    """The drawing as XML: it must be well-formed by itself."""
    return ET.fromstring(str(drawing))


def texts(drawing: ET.Element) -> list[str]:
    return [element.text or "" for element in drawing.iter("text")]


def with_class(drawing: ET.Element, tag: str, css: str) -> list[ET.Element]:
    return [e for e in drawing.iter(tag) if css in (e.get("class") or "").split()]


@pytest.mark.parametrize(
    ("top", "ticks"),
    [
        (83, [0, 20, 40, 60, 80]),
        (1.0, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (1.3e9, [0, 5e8, 1e9]),
        (0, [0]),
    ],
)
def test_ticks_are_round_and_within(top: float, ticks: list[float]) -> None:
    assert Scale(top, 0, 100).ticks(5) == pytest.approx(ticks)


def test_a_scale_maps_its_ends() -> None:
    scale = Scale(50, 190, 12)
    assert [float(scale(value)) for value in (0, 25, 50)] == [190, 101, 12]


def test_every_token_is_a_dot_and_warm_up_is_hollow() -> None:
    runs = (
        DecodeRun(prompt_tokens=8, warmup=2, ms=(30, 20, 10, 10)),
        DecodeRun(prompt_tokens=8, warmup=1, ms=(30, 10)),
    )
    drawing = parse(decode_times(runs, None))
    dots = with_class(drawing, "circle", "dot")
    assert len(dots) == 6
    assert len(with_class(drawing, "circle", "hollow")) == 3
    (median,) = with_class(drawing, "line", "median")
    assert median.get("y1") == dots[2].get("cy")
    assert with_class(drawing, "line", "torch") == []


def test_pytorch_stands_beside_the_browser() -> None:
    reference = sample_report().reference
    assert reference is not None
    target = wasm_target()
    assert (
        len(with_class(parse(decode_times(target.decode, reference.speed)), "line", "torch")) == 1
    )
    drawing = parse(first_tokens(target.prefill, reference.speed))
    assert len(with_class(drawing, "path", "torch")) == 6
    assert len(with_class(drawing, "circle", "dot")) == 8


def test_the_median_load_is_drawn_and_every_total_is_marked() -> None:
    loads = [load_sample(t, fetched=1000, first_token=100) for t in (5000, 1000, 3000)]
    drawing = parse(load_waterfall((("Cold", loads), ("Warm", ()))))
    assert "ready 3.00 s, first token 3.10 s" in texts(drawing)
    assert len(with_class(drawing, "line", "mark")) == 3
    assert "Warm" not in texts(drawing)


def test_a_page_that_did_not_answer_leaves_a_gap_in_its_own_series_only() -> None:
    points = [
        MemoryPoint(at_ms=t, phase="load", renderer_pss=10, gpu_process_pss=5, wasm_heap=heap)
        for t, heap in ((0, 4), (10, None), (20, 8))
    ]
    assert [name for name, *_ in memory_series(points)] == [
        "renderer PSS",
        "GPU process PSS",
        "WASM heap",
    ]
    drawing = parse(memory_timeline(points))
    lengths = {
        line.findtext("title"): len((line.get("points") or "").split())
        for line in drawing.iter("polyline")
    }
    assert lengths == {"renderer PSS": 3, "GPU process PSS": 3, "WASM heap": 2}


def test_sizes_are_sorted_and_shares_add_up() -> None:
    drawing = parse(size_bars({"floats": 10_000, "codes": 70_000, "graphs": 20_000}))
    assert texts(drawing)[::2] == ["codes", "graphs", "floats"]
    assert [text.split(" · ")[1] for text in texts(drawing)[1::2]] == ["70.0%", "20.0%", "10.0%"]


@pytest.mark.parametrize(
    "drawing",
    [
        decode_times((DecodeRun(prompt_tokens=1, warmup=1, ms=(0.0,)),), None),
        decode_times((DecodeRun(prompt_tokens=1, warmup=0, ms=()),), None),
        first_tokens((PrefillSample(prompt_tokens=1, warmup=1, ms=(2.0,)),), None),
        memory_timeline(
            (MemoryPoint(at_ms=3, phase="start", renderer_pss=0, gpu_process_pss=0),)
        ),
        memory_timeline(()),
        load_waterfall((("Cold", (load_sample(0, fetched=0, first_token=0),)),)),
        size_bars({}),
        size_bars({"empty": 0}),
    ],
)  # fmt: skip
def test_little_or_nothing_measured_is_still_a_drawing(drawing: Markup) -> None:
    assert parse(drawing).tag == "svg"
    assert "nan" not in drawing
