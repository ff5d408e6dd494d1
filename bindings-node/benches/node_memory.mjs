// Whether memory stays flat: many calls, with what the process holds printed on the way.
//
//   npm run build && node --expose-gc benches/node_memory.mjs [CALLS]

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const { EditPipeline, Image, Tagger } = createRequire(import.meta.url)("..");
const calls = Number(process.argv[2] ?? 10_000);
const bytes = readFileSync(new URL("../../core/demo/images/owl.png", import.meta.url));
const mib = (number) => (number / 2 ** 20).toFixed(1).padStart(7);

async function measure(name, count, call) {
  console.log(name);
  for (let i = 0; i <= count; i++) {
    if (i % (count / 10) === 0) {
      globalThis.gc?.();
      const { rss, heapUsed, external } = process.memoryUsage();
      console.log(
        `${String(i).padStart(7)} calls: ${mib(rss)} MiB resident, ${mib(heapUsed)} heap, ${mib(external)} external`,
      );
    }
    await call();
  }
}

const tagger = await Tagger.load("demo");
const pipeline = await EditPipeline.load("demo");
const picture = await Image.decode(bytes);
await measure("tag", calls, () => tagger.tag(bytes));
await measure("scores of 4", calls / 10, () => tagger.scores([bytes, bytes, picture, picture]));
await measure("failures", calls, () => tagger.tag("nowhere.png").catch(() => {}));
await measure("decode and look at the pixels", calls / 5, async () => (await Image.decode(bytes)).data.length);
await measure("edit", calls / 100, () => pipeline.edit(picture, "make the background red", { preview: true, seed: 1 }));
