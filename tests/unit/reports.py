"""Reports made up for tests: every part filled, so that every part is rendered."""

from __future__ import annotations

from functools import cache
from math import sin

from manifests.agreement import Agreement, Mismatch
from manifests.page import Adapter, LoadTimings
from manifests.reference import Device, PrefillSpeed, Speed
from manifests.report import (
    Browser,
    BundleSummary,
    DecodeRun,
    Failure,
    GreedyCheck,
    LoadSample,
    Machine,
    Memory,
    MemoryPoint,
    Parity,
    PrefillSample,
    ReferenceSummary,
    Report,
    TargetReport,
    TokenCheck,
)

ARABIC = "باريس هي عاصمة فرنسا، وهي مدينة كبيرة تقع على نهر السين (La Seine) في شمال البلاد."
MIB = 1 << 20


def load_sample(total: float, *, fetched: int, first_token: float) -> LoadSample:
    """A load of ``total`` ms, over the network when ``fetched`` is not 0."""
    download = 0.6 * total if fetched else 0.0
    return LoadSample(
        timings=LoadTimings(
            fetch_ms=download,
            verify_ms=0.35 * total if fetched else 0.15 * total,
            store_ms=0.5 * download,
            session_ms=0.38 * total,
            total_ms=total,
            bytes_fetched=fetched,
            bytes_from_store=0 if fetched else 131_000_000,
        ),
        first_token_ms=first_token,
        bytes_on_wire=fetched + 4_000 if fetched else 900,
    )


def decode_run(median: float, tokens: int, seed: float) -> DecodeRun:
    """Milliseconds around ``median``, the first two slower, one outlier."""
    ms = [median * (1 + 0.08 * sin(seed + 1.7 * i) + 0.0015 * i) for i in range(tokens)]
    ms[0], ms[1] = 2.1 * median, 1.4 * median
    ms[tokens // 2] = 1.6 * median
    return DecodeRun(prompt_tokens=64, warmup=2, ms=tuple(ms))


def memory(renderer: float, gpu_process: float, heaps: dict[str, float]) -> Memory:
    """A run of five phases; sizes in MiB at the peak."""
    shape = (
        ("start", 0.06), ("start", 0.07), ("cold load", 0.2), ("cold load", 0.45),
        ("cold load", 0.8), ("cold load", 1.0), ("warm load", 0.5), ("warm load", 0.93),
        ("prefill", 0.95), ("prefill", 0.96), ("decode", 0.97), ("decode", 0.97),
        ("decode", 0.975), ("decode", 0.975), ("parity", 0.985), ("parity", 0.99),
        ("parity", 0.99), ("rest", 0.9),
    )  # fmt: skip

    def look(at: float, phase: str, share: float) -> MemoryPoint:
        # While the page loads it cannot answer for its own heaps.
        own = {k: round(v * share * MIB) for k, v in heaps.items()} if phase != "warm load" else {}
        return MemoryPoint(
            at_ms=at,
            phase=phase,
            renderer_pss=round(renderer * share * MIB),
            gpu_process_pss=round(gpu_process * (0.3 + 0.7 * share) * MIB),
            **own,
        )

    looks = tuple(look(900.0 * i, phase, share) for i, (phase, share) in enumerate(shape))
    return Memory(peak=look(4500, "cold load", 1.0), rest=looks[-1], timeline=looks)


def agreement(**changes: object) -> Agreement:
    """A good agreement over 320 positions, with ``changes``."""
    good = Agreement(
        positions=320,
        top1=1.0,
        max_abs_logit=3.1e-4,
        mean_abs_logit=1.2e-5,
        kl_mean=2.0e-9,
        kl_max=4.0e-8,
        perplexity_reference=25.41,
        perplexity=25.41,
    )
    return good.model_copy(update=changes)


def parity(runtime: Agreement) -> Parity:
    """Parity with texts in four languages and three continuations."""
    return Parity(
        tokens=(
            TokenCheck(name="capital", language="en", equal=True, round_trip="whole"),
            TokenCheck(name="عاصمة", language="ar", equal=True, round_trip="same"),
            TokenCheck(
                name="emoji", language="en", equal=False, first_difference=4, round_trip="differs"
            ),
            TokenCheck(name="fibonacci", language="code", equal=True, round_trip="whole"),
        ),
        chats=(
            TokenCheck(name="one turn", language="en", equal=True),
            TokenCheck(name="ثلاثة أدوار", language="ar", equal=True),
        ),
        export=agreement(
            top1=0.9967, max_abs_logit=0.175, mean_abs_logit=0.0107, kl_mean=3.2e-5, kl_max=3.6e-4,
            perplexity=25.43,
            mismatches=(
                Mismatch(text="declaration", position=41, expected=260, got=253, margin=0.0121),
            ),
        ),
        runtime=runtime,
        runtime_by_language={
            "en": agreement(positions=200, perplexity_reference=19.2, perplexity=19.2),
            "ar": agreement(positions=120, perplexity_reference=41.7, perplexity=41.7),
        },
        greedy=(
            GreedyCheck(
                name="capital", language="en", tokens=24, equal_tokens=24, outcome="exact",
                text="The capital of France is Paris.\n\nIt lies on the Seine.",
            ),
            GreedyCheck(
                name="عاصمة فرنسا", language="ar", tokens=24, equal_tokens=17,
                outcome="near-tie", margin=4.1e-4, text=ARABIC,
            ),
            GreedyCheck(
                name="fibonacci", language="code", tokens=24, equal_tokens=6,
                outcome="diverged", margin=0.82,
                text="def fib(n):\n    return n if n < 2 else fib(n - 1) + fib(n - 2)",
            ),
        ),
    )  # fmt: skip


def wasm_target() -> TargetReport:
    """A CPU target with every figure."""
    fetched = 131_000_000
    return TargetReport(
        execution_provider="wasm",
        threads=2,
        onnxruntime_web="1.30.0",
        cross_origin_isolated=True,
        target_bytes=131_214_336,
        cold=tuple(load_sample(t, fetched=fetched, first_token=412) for t in (5210, 4980, 5630)),
        warm=tuple(load_sample(t, fetched=0, first_token=405) for t in (2310, 2275, 2402)),
        prefill=(
            PrefillSample(prompt_tokens=16, warmup=1, ms=(260, 172, 168, 175)),
            PrefillSample(prompt_tokens=64, warmup=1, ms=(801, 640, 655, 648)),
        ),
        decode=tuple(decode_run(36.0, 48, seed) for seed in (0.0, 1.0, 2.0)),
        memory=memory(1180, 96, {"js_heap": 44, "wasm_heap": 836}),
        parity=parity(agreement()),
    )


def webgpu_target() -> TargetReport:
    """A WebGPU target on a software adapter, with a disagreement and a near-tie."""
    return TargetReport(
        execution_provider="webgpu",
        adapter=Adapter(
            vendor="google",
            architecture="swiftshader",
            device="0xc0de",
            description="SwiftShader Device (Subzero)",
            is_fallback=True,
            features=("subgroups", "timestamp-query"),
            device_features=(),
            limits={"maxBufferSize": 1 << 30, "maxStorageBufferBindingSize": 1 << 30},
        ),
        software_adapter=True,
        threads=1,
        onnxruntime_web="1.30.0",
        cross_origin_isolated=True,
        target_bytes=131_262_016,
        cold=(load_sample(6900, fetched=131_000_000, first_token=14200),),
        warm=(load_sample(3900, fetched=0, first_token=14100),),
        prefill=(PrefillSample(prompt_tokens=16, warmup=0, ms=(15210,)),),
        decode=(decode_run(9400, 6, 0.4),),
        memory=memory(420, 610, {"js_heap": 52, "wasm_heap": 180, "gpu_buffers": 262}),
        parity=parity(
            agreement(
                positions=48,
                top1=47 / 48,
                max_abs_logit=0.031,
                mismatches=(
                    Mismatch(text="capital", position=11, expected=504, got=338, margin=0.021),
                ),
                near_ties=(Mismatch(text="إعلان", position=7, expected=219, got=221, margin=6e-4),),
            )
        ),
        console=("[E:onnxruntime] a kernel fell back to the CPU",),
        notes=("Only 48 positions were scored: the software adapter decodes 0.1 tokens a second.",),
    )


def failed_target() -> TargetReport:
    """A target whose page crashed after the first load."""
    return TargetReport(
        execution_provider="webgpu",
        failure=Failure(
            code="page-crashed",
            sentence="the page crashed while it created the session",
            next_step="see the console messages; try a smaller target",
        ),
        software_adapter=True,
        threads=1,
        target_bytes=172_000_000,
        console=("Aborted(): out of memory",),
    )


@cache
def healthy_report() -> Report:
    """The sample without the target that failed."""
    report = sample_report()
    whole = {name: target for name, target in report.targets.items() if target.failure is None}
    return report.model_copy(update={"targets": whole})


@cache
def sample_report(name: str = "SmolLM2-135M-Instruct") -> Report:
    """A report with three targets, not yet judged."""
    return Report(
        created="2026-11-21T21:30:00Z",
        tools={"tabwright": "0.1.0", "python": "3.11.9", "playwright": "1.65.2"},
        bundle=BundleSummary(
            name=name,
            architecture="LlamaForCausalLM",
            parameters=134_515_008,
            seal="5e" * 32,
            source_digest="c4" * 32,
            bytes=158_400_000,
            bytes_by_kind={
                "linear codes": 53_084_160,
                "linear scales": 6_635_520,
                "embedding and head": 31_850_496,
                "floats": 140_544,
                "graphs": 610_000,
                "runtime": 26_400_000,
                "tokenizer": 3_500_000,
            },
        ),
        machine=Machine(
            system="Debian GNU/Linux 13, x86_64",
            cpu="AMD EPYC 7B13",
            cores=2,
            memory_bytes=8_360_000_000,
        ),
        browser=Browser(
            name="Chromium",
            version="156.0.7011.2",
            executable="/usr/lib/chromium/chromium",
            flags=("--headless=new", "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"),
            headless=True,
        ),
        reference=ReferenceSummary(
            device=Device(
                device="cpu",
                name="AMD EPYC 7B13",
                threads=2,
                versions={"torch": "2.13.0", "transformers": "5.17.0"},
            ),
            speed=Speed(
                dtype="bfloat16",
                load_ms=1480,
                prefill=(
                    PrefillSpeed(prompt_tokens=16, ms=(141, 139, 150)),
                    PrefillSpeed(prompt_tokens=64, ms=(302, 310, 305)),
                ),
                decode_ms=tuple(58 + 4 * sin(i) for i in range(46)),
                peak_bytes=1_210_000_000,
                peak_kind="process-rss",
            ),
        ),
        targets={
            "wasm-q4": wasm_target(),
            "webgpu-q4": webgpu_target(),
            "webgpu-q8": failed_target(),
        },
    )
