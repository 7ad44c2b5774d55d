/** What is called of ONNX Runtime's WebAssembly: its C interface, and Emscripten's. */
export interface OrtModule {
  /** The heap: shared, as ONNX Runtime's threads need it. */
  readonly memory: WebAssembly.Memory;
  readonly PTR_SIZE: number;
  _malloc(bytes: number): number;
  _free(place: number): void;
  stackSave(): number;
  stackAlloc(bytes: number): number;
  stackRestore(stack: number): void;
  setValue(place: number, value: number, type: string): void;
  getValue(place: number, type: string): number;
  lengthBytesUTF8(text: string): number;
  stringToUTF8(text: string, place: number, bytes: number): void;
  UTF8ToString(place: number): string;
  _OrtGetLastError(code: number, message: number): number;
  _OrtFree(place: number): number;
  _OrtCreateTensor(type: number, data: number, bytes: number, dims: number, rank: number, location: number): number;
  _OrtGetTensorData(tensor: number, type: number, data: number, dims: number, rank: number): number;
  _OrtReleaseTensor(tensor: number): number;
  _OrtRun(
    session: number,
    inputNames: number,
    inputs: number,
    inputCount: number,
    outputNames: number,
    outputCount: number,
    outputs: number,
    options: number,
  ): number | Promise<number>;
}

/** Where {@link watched} leaves the module. A symbol, for its code is a script of its own. */
const PLACE = "tabwright.onnxruntime";

/**
 * Code that starts ONNX Runtime's WebAssembly as its glue code does, and leaves the module and its memory where
 * {@link startedModule} finds them. onnxruntime-web hands the one to nobody, and the glue code makes
 * the other, before it waits for anything, for itself.
 *
 * @param glue URL of the glue code.
 */
export function watched(glue: string): string {
  return `import start from ${JSON.stringify(glue)};
export default async (config) => {
  const { Memory } = WebAssembly;
  let memory;
  WebAssembly.Memory = function (wanted) { return (memory = new Memory(wanted)); };
  const starting = start(config);
  WebAssembly.Memory = Memory;
  const module = await starting;
  module.memory = memory;
  return (globalThis[Symbol.for(${JSON.stringify(PLACE)})] = module);
};`;
}

/** The module, once ONNX Runtime has started. */
export function startedModule(): OrtModule | undefined {
  return Reflect.get(globalThis, Symbol.for(PLACE)) as OrtModule | undefined;
}
