// Tagging: the same answers as the command line, in every way to ask.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFile } from "node:fs/promises";
import { basename } from "node:path";
import { test } from "node:test";
import { DEFAULT_THRESHOLD, Job, Rows, TagbrushError, Tagger, Tags } from "tagbrush";
import { expected, failure, owl, samples } from "./common.mjs";

const tagger = await Tagger.load("demo");

test("answers are those of the command line", async () => {
  const options = ["tag", ...samples, "--format", "jsonl", "--threshold", "0.3"];
  const lines = execFileSync("npx", ["tagbrush", ...options], { encoding: "utf8" })
    .trim()
    .split("\n");
  const tags = await tagger.tagBatch(samples, { threshold: 0.3 });
  assert.equal(lines.length, samples.length);
  for (const [i, line] of lines.entries()) {
    const { path, ...found } = JSON.parse(line);
    assert.equal(basename(path), basename(samples[i]));
    const { ratings, characters, tags: others } = JSON.parse(JSON.stringify(tags[i]));
    assert.deepEqual(
      { ratings, characters, tags: others },
      { ratings: found.ratings, characters: found.characters, tags: found.tags },
    );
  }
});

test("the demo model knows its pictures", async () => {
  let [right, total] = [0, 0];
  for (const [i, tags] of (await tagger.tagBatch(samples)).entries()) {
    const wanted = expected[basename(samples[i])];
    assert.equal(tags.rating.name, wanted.rating);
    right += wanted.tags.filter((name) => tags.has(name)).length;
    total += wanted.tags.length;
  }
  assert(right / total > 0.9);
});

test("tags are plain data with a caption", async () => {
  const tags = await tagger.tag(owl);
  assert(tags instanceof Tags);
  const [tag] = tags.tags;
  assert.deepEqual(Object.keys(tag), ["name", "score", "category", "index"]);
  assert.equal(tagger.labels[tag.index].name, tag.name);
  assert(tags.has(tag.name) && !tags.has("nothing of the kind"));
  assert.equal(tags.size, tags.characters.length + tags.tags.length);
  assert.match(tags.caption({ weights: true, rating: "first" }), /^\(general:[01]\.\d+\), /);
  assert.equal(
    tags.caption({ replace: { [tag.name]: "x" }, exclude: undefined, charactersLast: true }).split(", ")[0],
    "x",
  );
  const again = new Tags(structuredClone({ ...tags }));
  assert.deepEqual(again, tags);
  assert.equal(again.caption(), tags.caption());
  assert.equal(new Tags().rating, undefined);
  assert.equal(new Tags().caption(), "");
});

test("functions that wait answer the same", async () => {
  const waiting = Tagger.loadSync("demo");
  assert.deepEqual(waiting.tagSync(owl), await tagger.tag(owl));
  assert.deepEqual(waiting.tagBatchSync(samples), await tagger.tagBatch(samples));
  assert.deepEqual(waiting.scoresSync(samples), await tagger.scores(samples));
  assert.deepEqual(waiting.embedSync([owl]), await tagger.embed([owl]));
  const [error] = waiting.tagBatchSync(["nowhere.png"], { errors: "return" });
  assert.equal(error.code, "io");
  assert.throws(() => waiting.tagBatchSync(["nowhere.png"]), TagbrushError);
  for (const call of [
    (o) => waiting.tagSync(owl, o),
    (o) => waiting.tagBatchSync([owl], o),
    (o) => Tagger.loadSync("demo", o),
  ]) {
    assert.throws(() => call({ signal: AbortSignal.timeout(1000) }), { context: { field: "signal" } });
  }
  assert.throws(() => waiting.tagSync(owl, { errors: "return" }), { context: { field: "errors" } });
  assert.equal(waiting.scoresSync([owl, "nowhere.png"], { errors: "return" })[1].context.index, 1);
  assert.throws(() => Tagger.loadSync("no such model"), { code: "model_not_found" });
});

test("options decide what is kept", async () => {
  const all = await tagger.tag(owl, { threshold: 0 });
  assert.equal(all.ratings.length + all.size, tagger.labels.length);
  assert.equal((await tagger.tag(owl, { threshold: 2 })).size, 0);
  assert.equal((await tagger.tag(owl, { topK: 2, order: "score" })).tags.length, 2);
  const [first] = all.characters.filter((tag) => tag.score > DEFAULT_THRESHOLD);
  assert(!(await tagger.tag(owl, { characterThreshold: 1 })).has(first.name));
  assert(!(await tagger.tag(owl, { categoryThresholds: { 4: 1 } })).has(first.name));
  assert(!(await tagger.tag(owl, { categoryThresholds: { character: 1 } })).has(first.name));
  assert(!(await tagger.tag(owl, { tagThresholds: { [first.name]: 1 } })).has(first.name));
  assert(!(await tagger.tag(owl, { exclude: [first.name] })).has(first.name));
  assert((await tagger.tag(owl, { characterThreshold: null, threshold: undefined })).has(first.name));
});

test("rows are arrays of numbers with a shape", async () => {
  const rows = await tagger.scores(samples);
  assert(rows instanceof Rows && rows.data instanceof Float32Array);
  assert.deepEqual(rows.shape, [samples.length, tagger.labels.length]);
  const tags = await tagger.tag(samples[1], { threshold: 0 });
  for (const { index, score } of tags.tags) assert.equal(rows.row(1)[index], Math.fround(score));
  assert.equal([...rows].length, samples.length);
  assert.equal(rows.row(0).buffer, rows.data.buffer);
  assert.throws(() => rows.row(samples.length), RangeError);
  const embedded = await tagger.embed(samples.slice(0, 2));
  assert.deepEqual(embedded.shape, [2, tagger.embeddingLength]);
  assert.deepEqual((await tagger.scores([])).shape, [0, tagger.labels.length]);
});

test("scores give tags under any options", async () => {
  const scores = await tagger.scores(samples);
  for (const options of [{}, { threshold: 0.7 }, { mcut: true }, { topK: 2, order: "score" }]) {
    const batch = await tagger.tagBatch(samples, options);
    assert.deepEqual(tagger.select(scores, options), batch);
    assert.deepEqual(tagger.select([...scores], options), batch);
    assert.deepEqual(tagger.select(scores.row(1), options), batch[1]);
    assert.deepEqual(tagger.select(Array.from(scores.row(2)), options), batch[2]);
  }
  assert(tagger.select(scores.row(0)) instanceof Tags);
  assert.deepEqual(tagger.select(await tagger.scores([])), []);
  assert.deepEqual(tagger.select([]), []);
  const unknown = new Float32Array(tagger.labels.length).fill(Number.NaN);
  assert.deepEqual(tagger.select(unknown, { threshold: 0 }).tags, []);
});

test("scores of another form are refused", async () => {
  const [row] = await tagger.scores([owl]);
  const short = row.subarray(1);
  const wrong = [short, [...short], new Float32Array(0), Float64Array.from(row), 0.5, "0.5", null, [0.5, "1"], [row, 1]];
  for (const scores of wrong) {
    assert.throws(() => tagger.select(scores), { code: "invalid_input" });
  }
  assert.throws(() => tagger.select([row, row, short]), { context: { field: "scores", index: 2 } });
  for (const option of [{ threshold: -1 }, { treshold: 0.3 }, { errors: "return" }, { signal: undefined }]) {
    const [field] = Object.keys(option);
    assert.throws(() => tagger.select(row, option), { code: "invalid_input", context: { field } });
  }
});

test("a bad picture costs no other one its answer", async () => {
  const bytes = await readFile(owl);
  const images = [owl, Buffer.from("no picture"), bytes, "nowhere.png", bytes.subarray(0, 300)];
  const answers = await tagger.tagBatch(images, { errors: "return" });
  assert.deepEqual(
    answers.map((answer) => answer.code),
    [undefined, "image_decode", undefined, "io", "image_decode"],
  );
  assert.deepEqual(answers[0], answers[2]);
  assert.deepEqual(answers[3].context, { file: "nowhere.png", index: 3 });
  assert.match(answers[1].message, /index=1/);
  const first = await failure(tagger.tagBatch(images));
  assert(first instanceof TagbrushError && first instanceof Error);
  assert.equal(first.name, "TagbrushError");
  assert.deepEqual([first.code, first.context.index], ["image_decode", 1]);
  assert.match(first.stack, /tagger\.test\.mjs/, "the stack says who asked");
  const rows = await tagger.scores(images, { errors: "return" });
  assert(rows[0] instanceof Float32Array && rows[1] instanceof TagbrushError);
  assert.equal((await failure(tagger.embed(images))).context.index, 1);
});

test("wrong options are refused by name", async () => {
  const wrong = [
    [{ treshold: 0.3 }, "treshold", /known: threshold/],
    [{ threshold: "0.3" }, "threshold", /expected a number, got a string/],
    [{ threshold: Number.NaN }, "threshold", /NaN/],
    [{ topK: 1.5 }, "topK", /whole number/],
    [{ topK: -1 }, "topK", /whole number/],
    [{ exclude: "cat" }, "exclude", /array of strings/],
    [{ exclude: [1] }, "exclude", /string/],
    [{ order: "random" }, "order", /labels, score, name/],
    [{ mcut: 1 }, "mcut", /true or false/],
    [{ tagThresholds: [0.3] }, "tagThresholds", /got an array/],
    [{ tagThresholds: { cat: "x" } }, "tagThresholds", /number/],
    [{ implications: [["a"]] }, "implications", /pairs/],
    [{ errors: "ignore" }, "errors", /"throw" or "return"/],
    [{ signal: true }, "signal", /AbortSignal/],
    [3, "options", /object/],
  ];
  for (const [options, field, message] of wrong) {
    const error = await failure(tagger.tagBatch([owl], options));
    assert.deepEqual([error.code, error.context.field], ["invalid_input", field], error.message);
    assert.match(error.message, message);
  }
  for (const method of ["scores", "embed"]) {
    assert.equal((await failure(tagger[method]([owl], { threshold: 1 }))).context.field, "threshold");
  }
  assert.equal((await failure(() => tagger.tag(owl, { errors: "return" }))).context.field, "errors");
  const tags = await tagger.tag(owl);
  assert.throws(() => tags.caption({ seperator: "," }), { code: "invalid_input", context: { field: "seperator" } });
});

test("models that are not there have a code", async () => {
  const error = await failure(Tagger.load("no such model"));
  assert.deepEqual([error.name, error.code], ["TagbrushError", "model_not_found"]);
  assert.equal(
    (await failure(Tagger.load("wd-vit-tagger-v3", { offline: true, cacheDir: "/nowhere" }))).code,
    "model_not_found",
  );
  assert.equal((await failure(Tagger.load("demo", { device: "toaster" }))).context.field, "device");
  assert.equal((await failure(Tagger.load("demo", { batchSize: 0 }))).context.field, "batchSize");
  assert.equal((await failure(Tagger.load("demo", { maxMemory: 5 }))).context.field, "maxMemory");
  assert.equal((await failure(Tagger.load(3))).context.field, "model");
  assert.throws(() => new Tagger(), /Tagger.load/);
});

test("a tagger says what it is", async () => {
  assert.deepEqual([tagger.name, tagger.device, tagger.dtype], ["demo", "cpu", "f32"]);
  assert.deepEqual(tagger.inputSize, [96, 96]);
  assert(tagger.labels.some((label) => label.category === 9));
  const smaller = tagger.withBatchSize(3);
  assert.equal(smaller.batchSize, 3);
  assert.deepEqual(await smaller.tagBatch(samples), await tagger.tagBatch(samples));
  assert.throws(() => tagger.withBatchSize(0), { code: "invalid_input" });
  assert.throws(() => tagger.withBatchSize(1.5), { code: "invalid_input" });
  assert.equal((await Tagger.load("demo", { batchSize: 5 })).batchSize, 5);
});

test("calls may overlap", async () => {
  const alone = await tagger.tagBatch(samples);
  const calls = Array.from({ length: 100 }, (_, i) => tagger.tag(samples[i % samples.length]));
  const batches = [tagger.tagBatch(samples), tagger.scores(samples), tagger.tagBatch(samples)];
  for (const [i, tags] of (await Promise.all(calls)).entries()) assert.deepEqual(tags, alone[i % samples.length]);
  assert.deepEqual((await Promise.all(batches))[2], alone);
});

test("aborting stops batches that run and that wait", async () => {
  const stop = new AbortController();
  const endless = () => failure(tagger.tagBatch(Array(100_000).fill(owl), { signal: stop.signal }));
  const calls = [endless(), endless(), endless()];
  const job = tagger.scores(Array(100_000).fill(owl), { signal: stop.signal });
  const ended = failure(job);
  setTimeout(() => stop.abort("enough"), 100);
  for (const error of await Promise.all([...calls, ended])) {
    assert.deepEqual([error.name, error.code, error.cause], ["AbortError", "cancelled", "enough"]);
  }
  // Two calls run at once: this one waits for those before it, which are far from done.
  // Told by the processor's time, which other programs do not change.
  const before = process.cpuUsage();
  await tagger.tag(owl);
  const { user } = process.cpuUsage(before);
  assert(user < 10e6, `${user / 1e6} s; the pictures would take minutes`);
  assert.equal((await failure(tagger.tag(owl, { signal: stop.signal }))).name, "AbortError");
});

test("jobs are promises", async () => {
  const job = tagger.tagBatch(samples);
  assert(job instanceof Job);
  assert.equal(await job.then((tags) => tags.length), samples.length);
  let ended = 0;
  assert.equal((await job.finally(() => ended++)).length, samples.length);
  assert.equal(ended, 1);
  assert.equal(await tagger.tagBatch(["no.png"]).catch((error) => error.code), "io");
  let last;
  for await (const progress of tagger.withBatchSize(2).tagBatch(samples).progress()) {
    assert(progress.done > (last?.done ?? 0) && progress.total === samples.length);
    last = progress;
  }
  assert.equal(last.done, samples.length);
});
