// Writes dist/bundle (what ships in every bundle) and dist/measure (the harness's page).
// The same sources and lockfile give the same bytes: no time, no absolute path.
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { copyFile, mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import asc from "assemblyscript/asc";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const dist = join(here, "dist");
const bundle = join(dist, "bundle");
const ortDist = dirname(fileURLToPath(import.meta.resolve("onnxruntime-web/jspi")));
const TSC = join(dirname(fileURLToPath(import.meta.resolve("typescript/package.json"))), "bin/tsc");
const ORT_FILES = ["ort-wasm-simd-threaded.jspi.mjs", "ort-wasm-simd-threaded.jspi.wasm"];
const pageFiles = JSON.parse(await readFile(join(here, "runtime/page_files.json"), "utf8"));

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
  loader: { ".wasm": "binary" },
};

await rm(dist, { recursive: true, force: true });
await mkdir(join(bundle, "runtime"), { recursive: true });

await assemble("kernel", ["panel", "pack", "product", "threads", "calls"]);

await build({ ...common, entryPoints: ["runtime/index.ts"], outfile: join(bundle, "runtime/tabwright.js") });
// With a runtime of its own, since an import of the shipped one cannot be pinned without an inline
// import map, which a server's content security policy may forbid.
await build({ ...common, entryPoints: ["chat/chat.ts"], outfile: join(bundle, "runtime/chat.js") });
await build({ ...common, entryPoints: ["chat/chat.css"], outfile: join(bundle, "runtime/chat.css") });
await build({
  ...common,
  entryPoints: ["engine/xgrammar.ts"],
  outfile: join(bundle, "runtime/xgrammar.js"),
  // Node's, in a branch that no browser takes.
  external: ["module", "url"],
});
await build({ ...common, entryPoints: ["worker/sw.ts"], outfile: join(bundle, "sw.js"), format: "iife" });
await build({ ...common, entryPoints: ["measure/measure.ts"], outfile: join(dist, "measure/measure.js") });
await copyFile(join(here, "measure/index.html"), join(dist, "measure/index.html"));
for (const name of ORT_FILES) await copyFile(join(ortDist, name), join(bundle, "runtime", name));
await writeFile(join(bundle, "index.html"), await pinnedPage());
const types = await writeTypes();

const shipped = [...pageFiles, "runtime/xgrammar.js", ...types, ...ORT_FILES.map((name) => `runtime/${name}`)].sort().join();
const written = (await readdir(bundle, { recursive: true, withFileTypes: true }))
  .filter((entry) => entry.isFile())
  .map((entry) => relative(bundle, join(entry.parentPath, entry.name)).replaceAll("\\", "/"));
if (written.sort().join() !== shipped) throw new Error(`page_files.json lists ${shipped}; there are ${written}`);

/** Compiles sources to one WebAssembly module that works on another's memory: dist/kernel. */
async function assemble(name, sources) {
  const { error, stderr } = await asc.main([
    ...sources.map((source) => join(here, `kernel/${source}.ts`)),
    ...["--outFile", join(dist, `kernel/${name}.wasm`)],
    ...["--runtime", "stub", "--enable", "simd", "--enable", "relaxed-simd", "--enable", "threads", "-O3", "--noAssert"],
    ...["--importMemory", "--sharedMemory", "--maximumMemory", "65536"],
  ]);
  const said = stderr.toString();
  if (error || said) throw new Error(`kernel/${name}.ts: ${said || error}`);
}

/** Declarations of what tabwright.js exports, each module's in a file of its own; gives their paths. */
async function writeTypes() {
  const emitted = join(dist, "types");
  await promisify(execFile)(process.execPath, [TSC, "-p", "tsconfig.types.json", "--outDir", emitted], { cwd: here });
  const written = new Set();
  const copy = async (name) => {
    if (written.has(name)) return;
    written.add(name);
    const text = await readFile(join(emitted, "runtime", `${name}.d.ts`), "utf8");
    const imported = [...text.matchAll(/ from "([^"]+)"/g)].map(([, from]) => /^\.\/(\w+)\.ts$/.exec(from)?.[1] ?? fail(name, from));
    const linked = text.replaceAll(/( from "\.\/\w+)\.ts"/g, '$1.js"');
    await writeFile(join(bundle, "runtime/types", `${name}.d.ts`), linked);
    for (const next of imported) await copy(next);
  };
  const fail = (name, from) => {
    throw new Error(`the types of runtime/${name}.ts need '${from}', which is not in the bundle`);
  };
  await mkdir(join(bundle, "runtime/types"));
  await copy("index");
  await writeFile(join(bundle, "runtime/tabwright.d.ts"), 'export * from "./types/index.js";\n');
  await rm(emitted, { recursive: true });
  return ["runtime/tabwright.d.ts", ...Array.from(written, (name) => `runtime/types/${name}.d.ts`)];
}

/** The chat page with its script and style pinned: the browser refuses one of which a bit differs. */
async function pinnedPage() {
  let html = await readFile(join(here, "chat/index.html"), "utf8");
  for (const path of ["runtime/chat.js", "runtime/chat.css"]) {
    const digest = createHash("sha384").update(await readFile(join(bundle, path))).digest("base64");
    const use = `="${path}"`;
    if (!html.includes(use)) throw new Error(`index.html does not use ${path}`);
    html = html.replace(use, () => `${use} integrity="sha384-${digest}"`);
  }
  return html;
}
