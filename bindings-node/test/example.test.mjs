// The example: a folder in which pictures get captions.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { copyFile, mkdtemp, open, readdir, readFile, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Tagger } from "tagbrush";
import { owl, samples } from "./common.mjs";

function watcher(...options) {
  const child = spawn(process.execPath, ["examples/watch-captions.mjs", ...options], { timeout: 60_000 });
  child.errors = "";
  child.stderr.on("data", (data) => (child.errors += data));
  child.ended = new Promise((resolve) => child.on("close", resolve));
  child.ready = new Promise((resolve) => child.stdout.once("data", resolve));
  return child;
}

const tagger = await Tagger.load("demo");
const folderOf = () => mkdtemp(join(tmpdir(), "tagbrush-"));

test("every picture gets its caption", async () => {
  const folder = await folderOf();
  for (const sample of samples) await copyFile(sample, join(folder, basename(sample)));
  await writeFile(join(folder, "notes.md"), "no picture");
  await writeFile(join(folder, "owl.txt"), "mine");
  const run = watcher(folder, "--once", "--threshold", "0.5");
  assert.equal(await run.ended, 0, run.errors);
  for (const sample of samples.filter((sample) => sample !== owl)) {
    const caption = await readFile(join(folder, basename(sample).replace(/\.\w+$/, ".txt")), "utf8");
    assert.equal(caption, `${(await tagger.tag(sample, { threshold: 0.5 })).caption()}\n`);
  }
  assert.equal(await readFile(join(folder, "owl.txt"), "utf8"), "mine", "it is newer than its picture");
  assert.equal((await readdir(folder)).length, 2 * samples.length + 1);
  const later = new Date(Date.now() + 5000);
  await utimes(join(folder, "owl.png"), later, later);
  assert.equal(await watcher(folder, "--once").ended, 0);
  assert.match(await readFile(join(folder, "owl.txt"), "utf8"), /owl/);
});

test("a picture that cannot be read is tried again, and then told", async () => {
  const folder = await folderOf();
  await writeFile(join(folder, "broken.png"), "no picture");
  await copyFile(owl, join(folder, "owl.png"));
  const run = watcher(folder, "--once");
  assert.equal(await run.ended, 2);
  assert.match(run.errors, /^broken.png: image_decode: /);
  assert.deepEqual((await readdir(folder)).sort(), ["broken.png", "owl.png", "owl.txt"]);
});

test("what comes later gets its caption once it is whole", async () => {
  const folder = await folderOf();
  const run = watcher(folder);
  await run.ready;
  const bytes = await readFile(owl);
  const file = await open(join(folder, "slow.png"), "w");
  for (let i = 0; i < 6; i++) {
    await file.write(bytes.subarray((i * bytes.length) / 6, ((i + 1) * bytes.length) / 6));
    await sleep(60);
  }
  await file.close();
  for (let i = 0; i < 100 && !(await readdir(folder)).includes("slow.txt"); i++) await sleep(50);
  assert.match(await readFile(join(folder, "slow.txt"), "utf8"), /owl/);
  run.kill("SIGTERM");
  assert.equal(await run.ended, 0, run.errors);
});
