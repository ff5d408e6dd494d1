// Folder runs: what is written, and how a run that was stopped goes on.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { extname, join } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { TagbrushError, Tagger } from "tagbrush";
import { failure, owl, samples } from "./common.mjs";

const tagger = await Tagger.load("demo");

/** A folder with two pictures, a broken one, and one in a folder below. */
function photos() {
  const folder = join(mkdtempSync(join(tmpdir(), "tagbrush-")), "photos");
  mkdirSync(join(folder, "deep"), { recursive: true });
  const paths = ["a", "b", "deep/c"].map((name, i) => join(folder, name + extname(samples[i])));
  paths.forEach((path, i) => cpSync(samples[i], path));
  writeFileSync(join(folder, "broken.png"), "no image");
  return { folder, paths, out: join(folder, "../out") };
}

const beside = (path, end) => path.slice(0, -extname(path).length) + end;
const lines = (folder) => {
  const text = readFileSync(join(folder, "tags.jsonl"), "utf8");
  return text.trim().split("\n").map((line) => JSON.parse(line));
};

test("captions stand beside their pictures", async () => {
  const { folder, paths } = photos();
  const options = { format: "sidecar", recursive: true, threshold: 0.2, caption: { separator: "; " } };
  const summary = await tagger.tagFolder(folder, { ...options, errors: "return" });
  assert.deepEqual([summary.tagged, summary.skipped], [3, 0]);
  const [{ path, error }] = summary.failures;
  assert.equal(summary.failures.length, 1);
  assert.equal(path, join(folder, "broken.png"));
  assert(error instanceof TagbrushError && error.code === "image_decode");
  const tags = await tagger.tagBatch(paths, { threshold: 0.2 });
  for (const [i, path] of paths.entries()) {
    assert.equal(readFileSync(beside(path, ".txt"), "utf8"), `${tags[i].caption({ separator: "; " })}\n`);
  }
  assert(!existsSync(join(folder, "broken.txt")));
});

test("options reach the core", async () => {
  const { folder, paths, out } = photos();
  const [first, second] = paths;
  rmSync(join(folder, "broken.png"));
  const json = { format: "json", output: pathToFileURL(out), fullNames: true, recursive: null };
  assert.equal((await tagger.tagFolder(pathToFileURL(folder), json)).tagged, 2);
  assert.deepEqual(readdirSync(out), [`a${extname(first)}.json`, `b${extname(second)}.json`]);
  const both = new Set([first, pathToFileURL(second)]);
  assert.equal((await tagger.tagFolder(both, { format: "csv", output: out })).tagged, 2);
  assert.equal(readFileSync(join(out, "tags.csv"), "utf8").split("\n").length, 4);
  writeFileSync(beside(first, ".txt"), "my tag");
  await tagger.tagFolder(first, { format: "sidecar", existing: "append", caption: null });
  assert.match(readFileSync(beside(first, ".txt"), "utf8"), /^my tag, \w/);
});

test("the command line writes the same", async () => {
  const { folder, out } = photos();
  await tagger.tagFolder(folder, { format: "jsonl", output: join(out, "a"), recursive: true, errors: "return" });
  spawnSync("npx", ["tagbrush", "tag", folder, "-r", "-f", "jsonl", "-o", join(out, "b"), "-q"]);
  const [here, there] = ["a", "b"].map((name) => readFileSync(join(out, name, "tags.jsonl"), "utf8"));
  assert.equal(here, there);
  assert.equal(lines(join(out, "a")).length, 4);
});

test("a run goes on where it was aborted", async () => {
  const { out } = photos();
  const many = Array.from({ length: 400 }, (_, i) => join(out, "../many", `${i}.png`));
  mkdirSync(join(out, "../many"));
  for (const path of many) cpSync(owl, path);
  const options = { format: "jsonl", output: out, existing: "skip" };
  const one = tagger.withBatchSize(1);
  const stop = new AbortController();
  const job = one.tagFolder(join(out, "../many"), { ...options, signal: stop.signal });
  const { value } = await job.progress().next();
  assert(value.done >= 1 && value.done < 400 && value.total === 400);
  stop.abort("enough");
  const error = await failure(job);
  assert.deepEqual([error.name, error.code, error.cause], ["AbortError", "cancelled", "enough"]);
  // At once, although the first may still be writing.
  const rest = await one.tagFolder(join(out, "../many"), options);
  assert(rest.skipped >= 1 && rest.skipped < 400, `${rest.skipped} were skipped`);
  assert.deepEqual([rest.tagged + rest.skipped, rest.failures], [400, []]);
  assert.deepEqual(lines(out).map(({ path }) => path).sort(), [...many].sort());
  const again = await one.tagFolder(join(out, "../many"), options);
  assert.deepEqual(again, { tagged: 0, skipped: 400, failures: [] });
  assert.equal((await failure(one.tagFolder(out, { ...options, signal: AbortSignal.abort() }))).name, "AbortError");
});

test("progress counts the pictures that are left", async () => {
  const { folder, paths, out } = photos();
  writeFileSync(beside(paths[0], ".txt"), "my tag");
  const options = { format: "sidecar", recursive: true, existing: "skip", errors: "return" };
  const job = tagger.withBatchSize(1).tagFolder(folder, options);
  let last;
  for await (const progress of job.progress()) last = progress;
  assert.deepEqual([last.done, last.total], [3, 3]);
  const { tagged, skipped } = await job;
  assert.deepEqual([tagged, skipped, existsSync(out)], [2, 1, false]);
});

test("failures are thrown once everything is written", async () => {
  const { folder, out } = photos();
  const error = await failure(tagger.tagFolder(folder, { format: "sidecar", output: out, recursive: true }));
  assert.deepEqual([error.code, error.context.file], ["image_decode", join(folder, "broken.png")]);
  assert.deepEqual(readdirSync(out).sort(), ["a.txt", "b.txt", "deep"]);
  assert.equal((await failure(tagger.tagFolder(join(out, "none"), { format: "sidecar" }))).code, "io");
});

test("wrong calls write nothing", async () => {
  const { folder } = photos();
  const before = readdirSync(folder, { recursive: true });
  const wrong = [
    [undefined, "format", /sidecar, json, jsonl, csv/],
    [{}, "format", /sidecar, json, jsonl, csv/],
    [{ format: "text" }, "format", /known: sidecar, json, jsonl, csv/],
    [{ format: 3 }, "format", /a string/],
    [{ format: "json", existing: "keep" }, "existing", /known: overwrite, skip, append/],
    [{ format: "json", recursive: 1 }, "recursive", /true or false/],
    [{ format: "json", output: 3 }, "output", /a path/],
    [{ format: "csv" }, undefined, /needs a folder/],
    [{ format: "sidecar", threshold: -1 }, "threshold", /-1/],
    [{ format: "sidecar", recursiv: true }, "recursiv", /known: threshold.*recursive, existing/],
    [{ format: "sidecar", caption: { seperator: " " } }, "seperator", /known: separator/],
    [{ format: "sidecar", caption: ", " }, "caption", /an object/],
    [{ format: "sidecar", errors: "ignore" }, "errors", /"throw"/],
    [{ format: "sidecar", signal: 3 }, "signal", /AbortSignal/],
  ];
  for (const [options, field, message] of wrong) {
    const error = await failure(tagger.tagFolder(folder, options));
    assert.equal(error.code, "invalid_input", error.stack);
    if (field) assert.equal(error.context.field, field, error.message);
    assert.match(error.message, message);
  }
  for (const paths of [3, [3], undefined, new URL("http://example.org")]) {
    assert.equal((await failure(tagger.tagFolder(paths, { format: "json" }))).context.field, "paths");
  }
  assert.deepEqual(readdirSync(folder, { recursive: true }), before);
});
