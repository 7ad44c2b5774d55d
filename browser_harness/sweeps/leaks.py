"""Load, use and release a model again and again in one page, and look at what it holds."""

from __future__ import annotations

from browser_harness.loads import Bench, load
from browser_harness.prompts import Prompts
from manifests.progress import Progress
from manifests.sweeps import LeakCycle, LeakSweep

#: Cycles of the first of which compiled code, caches and pools are made that stay.
WARMUP = 2
_TOKENS = 4
_LOOK_SECONDS = 30.0


async def sweep_leaks(bench: Bench, prompts: Prompts, cycles: int, progress: Progress) -> LeakSweep:
    """``cycles`` loads and releases that are judged, after :data:`WARMUP` that are not."""
    phase, total = f"{bench.target}: leak check", WARMUP + cycles
    loaded = await load(bench, "leak check", prompts, _TOKENS)
    page, held = loaded.page, []
    for done in range(total):
        progress(phase, done, total)
        if done:
            await bench.load(page)
            await page.generate(loaded.prompt, _TOKENS)
        await page.release()
        await page.tab.command("HeapProfiler.collectGarbage", seconds=_LOOK_SECONDS)
        point = await bench.watch.look(seconds=_LOOK_SECONDS)
        held.append(
            LeakCycle(
                js_heap=point.js_heap,
                wasm_heap=point.wasm_heap,
                gpu_buffers=point.gpu_buffers,
                renderer_pss=point.renderer_pss,
                gpu_process_pss=point.gpu_process_pss,
            )
        )
    progress(phase, total, total)
    bench.watch.ask_page = None
    await page.close()
    return LeakSweep(warmup=WARMUP, cycles=tuple(held))
