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
 * What a session must know before WebGPU is added to it, and onnxruntime-web has no option for. Left alone it
 * submits every 16 dispatches, 19 times for a token of 30 layers, and each time costs the page's thread about
 * 0.1 ms. All at once, a prompt's step could keep a slow GPU busy for longer than Windows waits.
 */
const BEFORE_WEBGPU = { "ep.webgpuexecutionprovider.maxNumPendingDispatches": "96" } as const;

/**
 * Code that starts ONNX Runtime's WebAssembly as its glue code does, and leaves the module and its memory where
 * {@link startedModule} finds them. onnxruntime-web hands the one to nobody, and the glue code makes
 * the other, before it waits for anything, for itself. Sessions are told what {@link BEFORE_WEBGPU} has.
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
  const append = module._OrtAppendExecutionProvider;
  module._OrtAppendExecutionProvider = (options, ...given) => {
    const stack = module.stackSave();
    const place = (text) => {
      const bytes = module.lengthBytesUTF8(text) + 1;
      const at = module.stackAlloc(bytes);
      module.stringToUTF8(text, at, bytes);
      return at;
    };
    for (const [key, value] of ${JSON.stringify(Object.entries(BEFORE_WEBGPU))}) {
      module._OrtAddSessionConfigEntry(options, place(key), place(value));
    }
    module.stackRestore(stack);
    return append(options, ...given);
  };
  return (globalThis[Symbol.for(${JSON.stringify(PLACE)})] = module);
};`;
}

/** The module, once ONNX Runtime has started. */
export function startedModule(): OrtModule | undefined {
  return Reflect.get(globalThis, Symbol.for(PLACE)) as OrtModule | undefined;
}
