// How long the event loop and the file system wait while edits and batches run: prints percentiles.
//
//   npm run build && node benches/node_lag.mjs [SECONDS]

import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { setTimeout as sleep } from "node:timers/promises";

const { EditPipeline, Tagger } = createRequire(import.meta.url)("..");
const seconds = Number(process.argv[2] ?? 5);
const picture = { data: new Uint8Array(256 * 256 * 3).fill(90), width: 256, height: 256, channels: 3 };
const ms = (nanoseconds) => (nanoseconds / 1e6).toFixed(2).padStart(8);

/** Measures while `work` keeps everything busy until its signal is aborted. */
async function measure(name, work) {
  const stop = new AbortController();
  const working = Promise.allSettled(work(stop.signal));
  const delays = monitorEventLoopDelay({ resolution: 1 });
  delays.enable();
  const reads = [];
  const end = performance.now() + 1000 * seconds;
  while (performance.now() < end) {
    const start = performance.now();
    await readFile(import.meta.filename ?? new URL(import.meta.url));
    reads.push(performance.now() - start);
    await sleep(2);
  }
  delays.disable();
  stop.abort();
  await working;
  reads.sort((a, b) => a - b);
  const read = (part) => ms(reads[Math.floor(part * (reads.length - 1))] * 1e6);
  console.log(
    `${name.padEnd(28)} loop p50 ${ms(delays.percentile(50))} p99 ${ms(delays.percentile(99))} max ${ms(delays.max)} ms` +
      `   readFile p50 ${read(0.5)} p99 ${read(0.99)} max ${read(1)} ms`,
  );
}

const tagger = await Tagger.load("demo");
const pipeline = await EditPipeline.load("demo");
/** Calls again and again until it is aborted. */
const again = (call) => async (signal) => {
  while (!signal.aborted) await call(signal);
};
const many = (count, call) => (signal) => Array.from({ length: count }, () => again(call)(signal));

await measure("nothing", () => []);
await measure(
  "8 edits at once",
  many(8, (signal) =>
    pipeline.edit(picture, "make the background red", { numInferenceSteps: 1000, preview: true, signal }),
  ),
);
await measure(
  "8 batches of 64 at once",
  many(8, (signal) => tagger.tagBatch(Array(64).fill(picture), { signal })),
);
await measure(
  "tagSync, for comparison",
  many(1, async () => void tagger.tagBatchSync(Array(64).fill(picture)) || sleep(1)),
);
