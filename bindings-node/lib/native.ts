// The compiled half of the package: finding its file, and what is in it. Nobody but this folder sees it.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { platformTriple } from "./triple";

/** A failure, as the compiled half hands it over in the place of a value. */
export interface Failure {
  code: string;
  message: string;
  context: [string, string][];
  causes: string[];
}

export type Answer<T> = T | Failure;

export interface NativeProgress {
  done: number;
  total?: number;
  secondsLeft?: number;
  previews: { output: number; step: number; steps: number; image: NativeImage }[];
}

/** What a listener hears: any number of `progress` and `item`, then one of the others. */
export interface NativeEvent<T, I = never> {
  progress?: NativeProgress;
  item?: I;
  value?: T;
  failure?: Failure;
}

export type Listener<T, I = never> = (event: NativeEvent<T, I>) => void;

export interface Running {
  cancel(): void;
}

export type Options = object | undefined;

export type NativeInput =
  | string
  | Uint8Array
  | NativeImage
  | { data: Uint8Array; width: number; height: number; channels: number };

export interface NativeImage {
  count(): void;
  readonly width: number;
  readonly height: number;
  readonly hasAlpha: boolean;
  pixels(): Uint8Array;
  equals(other: NativeImage): boolean;
  encode(format: string, quality: number | undefined, listener: Listener<Buffer>): Answer<Running>;
  save(path: string, listener: Listener<undefined>): Answer<Running>;
}

export interface NativeTag {
  name: string;
  score: number;
  category: number;
  index: number;
}

export interface NativeTags {
  ratings: NativeTag[];
  characters: NativeTag[];
  tags: NativeTag[];
}

export type NativeRows = Float32Array | Answer<Float32Array>[];

export interface NativeSummary {
  tagged: number;
  skipped: number;
  failures: { path: string; failure: Failure }[];
}

export interface NativeTagger {
  tags(images: NativeInput[], options: Options, listener: Listener<Answer<NativeTags>[]>): Answer<Running>;
  tagsSync(images: NativeInput[], options: Options): Answer<Answer<NativeTags>[]>;
  tagFolder(
    paths: string[],
    folder: { run: object; caption: object },
    tags: Options,
    listener: Listener<NativeSummary>,
  ): Answer<Running>;
  select(rows: Float32Array[], options: Options): Answer<NativeTags[]>;
  rows(wanted: string, images: NativeInput[], apart: boolean, listener: Listener<NativeRows>): Answer<Running>;
  rowsSync(wanted: string, images: NativeInput[], apart: boolean): Answer<NativeRows>;
  withBatchSize(pictures: number): Answer<NativeTagger>;
  readonly name: string;
  readonly labels: { name: string; category: number; count?: number; bestThreshold?: number }[];
  readonly labelCount: number;
  readonly categoryThresholds: [number, number][];
  readonly recommendedThreshold?: number;
  readonly inputSize: [number, number];
  readonly embeddingLength: number;
  readonly batchSize: number;
  readonly device: string;
  readonly dtype: string;
}

export interface NativeRequest {
  images: NativeInput[];
  prompt: string;
  negative?: string;
  seed: { seed?: number | bigint };
}

export interface NativeMade {
  image: NativeImage;
  seed: number | bigint;
  request: number;
  variant: number;
  values?: Float32Array;
  origin?: NativeOrigin;
  notes: string[];
}

export interface NativeOrigin {
  metadata(scheme: string, listener: Listener<string>): Answer<Running>;
  encode(format: string, quality: number | undefined, scheme: string, listener: Listener<Buffer>): Answer<Running>;
  save(path: string, scheme: string, listener: Listener<undefined>): Answer<Running>;
}

export interface NativeOutputs {
  start(listener: Listener<undefined, Answer<NativeMade>>): Answer<Running>;
}

export interface NativeEditPipeline {
  editBatch(
    requests: NativeRequest[],
    options: Options,
    preview: boolean,
    listener: Listener<Answer<NativeMade>[]>,
  ): Answer<{ running: Running; notes: string[] }>;
  editIter(requests: NativeRequest[], options: Options): Answer<{ edits: NativeOutputs; notes: string[] }>;
  check(requests: NativeRequest[], options: Options): Answer<undefined>;
  setLoras(loras: { file: string; scale: number }[], listener: Listener<undefined>): Answer<Running>;
  readonly defaultSteps: number;
  readonly defaultArea: number;
  readonly defaultTrueCfgScale: number;
  readonly device: string;
  readonly dtype: string;
}

export interface NativePrompt {
  prompt: string;
  negative: string;
  image?: NativeInput;
  seed: { seed?: number | bigint };
  asIs: boolean;
  mask?: NativeInput;
  outpaint: number[];
  unstyled?: NativeUnstyled;
  upscale?: string;
}

export interface NativeUnstyled {
  prompt: string;
  negative: string;
  styles: string[];
}

export interface NativePrompter {
  readonly styleNames: string[];
  prepare(
    prompt: string,
    negative: string,
    options: Options,
  ): Answer<{
    requests: { prompt: string; negative: string; seed: number | bigint; unstyled: NativeUnstyled }[];
    loras: { file: string; scale: number }[];
  }>;
}

export interface NativeGeneratePipeline {
  generateBatch(
    requests: NativePrompt[],
    options: Options,
    preview: boolean,
    listener: Listener<Answer<NativeMade>[]>,
  ): Answer<Running>;
  generateIter(requests: NativePrompt[], options: Options): Answer<NativeOutputs>;
  setLoras(loras: { file: string; scale: number }[], listener: Listener<undefined>): Answer<Running>;
  readonly defaultSize: [number, number];
  readonly defaultStyles: string[] | null;
  readonly needsPerformanceLoras: boolean;
  readonly hasUpscaler: boolean;
  readonly hasInpaintEngine: boolean;
  setInpaintEngine(files: [string, string] | undefined, listener: Listener<undefined>): Answer<Running>;
  readonly device: string;
  readonly dtype: string;
}

export interface NativeKnownModel {
  id: string;
  task: string;
  aliases: string[];
  recommendedThreshold?: number;
  unsupported?: string;
}

interface Native {
  VERSION: string;
  Image: {
    prototype: NativeImage;
    fromPixels(source: NativeInput): Answer<NativeImage>;
    load(source: NativeInput, listener: Listener<NativeImage>): Answer<Running>;
  };
  Tagger: {
    load(model: string, options: Options, listener: Listener<NativeTagger>): Answer<Running>;
    loadSync(model: string, options: Options): Answer<NativeTagger>;
  };
  EditPipeline: {
    load(model: string, options: Options, listener: Listener<NativeEditPipeline>): Answer<Running>;
  };
  GeneratePipeline: {
    load(model: string, options: Options, listener: Listener<NativeGeneratePipeline>): Answer<Running>;
  };
  Prompter: {
    open(styles: string | undefined, wildcards: string | undefined, loras: string[]): Answer<NativePrompter>;
  };
  aspectRatios(): [number, number][];
  performanceLora(performance: string): Answer<{ file: string; scale: number } | null>;
  caption(tags: NativeTags, options: Options): Answer<string>;
  errorCodes(): string[];
  defaultThreshold(): number;
  knownModels(): NativeKnownModel[];
  findKnown(name: string): NativeKnownModel | null;
  pull(
    model: string,
    cacheDir: string | undefined,
    endpoint: string | undefined,
    listener: Listener<string>,
  ): Answer<Running>;
  cacheDir(): Answer<string>;
  cpuKernels(): Answer<string>;
  setThreads(threads: number): Answer<undefined>;
  main(args: string[]): Answer<number>;
}

function load(): Native {
  const triple = platformTriple();
  const file = join(__dirname, "..", `tagbrush.${triple}.node`);
  const fix =
    `This copy of the package has no working compiled file for ${triple}. Install a copy that was built for it, ` +
    "or build it: `npm run build` in the folder `bindings-node` of the sources, with Rust 1.89 or later";
  if (!existsSync(file)) throw new Error(`tagbrush: there is no ${file}. ${fix}.`);
  try {
    return require(file) as Native;
  } catch (cause) {
    throw new Error(`tagbrush: cannot load ${file}: ${(cause as Error).message}. ${fix}.`, { cause });
  }
}

export const native: Native = load();
