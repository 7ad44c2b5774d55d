import { type CodedWeight, findProducts, type Product } from "./coded_weights.ts";
import { Graph, named, type Node, type Tensor } from "./onnx_model.ts";

/** What ONNX Runtime does between products. */
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

export type Stage = GraphStage | ProductStage;

/** A graph as a sequence of stages, each of which takes values of those before. */
export interface Staged {
  readonly stages: readonly Stage[];
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  /** What the stages are given besides, by name. */
  readonly constants: ReadonlyMap<string, Tensor>;
  readonly weights: readonly CodedWeight[];
  /** How many weights of codes are left to ONNX Runtime. */
  readonly left: number;
}

/**
 * Cuts a model where it multiplies by weights of codes, for which onnxruntime-web has no kernel.
 *
 * What does not depend on a product of its stage is done as early as can be, so that layers that do the same
 * become stages that are the same, and one session may stand for all. For the same reason vectors in
 * files and what several stages use are given to the stages: sessions differ by what they hold.
 *
 * @param model a ModelProto, which tells the type of every value that crosses a product.
 */
export function staged(model: Uint8Array): Staged {
  const graph = new Graph(model);
  // What a graph within the graph uses is not looked at.
  return graph.nodes.some(({ nested }) => nested) ? uncut(model, graph) : new Cutting(graph).staged();
}

function uncut(model: Uint8Array, graph: Graph): Staged {
  const { inputs, outputs, nodes } = graph;
  const same = (names: readonly string[]) => new Map(names.map((name) => [name, name]));
  return {
    stages: [{ kind: "graph", model, inputs: same(inputs), outputs: same(outputs) }],
    ...{ inputs, outputs },
    constants: new Map(),
    weights: [],
    left: nodes.filter(({ op }) => op === "DequantizeLinear").length,
  };
}

class Cutting {
  readonly #graph: Graph;
  readonly #products: ReadonlyMap<Node, Product>;
  readonly #left: number;
  /** Nodes that make something of constants only, once, as their stage's session begins. */
  readonly #constantNodes = new Set<Node>();
  /** How many products in a row there are before a value. */
  readonly #depths = new Map<string, number>();

  constructor(graph: Graph) {
    this.#graph = graph;
    const { products, left } = findProducts(graph);
    this.#products = products;
    this.#left = left;
  }

  staged(): Staged {
    const levels: { nodes: Node[]; products: Product[] }[] = [];
    for (const node of this.#graph.nodes) {
      const product = this.#products.get(node);
      if (product === undefined && named(node.inputs).every((name) => this.#isConstant(name))) {
        this.#constantNodes.add(node);
        continue;
      }
      const depth = Math.max(0, ...named(node.inputs).map((name) => this.#depths.get(name) ?? 0));
      // A product's value is one deeper, where it is used: there are no empty levels.
      const level = (levels[depth] ??= { nodes: [], products: [] });
      if (product) level.products.push(product);
      else level.nodes.push(node);
      for (const name of named(node.outputs)) this.#depths.set(name, depth + (product ? 1 : 0));
    }
    const parts = levels.map(({ nodes }) => this.#withConstants(nodes));
    const constants = this.#shared(parts);
    const stages = levels.flatMap(({ nodes, products }, depth): Stage[] => [
      ...(nodes.length > 0 ? [this.#graphStage(nodes, parts[depth] as Node[], constants)] : []),
      ...(products.length > 0 ? [{ kind: "products", products } as const] : []),
    ]);
    return {
      stages,
      inputs: this.#graph.inputs,
      outputs: this.#graph.outputs,
      constants,
      weights: [...new Set(Array.from(this.#products.values(), ({ weight }) => weight))],
      left: this.#left,
    };
  }

  #isConstant(name: string): boolean {
    const maker = this.#graph.maker(name);
    return this.#graph.tensor(name) !== undefined || (maker !== undefined && this.#constantNodes.has(maker));
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
    const shared = new Map<string, Tensor>();
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
      .filter((name) => graph.outputs.includes(name) || graph.users(name).some((user) => !members.has(user)));
    const part = graph.part(nodes, new Set(inputs), new Set(outputs));
    const ported = (names: readonly string[]) => new Map(names.map((name) => [name, part.names.get(name) as string]));
    return { kind: "graph", model: part.model, inputs: ported(part.inputs), outputs: ported(part.outputs) };
  }
}

/** Smaller constants are cheaper in each model than handed to it. */
const INLINE_BYTES = 1024;
