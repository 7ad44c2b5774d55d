import { PbfReader, PbfWriter } from "pbf";

/** Numbers of fields, as onnx.proto has them. */
const MODEL = { graph: 7 } as const;
const GRAPH = { node: 1, name: 2, initializer: 5, input: 11, output: 12, valueInfo: 13 } as const;
const NODE = { input: 1, output: 2, name: 3, opType: 4, attribute: 5, doc: 6, metadata: 9 } as const;
/** What says nothing of what a node does. */
const REMARKS: readonly number[] = [NODE.name, NODE.doc, NODE.metadata];
const ATTRIBUTE = { name: 1, float: 2, integer: 3, graph: 6, graphs: 11 } as const;
const TENSOR = { dims: 1, type: 2, name: 8, raw: 9, external: 13 } as const;
const ENTRY = { key: 1, value: 2 } as const;
const VALUE = { name: 1, type: 2 } as const;
const TYPE = { tensor: 1 } as const;
const TENSOR_TYPE = { element: 1, shape: 2 } as const;
const SHAPE = { axis: 1 } as const;
const AXIS = { size: 1 } as const;

/** What is used of TensorProto.DataType. */
export const DATA = { FLOAT: 1, UINT8: 2, INT64: 7, FLOAT16: 10, UINT4: 21 } as const;

const VARINT = 0;
const BYTES = 2;
const FOUR_BYTES = 5;
const NOTHING: Uint8Array = new Uint8Array(0);
const decoder = new TextDecoder();

/** A field of a message. */
interface Field {
  readonly number: number;
  /** Its value where that is a string, bytes or a message; else empty. */
  readonly bytes: Uint8Array;
  /** Its value where that is a number; else NaN. */
  readonly value: number;
  /** All of it, its number included: what a message with the same field holds. */
  readonly whole: Uint8Array;
}

/** The fields of a message, in its order. */
function fieldsOf(message: Uint8Array): Field[] {
  const reader = new PbfReader(message);
  const fields: Field[] = [];
  for (let start = 0; ; start = reader.pos) {
    const number = reader.nextField();
    if (number === 0) return fields;
    let bytes = NOTHING;
    let value = NaN;
    if (reader.type === BYTES) bytes = reader.readBytes();
    else if (reader.type === VARINT) value = reader.readVarint(true);
    else if (reader.type === FOUR_BYTES) value = reader.readFloat();
    else reader.skip(reader.type);
    fields.push({ number, bytes, value, whole: message.subarray(start, reader.pos) });
  }
}

/** A NodeProto. */
export interface Node {
  readonly op: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  /** Numbers by the attribute's name; of another type only the name is told, with NaN. */
  readonly attributes: ReadonlyMap<string, number>;
  /** Whether a graph is among the attributes. */
  readonly nested: boolean;
  readonly fields: readonly Field[];
}

function readNode(bytes: Uint8Array): Node {
  const fields = fieldsOf(bytes);
  const attributes = fields.filter(({ number }) => number === NODE.attribute).map((field) => fieldsOf(field.bytes));
  return {
    op: text(fields, NODE.opType),
    inputs: texts(fields, NODE.input),
    outputs: texts(fields, NODE.output),
    attributes: new Map(
      attributes.map((each) => [
        text(each, ATTRIBUTE.name),
        each.find(({ number }) => number === ATTRIBUTE.integer || number === ATTRIBUTE.float)?.value ?? NaN,
      ]),
    ),
    nested: attributes.flat().some(({ number }) => number === ATTRIBUTE.graph || number === ATTRIBUTE.graphs),
    fields,
  };
}

/** Where a tensor's values are: bytes of a file beside the model. */
export interface ExternalData {
  readonly location: string;
  readonly offset: number;
  readonly length: number;
}

/** A TensorProto. */
export interface Tensor {
  readonly name: string;
  readonly type: number;
  readonly dims: readonly number[];
  /** Its values, when they are in a file. */
  readonly external: ExternalData | undefined;
  /** Its values, when they are here and as they lie in memory. */
  readonly raw: Uint8Array | undefined;
  readonly fields: readonly Field[];
}

function readTensor(bytes: Uint8Array): Tensor {
  const fields = fieldsOf(bytes);
  const entries = new Map(
    fields
      .filter(({ number }) => number === TENSOR.external)
      .map((field) => fieldsOf(field.bytes))
      .map((entry) => [text(entry, ENTRY.key), text(entry, ENTRY.value)]),
  );
  const location = entries.get("location");
  return {
    name: text(fields, TENSOR.name),
    type: fields.find(({ number }) => number === TENSOR.type)?.value ?? 0,
    dims: fields.filter(({ number }) => number === TENSOR.dims).flatMap(integers),
    external:
      location === undefined
        ? undefined
        : { location, offset: Number(entries.get("offset") ?? 0), length: Number(entries.get("length") ?? NaN) },
    raw: fields.find(({ number }) => number === TENSOR.raw)?.bytes,
    fields,
  };
}

/** A GraphProto, and what is known of it. */
export class Graph {
  /** In an order in which they can be run. */
  readonly nodes: readonly Node[];
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly #tensors: ReadonlyMap<string, Tensor>;
  /** The types of values that are told, as numbers of TensorProto.DataType. */
  readonly #types = new Map<string, number>();
  readonly #shapes = new Map<string, readonly (number | undefined)[]>();
  readonly #makers = new Map<string, Node>();
  readonly #users = new Map<string, Node[]>();
  /** The model's other fields. */
  readonly #around: readonly Uint8Array[];

  /** @param model a ModelProto. */
  constructor(model: Uint8Array) {
    const fields = fieldsOf(model);
    const graph = within(fields, MODEL.graph);
    const of = (wanted: number) => graph.filter(({ number }) => number === wanted).map(({ bytes }) => bytes);
    const values = (wanted: number) => of(wanted).map((bytes) => this.#readValue(bytes));
    this.#around = fields.filter(({ number }) => number !== MODEL.graph).map(({ whole }) => whole);
    this.nodes = of(GRAPH.node).map(readNode);
    this.#tensors = new Map(of(GRAPH.initializer).map(readTensor).map((tensor) => [tensor.name, tensor]));
    this.inputs = values(GRAPH.input).filter((name) => !this.#tensors.has(name));
    this.outputs = values(GRAPH.output);
    values(GRAPH.valueInfo);
    for (const node of this.nodes) {
      for (const name of named(node.outputs)) this.#makers.set(name, node);
      for (const name of new Set(named(node.inputs))) this.#users.set(name, [...this.users(name), node]);
    }
  }

  tensor(name: string | undefined): Tensor | undefined {
    return this.#tensors.get(name ?? "");
  }

  maker(name: string | undefined): Node | undefined {
    return this.#makers.get(name ?? "");
  }

  users(name: string): readonly Node[] {
    return this.#users.get(name) ?? [];
  }

  /** @throws Error when the graph does not tell. */
  type(name: string): number {
    const type = this.#tensors.get(name)?.type ?? this.#types.get(name);
    if (type === undefined) throw new Error(`it does not tell the type of '${name}'`);
    return type;
  }

  /** The sizes of a value's axes, as far as they are told. */
  shape(name: string): readonly (number | undefined)[] | undefined {
    return this.#shapes.get(name);
  }

  /**
   * A model of some of this one's nodes. Names are made anew, in the order in which they are met: models
   * that do the same are the same, byte by byte.
   *
   * @param nodes in the graph's order.
   * @param inputs what the model is to be given, constants among it.
   * @param outputs what it is to give.
   */
  part(nodes: readonly Node[], inputs: ReadonlySet<string>, outputs: ReadonlySet<string>): Part {
    const names = new Map<string, string>([["", ""]]);
    const met = (name: string) => {
      if (!names.has(name)) names.set(name, `v${names.size}`);
      return names.get(name) as string;
    };
    const renamed = nodes.map(({ fields }) =>
      message(
        GRAPH.node,
        fields.flatMap(({ number, bytes, whole }) => {
          if (REMARKS.includes(number)) return [];
          return [number === NODE.input || number === NODE.output ? textField(number, met(decoder.decode(bytes))) : whole];
        }),
      ),
    );
    const all = [...names.keys()];
    const given = all.filter((name) => inputs.has(name));
    const constants = all.flatMap((name) => (inputs.has(name) ? [] : (this.tensor(name) ?? [])));
    const told = all.filter((name) => outputs.has(name));
    const value = (number: number) => (name: string) => valueInfo(number, met(name), this.type(name));
    const graph = message(MODEL.graph, [
      ...renamed,
      textField(GRAPH.name, "part"),
      ...constants.map(({ name, fields }) =>
        message(GRAPH.initializer, fields.map(({ number, whole }) => (number === TENSOR.name ? textField(number, met(name)) : whole))),
      ),
      ...given.map(value(GRAPH.input)),
      ...told.map(value(GRAPH.output)),
    ]);
    return { model: joined([...this.#around, graph]), inputs: given, outputs: told, names };
  }

  #readValue(bytes: Uint8Array): string {
    const fields = fieldsOf(bytes);
    const name = text(fields, VALUE.name);
    const tensor = within(within(fields, VALUE.type), TYPE.tensor);
    const type = tensor.find(({ number }) => number === TENSOR_TYPE.element);
    if (type) this.#types.set(name, type.value);
    const axes = within(tensor, TENSOR_TYPE.shape).filter(({ number }) => number === SHAPE.axis);
    const sizes = axes.map((axis) => fieldsOf(axis.bytes).find(({ number }) => number === AXIS.size)?.value);
    if (type) this.#shapes.set(name, sizes);
    return name;
  }
}

/** Names of values, without those that are left out. */
export function named(names: readonly string[]): string[] {
  return names.filter((name) => name !== "");
}

/** A model of some of a graph's nodes. */
export interface Part {
  /** A ModelProto. */
  readonly model: Uint8Array;
  /** Names of the whole graph's values, in the order of the model's inputs. */
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  /** What the model calls them. */
  readonly names: ReadonlyMap<string, string>;
}

/** A value of which only the type is told. */
function valueInfo(number: number, name: string, type: number): Uint8Array {
  const element = (_: null, writer: PbfWriter) => writer.writeVarintField(TENSOR_TYPE.element, type);
  const writer = new PbfWriter();
  writer.writeStringField(VALUE.name, name);
  writer.writeMessage(VALUE.type, (_: null, value) => value.writeMessage(TYPE.tensor, element, null), null);
  return message(number, [writer.finish()]);
}

/** A message of `fields`, as the field `number` of another. */
function message(number: number, fields: readonly Uint8Array[]): Uint8Array {
  const writer = new PbfWriter();
  writer.writeTag(number, BYTES);
  writer.writeVarint(fields.reduce((sum, field) => sum + field.length, 0));
  return joined([writer.finish(), ...fields]);
}

function textField(number: number, value: string): Uint8Array {
  const writer = new PbfWriter();
  writer.writeStringField(number, value);
  return writer.finish();
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** The fields of the message that is the field `wanted` of another. */
function within(fields: readonly Field[], wanted: number): Field[] {
  return fieldsOf(fields.find(({ number }) => number === wanted)?.bytes ?? NOTHING);
}

function texts(fields: readonly Field[], wanted: number): string[] {
  return fields.filter(({ number }) => number === wanted).map(({ bytes }) => decoder.decode(bytes));
}

function text(fields: readonly Field[], wanted: number): string {
  return texts(fields, wanted)[0] ?? "";
}

/** Whole numbers that may have been put into one field together. */
function integers({ bytes, value }: Field): number[] {
  if (!Number.isNaN(value)) return [value];
  const reader = new PbfReader(bytes);
  const found: number[] = [];
  while (reader.pos < bytes.length) found.push(reader.readVarint(true));
  return found;
}
