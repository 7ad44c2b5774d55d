/** The page that ships in a bundle: one conversation with the bundle's model. */
import { clearStore, load, type Model, type Progress, TabwrightError } from "../runtime/index.ts";
import { Conversation } from "./conversation.ts";

const MIB = 1 << 20;

const PHASES: Readonly<Record<Progress["phase"], string>> = {
  manifest: "Reading the manifest",
  stored: "Checking what is stored",
  download: "Downloading",
  session: "Preparing the model",
  check: "Checking that this device computes rightly",
};

function find<T extends HTMLElement>(id: string): T {
  const element = document.getElementById(id);
  if (!element) throw new Error(`the page has no #${id}`);
  return element as T;
}

const log = find("log");
const form = find<HTMLFormElement>("form");
const input = find<HTMLTextAreaElement>("input");
const send = find<HTMLButtonElement>("send");
const stop = find<HTMLButtonElement>("stop");
const fresh = find<HTMLButtonElement>("fresh");

const conversation = new Conversation();
let stopping: AbortController | undefined;

function show(id: string, text: string): void {
  find(id).textContent = text;
}

function showError(error: unknown): void {
  const known = error instanceof TabwrightError;
  show("error", known ? `${error.code}: ${error.message}` : String(error));
  find("error").hidden = false;
}

function mebibytes(bytes: number): string {
  return (bytes / MIB).toFixed(1);
}

function progressView(): (progress: Progress) => void {
  const bar = find<HTMLProgressElement>("bar");
  return ({ phase, done, total, file, bytesPerSecond = 0, secondsLeft = 0 }) => {
    let line = PHASES[phase];
    if (phase === "download") {
      line += ` ${file}: ${mebibytes(done)} of ${mebibytes(total)} MiB, ${mebibytes(bytesPerSecond)} MiB/s`;
      line += `, ${Math.ceil(secondsLeft)} s left`;
    } else if (phase === "stored") {
      line += `: ${mebibytes(done)} of ${mebibytes(total)} MiB`;
    }
    show("phase", line);
    if (phase === "session" || phase === "check") bar.removeAttribute("value");
    else bar.value = total > 0 ? done / total : 0;
  };
}

function addMessage(role: "user" | "assistant", text: string): HTMLElement {
  const element = document.createElement("p");
  element.className = `message ${role}`;
  element.dir = "auto";
  element.textContent = text;
  log.append(element);
  element.scrollIntoView({ block: "end" });
  return element;
}

async function answer(model: Model, text: string): Promise<void> {
  const question = addMessage("user", text);
  const reply = addMessage("assistant", "");
  stopping = new AbortController();
  input.value = "";
  send.hidden = true;
  stop.hidden = false;
  fresh.disabled = true;
  find("error").hidden = true;
  const { kept, error } = await conversation.ask(model, text, stopping.signal, (said) => {
    reply.textContent = said.text;
    reply.scrollIntoView({ block: "end" });
    if (said.tokens > 1) show("speed", `${((said.tokens - 1) / (said.sinceFirstMs / 1000)).toFixed(1)} tokens/s`);
  });
  if (!kept) {
    question.remove();
    reply.remove();
    // Whatever was typed meanwhile stays.
    input.value = [text, input.value].filter(Boolean).join("\n");
    if (error === undefined) show("speed", "no answer came");
    else showError(error);
  }
  send.hidden = false;
  stop.hidden = true;
  fresh.disabled = false;
  input.focus();
}

function connect(model: Model): void {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = input.value.trim();
    if (text && stop.hidden) void answer(model, text);
  });
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  });
  stop.addEventListener("click", () => stopping?.abort());
  fresh.addEventListener("click", () => {
    conversation.clear();
    log.replaceChildren();
  });
  for (const control of [input, send, fresh]) control.disabled = false;
  input.focus();
}

async function start(): Promise<void> {
  find("forget").addEventListener("click", () => {
    show("speed", "deleting, once no tab is loading");
    clearStore().then(() => show("speed", "deleted; the next visit downloads it again"), showError);
  });
  const target = new URLSearchParams(location.search).get("target") ?? undefined;
  const model = await load("manifest.json", { target, onProgress: progressView() });
  const { info } = model;
  document.title = info.facts.name;
  show("name", info.facts.name);
  const threads = `${info.threads} CPU ${info.threads === 1 ? "thread" : "threads"}`;
  const seconds = (info.timings.total_ms / 1000).toFixed(1);
  const why = info.because ?? "chosen in the address";
  show("target", `${info.target}: ${why}; ${threads}; ready in ${seconds} s${info.offline ? "; offline" : ""}`);
  find("notes").replaceChildren(
    ...info.notes.map((note) => {
      const item = document.createElement("li");
      item.textContent = note;
      return item;
    }),
  );
  find("loading").hidden = true;
  connect(model);
}

navigator.serviceWorker?.register("sw.js").catch(showError);
start().catch((error: unknown) => {
  find("loading").hidden = true;
  showError(error);
});
