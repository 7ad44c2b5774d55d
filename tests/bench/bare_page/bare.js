// What any page of one's own would do: no hooks, nobody who asks while it generates.
import { load } from "/bundle/runtime/tabwright.js";

globalThis.bare = {
  async decode(target, threads, prompt, tokens, worker) {
    const model = await load("/bundle/manifest.json", { worker, target, threads });
    const generate = async (maxNewTokens) => {
      const at_ms = [];
      for await (const { atMs } of model.generate(prompt, { maxNewTokens, stopTokens: [] })) at_ms.push(atMs);
      return at_ms;
    };
    await generate(1); // As the harness does after each load.
    const at_ms = await generate(tokens);
    const used = model.info.threads;
    await model.dispose();
    return { at_ms, threads: used };
  },
};
