// A program in CommonJS.

const assert = require("node:assert/strict");
const { test } = require("node:test");
const { EditPipeline, TagbrushError, Tagger } = require("tagbrush");

const pixels = { data: new Uint8Array(64 * 64 * 3).fill(90), width: 64, height: 64, channels: 3 };

test("tags and edits", async () => {
  const tagger = await Tagger.load("demo");
  assert.deepEqual(await tagger.tag(pixels), tagger.tagSync(pixels));
  const pipeline = await EditPipeline.load("demo");
  const [edited] = await pipeline.edit(pixels, "make the background red", { seed: 1 });
  assert.deepEqual([edited.image.width, edited.image.height], [64, 64]);
  await assert.rejects(Tagger.load("no such model"), TagbrushError);
});
