"""Text to token ids as lm_eval's own models do it, by the page's tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

from browser_harness.evaluation.browser import OpenBundle
from manifests.errors import BadDocument, BadInput


class NoPrefixToken(BadInput):
    """There is nothing to put before a text's first token."""

    code = "no-prefix-token"

    def __init__(self, bundle: Path) -> None:
        super().__init__(
            f"{bundle}: its tokenizer has neither a beginning- nor an end-of-text token",
            "choose tasks whose contexts are never empty",
        )


class Texts:
    """The tokenizer of an open bundle.

    ``bos`` and ``eos`` are the tokens' texts, ``None`` where the tokenizer has none.

    Raises:
        BadDocument: tokenizer_config.json is not an object.
    """

    def __init__(self, bundle: Path, opened: OpenBundle) -> None:
        self._bundle = bundle
        self._opened = opened
        path = bundle / opened.manifest.tokenizer_config
        try:
            config = json.loads(path.read_bytes())
        except ValueError as error:
            raise BadDocument(path, "tokenizer config", str(error)) from None
        if not isinstance(config, dict):
            raise BadDocument(path, "tokenizer config", "it is not an object")
        self.bos = _content(config.get("bos_token"))
        self.eos = _content(config.get("eos_token"))
        around, sample = self.encode(""), self.encode("a")
        # What a tokenizer adds by itself is there without any text, on either side of it.
        same = (one == other for one, other in zip(around, sample, strict=False))
        self._before = next((i for i, equal in enumerate(same) if not equal), len(around))
        self._after = len(around) - self._before

    def encode(self, text: str) -> list[int]:
        """Ids with the special tokens that the tokenizer adds by itself."""
        [ids] = self._opened.wait(self._opened.page.tokenize([text]))
        return list(ids)

    def encode_bare(self, text: str) -> list[int]:
        """Ids of the text alone."""
        ids = self.encode(text)
        return ids[self._before : len(ids) - self._after]

    def encode_once(self, text: str) -> list[int]:
        """Ids with special tokens, unless the text brings its own beginning along.

        lm_eval's rule: templates write the beginning-of-text token themselves.
        """
        begins = self.bos or self.eos
        return self.encode_bare(text) if begins and text.startswith(begins) else self.encode(text)

    def prefix(self) -> int:
        """The id before a text's first token: the beginning's, or else the end's.

        Raises:
            NoPrefixToken: the tokenizer has neither.
        """
        begins = self.bos or self.eos
        if begins is None:
            raise NoPrefixToken(self._bundle)
        return self.encode_bare(begins)[0]

    def single(self, texts: list[str]) -> list[int]:
        """Ids of those ``texts`` that are one token each."""
        encoded = [self.encode_bare(text) for text in texts]
        return [ids[0] for ids in encoded if len(ids) == 1]


def _content(token: object) -> str | None:
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None
