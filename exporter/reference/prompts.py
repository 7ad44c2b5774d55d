"""The suite in a checkpoint's own tokens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jinja2 import TemplateError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from exporter.checkpoint.folder import OPTIONAL_FILES, TOKENIZER_FILES
from exporter.reference.described import described
from exporter.reference.errors import ChatTemplateFailed
from exporter.reference.suite import Suite, Text
from manifests.reference import ChatCase, ScoredText, TokenCase


@dataclass(frozen=True)
class GreedyPrompt:
    """A prompt to be continued."""

    name: str
    language: str
    ids: tuple[int, ...]


@dataclass(frozen=True)
class Prompts:
    """A :class:`Suite`, tokenised by transformers."""

    tokens: tuple[TokenCase, ...]
    chats: tuple[ChatCase, ...]
    scored: tuple[ScoredText, ...]
    greedy: tuple[GreedyPrompt, ...]


def open_tokenizer(checkpoint: Path) -> PreTrainedTokenizerBase:
    """Transformers' tokenizer of a checkpoint."""
    with described(checkpoint, "config.json", *TOKENIZER_FILES, *OPTIONAL_FILES) as folder:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, local_files_only=True
        )
    return tokenizer


def tokenise(checkpoint: Path, suite: Suite, context_length: int) -> Prompts:
    """Tokenise ``suite``; texts are cut to ``context_length`` tokens where a model runs on them.

    Raises:
        ChatTemplateFailed: the checkpoint's template refuses a conversation.
    """
    tokenizer = open_tokenizer(checkpoint)
    chats = tokenizer.chat_template is not None

    def rendered(text: Text, *, reply: bool) -> str:
        try:
            return str(
                tokenizer.apply_chat_template(
                    list(text.messages), tokenize=False, add_generation_prompt=reply
                )
            )
        except TemplateError as error:
            raise ChatTemplateFailed(checkpoint, text.name, str(error)) from None

    def fed(text: Text, *, reply: bool) -> tuple[int, ...]:
        if text.text is not None:
            return _encode(tokenizer, text.text)[:context_length]
        # The template has written the special tokens; a second BOS would be wrong.
        return _encode(tokenizer, rendered(text, reply=reply), special=False)[:context_length]

    return Prompts(
        tokens=tuple(
            TokenCase(
                name=text.name,
                language=text.language,
                text=text.text,
                ids=(ids := _encode(tokenizer, text.text)),
                decoded=tokenizer.decode(
                    list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
                ),
            )
            for text in suite.tokens
            if text.text is not None
        ),
        chats=tuple(
            ChatCase(
                name=text.name,
                language=text.language,
                messages=text.messages,
                rendered=(line := rendered(text, reply=True)),
                ids=_encode(tokenizer, line, special=False),
            )
            for text in suite.chats
            if chats
        ),
        scored=tuple(
            ScoredText(name=text.name, language=text.language, ids=fed(text, reply=False))
            for text in suite.scored
            if chats or not text.messages
        ),
        greedy=tuple(
            GreedyPrompt(name=text.name, language=text.language, ids=fed(text, reply=True))
            for text in suite.greedy
            if chats or not text.messages
        ),
    )


def _encode(
    tokenizer: PreTrainedTokenizerBase, text: str, *, special: bool = True
) -> tuple[int, ...]:
    return tuple(tokenizer(text, add_special_tokens=special)["input_ids"])
