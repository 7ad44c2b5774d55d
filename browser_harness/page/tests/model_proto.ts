import { PbfWriter } from "pbf";

import { DATA } from "../runtime/onnx_model.ts";

const { FLOAT, UINT8, FLOAT16, UINT4 } = DATA;
export const INT64 = 7;

/** A NodeProto. Attributes that are no whole numbers are floats. Its name, its doc string and its metadata tell its first output. */
export interface NodeText {
  readonly op: string;
  readonly in: readonly string[];
  readonly out: readonly string[];
  readonly is?: Readonly<Record<string, number>>;
  readonly nested?: boolean;
}

/** A TensorProto, of raw bytes unless it is `at` a place of a file. */
export interface TensorText {
  readonly name: string;
  readonly type: number;
  readonly dims: readonly number[];
  readonly raw?: Uint8Array | undefined;
  /** Whether its values are in a field of their type, which nobody reads. */
  readonly typed?: boolean;
  readonly at?: number;
  readonly location?: string;
  /** As many bytes as the values need, unless told. */
  readonly length?: number | undefined;
  readonly packed?: boolean;
}

export interface GraphText {
  readonly nodes: readonly NodeText[];
  readonly tensors?: readonly TensorText[];
  readonly inputs?: readonly string[];
  readonly outputs: readonly string[];
  /** Of values that are no floats; 0 where the graph does not tell. */
  readonly types?: Readonly<Record<string, number>>;
  /** Sizes of axes, or their names. */
  readonly shapes?: Readonly<Record<string, readonly (number | string)[]>>;
}

const BITS: ReadonlyMap<number, number> = new Map([[FLOAT, 32], [UINT8, 8], [FLOAT16, 16], [UINT4, 4], [INT64, 64]]);

export function bytesOf({ dims, type }: Pick<TensorText, "dims" | "type">): number {
  return dims.reduce((product, size) => product * size, BITS.get(type) ?? 8) / 8;
}

/** A ModelProto, by onnx.proto. */
export function modelProto({ nodes, tensors = [], inputs = ["x"], outputs, types = {}, shapes = {} }: GraphText): Uint8Array {
  const attribute = ([name, value]: [string, number], w: PbfWriter) => {
    w.writeStringField(1, name);
    if (Number.isInteger(value)) w.writeVarintField(3, value);
    else w.writeFloatField(2, value);
    w.writeVarintField(20, Number.isInteger(value) ? 2 : 1);
  };
  const entry = ([key, value]: [string, string], w: PbfWriter) => {
    w.writeStringField(1, key);
    w.writeStringField(2, value);
  };
  const node = (n: NodeText, w: PbfWriter) => {
    for (const name of n.in) w.writeStringField(1, name);
    for (const name of n.out) w.writeStringField(2, name);
    w.writeStringField(3, `node of ${n.out[0]}`);
    w.writeStringField(4, n.op);
    for (const each of Object.entries(n.is ?? {})) w.writeMessage(5, attribute, each);
    if (n.nested) w.writeMessage(5, (_: null, a) => a.writeBytesField(6, new Uint8Array([0x0a, 0])), null);
    w.writeStringField(6, `what ${n.out[0]} is for`);
    if (n.op === "FusedMatMul") w.writeStringField(7, "com.microsoft");
    w.writeMessage(9, entry, ["namespace", `layer of ${n.out[0]}`]);
  };
  const tensor = (t: TensorText, w: PbfWriter) => {
    if (t.packed) w.writePackedVarint(1, [...t.dims]);
    else for (const size of t.dims) w.writeVarintField(1, size);
    w.writeVarintField(2, t.type);
    w.writeStringField(8, t.name);
    if (t.typed) return w.writePackedFloat(4, new Array<number>(bytesOf(t) / 4).fill(0));
    if (t.at === undefined) return w.writeBytesField(9, t.raw ?? new Uint8Array(bytesOf(t)));
    const length = "length" in t ? t.length : bytesOf(t);
    const told = { location: t.location ?? "shard", offset: `${t.at}`, ...(length === undefined ? {} : { length: `${length}` }) };
    for (const each of Object.entries(told)) w.writeMessage(13, entry, each);
    w.writeVarintField(14, 1);
  };
  const value = (name: string, w: PbfWriter) => {
    w.writeStringField(1, name);
    const type = types[name] ?? FLOAT;
    const axis = (size: number | string, a: PbfWriter) => (typeof size === "number" ? a.writeVarintField(1, size) : a.writeStringField(2, size));
    const shape = (sizes: readonly (number | string)[], t: PbfWriter) => {
      for (const size of sizes) t.writeMessage(1, axis, size);
    };
    const element = (_: null, t: PbfWriter) => {
      t.writeVarintField(1, type);
      if (shapes[name]) t.writeMessage(2, shape, shapes[name]);
    };
    if (type) w.writeMessage(2, (_: null, t: PbfWriter) => t.writeMessage(1, element, null), null);
  };
  const graph = (_: null, w: PbfWriter) => {
    for (const each of nodes) w.writeMessage(1, node, each);
    w.writeStringField(2, "g");
    for (const each of tensors) w.writeMessage(5, tensor, each);
    for (const each of inputs) w.writeMessage(11, value, each);
    for (const each of outputs) w.writeMessage(12, value, each);
    for (const each of nodes.flatMap(({ out }) => out)) if (each !== "") w.writeMessage(13, value, each);
  };
  const w = new PbfWriter();
  w.writeVarintField(1, 10);
  w.writeMessage(7, graph, null);
  w.writeMessage(8, (_: null, o) => o.writeVarintField(2, 24), null);
  return w.finish();
}
