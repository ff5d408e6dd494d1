// Pictures in every form, in and out.

import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { inspect } from "node:util";
import { Image, TagbrushError, Tagger } from "tagbrush";
import { failure, owl, picture, pixels } from "./common.mjs";

const tagger = await Tagger.load("demo");

test("all forms of a picture give the same scores", async () => {
  const bytes = await readFile(owl);
  const image = await Image.open(owl);
  const { data, width, height, channels } = image;
  const padded = new Uint8Array(data.length + 7);
  padded.set(data, 7);
  const forms = [
    owl,
    pathToFileURL(owl),
    bytes,
    new Uint8Array(bytes),
    image,
    { data, width, height, channels },
    { data: padded.subarray(7), width, height, channels },
    { data: new Uint8ClampedArray(data), width, height, channels, format: "raw", size: data.length },
  ];
  const rows = await tagger.scores(forms);
  for (const row of rows) assert.deepEqual(row, rows.row(0));
});

test("pixels may have 1 to 4 channels", async () => {
  const grey = pixels(1);
  const same = (channels, spread) => ({ ...grey, channels, data: Uint8Array.from([...grey.data].flatMap(spread)) });
  const rows = await tagger.scores([
    grey,
    same(2, (g) => [g, 255]),
    same(3, (g) => [g, g, g]),
    same(4, (g) => [g, g, g, 255]),
  ]);
  for (const row of rows) assert.deepEqual(row, rows.row(0));
});

test("bytes may change once a call has returned", async () => {
  const given = pixels();
  const bytes = await readFile(owl);
  const [first, second] = await tagger.scores([given, bytes]);
  const job = tagger.scores([given, bytes]);
  given.data.fill(0);
  bytes.fill(0);
  assert.deepEqual([...(await job)], [first, second]);
});

test("what is no picture is refused", async () => {
  const wrong = [
    3,
    null,
    undefined,
    {},
    [owl],
    new URL("https://example.org/a.png"),
    new Float32Array(12),
    { data: new Float32Array(12), width: 2, height: 2, channels: 3 },
    { data: new Uint8Array(12), width: 2, height: 2 },
    { data: new Uint8Array(12), width: 2.5, height: 2, channels: 3 },
    { data: new Uint8Array(12), width: 2, height: 0, channels: 3 },
    { data: new Uint8Array(20), width: 2, height: 2, channels: 5 },
    { data: new Uint8Array(11), width: 2, height: 2, channels: 3 },
    { data: new Uint8Array(0), width: 0xffff_ffff, height: 0xffff_ffff, channels: 4 },
  ];
  for (const image of wrong) {
    const error = await failure(tagger.tag(image));
    assert(error instanceof TagbrushError, inspect(image));
    assert.equal(error.code, "invalid_input", inspect(image));
  }
  const error = await failure(tagger.tagBatch([owl, 3]));
  assert.deepEqual(error.context, { field: "image", index: 1 });
  for (const one of [owl, await readFile(owl), picture, pixels(), 3, null]) {
    assert.equal((await failure(tagger.tagBatch(one))).context.field, "images");
  }
  const [mismatch, good] = await tagger.tagBatch([wrong.at(-2), owl], { errors: "return" });
  assert.deepEqual([mismatch.context.field, good.rating.name], ["data", "general"]);
});

test("an image has pixels", async () => {
  const { data } = pixels();
  assert.deepEqual([picture.width, picture.height, picture.channels], [64, 48, 3]);
  assert.deepEqual(picture.data, data);
  assert.equal(picture.data, picture.data, "made once");
  const image = Image.fromRgb8(64, 48, data);
  image.data.fill(7);
  assert(image.equals(picture), "writing to the copy changes nothing");
  assert(!image.equals(Image.fromRgba8(64, 48, pixels(4).data)) && !image.equals({}));
  assert.equal(inspect(picture), "Image(64 x 48, RGB)");
  assert.throws(() => Image.fromRgb8(64, 49, data), { code: "invalid_input" });
  assert.throws(() => new Image(), /Image.open/);
  assert.deepEqual(Object.keys(await Image.from(pixels(4))), []);
  assert((await Image.from(picture)).equals(picture));
});

test("images are written and read", async () => {
  const folder = await mkdtemp(join(tmpdir(), "tagbrush-"));
  for (const format of ["png", "webp"]) {
    const bytes = await picture.encode(format);
    assert(Buffer.isBuffer(bytes));
    assert((await Image.decode(bytes)).equals(picture));
    await picture.save(join(folder, `a.${format}`));
    assert((await Image.open(pathToFileURL(join(folder, `a.${format}`)))).equals(picture));
  }
  const [small, large] = await Promise.all([20, 95].map((quality) => picture.encode("jpeg", { quality })));
  assert(small.length < large.length && large.equals(await picture.encode("jpg")));
  assert.deepEqual((await readdir(folder)).sort(), ["a.png", "a.webp"]);
  const wrong = [
    [() => picture.encode("gif"), "format"],
    [() => picture.encode("png", { quality: 5 }), "quality"],
    [() => picture.encode("jpeg", { quality: 0 }), "quality"],
    [() => picture.encode("jpeg", { quality: 1.5 }), "quality"],
    [() => picture.encode("jpeg", { qualty: 5 }), "qualty"],
    [() => picture.save(join(folder, "a.gif")), "format"],
    [() => picture.save(3), "path"],
  ];
  for (const [call, field] of wrong) assert.equal((await failure(call)).context.field, field);
  assert.equal((await failure(picture.save(join(folder, "none/a.png")))).code, "io");
  assert.equal((await failure(Image.open("nowhere.png"))).code, "io");
  assert.equal((await failure(Image.decode(Buffer.from("no")))).code, "image_decode");
});
