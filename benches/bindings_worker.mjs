// Runs a tagger from Node for `bindings.py`; arguments, and the commands `tag` and `tags`, as of `worker.rs`.

import { readFileSync, writeFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { Tagger } from "../bindings-node/dist/index.mjs";

const [model, dtype] = process.argv.slice(2);
const tagger = await Tagger.load(model, { dtype });
const files = (list) => readFileSync(list, "utf8").split("\n").filter(Boolean);

console.log(`ready ${tagger.device}`);
for await (const line of createInterface({ input: process.stdin })) {
  const [command, list, ...words] = line.split(" ");
  if (command === "tag") {
    const [paths, batch, threshold] = [files(list), ...words.map(Number)];
    const sized = tagger.withBatchSize(batch);
    const start = performance.now();
    await sized.tagBatch(paths, { threshold });
    console.log((performance.now() - start) / 1000);
  } else if (command === "tags") {
    const [threshold, file] = words;
    const tags = await tagger.tagBatch(files(list), { threshold: Number(threshold) });
    writeFileSync(file, tags.map((answer) => `${JSON.stringify(answer)}\n`).join(""));
    console.log("written");
  } else {
    throw new Error(`unknown command ${line}`);
  }
}
