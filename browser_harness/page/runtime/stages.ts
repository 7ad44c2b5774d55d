import { type Attention, findAttention } from "./attention_nodes.ts";
import { type CodedWeight, findProducts, type Product } from "./coded_weights.ts";
import { Graph, named, type Node, type Tensor } from "./onnx_model.ts";

/** What ONNX Runtime does in between. */
export interface GraphStage {
  readonly kind: "graph";
  /** A ModelProto. */
  readonly model: Uint8Array;
  /** Values of the whole graph in the order of the model's inputs, and what the model calls them. */
  readonly inputs: ReadonlyMap<string, string>;
  readonly outputs: ReadonlyMap<string, string>;
}

/** Products that need nothing of each other. */
export interface ProductStage {
  readonly kind: "products";
  readonly products: readonly Product[];
}

/** Attention in layers that need nothing of each other. */
export interface AttentionStage {
  readonly kind: "attention";
  readonly attentions: readonly Attention[];
}

export type Stage = GraphStage | ProductStage | AttentionStage;

/** A graph as a sequence of stages, each of which takes values of those before. */
export interface Staged {
  readonly stages: readonly Stage[];
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  /** What the stages are given besides, by name. */
  readonly constants: ReadonlyMap<string, Tensor>;
  readonly weights: readonly CodedWeight[];
  /** How many weights of codes and how many attentions are left to ONNX Runtime. */
  readonly left: { readonly weights: number; readonly attentions: number };
}

/**
 * Cuts a model where it multiplies by weights of codes, for which onnxruntime-web has no kernel, and where it
 * attends, for which it has a slow one.
 *
 * What does not depend on these is done as early as can be, so that layers that do the same
 * become stages that are the same, and one session may stand for all. For the same reason vectors in
 * files and what several stages use are given to the stages: sessions differ by what they hold.
 *
 * @param model a ModelProto, which tells the type of every value that crosses a cut.
 */
export function staged(model: Uint8Array): Staged {
  const graph = new Graph(model);
  // What a graph within the graph uses is not looked at.
  return graph.nodes.some(({ nested }) => nested) ? uncut(model, graph) : new Cutting(graph).staged();
}

function uncut(model: Uint8Array, graph: Graph): Staged {
  const { inputs, outputs, nodes } = graph;
  const count = (wanted: string) => nodes.filter(({ op }) => op === wanted).length;
  const same = (names: readonly string[]) => new Map(names.map((name) => [name, name]));
  return {
    stages: [{ kind: "graph", model, inputs: same(inputs), outputs: same(outputs) }],
    ...{ inputs, outputs },
    constants: new Map(),
    weights: [],
    left: { weights: count("DequantizeLinear"), attentions: count("GroupQueryAttention") },
  };
}

/** For each stage the values that no later one reads; constants and outputs of the whole stay. */
export function endsOf({ stages, outputs, constants }: Staged): string[][] {
  const stay = new Set([...outputs, ...constants.keys()]);
  return stages
    .toReversed()
    .map((stage) => {
      const names = namesOf(stage);
      const ends = [...new Set(names)].filter((name) => !stay.has(name));
      for (const name of ends) stay.add(name);
      return ends;
    })
    .toReversed();
}

/** What a stage is given and gives. */
function namesOf(stage: Stage): string[] {
  if (stage.kind === "graph") return [...stage.inputs.keys(), ...stage.outputs.keys()];
  if (stage.kind === "products") return stage.products.flatMap(({ input, output }) => [input, output]);
  return stage.attentions.flatMap(({ inputs, output }) => [...inputs, output]);
}

/** Nodes of one depth, and products and attention, which make what is one deeper. */
interface Level {
  readonly nodes: Node[];
  readonly products: Product[];
  readonly attentions: Attention[];
}

class Cutting {
  readonly #graph: Graph;
  readonly #products: ReadonlyMap<Node, Product>;
  readonly #attentions: ReadonlyMap<Node, Attention>;
  readonly #left: Staged["left"];
  /** Nodes that an output depends on, where the page does some itself. */
  readonly #needed = new Set<Node>();
  /** Nodes that make something of constants only, once, as their stage's session begins. */
  readonly #constantNodes = new Set<Node>();
  /** How many steps of the page's own there are before a value. */
  readonly #depths = new Map<string, number>();

  constructor(graph: Graph) {
    this.#graph = graph;
    const [{ products, left: weights }, { attentions, left }] = [findProducts(graph), findAttention(graph)];
    this.#products = products;
    this.#attentions = attentions;
    this.#left = { weights, attentions: left };
    const wanted = new Set(graph.outputs);
    for (const node of graph.nodes.toReversed()) {
      if (!node.outputs.some((name) => wanted.has(name))) continue;
      this.#needed.add(node);
      for (const name of this.#read(node)) wanted.add(name);
    }
  }

  staged(): Staged {
    const levels: Level[] = [];
    for (const node of this.#graph.nodes.filter((each) => this.#needed.has(each))) {
      const [product, attention] = [this.#products.get(node), this.#attentions.get(node)];
      const own = product !== undefined || attention !== undefined;
      const read = this.#read(node);
      if (!own && read.every((name) => this.#isConstant(name))) {
        this.#constantNodes.add(node);
        continue;
      }
      const depth = Math.max(0, ...read.map((name) => this.#depths.get(name) ?? 0));
      // What the page makes is one deeper, where it is used: there are no empty levels.
      const level = (levels[depth] ??= { nodes: [], products: [], attentions: [] });
      if (product) level.products.push(product);
      else if (attention) level.attentions.push(attention);
      else level.nodes.push(node);
      for (const name of named(node.outputs)) this.#depths.set(name, depth + Number(own));
    }
    const parts = levels.map(({ nodes }) => this.#withConstants(nodes));
    const constants = this.#shared(parts);
    const stages = levels.flatMap(({ nodes, products, attentions }, depth): Stage[] => [
      ...(nodes.length > 0 ? [this.#graphStage(nodes, parts[depth] as Node[], constants)] : []),
      ...(products.length > 0 ? [{ kind: "products", products } as const] : []),
      ...(attentions.length > 0 ? [{ kind: "attention", attentions } as const] : []),
    ]);
    return {
      stages,
      inputs: this.#graph.inputs,
      outputs: this.#graph.outputs,
      constants,
      weights: [...new Set(levels.flatMap(({ products }) => products.map(({ weight }) => weight)))],
      left: this.#left,
    };
  }

  /** Values that a node is given as it is run; of what the page does itself not all that the graph names. */
  #read(node: Node): readonly string[] {
    const input = this.#products.get(node)?.input;
    return input === undefined ? (this.#attentions.get(node)?.inputs ?? named(node.inputs)) : [input];
  }

  #isConstant(name: string): boolean {
    const maker = this.#graph.maker(name);
    return this.#graph.tensor(name) !== undefined || (maker !== undefined && this.#constantNodes.has(maker));
  }

  #reads(node: Node, name: string): boolean {
    return this.#needed.has(node) && this.#read(node).includes(name);
  }

  /** `nodes`, and those that make constants for them, in the graph's order. */
  #withConstants(nodes: readonly Node[]): Node[] {
    const all = new Set(nodes);
    const add = ({ inputs }: Node) => {
      for (const name of inputs) {
        const maker = this.#graph.maker(name);
        if (maker === undefined || all.has(maker) || !this.#constantNodes.has(maker)) continue;
        all.add(maker);
        add(maker);
      }
    };
    nodes.forEach(add);
    return this.#graph.nodes.filter((node) => all.has(node));
  }

  /** Constants that stages are given. What makes other constants stays where it can be folded. */
  #shared(parts: readonly (readonly Node[])[]): Map<string, Tensor> {
    const counts = new Map<string, number>();
    for (const nodes of parts) {
      const folded = new Set(nodes.filter((node) => this.#constantNodes.has(node)).flatMap(({ inputs }) => inputs));
      for (const name of new Set(nodes.flatMap(({ inputs }) => inputs))) {
        if (!folded.has(name)) counts.set(name, (counts.get(name) ?? 0) + 1);
      }
    }
    const tables = Array.from(this.#attentions.values()).flatMap(({ rotation }) => rotation ?? []);
    const shared = new Map(tables.map((name) => [name, this.#graph.tensor(name) as Tensor]));
    for (const [name, count] of counts) {
      const tensor = this.#graph.tensor(name);
      const vector = tensor?.external !== undefined && tensor.dims.length === 1;
      const large = tensor !== undefined && (tensor.external?.length ?? tensor.raw?.length ?? 0) > INLINE_BYTES;
      if (tensor && (vector || (large && count > 1))) shared.set(name, tensor);
    }
    return shared;
  }

  #graphStage(own: readonly Node[], nodes: readonly Node[], constants: ReadonlyMap<string, Tensor>): GraphStage {
    const graph = this.#graph;
    const members = new Set(nodes);
    const isMade = (name: string) => members.has(graph.maker(name) as Node);
    const given = nodes.flatMap(({ inputs }) => named(inputs)).filter((name) => !isMade(name));
    const inputs = given.filter((name) => constants.has(name) || graph.tensor(name) === undefined);
    const outputs = own
      .flatMap((node) => named(node.outputs))
      .filter((name) => graph.outputs.includes(name) || graph.users(name).some((user) => !members.has(user) && this.#reads(user, name)));
    const part = graph.part(nodes, new Set(inputs), new Set(outputs));
    const ported = (names: readonly string[]) => new Map(names.map((name) => [name, part.names.get(name) as string]));
    return { kind: "graph", model: part.model, inputs: ported(part.inputs), outputs: ported(part.outputs) };
  }
}

/** Smaller constants are cheaper in each model than handed to it. */
const INLINE_BYTES = 1024;
