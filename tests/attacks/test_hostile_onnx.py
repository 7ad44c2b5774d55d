"""ONNX files made to mislead: each is refused by name, and nothing is written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from exporter.checkpoint.errors import LinkOutside, ShardMissing
from exporter.checkpoint.onnx_file import MAX_GRAPH_BYTES, OnnxCorrupt, OnnxUnsupported
from exporter.pipeline import export
from manifests.errors import BadInput
from targets import find_targets
from tests.checkpoints import edit_config
from tests.onnx_folders import GPT2, write_folder

Factory = Callable[[str], Path]
Change = Callable[[onnx.ModelProto], None]
TARGETS = find_targets(["webgpu-q4"])


def _refused(folder: Path, page: Path, error: type[BadInput], match: str) -> None:
    out = folder.parent / "out"
    with pytest.raises(error, match=match) as caught:
        export(folder, TARGETS, out, runtime=page)
    assert caught.value.next_step
    assert not out.exists()


def _tensor(model: onnx.ModelProto) -> TensorProto:
    """The embedding, float32 [512, 16]."""
    tensor: TensorProto = next(
        each for each in model.graph.initializer if each.name == "transformer.wte.weight"
    )
    return tensor


def _outside(**entries: str) -> Change:
    """Say that the embedding lies in another file."""

    def change(model: onnx.ModelProto) -> None:
        tensor = _tensor(model)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in entries.items():
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value

    return change


def _dims(*dims: int) -> Change:
    def change(model: onnx.ModelProto) -> None:
        tensor = _tensor(model)
        del tensor.dims[:]
        tensor.dims.extend(dims)

    return change


def _two_places(model: onnx.ModelProto) -> None:
    _tensor(model).float_data.append(1.0)


def _numbers(model: onnx.ModelProto) -> None:
    tensor = _tensor(model)
    values = onnx.numpy_helper.to_array(tensor)
    tensor.ClearField("raw_data")
    tensor.float_data.extend(values.ravel().tolist())


def _twice(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(_tensor(model))


def _sparse(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add().dims.extend([2, 2])


def _no_type(model: onnx.ModelProto) -> None:
    _tensor(model).data_type = 99


def _operator(kind: str, domain: str = "") -> Change:
    def change(model: onnx.ModelProto) -> None:
        node = next(node for node in model.graph.node if node.op_type == "Tanh")
        node.op_type, node.domain = kind, domain
        if domain:
            model.opset_import.append(helper.make_opsetid(domain, 1))

    return change


def _cycle(model: onnx.ModelProto) -> None:
    first = next(node for node in model.graph.node if node.op_type == "Gather")
    first.input[1] = model.graph.node[-1].output[0]


def _function(model: onnx.ModelProto) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    imports = [helper.make_opsetid("", 18)]
    model.functions.append(helper.make_function("mine", "Mine", ["x"], ["y"], [node], imports))
    model.opset_import.append(helper.make_opsetid("mine", 1))


def _branch(depth: int) -> Change:
    """An If whose branch holds an If, and so on."""

    def change(model: onnx.ModelProto) -> None:
        value = helper.make_tensor_value_info("inner", TensorProto.BOOL, [])
        constant = helper.make_tensor("", TensorProto.BOOL, [], [True])
        node = helper.make_node("Constant", [], ["inner"], value=constant)
        for level in range(depth):
            branch = helper.make_graph([node], f"level{level}", [], [value])
            node = helper.make_node(
                "If", ["condition"], ["inner"], then_branch=branch, else_branch=branch
            )
        node.output[0] = "outer"
        start = helper.make_node("Constant", [], ["condition"], value=constant)
        model.graph.node.insert(0, start)
        model.graph.node.insert(1, node)

    return change


def _no_cache(model: onnx.ModelProto) -> None:
    for values in (model.graph.input, model.graph.output):
        kept = [value for value in values if "0." not in value.name]
        del values[:]
        values.extend(kept)
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name.startswith("past_key_values"):
                node.input[index] = "transformer.wte.weight"


def _input(name: str) -> Change:
    def change(model: onnx.ModelProto) -> None:
        value = helper.make_tensor_value_info(name, TensorProto.INT64, ["batch_size"])
        model.graph.input.append(value)

    return change


def _fixed_length(model: onnx.ModelProto) -> None:
    ids = next(value for value in model.graph.input if value.name == "input_ids")
    ids.type.tensor_type.shape.dim[1].dim_value = 8


CORRUPT: dict[str, tuple[Change, str]] = {
    "path out of the folder": (_outside(location="../model.onnx"), "outside its folder"),
    "absolute path": (_outside(location="/etc/passwd"), "outside its folder"),
    "no path": (_outside(offset="0"), "outside its folder"),
    "a folder for a path": (_outside(location=".."), "outside its folder"),
    "offset past the end": (
        _outside(location="model.onnx", offset="4000000000", length="32768"),
        "lies at bytes",
    ),
    "offset below the start": (_outside(location="model.onnx", offset="-8"), "lies at bytes"),
    "length past the end": (_outside(location="model.onnx", length=str(1 << 62)), "lies at bytes"),
    "offset that is no number": (_outside(location="model.onnx", offset="zero"), "no readable"),
    "length of another shape": (
        _outside(location="model.onnx", offset="0", length="64"),
        "64 bytes, needs 32768",
    ),
    "dimensions that overflow": (_dims(1 << 62, 1 << 62), "impossible shape"),
    "dimensions below zero": (_dims(-512, -16), "impossible shape"),
    "more values than bytes": (_dims(1 << 40, 16), "needs"),
    "too many axes": (_dims(*[1] * 10, 512, 16), "impossible shape"),
    "values in two places": (_two_places, "two places"),
    "an initializer twice": (_twice, "there twice"),
    "an unknown type": (_no_type, "Unknown tensor data type"),
    "an unknown operator": (_operator("NoSuchOperator"), "breaks ONNX's rules"),
    "a cycle": (_cycle, "breaks ONNX's rules"),
}
UNSUPPORTED: dict[str, tuple[Change, str]] = {
    "numbers in the place of bytes": (_numbers, "neither as bytes"),
    "sparse weights": (_sparse, "sparse"),
    "an operator of somebody's": (_operator("Tanh", "evil.example"), "evil.example.Tanh"),
    "a contributed operator": (_operator("FastGelu", "com.microsoft"), "com.microsoft.FastGelu"),
    "quantised weights": (_operator("MatMulNBits", "com.microsoft"), "quantised already"),
    "quantised activations": (
        _operator("DynamicQuantizeMatMul", "com.microsoft"),
        "quantised already",
    ),
    "a function": (_function, "the function mine.Mine"),
    "a graph in a graph": (_branch(1), "a graph inside If"),
    "no cache": (_no_cache, "no KV cache"),
    "an input that nobody sends": (_input("token_type_ids"), "the input token_type_ids"),
    "a branch by an input": (_input("use_cache_branch"), "the input use_cache_branch"),
    "a fixed length": (_fixed_length, "8 for axis 1 of input_ids"),
}


@pytest.mark.parametrize("attack", CORRUPT)
def test_what_contradicts_itself_is_refused(
    attack: str, tiny_checkpoint: Factory, page: Path, tmp_path: Path
) -> None:
    change, match = CORRUPT[attack]
    folder = write_folder(tiny_checkpoint("bf16"), tmp_path / "gpt2", change)
    _refused(folder, page, OnnxCorrupt, match)


@pytest.mark.parametrize("case", UNSUPPORTED)
def test_what_no_bundle_can_be_made_of_is_named(
    case: str, tiny_checkpoint: Factory, page: Path, tmp_path: Path
) -> None:
    change, match = UNSUPPORTED[case]
    folder = write_folder(tiny_checkpoint("bf16"), tmp_path / "gpt2", change)
    _refused(folder, page, OnnxUnsupported, match)


def test_graphs_nested_beyond_protobuf_s_depth(
    tiny_checkpoint: Factory, page: Path, tmp_path: Path
) -> None:
    """protobuf writes what it would not read."""
    folder = write_folder(tiny_checkpoint("bf16"), tmp_path / "gpt2")
    path = folder / "model.onnx"
    # GraphProto.node = 1, NodeProto.attribute = 5, AttributeProto.g = 6, each of a length.
    nested = b""
    for _ in range(200):
        for tag in (0x32, 0x2A, 0x0A):
            nested = bytes([tag]) + _varint(len(nested)) + nested
    path.write_bytes(b"\x08\x08\x3a" + _varint(len(nested)) + nested)
    _refused(folder, page, OnnxCorrupt, "no ONNX model")


def _varint(number: int) -> bytes:
    octets = []
    while number > 127:
        octets.append(number & 127 | 128)
        number >>= 7
    return bytes([*octets, number])


def test_a_file_that_is_missing(tiny_checkpoint: Factory, page: Path, tmp_path: Path) -> None:
    change = _outside(location="weights.bin")
    folder = write_folder(tiny_checkpoint("bf16"), tmp_path / "gpt2", change)
    _refused(folder, page, ShardMissing, "weights.bin")


def test_a_link_to_another_file(tiny_checkpoint: Factory, page: Path, tmp_path: Path) -> None:
    change = _outside(location="weights.bin")
    folder = write_folder(tiny_checkpoint("bf16"), tmp_path / "gpt2", change)
    (tmp_path / "secret").write_bytes(bytes(512 * 16 * 4))
    (folder / "weights.bin").symlink_to(tmp_path / "secret")
    _refused(folder, page, LinkOutside, "weights.bin")


def test_tensors_that_overlap_are_read(
    tiny_checkpoint: Factory, page: Path, tmp_path: Path
) -> None:
    """Writers share bytes between equal tensors, and reading them twice harms nobody."""

    def change(model: onnx.ModelProto) -> None:
        (tmp_path / "weights.bin").write_bytes(_tensor(model).raw_data)
        _outside(location="weights.bin")(model)
        head = next(each for each in model.graph.initializer if list(each.dims) == [16, 512])
        head.ClearField("raw_data")
        head.data_location = TensorProto.EXTERNAL
        entry = head.external_data.add()
        entry.key, entry.value = "location", "weights.bin"

    folder = write_folder(tiny_checkpoint("bf16"), tmp_path / "gpt2", change)
    (tmp_path / "weights.bin").rename(folder / "weights.bin")
    export(folder, TARGETS, tmp_path / "out", runtime=page)


@pytest.mark.parametrize("length", [0, 1, 2, 7, 100, 5_000, 60_000, 130_000])
def test_a_file_that_is_cut_short(
    length: int, tiny_checkpoint: Factory, page: Path, tmp_path: Path
) -> None:
    folder = write_folder(tiny_checkpoint("bf16"), tmp_path / "gpt2")
    whole = (GPT2 / "model.onnx").read_bytes()
    assert length < len(whole)
    (folder / "model.onnx").write_bytes(whole[:length])
    _refused(folder, page, OnnxCorrupt, "model.onnx")


@pytest.mark.parametrize(
    "octets",
    [
        b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\x3a" + b"\xff" * 11,
        b"\x3b\x00",
        b"PK\x03\x04 not a model",
        b'{"json": true}',
        b"\x80\x04pickle",
    ],
    ids=["a length of 2**63", "an endless number", "a group", "a zip", "JSON", "a pickle"],
)
def test_what_is_no_protobuf(
    octets: bytes, tiny_checkpoint: Factory, page: Path, tmp_path: Path
) -> None:
    folder = write_folder(tiny_checkpoint("bf16"), tmp_path / "gpt2")
    (folder / "model.onnx").write_bytes(octets)
    _refused(folder, page, OnnxCorrupt, "model.onnx")


def test_a_file_of_very_many_parts(tiny_checkpoint: Factory, page: Path, tmp_path: Path) -> None:
    folder = write_folder(tiny_checkpoint("bf16"), tmp_path / "gpt2")
    (folder / "model.onnx").write_bytes(b"\x08\x08" * (1 << 20) + b"\x08\x08")
    _refused(folder, page, OnnxCorrupt, "1048576 parts")


def test_a_config_of_another_vocabulary(
    tiny_checkpoint: Factory, page: Path, tmp_path: Path
) -> None:
    folder = write_folder(tiny_checkpoint("bf16"), tmp_path / "gpt2")
    edit_config(folder, vocab_size=1 << 20)
    _refused(folder, page, OnnxUnsupported, "512 logits")


def test_a_file_beyond_protobuf_s_limit(
    tiny_checkpoint: Factory, page: Path, tmp_path: Path
) -> None:
    folder = write_folder(tiny_checkpoint("bf16"), tmp_path / "gpt2")
    # Of holes: it takes no room on a disk.
    os.truncate(folder / "model.onnx", 1 << 31)
    _refused(folder, page, OnnxCorrupt, "2147483648 bytes")


def test_a_graph_that_is_all_constants(
    tiny_checkpoint: Factory, page: Path, tmp_path: Path
) -> None:
    folder = write_folder(tiny_checkpoint("bf16"), tmp_path / "gpt2")
    path = folder / "model.onnx"
    size = path.stat().st_size
    # An unknown field, of holes.
    with path.open("ab") as file:
        file.write(b"\xfa\x07" + _varint(MAX_GRAPH_BYTES))
    os.truncate(path, size + 2 + len(_varint(MAX_GRAPH_BYTES)) + MAX_GRAPH_BYTES)
    _refused(folder, page, OnnxUnsupported, "64 MiB")
