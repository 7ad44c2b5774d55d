"""Everything that is measured of one target, in the order that computes least."""

from __future__ import annotations

from dataclasses import dataclass, field

from browser_harness.answers import OpenReference
from browser_harness.fit import forecast, predict
from browser_harness.job import Job
from browser_harness.launch import Session
from browser_harness.ledger import account
from browser_harness.loads import Bench, Loaded, leave, load
from browser_harness.parity import (
    check_chats,
    check_greedy,
    check_tokens,
    choose_texts,
    judge_greedy,
    score,
)
from browser_harness.plan import Plan
from browser_harness.prompts import count_texts
from browser_harness.questions import ask
from browser_harness.serve import StaticServer
from browser_harness.speed import (
    Sampling,
    decode_run,
    measure_decode,
    measure_prefill,
    prompt_digest,
)
from browser_harness.summary import target_bytes
from browser_harness.watch import Watch, watching
from manifests.errors import TabwrightError
from manifests.page import GenerateResult, LoadResult
from manifests.progress import Progress
from manifests.questions import Answers, Questions
from manifests.report import (
    DecodeRun,
    Failure,
    LoadSample,
    Memory,
    Parity,
    PrefillSample,
    TargetReport,
)
from manifests.work import MemoryLedger, TextYield

_REST_SECONDS = 30.0


@dataclass
class Findings:
    """What is known of a target so far; a failure leaves the rest as it is."""

    loaded: LoadResult | None = None
    cold: list[LoadSample] = field(default_factory=list)
    warm: list[LoadSample] = field(default_factory=list)
    prefill: tuple[PrefillSample, ...] = ()
    decode: tuple[DecodeRun, ...] = ()
    memory: Memory | None = None
    parity: Parity | None = None
    questions: Answers | None = None
    texts: tuple[TextYield, ...] = ()
    ledger: MemoryLedger | None = None
    failure: Failure | None = None
    console: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


async def measure_target(
    session: Session, site: StaticServer, job: Job, progress: Progress
) -> TargetReport:
    """Measure one target in a browser with nothing stored.

    A failure of the page or the browser is recorded in the report, with what was
    measured before it.
    """
    findings = Findings()
    async with watching(session.profile) as watch:
        bench = job.bench(session, site, watch, findings.console)
        try:
            await _measure(bench, job, findings, progress)
        except TabwrightError as error:
            findings.failure = Failure.of(error)
            findings.memory = watch.memory()
    return _report(job, findings)


def unmeasured(job: Job, error: TabwrightError) -> TargetReport:
    """The report of a target whose browser failed before anything could be measured."""
    return _report(job, Findings(failure=Failure.of(error)))


async def _measure(bench: Bench, job: Job, findings: Findings, progress: Progress) -> None:
    plan, prompts = job.plan, job.prompts()
    phase = f"{job.name}: fresh pages"
    need = predict(job.manifest, job.name, _reach(job))
    progress(f"{job.name}: {forecast(need)}", 1, 1)
    progress(phase, 0, 1 + plan.warm_loads)
    loaded = await load(bench, "cold load", prompts, 1)
    findings.loaded, alone = loaded.result, loaded.first
    findings.cold.append(loaded.sample)
    _note(job, loaded.result, findings)
    lengths, tokens = _fit(job, findings)
    sampling = Sampling(plan)
    visit = 0
    while sampling.goes_on(visit, findings.decode):
        progress(phase, 1 + visit, 1 + max(plan.warm_loads, visit + 1))
        await leave(bench, loaded)
        loaded = await load(bench, "warm load", prompts, 1 + tokens if plan.share_first else 1)
        findings.warm.append(loaded.sample)
        findings.notes += [note for note in loaded.result.notes if note not in findings.notes]
        if plan.share_first:
            _take_first_as_speed(loaded, alone, plan, findings)
        else:
            await _measure_speed(bench, job, loaded, findings, lengths, tokens, visit)
        visit += 1
    progress(phase, 1 + visit, 1 + visit)
    findings.notes += [note] if (note := sampling.note(visit, findings.decode)) else []

    if job.reference is not None:
        bench.watch.phase = "parity"
        findings.parity = await _measure_parity(job, job.reference, loaded, progress)
        if job.plan.score_tokens is not None:
            scored = findings.parity.runtime.positions
            findings.notes.append(f"{scored} tokens were teacher-forced; the reference holds more")
    if job.questions is not None:
        bench.watch.phase = "questions"
        findings.questions = await _ask(job, job.questions, loaded, findings, progress)
    findings.texts = await count_texts(loaded.page)
    findings.memory = await _rest(bench.watch)
    if findings.memory is not None and findings.memory.rest is not None:
        buffers = await loaded.page.gpu_buffers()
        findings.ledger = account(job.manifest, job.name, need, findings.memory.rest, buffers)
    await leave(bench, loaded)


def _note(job: Job, loaded: LoadResult, findings: Findings) -> None:
    findings.notes.extend(loaded.notes)
    if loaded.software:
        findings.notes.append("software adapter: its speed is not judged")
    if job.plan.share_first:
        findings.notes.append(
            f"one continuation of {1 + job.plan.decode_tokens} tokens serves as prefill sample, "
            "decode run and greedy case"
        )


def _take_first_as_speed(
    loaded: Loaded, alone: GenerateResult, plan: Plan, findings: Findings
) -> None:
    findings.prefill = (
        PrefillSample(
            prompt_tokens=len(loaded.prompt),
            prompt=prompt_digest(loaded.prompt),
            warmup=0,
            ms=loaded.first.at_ms[:1],
        ),
    )
    run = decode_run(loaded.prompt, plan.decode_warmup, loaded.first, alone=alone)
    findings.decode = (run,)


def _reach(job: Job) -> int:
    """The longest text of the run, in positions; how long questions are only the page knows."""
    plan = job.plan
    lengths = [1 + plan.first_prompt + plan.decode_tokens, *plan.prefill_lengths]
    if job.reference is not None:
        texts = choose_texts(job.reference.document.scored, plan.score_texts)
        cases = job.reference.answers(job.weights).greedy[: plan.greedy_cases]
        lengths += [len(text.ids[: plan.score_tokens]) for text in texts]
        lengths += [len(case.prompt) + len(case.tokens[: plan.greedy_tokens]) for case in cases]
    return min(job.manifest.model.context_length, max(lengths))


def _fit(job: Job, findings: Findings) -> tuple[list[int], int]:
    """Prompt lengths, and tokens of a run, that fit the model's context."""
    plan, context = job.plan, job.manifest.model.context_length
    lengths = [length for length in plan.prefill_lengths if length + 1 <= context]
    tokens = min(plan.decode_tokens, context - plan.first_prompt - 1)
    if tokens < plan.decode_tokens or len(lengths) < len(plan.prefill_lengths):
        findings.notes.append(f"prompts and runs were cut to the context of {context} tokens")
    return lengths, tokens


async def _measure_speed(
    bench: Bench,
    job: Job,
    loaded: Loaded,
    findings: Findings,
    lengths: list[int],
    tokens: int,
    visit: int,
) -> None:
    """What is sampled in each fresh page: decode first, which is then the same in all."""
    bench.watch.phase = "decode"
    run = await measure_decode(loaded.page, loaded.prompt, tokens, job.plan, visit=visit)
    findings.decode += (run,)
    if visit < job.plan.warm_loads:
        bench.watch.phase = "prefill"
        prompts = [await job.prompts().take(loaded.page, length) for length in lengths]
        findings.prefill += await measure_prefill(loaded.page, prompts, job.plan, visit=visit)


async def _measure_parity(
    job: Job, reference: OpenReference, loaded: Loaded, progress: Progress
) -> Parity:
    answers, page, plan = reference.answers(job.weights), loaded.page, job.plan
    tokens = await check_tokens(page, reference.document)
    chats = await check_chats(page, reference.document)
    greedy = await check_greedy(page, answers, plan, progress=progress, phase=f"{job.name}: greedy")
    if (case := job.shared_case()) is not None:
        greedy = (judge_greedy(case, loaded.first), *greedy)
    original = reference.document.original
    runtime, by_language = await score(
        page, reference, job.weights, plan, progress=progress, phase=f"{job.name}: scored tokens"
    )
    return Parity(
        tokens=tokens,
        chats=chats,
        export=answers.export_loss,
        runtime=runtime,
        runtime_by_language=by_language,
        greedy=greedy,
        compression=None if original is None else original.compression_loss,
    )


async def _ask(
    job: Job, questions: Questions, loaded: Loaded, findings: Findings, progress: Progress
) -> Answers:
    answers = await ask(
        loaded.page,
        questions,
        job.manifest.model.context_length,
        most=job.plan.questions,
        progress=progress,
        phase=f"{job.name}: questions",
    )
    if len(answers.answers) < len(questions.questions):
        findings.notes.append(
            f"{len(answers.answers)} of {len(questions.questions)} questions were asked"
        )
    if answers.cut:
        findings.notes.append(f"{answers.cut} questions lost their beginning to the context")
    return answers


def _same_questions(theirs: Answers | None, own: Answers | None) -> Answers | None:
    """PyTorch's answers to the questions that the browser was asked."""
    if own is None or theirs is None:
        return None
    lines = {answer.line for answer in own.answers}
    kept = tuple(answer for answer in theirs.answers if answer.line in lines)
    return theirs.model_copy(update={"answers": kept})


async def _rest(watch: Watch) -> Memory | None:
    watch.phase = "rest"
    return watch.memory(rest=await watch.look(seconds=_REST_SECONDS))


def _report(job: Job, findings: Findings) -> TargetReport:
    loaded = findings.loaded
    document = job.reference.document if job.reference else None
    theirs = document.questions if document else None
    original = document.original.questions if document and document.original else None
    return TargetReport(
        execution_provider=job.manifest.targets[job.name].execution_provider,
        failure=findings.failure,
        adapter=loaded.adapter if loaded else None,
        software_adapter=loaded is not None and loaded.software,
        threads=loaded.threads if loaded else job.threads,
        onnxruntime_web=loaded.onnxruntime_web if loaded else None,
        cross_origin_isolated=loaded.cross_origin_isolated if loaded else None,
        jspi=loaded.jspi if loaded else None,
        target_bytes=target_bytes(job.manifest, job.name),
        cold=tuple(findings.cold),
        warm=tuple(findings.warm),
        prefill=findings.prefill,
        decode=findings.decode,
        memory=findings.memory,
        parity=findings.parity,
        questions=findings.questions,
        texts=findings.texts,
        ledger=findings.ledger,
        reference_questions=_same_questions(theirs, findings.questions),
        console=tuple(findings.console),
        notes=tuple(findings.notes),
        fallbacks=loaded.fallbacks if loaded else (),
        self_check=loaded.self_check if loaded else None,
        original_questions=_same_questions(original, findings.questions),
        fp16_bytes=2 * job.manifest.model.parameters,
    )
