"""The browser as a model of lm-evaluation-harness.

Requests mean what they mean to lm_eval's own ``hf`` model, whose rules for the beginning
of a text, for splitting context from continuation and for long texts are followed, so
that the two can be compared number by number.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import (
    handle_stop_sequences,
    normalize_gen_kwargs,
    postprocess_generated_text,
)
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tqdm import tqdm

from browser_harness.continuations import plan_passes, run_pass
from browser_harness.evaluation.browser import OpenBundle
from browser_harness.evaluation.texts import Texts
from browser_harness.flags import AdapterChoice
from browser_harness.plan import Options, default_threads
from manifests.errors import EXIT_USAGE, BadInput, TabwrightError

#: lm_eval's own default for tasks that name no length.
_NEW_TOKENS = 256

Encoded = tuple[tuple[str, str] | None, list[int], list[int]]


class RequestUnsupported(BadInput):
    """A task asks for something that the browser's model does not do."""

    code = "request-unsupported"

    def __init__(self, what: str, next_step: str) -> None:
        super().__init__(f"a task asks for {what}", next_step)


class BadModelArgument(TabwrightError):
    """``--model_args`` gives something a value that it cannot have."""

    code = "bad-model-argument"
    exit_status = EXIT_USAGE

    def __init__(self, name: str, value: object, choices: Iterable[str]) -> None:
        super().__init__(
            f"the model argument {name} is '{value}'", f"choose among {', '.join(choices)}"
        )


@register_model("tabwright")
class TabwrightLM(TemplateLM):  # type: ignore[misc]  # lm_eval ships no types
    """A bundle's target in a headless Chromium, one text at a time.

    Args:
        bundle: folder of the bundle.
        target: one of its targets.
        adapter: WebGPU adapter: auto, hardware, software or none.
        threads: WASM threads.
        browser: executable; otherwise one is found.
        max_length: tokens of context; the bundle's own at most.
        batch_size, max_batch_size, device: lm_eval gives them to every model; nothing follows.

    Raises:
        BadModelArgument: there is no such adapter.
        TabwrightError: whatever :class:`OpenBundle` refuses.
    """

    def __init__(
        self,
        bundle: str,
        target: str,
        adapter: AdapterChoice = "auto",
        threads: int | None = None,
        browser: str | None = None,
        max_length: int | None = None,
        batch_size: object = 1,  # noqa: ARG002 - lm_eval's interface
        max_batch_size: object = None,  # noqa: ARG002 - lm_eval's interface
        device: object = None,  # noqa: ARG002 - lm_eval's interface
    ) -> None:
        super().__init__()
        if adapter not in get_args(AdapterChoice):
            raise BadModelArgument("adapter", adapter, get_args(AdapterChoice))
        options = Options(
            browser=Path(browser) if browser else None,
            adapter=adapter,
            threads=threads or default_threads(),
        )
        self._opened = OpenBundle(Path(bundle), target, options)
        self._texts = Texts(Path(bundle), self._opened)
        context = self._opened.manifest.model.context_length
        self.max_length = min(max_length or context, context)

    def close(self) -> None:
        """End the browser; the end of the process does so too."""
        self._opened.close()

    @property
    def eot_token_id(self) -> int:
        """What stands before a text where there is nothing else."""
        return self._texts.prefix()

    @property
    def tokenizer_name(self) -> str:
        """What lm_eval keeps cached requests by."""
        return f"tabwright-{self._opened.manifest.seal}"

    def get_model_info(self) -> dict[str, Any]:
        """What lm_eval writes beside its results."""
        manifest = self._opened.manifest
        return {
            "model_name": manifest.model.name,
            "model_num_parameters": manifest.model.parameters,
            "bundle_seal": manifest.seal,
        }

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The conversation as the page's template renders it.

        Raises:
            RequestUnsupported: the answer's beginning is given.
        """
        if not add_generation_prompt:
            raise RequestUnsupported(
                "a chat whose last message is to be continued",
                "choose tasks without an assistant prefill, or leave out --apply_chat_template",
            )
        return self._opened.wait(self._opened.page.chat(chat_history)).rendered

    def tok_encode(
        self,
        string: str,
        add_special_tokens: bool | None = None,
        **_: object,
    ) -> list[int]:
        """Ids of ``string``; ``None`` adds special tokens unless it begins with one."""
        if add_special_tokens is None:
            return self._texts.encode_once(string)
        return self._texts.encode(string) if add_special_tokens else self._texts.encode_bare(string)

    def _loglikelihood_tokens(
        self, requests: Sequence[Encoded], disable_tqdm: bool = False, **_: object
    ) -> list[tuple[float, bool]]:
        for *_context, continuation in requests:
            if len(continuation) > self.max_length:
                raise RequestUnsupported(
                    f"a continuation of {len(continuation)} tokens, and the context has "
                    f"{self.max_length}",
                    "choose other tasks, or export with a longer --context",
                )
        answers: dict[int, tuple[float, bool]] = {}
        passes = plan_passes([request[1:] for request in requests], self.max_length)
        for planned in tqdm(passes, disable=disable_tqdm, desc="Running loglikelihood requests"):
            found = self._opened.wait(run_pass(self._opened.page, planned))
            for index, likelihood in found.items():
                answers[index] = (likelihood.logprob, likelihood.greedy)
                if (texts := requests[index][0]) is not None:
                    self.cache_hook.add_partial("loglikelihood", texts, answers[index])
        return [answers[index] for index in range(len(requests))]

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Log-likelihoods of whole texts, in nats, in windows of the model's context."""
        totals = []
        for (text,) in (request.args for request in tqdm(requests, disable=disable_tqdm)):
            windows = get_rolling_token_windows(
                self.tok_encode(text), self.prefix_token_id, self.max_length, context_len=1
            )
            pieces = [(None, *make_disjoint_window(window)) for window in windows]
            total = sum(sum_ for sum_, _ in self._loglikelihood_tokens(pieces, disable_tqdm=True))
            totals.append(total)
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), total)
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Greedy continuations, each up to the first of its stop sequences.

        Raises:
            RequestUnsupported: the request is to sample, or leaves no room for a prompt.
        """
        made = []
        for context, settings in (request.args for request in tqdm(requests, disable=disable_tqdm)):
            text = self._continue(context, settings)
            made.append(text)
            self.cache_hook.add_partial("generate_until", (context, settings), text)
        return made

    def _continue(self, context: str, settings: dict[str, Any]) -> str:
        wanted = normalize_gen_kwargs(settings, _NEW_TOKENS)
        if wanted.get("do_sample"):
            raise RequestUnsupported(
                "a sampled continuation", "run it greedily: --gen_kwargs do_sample=False"
            )
        tokens = wanted["max_gen_toks"]
        room = self.max_length - tokens
        if room < 1:
            raise RequestUnsupported(
                f"{tokens} new tokens, and the context has {self.max_length}",
                "run it with --gen_kwargs max_gen_toks=N, or export with a longer --context",
            )
        stops = [stop for stop in handle_stop_sequences(wanted["until"], self._texts.eos) if stop]
        got = self._opened.wait(
            self._opened.page.generate_until(
                self.tok_encode(context)[-room:], tokens, stops, self._texts.single(stops)
            )
        )
        text: str = postprocess_generated_text(got.text, stops, None)
        return text
