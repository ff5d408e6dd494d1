// Pictures from prompts with a tiny random model: the reference's values, order, options, aborting, progress, errors.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { mkdtemp, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { inspect } from "node:util";
import {
  AbortError,
  ASPECT_RATIOS,
  Generated,
  GeneratePipeline,
  performanceLora,
  Prompter,
  TagbrushError,
} from "tagbrush";
import { failure, GENERATE_GOLDENS, picture, pixels } from "./common.mjs";

const MODEL = join(GENERATE_GOLDENS, "model");
const pipeline = await GeneratePipeline.load(MODEL, { dtype: "f32" });
/** One picture at a time. */
const alone = await GeneratePipeline.load(MODEL, { dtype: "f32", batchSize: 1 });
const FAST = { size: [64, 64], steps: 2, seed: 3 };
/** Many times as long as any test waits. */
const LONG = { ...FAST, steps: 1000, n: 100 };

const tensors = readFileSync(join(GENERATE_GOLDENS, "golden.safetensors"));
const header = 8 + Number(tensors.readBigUInt64LE());
const entries = JSON.parse(tensors.subarray(8, header));

/** The bytes of a tensor of the reference. */
function golden(name) {
  const [start, end] = entries[name].data_offsets;
  return new Uint8Array(tensors.subarray(header + start, header + end));
}

/** Seconds until a picture is made: calls wait for each other, so for all before it to end. */
async function untilFree(pipeline) {
  const start = performance.now();
  await pipeline.generate("a", FAST);
  return (performance.now() - start) / 1000;
}

test("pictures are those of the reference", async () => {
  const { pictures } = JSON.parse(readFileSync(join(GENERATE_GOLDENS, "golden.json")));
  for (const [i, { size, denoise, negative, cfg, ...rest }] of pictures.entries()) {
    const { prompt, steps, sampler, scheduler, seed } = rest;
    const [width, height] = size;
    const image = denoise && { data: golden(`start.${i}`), width, height, channels: 3 };
    const how = { steps, sampler, scheduler, seed, size, denoise: denoise ?? 1, guidanceScale: cfg };
    const asDiffusers = { sizeGuidance: false, adaptiveGuidance: 100, sharpness: 0, keepValues: true };
    const options = { ...how, ...asDiffusers, negativePrompt: negative, image };
    const [made] = await pipeline.generate(prompt, options);
    assert.deepEqual([made.image.width, made.image.height], size);
    const expected = new Float32Array(golden(`picture.${i}`).buffer);
    assert.equal(made.values.length, expected.length);
    const off = expected.filter((value, j) => Math.abs(value - made.values[j]) > 1 / 255);
    assert(off.length / expected.length < 0.001, `picture ${i}: ${off.length} values are off`);
    assert.equal(Math.round(made.values[0] * 255), made.image.data[0]);
  }
});

test("the demo model draws what it is asked for", async () => {
  const demo = await GeneratePipeline.load("demo");
  const colours = [
    [
      [216, 52, 56],
      [252, 252, 252],
    ],
    [
      [252, 252, 252],
      [58, 122, 222],
    ],
  ];
  const prompts = ["a red circle on a white background", "蓝色背景上的白色圆形"];
  const made = await demo.generateBatch(prompts, { n: 4, seed: 0 });
  const right = made.filter(({ image: { width, height, data }, request }) => {
    assert.deepEqual([width, height, data.length], [64, 64, 3 * 64 * 64]);
    // Parts of the picture near the colour of the shape, and of the background.
    const [shape, ground] = colours[request].map((colour) => {
      let near = 0;
      for (let i = 0; i < data.length; i += 3) near += colour.every((c, k) => Math.abs(data[i + k] - c) < 45);
      return near / (width * height);
    });
    return shape > 0.04 && shape < 0.4 && ground > 0.4;
  });
  assert(right.length >= 7, `${right.length} of ${made.length}`);
});

test("a batch is its singles in order", async () => {
  const requests = [
    "a cat",
    { prompt: "one\ntwo, (three:1.4)", negativePrompt: "bad" },
    { prompt: "a cat", image: picture, seed: 9n },
  ];
  const batch = await pipeline.generateBatch(new Set(requests), { ...FAST, n: 2 });
  assert.deepEqual(
    batch.map((g) => [g.request, g.variant, g.seed, g.source, g.values]),
    [
      [0, 0, 3],
      [0, 1, 4],
      [1, 0, 3],
      [1, 1, 4],
      [2, 0, 9],
      [2, 1, 10],
    ].map((place, i) => [...place, i < 4 ? undefined : picture, undefined]),
  );
  assert(batch.every((generated) => generated instanceof Generated));
  for (const [i, request] of requests.entries()) {
    const { prompt, ...rest } = i === 0 ? { prompt: request } : request;
    const single = await pipeline.generate(prompt, { ...FAST, n: 2, ...rest, seed: rest.seed ?? 3 });
    for (const j of [0, 1]) assert(single[j].image.equals(batch[2 * i + j].image), `${i}, ${j}`);
  }
  assert(!batch[0].image.equals(batch[1].image));
  assert.deepEqual(await pipeline.generateBatch([], FAST), []);
});

test("a bad request costs no other one its output", async () => {
  const images = [Buffer.from("no image"), { ...pixels(), height: 3 }, "nowhere.png", picture];
  const requests = ["a", "<|endoftext|>", ...images.map((image) => ({ prompt: "b", image }))];
  const options = { ...FAST, n: 2, errors: "return" };
  const outputs = await pipeline.generateBatch(requests, options);
  const codes = ["made", "invalid_input", "image_decode", "invalid_input", "io", "made"];
  assert.deepEqual(
    outputs.map((output) => output.code ?? "made"),
    codes.flatMap((code) => [code, code]),
  );
  assert.deepEqual([outputs[2].context.field, outputs[2].context.request], ["prompt", 1]);
  assert.deepEqual([outputs[6].context.field, outputs[6].context.request], ["data", 3]);
  let i = 0;
  for await (const one of pipeline.generateIter(requests, options)) {
    const other = outputs[i++];
    if (other instanceof TagbrushError) {
      assert.deepEqual([one.code, one.message, one.context], [other.code, other.message, other.context]);
    } else {
      assert(one instanceof Generated && one.image.equals(other.image) && one.source === other.source);
      assert.deepEqual([one.request, one.variant, one.seed], [other.request, other.variant, other.seed]);
    }
  }
  assert.equal(i, 12);
  assert.equal((await failure(pipeline.generateBatch(requests, FAST))).context.request, 1);
  const stream = alone.generateIter(requests, FAST);
  assert((await stream.next()).value instanceof Generated);
  assert.equal((await failure(stream.next())).context.request, 1);
  assert((await stream.next()).done);
});

test("options reach the model", async () => {
  const plain = { ...FAST, guidanceScale: 9, steps: 4 };
  const one = async (options) => (await pipeline.generate("a cat", { ...plain, ...options }))[0].image;
  const image = await one();
  for (const size of ["64x128", [64, 128]]) {
    const { width, height } = await one({ size });
    assert.deepEqual([width, height], [64, 128]);
  }
  const others = [
    { steps: 5 },
    { guidanceScale: 1 },
    { sampler: "euler" },
    { scheduler: "exponential" },
    { clipSkip: 1 },
    { seed: 4 },
    { sizeGuidance: false },
    { sizeGuidance: { positive: 2 } },
    { sizeGuidance: { negative: 0.5 } },
    { adaptiveGuidance: 5 },
    { sharpness: 9 },
    { negativePrompt: "bad" },
    { image: picture },
    { freeu: { b1: 1.5, b2: 1.5, s1: 0.5, s2: 0.5 } },
  ];
  for (const options of others) assert(!(await one(options)).equals(image), inspect(options));
  assert(!(await one({ image: picture, denoise: 0.2 })).equals(await one({ image: picture })));
  assert((await one({ sizeGuidance: { end: 0 } })).equals(await one({ sizeGuidance: false })));
  assert((await one({ sizeGuidance: null, sampler: undefined, image: null })).equals(image));
  const largest = 2n ** 64n - 1n;
  assert.equal((await pipeline.generate("a", { ...FAST, seed: largest }))[0].seed, largest);
});

test("names are those of the core", async () => {
  const folder = dirname(createRequire(import.meta.url).resolve("tagbrush/package.json"));
  const types = readFileSync(join(folder, "dist/options.d.ts"), "utf8");
  for (const [field, type] of [
    ["sampler", "Sampler"],
    ["scheduler", "Scheduler"],
  ]) {
    const error = await failure(pipeline.generate("a", { ...FAST, [field]: "none" }));
    assert.equal(error.context.field, field);
    const [, union] = new RegExp(`type ${type} =(.*?);`, "s").exec(types);
    const [, known] = /known: ([^()]*) \(/.exec(error.message);
    assert.deepEqual(
      [...union.matchAll(/"([^"]+)"/g)].map(([, name]) => name),
      known.split(", "),
    );
  }
});

test("wrong options and requests are refused by name", async () => {
  const wrong = [
    [{ cfg: 3 }, "cfg"],
    [{ preview: 1 }, "preview"],
    [{ n: 0 }, "n"],
    [{ size: [60, 64] }, "width"],
    [{ size: "auto" }, "size"],
    [{ size: [64] }, "size"],
    [{ steps: 0 }, "steps"],
    [{ guidanceScale: "4" }, "guidanceScale"],
    [{ guidanceScale: -1 }, "guidanceScale"],
    [{ clipSkip: 0 }, "clipSkip"],
    [{ denoise: 0 }, "denoise"],
    [{ denoise: "1" }, "denoise"],
    [{ seed: -1 }, "seed"],
    [{ sizeGuidance: true }, "sizeGuidance"],
    [{ sizeGuidance: { start: 1 } }, "sizeGuidance"],
    [{ sizeGuidance: { positive: 0 } }, "sizeGuidance.positive"],
    [{ adaptiveGuidance: Number.NaN }, "adaptiveGuidance"],
    [{ sharpness: 31 }, "sharpness"],
    [{ errors: "ignore" }, "errors"],
    [{ signal: 3 }, "signal"],
  ];
  for (const [options, field] of wrong) {
    const error = await failure(pipeline.generateBatch(["a"], options));
    assert.deepEqual([error.code, error.context.field], ["invalid_input", field], error.message);
    assert.throws(() => pipeline.generateIter(["a"], options), { code: "invalid_input", context: { field } });
  }
  const requests = [
    [{ prompt: 3 }, "prompt"],
    [{ prompt: "a", negativePrompt: 3 }, "negativePrompt"],
    [{ prompt: "a", negative: "" }, "negative"],
    [{ prompt: "a", image: 3 }, "image"],
    [{ prompt: "a", seed: -1 }, "seed"],
    [null, "requests"],
    [3, "requests"],
  ];
  for (const [request, field] of requests) {
    assert.equal((await failure(pipeline.generateBatch(["b", request], FAST))).context.field, field);
    assert.throws(
      () => pipeline.generateIter(["b", request], FAST),
      (error) => error.context.field === field,
    );
  }
  assert.equal((await failure(pipeline.generateBatch("a cat"))).context.field, "requests");
  assert.equal((await failure(pipeline.generate("a", { ...FAST, errors: "return" }))).context.field, "errors");
});

test("progress tells every step", async () => {
  const job = pipeline.generate("a", { ...FAST, steps: 40, n: 2 });
  let done = 0;
  for await (const progress of job.progress()) {
    assert(progress.done >= done && progress.total === 80 && progress.secondsLeft >= 0);
    assert.deepEqual(progress.previews, []);
    done = progress.done;
  }
  assert.equal(done, 80);
  assert.equal((await job).length, 2);
});

test("previews are of every output", async () => {
  const job = pipeline.generateBatch(["a", "b"], { ...FAST, steps: 40, preview: true });
  const steps = new Map();
  for await (const { previews } of job.progress()) {
    for (const { output, step, steps: all, image } of previews) {
      assert(step > (steps.get(output) ?? 0) && all === 40);
      assert.deepEqual([image.width, image.height, image.data.length], [8, 8, 192]);
      steps.set(output, step);
    }
  }
  assert.deepEqual(
    [...steps].sort(),
    [0, 1].map((output) => [output, 40]),
  );
  assert.equal((await job).length, 2);
  assert.throws(() => pipeline.generateIter(["a"], { ...FAST, preview: true }), { context: { field: "preview" } });
});

test("a model says what goes with it", async () => {
  const demo = await GeneratePipeline.load("demo");
  assert.deepEqual([demo.defaultStyles, demo.needsPerformanceLoras], [[], false]);
  assert.deepEqual([pipeline.defaultStyles, pipeline.needsPerformanceLoras], [undefined, true]);
});

test("files say which styles were around a prompt", async () => {
  const { requests } = new Prompter().prepare("a cat", { negativePrompt: "bad", styles: ["Fooocus Sharp"], seed: 5 });
  const own = { prompt: "a cat, sharp", unstyled: { prompt: "a cat", styles: ["Mine"] } };
  const made = await pipeline.generateBatch([...requests, own, "a cat"], FAST);
  const told = await Promise.all(made.map(async (one) => JSON.parse(await one.metadata())));
  assert.deepEqual(
    told.map(({ prompt, negative_prompt, styles }) => [prompt, negative_prompt, styles]),
    [
      ["a cat", "bad", "['Fooocus Sharp']"],
      ["a cat", "", "['Mine']"],
      ["a cat", "", "[]"],
    ],
  );
  assert.deepEqual(told[1].full_prompt, ["a cat, sharp"]);
  for (const unstyled of [3, {}, { prompt: "a", styles: "Mine" }, { prompt: "a", negativePrompt: 3 }]) {
    const error = await failure(pipeline.generateBatch([{ prompt: "a", unstyled }], FAST));
    assert.deepEqual([error.code, error.context.field, error.context.request], ["invalid_input", "unstyled", 0]);
  }
});

test("sizes are told", () => {
  assert.deepEqual(pipeline.defaultSize, [1152, 896]);
  assert.equal(ASPECT_RATIOS.length, 26);
  assert(ASPECT_RATIOS.some((size) => `${size}` === `${pipeline.defaultSize}`));
});

test("aborting really stops the work", async () => {
  const stop = new AbortController();
  const job = alone.generate("a", { ...LONG, signal: stop.signal });
  const { value } = await job.progress().next();
  assert.equal(value.total, 100_000);
  stop.abort("enough");
  const error = await failure(job);
  assert(error instanceof AbortError);
  assert.deepEqual([error.name, error.code, error.cause], ["AbortError", "cancelled", "enough"]);
  assert((await untilFree(alone)) < 5);
  assert.equal((await failure(alone.generate("a", { ...LONG, signal: AbortSignal.abort() }))).name, "AbortError");
});

test("each comes as soon as it is made, and leaving the loop stops the work", async () => {
  const took = [];
  const start = performance.now();
  for await (const { request } of alone.generateIter(Array(5).fill("a"), { ...FAST, steps: 50 })) {
    took[request] = performance.now() - start;
  }
  assert(took[0] < took[4] / 2, `${took}`);
  for await (const { image } of alone.generateIter(["a"], { ...LONG, steps: 100 })) {
    assert.equal(image.width, 64);
    break;
  }
  assert((await untilFree(alone)) < 5);
  const stop = new AbortController();
  const stream = alone.generateIter(["a"], { ...LONG, signal: stop.signal });
  setTimeout(() => stop.abort(), 50);
  assert.equal((await failure(stream.next())).name, "AbortError");
  assert((await untilFree(alone)) < 5);
});

test("loading", async () => {
  for (const missing of ["demon", join(MODEL, "none.safetensors")]) {
    assert.equal((await failure(GeneratePipeline.load(missing))).code, "model_not_found");
  }
  assert.equal((await failure(GeneratePipeline.load(MODEL, { dtype: "f16" }))).code, "unsupported");
  const full = await failure(GeneratePipeline.load(MODEL, { maxMemory: 1 }));
  assert.deepEqual([full.code, full.context.field], ["out_of_memory", "maxMemory"]);
  assert.equal((await GeneratePipeline.load()).name, "demo");
  assert.equal((await failure(GeneratePipeline.load(MODEL, { signal: AbortSignal.abort() }))).name, "AbortError");
  assert.throws(() => new GeneratePipeline(), /GeneratePipeline.load/);
  assert.deepEqual([pipeline.name, pipeline.device, pipeline.dtype], [MODEL, "cpu", "f32"]);
  assert.equal(inspect(pipeline), `GeneratePipeline(${JSON.stringify(MODEL)}, cpu, f32)`);
});

test("LoRAs", async () => {
  const other = await GeneratePipeline.load(MODEL, { dtype: "f32" });
  const made = async (loras) => {
    await other.setLoras(loras);
    return [...(await other.generate("a red cat", FAST))[0].image.data];
  };
  const file = join(GENERATE_GOLDENS, "../generate-lora/lora_kohya.safetensors");
  const plain = await made([]);
  const strong = await made([file]);
  assert.notDeepEqual(strong, plain);
  assert.notDeepEqual(await made([{ file, scale: 0.5 }]), strong);
  assert.deepEqual(await made([]), plain);
  const wrong = [
    [["none.safetensors"], "model_not_found"],
    [[join(MODEL, "vae/diffusion_pytorch_model.safetensors")], "model_invalid"],
    ["a.safetensors", "invalid_input"],
  ];
  for (const [loras, code] of wrong) assert.equal((await failure(other.setLoras(loras))).code, code);
});

test("another autoencoder", async () => {
  const own = join(MODEL, "vae/diffusion_pytorch_model.safetensors");
  const bytes = readFileSync(own);
  const start = 8 + Number(bytes.readBigUInt64LE());
  // The same weights with other signs; each has 16 bits.
  for (let at = start; at < bytes.length; at += 2) bytes[at + 1] ^= 0x80;
  const mine = join(await mkdtemp(join(tmpdir(), "tagbrush-")), "mine.safetensors");
  await writeFile(mine, bytes);
  const [plain] = await pipeline.generate("a", FAST);
  for (const [vae, name] of [
    [own, "diffusion_pytorch_model"],
    [pathToFileURL(mine), "mine"],
  ]) {
    const other = await GeneratePipeline.load(MODEL, { dtype: "f32", vae });
    const [made] = await other.generate("a", FAST);
    assert.equal(made.image.equals(plain.image), vae === own);
    assert.equal(JSON.parse(await made.metadata()).vae, name);
  }
  assert.equal((await failure(GeneratePipeline.load(MODEL, { vae: "none.safetensors" }))).code, "model_not_found");
});

test("performances", async () => {
  const small = { size: [64, 64], seed: 3 };
  const [set] = await pipeline.generate("a", { performance: "Speed", ...small });
  const [unset] = await pipeline.generate("a", small);
  assert(set.image.equals(unset.image));
  assert.equal(performanceLora("Quality"), undefined);
  const { file, scale } = performanceLora("Lightning");
  assert.equal(scale, 1);
  const error = await failure(pipeline.generate("a", { performance: "Lightning", ...small }));
  assert.equal(error.code, "model_not_found");
  assert.ok(error.message.includes(file), error.message);
  assert.equal((await failure(pipeline.generate("a", { performance: "Turbo" }))).code, "invalid_input");
  assert.throws(() => performanceLora("Turbo"), { code: "invalid_input" });
});

/** The texts of a PNG by their keywords, and the texts of EXIF in a JPEG or WebP by their numbers. */
function texts(bytes) {
  const found = {};
  if (bytes[0] === 0x89) {
    for (let at = 8; at < bytes.length; at += 12 + bytes.readUInt32BE(at)) {
      const kind = bytes.toString("latin1", at + 4, at + 8);
      const data = bytes.subarray(at + 8, at + 8 + bytes.readUInt32BE(at));
      const end = data.indexOf(0);
      if (kind === "tEXt") found[data.toString("latin1", 0, end)] = data.toString("latin1", end + 1);
      // No compression, no language, no translated keyword.
      if (kind === "iTXt") found[data.toString("latin1", 0, end)] = data.toString("utf8", end + 5);
    }
    return found;
  }
  const start = bytes.indexOf("MM\0*");
  if (start < 0) return found;
  const tiff = bytes.subarray(start);
  for (let i = 0; i < tiff.readUInt16BE(8); i++) {
    const [length, place] = [14, 18].map((at) => tiff.readUInt32BE(12 * i + at));
    found[tiff.readUInt16BE(12 * i + 10)] = tiff.toString("utf8", place, place + length - 1);
  }
  return found;
}

test("files say how they were made", async () => {
  const folder = await mkdtemp(join(tmpdir(), "tagbrush-"));
  const [made] = await pipeline.generate("a 红 cat", { ...FAST, negativePrompt: "bad" });
  const told = JSON.parse(await made.metadata());
  assert.deepEqual([told.prompt, told.seed, told.steps, told.base_model], ["a 红 cat", "3", 2, "model"]);
  assert.match(await made.metadata("a1111"), /^a 红 cat\nNegative prompt: bad\nSteps: 2, Sampler: DPM\+\+ 2M SDE Karras, Seed: 3/);
  for (const metadata of ["fooocus", "a1111"]) {
    const text = await made.metadata(metadata);
    for (const end of ["png", "jpg", "webp"]) {
      const file = join(folder, `${metadata}.${end}`);
      await made.save(file, { metadata });
      const bytes = readFileSync(file);
      const { parameters, fooocus_scheme, [0x9286]: comment, [0x927c]: note } = texts(bytes);
      assert.deepEqual([parameters ?? comment, fooocus_scheme ?? note], [text, metadata], end);
      assert.deepEqual(await made.encode(end, { metadata }), bytes);
    }
  }
  const low = await made.encode("jpeg", { quality: 10, metadata: "a1111" });
  assert(low.length < (await made.encode("jpeg", { metadata: "a1111" })).length && texts(low)[0x9286]);
  // Nothing is said unless it is asked for.
  for (const options of [undefined, { metadata: undefined }, { metadata: null }]) {
    assert.deepEqual(await made.encode("png", options), await made.image.encode("png"));
  }
  await made.save(join(folder, "plain.png"));
  assert.deepEqual(texts(readFileSync(join(folder, "plain.png"))), {});
  for await (const one of pipeline.generateIter(["a"], FAST)) assert.equal(JSON.parse(await one.metadata()).prompt, "a");
  const wrong = [
    [() => made.metadata("a111"), "metadata"],
    [() => made.metadata(3), "metadata"],
    [() => made.encode("png", { metadata: "none" }), "metadata"],
    [() => made.encode("png", { quality: 3, metadata: "a1111" }), "quality"],
    [() => made.encode("gif", { metadata: "a1111" }), "format"],
    [() => made.encode("png", { meta: "a1111" }), "meta"],
    [() => made.save("a.png", { metadata: 3 }), "metadata"],
    [() => made.save("a.png", { quality: 3 }), "quality"],
  ];
  for (const [call, field] of wrong) {
    const error = await failure(call());
    assert.deepEqual([error.code, error.context.field], ["invalid_input", field], error.message);
  }
});

test("prompts are prepared", async () => {
  const folder = await mkdtemp(join(tmpdir(), "tagbrush-"));
  await writeFile(join(folder, "color.txt"), "red\ngreen\n");
  await writeFile(join(folder, "Film.safetensors"), "");
  const prompter = new Prompter({ wildcards: folder, loras: [folder] });
  assert.deepEqual(prompter.styleNames.slice(0, 2), ["Random Style", "Fooocus Enhance"]);
  const how = { negativePrompt: "bad.", n: 2, seed: 5, wildcardsInOrder: true };
  assert.deepEqual(prompter.prepare("a __color__ [[cat, dog]], <lora:Film:0.5>", how), {
    requests: [
      ["a red cat", 5],
      ["a green dog", 6],
    ].map(([prompt, seed]) => {
      const texts = { prompt, negativePrompt: "bad" };
      return { ...texts, seed, asIs: true, unstyled: { ...texts, styles: [] } };
    }),
    loras: [{ file: join(folder, "Film.safetensors"), scale: 0.5 }],
  });
  const wrong = [
    ["a", { styles: ["Moon"] }, "invalid_input"],
    ["a", { styles: ["Fooocus V2"] }, "unsupported"],
    ["a", { n: 0 }, "invalid_input"],
    ["<lora:Sun:1>", {}, "model_not_found"],
  ];
  for (const [prompt, options, code] of wrong) assert.throws(() => prompter.prepare(prompt, options), { code });
  assert.throws(() => new Prompter({ styles: folder }), { code: "invalid_input" });
});

test("refiners and masks", async () => {
  const small = { ...FAST, guidanceScale: 1 };
  const refiner = join(GENERATE_GOLDENS, "../generate-refiner/model");
  const refined = await GeneratePipeline.load(MODEL, { dtype: "f32", refiner });
  const one = async (options) => (await refined.generate("a", { ...small, ...options }))[0].image;
  assert(!(await one({ refinerSwitch: 1 })).equals(await one({ refinerSwap: "separate" })));
  assert.equal((await failure(refined.generate("a", { ...small, refinerSwap: "vae" }))).code, "unsupported");
  for (const wrong of [{ mask: picture }, { image: picture, mask: pixels(3, 9, 9) }, { outpaint: { left: 9 } }]) {
    assert.equal((await failure(refined.generate("a", { ...small, ...wrong }))).code, "invalid_input", inspect(wrong));
  }
});

test("pictures are made larger", async () => {
  const upscaler = join(GENERATE_GOLDENS, "../generate-upscale/fooocus.bin");
  const larger = await GeneratePipeline.load(MODEL, { dtype: "f32", upscaler });
  const plain = await GeneratePipeline.load(MODEL, { dtype: "f32" });
  assert.deepEqual([larger.hasUpscaler, plain.hasUpscaler], [true, false]);
  const small = { image: pixels(3, 1000, 520), steps: 1, guidanceScale: 1, seed: 3 };
  const [fast] = await larger.generate("a", { ...small, upscale: "fast 2" });
  assert.deepEqual([fast.image.width, fast.image.height, fast.notes], [2000, 1040, []]);
  const [resampled] = await plain.generate("a", { ...small, upscale: "Upscale (Fast 2x)" });
  assert(!resampled.image.equals(fast.image));
  assert.match(resampled.notes[0], /resampling/);
  // Too small for the model, whose pictures have about a megapixel.
  const tiny = { ...small, image: pixels(3, 16, 16), upscale: 1.5, upscaleStrength: 0.5 };
  const [made] = await plain.generate("a", tiny);
  assert.deepEqual([made.image.width, made.image.height], [1024, 1024]);
  for (const wrong of [{ upscale: 9 }, { upscale: "large" }, { upscale: [2] }, { upscale: 2, image: null }]) {
    assert.equal((await failure(plain.generate("a", { ...small, ...wrong }))).code, "invalid_input", inspect(wrong));
  }
  assert.equal((await failure(GeneratePipeline.load(MODEL, { upscaler: "none.pth" }))).code, "model_not_found");
});

test("the inpaint engine makes parts", async () => {
  const files = ["head.pth", "patch.fooocus.patch"].map((name) => join(GENERATE_GOLDENS, "../generate-inpaint", name));
  const pipeline = await GeneratePipeline.load(MODEL, { dtype: "f32" });
  const mask = { data: new Uint8Array(64 * 64 * 3).fill(255, 64 * 32 * 3), width: 64, height: 64, channels: 3 };
  const part = { image: pixels(3, 64, 64), mask, steps: 1, guidanceScale: 1, seed: 3 };
  const make = async () => (await pipeline.generate("a", part))[0].image;
  const plain = await make();
  await pipeline.setInpaintEngine(files);
  assert(pipeline.hasInpaintEngine && !(await make()).equals(plain));
  await pipeline.setInpaintEngine(null);
  assert(!pipeline.hasInpaintEngine && (await make()).equals(plain));
  assert.equal((await failure(pipeline.setInpaintEngine([files[0], files[0]]))).code, "model_invalid");
  assert.equal((await failure(pipeline.setInpaintEngine(files[0]))).code, "invalid_input");
  assert.equal((await failure(GeneratePipeline.load(MODEL, { inpaintHead: files[0] }))).code, "invalid_input");
});
