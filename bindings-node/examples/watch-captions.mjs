#!/usr/bin/env node
// Writes a caption beside every picture of a folder, and goes on with what is put there later.
//
//   node watch-captions.mjs FOLDER [--model demo] [--threshold 0.35] [--once]
//
// `a.jpg` gets `a.txt`. A caption that is newer than its picture stays. Pictures are tagged once they have kept their
// size for a moment: a file that is still being copied is not a picture yet. What fails is tried again, later each time.
// With `--once` the program ends when every picture has its caption, with status 2 if some have none.

import { watch } from "node:fs";
import { mkdir, readdir, rename, rm, stat, writeFile } from "node:fs/promises";
import { extname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { TagbrushError, Tagger } from "tagbrush";

const PICTURES = new Set([".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif"]);
/** How long a file keeps its size and date before it is taken to be whole. */
const SETTLED_MS = 300;
const TRIES = 4;
/** How many pictures are waited for and tagged at once. */
const AT_ONCE = 8;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    model: { type: "string", default: "demo" },
    threshold: { type: "string", default: "0.35" },
    once: { type: "boolean", default: false },
  },
});
const [folder] = positionals;
if (folder === undefined) {
  console.error("usage: watch-captions.mjs FOLDER [--model MODEL] [--threshold T] [--once]");
  process.exit(1);
}

/** What must be tagged: a set, so that many events of one file are one task. */
const waiting = new Set();
let wake = () => {};
let failed = 0;
const stop = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"]) {
  process.once(signal, () => {
    stop.abort();
    wake();
  });
}

const captionOf = (name) => join(folder, `${name.slice(0, -extname(name).length)}.txt`);

function add(name) {
  if (!PICTURES.has(extname(name).toLowerCase())) return;
  waiting.add(name);
  wake();
}

async function isStale(name) {
  const picture = await stat(join(folder, name)).catch(() => undefined);
  if (!picture?.isFile()) return false;
  const caption = await stat(captionOf(name)).catch(() => undefined);
  return caption === undefined || caption.mtimeMs < picture.mtimeMs;
}

/** Waits until a file keeps its size and date; false if it is gone. */
async function settled(path) {
  for (let last; ; ) {
    const now = await stat(path).catch(() => undefined);
    if (now === undefined) return false;
    const state = `${now.size} ${now.mtimeMs}`;
    if (state === last || Date.now() - now.mtimeMs > SETTLED_MS) return true;
    last = state;
    await sleep(SETTLED_MS);
  }
}

/** Under its name only when it is whole, whatever happens in the middle. */
async function write(path, text) {
  const part = `${path}.part`;
  try {
    await writeFile(part, text);
    await rename(part, path);
  } catch (error) {
    await rm(part, { force: true });
    throw error;
  }
}

/** Names of files that something has happened to, until the program is stopped. */
async function* names() {
  while (!stop.signal.aborted) {
    const [name] = waiting;
    if (name === undefined) {
      if (values.once) return;
      await new Promise((resolve) => {
        wake = resolve;
      });
      continue;
    }
    waiting.delete(name);
    yield name;
  }
}

/** Tags with more tries: a file may be locked, or half written after all. */
async function caption(tagger, name) {
  for (let attempt = 1; ; attempt++) {
    try {
      if (!(await isStale(name)) || !(await settled(join(folder, name)))) return;
      const tags = await tagger.tag(join(folder, name), { threshold: Number(values.threshold), signal: stop.signal });
      await write(captionOf(name), `${tags.caption()}\n`);
      console.log(`${name}: ${tags.size} tags`);
      return;
    } catch (error) {
      if (stop.signal.aborted) return;
      if (attempt === TRIES || !(error instanceof TagbrushError || error.code === "EBUSY")) {
        failed++;
        console.error(`${name}: ${error.code}: ${error.message}`);
        return;
      }
      await sleep(SETTLED_MS * 2 ** (attempt - 1));
    }
  }
}

try {
  await mkdir(folder, { recursive: true });
  const tagger = await Tagger.load(values.model);
  // Watch first, then look: what comes in between is seen twice, and not never.
  const watcher = values.once ? undefined : watch(folder, (_event, name) => name && add(name));
  for (const name of await readdir(folder)) add(name);
  console.log(`watching ${folder}`);
  const running = new Map();
  for await (const name of names()) {
    // One after the other for the same picture, which is looked at again when its turn comes.
    const before = running.get(name) ?? Promise.resolve();
    const task = before.then(() => caption(tagger, name));
    running.set(name, task);
    task.finally(() => running.get(name) === task && running.delete(name)).catch(() => {});
    if (running.size >= AT_ONCE) await Promise.race(running.values());
  }
  await Promise.all(running.values());
  watcher?.close();
} catch (error) {
  if (!stop.signal.aborted) throw error;
}
process.exitCode = failed > 0 ? 2 : 0;
