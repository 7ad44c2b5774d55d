import { PbfReader, PbfWriter } from "pbf";

/** Numbers of fields, as onnx.proto has them. */
export const MODEL = { graph: 7 } as const;
export const GRAPH = { node: 1, initializer: 5, input: 11, output: 12, valueInfo: 13 } as const;
const NODE = { input: 1, output: 2, opType: 4, attribute: 5 } as const;
const ATTRIBUTE = { name: 1, integer: 3, graph: 6, graphs: 11 } as const;
const TENSOR = { dims: 1, type: 2, name: 8, external: 13 } as const;
const ENTRY = { key: 1, value: 2 } as const;
const VALUE = { name: 1, type: 2 } as const;
const TYPE = { tensor: 1 } as const;
const TENSOR_TYPE = { element: 1, shape: 2 } as const;
const SHAPE = { dim: 1 } as const;
const DIM = { value: 1 } as const;

/** What is used of TensorProto.DataType. */
export const DATA = { FLOAT: 1, UINT8: 2, FLOAT16: 10, UINT4: 21 } as const;

const VARINT = 0;
const BYTES = 2;
const NOTHING: Uint8Array = new Uint8Array(0);
const decoder = new TextDecoder();

/** A field of a message. */
export interface Field {
  readonly number: number;
  /** Its value where that is a string, bytes or a message; else empty. */
  readonly bytes: Uint8Array;
  /** Its value where that is a whole number; else NaN. */
  readonly integer: number;
  /** All of it, its number included: what a message with the same field holds. */
  readonly whole: Uint8Array;
}

/** The fields of a message, in its order. */
export function fieldsOf(message: Uint8Array): Field[] {
  const reader = new PbfReader(message);
  const fields: Field[] = [];
  for (let start = 0; ; start = reader.pos) {
    const number = reader.nextField();
    if (number === 0) return fields;
    let bytes = NOTHING;
    let integer = NaN;
    if (reader.type === BYTES) bytes = reader.readBytes();
    else if (reader.type === VARINT) integer = reader.readVarint(true);
    else reader.skip(reader.type);
    fields.push({ number, bytes, integer, whole: message.subarray(start, reader.pos) });
  }
}

/** A message of `fields`, as the field `number` of another. */
export function message(number: number, fields: readonly Uint8Array[]): Uint8Array {
  const size = fields.reduce((sum, field) => sum + field.length, 0);
  const writer = new PbfWriter();
  writer.writeTag(number, BYTES);
  writer.writeVarint(size);
  return joined([writer.finish(), ...fields]);
}

export function joined(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** A NodeProto. */
export interface Node {
  readonly op: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  /** Whole numbers by the attribute's name; of another type only the name is told, with NaN. */
  readonly attributes: ReadonlyMap<string, number>;
  /** Whether a graph is among the attributes. */
  readonly nested: boolean;
}

export function readNode(bytes: Uint8Array): Node {
  const fields = fieldsOf(bytes);
  const attributes = fields.filter(({ number }) => number === NODE.attribute).map((field) => fieldsOf(field.bytes));
  return {
    op: text(fields, NODE.opType),
    inputs: texts(fields, NODE.input),
    outputs: texts(fields, NODE.output),
    attributes: new Map(
      attributes.map((each) => [
        text(each, ATTRIBUTE.name),
        each.find(({ number }) => number === ATTRIBUTE.integer)?.integer ?? NaN,
      ]),
    ),
    nested: attributes.flat().some(({ number }) => number === ATTRIBUTE.graph || number === ATTRIBUTE.graphs),
  };
}

/** The node as a graph's field, with no attributes. */
export function withoutAttributes(node: Uint8Array): Uint8Array {
  return message(GRAPH.node, fieldsOf(node).filter(({ number }) => number !== NODE.attribute).map(({ whole }) => whole));
}

/** Where a tensor's values are: bytes of a file beside the model. */
export interface ExternalData {
  readonly location: string;
  readonly offset: number;
  readonly length: number;
}

/** A TensorProto; its values when they are in a file. */
export interface Tensor {
  readonly name: string;
  readonly type: number;
  readonly dims: readonly number[];
  readonly external: ExternalData | undefined;
}

export function readTensor(bytes: Uint8Array): Tensor {
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
    type: fields.find(({ number }) => number === TENSOR.type)?.integer ?? 0,
    dims: fields.filter(({ number }) => number === TENSOR.dims).flatMap(integers),
    external:
      location === undefined
        ? undefined
        : { location, offset: Number(entries.get("offset") ?? 0), length: Number(entries.get("length") ?? NaN) },
  };
}

/** The name of a ValueInfoProto. */
export function readName(bytes: Uint8Array): string {
  return text(fieldsOf(bytes), VALUE.name);
}

/** A graph's input of float32. */
export function floatInput(name: string, dims: readonly number[]): Uint8Array {
  const shape = (_: null, writer: PbfWriter) => {
    for (const size of dims) writer.writeMessage(SHAPE.dim, (value, dim) => dim.writeVarintField(DIM.value, value), size);
  };
  const tensor = (_: null, writer: PbfWriter) => {
    writer.writeVarintField(TENSOR_TYPE.element, DATA.FLOAT);
    writer.writeMessage(TENSOR_TYPE.shape, shape, null);
  };
  const writer = new PbfWriter();
  writer.writeStringField(VALUE.name, name);
  writer.writeMessage(VALUE.type, (_: null, type) => type.writeMessage(TYPE.tensor, tensor, null), null);
  return message(GRAPH.input, [writer.finish()]);
}

function texts(fields: readonly Field[], wanted: number): string[] {
  return fields.filter(({ number }) => number === wanted).map(({ bytes }) => decoder.decode(bytes));
}

function text(fields: readonly Field[], wanted: number): string {
  return texts(fields, wanted)[0] ?? "";
}

/** Whole numbers that may have been put into one field together. */
function integers({ bytes, integer }: Field): number[] {
  if (!Number.isNaN(integer)) return [integer];
  const reader = new PbfReader(bytes);
  const found: number[] = [];
  while (reader.pos < bytes.length) found.push(reader.readVarint(true));
  return found;
}
