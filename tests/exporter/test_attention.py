"""Attention spelt out, against onnxruntime's own kernel of GroupQueryAttention.

tests/exporter/test_families.py compares whole decoders with transformers; here are the
attributes that no family has on the CPU, and steps after the first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from exporter.lower.attention import spell_attention

HEADS, KEYS, WIDTH, LONGEST = 6, 2, 32, 24
QUERIES, SHARED = HEADS * WIDTH, KEYS * WIDTH
Tensors = dict[str, NDArray[Any]]
RNG = np.random.default_rng(5)


def _model(*, packed: bool, rotation: int, **attributes: Any) -> onnx.ModelProto:
    """One GroupQueryAttention whose lengths come from the mask, as in our decoders."""
    parts = ["query", "", ""] if packed else ["query", "key", "value"]
    widths = [QUERIES + 2 * SHARED] if packed else [QUERIES, SHARED, SHARED]
    tables = ["cosines", "sines"] if rotation else []
    nodes = [
        helper.make_node("ReduceSum", ["attention_mask", "axis"], ["count"], keepdims=0),
        helper.make_node("Sub", ["count", "axis"], ["last"]),
        helper.make_node("Cast", ["last"], ["seqlens_k"], to=TensorProto.INT32),
        helper.make_node("Shape", ["attention_mask"], ["length"], start=1, end=2),
        helper.make_node("Cast", ["length"], ["total"], to=TensorProto.INT32),
        helper.make_node(
            "GroupQueryAttention",
            [*parts, "past.key", "past.value", "seqlens_k", "total", *tables],
            ["output", "present.key", "present.value"],
            domain="com.microsoft",
            num_heads=HEADS,
            kv_num_heads=KEYS,
            do_rotary=int(rotation > 0),
            **attributes,
        ),
    ]
    cache: list[int | str | None] = [1, KEYS, "past", WIDTH]
    floats = TensorProto.FLOAT
    inputs = [
        helper.make_tensor_value_info("input_ids", TensorProto.INT64, [1, "new"]),
        helper.make_tensor_value_info("attention_mask", TensorProto.INT64, [1, "total"]),
        *(
            helper.make_tensor_value_info(name, floats, [1, "new", width])
            for name, width in zip(filter(None, parts), widths, strict=True)
        ),
        *(
            helper.make_tensor_value_info(f"past.{part}", floats, cache)
            for part in ("key", "value")
        ),
    ]
    outputs = [
        helper.make_tensor_value_info("output", floats, [1, "new", QUERIES]),
        *(
            helper.make_tensor_value_info(f"present.{part}", floats, [1, KEYS, "all", WIDTH])
            for part in ("key", "value")
        ),
    ]
    angles = np.outer(np.arange(LONGEST), 0.5 ** np.arange(rotation // 2)).astype(np.float32)
    constants = {"axis": np.array([1])}
    if rotation:
        constants |= {"cosines": np.cos(angles), "sines": np.sin(angles)}
    graph = helper.make_graph(
        nodes,
        "attention",
        inputs,
        outputs,
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def _run(model: onnx.ModelProto, steps: list[Tensors]) -> list[NDArray[np.float32]]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    wanted = {value.name for value in session.get_inputs()}
    keys = values = np.zeros((1, KEYS, 0, WIDTH), np.float32)
    outputs = []
    for step in steps:
        total = keys.shape[2] + step["input_ids"].shape[1]
        feeds = {
            **step,
            "attention_mask": np.ones((1, total), np.int64),
            "past.key": keys,
            "past.value": values,
        }
        feeds = {name: value for name, value in feeds.items() if name in wanted}
        output, keys, values = session.run(["output", "present.key", "present.value"], feeds)
        outputs += [output, keys, values]
    return outputs


@pytest.mark.parametrize(
    ("packed", "rotation", "attributes"),
    [
        (False, WIDTH, {}),
        (False, WIDTH, {"local_window_size": 5}),
        (False, 0, {"softcap": 2.0, "scale": 0.5}),
        (True, WIDTH // 2, {"local_window_size": 3, "softcap": 5.0}),
    ],
    ids=["plain", "window", "cap", "packed"],
)
def test_spelt_out_equals_the_kernel(
    packed: bool, rotation: int, attributes: dict[str, float]
) -> None:
    widths = {"query": QUERIES + 2 * SHARED} if packed else {"query": QUERIES}
    if not packed:
        widths |= {"key": SHARED, "value": SHARED}
    steps: list[Tensors] = [
        {
            "input_ids": np.zeros((1, new), np.int64),
            **{
                name: RNG.normal(size=(1, new, width)).astype(np.float32)
                for name, width in widths.items()
            },
        }
        for new in (9, 1, 6, 1)
    ]
    model = _model(packed=packed, rotation=rotation, **attributes)
    spelt = ir.from_proto(model)
    spell_attention(spelt)
    assert all(node.op_type != "GroupQueryAttention" for node in spelt.graph)
    assert all(node.op_type != "ReduceSum" for node in spelt.graph)
    expected = _run(model, steps)
    found = _run(ir.to_proto(spelt), steps)
    for theirs, ours in zip(expected, found, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_what_is_not_understood_stays() -> None:
    model = ir.from_proto(_model(packed=False, rotation=WIDTH, rotary_interleaved=1))
    spell_attention(model)
    assert [node.op_type for node in model.graph].count("GroupQueryAttention") == 1
