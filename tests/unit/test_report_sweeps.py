"""What sweeps found, told: every sample drawn, every finding in both reports."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest
from markupsafe import Markup
from rich.console import Console

from browser_harness.report import render, render_html
from browser_harness.report.sweep_charts import (
    condition_plot,
    context_plot,
    leak_plot,
    prompt_plot,
)
from browser_harness.report.sweeps import (
    context_sentence,
    leaks_sentence,
    load_sentences,
    prompts_sentence,
    sweep_findings,
)
from manifests.page import LoadTimings
from manifests.report import Report
from manifests.sweeps import (
    ConditionLoad,
    ContextSweep,
    LeakCycle,
    LeakSweep,
    PromptSample,
    Sweeps,
)
from tests.unit.reports import sample_report, wasm_target

#: Flat at 20 ms but for 2 ms that alternate, a jump by half at sample 404, a pause at 204.
RUN = tuple(
    200.0 if i == 204 else (20.0 + 2 * (i % 2)) * (1.5 if i >= 404 else 1) for i in range(804)
)
CONTEXT = ContextSweep(prompt_tokens=16, length=821, warmup=4, runs=(RUN, RUN))
PROMPTS = (
    PromptSample(prompt_tokens=16, warmup=1, ms=(400, 100, 110, 105)),
    PromptSample(prompt_tokens=32, warmup=1, ms=(400, 150, 140, 160)),
    PromptSample(prompt_tokens=64, warmup=1, ms=(900, 800, 800, 800)),
)


def load(condition: str, total: float, network: str | None = None) -> ConditionLoad:
    return ConditionLoad.model_validate(
        {
            "condition": condition,
            "network": network,
            "timings": LoadTimings(
                fetch_ms=0.5 * total, verify_ms=40, store_ms=60, session_ms=0.4 * total,
                total_ms=total, bytes_fetched=1, bytes_from_store=0,
            ),
            "first_token_ms": 100,
            "bytes_on_wire": 12_000_000,
        }
    )  # fmt: skip


LOADS = (
    load("cold", 3000), load("opfs", 900), load("cold", 5000), load("cold", 4000),
    load("throttled", 30000, "cable"),
)  # fmt: skip
LEAKS = LeakSweep(
    warmup=1,
    cycles=tuple(
        LeakCycle(gpu_buffers=4096 * n, wasm_heap=9, renderer_pss=10, gpu_process_pss=10)
        for n in range(6)
    ),
)


@pytest.fixture
def report() -> Report:
    sweeps = Sweeps(context=CONTEXT, prompts=PROMPTS, loads=LOADS, leaks=LEAKS)
    swept = wasm_target().model_copy(update={"sweeps": sweeps})
    return sample_report().model_copy(update={"targets": {"wasm-q4": swept}})


def test_context_in_a_sentence() -> None:
    told = context_sentence(CONTEXT)
    assert told.startswith("to position 821 in 2 pages: 21.0 ms a token at first")
    # Sample 404 is at position 16 + 1 + 404, sample 204 at 221.
    assert "no growth beyond chance" in told
    assert "1 step: × 1.50 near 421" in told
    assert "1 pause: 200 ms at 221" in told
    cut = CONTEXT.model_copy(update={"length": 2000})
    assert "to position 821, of 2,000 asked for," in context_sentence(cut)
    short = CONTEXT.model_copy(update={"runs": (RUN[:50],)})
    assert context_sentence(short) == (
        "to position 67, of 821 asked for, in 1 page: too few tokens to tell growth or steps"
    )


def test_prompts_in_a_sentence() -> None:
    told = prompts_sentence(PROMPTS)
    # Medians of 105, 150 and 800 ms: 152, 213 and 80 tokens a second.
    assert told == (
        "first token 105 ms after 16, 800 ms after 64; "
        "most of a prompt a second at 32 tokens: 213 tok/s"
    )


def test_loads_are_split_into_parts() -> None:
    cold, opfs, slow = load_sentences(LOADS)
    # The median of three, not the mean or the last.
    assert cold[1].startswith("4.10 s (median of 3), 12.00 MB on the wire: download 2.00 s")
    assert "digests 40.0 ms, store 60.0 ms, session 1.60 s, first token 100 ms" in cold[1]
    assert (opfs[0], slow[0]) == ("opfs", "throttled (cable)")
    assert "(one load)" in slow[1]


def test_a_leak_is_said_aloud() -> None:
    assert leaks_sentence(LEAKS).startswith("LEAK over 5 loads and releases: GPU buffers 4.096 kB")
    steady = LEAKS.model_copy(update={"cycles": (LEAKS.cycles[0],) * 6})
    assert leaks_sentence(steady).startswith("no growth beyond chance over 5")
    assert leaks_sentence(steady.model_copy(update={"cycles": LEAKS.cycles[:3]})) == (
        "2 cycles are too few to tell"
    )


def parse(drawing: Markup) -> ET.Element:
    return ET.fromstring(str(drawing))


def count(drawing: Markup, tag: str, css: str) -> int:
    return sum(css in (e.get("class") or "").split() for e in parse(drawing).iter(tag))


def test_every_sample_is_drawn() -> None:
    assert count(context_plot(CONTEXT), "circle", "dot") == 2 * 804
    assert count(context_plot(CONTEXT), "circle", "hollow") == 2 * 4
    # One line before the step, one after it.
    assert count(context_plot(CONTEXT), "line", "median") == 2
    assert count(prompt_plot(PROMPTS), "circle", "dot") == 12
    assert count(prompt_plot(PROMPTS), "circle", "hollow") == 3
    assert count(condition_plot(LOADS), "line", "mark") == len(LOADS)
    lines = parse(leak_plot(LEAKS)).iter("polyline")
    assert [len((line.get("points") or "").split()) for line in lines] == [6, 6, 0, 6, 6]


def test_both_reports_tell_every_finding(report: Report) -> None:
    console = Console(width=400)
    with console.capture() as captured:
        console.print(render(report))
    page, terminal = render_html(report), captured.get()
    findings = sweep_findings(report.targets["wasm-q4"])
    assert [name for name, _ in findings] == [
        "Context", "Prompts", "Load, cold", "Load, opfs", "Load, throttled (cable)", "Leaks",
    ]  # fmt: skip
    for name, sentence in findings:
        assert f"wasm-q4, {name}: {sentence}" in terminal
        assert str(Markup.escape(sentence)) in page
    # Every sample is written out below its plot.
    assert "page 2, from position 18, 4 to warm up: 20.0 22.0" in page
    assert "cycle 0, not judged: wasm_heap 9, gpu_buffers 0," in page


def test_a_name_from_outside_stays_text(report: Report) -> None:
    loads = (load("throttled", 1000, "<b>&"),)
    swept = report.targets["wasm-q4"].model_copy(update={"sweeps": Sweeps(loads=loads)})
    page = render_html(report.model_copy(update={"targets": {"wasm-q4": swept}}))
    assert "<b>&" not in page
    assert "&lt;b&gt;&amp;" in page
