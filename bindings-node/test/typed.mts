// Uses of the types, correct and wrong; `tsc` reads this, nobody runs it.

import { readFile } from "node:fs/promises";
import {
  AbortError,
  ASPECT_RATIOS,
  type CaptionOptions,
  type Edited,
  EditPipeline,
  EditRequest,
  type ErrorCode,
  type Generated,
  type GenerateOptions,
  GeneratePipeline,
  type GenerateRequest,
  Image,
  type ImageLike,
  type Job,
  type Label,
  type MetadataScheme,
  type Preview,
  type Progress,
  pull,
  type Rows,
  type Sampler,
  type Scheduler,
  type Summary,
  type Tag,
  TagbrushError,
  Tagger,
  type TagOptions,
  type Tags,
} from "tagbrush";

const tagger: Tagger = await Tagger.load("demo", { device: "cpu", dtype: "bf16", cacheDir: new URL("file:///a") });
const options: TagOptions = { threshold: 0.3, categoryThresholds: { general: 0.3, 4: 0.8 }, order: "score" };
const images: ImageLike[] = ["a.png", new URL("file:///a.png"), await readFile("a.png"), await Image.open("b.png")];
images.push({ data: new Uint8Array(3), width: 1, height: 1, channels: 3 });

const tags: Tags = await tagger.tag("a.png", options);
const rating: Tag | undefined = tags.rating;
const names: string[] = [...tags].map((tag) => tag.name);
const caption: CaptionOptions = { rating: "first", replace: { a: "b" } };
const line: string = tags.caption(caption);
const all: Tags[] = await tagger.tagBatch(images, { ...options, signal: AbortSignal.timeout(5) });
const some: (Tags | TagbrushError)[] = await tagger.tagBatch(images, { errors: "return" });
const job: Job<Tags[]> = tagger.tagBatch(new Set(images));
const promise: Promise<Tags[]> = job;
for await (const progress of job.progress()) {
  const { done, total }: Progress = progress;
  const left: number | undefined = progress.secondsLeft;
  console.log(done, total, left);
}
for await (const tags of tagger.tagIter(images)) console.log(tags.rating);
for await (const tags of tagger.tagIter(images, { errors: "return" })) {
  // @ts-expect-error it may be an error
  console.log(tags.rating);
  if (tags instanceof TagbrushError) {
    const code: ErrorCode = tags.code;
    const index: number | undefined = tags.context.index;
    console.log(code, index);
  } else console.log(tags.rating);
}
const rows: Rows = await tagger.scores(images);
const row: Float32Array = rows.row(0);
const separate: (Float32Array | TagbrushError)[] = await tagger.embed(images, { errors: "return" });
const selected: Tags = tagger.select(row, options);
const several: Tags[] = tagger.select(rows);
several.push(tagger.select([0.1, 0.9]), ...tagger.select([row, row]));
const run: Job<Summary> = tagger.tagFolder(["photos", new URL("file:///a")], {
  format: "jsonl",
  output: "out",
  caption,
  errors: "return",
  ...options,
});
const failed: TagbrushError | undefined = (await run).failures[0]?.error;
const labels: readonly Label[] = tagger.labels;

const pipeline = await EditPipeline.load("demo", { maxMemory: 2 ** 35 });
const editing = pipeline.edit(["a.png", "b.png"], "red", { n: 2, seed: 5n, size: [64, 64], preview: true });
for await (const { previews } of editing.progress()) {
  const preview: Preview | undefined = previews[0];
  console.log(preview?.image.data);
}
const edited: Edited[] = await editing;
const seed: number | bigint | undefined = edited[0]?.seed;
const requests: EditRequest[] = EditRequest.forEach(images, "at night");
requests.push({ images: "a.png", prompt: "red", negativePrompt: null });
await pipeline.editBatch(requests, { size: "64x32", preset: "lightning-4" });
for await (const { image } of pipeline.editIter(requests, { n: 2 })) console.log(image.width);
for await (const output of pipeline.editIter(new Set(requests), { errors: "return" })) {
  // @ts-expect-error it may be an error
  console.log(output.image);
}
pipeline.check(requests, { size: [64, 64], errors: "return" });
const area: number = pipeline.defaultArea;
await pipeline.setLoras(["a.safetensors", { file: "b.safetensors", scale: 0.5 }]);
const generator = await GeneratePipeline.load(new URL("file:///model.safetensors"), { dtype: "bf16", batchSize: 2 });
const sampler: Sampler = "euler";
const scheduler: Scheduler = "karras";
const [width, height]: readonly [number, number] = ASPECT_RATIOS[0] ?? generator.defaultSize;
await generator.generate("a cat", { size: [width, height], preview: true });
const how: GenerateOptions = { n: 2, size: [64, 64], steps: 4, sampler, scheduler, sizeGuidance: { end: 0.5 }, seed: 5n };
const generated: Generated[] = await generator.generate("a cat", { ...how, negativePrompt: "bad", image: "a.png" });
const start: ImageLike | undefined = generated[0]?.source;
const scheme: MetadataScheme = "a1111";
const text: string | undefined = await generated[0]?.metadata(scheme);
const bytes: Buffer | undefined = await generated[0]?.encode("jpeg", { quality: 90, metadata: scheme });
await generated[0]?.save(new URL("file:///a.png"), { metadata: "fooocus" });
const prompts: (string | GenerateRequest)[] = ["a cat", { prompt: "a dog", image: images[0], seed: 3 }];
const generating: Job<Generated[]> = generator.generateBatch(prompts, { size: "64x64", sizeGuidance: false });
for await (const { image } of generator.generateIter(new Set(prompts), how)) console.log(image.width);
for await (const output of generator.generateIter(prompts, { errors: "return" })) {
  // @ts-expect-error it may be an error
  console.log(output.image);
}
const folder: string = await pull("wd-vit-tagger-v3", { signal: new AbortController().signal });
const aborted: TagbrushError = new AbortError("why");

// @ts-expect-error no such option
await tagger.tag("a.png", { treshold: 0.3 });
// @ts-expect-error a string is no threshold
await tagger.tag("a.png", { threshold: "0.3" });
// @ts-expect-error one picture has no others to save
await tagger.tag("a.png", { errors: "return" });
// @ts-expect-error a number is no picture
await tagger.tag(3);
// @ts-expect-error pixels need their channels
await tagger.tag({ data: new Uint8Array(3), width: 1, height: 1 });
// @ts-expect-error no such order
await tagger.tagBatch(images, { order: "random" });
// @ts-expect-error what waits cannot be aborted
tagger.tagSync("a.png", { signal: new AbortController().signal });
// @ts-expect-error a batch may have errors
const wrong: Tags[] = await tagger.tagBatch(images, { errors: "return" });
// @ts-expect-error options of edit models
await Tagger.load("demo", { maxMemory: 5 });
// @ts-expect-error no such number format
await Tagger.load("demo", { dtype: "int4" });
// @ts-expect-error models are loaded
new Tagger();
// @ts-expect-error images are opened
new Image();
// @ts-expect-error a prompt is needed
await pipeline.edit("a.png");
// @ts-expect-error no such size
await pipeline.edit("a.png", "red", { size: "large" });
// @ts-expect-error a seed is a number
await pipeline.edit("a.png", "red", { seed: "1" });
// @ts-expect-error no such sampler
await generator.generate("a cat", { sampler: "eular" });
// @ts-expect-error no such notation
await generated[0]?.save("a.png", { metadata: "a111" });
// @ts-expect-error previews are for jobs
generator.generateIter(["a cat"], { preview: true });
// @ts-expect-error a request needs a prompt
await generator.generateBatch([{ image: "a.png" }]);
// @ts-expect-error models are loaded
new GeneratePipeline();
// @ts-expect-error no such format
await (await Image.open("a.png")).encode("gif");
// @ts-expect-error a form is needed
await tagger.tagFolder("photos", { recursive: true });
// @ts-expect-error no such form
await tagger.tagFolder("photos", { format: "text" });
// @ts-expect-error there is nothing to abort
tagger.select(row, { signal: new AbortController().signal });
// @ts-expect-error previews are for jobs
pipeline.editIter(requests, { preview: true });
// @ts-expect-error nothing can be assigned
tags.ratings = [];

console.log(selected, failed, area, start, text, bytes, await generating);
console.log(rating, names, line, all, some, promise, row, separate, labels, seed, folder, aborted, wrong);
