"""The smallest GGUF and ONNX inputs; see :mod:`tests.attacks.tiny`."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tests.attacks.binary import write_gguf
from tests.attacks.tiny import HIDDEN, Files, plain
from tests.onnx_folders import GPT2


def _alphabet() -> list[str]:
    """GPT-2's 256 characters, one for each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [octet for octet in range(256) if octet not in plain]
    return [chr(octet) for octet in plain] + [chr(256 + at) for at in range(len(others))]


_TEXT, _NUMBER, _REAL, _ARRAY, _SHORT = 8, 4, 6, 9, 2
_TOKENS = (*_alphabet(), "ab", "<|im_end|>")
#: Name, type, shape and bytes of a row.
_TENSORS: tuple[tuple[str, int, list[int], int], ...] = (
    ("token_embd.weight", 1, [HIDDEN, len(_TOKENS)], 2 * HIDDEN),
    ("output_norm.weight", 0, [HIDDEN], 4 * HIDDEN),
    ("blk.0.attn_q.weight", 2, [HIDDEN, HIDDEN], 18),
    ("blk.0.ffn_up.weight", 8, [HIDDEN, HIDDEN], 34),
)


def gguf() -> Files:
    """A Llama in GGUF, its linears in Q4_0 and Q8_0."""
    return {"model.gguf": _gguf_file(_pairs(), _TENSORS)}


def gguf_split() -> Files:
    """The same in two files."""
    files = {}
    for at, tensors in enumerate((_TENSORS[:2], _TENSORS[2:])):
        split = [["split.no", _SHORT, at], ["split.count", _SHORT, 2]]
        pairs = [*_pairs(), *split] if at == 0 else split
        files[f"model-{at + 1:05}-of-00002.gguf"] = _gguf_file(pairs, tensors)
    return files


def _pairs() -> list[list[object]]:
    text, number, real, array = _TEXT, _NUMBER, _REAL, _ARRAY
    tokens = list(_TOKENS)
    return [
        ["general.architecture", text, "llama"],
        ["llama.block_count", number, 1],
        ["llama.context_length", number, 64],
        ["llama.embedding_length", number, HIDDEN],
        ["llama.feed_forward_length", number, HIDDEN],
        ["llama.attention.head_count", number, 2],
        ["llama.attention.head_count_kv", number, 1],
        ["llama.attention.key_length", number, 16],
        ["llama.attention.layer_norm_rms_epsilon", real, 1e-5],
        ["llama.rope.freq_base", real, 10000.0],
        ["tokenizer.ggml.model", text, "gpt2"],
        ["tokenizer.ggml.pre", text, "gpt-2"],
        ["tokenizer.ggml.tokens", array, [text, None, tokens]],
        ["tokenizer.ggml.token_type", array, [5, None, [1] * 257 + [3]]],
        ["tokenizer.ggml.merges", array, [text, None, ["a b"]]],
        ["tokenizer.ggml.bos_token_id", number, 257],
        ["tokenizer.ggml.eos_token_id", number, 257],
        ["tokenizer.ggml.add_bos_token", 7, False],
        ["tokenizer.chat_template", text, "{{ messages }}"],
    ]


def _gguf_file(
    pairs: list[list[object]], named: Sequence[tuple[str, int, list[int], int]]
) -> bytes:
    tensors, body = [], b""
    for name, kind, shape, row in named:
        tensors.append([name, shape, kind, len(body)])
        size = row * (shape[1] if len(shape) == 2 else 1)
        body += b"\x11" * size + bytes(-size % 32)
    return write_gguf(b"", json.dumps([3, None, None, pairs, tensors])) + body


def onnx() -> Files:
    """An ONNX decoder of one product, one of its weights outside of the file."""
    files = {name: data for name, data in plain().items() if name != "model.safetensors"}
    weight = np.ones((HIDDEN, HIDDEN), np.float32)
    outside = TensorProto(
        name="model.layers.0.mlp.up_proj.weight",
        data_type=TensorProto.FLOAT,
        dims=weight.shape,
        data_location=TensorProto.EXTERNAL,
    )
    for key, value in (("location", "model.onnx_data"), ("offset", "64"), ("length", "4096")):
        outside.external_data.add(key=key, value=value)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", outside.name], ["y"]),
            helper.make_node("Mul", ["y", "n"], ["z"]),
        ],
        "decoder",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", HIDDEN])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", HIDDEN])],
        [outside, numpy_helper.from_array(np.ones(HIDDEN, np.float32), "n")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return files | {
        "model.onnx": model.SerializeToString(),
        "model.onnx_data": bytes(64) + weight.tobytes(),
    }


def decoder() -> Files:
    """The ONNX decoder that optimum wrote of a tiny GPT-2."""
    files = {name: (GPT2 / name).read_bytes() for name in ("config.json", "model.onnx")}
    tokenizers = {name: data for name, data in plain().items() if name.startswith("tokenizer")}
    return {**tokenizers, **files}
