// Writes dist/bundle (what ships in every bundle) and dist/measure (the harness's page).
// The same sources and lockfile give the same bytes: no time, no absolute path.
import { createHash } from "node:crypto";
import { copyFile, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const dist = join(here, "dist");
const bundle = join(dist, "bundle");
const ortDist = dirname(fileURLToPath(import.meta.resolve("onnxruntime-web/jspi")));

const common = {
  absWorkingDir: here,
  bundle: true,
  format: "esm",
  target: "es2024",
  minify: true,
  keepNames: true,
  charset: "utf8",
  legalComments: "eof",
  logLevel: "warning",
  // Without this condition onnxruntime-web embeds its glue code, which could not be verified.
  conditions: ["onnxruntime-web-use-extern-wasm"],
};

/** The chat page imports the runtime as it ships, instead of bundling a second copy. */
const shippedRuntime = {
  name: "shipped-runtime",
  setup({ onResolve }) {
    onResolve({ filter: /\/runtime\/index\.ts$/ }, () => ({ path: "./tabwright.js", external: true }));
  },
};

await rm(dist, { recursive: true, force: true });
await mkdir(join(bundle, "runtime"), { recursive: true });

await build({ ...common, entryPoints: ["runtime/index.ts"], outfile: join(bundle, "runtime/tabwright.js") });
await build({
  ...common,
  entryPoints: ["chat/chat.ts"],
  outfile: join(bundle, "runtime/chat.js"),
  plugins: [shippedRuntime],
});
await build({ ...common, entryPoints: ["chat/chat.css"], outfile: join(bundle, "runtime/chat.css") });
await build({ ...common, entryPoints: ["worker/sw.ts"], outfile: join(bundle, "sw.js"), format: "iife" });
await build({ ...common, entryPoints: ["measure/measure.ts"], outfile: join(dist, "measure/measure.js") });
await copyFile(join(here, "measure/index.html"), join(dist, "measure/index.html"));
for (const name of ["ort-wasm-simd-threaded.jspi.mjs", "ort-wasm-simd-threaded.jspi.wasm"]) {
  await copyFile(join(ortDist, name), join(bundle, "runtime", name));
}

// The page pins its own scripts: the browser refuses them when a bit differs.
let html = await readFile(join(here, "chat/index.html"), "utf8");
for (const path of ["runtime/tabwright.js", "runtime/chat.js", "runtime/chat.css"]) {
  const digest = createHash("sha384").update(await readFile(join(bundle, path))).digest("base64");
  const placeholder = `href="${path}"`;
  const script = `src="${path}"`;
  if (!html.includes(placeholder) && !html.includes(script)) throw new Error(`index.html does not use ${path}`);
  html = html
    .replaceAll(placeholder, `${placeholder} integrity="sha384-${digest}"`)
    .replaceAll(script, `${script} integrity="sha384-${digest}"`);
}
await writeFile(join(bundle, "index.html"), html);
