import { TOGETHER } from "./dequantiser.ts";
import {
  DATA,
  type ExternalData,
  type Field,
  fieldsOf,
  floatInput,
  GRAPH,
  joined,
  message,
  MODEL,
  type Node,
  readName,
  readNode,
  readTensor,
  type Tensor,
  withoutAttributes,
} from "./onnx_model.ts";

/** A weight [rows, columns] that is stored as codes, and multiplied by as floats [columns, rows]. */
export interface FoldedWeight {
  /** The graph's input for its floats. */
  readonly name: string;
  readonly rows: number;
  readonly columns: number;
  readonly bits: 4 | 8;
  /** Columns that share a scale and a zero point. */
  readonly block: number;
  readonly codes: ExternalData;
  readonly scales: ExternalData;
  readonly scaleBytes: 2 | 4;
  readonly zeroPoints: ExternalData;
}

/** A model whose folded weights are inputs. */
export interface Rewritten {
  /** A ModelProto. */
  readonly model: Uint8Array;
  readonly weights: readonly FoldedWeight[];
  /** How many are left to ONNX Runtime. */
  readonly left: number;
}

const BITS: ReadonlyMap<number, 4 | 8> = new Map([
  [DATA.UINT4, 4],
  [DATA.UINT8, 8],
]);
const SCALE_BYTES: ReadonlyMap<number, 2 | 4> = new Map([
  [DATA.FLOAT16, 2],
  [DATA.FLOAT, 4],
]);

/** A graph's fields, and what is known of those that matter here. */
class Graph {
  readonly fields: readonly Field[];
  readonly nodes = new Map<Field, Node>();
  readonly tensors = new Map<Field, Tensor>();
  readonly #tensorsByName = new Map<string, Tensor>();
  readonly #makers = new Map<string, Node>();
  readonly #users = new Map<string, Node[]>();
  readonly outputs = new Set<string>();

  constructor(bytes: Uint8Array) {
    this.fields = fieldsOf(bytes);
    for (const field of this.fields) {
      if (field.number === GRAPH.node) this.#addNode(field, readNode(field.bytes));
      if (field.number === GRAPH.initializer) this.#addTensor(field, readTensor(field.bytes));
      if (field.number === GRAPH.output) this.outputs.add(readName(field.bytes));
    }
  }

  tensor(name: string | undefined): Tensor | undefined {
    return this.#tensorsByName.get(name ?? "");
  }

  maker(name: string | undefined): Node | undefined {
    return this.#makers.get(name ?? "");
  }

  users(name: string): readonly Node[] {
    return this.#users.get(name) ?? [];
  }

  #addNode(field: Field, node: Node): void {
    this.nodes.set(field, node);
    for (const name of node.outputs) this.#makers.set(name, node);
    for (const name of node.inputs) this.#users.set(name, [...this.users(name), node]);
  }

  #addTensor(field: Field, tensor: Tensor): void {
    this.tensors.set(field, tensor);
    this.#tensorsByName.set(tensor.name, tensor);
  }
}

/**
 * Makes inputs of the weights that ONNX Runtime would fold to floats while it loads.
 *
 * ONNX Runtime multiplies a single row by a weight [columns, rows] where that lies; one [rows, columns] it
 * packs first, at load where the weight is a constant, which takes time and a second place in a heap that
 * never shrinks. So weights come as [columns, rows], and as inputs: those are not packed at load, and
 * whoever runs the session may make them where they stay.
 *
 * A weight that is not as our exporter writes it is left to ONNX Runtime.
 */
export function foldedWeightsAsInputs(model: Uint8Array): Rewritten {
  const fields = fieldsOf(model);
  const graphField = fields.find(({ number }) => number === MODEL.graph);
  const graph = new Graph(graphField?.bytes ?? new Uint8Array(0));
  const nodes = [...graph.nodes.values()];
  const dequantised = nodes.filter(({ op }) => op === "DequantizeLinear");
  // What a graph within the graph uses is not looked at.
  const found = nodes.some(({ nested }) => nested) ? [] : dequantised.map((node) => foldedWeight(graph, node));
  const weights = found.filter((weight) => weight !== undefined);
  const left = dequantised.length - weights.length;
  if (weights.length === 0) return { model, weights, left };
  const changed = message(MODEL.graph, withInputs(graph, weights));
  return { model: joined(fields.map((field) => (field === graphField ? changed : field.whole))), weights, left };
}

function foldedWeight(graph: Graph, { inputs, outputs, attributes }: Node): FoldedWeight | undefined {
  const name = outputs[0] as string;
  const users = graph.users(name);
  if (graph.outputs.has(name) || users.length === 0 || !users.every((user) => multipliesBy(user, name))) return undefined;
  const codes = graph.tensor(inputs[0]);
  const scales = graph.tensor(inputs[1]) ?? castFrom(graph, inputs[1]);
  const zeroPoints = graph.tensor(inputs[2]);
  const bits = BITS.get(codes?.type ?? 0);
  const scaleBytes = SCALE_BYTES.get(scales?.type ?? 0);
  const [rows, columns, ...more] = codes?.dims ?? [];
  const block = attributes.get("block_size") ?? 0;
  if (bits === undefined || scaleBytes === undefined || zeroPoints?.type !== codes?.type) return undefined;
  if (rows === undefined || columns === undefined || more.length > 0) return undefined;
  const along = attributes.size === 2 && attributes.get("axis") === 1;
  if (!along || block === 0 || block % TOGETHER !== 0 || columns % block !== 0) return undefined;
  const groups = (rows * columns) / block;
  const data = {
    codes: codes?.external,
    scales: scales?.external,
    zeroPoints: zeroPoints?.external,
  };
  const sizes = { codes: (rows * columns * bits) / 8, scales: groups * scaleBytes, zeroPoints: Math.ceil((groups * bits) / 8) };
  if (!hasSizes(data, sizes)) return undefined;
  return { name, rows, columns, bits, block, scaleBytes, ...data };
}

type Stored = Pick<FoldedWeight, "codes" | "scales" | "zeroPoints">;

/** Whether all are in a file, in as many bytes as there should be. */
function hasSizes(
  data: { readonly [part in keyof Stored]: ExternalData | undefined },
  sizes: { readonly [part in keyof Stored]: number },
): data is Stored {
  return (["codes", "scales", "zeroPoints"] as const).every((part) => data[part]?.length === sizes[part]);
}

/** Whether `node` is a product with the transpose of the weight `name`, and nothing else. */
function multipliesBy({ op, inputs, attributes }: Node, name: string): boolean {
  const plain = attributes.size === 1 && attributes.get("transB") === 1;
  return op === "FusedMatMul" && plain && inputs[1] === name && inputs[0] !== name;
}

function castFrom(graph: Graph, name: string | undefined): Tensor | undefined {
  const cast = graph.maker(name);
  return cast?.op === "Cast" && cast.attributes.get("to") === DATA.FLOAT ? graph.tensor(cast.inputs[0]) : undefined;
}

/** The graph's fields with `weights` as inputs, without what only they were made from. */
function withInputs(graph: Graph, weights: readonly FoldedWeight[]): Uint8Array[] {
  const inputs = new Set(weights.map(({ name }) => name));
  const nodes = [...graph.nodes].filter(([, { outputs }]) => !outputs.some((name) => inputs.has(name)));
  // What a dropped node alone used is dropped as well: a scale's cast, and the tensors before it.
  const used = new Set([...graph.outputs, ...nodes.flatMap(([, node]) => node.inputs)]);
  const kept = nodes.filter(([, { op, outputs }]) => op !== "Cast" || outputs.some((name) => used.has(name)));
  const read = new Set([...graph.outputs, ...kept.flatMap(([, node]) => node.inputs)]);
  const keptNodes = new Set(kept.map(([field]) => field));
  const replaced = graph.fields.flatMap((field) => {
    if (field.number === GRAPH.node) {
      if (!keptNodes.has(field)) return [];
      const node = graph.nodes.get(field) as Node;
      return node.inputs.some((name) => inputs.has(name)) ? [withoutAttributes(field.bytes)] : [field.whole];
    }
    if (field.number === GRAPH.initializer) {
      return read.has(graph.tensors.get(field)?.name as string) ? [field.whole] : [];
    }
    // Shapes of values that are turned now, or gone; ONNX Runtime finds out those of the others.
    return field.number === GRAPH.valueInfo ? [] : [field.whole];
  });
  return [...replaced, ...weights.map(({ name, rows, columns }) => floatInput(name, [columns, rows]))];
}
