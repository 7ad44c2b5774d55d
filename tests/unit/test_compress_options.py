"""What 'tabwright compress' accepts, and the samples that it draws."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from compressed_tensors.utils.match import match_name

import tabwright
from exporter.compress import chain
from exporter.compress.calibration import PACKAGE_SET, draw_samples
from exporter.compress.errors import (
    BadCalibration,
    BadChain,
    OptionsContradict,
    OptionUnused,
    TooLittleText,
    UnknownMethod,
)
from exporter.compress.recipes import METHODS, LlmCompressor, Settings, plan

STUDY = {"w4a16", "w8a16", "w8a8", "w4a16-rtn", "fp8", "nf4", "int8", "sparsegpt", "wanda"}


class Words:
    """A tokenizer of words; every text begins with 1."""

    def __call__(self, text: str, *, add_special_tokens: bool = True) -> dict[str, list[int]]:
        ids = [10 + len(word) for word in text.split()]
        return {"input_ids": [1, *ids] if add_special_tokens else ids}


def settings(path: Path | None, **options: Any) -> Settings:
    return Settings(calibration=path, **options)


def test_the_study_s_methods_are_there() -> None:
    assert set(METHODS) == STUDY


@pytest.mark.parametrize("first", [name for name, method in METHODS.items() if method.prunes])
@pytest.mark.parametrize("then", [name for name, method in METHODS.items() if not method.prunes])
def test_prune_then_quantise_is_a_chain_and_nothing_else_is(first: str, then: str) -> None:
    methods, _ = plan([first, then])
    assert [method.name for method in methods] == [first, then]
    for names in ([then, first], [then, then], [first, first], [first, then, then], []):
        with pytest.raises(BadChain):
            plan(names)


def test_an_unknown_method_is_named() -> None:
    with pytest.raises(UnknownMethod, match="unknown method 'w2a16'") as caught:
        plan(["w2a16"])
    assert "w4a16-rtn" in caught.value.next_step


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("w4a16", "sparsity", 0.5),
        ("w8a16", "group_size", 32),
        ("wanda", "group_size", 32),
        ("w4a16-rtn", "samples", 128),
        ("nf4", "calibration", Path("text.txt")),
        ("fp8", "seed", 1),
    ],
)
def test_an_option_that_nothing_heeds_is_refused(name: str, option: str, value: Any) -> None:
    with pytest.raises(OptionUnused, match=f"means nothing to {name}"):
        plan([name], **{option: value})
    methods, found = plan(["sparsegpt", "w4a16"], **{option: value})
    assert getattr(found, option) == value
    assert len(methods) == 2


def test_options_that_contradict_are_refused() -> None:
    assert plan(["wanda"], mask_structure="2:4", sparsity=0.5)
    for other in ({"sparsity": 0.6}, {"sparsity_profile": "owl"}):
        with pytest.raises(OptionsContradict, match="--mask-structure 2:4"):
            plan(["wanda"], mask_structure="2:4", **other)


def test_heads_are_what_llm_compressor_is_told_to_ignore() -> None:
    for method in METHODS.values():
        if isinstance(method.work, LlmCompressor) and not method.prunes:
            last = method.work.modifiers(Settings(), 32)[-1]
            ignored = last.arguments["ignore"]
            for name, left in (("lm_head", True), ("model.layers.0.mlp.up_proj", False)):
                assert any(match_name(name, each) for each in ignored) == left


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        (["--method", "w2"], 2, "unknown-method"),
        (["--method", "nf4", "--method", "int8"], 2, "bad-chain"),
        (["--method", "nf4", "--sparsity", "0.5"], 2, "option-unused"),
        (["--method", "wanda", "--sparsity", "1.5"], 2, "usage"),
        (["--method", "wanda"], 3, "not-a-checkpoint"),
    ],
)
def test_the_command_says_what_is_wrong(
    arguments: list[str],
    status: int,
    code: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    line = ["compress", str(tmp_path / "none"), "-o", str(out), *arguments]
    assert tabwright.call(line) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"error[{code}]: " in captured.err
    assert list(tmp_path.iterdir()) == []


def test_the_missing_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(chain, "_TOOLS", ("no-such-distribution",))
    line = ["compress", str(tmp_path), "--method", "fp8", "-o", str(tmp_path / "out")]
    assert tabwright.call(line) == 4
    printed = capsys.readouterr().err
    assert "error[extra-missing]: the package no-such-distribution" in printed
    assert "pip install 'tabwright[compress]'" in printed


def test_the_package_s_set_is_enough_for_the_default() -> None:
    samples = draw_samples(Words(), Settings())
    assert samples.calibration.languages == {"ar": 64, "en": 64}
    assert samples.calibration.sha256 == hashlib.sha256(PACKAGE_SET.read_bytes()).hexdigest()
    assert samples.calibration.tokens == sum(map(len, samples.ids))
    texts = [json.loads(line)["text"] for line in PACKAGE_SET.read_text("utf-8").splitlines()]
    assert len(set(texts)) == len(texts)


def test_samples_begin_as_texts_do_and_are_no_longer_than_asked(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("a bb ccc dddd eeeee ffffff ggggggg", "utf-8")
    found = draw_samples(Words(), settings(path, samples=2, sequence_length=4))
    # Seven words in threes; the one that is left over predicts nothing.
    assert sorted(found.ids) == [(1, 11, 12, 13), (1, 14, 15, 16)]
    assert found.calibration.languages == {"unnamed": 2}
    with pytest.raises(TooLittleText, match="gives 2 samples, not 3"):
        draw_samples(Words(), settings(path, samples=3, sequence_length=4))


def test_languages_take_turns_and_the_seed_decides(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    lines = [{"language": "en", "text": f"{'a' * n} b"} for n in range(1, 30)]
    lines += [{"language": "ar", "text": f"{'ا' * n} ب"} for n in range(40, 45)]
    path.write_text("\n".join(json.dumps(line) for line in lines), "utf-8")
    first = draw_samples(Words(), settings(path, samples=8))
    assert first.calibration.languages == {"ar": 4, "en": 4}
    assert draw_samples(Words(), settings(path, samples=8)).ids == first.ids
    assert draw_samples(Words(), settings(path, samples=8, seed=1)).ids != first.ids
    # A language that has run out leaves its turns to the other.
    rest = draw_samples(Words(), settings(path, samples=20)).calibration.languages
    assert rest == {"ar": 5, "en": 15}


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("none.txt", None, "No such file"),
        ("latin.txt", b"caf\xe9", "is not UTF-8 \\(byte 3\\)"),
        ("bad.jsonl", b'{"text": "a b"}\n{', "line 2 is not JSON"),
        ("deep.jsonl", b"[" * 200_000, "line 1 is not JSON"),
        ("list.jsonl", b'["a b"]', "line 1 has no text"),
        ("number.jsonl", b'{"text": 5}', "line 1 has no text"),
        ("language.jsonl", b'{"text": "a", "language": null}', "language that is no name"),
        ("half.jsonl", b'{"text": "\\ud83d\\ude00"}\n{"text": "\\ud83d"}', "line 2 is not JSON"),
    ],
)
def test_what_is_no_text_is_refused(
    name: str, content: bytes | None, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadCalibration, match=reason):
        draw_samples(Words(), settings(path, samples=1))
