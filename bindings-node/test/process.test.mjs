// Beside the work: the event loop, worker threads, and how processes end.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import { EditPipeline, Tagger } from "tagbrush";
import { EDIT_MODEL, owl, picture, samples } from "./common.mjs";

/** Runs a program and gives its exit status and what it wrote. One that does not end is killed. */
function program(code) {
  const intro = `
    import { Tagger, EditPipeline, Image } from "tagbrush";
    const owl = ${JSON.stringify(owl)};
    const model = ${JSON.stringify(EDIT_MODEL)};
    const picture = Image.fromRgb8(64, 48, new Uint8Array(64 * 48 * 3));
    const long = { numInferenceSteps: 1000, n: 10 };
    process.on("exit", () => console.log("exit"));
  `;
  const child = spawn(process.execPath, ["--input-type=module", "--eval", intro + code], { timeout: 60_000 });
  let out = "";
  let errors = "";
  child.stdout.on("data", (data) => (out += data));
  child.stderr.on("data", (data) => (errors += data));
  return new Promise((resolve) => child.on("close", (code, signal) => resolve({ code, signal, out, errors })));
}

const ends = [
  ["with a tagger alive", `globalThis.tagger = await Tagger.load("demo"); await tagger.tag(owl)`, 0, /^exit/],
  [
    "only once the work is done",
    `EditPipeline.load(model).then((p) => p.edit(picture, "red", { numInferenceSteps: 50 })).then(() => console.log("made"))`,
    0,
    /^made\nexit/,
  ],
  [
    "when nobody takes the other outputs of edits",
    `const p = await EditPipeline.load(model, { batchSize: 1 }); await p.editIter(Array(5).fill({ images: picture, prompt: "red" }), { numInferenceSteps: 5 }).next(); console.log("one")`,
    0,
    /^one\nexit/,
  ],
  [
    "at process.exit in the middle of an edit",
    `const p = await EditPipeline.load(model); p.edit(picture, "red", long); setTimeout(() => process.exit(3), 100)`,
    3,
    /^exit/,
  ],
  [
    "at process.exit in the middle of loading and tagging",
    `for (let i = 0; i < 20; i++) Tagger.load("demo").then((t) => t.tagBatch(Array(500).fill(owl))); setTimeout(() => process.exit(4), 150)`,
    4,
    /^exit/,
  ],
  [
    "soon after an abort",
    `const p = await EditPipeline.load(model); p.edit(picture, "red", { ...long, signal: AbortSignal.timeout(100) }).catch((e) => console.log(e.name))`,
    0,
    /^AbortError\nexit/,
  ],
  [
    "while a stream waits for its source",
    `const t = await Tagger.load("demo"); t.tagIter((async function* () { yield owl; await new Promise(() => {}); })()).next().then(() => console.log("answer"))`,
    0,
    /^answer\nexit/,
  ],
  [
    "with an unhandled rejection of a job",
    `const t = await Tagger.load("demo"); t.tagBatch(["nowhere.png"]); setTimeout(() => console.log("late"), 2000)`,
    1,
    /^exit/,
  ],
  [
    "with an unhandled rejection after progress was left",
    `const p = await EditPipeline.load(model); const stop = new AbortController(); const job = p.edit(picture, "red", { ...long, signal: stop.signal }); for await (const _ of job.progress()) break; stop.abort(); setTimeout(() => console.log("late"), 2000)`,
    1,
    /^exit/,
  ],
  [
    "well when a failure was seen in progress",
    `const t = await Tagger.load("demo"); try { for await (const _ of t.tagBatch([owl, "nowhere.png"]).progress()); } catch (e) { console.log(e.code) }`,
    0,
    /^io\nexit/,
  ],
  [
    "well when a failure is awaited after progress was left",
    `const p = await EditPipeline.load(model); const stop = new AbortController(); const job = p.edit(picture, "red", { ...long, signal: stop.signal }); for await (const _ of job.progress()) break; setTimeout(() => stop.abort(), 50); try { await job } catch (e) { console.log(e.name) }`,
    0,
    /^AbortError\nexit/,
  ],
];

for (const [name, code, status, out] of ends) {
  test(`a process ends ${name}`, async () => {
    const ended = await program(code);
    assert.deepEqual([ended.code, ended.signal], [status, null], ended.errors);
    assert.match(ended.out, out);
  });
}

test("timers and files go on during edits", async () => {
  const pipeline = await EditPipeline.load(EDIT_MODEL, { dtype: "f32" });
  const stop = new AbortController();
  const jobs = Array.from({ length: 8 }, () =>
    pipeline.edit(picture, "red", { numInferenceSteps: 1000, signal: stop.signal }),
  );
  const aborted = Promise.allSettled(jobs);
  let isRunning = true;
  aborted.then(() => (isRunning = false));
  let ticks = 0;
  const timer = setInterval(() => ticks++, 5);
  for (let i = 0; i < 20; i++) {
    assert((await readFile(owl)).length > 0);
    await sleep(10);
  }
  clearInterval(timer);
  assert(isRunning, "the edits are longer than this test");
  assert(ticks >= 10, `${ticks} ticks`);
  stop.abort();
  assert((await aborted).every(({ reason }) => reason.name === "AbortError"));
});

const worker = (code, workerData = {}) =>
  new Worker(
    `const { parentPort, workerData } = require("node:worker_threads");
     const { Tagger, EditPipeline, Image } = require("tagbrush");
     (async () => { ${code} })()`,
    { eval: true, workerData },
  );
const message = (worker) => new Promise((resolve, reject) => worker.once("message", resolve).once("error", reject));

test("workers load and tag for themselves", async () => {
  const alone = await (await Tagger.load("demo")).tagBatch(samples);
  const code = `parentPort.postMessage(await (await Tagger.load("demo")).tagBatch(workerData.samples))`;
  for (let round = 0; round < 3; round++) {
    const workers = Array.from({ length: 4 }, () => worker(code, { samples }));
    const ended = workers.map((worker) => new Promise((resolve) => worker.once("exit", resolve)));
    for (const tags of await Promise.all(workers.map(message)))
      assert.deepEqual(
        tags,
        alone.map((t) => ({ ...t })),
      );
    assert.deepEqual(await Promise.all(ended), [0, 0, 0, 0], "workers end by themselves");
  }
});

test("a worker may be terminated in the middle of its work", async () => {
  const code = `
    const t = await Tagger.load("demo");
    const p = await EditPipeline.load(workerData.model);
    const job = p.edit(workerData.pixels, "red", { numInferenceSteps: 1000, n: 10, preview: true });
    for (let i = 0; i < 10; i++) t.tagBatch(Array(20).fill(workerData.owl));
    for await (const _ of job.progress()) parentPort.postMessage("running");
  `;
  const pixels = { data: picture.data, width: picture.width, height: picture.height, channels: 3 };
  for (let round = 0; round < 3; round++) {
    const busy = worker(code, { model: EDIT_MODEL, owl, pixels });
    assert.equal(await message(busy), "running");
    assert.equal(await busy.terminate(), 1);
  }
  // The process goes on, and so does its share of the work.
  assert((await (await Tagger.load("demo")).tag(owl)).size > 0);
});

test("a process ends when the package was only used in a worker that was terminated", async () => {
  const { code, signal, out, errors } = await program(`
    const { Worker } = await import("node:worker_threads");
    const busy = new Worker(\`
      const { EditPipeline } = require("tagbrush");
      EditPipeline.load(\${JSON.stringify(model)}).then((p) => {
        p.edit({ data: new Uint8Array(64 * 48 * 3), width: 64, height: 48, channels: 3 }, "red", \${JSON.stringify(long)});
        require("node:worker_threads").parentPort.postMessage("running");
      });
    \`, { eval: true, execArgv: [] });
    busy.once("message", async () => { await busy.terminate(); setTimeout(() => console.log("after"), 300); });
  `);
  assert.deepEqual([code, signal], [0, null], errors);
  assert.match(out, /^after\nexit/);
});
