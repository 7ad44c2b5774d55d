"""The suite, and how it becomes tokens."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exporter.reference.errors import ChatTemplateFailed
from exporter.reference.suite import SUITE, Suite
from manifests.errors import BadDocument

CONTEXT = 2048


@pytest.fixture
def checkpoint(tiny_checkpoint: Callable[[str], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint("bf16"), tmp_path / "checkpoint"))


def test_every_kind_of_text_is_asked_in_both_languages() -> None:
    suite = Suite.load(SUITE)
    for texts in (suite.tokens, suite.chats, suite.scored, suite.greedy):
        assert {"en", "ar"} <= {text.language for text in texts}
        assert len({text.name for text in texts}) == len(texts)


def test_a_text_is_either_plain_or_a_conversation(tmp_path: Path) -> None:
    path = tmp_path / "suite.json"
    both = {"name": "x", "language": "en", "text": "a", "messages": [{"role": "user"}]}
    for wrong in (both, {"name": "x", "language": "en"}):
        suite = {"tokens": [wrong], "chats": [], "scored": [], "greedy": []}
        path.write_text(json.dumps(suite), "utf-8")
        with pytest.raises(BadDocument, match="x: give either text or messages"):
            Suite.load(path)


def test_tokens_are_those_of_transformers(checkpoint: Path) -> None:
    from transformers import AutoTokenizer

    from exporter.reference.prompts import tokenise

    suite = Suite.load(SUITE)
    prompts = tokenise(checkpoint, suite, CONTEXT)
    tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint)
    assert [case.name for case in prompts.tokens] == [text.name for text in suite.tokens]
    for case in prompts.tokens:
        assert tokenizer.decode(case.ids) == case.text
    for chat, text in zip(prompts.chats, suite.chats, strict=True):
        expected = tokenizer.apply_chat_template(list(text.messages), add_generation_prompt=True)
        assert list(chat.ids) == expected["input_ids"]
        assert chat.rendered.endswith("<|im_start|>assistant\n")
    scored = {text.name: tokenizer.decode(text.ids) for text in prompts.scored}
    assert scored["chat-english"].endswith("<|im_end|>\n")


def test_texts_are_cut_to_the_context(checkpoint: Path) -> None:
    from exporter.reference.prompts import tokenise

    prompts = tokenise(checkpoint, Suite.load(SUITE), 30)
    assert {len(text.ids) for text in prompts.scored} == {30}


def test_a_prompt_leaves_room_for_what_continues_it(checkpoint: Path) -> None:
    from exporter.reference.prompts import GREEDY_TOKENS, tokenise

    suite = Suite.load(SUITE)
    for context in (2, 30, CONTEXT):
        prompts = tokenise(checkpoint, suite, context).greedy
        assert len(prompts) == len(suite.greedy)
        for prompt in prompts:
            assert prompt.ids
            assert 1 <= prompt.tokens <= context - len(prompt.ids)
            assert prompt.tokens == GREEDY_TOKENS or context < CONTEXT
    assert tokenise(checkpoint, suite, 1).greedy == ()


def test_a_model_without_a_chat_template_is_not_asked_to_chat(checkpoint: Path) -> None:
    from exporter.reference.prompts import tokenise

    (checkpoint / "chat_template.jinja").unlink()
    prompts = tokenise(checkpoint, Suite.load(SUITE), CONTEXT)
    assert prompts.chats == ()
    assert "chat-english" not in {text.name for text in prompts.scored}
    assert {prompt.name for prompt in prompts.greedy} == {
        "continue-english",
        "continue-arabic",
        "continue-code",
    }


def test_a_template_that_refuses_is_named(checkpoint: Path) -> None:
    from exporter.reference.prompts import tokenise

    template = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    (checkpoint / "chat_template.jinja").write_text(template, "utf-8")
    with pytest.raises(ChatTemplateFailed, match="'chat-system': no system"):
        tokenise(checkpoint, Suite.load(SUITE), CONTEXT)
