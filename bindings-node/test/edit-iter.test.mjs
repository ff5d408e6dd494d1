// Edits that come one by one, and checks before any work.

import assert from "node:assert/strict";
import { test } from "node:test";
import { AbortError, Edited, EditPipeline, EditRequest, TagbrushError } from "tagbrush";
import { EDIT_MODEL, failure, picture, pixels } from "./common.mjs";

const FAST = { numInferenceSteps: 2, seed: 3 };
/** Many times as long as any test waits. */
const LONG = { numInferenceSteps: 1000, n: 10 };
const pipeline = await EditPipeline.load(EDIT_MODEL, { dtype: "f32" });
/** One edit at a time. */
const alone = await EditPipeline.load(EDIT_MODEL, { dtype: "f32", batchSize: 1 });
const red = (n) => EditRequest.forEach(Array(n).fill(picture), "red");

/** Seconds until an edit is made: edits wait for each other, so for all before it to end. */
async function untilFree() {
  const start = performance.now();
  await alone.edit(picture, "red", FAST);
  return (performance.now() - start) / 1000;
}

test("outputs are those of the batch, in order", async () => {
  const images = [picture, Buffer.from("no image"), { ...pixels(), height: 3 }, [], picture];
  const requests = images.map((images) => ({ images, prompt: "make it red" }));
  const options = { ...FAST, n: 2, errors: "return" };
  const batch = await pipeline.editBatch(requests, options);
  let i = 0;
  for await (const one of pipeline.editIter(new Set(requests), { ...options, keepValues: true })) {
    const other = batch[i++];
    if (other instanceof TagbrushError) {
      assert.deepEqual([one.code, one.message, one.context], [other.code, other.message, other.context]);
    } else {
      assert(one instanceof Edited && one.image.equals(other.image) && one.source === picture && one.values);
      assert.deepEqual([one.request, one.variant, one.seed], [other.request, other.variant, other.seed]);
    }
  }
  assert.equal(i, 10);
  for await (const _ of pipeline.editIter([], FAST)) assert.fail("nothing was asked for");
});

test("each comes as soon as it is made", async () => {
  const took = [];
  const start = performance.now();
  for await (const { request } of alone.editIter(red(5), { numInferenceSteps: 100 })) {
    took[request] = performance.now() - start;
  }
  assert(took[0] < took[4] / 2, `${took}`);
});

test("what is wrong is thrown at once, or in its place", async () => {
  const stream = alone.editIter([...red(1), { images: Buffer.from("no"), prompt: "red" }, ...red(1)], FAST);
  assert((await stream.next()).value instanceof Edited);
  const error = await failure(stream.next());
  assert.deepEqual([error.code, error.context.request], ["image_decode", 1]);
  assert((await stream.next()).done);
  const wrong = [
    [{ n: 0 }, "n"],
    [{ steps: 3 }, "steps"],
    [{ size: "large" }, "size"],
    [{ errors: "ignore" }, "errors"],
    [{ signal: 3 }, "signal"],
    [{ preview: true }, "preview"],
    [3, "options"],
  ];
  for (const [options, field] of wrong) {
    assert.throws(() => alone.editIter(red(1), options), { code: "invalid_input", context: { field } });
  }
  assert.throws(() => alone.editIter("red"), { context: { field: "requests" } });
  assert.throws(() => alone.editIter([{ images: 3, prompt: "red" }]), { context: { field: "image", request: 0 } });
  const warned = new Promise((resolve) => process.once("warning", resolve));
  await alone.editIter(red(1), { ...FAST, guidanceScale: 3 }).next();
  assert.match((await warned).message, /guidanceScale .* trueCfgScale/);
});

test("bytes may be changed right after the call", async () => {
  const given = pixels();
  const [expected] = await alone.edit(given, "red", FAST);
  const stream = alone.editIter([{ images: given, prompt: "red" }], FAST);
  given.data.fill(0);
  assert((await stream.next()).value.image.equals(expected.image));
});

test("what was made can be edited again in the loop", async () => {
  const again = [];
  for await (const { image } of alone.editIter(red(4), FAST)) again.push(...(await alone.edit(image, "at night", FAST)));
  assert.equal(again.length, 4);
  assert(again[0].image.equals(again[3].image));
});

test("leaving the loop stops the work", async () => {
  for await (const edited of alone.editIter(red(1000), { ...FAST, numInferenceSteps: 100 })) {
    assert.equal(edited.request, 0);
    break;
  }
  assert((await untilFree()) < 5);
  const unused = alone.editIter(red(20), LONG);
  assert((await untilFree()) < 5, "the work begins with the first output that is asked for");
  assert((await unused.return()).done);
  assert((await unused.next()).done);
});

test("a signal ends it at once", async () => {
  const stop = new AbortController();
  const stream = alone.editIter(red(20), { ...LONG, signal: stop.signal });
  setTimeout(() => stop.abort("enough"), 50);
  const error = await failure(stream.next());
  assert(error instanceof AbortError);
  assert.deepEqual([error.name, error.code, error.cause], ["AbortError", "cancelled", "enough"]);
  assert((await stream.next()).done);
  assert((await untilFree()) < 5);
  const late = new AbortController();
  const seen = [];
  const ended = await failure(async () => {
    for await (const edited of alone.editIter(red(3), { ...FAST, errors: "return", signal: late.signal })) {
      seen.push(edited);
      await alone.edit(picture, "red", FAST); // All outputs are there.
      late.abort();
    }
  });
  assert.deepEqual([ended.name, seen.length], ["AbortError", 1]);
  assert.equal((await failure(alone.editIter(red(1), { signal: stop.signal }).next())).name, "AbortError");
});

test("checks look at everything but pictures", () => {
  const fine = [
    { images: "nowhere.png", prompt: "red" },
    { images: [Buffer.from("no image")], prompt: "red", negativePrompt: null, seed: 3n },
  ];
  assert.equal(pipeline.check(fine, { ...FAST, preview: true, errors: "return", signal: undefined }), undefined);
  assert.equal(pipeline.check([]), undefined);
  const wrong = [
    { images: [], prompt: "red" },
    { images: picture, prompt: " " },
    { images: Array(100).fill(picture), prompt: "red" },
    { images: picture, prompt: "red", seed: -1 },
    { images: 3, prompt: "red" },
  ];
  for (const request of wrong) {
    assert.throws(
      () => pipeline.check([...fine, request]),
      (error) => error.code === "invalid_input" && error.context.request === 2,
    );
  }
  const options = { n: 11, steps: 3, preview: 1, errors: "ignore", signal: 3, size: "large" };
  for (const [field, value] of Object.entries(options)) {
    assert.throws(() => pipeline.check(fine, { [field]: value }), { code: "invalid_input", context: { field } });
  }
  assert.throws(() => pipeline.check("red"), { context: { field: "requests" } });
  assert(pipeline.defaultArea > 0 && pipeline.defaultArea < 4096 * 4096);
});
