// What the tests share: where things are, and small pictures.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Image } from "tagbrush";

/** The repository; the tests run in a folder that has nothing but the packed package. */
export const ROOT = process.env.TAGBRUSH_REPOSITORY;
export const SAMPLES = join(ROOT, "core/demo/images");
export const DEMO_EDITS = join(ROOT, "core/demo/edit/samples");
/** A QwenImageEditPipeline with tiny random networks: what it makes is noise, but of the right kind. */
export const EDIT_MODEL = join(ROOT, "core/tests/goldens/edit-pipeline");
/** An SDXL with tiny random networks, in the folder `model`, and what the reference makes with it. */
export const GENERATE_GOLDENS = join(ROOT, "core/tests/goldens/generate-pipeline");

/** The true tags of the sample pictures, by the name of the file. */
export const expected = JSON.parse(readFileSync(join(SAMPLES, "expected.json")));
export const samples = Object.keys(expected)
  .sort()
  .map((name) => join(SAMPLES, name));
export const owl = join(SAMPLES, "owl.png");

/** Pixels of a gradient. */
export function pixels(channels = 3, width = 64, height = 48) {
  const data = new Uint8Array(width * height * channels);
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      for (let c = 0; c < channels; c++) data[i++] = c === 3 ? 255 : x * 5 + y * 3 + c * 80;
    }
  }
  return { data, width, height, channels };
}

export const picture = Image.fromRgb8(64, 48, pixels().data);

/** The error that a promise or a function fails with. */
export async function failure(promise) {
  let value;
  try {
    value = await (typeof promise === "function" ? promise() : promise);
  } catch (error) {
    return error;
  }
  throw new Error(`expected a failure, got ${value}`);
}
