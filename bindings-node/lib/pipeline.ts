// What pipelines have in common: their outputs, and what they say of themselves.

import { inspect } from "node:util";
import { type BatchOptions, type Errors, settled, split } from "./answers";
import { invalid, shown, type TagbrushError } from "./errors";
import { type Image, type ImageLike, type PathLike, wrapImage } from "./image";
import { Job } from "./job";
import type { Answer, Listener, NativeMade, Running } from "./native";

/** A picture that a pipeline made. */
export class Output<S = ImageLike | undefined> {
  /** The picture. */
  readonly image: Image;
  /** The seed that gives this picture again, as the first variant. A `bigint` where a number would not be exact. */
  readonly seed: number | bigint;
  /** The number of the request that it belongs to. */
  readonly request: number;
  /** Which of the request's variants it is. */
  readonly variant: number;
  /** With `keepValues`, rows of pixels of red, green and blue, 0 to 1, before they were rounded to 8 bits. */
  readonly values: Float32Array | undefined;
  /** The first picture of the request, as it was given. */
  readonly source: S;
  /**
   * What a user should know about how it was made, where it was made in another way than may be expected: without a
   * network that would be needed, or without denoising. Mostly empty.
   */
  readonly notes: readonly string[];

  /** @internal */
  constructor(made: NativeMade, sources: readonly S[]) {
    this.image = wrapImage(made.image);
    this.seed = made.seed;
    this.request = made.request;
    this.variant = made.variant;
    this.values = made.values ?? undefined;
    this.source = sources[made.request] as S;
    this.notes = made.notes;
  }

  /** Writes the picture to a file; see {@link Image.save}. */
  save(path: PathLike): Promise<void> {
    return this.image.save(path);
  }
}

/** What the work should report besides how far it is. */
export interface PreviewOptions {
  /** Make a small picture of each output after each step, for `previews` of {@link Job.progress}. Costs a little time. */
  preview?: boolean | null | undefined;
}

/** Whether previews are wanted, and the other options. */
export function withoutPreview<O>({ preview, ...rest }: O & PreviewOptions) {
  if (preview != null && typeof preview !== "boolean") {
    throw invalid("preview", `expected true or false, got ${shown(preview)}`);
  }
  return { preview: preview ?? false, rest };
}

/** The options of outputs that come one by one, which have no job to report to. */
export function refusePreview<O>({ preview, ...rest }: O & PreviewOptions) {
  if (preview != null) throw invalid("preview", "`preview` is for calls that give a Job");
  return rest;
}

/** A loaded model that makes pictures. */
export class Pipeline {
  readonly #native: { readonly device: string; readonly dtype: string };
  /** What was given to `load`. */
  readonly name: string;

  /** @internal */
  protected constructor(pipeline: { readonly device: string; readonly dtype: string }, name: string) {
    this.#native = pipeline;
    this.name = name;
  }

  /** Where the model runs; never `"auto"`. */
  get device(): string {
    return this.#native.device;
  }

  /** In which number format it runs; never `"auto"`. */
  get dtype(): "f32" | "bf16" | "f16" {
    return this.#native.dtype as "f32";
  }

  /** @internal */
  [inspect.custom](): string {
    return `${this.constructor.name}(${shown(this.name)}, ${this.device}, ${this.dtype})`;
  }
}

/** What calls with many requests are given, checked as far as the compiled half does not. */
export function asked<R, O>(requests: Iterable<R>, options: (O & BatchOptions) | undefined) {
  const { errors, rest } = split(options, "errors", "signal");
  if (typeof requests === "string" || !requests?.[Symbol.iterator]) {
    throw invalid("requests", `expected a list of requests, got ${shown(requests)}`);
  }
  return { requests: [...requests], options: rest, errors };
}

/** A batch that was started, and what is to be done with its outputs. */
interface Started<T> {
  running: Running;
  errors: Errors;
  convert(made: NativeMade): T;
}

/** All outputs of a batch. What `start` throws becomes the failure of the job. */
export function batch<T>(
  start: (listener: Listener<Answer<NativeMade>[]>) => Started<T>,
  signal: AbortSignal | null | undefined,
): Job<(T | TagbrushError)[]> {
  let started: Started<T>;
  return Job.start(
    (listener) => {
      started = start(listener);
      return started.running;
    },
    (outputs: Answer<NativeMade>[]) => settled(outputs, started.errors, started.convert),
    signal,
  );
}
