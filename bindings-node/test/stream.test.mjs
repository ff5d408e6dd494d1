// Streams: order, bounded look-ahead, failures, leaving.

import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Tagger } from "tagbrush";
import { failure, owl, samples } from "./common.mjs";

const tagger = await Tagger.load("demo", { batchSize: 4 });
const alone = await tagger.tagBatch(samples);

async function all(stream) {
  const items = [];
  for await (const item of stream) items.push(item);
  return items;
}

test("lists and async sources, in order", async () => {
  assert.deepEqual(await all(tagger.tagIter(samples)), alone);
  assert.deepEqual(await all(tagger.tagIter(new Set(samples))), alone);
  async function* slow() {
    for (const sample of samples) {
      await sleep(5);
      yield sample;
    }
  }
  assert.deepEqual(await all(tagger.tagIter(slow())), alone);
  assert.deepEqual(await all(tagger.tagIter([])), []);
});

test("no more is pulled than two batches ahead", async () => {
  let pulled = 0;
  let closed = false;
  function* endless() {
    try {
      for (;;) yield samples[pulled++ % samples.length];
    } finally {
      closed = true;
    }
  }
  let seen = 0;
  for await (const tags of tagger.tagIter(endless())) {
    assert.deepEqual(tags, alone[seen % samples.length]);
    if (++seen % 10 === 0) await sleep(5);
    assert(pulled <= seen + 8, `${pulled} pulled, ${seen} seen`);
    if (seen === 100) break;
  }
  assert(closed, "leaving the loop closes the source");
});

test("a source that waits gets its answers meanwhile", async () => {
  let go;
  async function* waiting() {
    yield samples[0];
    await new Promise((resolve) => (go = resolve));
    yield samples[1];
  }
  const stream = tagger.tagIter(waiting());
  assert.deepEqual((await stream.next()).value, alone[0]);
  go();
  assert.deepEqual((await stream.next()).value, alone[1]);
  assert((await stream.next()).done);
});

test("failures of pictures", async () => {
  const images = [owl, "nowhere.png", owl];
  const answers = await all(tagger.tagIter(images, { errors: "return" }));
  assert.deepEqual(
    answers.map((answer) => answer.code),
    [undefined, "io", undefined],
  );
  assert.deepEqual(answers[1].context, { file: "nowhere.png", index: 1 });
  const seen = [];
  const error = await failure(async () => {
    for await (const tags of tagger.tagIter(images)) seen.push(tags);
  });
  assert.deepEqual([error.code, seen.length], ["io", 1]);
});

test("failures of the source come last", async () => {
  async function* failing() {
    yield owl;
    yield owl;
    throw new Error("the camera is gone");
  }
  const seen = [];
  const error = await failure(async () => {
    for await (const tags of tagger.tagIter(failing())) seen.push(tags);
  });
  assert.deepEqual([error.message, seen.length], ["the camera is gone", 2]);
  assert.equal((await failure(all(tagger.tagIter([owl, 3])))).context.field, "image");
});

test("options are checked when the stream is made", () => {
  assert.throws(() => tagger.tagIter([], { treshold: 1 }), { context: { field: "treshold" } });
  assert.throws(() => tagger.tagIter("a.png"), { context: { field: "images" } });
  assert.throws(() => tagger.tagIter([], { errors: "skip" }), { context: { field: "errors" } });
});

test("a signal ends a stream that waits for its source", async () => {
  const stop = new AbortController();
  async function* silent() {
    yield owl;
    await new Promise(() => {});
  }
  const seen = [];
  const error = await failure(async () => {
    for await (const tags of tagger.tagIter(silent(), { signal: stop.signal })) {
      seen.push(tags);
      setTimeout(() => stop.abort("enough"), 10);
    }
  });
  assert.deepEqual([error.name, error.cause, seen.length], ["AbortError", "enough", 1]);
  assert.equal((await failure(all(tagger.tagIter([owl], { signal: stop.signal })))).name, "AbortError");
});
