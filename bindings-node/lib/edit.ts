// Pictures changed by instruction.

import { type BatchOptions, type CallOptions, type Errors, split } from "./answers";
import { invalid, shown, type TagbrushError, taken } from "./errors";
import { type ImageLike, type PathLike, refuseUnknown, toNative, toPath } from "./image";
import { type Job, refuseNoSignal, run } from "./job";
import { type Lora, loraFiles } from "./lora";
import { type NativeEditPipeline, type NativeRequest, native } from "./native";
import type { EditLoadOptions, EditOptions } from "./options";
import { outputs } from "./output-iter";
import { asked, batch, Output, Pipeline, type PreviewOptions, refusePreview, withoutPreview } from "./pipeline";
import { pathsOf } from "./tagger";

/** One edit: its pictures are references of one output. Many edits are a list of these. */
export interface EditRequest {
  /**
   * One picture, or a list. The first models take exactly one; from Qwen-Image-Edit-2509 on several, of which the last
   * gives an output its proportions.
   */
  readonly images: ImageLike | readonly ImageLike[];
  /** The instruction. */
  readonly prompt: string;
  /**
   * What to move away from. `" "` unless set, which is what the models' authors use; `null` switches guidance off,
   * whatever its scale is.
   */
  readonly negativePrompt?: string | null | undefined;
  /** The seed of its first variant, in place of that of the call. */
  readonly seed?: number | bigint | null | undefined;
}

/** Makes lists of requests. */
export const EditRequest = {
  /** The same edit of each of many pictures: one request for each. */
  forEach(images: Iterable<ImageLike>, prompt: string, negativePrompt: string | null = " "): EditRequest[] {
    return Array.from(images, (image) => ({ images: image, prompt, negativePrompt }));
  },
};

/** A picture that an edit made. */
export class Edited extends Output<ImageLike> {}

/** A loaded edit model. Calls are answered one after the other, because a batch is how many edits are made at once. */
export class EditPipeline extends Pipeline {
  readonly #native: NativeEditPipeline;

  private constructor(pipeline: NativeEditPipeline, name: string) {
    if (typeof pipeline?.editBatch !== "function") throw new TypeError("load a model with EditPipeline.load(...)");
    super(pipeline, name);
    this.#native = pipeline;
  }

  /**
   * Loads an edit model.
   *
   * @param model `"demo"` (embedded, edits flat shapes only), a folder in the layout of diffusers, or the id or a known
   * name of a published model (Qwen-Image-Edit and its successors), which is looked for in the local caches and then
   * downloaded.
   * @param options see {@link EditLoadOptions}. A signal rejects the promise at once; what was begun goes on unseen.
   */
  static load(model: PathLike = "demo", options?: EditLoadOptions & CallOptions): Promise<EditPipeline> {
    return run(
      (listener) => native.EditPipeline.load(toPath(model, "model"), pathsOf(split(options, "signal").rest), listener),
      (pipeline: NativeEditPipeline) => new EditPipeline(pipeline, toPath(model, "model")),
      options?.signal,
    );
  }

  /**
   * The variants of one edit: `n` pictures.
   *
   * @param images the picture to edit, or a list of references of this one edit. To edit each of many pictures, see
   * {@link EditPipeline.editBatch} and {@link EditRequest.forEach}.
   * @param prompt the instruction.
   */
  edit(
    images: ImageLike | readonly ImageLike[],
    prompt: string,
    options?: EditOptions & PreviewOptions & CallOptions & Pick<EditRequest, "negativePrompt">,
  ): Job<Edited[]> {
    const begin = () => {
      const { negativePrompt, ...rest } = split(options, "signal").rest;
      return { requests: [{ images, prompt, negativePrompt }], options: rest, errors: "throw" as const };
    };
    return this.#run(begin, options?.signal) as Job<Edited[]>;
  }

  /**
   * Many edits in one denoising run, whatever their sizes, numbers of references and prompts are.
   *
   * Each output is what its request would give alone. `n` outputs for each request, first all variants of the first
   * request.
   */
  editBatch(
    requests: Iterable<EditRequest>,
    options?: EditOptions & PreviewOptions & BatchOptions<"throw">,
  ): Job<Edited[]>;
  editBatch(
    requests: Iterable<EditRequest>,
    options: EditOptions & PreviewOptions & BatchOptions,
  ): Job<(Edited | TagbrushError)[]>;
  editBatch(
    requests: Iterable<EditRequest>,
    options?: EditOptions & PreviewOptions & BatchOptions,
  ): Job<(Edited | TagbrushError)[]> {
    return this.#run(() => asked(requests, options), options?.signal);
  }

  /**
   * The outputs of {@link EditPipeline.editBatch} one by one, each as soon as it and all before it are made.
   *
   * The work begins with the first output that is asked for, and goes on while an output is used. With a `batchSize` of
   * {@link EditPipeline.load}, so many edits are made at once. With `errors: "throw"` the first output that failed is
   * thrown in its place. Leaving the loop stops the work within a step.
   */
  editIter(
    requests: Iterable<EditRequest>,
    options?: EditOptions & BatchOptions<"throw">,
  ): AsyncGenerator<Edited, void, undefined>;
  editIter(
    requests: Iterable<EditRequest>,
    options: EditOptions & BatchOptions,
  ): AsyncGenerator<Edited | TagbrushError, void, undefined>;
  editIter(
    requests: Iterable<EditRequest>,
    options?: EditOptions & BatchOptions,
  ): AsyncGenerator<Edited | TagbrushError, void, undefined> {
    const { signal } = options ?? {};
    refuseNoSignal(signal);
    const { requests: all, options: given, errors } = asked(requests, options);
    const rest = refusePreview(given);
    const converted = all.map(toRequest);
    const sources = all.map(source);
    const { edits, notes } = taken(this.#native.editIter(converted, rest));
    warn(notes);
    return outputs(edits, errors, signal, (made) => new Edited(made, sources));
  }

  /**
   * Throws what {@link EditPipeline.editBatch} would say of the options, or of a request, before any work: the first
   * that means nothing. The number of the request is in the error's `context`.
   *
   * Here and now. Pictures are counted and not looked at.
   */
  check(requests: Iterable<EditRequest>, options?: EditOptions & PreviewOptions & BatchOptions): void {
    refuseNoSignal(options?.signal);
    const { requests: all, options: given } = asked(requests, options);
    // In the place of each picture a path that nobody opens: their bytes would be copied.
    const counted = all.map(toRequest).map((request) => ({ ...request, images: request.images.map(() => "") }));
    taken(this.#native.check(counted, withoutPreview(given).rest));
  }

  #run(
    begin: () => { requests: EditRequest[]; options: EditOptions & PreviewOptions; errors: Errors },
    signal: AbortSignal | null | undefined,
  ): Job<(Edited | TagbrushError)[]> {
    return batch((listener) => {
      const { requests, options, errors } = begin();
      const { preview, rest } = withoutPreview(options);
      const all = requests.map(toRequest);
      const sources = requests.map(source);
      const { running, notes } = taken(this.#native.editBatch(all, rest, preview, listener));
      warn(notes);
      return { running, errors, convert: (made) => new Edited(made, sources) };
    }, signal);
  }

  /**
   * Applies LoRA files, in place of those that were applied before; none gives the model back. When a file does not fit
   * the model, what was applied before stays.
   */
  setLoras(loras: Iterable<PathLike | Lora>): Promise<void> {
    return run(
      (listener) => this.#native.setLoras(loraFiles(loras), listener),
      () => {},
    );
  }

  /** Steps of denoising unless something else is asked for. */
  get defaultSteps(): number {
    return this.#native.defaultSteps;
  }

  /** Pixels of outputs unless a size is asked for. */
  get defaultArea(): number {
    return this.#native.defaultArea;
  }

  /** The scale of guidance unless something else is asked for. */
  get defaultTrueCfgScale(): number {
    return this.#native.defaultTrueCfgScale;
  }
}

function list(images: ImageLike | readonly ImageLike[]): readonly ImageLike[] {
  return Array.isArray(images) ? images : [images as ImageLike];
}

/** The first picture of a request, as it was given. */
function source({ images }: EditRequest): ImageLike {
  return list(images)[0] as ImageLike;
}

/** Tells what is to be said of options, with the names that they have here. */
function warn(notes: readonly string[]): void {
  for (const note of notes) {
    const inCamelCase = note.replace(/(?<=[a-z])_([a-z])/g, (_, letter: string) => letter.toUpperCase());
    process.emitWarning(inCamelCase, "TagbrushWarning");
  }
}

function toRequest(request: EditRequest, i: number): NativeRequest {
  const at = { request: i };
  if (typeof request !== "object" || request === null) {
    throw invalid("requests", `expected { images, prompt }, got ${shown(request)}`, at);
  }
  refuseUnknown(request, ["images", "prompt", "negativePrompt", "seed"]);
  const { images, prompt, negativePrompt, seed } = request;
  if (typeof prompt !== "string") throw invalid("prompt", `expected a string, got ${shown(prompt)}`, at);
  if (negativePrompt != null && typeof negativePrompt !== "string") {
    throw invalid("negativePrompt", `expected a string or null, got ${shown(negativePrompt)}`, at);
  }
  return {
    images: list(images).map((image) => toNative(image, at)),
    prompt,
    // Unset is not the same as off.
    ...(negativePrompt === null ? {} : { negative: negativePrompt ?? " " }),
    seed: { seed: seed ?? undefined },
  };
}
