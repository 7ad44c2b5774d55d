import { readFile } from "node:fs/promises";

import { defineConfig } from "vitest/config";

export default defineConfig({
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
