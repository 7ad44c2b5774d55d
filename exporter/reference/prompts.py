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

#: That continue a prompt at most.
GREEDY_TOKENS = 32


@dataclass(frozen=True)
class GreedyPrompt:
    """A prompt to be continued by ``tokens`` tokens at most."""

    name: str
    language: str
    ids: tuple[int, ...]
    tokens: int


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

    Greedy prompts are cut so that what continues them fits too; it may take half of a short
    context.

    Raises:
        ChatTemplateFailed: the checkpoint's template refuses a conversation.
    """
    tokenizer = open_tokenizer(checkpoint)
    chats = tokenizer.chat_template is not None
    # A context of one token has room for a prompt or for what follows it.
    following = min(GREEDY_TOKENS, context_length // 2)

    def rendered(text: Text, *, reply: bool) -> str:
        try:
            return str(
                tokenizer.apply_chat_template(
                    list(text.messages), tokenize=False, add_generation_prompt=reply
                )
            )
        except TemplateError as error:
            raise ChatTemplateFailed(checkpoint, text.name, str(error)) from None

    def fed(text: Text, most: int, *, reply: bool) -> tuple[int, ...]:
        if text.text is not None:
            return _encode(tokenizer, text.text)[:most]
        # The template has written the special tokens; a second BOS would be wrong.
        return _encode(tokenizer, rendered(text, reply=reply), special=False)[:most]

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
            ScoredText(
                name=text.name, language=text.language, ids=fed(text, context_length, reply=False)
            )
            for text in suite.scored
            if chats or not text.messages
        ),
        greedy=tuple(
            GreedyPrompt(
                name=text.name,
                language=text.language,
                ids=(ids := fed(text, context_length - following, reply=True)),
                tokens=min(GREEDY_TOKENS, context_length - len(ids)),
            )
            for text in suite.greedy
            if following and (chats or not text.messages)
        ),
    )


def _encode(
    tokenizer: PreTrainedTokenizerBase, text: str, *, special: bool = True
) -> tuple[int, ...]:
    return tuple(tokenizer(text, add_special_tokens=special)["input_ids"])
