"""Names and links that lead out of the checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.checkpoint import open_checkpoint
from exporter.checkpoint.errors import LinkOutside
from exporter.checkpoint.gguf.errors import UnsupportedGguf
from tests.attacks import tiny, tiny_binary
from tests.attacks.files import Case, external, index, link, pipe, place, refused
from tests.attacks.walk import shapes_of

TRAVERSAL: dict[str, Case] = {
    "index to a parent": (tiny.plain, index(a="../secret"), "not-a-checkpoint"),
    "index to the root": (tiny.plain, index(a="/etc/passwd"), "not-a-checkpoint"),
    "index through a folder": (tiny.plain, index(a="x/../../secret"), "not-a-checkpoint"),
    "index to a parent, as Windows has it": (
        tiny.plain,
        index(a="..\\secret"),
        "not-a-checkpoint",
    ),
    "index to the folder": (tiny.plain, index(a="."), "not-a-checkpoint"),
    "index to no name": (tiny.plain, index(a=""), "shard-missing"),
    "index to a name with a nul": (tiny.plain, index(a="a\0b"), "shard-missing"),
    "index to a name of a megabyte": (tiny.plain, index(a="a" * (1 << 20)), "shard-missing"),
    "index to half of a surrogate pair": (tiny.plain, index(a="\ud800"), "not-a-checkpoint"),
    "index to a list": (tiny.plain, index(a=["model.safetensors"]), "not-a-checkpoint"),
    "index to the config": (tiny.plain, index(a="config.json"), "shard-corrupt"),
    "external data in a parent": (tiny_binary.onnx, external(location="../secret"), "onnx-corrupt"),
    "external data at the root": (
        tiny_binary.onnx,
        external(location="/etc/passwd"),
        "onnx-corrupt",
    ),
    "external data in a folder": (
        tiny_binary.onnx,
        external(location="x/../../secret"),
        "onnx-corrupt",
    ),
    "external data in the folder": (tiny_binary.onnx, external(location="."), "onnx-corrupt"),
    "external data that is missing": (tiny_binary.onnx, external(location="gone"), "shard-missing"),
    "external data of a long name": (
        tiny_binary.onnx,
        external(location="a" * 5000),
        "shard-missing",
    ),
}
LINKS: dict[str, Case] = {
    "weights": (tiny.plain, link("model.safetensors", "../secret"), "link-outside"),
    "a shard": (
        tiny.sharded,
        link("model-00001-of-00002.safetensors", "../secret"),
        "link-outside",
    ),
    "the config": (tiny.plain, link("config.json", "/etc/passwd"), "link-outside"),
    "the chat template": (tiny.plain, link("chat_template.jinja", "../secret"), "link-outside"),
    "external data": (tiny_binary.onnx, link("model.onnx_data", "../secret"), "link-outside"),
    "an adapter": (
        tiny.lora,
        link("adapter/adapter_model.safetensors", "../../secret"),
        "link-outside",
    ),
    "a part of a split GGUF": (
        tiny_binary.gguf_split,
        link("model-00002-of-00002.gguf", "../secret"),
        "link-outside",
    ),
    "a part of a split GGUF that is missing": (
        tiny_binary.gguf_split,
        link("model-00002-of-00002.gguf", "../gone/model-00002-of-00002.gguf"),
        "link-outside",
    ),
    "a link to a link": (
        tiny.plain,
        lambda p: (link("a", "../secret")(p), link("config.json", "a")(p)),
        "link-outside",
    ),
    "a link to nothing": (tiny.plain, link("config.json", "../nothing"), "link-outside"),
    "a circle": (tiny.plain, link("config.json", "config.json"), "not-a-checkpoint"),
    "a device": (tiny.plain, link("model.safetensors", "/dev/zero"), "link-outside"),
    "a pipe for a config": (tiny.plain, pipe("config.json"), "not-a-checkpoint"),
    "a pipe for weights": (tiny.plain, pipe("model.safetensors"), "not-a-checkpoint"),
}


@pytest.mark.parametrize("case", TRAVERSAL)
def test_traversal_are_refused(case: str, tmp_path: Path) -> None:
    refused(TRAVERSAL[case], tmp_path / "checkpoint")


@pytest.mark.parametrize("case", LINKS)
def test_links_are_refused(case: str, tmp_path: Path) -> None:
    refused(LINKS[case], tmp_path / "checkpoint")


def test_links_that_stay_inside_are_followed(tmp_path: Path) -> None:
    folder = place(tiny.plain, tmp_path / "checkpoint")
    (folder / "model.safetensors").rename(folder / "weights")
    link("model.safetensors", "weights")(folder)
    assert len(shapes_of(folder)) == 4


def test_the_hub_s_cache_is_read(tmp_path: Path) -> None:
    snapshot = place(tiny.plain, tmp_path / "models--a--b" / "snapshots" / "0f")
    blobs = tmp_path / "models--a--b" / "blobs"
    blobs.mkdir()
    for file in list(snapshot.iterdir()):
        file.rename(blobs / file.name)
        file.symlink_to(Path("..") / ".." / "blobs" / file.name)
    assert len(shapes_of(snapshot)) == 4


def test_the_gguf_that_is_named_may_be_a_link(tmp_path: Path) -> None:
    folder = place(tiny_binary.gguf_split, tmp_path / "checkpoint")
    name = "model-00001-of-00002.gguf"
    (folder / name).rename(tmp_path / name)
    link(name, f"../{name}")(folder)
    assert len(shapes_of(folder)) == 4
    with pytest.raises(LinkOutside, match=name):
        open_checkpoint(folder / "model-00002-of-00002.gguf")


def test_parts_of_a_gguf_are_read_from_the_hub_s_cache(tmp_path: Path) -> None:
    """The Hub's repositories hold split files in a folder for each width."""
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0f" / "Q4_0"
    snapshot = place(tiny_binary.gguf_split, snapshot)
    blobs = tmp_path / "models--a--b" / "blobs"
    blobs.mkdir()
    for file in list(snapshot.iterdir()):
        file.rename(blobs / file.name)
        file.symlink_to(Path("..") / ".." / ".." / "blobs" / file.name)
    assert len(shapes_of(snapshot)) == 4


@pytest.mark.parametrize("name", ["model-00003-of-00002.gguf", "model-00001-of-00000.gguf"])
def test_a_part_that_its_name_does_not_count_is_refused(name: str, tmp_path: Path) -> None:
    folder = place(tiny_binary.gguf_split, tmp_path / "checkpoint")
    (folder / "model-00001-of-00002.gguf").rename(folder / name)
    with pytest.raises(UnsupportedGguf, match="another name"):
        open_checkpoint(folder / name)
