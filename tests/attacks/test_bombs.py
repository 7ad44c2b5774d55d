"""Files as large as the caps let them be, and one step beyond: what they cost is weighed."""

from __future__ import annotations

import json
import multiprocessing
import time
from pathlib import Path

from exporter.checkpoint import strict_json
from manifests.errors import TabwrightError
from tests.attacks import tiny
from tests.attacks.files import Case, place, raw_header, sparse
from tests.attacks.walk import walk
from tests.attacks.worker import MAX_BYTES, MAX_SECONDS, peak_memory

_VALUES = strict_json.MAX_VALUES
BOMBS: dict[str, Case] = {
    "a config of as many objects as there may be": (
        tiny.plain,
        lambda p: (p / "config.json").write_bytes(b"[" + b"{}," * (_VALUES // 2 - 4) + b"{}]"),
        "not-a-checkpoint",
    ),
    "a config of as many keys as there may be": (
        tiny.plain,
        lambda p: (p / "config.json").write_text(
            "{" + ",".join(f'"{n:x}":[]' for n in range(_VALUES // 2 - 4)) + "}"
        ),
        "not-a-checkpoint",
    ),
    "a config of more values": (
        tiny.plain,
        lambda p: (p / "config.json").write_bytes(b"[" + b"0," * _VALUES + b"0]"),
        "not-a-checkpoint",
    ),
    "a text as long as it may be": (
        tiny.plain,
        lambda p: (p / "config.json").write_bytes(
            b'{"model_type":"\\ud83d\\ude00' + b"a" * (strict_json.MAX_BYTES - 64) + b'"}'
        ),
        "not-a-checkpoint",
    ),
    "a config of gigabytes": (tiny.plain, sparse("config.json", 8 << 30), "not-a-checkpoint"),
    "a tokenizer of gigabytes": (
        tiny.plain,
        sparse("tokenizer.json", 8 << 30),
        "not-a-checkpoint",
    ),
    "a chat template of gigabytes": (
        tiny.plain,
        sparse("chat_template.jinja", 8 << 30),
        "not-a-checkpoint",
    ),
    "a tokenizer of as many values as there may be": (
        tiny.plain,
        lambda p: (p / "tokenizer.json").write_bytes(
            b'{"version":"1.0","model":{"type":"BPE","merges":[],"vocab":[' + b"0," * (4 << 20)
        ),
        "tokenizer-unreadable",
    ),
    "a header of as many tensors as there may be": (
        tiny.plain,
        raw_header(
            "{"
            + ",".join(
                f'"{n:x}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'
                for n in range(_VALUES // 7 - 1)
            )
            + "}"
        ),
        "tensor-unknown",
    ),
    "an adapter's config of names that are many and long": (
        tiny.lora,
        lambda p: (p / "adapter/adapter_config.json").write_text(
            json.dumps(
                {"peft_type": "LORA", "target_modules": [f"{n}" + "q" * 7000 for n in range(1024)]}
            )
        ),
        "adapter-misfit",
    ),
}


def test_bombs_cost_little(tmp_path: Path) -> None:
    for number, (make, damage, _) in enumerate(BOMBS.values()):
        damage(place(make, tmp_path / str(number) / "checkpoint"))
    # A process of its own: the memory of this one has been higher than any bomb's.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        weighed = pool.apply(
            _weigh, ([tmp_path / str(n) / "checkpoint" for n in range(len(BOMBS))],)
        )
    for (case, (_, _, code)), (told, seconds, size) in zip(BOMBS.items(), weighed, strict=True):
        assert told == code, case
        assert seconds < MAX_SECONDS, case
        assert size < MAX_BYTES, case


def _weigh(folders: list[Path]) -> list[tuple[str, float, int]]:
    """For each: its code, seconds of processor time, memory above the start."""
    weighed = []
    start = peak_memory()
    for folder in folders:
        began, code = time.process_time(), "none"
        try:
            walk(folder, {})
        except TabwrightError as error:
            code = error.code
        size = peak_memory() - start
        weighed.append((code, time.process_time() - began, size))
    return weighed
