import { PbfWriter } from "pbf";
import { describe, expect, test } from "vitest";

import { foldedWeightsAsInputs } from "../runtime/folded_weights.ts";
import { fieldsOf, GRAPH, MODEL, readName, readNode, readTensor } from "../runtime/onnx_model.ts";

const [FLOAT, UINT8, FLOAT16, UINT4] = [1, 2, 10, 21];

interface NodeText {
  readonly op: string;
  readonly in: readonly string[];
  readonly out: string;
  readonly is?: Readonly<Record<string, number>>;
  readonly nested?: boolean;
}
interface TensorText {
  readonly name: string;
  readonly type: number;
  readonly dims: readonly number[];
  readonly at?: number;
  /** As many bytes as the values need, unless told. */
  readonly length?: number | undefined;
  readonly packed?: boolean;
}

const BITS = new Map([[FLOAT, 32], [UINT8, 8], [FLOAT16, 16], [UINT4, 4]]);
const bytesOf = ({ dims, type }: TensorText) => dims.reduce((product, size) => product * size, BITS.get(type) ?? 8) / 8;

/** A ModelProto, by onnx.proto. */
function model(nodes: readonly NodeText[], tensors: readonly TensorText[], outputs: readonly string[]): Uint8Array {
  const attribute = ([name, value]: [string, number], w: PbfWriter) => {
    w.writeStringField(1, name);
    w.writeVarintField(3, value);
    w.writeVarintField(20, 2);
  };
  const node = (n: NodeText, w: PbfWriter) => {
    for (const name of n.in) w.writeStringField(1, name);
    w.writeStringField(2, n.out);
    w.writeStringField(3, `node of ${n.out}`);
    w.writeStringField(4, n.op);
    for (const each of Object.entries(n.is ?? {})) w.writeMessage(5, attribute, each);
    if (n.nested) w.writeMessage(5, (_: null, a) => a.writeBytesField(6, new Uint8Array([0x0a, 0])), null);
    if (n.op === "FusedMatMul") w.writeStringField(7, "com.microsoft");
  };
  const entry = ([key, value]: [string, string], w: PbfWriter) => {
    w.writeStringField(1, key);
    w.writeStringField(2, value);
  };
  const tensor = (t: TensorText, w: PbfWriter) => {
    if (t.packed) w.writePackedVarint(1, [...t.dims]);
    else for (const size of t.dims) w.writeVarintField(1, size);
    w.writeVarintField(2, t.type);
    w.writeStringField(8, t.name);
    if (t.at === undefined) return w.writeBytesField(9, new Uint8Array(4));
    const length = "length" in t ? t.length : bytesOf(t);
    const told = { location: "shard", offset: `${t.at}`, ...(length === undefined ? {} : { length: `${length}` }) };
    for (const each of Object.entries(told)) w.writeMessage(13, entry, each);
    w.writeVarintField(14, 1);
  };
  const value = (name: string, w: PbfWriter) => w.writeStringField(1, name);
  const graph = (_: null, w: PbfWriter) => {
    for (const each of nodes) w.writeMessage(GRAPH.node, node, each);
    w.writeStringField(2, "g");
    for (const each of tensors) w.writeMessage(GRAPH.initializer, tensor, each);
    w.writeMessage(GRAPH.input, value, "x");
    for (const each of outputs) w.writeMessage(GRAPH.output, value, each);
    for (const each of nodes) w.writeMessage(GRAPH.valueInfo, value, each.out);
  };
  const w = new PbfWriter();
  w.writeVarintField(1, 10);
  w.writeMessage(MODEL.graph, graph, null);
  w.writeMessage(8, (_: null, o) => o.writeVarintField(2, 24), null);
  return w.finish();
}

/** What there is in a model's graph, and its other fields. */
function read(bytes: Uint8Array) {
  const fields = fieldsOf(bytes);
  const graph = fieldsOf(fields.find(({ number }) => number === MODEL.graph)?.bytes as Uint8Array);
  const of = (number: number) => graph.filter((field) => field.number === number).map((field) => field.bytes);
  return {
    nodes: of(GRAPH.node).map(readNode),
    tensors: of(GRAPH.initializer).map((each) => readTensor(each).name),
    inputs: of(GRAPH.input),
    outputs: of(GRAPH.output).map(readName),
    others: fields.filter(({ number }) => number !== MODEL.graph).map(({ number, integer }) => [number, integer]),
  };
}

const PRODUCT: NodeText = { op: "FusedMatMul", in: ["x", "w"], out: "y", is: { transB: 1 } };
const CAST: NodeText = { op: "Cast", in: ["s"], out: "s32", is: { to: FLOAT as number } };
const FOLD: NodeText = { op: "DequantizeLinear", in: ["c", "s32", "z"], out: "w", is: { axis: 1, block_size: 32 } };
const CODES: TensorText = { name: "c", type: UINT4 as number, dims: [8, 64], at: 100 };
const SCALES: TensorText = { name: "s", type: FLOAT16 as number, dims: [8, 2], at: 200 };
const ZEROS: TensorText = { name: "z", type: UINT4 as number, dims: [8, 2], at: 300 };
const NODES = [CAST, FOLD, PRODUCT];
const TENSORS = [CODES, SCALES, ZEROS];

describe("weights as inputs", () => {
  test("are turned, without what they were made from", () => {
    const found = foldedWeightsAsInputs(model(NODES, TENSORS, ["y"]));
    const at = (offset: number, length: number) => ({ location: "shard", offset, length });
    expect(found.weights).toEqual([
      {
        ...{ name: "w", rows: 8, columns: 64, bits: 4, block: 32, scaleBytes: 2 },
        ...{ codes: at(100, 8 * 64 / 2), scales: at(200, 8 * 2 * 2), zeroPoints: at(300, 8 * 2 / 2) },
      },
    ]);
    expect(found.left).toBe(0);
    const { nodes, tensors, inputs, outputs, others } = read(found.model);
    expect(nodes.map(({ op, inputs, attributes }) => [op, inputs, attributes.size])).toEqual([["FusedMatMul", ["x", "w"], 0]]);
    expect([tensors, inputs.map(readName), outputs]).toEqual([[], ["x", "w"], ["y"]]);
    expect(others).toEqual([[1, 10], [8, NaN]]);
    // ValueInfoProto { name: "w", type: { tensor_type: { elem_type: FLOAT, shape: { dim: 64, dim: 8 } } } }
    expect([...(inputs[1] as Uint8Array)]).toEqual([10, 1, 119, 18, 14, 10, 12, 8, 1, 18, 8, 10, 2, 8, 64, 10, 2, 8, 8]);
    // Shapes of before would contradict.
    expect(fieldsOf(fieldsOf(found.model)[1]?.bytes as Uint8Array).some(({ number }) => number === GRAPH.valueInfo)).toBe(false);
  });

  test("may be of 8 bits, with float32 scales, and used twice", () => {
    const fold = { ...FOLD, in: ["c", "s", "z"] };
    const tensors = [{ ...CODES, type: UINT8 as number, packed: true }, { ...SCALES, type: FLOAT as number }, { ...ZEROS, type: UINT8 as number }];
    const again = { ...PRODUCT, in: ["y", "w"], out: "y2" };
    const { weights, model: changed } = foldedWeightsAsInputs(model([fold, PRODUCT, again], tensors, ["y2"]));
    expect(weights).toMatchObject([{ bits: 8, scaleBytes: 4, rows: 8, columns: 64 }]);
    expect(read(changed).nodes.map(({ attributes }) => attributes.size)).toEqual([0, 0]);
  });

  test("count apart from those that are left", () => {
    const odd = [{ ...FOLD, in: ["c2", "s32", "z"], out: "w2" }, { ...PRODUCT, in: ["y", "w2"], out: "y2", is: { transA: 1 } }];
    const { weights, left } = foldedWeightsAsInputs(model([...NODES, ...odd], [...TENSORS, { ...CODES, name: "c2" }], ["y2"]));
    expect([weights.map(({ name }) => name), left]).toEqual([["w"], 1]);
  });

  test("leave what others use", () => {
    const rows: NodeText = { op: "Gather", in: ["c", "ids"], out: "rows" };
    const scaled: NodeText = { op: "Mul", in: ["rows", "s32"], out: "e" };
    const { model: changed } = foldedWeightsAsInputs(model([...NODES, rows, scaled], TENSORS, ["y", "e"]));
    const { nodes, tensors } = read(changed);
    expect(nodes.map(({ op }) => op)).toEqual(["Cast", "FusedMatMul", "Gather", "Mul"]);
    expect(tensors).toEqual(["c", "s"]);
  });
});

describe("left to ONNX Runtime is", () => {
  const other = (change: Partial<NodeText>, node: NodeText) => NODES.map((each) => (each === node ? { ...node, ...change } : each));
  const tensor = (change: Partial<TensorText>, of: TensorText) => TENSORS.map((each) => (each === of ? { ...of, ...change } : each));
  test.each<[string, NodeText[], TensorText[], string[]]>([
    ["a product with the weight as it is", other({ is: {} }, PRODUCT), TENSORS, ["y"]],
    ["a product with a factor", other({ is: { transB: 1, alpha: 2 } }, PRODUCT), TENSORS, ["y"]],
    ["a weight that is no second factor", other({ in: ["w", "x"] }, PRODUCT), TENSORS, ["y"]],
    ["the square of a weight", other({ in: ["w", "w"] }, PRODUCT), TENSORS, ["y"]],
    ["a weight that others use", [...NODES, { op: "Add", in: ["w", "x"], out: "q" }], TENSORS, ["y", "q"]],
    ["a weight that is given out", NODES, TENSORS, ["y", "w"]],
    ["blocks along rows", other({ is: { axis: 0, block_size: 32 } }, FOLD), TENSORS, ["y"]],
    ["a scale for all", other({ is: { axis: 1 } }, FOLD), TENSORS, ["y"]],
    ["blocks that do not come out even", other({ is: { axis: 1, block_size: 48 } }, FOLD), TENSORS, ["y"]],
    ["blocks of 8", other({ is: { axis: 1, block_size: 8 } }, FOLD), TENSORS, ["y"]],
    ["no zero points", other({ in: ["c", "s32"] }, FOLD), TENSORS, ["y"]],
    ["zero points of another type", NODES, tensor({ type: UINT8 as number }, ZEROS), ["y"]],
    ["signed codes", NODES, tensor({ type: 3 }, CODES), ["y"]],
    ["scales of bfloat16", NODES, tensor({ type: 16 }, SCALES), ["y"]],
    ["scales cast to float16", other({ is: { to: 10 } }, CAST), TENSORS, ["y"]],
    ["codes in the graph itself", NODES, TENSORS.map((each) => (each === CODES ? { name: "c", type: UINT4 as number, dims: [8, 64] } : each)), ["y"]],
    ["codes of too few bytes", NODES, tensor({ length: 8 * 64 / 2 - 1 }, CODES), ["y"]],
    ["codes whose length nobody tells", NODES, tensor({ length: undefined }, CODES), ["y"]],
    ["scales of too many bytes", NODES, tensor({ length: 8 * 2 * 2 + 2 }, SCALES), ["y"]],
    ["too few zero points", NODES, tensor({ length: 4 }, ZEROS), ["y"]],
    ["floats of another type", other({ is: { axis: 1, block_size: 32, output_dtype: 10 } }, FOLD), TENSORS, ["y"]],
    ["a weight that nobody uses", [CAST, FOLD, { op: "Relu", in: ["x"], out: "y" }], TENSORS, ["y"]],
    ["codes of three axes", NODES, tensor({ dims: [2, 4, 64] }, CODES), ["y"]],
    ["a graph with graphs in it", [...NODES, { op: "If", in: ["x"], out: "q", nested: true }], TENSORS, ["y"]],
  ])("%s", (_, nodes, tensors, outputs) => {
    const before = model(nodes, tensors, outputs);
    const { model: after, weights, left } = foldedWeightsAsInputs(before);
    expect([weights, left]).toEqual([[], 1]);
    expect(after).toBe(before);
  });

  test("a graph without weights, and what is no graph", () => {
    const empty = model([], [], []);
    expect(foldedWeightsAsInputs(empty)).toEqual({ model: empty, weights: [], left: 0 });
    expect(() => foldedWeightsAsInputs(new Uint8Array([0x0f, 1, 2, 3]))).toThrow();
  });
});
