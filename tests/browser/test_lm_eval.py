"""The browser as a model of lm_eval, against lm_eval's own model on the same weights."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

import tabwright
from browser_harness.evaluation.commands import EvalMissing
from browser_harness.flags import AdapterChoice
from browser_harness.plan import PAGE
from exporter.pipeline import export
from manifests.bundle import read_manifest
from targets import find_targets
from tests.faults.leftovers import left_by_browsers

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the packages that lm_eval imports
    lm_eval = pytest.importorskip("lm_eval")
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    from browser_harness.evaluation.model import (
        BadModelArgument,
        RequestUnsupported,
        TabwrightLM,
    )

pytestmark = pytest.mark.browser
#: For what special tokens have no part in.
PLAIN = pytest.mark.parametrize("sides", ["plain"], indirect=True)

CONTEXT = 64
TARGET = "wasm-q4"


def _request(kind: str, *arguments: Any) -> Any:
    return Instance(request_type=kind, doc={}, arguments=arguments, idx=0)


@dataclass
class Sides:
    """The browser, and PyTorch in float32, with one bundle's weights."""

    bundle: Path
    browser: Any
    torch: Any

    def ask(self, kind: str, *requests: tuple[Any, ...]) -> tuple[Any, Any]:
        asked = [_request(kind, *arguments) for arguments in requests]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # transformers' own, of generate's arguments
            return getattr(self.browser, kind)(asked), getattr(self.torch, kind)(asked)


def _adds_bos(checkpoint: Path) -> None:
    path = checkpoint / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    bos = "<|im_start|>"
    tokenizer.post_processor = TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )
    tokenizer.save(str(path))


@pytest.fixture(scope="module", params=["plain", "with a beginning"])
def sides(
    request: pytest.FixtureRequest,
    tiny_checkpoint: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
    temporary: Path,
) -> Iterator[Sides]:
    from transformers import AutoTokenizer

    from exporter.reference.model import load_bundle

    folder = tmp_path_factory.mktemp("eval")
    checkpoint = shutil.copytree(tiny_checkpoint("w4a16-g32"), folder / "checkpoint")
    if request.param != "plain":
        _adds_bos(checkpoint)
    bundle = folder / "bundle"
    runtime = PAGE.parent / "bundle"
    export(checkpoint, find_targets([TARGET]), bundle, runtime=runtime, context_length=CONTEXT)
    model = load_bundle(checkpoint, bundle, read_manifest(bundle).weights["q4"], "cpu")
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    torch = HFLM(pretrained=model, tokenizer=tokenizer, max_length=CONTEXT, device="cpu")
    before = left_by_browsers(temporary)
    browser = TabwrightLM(str(bundle), TARGET, threads=1)
    yield Sides(bundle, browser, torch)
    browser.close()
    assert left_by_browsers(temporary) == before


PAIRS = (
    ("The quick brown fox", " jumps over the lazy dog"),
    ("The quick brown fox ", "jumps"),
    ("كتب المهندس رسالة", " قصيرة إلى زميله"),
    ("", "A browser tab has little memory"),
    ("<|im_start|>user\nhello", " there"),
    # Longer than the context: cut on the left.
    ("A model must be small to live in a browser tab. " * 8, " And so it is."),
    # One pass through the model answers all of these.
    *(("Question: which letter?\nAnswer:", f" {letter}") for letter in "ABCD"),
)


def test_loglikelihoods_are_those_of_pytorch(sides: Sides) -> None:
    got, expected = sides.ask("loglikelihood", *PAIRS)
    assert [sum_ for sum_, _ in got] == pytest.approx([sum_ for sum_, _ in expected], abs=1e-3)
    assert [greedy for _, greedy in got] == [greedy for _, greedy in expected]


def test_every_token_is_as_likely_and_one_is_greedy(sides: Sides) -> None:
    context = sides.torch.tok_encode("A small model")
    assert sides.browser.tok_encode("A small model") == context
    asked = [(None, context, [token]) for token in range(512)]
    got, expected = (side._loglikelihood_tokens(asked) for side in (sides.browser, sides.torch))
    assert [sum_ for sum_, _ in got] == pytest.approx([sum_ for sum_, _ in expected], abs=1e-3)
    assert [greedy for _, greedy in got] == [greedy for _, greedy in expected]
    assert sum(greedy for _, greedy in got) == 1


def test_whole_texts_are_scored_in_the_same_windows(sides: Sides) -> None:
    texts = (
        ("A browser tab has little memory.",),
        ("كتب المهندس رسالة قصيرة إلى زميله، ثم أرسلها في المساء. " * 5,),
    )
    got, expected = sides.ask("loglikelihood_rolling", *texts)
    assert got == pytest.approx(expected, abs=1e-3)


@PLAIN
@pytest.mark.parametrize("prompt", ["def add(a, b):", "كتب المهندس"])
def test_continuations_end_at_the_same_stops(prompt: str, sides: Sides) -> None:
    [_, [whole]] = sides.ask("generate_until", (prompt, {"until": [], "max_gen_toks": 24}))
    assert len(whole) > 12
    stops = [[whole[7]], [whole[5:8]], [whole[9:12], whole[6:9]], ["never said"], []]
    requests = [(prompt, {"until": stop, "max_gen_toks": 24}) for stop in stops]
    got, expected = sides.ask("generate_until", *requests)
    assert got == expected
    assert got[-2:] == [whole, whole]
    assert len(got[0]) < len(whole)


def test_long_prompts_are_cut_on_the_left(sides: Sides) -> None:
    prompt = "A model must be small to live in a browser tab. " * 8
    got, expected = sides.ask("generate_until", (prompt, {"until": ["\n"], "max_gen_toks": 8}))
    assert got == expected


def test_a_chat_is_rendered_as_transformers_does(sides: Sides) -> None:
    history = [{"role": "user", "content": "مرحبا, hello"}]
    assert sides.browser.apply_chat_template(history) == sides.torch.apply_chat_template(history)
    with pytest.raises(RequestUnsupported):
        sides.browser.apply_chat_template(history, add_generation_prompt=False)


@PLAIN
@pytest.mark.parametrize(
    "settings",
    [
        {"until": [], "do_sample": True, "temperature": 0.7},
        {"until": [], "max_gen_toks": CONTEXT},
    ],
)
def test_what_the_browser_cannot_do_is_refused(sides: Sides, settings: dict[str, Any]) -> None:
    with pytest.raises(RequestUnsupported):
        sides.browser.generate_until([_request("generate_until", "The", settings)])


TASK = """task: local_letters
dataset_path: json
dataset_kwargs:
  data_files: {data}
test_split: train
output_type: multiple_choice
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_choice: ["A", "B", "C", "D"]
doc_to_target: answer
metric_list:
  - metric: acc
"""


@PLAIN
def test_a_local_task_by_the_command_line(sides: Sides, tmp_path: Path, temporary: Path) -> None:
    data = tmp_path / "letters.jsonl"
    questions = [{"question": f"number {n}?", "answer": n % 4} for n in range(4)]
    data.write_text("\n".join(map(json.dumps, questions)), "utf-8")
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    (tasks / "local.yaml").write_text(TASK.format(data=data))
    # A process of its own, at whose end no browser may be left; their paths must be short.
    profiles = temporary / "cli"
    profiles.mkdir()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tabwright", "lm-eval", "--model", "tabwright"),
            *("--model_args", f"bundle={sides.bundle},target={TARGET},threads=1"),
            *("--tasks", "local_letters", "--include_path", str(tasks)),
            *("--log_samples", "--output_path", str(tmp_path / "out")),
        ],
        env={**os.environ, "HF_HOME": str(tmp_path / "hub"), "TMPDIR": str(profiles)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert left_by_browsers(profiles) == set()
    assert "local_letters" in done.stdout
    [samples] = (tmp_path / "out").rglob("samples_local_letters*.jsonl")
    told = [json.loads(row) for row in samples.read_text("utf-8").splitlines()]
    assert len(told) == len(questions)
    for row in told:
        prompt = f"Question: {row['doc']['question']}\nAnswer:"
        asked = [_request("loglikelihood", prompt, f" {letter}") for letter in "ABCD"]
        expected = [sum_ for sum_, _ in sides.torch.loglikelihood(asked)]
        got = [float(sum_) for [[sum_, _]] in row["resps"]]
        assert got == pytest.approx(expected, abs=1e-3)


def test_the_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("browser_harness.evaluation.commands.find_spec", lambda _name: None)
    assert tabwright.call(["lm-eval", "--model", "tabwright"]) == EvalMissing.exit_status
    assert "error[eval-missing]: " in capsys.readouterr().err


def test_an_adapter_that_there_is_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadModelArgument, match="adapter is 'gpu'") as caught:
        TabwrightLM(str(tmp_path), TARGET, adapter=cast("AdapterChoice", "gpu"))
    assert "hardware" in caught.value.next_step
