import { describe, expect, test } from "vitest";

import { findProducts } from "../runtime/coded_weights.ts";
import { DATA, Graph } from "../runtime/onnx_model.ts";
import { modelProto, type NodeText, type TensorText } from "./model_proto.ts";

const { FLOAT, UINT8, FLOAT16, UINT4 } = DATA;

const PRODUCT: NodeText = { op: "FusedMatMul", in: ["x", "w"], out: ["y"], is: { transB: 1 } };
const CAST: NodeText = { op: "Cast", in: ["s"], out: ["s32"], is: { to: FLOAT } };
const DEQUANTIZE: NodeText = { op: "DequantizeLinear", in: ["c", "s32", "z"], out: ["w"], is: { axis: 1, block_size: 32 } };
const CODES: TensorText = { name: "c", type: UINT4, dims: [8, 64], at: 100 };
const SCALES: TensorText = { name: "s", type: FLOAT16, dims: [8, 2], at: 200 };
const ZEROS: TensorText = { name: "z", type: UINT4, dims: [8, 2], at: 300 };
const NODES = [CAST, DEQUANTIZE, PRODUCT];
const TENSORS = [CODES, SCALES, ZEROS];

/** What is found, and which nodes the products are. */
function find(nodes: readonly NodeText[], tensors: readonly TensorText[], outputs: readonly string[]) {
  const graph = new Graph(modelProto({ nodes, tensors, outputs }));
  const { products, left } = findProducts(graph);
  return { products: [...products.values()], at: Array.from(products.keys(), (node) => graph.nodes.indexOf(node)), left };
}

describe("a product with a weight of codes", () => {
  test("is found, with where the weight is", () => {
    const at = (offset: number, length: number) => ({ location: "shard", offset, length });
    const weight = {
      ...{ rows: 8, columns: 64, bits: 4, block: 32, scaleBytes: 2 },
      ...{ codes: at(100, (8 * 64) / 2), scales: at(200, 8 * 2 * 2), zeroPoints: at(300, (8 * 2) / 2) },
    };
    expect(find(NODES, TENSORS, ["y"])).toEqual({ products: [{ weight, input: "x", output: "y" }], at: [2], left: 0 });
  });

  test("may have one of 8 bits with float32 scales, and one that another has too", () => {
    const tensors = [{ ...CODES, type: UINT8, packed: true }, { ...SCALES, type: FLOAT }, { ...ZEROS, type: UINT8 }];
    const again = { ...PRODUCT, in: ["y", "w"], out: ["y2"] };
    const { products, at, left } = find([{ ...DEQUANTIZE, in: ["c", "s", "z"] }, PRODUCT, again], tensors, ["y2"]);
    expect(products).toMatchObject([{ input: "x", output: "y" }, { input: "y", output: "y2" }]);
    expect(products[0]?.weight).toMatchObject({ bits: 8, scaleBytes: 4, rows: 8, columns: 64 });
    // It is to be brought once.
    expect(products[1]?.weight).toBe(products[0]?.weight);
    expect([at, left]).toEqual([[1, 2], 0]);
  });

  test("may have a block as long as a row, of any multiple of 16", () => {
    const dequantize = { ...DEQUANTIZE, is: { axis: 1, block_size: 48 } };
    const tensors = [{ ...CODES, dims: [8, 48] }, { ...SCALES, dims: [8, 1] }, { ...ZEROS, dims: [8, 1] }];
    expect(find([CAST, dequantize, PRODUCT], tensors, ["y"]).products).toMatchObject([{ weight: { block: 48, columns: 48 } }]);
  });

  test("may have zero points of which one has a byte for itself", () => {
    const tensors = [{ ...CODES, dims: [3, 32] }, { ...SCALES, dims: [3, 1] }, { ...ZEROS, dims: [3, 1], length: 2 }];
    expect(find(NODES, tensors, ["y"])).toMatchObject({ products: [{ weight: { rows: 3 } }], left: 0 });
  });

  test("counts apart from those that are left", () => {
    const odd: NodeText[] = [
      { ...DEQUANTIZE, in: ["c2", "s32", "z"], out: ["w2"] },
      { ...PRODUCT, in: ["y", "w2"], out: ["y2"], is: { transA: 1 } },
    ];
    const { products, left } = find([...NODES, ...odd], [...TENSORS, { ...CODES, name: "c2" }], ["y2"]);
    expect([products.map(({ output }) => output), left]).toEqual([["y"], 1]);
  });

  test("may share what the weight is made from with others", () => {
    const rows: NodeText = { op: "Gather", in: ["c", "ids"], out: ["rows"] };
    const scaled: NodeText = { op: "Mul", in: ["rows", "s32"], out: ["e"] };
    expect(find([...NODES, rows, scaled], TENSORS, ["y", "e"])).toMatchObject({ products: [{ output: "y" }], left: 0 });
  });
});

describe("left to ONNX Runtime is", () => {
  const other = (change: Partial<NodeText>, node: NodeText) => NODES.map((each) => (each === node ? { ...node, ...change } : each));
  const tensor = (change: Partial<TensorText>, of: TensorText) => TENSORS.map((each) => (each === of ? { ...of, ...change } : each));
  const inside = { name: "c", type: UINT4, dims: [8, 64] };
  test.each<[string, NodeText[], TensorText[], string[]]>([
    ["a product with the weight as it is", other({ is: {} }, PRODUCT), TENSORS, ["y"]],
    ["a product with a factor", other({ is: { transB: 1, alpha: 2 } }, PRODUCT), TENSORS, ["y"]],
    ["another product", other({ op: "MatMul" }, PRODUCT), TENSORS, ["y"]],
    ["a weight that is no second factor", other({ in: ["w", "x"] }, PRODUCT), TENSORS, ["y"]],
    ["the square of a weight", other({ in: ["w", "w"] }, PRODUCT), TENSORS, ["y"]],
    ["a weight that others use", [...NODES, { op: "Add", in: ["w", "x"], out: ["q"] }], TENSORS, ["y", "q"]],
    ["a weight that is given out", NODES, TENSORS, ["y", "w"]],
    ["blocks along rows", other({ is: { axis: 0, block_size: 32 } }, DEQUANTIZE), TENSORS, ["y"]],
    ["a scale for all", other({ is: { axis: 1 } }, DEQUANTIZE), TENSORS, ["y"]],
    ["blocks that do not come out even", other({ is: { axis: 1, block_size: 48 } }, DEQUANTIZE), TENSORS, ["y"]],
    ["blocks of 8", other({ is: { axis: 1, block_size: 8 } }, DEQUANTIZE), tensorsOfBlocks(8), ["y"]],
    ["blocks of 24", other({ is: { axis: 1, block_size: 24 } }, DEQUANTIZE), tensorsOfBlocks(24), ["y"]],
    ["no zero points", other({ in: ["c", "s32"] }, DEQUANTIZE), TENSORS, ["y"]],
    ["zero points of another type", NODES, tensor({ type: UINT8, length: 8 }, ZEROS), ["y"]],
    ["signed codes", NODES, tensor({ type: 3 }, CODES), ["y"]],
    ["scales of bfloat16", NODES, tensor({ type: 16, length: 32 }, SCALES), ["y"]],
    ["scales cast to float16", other({ is: { to: FLOAT16 } }, CAST), TENSORS, ["y"]],
    ["scales that another node makes", other({ op: "Sqrt" }, CAST), TENSORS, ["y"]],
    ["codes in the graph itself", NODES, TENSORS.map((each) => (each === CODES ? inside : each)), ["y"]],
    ["codes of too few bytes", NODES, tensor({ length: (8 * 64) / 2 - 1 }, CODES), ["y"]],
    ["codes whose length nobody tells", NODES, tensor({ length: undefined }, CODES), ["y"]],
    ["scales of too many bytes", NODES, tensor({ length: 8 * 2 * 2 + 2 }, SCALES), ["y"]],
    ["too few zero points", NODES, tensor({ length: 4 }, ZEROS), ["y"]],
    ["floats of another type", other({ is: { axis: 1, block_size: 32, output_dtype: 10 } }, DEQUANTIZE), TENSORS, ["y"]],
    ["codes of three axes", NODES, tensor({ dims: [8, 64, 1] }, CODES), ["y"]],
    ["codes of one axis", NODES, tensor({ dims: [8 * 64] }, CODES), ["y"]],
  ])("%s", (_, nodes, tensors, outputs) => {
    expect(find(nodes, tensors, outputs)).toEqual({ products: [], at: [], left: 1 });
  });

  /** Right but for the blocks, which are shorter. */
  function tensorsOfBlocks(block: number): TensorText[] {
    const [rows, columns] = [8, 2 * block];
    return [{ ...CODES, dims: [rows, columns] }, { ...SCALES, dims: [rows, 2] }, { ...ZEROS, dims: [rows, 2] }];
  }

  test("no weight that nobody uses", () => {
    expect(find([CAST, DEQUANTIZE, { op: "Relu", in: ["x"], out: ["y"] }], TENSORS, ["y"])).toEqual({ products: [], at: [], left: 0 });
  });

  test("nothing of a graph without weights", () => {
    expect(find([], [], [])).toEqual({ products: [], at: [], left: 0 });
  });
});

test("what is no graph is refused", () => {
  expect(() => new Graph(new Uint8Array([0x0f, 1, 2, 3]))).toThrow();
});
