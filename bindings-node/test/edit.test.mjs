// Edits: order, seeds, options, aborting, progress, errors.

import assert from "node:assert/strict";
import { cp, mkdtemp, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { AbortError, Edited, EditPipeline, EditRequest, Image, TagbrushError } from "tagbrush";
import { DEMO_EDITS, EDIT_MODEL, failure, picture, pixels } from "./common.mjs";

const pipeline = await EditPipeline.load(EDIT_MODEL, { dtype: "f32" });
const FAST = { numInferenceSteps: 2, seed: 3 };
/** Many times as long as any test waits. */
const LONG = { numInferenceSteps: 1000, n: 10 };

test("variants of one edit", async () => {
  const made = await pipeline.edit(picture, "make it red", { n: 2, ...FAST });
  assert(made.every((edited) => edited instanceof Edited && edited.source === picture));
  assert.deepEqual(
    made.map((e) => [e.request, e.variant, e.seed, e.values]),
    [
      [0, 0, 3, undefined],
      [0, 1, 4, undefined],
    ],
  );
  assert(!made[0].image.equals(made[1].image));
  const [again] = await pipeline.edit(pixels(), "make it red", { ...FAST, seed: 4n });
  assert(again.image.equals(made[1].image));
});

test("a batch is its singles in order", async () => {
  const requests = [
    { images: picture, prompt: "make it red" },
    { images: [picture], prompt: "at night", negativePrompt: "blur" },
    { images: await picture.encode(), prompt: "make it red", negativePrompt: null, seed: 9n },
  ];
  const batch = await pipeline.editBatch(requests, { n: 2, ...FAST });
  assert.deepEqual(
    batch.map((e) => [e.request, e.variant]),
    [0, 1, 2].flatMap((i) => [
      [i, 0],
      [i, 1],
    ]),
  );
  assert.deepEqual(
    batch.map((e) => e.seed),
    [3, 4, 3, 4, 9, 10],
  );
  for (const [i, { images, prompt, negativePrompt, seed = 3 }] of requests.entries()) {
    const single = await pipeline.edit(images, prompt, { ...FAST, n: 2, negativePrompt, seed });
    for (const j of [0, 1]) assert(single[j].image.equals(batch[2 * i + j].image), `${i}, ${j}`);
  }
});

test("the demo model does what it is told", async () => {
  const demo = await EditPipeline.load("demo");
  const circle = await Image.open(join(DEMO_EDITS, "circle.png"));
  const cases = JSON.parse(await readFile(join(DEMO_EDITS, "expected.json")))["circle.png"];
  const made = await demo.editBatch(cases.map(({ prompt }) => ({ images: circle, prompt, seed: 0 })));
  for (const [i, { prompt, regions }] of cases.entries()) {
    const { width, height, data } = made[i].image;
    for (const { box, colour, tolerance } of regions) {
      const [left, top, right, bottom] = box.map((side, k) => Math.trunc(side * (k % 2 ? height : width)));
      const sum = [0, 0, 0];
      for (let y = top; y < bottom; y++) {
        for (let x = left; x < right; x++) for (const c of [0, 1, 2]) sum[c] += data[3 * (y * width + x) + c];
      }
      const off = sum.map((s, c) => Math.abs(s / ((right - left) * (bottom - top)) - colour[c]));
      assert(Math.max(...off) <= tolerance, prompt);
    }
  }
});

test("one request for each picture", () => {
  const requests = EditRequest.forEach([picture, "b.png"], "at night");
  assert.deepEqual(
    requests.map((request) => request.images),
    [picture, "b.png"],
  );
  assert(requests.every(({ prompt, negativePrompt }) => prompt === "at night" && negativePrompt === " "));
});

test("a bad request costs no other one its output", async () => {
  const images = [picture, Buffer.from("no image"), { ...pixels(), height: 3 }, [], picture];
  const requests = images.map((images) => ({ images, prompt: "red" }));
  requests.push({ images: picture, prompt: "  " });
  const outputs = await pipeline.editBatch(requests, { n: 2, errors: "return", ...FAST });
  const codes = ["made", "image_decode", "invalid_input", "invalid_input", "made", "invalid_input"];
  assert.deepEqual(
    outputs.map((output) => output.code ?? "made"),
    codes.flatMap((code) => [code, code]),
  );
  assert.equal(outputs[8].request, 4);
  assert(outputs[8].image.equals(outputs[0].image));
  assert.deepEqual([outputs[4].context.field, outputs[4].context.request], ["data", 2]);
  assert.equal((await failure(pipeline.editBatch(requests, FAST))).code, "image_decode");
  assert.deepEqual(await pipeline.editBatch([], FAST), []);
});

test("options reach the model", async () => {
  const edit = async (options) => (await pipeline.edit(picture, "red", { ...FAST, ...options }))[0];
  for (const size of ["64x32", [64, 32]]) {
    const { image } = await edit({ size });
    assert.deepEqual([image.width, image.height], [64, 32]);
  }
  const { values, image } = await edit({ keepValues: true });
  assert.equal(values.length, 3 * image.width * image.height);
  assert.equal(Math.round(values[0] * 255), image.data[0]);
  const largest = 2n ** 64n - 1n;
  assert.equal((await edit({ seed: largest })).seed, largest);
  const drawn = await edit({ seed: undefined });
  assert((await edit({ seed: drawn.seed })).image.equals(drawn.image));
  assert.deepEqual([pipeline.defaultSteps, pipeline.device, pipeline.dtype], [50, "cpu", "f32"]);
});

test("wrong options and requests are refused by name", async () => {
  const wrong = [
    [{ steps: 3 }, "steps"],
    [{ n: 0 }, "n"],
    [{ n: 2 ** 53 }, "n"],
    [{ size: [64] }, "size"],
    [{ size: "large" }, "size"],
    [{ size: [64, "32"] }, "size"],
    [{ seed: -1 }, "seed"],
    [{ seed: 1.5 }, "seed"],
    [{ seed: -1n }, "seed"],
    [{ seed: 2n ** 64n }, "seed"],
    [{ seed: "1" }, "seed"],
    [{ numInferenceSteps: 1001 }, "numInferenceSteps"],
    [{ trueCfgScale: "4" }, "trueCfgScale"],
    [{ trueCfgScale: Number.POSITIVE_INFINITY }, "trueCfgScale"],
    [{ preset: "fast" }, "preset"],
    [{ preview: 1 }, "preview"],
    [{ negativePrompt: 1 }, "negativePrompt"],
  ];
  for (const [options, field] of wrong) {
    const error = await failure(pipeline.edit(picture, "red", options));
    assert.deepEqual([error.code, error.context.field], ["invalid_input", field], error.message);
  }
  const requests = [
    [{ images: picture, prompt: 3 }, "prompt"],
    [{ images: picture, prompt: "red", negative: "" }, "negative"],
    [{ images: picture, prompt: "red", seed: -1 }, "seed"],
    [{ images: 3, prompt: "red" }, "image"],
    ["red", "requests"],
  ];
  for (const [request, field] of requests) {
    assert.equal((await failure(pipeline.editBatch([request], FAST))).context.field, field);
  }
  assert.equal((await failure(pipeline.editBatch({ images: picture, prompt: "red" }))).context.field, "requests");
});

test("options of no effect give a warning", async () => {
  const warned = new Promise((resolve) => process.once("warning", resolve));
  await pipeline.edit(picture, "red", { ...FAST, guidanceScale: 3 });
  const { name, message } = await warned;
  assert.equal(name, "TagbrushWarning");
  assert.match(message, /guidanceScale .* trueCfgScale/);
});

test("a signal that is aborted already rejects at once", async () => {
  const error = await failure(pipeline.edit(picture, "red", { ...LONG, signal: AbortSignal.abort("why") }));
  assert(error instanceof AbortError && error instanceof TagbrushError);
  assert.deepEqual([error.name, error.code, error.cause], ["AbortError", "cancelled", "why"]);
});

test("aborting really stops a running edit", async () => {
  const stop = new AbortController();
  const job = pipeline.edit(picture, "red", { ...LONG, signal: stop.signal });
  const { value } = await job.progress().next();
  assert(value.total === 10_000 && value.done < 5000 && value.secondsLeft >= 0);
  const reason = new Error("enough");
  stop.abort(reason);
  const error = await failure(job);
  assert.deepEqual([error.name, error.code], ["AbortError", "cancelled"]);
  assert.equal(error.cause, reason);
  // Edits wait for each other: the long one must have ended for this to begin.
  const start = performance.now();
  await pipeline.edit(picture, "red", FAST);
  assert((performance.now() - start) / 1000 < value.secondsLeft / 4);
});

test("aborting takes back what waits", async () => {
  const stops = Array.from({ length: 5 }, () => new AbortController());
  const jobs = stops.map(({ signal }) => failure(pipeline.edit(picture, "red", { ...LONG, signal })));
  await sleep(20);
  for (const stop of stops.reverse()) stop.abort();
  for (const error of await Promise.all(jobs)) assert.equal(error.name, "AbortError");
  assert.equal((await pipeline.edit(picture, "red", FAST)).length, 1);
});

test("a timeout is a reason like any other", async () => {
  const error = await failure(pipeline.edit(picture, "red", { ...LONG, signal: AbortSignal.timeout(50) }));
  assert.deepEqual([error.name, error.cause.name], ["AbortError", "TimeoutError"]);
});

test("progress tells every step to those who listen", async () => {
  const job = pipeline.editBatch(EditRequest.forEach([picture, picture], "red"), {
    numInferenceSteps: 40,
    preview: true,
    n: 2,
    seed: 1,
  });
  const steps = new Map();
  let done = 0;
  for await (const progress of job.progress()) {
    assert(progress.done >= done && progress.total === 160);
    done = progress.done;
    for (const { output, step, steps: all, image } of progress.previews) {
      assert(step > (steps.get(output) ?? 0) && all === 40 && image instanceof Image);
      assert.equal(image.data.length, 3 * image.width * image.height);
      steps.set(output, step);
    }
  }
  assert.equal(done, 160);
  assert.deepEqual(
    [...steps].sort(),
    [0, 1, 2, 3].map((output) => [output, 40]),
  );
  const outputs = await job;
  assert.equal(outputs.length, 4);
  assert.deepEqual((await Array.fromAsync?.(job.progress())) ?? [], [], "nothing is left to tell");
});

test("leaving progress does not stop the work", async () => {
  const job = pipeline.edit(picture, "red", { numInferenceSteps: 30, seed: 1 });
  for await (const { previews } of job.progress()) {
    assert.deepEqual(previews, []);
    break;
  }
  assert.equal((await job).length, 1);
});

test("progress throws what the work failed with", async () => {
  const job = pipeline.edit("nowhere.png", "red", FAST);
  const error = await failure(async () => {
    for await (const _ of job.progress());
  });
  assert.equal(error.code, "io");
  assert.equal(await failure(job), error);
});

test("LoRAs", async () => {
  const folder = await mkdtemp(join(tmpdir(), "tagbrush-"));
  await writeFile(join(folder, "bad.safetensors"), "no");
  const wrong = [
    [[join(folder, "none.safetensors")], "model_not_found"],
    [[{ file: join(folder, "bad.safetensors"), scale: 0.5 }], "model_invalid"],
    ["a.safetensors", "invalid_input"],
    [[{ file: "a", strength: 1 }], "invalid_input"],
    [[{ file: "a", scale: "1" }], "invalid_input"],
  ];
  for (const [loras, code] of wrong) assert.equal((await failure(pipeline.setLoras(loras))).code, code);
  assert.equal(await pipeline.setLoras([]), undefined);
});

test("references of one edit", async () => {
  assert.equal((await failure(pipeline.edit([picture, picture], "red", FAST))).code, "invalid_input");
  const folder = join(await mkdtemp(join(tmpdir(), "tagbrush-")), "plus");
  await cp(EDIT_MODEL, folder, { recursive: true });
  const index = JSON.parse(await readFile(join(folder, "model_index.json")));
  index._class_name = "QwenImageEditPlusPipeline";
  await writeFile(join(folder, "model_index.json"), JSON.stringify(index));
  const plus = await EditPipeline.load(folder, { dtype: "f32" });
  assert.equal((await plus.edit([picture, picture], "red", FAST)).length, 1);
});

test("models that are not there have a code", async () => {
  assert.equal((await failure(EditPipeline.load("no such model"))).code, "model_not_found");
  assert.equal((await failure(EditPipeline.load("demo", { transformers: "x" }))).context.field, "transformers");
  assert.equal((await failure(EditPipeline.load("demo", { signal: AbortSignal.abort() }))).name, "AbortError");
  assert.throws(() => new EditPipeline(), /EditPipeline.load/);
});
