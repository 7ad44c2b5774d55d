import { describe, expect, test } from "vitest";

import { findAttention } from "../runtime/attention_nodes.ts";
import { DATA, Graph } from "../runtime/onnx_model.ts";
import { INT64, modelProto, type GraphText, type NodeText, type TensorText } from "./model_proto.ts";

const { FLOAT, FLOAT16 } = DATA;
const INPUTS = ["q", "k", "v", "past.k", "past.v", "lengths", "total", "cosines", "sines"];
const IS = { num_heads: 4, kv_num_heads: 2, scale: 0.125, do_rotary: 1 };
const table = (name: string, pairs = 8): TensorText => ({ name, type: FLOAT, dims: [20, pairs], raw: new Uint8Array(4 * 20 * pairs) });

function graph(change: Partial<NodeText> = {}, rest: Partial<GraphText> = {}): Graph {
  const node = { op: "GroupQueryAttention", in: INPUTS, out: ["a", "present.k", "present.v"], is: IS, ...change };
  const cache = ["batch_size", 2, "past_sequence_length", 16];
  return new Graph(
    modelProto({
      ...{ nodes: [node], tensors: [table("cosines"), table("sines")] },
      inputs: INPUTS.slice(0, 7),
      outputs: ["a", "present.k", "present.v"],
      types: { lengths: INT64, total: INT64 },
      shapes: { "past.k": cache, "past.v": cache },
      ...rest,
    }),
  );
}
const only = (found: ReturnType<typeof findAttention>) => [[...found.attentions.values()], found.left];

describe("attention as our exporter writes it", () => {
  const wanted = {
    ...{ heads: 4, keyHeads: 2, width: 16, scale: 0.125, window: 0 },
    ...{ inputs: ["q", "k", "v"], rotation: ["cosines", "sines"], output: "a" },
    ...{ past: ["past.k", "past.v"], present: ["present.k", "present.v"] },
  };

  test("is found", () => {
    const one = graph();
    expect(only(findAttention(one))).toEqual([[wanted], 0]);
    expect([...findAttention(one).attentions.keys()]).toEqual(one.nodes);
  });

  test.each<[string, Partial<NodeText>, object]>([
    ["with its inputs in one", { in: ["q", "", "", ...INPUTS.slice(3)] }, { inputs: ["q"] }],
    ["in a window", { is: { ...IS, local_window_size: 7 } }, { window: 7 }],
    ["in a window of all", { is: { ...IS, local_window_size: -1 } }, { window: 0 }],
    ["without rotation", { is: { ...IS, do_rotary: 0 }, in: INPUTS.slice(0, 7) }, { rotation: undefined }],
    ["without a scale of its own", { is: { num_heads: 4, kv_num_heads: 2, do_rotary: 1 } }, { scale: 0.25 }],
    ["that says what it does not ask for", { is: { ...IS, softcap: 0, rotary_interleaved: 0 } }, {}],
    ["with further inputs that are left out", { in: [...INPUTS, "", ""] }, {}],
  ])("is found %s", (_, change, told) => {
    expect(only(findAttention(graph(change)))).toEqual([[{ ...wanted, ...told }], 0]);
  });
});

describe("attention is left to ONNX Runtime", () => {
  const shapes = (width: number | string) => ({ "past.k": ["batch_size", 2, "past_sequence_length", width], "past.v": ["batch_size", 2, "past_sequence_length", width] });
  const uses = (name: string): NodeText => ({ op: "Relu", in: [name], out: ["other"] });
  const node: NodeText = { op: "GroupQueryAttention", in: INPUTS, out: ["a", "present.k", "present.v"], is: IS };

  test.each<[string, Partial<NodeText>, Partial<GraphText>]>([
    ["whose scores are capped", { is: { ...IS, softcap: 30.5 } }, {}],
    ["with a bias", { in: [...INPUTS, "", "bias"] }, { inputs: [...INPUTS.slice(0, 7), "bias"] }],
    ["of an odd width", {}, { shapes: shapes(24) }],
    ["of a width that is not told", {}, { shapes: shapes("width") }],
    ["of heads that share keys unevenly", { is: { ...IS, num_heads: 3 } }, {}],
    ["in float16", {}, { types: { "past.k": FLOAT16, lengths: INT64, total: INT64 } }],
    ["whose past is made", {}, { inputs: INPUTS.slice(0, 3).concat(INPUTS.slice(4, 7)) }],
    ["whose past others use", {}, { nodes: [node, uses("past.k")] }],
    ["whose present others use", {}, { nodes: [node, uses("present.v")] }],
    ["whose present is not given", {}, { outputs: ["a", "present.k"] }],
    ["without a present", { out: ["a"] }, { outputs: ["a"] }],
    ["whose angles are made", {}, { tensors: [table("cosines")], inputs: [...INPUTS.slice(0, 7), "sines"] }],
    ["whose angles are float16", {}, { tensors: [{ ...table("cosines"), type: FLOAT16 }, table("sines")] }],
    ["whose angles are not where they can be read", {}, { tensors: [table("cosines"), { ...table("sines"), dims: [20, 8], raw: undefined, typed: true }] }],
    ["of more cosines than sines", {}, { tensors: [table("cosines"), { ...table("sines"), dims: [19, 8], raw: new Uint8Array(4 * 19 * 8) }] }],
    ["of wider cosines than sines", {}, { tensors: [table("cosines"), table("sines", 4)] }],
    ["of more angles than values", {}, { tensors: [table("cosines", 12), table("sines", 12)] }],
    ["of an odd number of angles", {}, { tensors: [table("cosines", 6), table("sines", 6)] }],
  ])("%s", (_, change, rest) => {
    expect(only(findAttention(graph(change, rest)))).toEqual([[], 1]);
  });
});
