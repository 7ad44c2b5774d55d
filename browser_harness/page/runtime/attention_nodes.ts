import { PANEL } from "./kernel.ts";
import { DATA, type Graph, named, type Node } from "./onnx_model.ts";

/** A GroupQueryAttention of one text without padding. Values are told by their names. */
export interface Attention {
  readonly heads: number;
  readonly keyHeads: number;
  /** Values of a head. */
  readonly width: number;
  readonly scale: number;
  /** Positions that each sees, itself among them; 0 for all before it. */
  readonly window: number;
  /** Queries, keys and values [1, positions, heads * width], or all of them next to each other as one. */
  readonly inputs: readonly [string] | readonly [string, string, string];
  /** Cosines and sines, constants [positions, pairs]. */
  readonly rotation: readonly [string, string] | undefined;
  readonly output: string;
  /** The cache of keys and that of values, inputs of the graph, and what they are called among its outputs. */
  readonly past: readonly [string, string];
  readonly present: readonly [string, string];
}

/** The attention of a graph that needs none of ONNX Runtime's kernels. */
export interface FoundAttention {
  /** By their nodes. */
  readonly attentions: ReadonlyMap<Node, Attention>;
  /** How many nodes are left to ONNX Runtime. */
  readonly left: number;
}

const KNOWN: readonly string[] = ["do_rotary", "kv_num_heads", "local_window_size", "num_heads", "scale"];
/** Positions of inputs. */
const AT = { query: 0, key: 1, value: 2, keys: 3, values: 4, cosines: 7, sines: 8, beyond: 9 } as const;
/** How many values the kernel rotates at once. */
const TOGETHER = 4;

/** Finds attention as our exporter writes it: each with a cache of its own. */
export function findAttention(graph: Graph): FoundAttention {
  const nodes = graph.nodes.filter(({ op }) => op === "GroupQueryAttention");
  const found = nodes.flatMap((node) => {
    const attention = attentionOf(graph, node);
    return attention ? [[node, attention] as const] : [];
  });
  return { attentions: new Map(found), left: nodes.length - found.length };
}

function attentionOf(graph: Graph, { inputs, outputs, attributes }: Node): Attention | undefined {
  const of = (attribute: string) => attributes.get(attribute) ?? 0;
  const at = (index: number) => inputs[index] ?? "";
  const [output = "", ...present] = outputs;
  const past = [at(AT.keys), at(AT.values)] as const;
  const [heads, keyHeads] = [of("num_heads"), of("kv_num_heads")];
  const width = graph.shape(past[0])?.[3];
  if (width === undefined || width % PANEL !== 0 || heads % keyHeads !== 0) return undefined;
  // An attribute of 0 says that something is not asked for.
  const more = [...attributes].some(([name, value]) => value !== 0 && !KNOWN.includes(name));
  if (more || named(inputs.slice(AT.beyond)).length > 0) return undefined;
  const own = (name: string) => graph.inputs.includes(name) && graph.users(name).length === 1;
  const given = (name: string) => graph.outputs.includes(name) && graph.users(name).length === 0;
  if (!past.every(own) || present.length !== 2 || !present.every(given) || graph.type(past[0]) !== DATA.FLOAT) return undefined;
  const tables = [at(AT.cosines), at(AT.sines)] as const;
  if (of("do_rotary") !== 0 && !rotate(graph, tables, width)) return undefined;
  const separate = [at(AT.query), at(AT.key), at(AT.value)] as const;
  return {
    ...{ heads, keyHeads, width, output, past },
    scale: of("scale") || 1 / Math.sqrt(width),
    window: Math.max(0, of("local_window_size")),
    inputs: separate[1] === "" ? [separate[0]] : separate,
    rotation: of("do_rotary") === 0 ? undefined : tables,
    present: present as [string, string],
  };
}

/** Whether constants are of angles for heads of `width` values, or of a part of them. */
function rotate(graph: Graph, [cosines, sines]: readonly [string, string], width: number): boolean {
  const tensors = [graph.tensor(cosines), graph.tensor(sines)];
  const [positions, pairs = 0] = tensors[0]?.dims ?? [];
  return tensors.every((tensor) => {
    const readable = tensor?.type === DATA.FLOAT && (tensor.raw ?? tensor.external) !== undefined;
    const same = tensor?.dims[0] === positions && tensor?.dims[1] === pairs;
    return readable && same && pairs > 0 && pairs % TOGETHER === 0 && 2 * pairs <= width;
  });
}
