"""``serve`` as a process: it says where, answers, and ends with the signal."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

import tabwright
from manifests.bundle import File, Manifest, Model, Source

TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
EMPTY = File(
    path="empty",
    media_type="application/json",
    size=0,
    sha256=hashlib.sha256().hexdigest(),
    chunks=(),
)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """The least that has a seal."""
    manifest = Manifest(
        model=Model(
            name="tiny",
            architecture="LlamaForCausalLM",
            model_type="llama",
            parameters=1,
            vocab_size=1,
            layers=1,
            context_length=1,
            eos_token_ids=(0,),
        ),
        source=Source(format="safetensors", files=(), digest="0" * 64),
        chunk_size=4,
        files=tuple(EMPTY.model_copy(update={"path": name}) for name in TOKENIZER),
        targets={},
        weights={},
        tokenizer=TOKENIZER[0],
        tokenizer_config=TOKENIZER[1],
        tools={},
    )
    (tmp_path / "manifest.json").write_bytes(manifest.sealed_bytes())
    return tmp_path


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serves_until_it_is_told_to_end(bundle: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "tabwright", "serve", str(bundle)]
    with subprocess.Popen(
        [*command, "--port", "0", "--no-open", "--format", "json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        printed = ""
        while not printed.endswith("}\n"):
            line = process.stdout.readline()
            assert line, process.communicate()
            printed += line
        url = json.loads(printed)["url"]
        with urllib.request.urlopen(f"{url}/manifest.json", timeout=30) as answer:
            assert answer.read() == (bundle / "manifest.json").read_bytes()
        process.send_signal(number)
        try:
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (process.returncode, out, err) == (0, "", "")


def test_refuses_a_bundle_whose_seal_is_broken(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = bundle / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"tiny"', b'"tidy"'))
    assert tabwright.call(["serve", str(bundle), "--no-open"]) == 3
    assert capsys.readouterr().err.startswith("error[seal-broken]: ")
