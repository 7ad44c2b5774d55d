const channel = new MessageChannel();
const waiting: (() => void)[] = [];
channel.port1.onmessage = () => waiting.shift()?.();

/**
 * Lets the page paint and hear its user before the next step.
 *
 * On the CPU a step's promise is settled without ever leaving the current task: a loop of
 * them would hold the page still, stop button included, until the last token. A message to
 * ourselves queues behind what waits; a timer would be held back for 4 ms once it is
 * nested, and scheduler.yield() goes on before the page has painted.
 */
export function breathe(): Promise<void> {
  return new Promise((done) => {
    waiting.push(done);
    channel.port2.postMessage(null);
  });
}
