// A program in CommonJS.

const assert = require("node:assert/strict");
const { join } = require("node:path");
const { test } = require("node:test");
const { EditPipeline, GeneratePipeline, TagbrushError, Tagger } = require("tagbrush");

const pixels = { data: new Uint8Array(64 * 64 * 3).fill(90), width: 64, height: 64, channels: 3 };

test("tags, edits and generates", async () => {
  const tagger = await Tagger.load("demo");
  assert.deepEqual(await tagger.tag(pixels), tagger.tagSync(pixels));
  const pipeline = await EditPipeline.load("demo");
  const [edited] = await pipeline.edit(pixels, "make the background red", { seed: 1 });
  assert.deepEqual([edited.image.width, edited.image.height], [64, 64]);
  const model = join(process.env.TAGBRUSH_REPOSITORY, "core/tests/goldens/generate-pipeline/model");
  const [generated] = await (await GeneratePipeline.load(model)).generate("a cat", { size: [64, 64], steps: 1 });
  assert.deepEqual([generated.image.width, generated.image.height], [64, 64]);
  await assert.rejects(Tagger.load("no such model"), TagbrushError);
});
