// Work on a thread of the package: as a promise, and as a promise that also tells how far it is.

import { AbortError, invalid, shown, taken, toError } from "./errors";
import { type Image, wrapImage } from "./image";
import type { Answer, NativeEvent, NativeProgress, Running } from "./native";

/** How far a {@link Job} is. */
export interface Progress {
  /** Items that are done; for pictures that are made their steps, for downloads bytes. */
  readonly done: number;
  /** How many there are, if that is known. */
  readonly total: number | undefined;
  /** How many seconds the rest takes at the speed so far, if that can be told. */
  readonly secondsLeft: number | undefined;
  /** With `preview: true` of pipelines, the newest picture of each output that is new since the last event. */
  readonly previews: readonly Preview[];
}

/** A picture in the making. */
export interface Preview {
  /** The number of the output, as results count them. */
  readonly output: number;
  /** Steps that it has made. */
  readonly step: number;
  /** Steps that it will make. */
  readonly steps: number;
  /** A coarse picture, an eighth of the output's size in published models. */
  readonly image: Image;
}

/** Starts work that reports to `listener`. Runs at once; what it throws becomes the failure. */
export type Start<N> = (listener: (event: NativeEvent<N>) => void) => Answer<Running>;

/** Work as a promise. After an abort it is rejected at once; what runs stops at its next item or step. */
export function run<N, T>(
  start: Start<N>,
  convert: (value: N) => T,
  signal?: AbortSignal | null,
  tell?: (progress: NativeProgress) => void,
): Promise<T> {
  // What fails on another thread has no stack; people look for the line of theirs that asked for it.
  const site: { stack?: string } = {};
  Error.captureStackTrace(site, run);
  return new Promise((resolve, reject) => {
    const failed = (error: Error) => {
      const lines = (site.stack ?? "").split("\n").slice(1);
      const theirs = lines.filter((line) => !line.includes(__filename));
      error.stack = [`${error.name}: ${error.message}`, ...theirs].join("\n");
      reject(error);
    };
    refuseNoSignal(signal);
    if (signal?.aborted) return failed(new AbortError(signal.reason));
    const abort = () => {
      running.cancel();
      failed(new AbortError(signal?.reason));
    };
    const answer = start((event) => {
      if (event.progress) return tell?.(event.progress);
      signal?.removeEventListener("abort", abort);
      if (event.failure) return failed(toError(event.failure));
      try {
        resolve(convert(event.value as N));
      } catch (error) {
        failed(error as Error);
      }
    });
    const running = taken(answer);
    signal?.addEventListener("abort", abort, { once: true });
  });
}

/** Refuses what is no `AbortSignal`. Not told by its class: there are others than Node's. */
export function refuseNoSignal(signal: AbortSignal | null | undefined): void {
  if (signal != null && (typeof signal.aborted !== "boolean" || !signal.addEventListener)) {
    throw invalid("signal", `expected an AbortSignal, got ${shown(signal)}`);
  }
}

interface Reader {
  news?: Progress | undefined;
  wake?(): void;
}

/**
 * A promise that also tells how far its work is.
 *
 * ```ts
 * const job = pipeline.edit("car.jpg", "make the car red");
 * for await (const { done, total } of job.progress()) console.log(`${done} of ${total}`);
 * const [red] = await job;
 * ```
 */
export class Job<T> implements Promise<T> {
  readonly [Symbol.toStringTag] = "Job";
  readonly #result: Promise<T>;
  readonly #readers = new Set<Reader>();
  #isOver = false;
  #isAwaited = false;

  private constructor(begin: (tell: (progress: NativeProgress) => void) => Promise<T>) {
    this.#result = begin((progress) => this.#tell(progress));
    const over = () => {
      this.#isOver = true;
      for (const reader of this.#readers) reader.wake?.();
    };
    this.#result.then(over, (error: unknown) => {
      const isRead = this.#readers.size > 0;
      over();
      // Nobody will hear of it: that is an unhandled rejection, as with every promise. `await` asks for it only in the
      // next microtask, so it is looked at when all of them have run.
      process.nextTick(() => {
        if (!isRead && !this.#isAwaited && this.#readers.size === 0) void Promise.reject(error);
      });
    });
  }

  /** @internal */
  static start<N, T>(start: Start<N>, convert: (value: N) => T, signal?: AbortSignal | null): Job<T> {
    return new Job((tell) => run(start, convert, signal, tell));
  }

  /**
   * How far the work is, from now on: an event whenever something has changed. A slow reader gets the newest state
   * and skips what came before it.
   *
   * Ends when the work ends, and throws what the work failed with. Leaving the loop stops listening, not the work:
   * for that there is `signal`.
   */
  async *progress(): AsyncGenerator<Progress, void, undefined> {
    const reader: Reader = {};
    this.#readers.add(reader);
    try {
      for (;;) {
        const { news } = reader;
        reader.news = undefined;
        if (news) {
          yield news;
        } else if (this.#isOver) {
          break;
        } else {
          await new Promise<void>((wake) => Object.assign(reader, { wake }));
        }
      }
      await this.#result;
    } finally {
      this.#readers.delete(reader);
    }
  }

  #tell({ done, total, secondsLeft, previews }: NativeProgress): void {
    if (this.#readers.size === 0) return;
    const shown = previews.map(({ image, ...rest }) => ({ ...rest, image: wrapImage(image) }));
    for (const reader of this.#readers) {
      const all = new Map(reader.news?.previews.map((preview) => [preview.output, preview]));
      for (const preview of shown) all.set(preview.output, preview);
      reader.news = { done, total, secondsLeft, previews: [...all.values()] };
      reader.wake?.();
    }
  }

  then<A = T, B = never>(
    resolved?: ((value: T) => A | PromiseLike<A>) | null,
    rejected?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    this.#isAwaited = true;
    return this.#result.then(resolved, rejected);
  }

  catch<B = never>(rejected?: ((reason: unknown) => B | PromiseLike<B>) | null): Promise<T | B> {
    return this.then(undefined, rejected);
  }

  finally(ended?: (() => void) | null): Promise<T> {
    this.#isAwaited = true;
    return this.#result.finally(ended);
  }
}
