"""Answers that must fit a JSON Schema, by the runtime that ships, in a real Chromium.

The model's weights are random, so that nothing but the schema makes its answers JSON.
pydantic writes the schema and judges the answers.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from browser_harness.plan import PAGE
from browser_harness.tab import Tab
from exporter.pipeline import export
from targets import find_targets
from tests.harness_page import harness_tab

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("nothing_left")]

SEEDS = 12
MOST = 150

_LOAD = """async (options) => {
  const { load, openai } = await import("/bundle/runtime/tabwright.js");
  globalThis.model = await load("/bundle/manifest.json", { threads: 1, ...options });
  globalThis.completions = openai(model).chat.completions;
  globalThis.answer = async (options) => {
    let text = "";
    const tokens = [];
    const answer = model.generate([5, 6, 7], options);
    for (;;) {
      const next = await answer.next();
      if (next.done) return { text, tokens, end: next.value };
      text += next.value.text;
      tokens.push(next.value.token);
    }
  };
  return { loop: model.info.loop, notes: model.info.notes };
}"""
_ANSWER = "async (options) => answer(options)"
_REFUSED = """async (options) => {
  return answer(options).then(() => null, ({ code, message }) => [code, message]);
}"""
_COMPLETION = "async (request) => completions.create(request)"


class Entry(BaseModel):
    model_config = ConfigDict(extra="forbid")

    kind: Literal["كلمة", 'a "b"']
    name: Annotated[str, Field(min_length=1, max_length=5)]
    count: Annotated[int, Field(ge=-3, le=99)]
    certain: bool | None


SCHEMA = Entry.model_json_schema()


@pytest.fixture(scope="module")
def bundle(
    tiny_checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("schema") / "bundle"
    targets = find_targets(("webgpu-q4", "wasm-q4"))
    export(tiny_checkpoint("w4a16-g32"), targets, out, runtime=PAGE.parent / "bundle")
    return out


def _in_browser(
    bundle: Path, options: dict[str, Any], questions: dict[str, tuple[str, Any]]
) -> dict[str, Any]:
    async def run() -> dict[str, Any]:
        async with harness_tab({"/bundle": bundle}, "software") as (tab, _):
            seen = {"loaded": await _ask(tab, _LOAD, options)}
            for name, (script, given) in questions.items():
                seen[name] = await _ask(tab, script, given)
            await _ask(tab, "() => model.dispose()", None)
        return seen

    return asyncio.run(run())


async def _ask(tab: Tab, script: str, given: Any) -> Any:
    return await tab.evaluate(script, given, seconds=120, doing="running the model")


def _sampled(seed: int) -> dict[str, Any]:
    return {"schema": SCHEMA, "maxNewTokens": MOST, "temperature": 1, "topP": 0.95, "seed": seed}


@pytest.fixture(scope="module")
def in_worker(bundle: Path) -> dict[str, Any]:
    messages = [{"role": "user", "content": "An entry, please."}]
    asked = {"messages": messages, "max_tokens": MOST, "seed": 4}
    wanted = {"name": "entry", "strict": True, "schema": SCHEMA}
    return _in_browser(
        bundle,
        {"target": "wasm-q4", "worker": True},
        {
            **{f"seed {seed}": (_ANSWER, _sampled(seed)) for seed in range(SEEDS)},
            "greedy": (_ANSWER, {"schema": SCHEMA, "maxNewTokens": MOST}),
            "short": (_ANSWER, {**_sampled(1), "maxNewTokens": 4}),
            "refused": (_REFUSED, {"schema": {"type": "string", "pattern": "^a"}}),
            "both": (_REFUSED, {"schema": SCHEMA, "stop": "}"}),
            "after": (_ANSWER, {"maxNewTokens": 5, "stopTokens": []}),
            "completion": (
                _COMPLETION,
                {**asked, "response_format": {"type": "json_schema", "json_schema": wanted}},
            ),
            "object": (_COMPLETION, {**asked, "response_format": {"type": "json_object"}}),
        },
    )


@pytest.fixture(scope="module")
def on_gpu(bundle: Path) -> dict[str, Any]:
    # Few characters: the emulated adapter is slow.
    schema = {"type": "array", "items": {"enum": ["نعم", 7, None]}, "minItems": 1, "maxItems": 2}
    questions = {
        "greedy": (_ANSWER, {"schema": schema, "maxNewTokens": 60}),
        "sampled": (
            _ANSWER,
            {"schema": schema, "maxNewTokens": 60, "temperature": 1.5, "topK": 40, "seed": 3},
        ),
        "free": (_ANSWER, {"maxNewTokens": 3, "stopTokens": []}),
    }
    asked = {
        "resident": questions,
        "plain": {name: questions[name] for name in ("sampled", "free")},
    }
    return {
        loop: _in_browser(
            bundle,
            {"target": "webgpu-q4", "worker": False, "store": "none", "loop": loop},
            asked[loop],
        )
        for loop in asked
    }


def test_every_answer_that_ends_fits_the_schema(in_worker: dict[str, Any]) -> None:
    assert in_worker["loaded"] == {"loop": "plain", "notes": []}
    answers = [in_worker[f"seed {seed}"] for seed in range(SEEDS)]
    ended = [
        answer["text"] for answer in [*answers, in_worker["greedy"]] if answer["end"] == "stop"
    ]
    entries = [Entry.model_validate_json(text, strict=True) for text in ended]
    assert len(entries) >= SEEDS // 2
    assert len({entry.name for entry in entries}) > 1
    assert {entry.kind for entry in entries} == {"كلمة", 'a "b"'}


def test_an_answer_that_runs_out_of_tokens_says_so(in_worker: dict[str, Any]) -> None:
    short = in_worker["short"]
    assert short["end"] == "length"
    assert len(short["tokens"]) == 4
    assert in_worker["seed 1"]["tokens"][:4] == short["tokens"]


def test_what_cannot_be_enforced_is_refused_and_the_model_goes_on(
    in_worker: dict[str, Any],
) -> None:
    code, message = in_worker["refused"]
    assert code == "schema-unsupported"
    assert "'pattern'" in message
    assert in_worker["both"][0] == "bad-input"
    assert len(in_worker["after"]["tokens"]) == 5


def test_completions_take_a_response_format(in_worker: dict[str, Any]) -> None:
    [choice] = in_worker["completion"]["choices"]
    content = choice["message"]["content"]
    if choice["finish_reason"] == "stop":
        Entry.model_validate_json(content, strict=True)
    else:
        assert in_worker["completion"]["usage"]["completion_tokens"] == MOST
    assert content.lstrip().startswith("{")
    assert '"kind"' in content
    [free] = in_worker["object"]["choices"]
    assert free["message"]["content"].lstrip().startswith("{")


def test_the_loop_that_stays_on_the_gpu_is_held_to_it_too(on_gpu: dict[str, Any]) -> None:
    for loop, seen in on_gpu.items():
        assert seen["loaded"]["loop"] == loop
        for answer in (seen[name] for name in ("greedy", "sampled") if name in seen):
            assert answer["end"] == "stop", answer
            values = json.loads(answer["text"])
            assert 1 <= len(values) <= 2
            assert all(value in ("نعم", 7, None) for value in values)
        # The mask of the answer before is gone.
        assert len(seen["free"]["tokens"]) == 3
    for kind in ("sampled", "free"):
        assert on_gpu["resident"][kind] == on_gpu["plain"][kind]
