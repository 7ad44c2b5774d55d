"""GGUF as a checkpoint: families against transformers, and files that are refused."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from math import pi
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize

from exporter.checkpoint import Dense, open_checkpoint
from exporter.checkpoint.errors import ShardMissing, UnsupportedScheme
from exporter.checkpoint.gguf.errors import UnreadableGguf, UnsupportedGguf
from exporter.checkpoint.gguf.header import read_header
from exporter.prove.gguf_blocks import BLOCKS
from manifests.errors import TabwrightError
from tests.families import WINDOW, Tiny, write_family
from tests.gguf_files import write_gguf

Factory = Callable[[str], Path]


@dataclass(frozen=True)
class Case:
    """A tiny family, and what its converter writes besides the sizes."""

    tiny: Tiny
    change: Callable[[Any], None] = lambda _: None


def _rotary(kind: str, **parameters: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **parameters}}


_GEMMA = {
    "num_hidden_layers": 4,
    "head_dim": 64,
    "sliding_window": WINDOW,
    "query_pre_attn_scalar": 64,
    "tie_word_embeddings": True,
}
_TRAINED = 8192
_LLAMA3 = _rotary(
    "llama3",
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=_TRAINED,
)
_SHORT = [1.0 + 0.01 * i for i in range(16)]
_LONG = [1.0 + 0.1 * i for i in range(16)]


def _gemma3(writer: Any) -> None:
    writer.add_rope_scaling_type(_scaling().LINEAR)
    writer.add_rope_scaling_factor(4.0)
    writer.add_uint32("gemma3.attention.sliding_window_pattern", 3)


def _scaling() -> Any:
    from gguf import RopeScalingType

    return RopeScalingType


def _linear(writer: Any) -> None:
    writer.add_rope_scaling_type(_scaling().LINEAR)
    writer.add_rope_scaling_factor(4.0)


def _yarn(writer: Any) -> None:
    writer.add_rope_scaling_type(_scaling().YARN)
    writer.add_rope_scaling_factor(4.0)
    writer.add_rope_scaling_orig_ctx_len(64)


def _llama3_factors(writer: Any) -> None:
    """As the converter computes them, wavelength by wavelength."""
    factors = []
    for i in range(0, 32, 2):
        wavelength = 2 * pi * 10000.0 ** (i / 32)
        if wavelength < _TRAINED / 4:
            factors.append(1.0)
        elif wavelength > _TRAINED / 1:
            factors.append(8.0)
        else:
            smooth = (_TRAINED / wavelength - 1) / (4 - 1)
            factors.append(1 / ((1 - smooth) / 8 + smooth))
    writer.add_tensor("rope_freqs.weight", np.array(factors, np.float32))


def _long_factors(writer: Any) -> None:
    writer.add_rope_scaling_orig_ctx_len(64)
    writer.add_tensor("rope_factors_short.weight", np.array(_SHORT, np.float32))
    writer.add_tensor("rope_factors_long.weight", np.array(_LONG, np.float32))


CASES: MappingProxyType[str, Case] = MappingProxyType(
    {
        "gemma2": Case(
            Tiny(
                "gemma2",
                {**_GEMMA, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 6.0},
            )
        ),
        "gemma3": Case(
            Tiny(
                "gemma3_text",
                {
                    **_GEMMA,
                    "sliding_window_pattern": 3,
                    "rope_parameters": {
                        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
                        "full_attention": {
                            "rope_type": "linear",
                            "rope_theta": 1000.0,
                            "factor": 4.0,
                        },
                    },
                },
            ),
            _gemma3,
        ),
        "llama-biases": Case(Tiny("llama", {"attention_bias": True, "mlp_bias": True})),
        "llama-linear": Case(Tiny("llama", _rotary("linear", factor=4.0)), _linear),
        "llama-llama3": Case(Tiny("llama", _LLAMA3), _llama3_factors),
        "llama-yarn": Case(
            Tiny("llama", _rotary("yarn", factor=4.0, original_max_position_embeddings=64)), _yarn
        ),
        "mistral": Case(Tiny("mistral", {"sliding_window": None, "head_dim": 48})),
        "phi3": Case(Tiny("phi3", {"sliding_window": WINDOW})),
        "phi3-longrope": Case(
            Tiny(
                "phi3",
                {
                    "sliding_window": None,
                    "original_max_position_embeddings": 64,
                    **_rotary(
                        "longrope",
                        short_factor=_SHORT,
                        long_factor=_LONG,
                        original_max_position_embeddings=64,
                    ),
                },
            ),
            _long_factors,
        ),
        "qwen2": Case(Tiny("qwen2", {"tie_word_embeddings": True})),
        "qwen3": Case(Tiny("qwen3", {"head_dim": 64, "tie_word_embeddings": True})),
        "smollm3": Case(Tiny("smollm3", {"num_hidden_layers": 4, "no_rope_layer_interval": 4})),
    }
)


@pytest.mark.parametrize("name", CASES)
def test_a_family_is_what_it_was_made_of(name: str, tmp_path: Path) -> None:
    """Transformers on what is read from the GGUF, against transformers on the original."""
    import torch
    import transformers

    from exporter.reference.model import load_checkpoint, read_config

    case = CASES[name]
    source = write_family(case.tiny, tmp_path / "source")
    path = write_gguf(source, tmp_path / "model.gguf", "F32", case.change)
    untyped: Any = transformers
    original = untyped.AutoModelForCausalLM.from_pretrained(
        source, dtype=torch.float32, attn_implementation="eager"
    )
    read = load_checkpoint(path, read_config(path), torch.float32, "cpu")
    ids = torch.randint(3, 512, (1, 48), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected, found = original(ids).logits, read(ids).logits
    # Norms lose their last bits to the 1 that GGUF adds.
    assert float((found - expected).abs().max()) < 2e-3
    assert bool((found.argmax(-1) == expected.argmax(-1)).all())


def test_the_documents_are_those_of_the_checkpoint(tiny_checkpoint: Factory) -> None:
    path = tiny_checkpoint("gguf-q8-0")
    documents = open_checkpoint(path).documents
    for name in ("chat_template.jinja", "generation_config.json"):
        made, source = documents.read(name), (path.parent / name).read_bytes()
        assert made is not None
        if name.endswith(".json"):
            assert json.loads(made).items() <= json.loads(source).items()
        else:
            assert made == source
    assert documents.read("no-such-file") is None


def test_codes_are_the_file_s_own(tiny_checkpoint: Factory) -> None:
    """Row 1 of a head of 32 lies at row 2 of the file; its low halves are values 0 to 15."""
    path = tiny_checkpoint("gguf-q4-0")
    weight = open_checkpoint(path).weights["model.layers.0.self_attn.q_proj.weight"]
    assert not isinstance(weight, Dense)
    stored = read_header(path).tensors["blk.0.attn_q.weight"].read_rows(2, 3)[0]
    assert weight.codes(1, 2)[0, 0] == stored[2] & 15
    assert weight.codes(1, 2)[0, 16] == stored[2] >> 4
    assert weight.scales()[1, 0] == stored[:2].view("<f2")[0]
    whole = weight.codes(0, 128)
    np.testing.assert_array_equal(weight.codes(5, 70), whole[5:70])


@pytest.mark.parametrize("kind", BLOCKS)
def test_the_proof_s_own_blocks_mean_what_llama_cpp_s_do(kind: GGMLQuantizationType) -> None:
    size = GGML_QUANT_SIZES[kind][1]
    blocks = np.random.default_rng(3).integers(0, 256, (50, size), np.uint8)
    with np.errstate(all="ignore"):
        expected, found = dequantize(blocks, kind), BLOCKS[kind](blocks)
    # Scales of any bits: some are infinite, or no number.
    assert np.isfinite(expected).mean() > 0.8
    np.testing.assert_array_equal(found, expected)


def _split(path: Path, folder: Path) -> list[Path]:
    """``path`` in two files as llama.cpp's gguf-split cuts it: all pairs are in the first."""
    from gguf import GGUFReader, GGUFValueType, GGUFWriter

    folder.mkdir()
    reader = GGUFReader(path)
    files = [folder / f"tiny-{number:05}-of-00002.gguf" for number in (1, 2)]
    half = len(reader.tensors) // 2
    for number, (file, tensors) in enumerate(
        zip(files, (reader.tensors[:half], reader.tensors[half:]), strict=True)
    ):
        writer = GGUFWriter(file, "llama")
        for key, field in reader.fields.items():
            if number == 0 and not key.startswith("GGUF.") and key != "general.architecture":
                inner = field.types[1] if field.types[0] == GGUFValueType.ARRAY else None
                writer.add_key_value(key, field.contents(), field.types[0], inner)
        writer.add_uint16("split.no", number)
        writer.add_uint16("split.count", 2)
        writer.add_int32("split.tensors.count", len(reader.tensors))
        for tensor in tensors:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return files


def test_a_split_file_is_one_model(tiny_checkpoint: Factory, tmp_path: Path) -> None:
    whole = open_checkpoint(tiny_checkpoint("gguf-q4-0"))
    files = _split(tiny_checkpoint("gguf-q4-0"), tmp_path / "split")
    for given in files:
        parts = open_checkpoint(given)
        assert parts.weight_files == tuple(files)
        assert parts.config == whole.config
        assert parts.weights.keys() == whole.weights.keys()
    files[1].rename(tmp_path / "elsewhere")
    with pytest.raises(ShardMissing):
        open_checkpoint(files[0])
    (tmp_path / "split" / files[0].name).rename(tmp_path / "alone.gguf")
    with pytest.raises(UnsupportedGguf, match="part of a split file"):
        open_checkpoint(tmp_path / "alone.gguf")


def _text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def _file(pairs: bytes = b"", count: int = 0, tensors: bytes = b"", number: int = 0) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, number, count) + pairs + tensors


def _tensor(name: str, shape: tuple[int, ...], kind: int, offset: int) -> bytes:
    record = _text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return record + struct.pack("<IQ", kind, offset)


_HUGE = 1 << 62
ATTACKS: MappingProxyType[str, bytes] = MappingProxyType(
    {
        "is no GGUF": b"PK\x03\x04" + bytes(60),
        "does not end": b"GGUF\x03",
        "version 50331648": b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
        f"has {_HUGE} pairs": _file(count=_HUGE),
        f"has {_HUGE} tensors": _file(number=_HUGE),
        f"a text of {_HUGE} bytes": _file(struct.pack("<Q", _HUGE), 1),
        "not UTF-8": _file(struct.pack("<Q", 2) + b"\xff\xfe", 1),
        "stands twice": _file((_text("k") + struct.pack("<II", 4, 1)) * 2, 2),
        "unknown type 99": _file(_text("k") + struct.pack("<I", 99), 1),
        "array of arrays": _file(_text("k") + struct.pack("<IIQ", 9, 9, 1), 1),
        "more than": _file(_text("k") + struct.pack("<IIQ", 9, 8, _HUGE), 1),
        "its header does not end": _file(_text("k") + struct.pack("<IIQ", 9, 4, 1 << 20), 1),
        "alignment": _file(_text("general.alignment") + struct.pack("<II", 4, 3), 1),
        "has 9 axes": _file(tensors=_tensor("t", (1,) * 9, 0, 0), number=1),
        "impossible shape": _file(tensors=_tensor("t", (_HUGE, _HUGE), 0, 0), number=1),
        "or place": _file(tensors=_tensor("t", (1,), 0, _HUGE), number=1),
        "ends inside tensor t": _file(tensors=_tensor("t", (64,), 0, 0), number=1),
        "overlaps another": _file(
            tensors=_tensor("a", (8,), 0, 0) + _tensor("b", (8,), 0, 0), number=2
        )
        + bytes(96),
        "leaves a gap": _file(tensors=_tensor("t", (8,), 0, 64), number=1) + bytes(160),
        "a tensor stands twice": _file(tensors=_tensor("t", (8,), 0, 0) * 2, number=2) + bytes(96),
        "architecture is missing": _file(),
    }
)


@pytest.mark.parametrize("reason", ATTACKS)
def test_a_hostile_file_is_refused(reason: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(ATTACKS[reason])
    with pytest.raises(UnreadableGguf, match=reason) as caught:
        open_checkpoint(path)
    assert caught.value.code == "gguf-unreadable"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda w: w.add_expert_count(8), "gguf-unsupported"),
        (lambda w: w.add_rope_scaling_type(_scaling().LONGROPE), "gguf-unsupported"),
        (lambda w: w.add_tensor("rope_freqs.weight", np.full(16, 3, "f4")), "gguf-unsupported"),
        (lambda w: w.add_tensor("rope_freqs.weight", np.full(16, np.nan, "f4")), "gguf-unreadable"),
        (lambda w: w.add_tensor("ids.weight", np.zeros(4, "i4")), "unsupported-scheme"),
    ],
)
def test_what_is_not_supported_is_named(
    change: Callable[[Any], None], code: str, tiny_checkpoint: Factory, tmp_path: Path
) -> None:
    path = write_gguf(tiny_checkpoint("bf16"), tmp_path / "model.gguf", "F32", change)
    with pytest.raises(TabwrightError) as caught:
        open_checkpoint(path)
    assert caught.value.code == code


def test_an_unknown_type_or_architecture_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(_file(tensors=_tensor("t", (32,), 250, 0), number=1))
    with pytest.raises(UnsupportedScheme, match="GGML type 250"):
        open_checkpoint(path)
    key = _text("general.architecture") + struct.pack("<I", 8) + _text("mamba")
    path.write_bytes(_file(key, 1))
    with pytest.raises(UnsupportedGguf, match="architecture mamba"):
        open_checkpoint(path)
