import { DATA, type ExternalData, type Graph, type Node, type Tensor } from "./onnx_model.ts";

/** Columns that the kernel packs at a time. */
const TOGETHER = 16;

/** A weight [rows, columns] that is stored as codes. */
export interface CodedWeight {
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

/** A product of activations [..., columns] with the transpose of a weight. */
export interface Product {
  readonly weight: CodedWeight;
  /** Names of the graph's values. */
  readonly input: string;
  readonly output: string;
}

/** The products of a graph that need none of ONNX Runtime's kernels. */
export interface FoundProducts {
  /** By their nodes. */
  readonly products: ReadonlyMap<Node, Product>;
  /** How many weights of codes are left to ONNX Runtime. */
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

/** Finds products with weights that are made from codes as our exporter writes them. */
export function findProducts(graph: Graph): FoundProducts {
  const products = new Map<Node, Product>();
  let left = 0;
  for (const node of graph.nodes) {
    if (node.op !== "DequantizeLinear") continue;
    const weight = codedWeight(graph, node);
    const name = node.outputs[0] as string;
    const users = graph.users(name);
    if (weight === undefined || graph.outputs.includes(name) || !users.every((user) => multipliesBy(user, name))) {
      left++;
      continue;
    }
    for (const user of users) {
      products.set(user, { weight, input: user.inputs[0] as string, output: user.outputs[0] as string });
    }
  }
  return { products, left };
}

function codedWeight(graph: Graph, { inputs, attributes }: Node): CodedWeight | undefined {
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
  return hasSizes(data, sizes) ? { rows, columns, bits, block, scaleBytes, ...data } : undefined;
}

type Stored = Pick<CodedWeight, "codes" | "scales" | "zeroPoints">;

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
