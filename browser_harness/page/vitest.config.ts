import { readFile } from "node:fs/promises";

import { defineConfig } from "vitest/config";

/** An empty module that uses relaxed SIMD: (func (result v128) (f32x4.relaxed_madd ...)) over constants. */
const RELAXED = Buffer.from(
  "0061736d010000000105016000017b030201000a3d013b00" + `fd0c${"00".repeat(16)}`.repeat(3) + "fd85020b",
  "hex",
);

export default defineConfig({
  // Node 20 has relaxed SIMD, which browsers with JSPI have, behind a flag that later ones do not know.
  test: { execArgv: WebAssembly.validate(RELAXED) ? [] : ["--experimental-wasm-relaxed-simd"] },
  plugins: [
    {
      // As esbuild's loader "binary" does it.
      name: "wasm-bytes",
      enforce: "pre",
      async load(id) {
        if (!id.endsWith(".wasm")) return undefined;
        const text = (await readFile(id)).toString("base64");
        return `export default Uint8Array.from(atob(${JSON.stringify(text)}), (letter) => letter.charCodeAt(0));`;
      },
    },
  ],
});
