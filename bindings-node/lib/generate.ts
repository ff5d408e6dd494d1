// Pictures out of prompts.

import { type BatchOptions, type CallOptions, type Errors, split } from "./answers";
import { invalid, shown, type TagbrushError, taken } from "./errors";
import {
  checkEncoding,
  type EncodeOptions,
  type ImageLike,
  type PathLike,
  refuseUnknown,
  toNative,
  toNativeImage,
  toPath,
} from "./image";
import { type Job, refuseNoSignal, run } from "./job";
import { type Lora, loraFiles } from "./lora";
import {
  type NativeGeneratePipeline,
  type NativeMade,
  type NativeOrigin,
  type NativePrompt,
  type NativeUnstyled,
  native,
} from "./native";
import type { GenerateLoadOptions, GenerateOptions, MetadataScheme } from "./options";
import { outputs } from "./output-iter";
import { asked, batch, Output, Pipeline, type PreviewOptions, refusePreview, withoutPreview } from "./pipeline";
import { pathsOf } from "./tagger";

/** Width and height of pictures that SDXL was trained with, from tall to wide, as Fooocus lists them. */
export const ASPECT_RATIOS: readonly (readonly [width: number, height: number])[] = native.aspectRatios();

/** Prompts without the styles around them. */
export interface Unstyled {
  /** What is to be seen. */
  readonly prompt: string;
  /** What is not to be seen. */
  readonly negativePrompt?: string | null | undefined;
  /** The names of the styles. */
  readonly styles?: readonly string[] | null | undefined;
}

/** One prompt, with what belongs to it alone. */
export interface GenerateRequest {
  /** What is to be seen. Each line is a text of its own; parts may have weights: `(text:1.3)`. */
  readonly prompt: string;
  /** What is not to be seen, in the same notation. */
  readonly negativePrompt?: string | null | undefined;
  /** A picture to start from, stretched to the size of the output. How much of it stays is up to `denoise`. */
  readonly image?: ImageLike | null | undefined;
  /** The seed of its first variant, in place of that of the call. */
  readonly seed?: number | bigint | null | undefined;
  /**
   * Lines of both prompts are texts as they are. Otherwise commas and points at their ends and spaces beside spaces are
   * left out, as Fooocus does with what people write, but not with its styles.
   */
  readonly asIs?: boolean | null | undefined;
  /**
   * What of the picture is made anew: white pixels of a picture of its size. All else stays to the bit, and the output
   * has the picture's size, with what `outpaint` adds.
   */
  readonly mask?: ImageLike | null | undefined;
  /** Pixels that are added at the sides of the picture. */
  readonly outpaint?: { left?: number; top?: number; right?: number; bottom?: number } | null | undefined;
  /** What both prompts are without styles, where they have some: for metadata only. {@link Prompter} sets it. */
  readonly unstyled?: Unstyled | null | undefined;
  /**
   * How much larger the picture is made, 1 to 5, with details made anew; or a name of Fooocus, such as `"Upscale (1.5x)"` or
   * `"fast 2"`, which makes nothing anew. The output has the size that this gives. With `upscaler` of
   * {@link GeneratePipeline.load} a network does it, else `notes` of the output say that it was resampled.
   */
  readonly upscale?: number | string | null | undefined;
}

/** What a file says of how its picture was made. */
export interface MetadataOptions {
  /** The notation; nothing is said unless set. See {@link Generated.metadata}. */
  metadata?: MetadataScheme | null | undefined;
}

/** A picture that was generated. */
export class Generated extends Output {
  readonly #origin: NativeOrigin;

  /** @internal */
  constructor(made: NativeMade, sources: readonly (ImageLike | undefined)[]) {
    super(made, sources);
    this.#origin = made.origin as NativeOrigin;
  }

  /**
   * What a file says of how this picture was made: prompts, options, and the names and hashes of the model and of LoRA
   * files, but not a picture that it was made from.
   *
   * A hash is the first ten digits of the file's SHA-256, for which the whole file is read when it is asked for the first
   * time: some seconds for a large model. Models in folders, which are many files, have none.
   *
   * @param scheme `"fooocus"` for JSON as Fooocus writes it, `"a1111"` for lines as the web UI of AUTOMATIC1111 writes
   * them.
   */
  metadata(scheme: MetadataScheme = "fooocus"): Promise<string> {
    return run(
      (listener) => this.#origin.metadata(schemeName(scheme), listener),
      (text: string) => text,
    );
  }

  /**
   * The bytes of a file of this format, as {@link Image.encode} gives them, which may say how the picture was made: in PNG
   * as texts `parameters` and `fooocus_scheme`, in JPEG and WebP as EXIF.
   */
  encode(
    format: "png" | "jpeg" | "jpg" | "webp" = "png",
    options: EncodeOptions & MetadataOptions = {},
  ): Promise<Buffer> {
    return run(
      (listener) => {
        refuseUnknown(options, ["quality", "metadata"]);
        const { quality, metadata } = options;
        checkEncoding(format, quality);
        if (metadata == null) return toNativeImage(this.image).encode(format, quality, listener);
        return this.#origin.encode(format, quality, schemeName(metadata), listener);
      },
      (bytes: Buffer) => bytes,
    );
  }

  /** Writes the picture to a file; see {@link Image.save}. With `metadata`, the file says how it was made. */
  override save(path: PathLike, options: MetadataOptions = {}): Promise<void> {
    return run(
      (listener) => {
        refuseUnknown(options, ["metadata"]);
        const { metadata } = options;
        const file = toPath(path, "path");
        if (metadata == null) return toNativeImage(this.image).save(file, listener);
        return this.#origin.save(file, schemeName(metadata), listener);
      },
      () => {},
    );
  }
}

function schemeName(scheme: unknown): string {
  if (typeof scheme !== "string") throw invalid("metadata", `expected a string, got ${shown(scheme)}`);
  return scheme;
}

/**
 * A loaded model that generates: SDXL, sampled as Fooocus does. Calls are answered one after the other, because a batch
 * is how many pictures are made at once.
 */
export class GeneratePipeline extends Pipeline {
  readonly #native: NativeGeneratePipeline;

  private constructor(pipeline: NativeGeneratePipeline, name: string) {
    if (typeof pipeline?.generateBatch !== "function") {
      throw new TypeError("load a model with GeneratePipeline.load(...)");
    }
    super(pipeline, name);
    this.#native = pipeline;
  }

  /**
   * Loads a model that generates.
   *
   * @param model `"demo"` (embedded, draws flat shapes only), a folder as diffusers publishes SDXL, or a checkpoint of SDXL
   * in one safetensors file. Models that generate are not downloaded.
   * @param options see {@link GenerateLoadOptions}. A signal rejects the promise at once; what was begun goes on unseen.
   */
  static load(model: PathLike = "demo", options?: GenerateLoadOptions & CallOptions): Promise<GeneratePipeline> {
    return run(
      (listener) =>
        native.GeneratePipeline.load(toPath(model, "model"), pathsOf(split(options, "signal").rest), listener),
      (pipeline: NativeGeneratePipeline) => new GeneratePipeline(pipeline, toPath(model, "model")),
      options?.signal,
    );
  }

  /** The variants of one prompt: `n` pictures. */
  generate(
    prompt: string,
    options?: GenerateOptions &
      PreviewOptions &
      CallOptions &
      Pick<GenerateRequest, "negativePrompt" | "image" | "mask" | "outpaint" | "upscale">,
  ): Job<Generated[]> {
    const begin = () => {
      const { negativePrompt, image, mask, outpaint, upscale, ...rest } = split(options, "signal").rest;
      const request = { prompt, negativePrompt, image, mask, outpaint, upscale };
      return { requests: [request], options: rest, errors: "throw" as const };
    };
    return this.#run(begin, options?.signal) as Job<Generated[]>;
  }

  /**
   * Many prompts in one denoising run.
   *
   * Each output is what its request would give alone. `n` outputs for each request, first all variants of the first
   * request.
   */
  generateBatch(
    requests: Iterable<string | GenerateRequest>,
    options?: GenerateOptions & PreviewOptions & BatchOptions<"throw">,
  ): Job<Generated[]>;
  generateBatch(
    requests: Iterable<string | GenerateRequest>,
    options: GenerateOptions & PreviewOptions & BatchOptions,
  ): Job<(Generated | TagbrushError)[]>;
  generateBatch(
    requests: Iterable<string | GenerateRequest>,
    options?: GenerateOptions & PreviewOptions & BatchOptions,
  ): Job<(Generated | TagbrushError)[]> {
    return this.#run(() => asked(requests, options), options?.signal);
  }

  /**
   * The outputs of {@link GeneratePipeline.generateBatch} one by one, each as soon as it and all before it are made.
   *
   * The work begins with the first output that is asked for, and goes on while an output is used. With a `batchSize` of
   * {@link GeneratePipeline.load}, so many pictures are made at once. With `errors: "throw"` the first output that
   * failed is thrown in its place. Leaving the loop stops the work within a step.
   */
  generateIter(
    requests: Iterable<string | GenerateRequest>,
    options?: GenerateOptions & BatchOptions<"throw">,
  ): AsyncGenerator<Generated, void, undefined>;
  generateIter(
    requests: Iterable<string | GenerateRequest>,
    options: GenerateOptions & BatchOptions,
  ): AsyncGenerator<Generated | TagbrushError, void, undefined>;
  generateIter(
    requests: Iterable<string | GenerateRequest>,
    options?: GenerateOptions & BatchOptions,
  ): AsyncGenerator<Generated | TagbrushError, void, undefined> {
    const { signal } = options ?? {};
    refuseNoSignal(signal);
    const { requests: all, options: given, errors } = asked(requests, options);
    const rest = refusePreview(given);
    const prompts = all.map(toPrompt);
    const sources = all.map(source);
    const work = taken(this.#native.generateIter(prompts, rest));
    return outputs(work, errors, signal, (made) => new Generated(made, sources));
  }

  /**
   * Applies LoRA files, in place of those that were applied before; none gives the model back, to the last bit. When a
   * file does not fit the model, what was applied before stays.
   *
   * Files for the denoising network, either text encoder and several of them are read: LoRA, LoCon, LoHa and LoKr in the
   * keys of kohya, peft, diffusers, ComfyUI and latent diffusion. A refiner takes the files that fit it: those of the model
   * where it is another SDXL.
   */
  setLoras(loras: Iterable<PathLike | Lora>): Promise<void> {
    return run(
      (listener) => this.#native.setLoras(loraFiles(loras), listener),
      () => {},
    );
  }

  /** Width and height of pictures whose size is not asked for. */
  get defaultSize(): readonly [width: number, height: number] {
    return this.#native.defaultSize;
  }

  /**
   * The styles that go with the model unless others are named, where it has some of its own: the demo model has none, as
   * it knows no such words. `undefined` leaves it to the user, who may want those that Fooocus takes.
   */
  get defaultStyles(): readonly string[] | undefined {
    return this.#native.defaultStyles ?? undefined;
  }

  /**
   * Whether fast ways of sampling need the LoRA file that {@link performanceLora} names: not where the model itself makes
   * pictures in few steps, as the demo model does.
   */
  get needsPerformanceLoras(): boolean {
    return this.#native.needsPerformanceLoras;
  }

  /**
   * Takes Fooocus' inpaint engine, its head (`fooocus_inpaint_head.pth`) and its patch (`inpaint_v26.fooocus.patch`, or of
   * another version), in place of the one before, or `null` for none. Parts of pictures are made anew with it; without, the
   * network sees the picture around the mask only. When a file does not fit the model, what was there before stays.
   */
  setInpaintEngine(files: readonly [head: PathLike, patch: PathLike] | null): Promise<void> {
    return run(
      (listener) => {
        if (files !== null && !(Array.isArray(files) && files.length === 2)) {
          throw invalid("files", `expected [head, patch] or null, got ${shown(files)}`);
        }
        const paths: [string, string] | undefined = files
          ? [toPath(files[0], "head"), toPath(files[1], "patch")]
          : undefined;
        return this.#native.setInpaintEngine(paths, listener);
      },
      () => {},
    );
  }

  /** Whether there is an inpaint engine. */
  get hasInpaintEngine(): boolean {
    return this.#native.hasInpaintEngine;
  }

  /** Whether there is a network that makes pictures larger; without one they are resampled. */
  get hasUpscaler(): boolean {
    return this.#native.hasUpscaler;
  }

  #run(
    begin: () => { requests: (string | GenerateRequest)[]; options: GenerateOptions & PreviewOptions; errors: Errors },
    signal: AbortSignal | null | undefined,
  ): Job<(Generated | TagbrushError)[]> {
    return batch((listener) => {
      const { requests, options, errors } = begin();
      const { preview, rest } = withoutPreview(options);
      const prompts = requests.map(toPrompt);
      const sources = requests.map(source);
      const running = taken(this.#native.generateBatch(prompts, rest, preview, listener));
      return { running, errors, convert: (made) => new Generated(made, sources) };
    }, signal);
  }
}

/** Left, top, right and bottom. */
function sides(outpaint: NonNullable<GenerateRequest["outpaint"]>, at: { request: number }): number[] {
  if (typeof outpaint !== "object") throw invalid("outpaint", `expected an object, got ${shown(outpaint)}`, at);
  refuseUnknown(outpaint, ["left", "top", "right", "bottom"]);
  const { left = 0, top = 0, right = 0, bottom = 0 } = outpaint;
  for (const side of [left, top, right, bottom]) {
    if (!Number.isInteger(side) || side < 0 || side >= 2 ** 32) {
      throw invalid("outpaint", `expected whole numbers from 0 on, got ${shown(side)}`, at);
    }
  }
  return [left, top, right, bottom];
}

function toUnstyled(unstyled: Unstyled, at: { request: number }): NativeUnstyled {
  const wrong = (what: string) => invalid("unstyled", what, at);
  if (typeof unstyled !== "object") throw wrong(`expected an object, got ${shown(unstyled)}`);
  refuseUnknown(unstyled, ["prompt", "negativePrompt", "styles"]);
  const { prompt, negativePrompt, styles } = unstyled;
  if (typeof prompt !== "string") throw wrong(`expected a prompt, got ${shown(prompt)}`);
  const negative = negativePrompt ?? "";
  if (typeof negative !== "string") throw wrong(`expected a negativePrompt, got ${shown(negative)}`);
  const names = styles ?? [];
  if (!Array.isArray(names) || !names.every((name) => typeof name === "string")) {
    throw wrong(`expected a list of styles, got ${shown(names)}`);
  }
  return { prompt, negative, styles: [...names] };
}

/** The picture of a request, as it was given. */
function source(request: string | GenerateRequest): ImageLike | undefined {
  return typeof request === "string" ? undefined : (request.image ?? undefined);
}

function toPrompt(request: string | GenerateRequest, i: number): NativePrompt {
  if (typeof request === "string") return toPrompt({ prompt: request }, i);
  const at = { request: i };
  if (typeof request !== "object" || request === null) {
    throw invalid("requests", `expected a string or { prompt }, got ${shown(request)}`, at);
  }
  refuseUnknown(request, ["prompt", "negativePrompt", "image", "seed", "asIs", "mask", "outpaint", "unstyled", "upscale"]);
  const { prompt, negativePrompt, image, seed, asIs, mask, outpaint, unstyled, upscale } = request;
  if (typeof prompt !== "string") throw invalid("prompt", `expected a string, got ${shown(prompt)}`, at);
  if (negativePrompt != null && typeof negativePrompt !== "string") {
    throw invalid("negativePrompt", `expected a string, got ${shown(negativePrompt)}`, at);
  }
  if (asIs != null && typeof asIs !== "boolean") {
    throw invalid("asIs", `expected a boolean, got ${shown(asIs)}`, at);
  }
  if (upscale != null && typeof upscale !== "number" && typeof upscale !== "string") {
    throw invalid("upscale", `expected a number or a string, got ${shown(upscale)}`, at);
  }
  return {
    prompt,
    negative: negativePrompt ?? "",
    asIs: asIs ?? false,
    ...(mask == null ? {} : { mask: toNative(mask, at) }),
    outpaint: sides(outpaint ?? {}, at),
    ...(unstyled == null ? {} : { unstyled: toUnstyled(unstyled, at) }),
    ...(image == null ? {} : { image: toNative(image, at) }),
    seed: { seed: seed ?? undefined },
    ...(upscale == null ? {} : { upscale: String(upscale) }),
  };
}
