import { PbfReader } from "pbf";
import { describe, expect, test } from "vitest";

import { DATA, Graph } from "../runtime/onnx_model.ts";
import { type GraphStage, type Stage, staged } from "../runtime/stages.ts";
import { INT64, modelProto, type NodeText, type TensorText } from "./model_proto.ts";

const { FLOAT, FLOAT16, UINT4 } = DATA;

const node = (op: string, inputs: string, outputs: string, is?: Record<string, number>): NodeText => ({
  ...{ op, in: inputs.split(" "), out: outputs.split(" ") },
  ...(is ? { is } : {}),
});
const product = (input: string, weight: string, output: string) => node("FusedMatMul", `${input} ${weight}`, output, { transB: 1 });

/** What makes a weight [32, 32] of codes: its nodes and its tensors, in a file from `at` on. */
function weight(name: string, at: number) {
  const is = { axis: 1, block_size: 32 };
  return {
    nodes: [node("Cast", `${name}.s`, `${name}.s32`, { to: FLOAT }), node("DequantizeLinear", `${name}.c ${name}.s32 ${name}.z`, name, is)],
    tensors: [
      { name: `${name}.c`, type: UINT4, dims: [32, 32], at },
      { name: `${name}.s`, type: FLOAT16, dims: [32, 1], at: at + 512 },
      { name: `${name}.z`, type: UINT4, dims: [32, 1], at: at + 576 },
    ] as TensorText[],
  };
}
const [W, V] = [weight("w", 0), weight("v", 1000)];
const WEIGHTS = { nodes: [...W.nodes, ...V.nodes], tensors: [...W.tensors, ...V.tensors] };
const LEFT_NOTHING = { weights: 0, attentions: 0 };
const vector = (name: string, at: number): TensorText => ({ name, type: FLOAT, dims: [32], at });

/** Nodes' operators of a graph stage, or the outputs of the page's own. */
function shapeOf(stage: Stage): string[] {
  if (stage.kind === "graph") return new Graph(stage.model).nodes.map(({ op }) => op);
  if (stage.kind === "products") return stage.products.map(({ output }) => `=${output}`);
  return stage.attentions.map(({ output }) => `@${output}`);
}
const graphs = (stages: readonly Stage[]) => stages.filter((stage): stage is GraphStage => stage.kind === "graph");
const names = (stage: Stage | undefined) => {
  const { inputs, outputs } = stage as GraphStage;
  return [[...inputs.keys()], [...outputs.keys()]];
};

describe("a graph is cut where it multiplies by codes", () => {
  const nodes = [
    ...WEIGHTS.nodes,
    node("Norm", "x", "n"),
    product("n", "w", "q"),
    node("Relu", "q", "r"),
    product("n", "v", "k"),
    node("Add", "r k", "a"),
    product("a", "w", "o"),
    node("Sin", "x", "early"),
    node("Add3", "o x early", "y"),
  ];
  const { stages, ...rest } = staged(modelProto({ nodes, tensors: WEIGHTS.tensors, outputs: ["y"] }));

  test("into stages in the order in which they can be run, each node as early as can be", () => {
    expect(stages.map(shapeOf)).toEqual([["Norm", "Sin"], ["=q", "=k"], ["Relu", "Add"], ["=o"], ["Add3"]]);
  });

  test("each of which tells what it is given and gives", () => {
    expect(names(stages[0])).toEqual([["x"], ["n", "early"]]);
    // What only the stage itself uses does not leave it.
    expect(names(stages[2])).toEqual([["q", "k"], ["a"]]);
    expect(names(stages[4])).toEqual([["o", "x", "early"], ["y"]]);
    expect(stages[3]).toMatchObject({ products: [{ input: "a", output: "o" }] });
  });

  test("as the models of the stages have it", () => {
    for (const { model, inputs, outputs } of graphs(stages)) {
      const graph = new Graph(model);
      expect(graph.inputs).toEqual([...inputs.values()]);
      expect(graph.outputs).toEqual([...outputs.values()]);
      expect([...graph.inputs, ...graph.outputs].map((name) => graph.type(name))).toEqual(new Array(inputs.size + outputs.size).fill(FLOAT));
    }
    const { model, inputs, outputs } = stages[4] as GraphStage;
    const [add] = new Graph(model).nodes;
    expect(add?.inputs).toEqual(["o", "x", "early"].map((name) => inputs.get(name)));
    expect(add?.outputs).toEqual([outputs.get("y")]);
  });

  test("and its ends and weights are told", () => {
    expect(rest).toMatchObject({ inputs: ["x"], outputs: ["y"], left: LEFT_NOTHING, constants: new Map() });
    // One that multiplies twice is one.
    expect(rest.weights.map(({ codes }) => codes.offset)).toEqual([0, 1000]);
  });
});

test("a graph may begin and end with products", () => {
  const cut = staged(modelProto({ ...WEIGHTS, nodes: [...WEIGHTS.nodes, product("x", "w", "a"), product("a", "v", "y")], outputs: ["a", "y"] }));
  expect(cut.stages.map(shapeOf)).toEqual([["=a"], ["=y"]]);
  expect(cut.outputs).toEqual(["a", "y"]);
});

test("a graph may begin with a product and go on with others", () => {
  const { stages } = staged(modelProto({ nodes: [...W.nodes, product("x", "w", "a"), node("Relu", "a", "y")], tensors: W.tensors, outputs: ["y"] }));
  expect(stages.map(shapeOf)).toEqual([["=a"], ["Relu"]]);
});

test("what a graph gives leaves its stage, whoever else uses it", () => {
  const nodes = [...W.nodes, node("Relu", "x", "a"), node("Sin", "a", "b"), product("b", "w", "y")];
  const { stages } = staged(modelProto({ nodes, tensors: W.tensors, outputs: ["y", "a"] }));
  expect(names(stages[0])).toEqual([["x"], ["a", "b"]]);
});

test("a graph without products is one stage", () => {
  const nodes = [node("Relu", "x", "a"), node("Sin", "a", "y")];
  const cut = staged(modelProto({ nodes, outputs: ["y"] }));
  expect(cut.stages.map(shapeOf)).toEqual([["Relu", "Sin"]]);
  expect(names(cut.stages[0])).toEqual([["x"], ["y"]]);
  expect([cut.weights, cut.left]).toEqual([[], LEFT_NOTHING]);
});

test("a stage keeps what the model tells beside its graph", () => {
  const { stages } = staged(modelProto({ nodes: [...W.nodes, node("Relu", "x", "a"), product("a", "w", "y")], tensors: W.tensors, outputs: ["y"] }));
  const reader = new PbfReader((stages[0] as GraphStage).model);
  const found: unknown[] = [];
  for (let field = reader.nextField(); field !== 0; field = reader.nextField()) {
    if (field === 7) reader.skip(reader.type);
    else found.push([field, reader.type === 0 ? reader.readVarint() : [...reader.readBytes()]]);
  }
  // ir_version, and opset_import { version: 24 }
  expect(found).toEqual([[1, 10], [8, [0x10, 24]]]);
});

test("values that are no floats keep their types", () => {
  const nodes = [...W.nodes, node("Shape", "x", "size"), product("x", "w", "a"), node("Reshape", "a size", "y")];
  const { stages } = staged(modelProto({ nodes, tensors: W.tensors, outputs: ["y"], types: { size: INT64 } }));
  const [first, last] = graphs(stages) as [GraphStage, GraphStage];
  expect(new Graph(first.model).type(first.outputs.get("size") as string)).toBe(INT64);
  expect(new Graph(last.model).type(last.inputs.get("size") as string)).toBe(INT64);
});

test("a value that crosses a product and whose type is not told is named", () => {
  const nodes = [...W.nodes, node("Relu", "x", "a"), node("Sin", "a", "b"), product("b", "w", "c"), node("Add", "b c", "y")];
  const model = (types: Record<string, number>) => modelProto({ nodes, tensors: W.tensors, outputs: ["y"], types });
  expect(() => staged(model({ b: 0 }))).toThrow("it does not tell the type of 'b'");
  // One that stays in its stage needs none.
  expect(staged(model({ a: 0 })).stages).toHaveLength(3);
});

test("inputs and outputs that are left out are none", () => {
  // As ORT's SkipSimplifiedLayerNormalization gives, and its GroupQueryAttention takes.
  const nodes = [...W.nodes, { op: "Norm", in: ["x"], out: ["a", "", "skip"] }, product("a", "w", "b"), { op: "Attention", in: ["b", "", "skip"], out: ["y"] }];
  const { stages } = staged(modelProto({ nodes, tensors: W.tensors, outputs: ["y"] }));
  expect(stages.map(shapeOf)).toEqual([["Norm"], ["=b"], ["Attention"]]);
  expect(names(stages[0])).toEqual([["x"], ["a", "skip"]]);
  expect(names(stages[2])).toEqual([["b", "skip"], ["y"]]);
  const [norm, attention] = graphs(stages).map(({ model }) => new Graph(model).nodes[0]);
  expect(norm?.outputs[1]).toBe("");
  expect(attention?.inputs[1]).toBe("");
});

test("an output that is left out holds nothing back", () => {
  // Behind a product, and before a node that depends on none.
  const nodes = [...W.nodes, product("x", "w", "a"), { op: "Norm", in: ["a"], out: ["b", ""] }, { op: "Clip", in: ["x", "", "x"], out: ["c"] }, node("Add", "b c", "y")];
  const { stages } = staged(modelProto({ nodes, tensors: W.tensors, outputs: ["y"] }));
  expect(stages.map(shapeOf)).toEqual([["Clip"], ["=a"], ["Norm", "Add"]]);
});

describe("a graph is cut where it attends", () => {
  const is = { num_heads: 2, kv_num_heads: 2, do_rotary: 1 };
  const angles = ["cosines", "sines"].map((name): TensorText => ({ name, type: FLOAT, dims: [9, 8], raw: new Uint8Array(288).fill(name.length) }));
  const cache = ["batch_size", 2, "past_sequence_length", 16];
  const nodes = [
    ...WEIGHTS.nodes,
    node("ReduceSum", "mask", "lengths"),
    node("Norm", "x", "n"),
    product("n", "w", "q"),
    node("Gate", "n", "g"),
    node("GroupQueryAttention", "q n n past.k past.v lengths lengths cosines sines", "a present.k present.v", is),
    product("a", "v", "o"),
    node("Add", "o g", "y"),
  ];
  const text = {
    tensors: [...WEIGHTS.tensors, ...angles],
    inputs: ["x", "mask", "past.k", "past.v"],
    outputs: ["y", "present.k", "present.v"],
    shapes: { "past.k": cache, "past.v": cache },
  };
  const cut = staged(modelProto({ nodes, ...text }));

  test("and what only its kernel would want is not made", () => {
    expect(cut.stages.map(shapeOf)).toEqual([["Norm", "Gate"], ["=q"], ["@a"], ["=o"], ["Add"]]);
    expect(names(cut.stages[0])).toEqual([["x"], ["n", "g"]]);
    expect(names(cut.stages[4])).toEqual([["o", "g"], ["y"]]);
    expect([cut.inputs, cut.outputs, cut.left]).toEqual([text.inputs, text.outputs, LEFT_NOTHING]);
  });

  test("and its angles are given", () => {
    expect([...cut.constants].map(([name, { raw }]) => [name, raw?.[0]])).toEqual([["cosines", 7], ["sines", 5]]);
  });

  test("and what others want as well is made, and given to them", () => {
    const { stages } = staged(modelProto({ nodes: [...nodes.slice(0, -1), node("Add3", "o lengths g", "y")], ...text }));
    expect(stages.map(shapeOf)).toEqual([["ReduceSum", "Norm", "Gate"], ["=q"], ["@a"], ["=o"], ["Add3"]]);
    expect(names(stages[0])).toEqual([["mask", "x"], ["lengths", "n", "g"]]);
  });

  test("unless ONNX Runtime is to do it", () => {
    const { stages, left } = staged(modelProto({ nodes, ...text, shapes: {} }));
    expect(stages.map(shapeOf)).toEqual([["ReduceSum", "Norm", "Gate"], ["=q"], ["GroupQueryAttention"], ["=o"], ["Add"]]);
    expect(left).toEqual({ weights: 0, attentions: 1 });
  });
});

describe("layers that do the same", () => {
  /** A layer of its own names. */
  const layer = (index: number, input: string, output: string, is: Record<string, number> = {}) => {
    const { nodes, tensors } = weight(`w${index}`, 1000 * index);
    return {
      nodes: [...nodes, node("Norm", `${input} gamma${index}`, `n${index}`, is), node("Clip", `n${index} limit${index}`, `c${index}`), product(`c${index}`, `w${index}`, output)],
      tensors: [...tensors, vector(`gamma${index}`, 600 + 1000 * index), { name: `limit${index}`, type: FLOAT, dims: [1], raw: Uint8Array.of(0, 0, 0, index > 9 ? 1 : 2) }],
    };
  };
  const model = (...layers: ReturnType<typeof layer>[]) =>
    modelProto({ nodes: layers.flatMap(({ nodes }) => nodes), tensors: layers.flatMap(({ tensors }) => tensors), outputs: ["y"] });

  test("become models that are the same, whatever they are called", () => {
    const { stages } = staged(model(layer(0, "x", "a"), layer(1, "a", "b"), layer(2, "b", "y")));
    const [first, second, third] = graphs(stages) as [GraphStage, GraphStage, GraphStage];
    expect(stages).toHaveLength(6);
    expect(second.model).toEqual(first.model);
    expect(third.model).toEqual(first.model);
    expect(names(second)).toEqual([["a", "gamma1"], ["c1"]]);
    expect([...second.inputs.values()]).toEqual([...first.inputs.values()]);
    expect([...second.outputs.values()]).toEqual([...first.outputs.values()]);
  });

  test("are told apart by an attribute, and by a constant that they hold", () => {
    const { stages } = staged(model(layer(0, "x", "a", { axis: 1 }), layer(1, "a", "b", { axis: 2 }), layer(12, "b", "y", { axis: 1 })));
    const [first, second, third] = graphs(stages) as [GraphStage, GraphStage, GraphStage];
    expect(second.model).not.toEqual(first.model);
    expect(third.model).not.toEqual(first.model);
  });
});

describe("constants", () => {
  /** Two stages with a product between them. */
  const cut = (first: NodeText[], last: NodeText[], tensors: TensorText[]) =>
    staged(modelProto({ nodes: [...W.nodes, ...first, product("a", "w", "b"), ...last], tensors: [...W.tensors, ...tensors], outputs: ["y"] }));
  const large: TensorText = { name: "t", type: FLOAT, dims: [16, 32], raw: new Uint8Array(2048).fill(7) };
  const small: TensorText = { name: "t", type: FLOAT, dims: [16, 16], raw: new Uint8Array(1024).fill(7) };
  const both = [[node("Add", "x t", "a")], [node("Mul", "b t", "y")]] as const;
  /** Whether each graph stage holds `name` itself. */
  const held = ({ stages }: ReturnType<typeof staged>, place = 1) =>
    graphs(stages).map(({ model }) => {
      const graph = new Graph(model);
      const own = graph.tensor(graph.nodes.at(-1)?.inputs[place]);
      return own && [own.type, own.dims, own.raw ?? own.external];
    });

  test("that are vectors in files are given", () => {
    const staging = cut([node("Add", "x t", "a")], [node("Relu", "b", "y")], [vector("t", 700)]);
    expect([...staging.constants.values()]).toMatchObject([{ name: "t", type: FLOAT, dims: [32], external: { location: "shard", offset: 700, length: 128 } }]);
    expect([...staging.constants.keys()]).toEqual(["t"]);
    expect(names(staging.stages[0])).toEqual([["x", "t"], ["a"]]);
    expect(held(staging)[0]).toBeUndefined();
  });

  test("that are large are given where several stages use them", () => {
    const staging = cut([...both[0]], [...both[1]], [large]);
    expect([...staging.constants.keys()]).toEqual(["t"]);
    expect(staging.constants.get("t")?.raw).toEqual(large.raw);
    expect(graphs(staging.stages).map((stage) => names(stage)[0])).toEqual([["x", "t"], ["b", "t"]]);
    expect(held(staging)).toEqual([undefined, undefined]);
  });

  test("that are small stay in each stage", () => {
    const staging = cut([...both[0]], [...both[1]], [small]);
    expect(staging.constants.size).toBe(0);
    expect(held(staging)).toEqual([1, 2].map(() => [FLOAT, [16, 16], small.raw]));
  });

  test("that one stage uses stay there, in a file or not", () => {
    expect(held(cut([node("Add", "x t", "a")], [node("Relu", "b", "y")], [large]))[0]).toEqual([FLOAT, [16, 32], large.raw]);
    const filed = cut([node("Add", "x t", "a")], [node("Relu", "b", "y")], [{ ...large, at: 700 }]);
    expect(filed.constants.size).toBe(0);
    expect(held(filed)[0]).toEqual([FLOAT, [16, 32], { location: "shard", offset: 700, length: 2048 }]);
  });

  test("of which others are made go with what makes them, into each stage that needs it", () => {
    const staging = cut([node("Cast", "t", "t32", { to: FLOAT }), node("Add", "x t32", "a")], [node("Mul", "b t32", "y")], [vector("t", 700)]);
    expect(staging.stages.map(shapeOf)).toEqual([["Cast", "Add"], ["=b"], ["Cast", "Mul"]]);
    // The session can make it once then, as it begins.
    expect(staging.constants.size).toBe(0);
    expect(names(staging.stages[2])).toEqual([["b"], ["y"]]);
    const first = new Graph((staging.stages[0] as GraphStage).model);
    expect(first.nodes[1]?.inputs[1]).toBe(first.nodes[0]?.outputs[0]);
    expect(first.tensor(first.nodes[0]?.inputs[0])).toMatchObject({ dims: [32], external: { offset: 700 } });
  });

  test("that are weights left to ONNX Runtime go with their users, in the graph's order", () => {
    const staging = cut([...V.nodes, node("MatMul", "x v", "a")], [node("MatMul", "b v", "y")], V.tensors);
    expect(staging.stages.map(shapeOf)).toEqual([["Cast", "DequantizeLinear", "MatMul"], ["=b"], ["Cast", "DequantizeLinear", "MatMul"]]);
    expect([staging.left.weights, staging.weights.length, staging.constants.size]).toEqual([1, 1, 0]);
  });

  test("that feed nothing that is given are in no stage, and are not packed", () => {
    const staging = cut([node("Relu", "x", "a"), ...V.nodes, product("a", "v", "unused")], [node("Relu", "b", "y")], V.tensors);
    expect(staging.stages.map(shapeOf)).toEqual([["Relu"], ["=b"], ["Relu"]]);
    expect(staging.weights).toHaveLength(1);
  });

  test("that feed products only are in no stage", () => {
    const staging = cut([node("Relu", "x", "a")], [node("Relu", "b", "y")], []);
    expect(staging.stages.map(shapeOf)).toEqual([["Relu"], ["=b"], ["Relu"]]);
  });

  test("may be among the graph's inputs as well", () => {
    const nodes = [...W.nodes, node("Add", "x t", "a"), product("a", "w", "y")];
    const staging = staged(modelProto({ nodes, tensors: [...W.tensors, small], inputs: ["x", "t", "w.c"], outputs: ["y"] }));
    expect(staging.inputs).toEqual(["x"]);
    expect(staging.weights).toHaveLength(1);
    expect(names(staging.stages[0])).toEqual([["x"], ["a"]]);
    expect(held(staging)).toEqual([[FLOAT, [16, 16], small.raw]]);
  });
});

test("a graph with a graph in it stays as it is", () => {
  const nested: NodeText = { op: "If", in: ["x"], out: ["q"], nested: true };
  const attention = node("GroupQueryAttention", "x x x k v", "a k2 v2");
  const model = modelProto({ nodes: [...W.nodes, product("x", "w", "y"), attention, nested], tensors: W.tensors, outputs: ["y", "q"] });
  const { stages, ...rest } = staged(model);
  expect(stages).toHaveLength(1);
  expect((stages[0] as GraphStage).model).toBe(model);
  expect([...(stages[0] as GraphStage).inputs]).toEqual([["x", "x"]]);
  expect([...(stages[0] as GraphStage).outputs]).toEqual([["y", "y"], ["q", "q"]]);
  expect(rest).toEqual({ inputs: ["x"], outputs: ["y", "q"], constants: new Map(), weights: [], left: { weights: 1, attentions: 1 } });
});

test("what is no graph is refused", () => {
  expect(() => staged(new Uint8Array([0x0f, 1, 2, 3]))).toThrow();
});
