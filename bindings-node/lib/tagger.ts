// Pictures to tags, scores and embeddings.

import { inspect } from "node:util";
import { type BatchOptions, type CallOptions, type Errors, refuseRest, settled, split } from "./answers";
import { invalid, shown, type TagbrushError, taken } from "./errors";
import { type Summary, splitFolder, summed, toPaths } from "./folder";
import { type ImageLike, type PathLike, toNative, toNatives, toPath } from "./image";
import { Job, run } from "./job";
import {
  type Answer,
  type NativeInput,
  type NativeRows,
  type NativeSummary,
  type NativeTagger,
  type NativeTags,
  native,
} from "./native";
import type { EditLoadOptions, FolderOptions, GenerateLoadOptions, LoadOptions, TagOptions } from "./options";
import { stream } from "./stream";
import { Tags } from "./tags";

/** One label of a model. */
export interface Label {
  /** The tag as the model's author wrote it, with underscores. */
  readonly name: string;
  /** What kind of tag it is: Danbooru's number, 0 for general tags, 4 for characters, 9 for ratings. */
  readonly category: number;
  /** How many pictures had it in training, if the model says so. */
  readonly count: number | undefined;
  /** The threshold that the model's author found best for it, if the model says so. */
  readonly bestThreshold: number | undefined;
}

/** Of {@link BatchOptions}, what functions take that wait. */
type Waiting<E extends Errors = Errors> = Pick<BatchOptions<E>, "errors">;

/** Numbers in rows of one length, one row for each picture. */
export class Rows implements Iterable<Float32Array> {
  /** All rows, one behind the other. */
  readonly data: Float32Array;
  /** How many rows and columns there are. */
  readonly shape: readonly [rows: number, columns: number];

  /** @internal */
  constructor(data: Float32Array, columns: number) {
    this.data = data;
    this.shape = [data.length / columns, columns];
  }

  /** One row: a view, not a copy. */
  row(i: number): Float32Array {
    const [rows, columns] = this.shape;
    if (!Number.isInteger(i) || i < 0 || i >= rows) throw new RangeError(`there is no row ${i} of ${rows}`);
    return this.data.subarray(i * columns, (i + 1) * columns);
  }

  *[Symbol.iterator](): IterableIterator<Float32Array> {
    for (let i = 0; i < this.shape[0]; i++) yield this.row(i);
  }
}

/** With `errors: "return"` one row for each picture, or what it failed with. */
type RowsOrEach = Rows | (Float32Array | TagbrushError)[];

/** Rows of scores, and whether it is one that was given. A list of nothing is no rows. */
function toRows(scores: unknown): { rows: Float32Array[]; isOne: boolean } {
  if (scores instanceof Float32Array) return { rows: [scores], isOne: true };
  if (scores instanceof Rows) return { rows: [...scores], isOne: false };
  if (!Array.isArray(scores)) {
    throw invalid("scores", `expected rows of scores, a Float32Array or a list, got ${shown(scores)}`);
  }
  const isOne = typeof scores[0] === "number";
  scores.forEach((score, index) => {
    if (isOne ? typeof score !== "number" : !(score instanceof Float32Array)) {
      throw invalid("scores", `expected ${isOne ? "a number" : "a Float32Array"}, got ${shown(score)}`, { index });
    }
  });
  return { rows: isOne ? [Float32Array.from(scores)] : scores, isOne };
}

/** Paths may be URLs in all options that are paths. */
export function pathsOf<O extends EditLoadOptions & GenerateLoadOptions>(options: O): O {
  const paths = ["cacheDir", "transformer", "textEncoder", "vae", "refiner", "upscaler", "inpaintHead", "inpaintPatch"] as const;
  const set = paths.filter((name) => options[name] instanceof URL);
  return { ...options, ...Object.fromEntries(set.map((name) => [name, toPath(options[name], name)])) };
}

/**
 * A loaded tagger. All methods may be called at any time; two calls run at once, others wait for them.
 *
 * Functions whose name ends with `Sync` do their work here and now, and nothing else runs in the meantime.
 */
export class Tagger {
  readonly #native: NativeTagger;
  #labels: readonly Label[] | undefined;

  private constructor(tagger: NativeTagger) {
    if (typeof tagger?.tagsSync !== "function") throw new TypeError("load a model with Tagger.load(...)");
    this.#native = tagger;
  }

  /**
   * Loads a tagger.
   *
   * @param model `"demo"` (embedded, knows drawn shapes only), a folder, or the id or a known name of a published
   * model, which is looked for in the local caches and then downloaded.
   * @param options see {@link LoadOptions}. A signal rejects the promise at once; what was begun goes on unseen.
   */
  static load(model: PathLike = "demo", options?: LoadOptions & CallOptions): Promise<Tagger> {
    return run(
      (listener) => native.Tagger.load(toPath(model, "model"), pathsOf(split(options, "signal").rest), listener),
      (tagger: NativeTagger) => new Tagger(tagger),
      options?.signal,
    );
  }

  /** {@link Tagger.load}, here and now. */
  static loadSync(model: PathLike = "demo", options?: LoadOptions): Tagger {
    return new Tagger(
      taken(native.Tagger.loadSync(toPath(model, "model"), pathsOf(split<LoadOptions & BatchOptions>(options).rest))),
    );
  }

  /** The tags of one picture. */
  tag(image: ImageLike, options?: TagOptions & CallOptions): Promise<Tags> {
    return run(
      (listener) => this.#native.tags([toNative(image)], split(options, "signal").rest, listener),
      ([answer]: Answer<NativeTags>[]) => new Tags(taken(answer as Answer<NativeTags>)),
      options?.signal,
    );
  }

  /** {@link Tagger.tag}, here and now. */
  tagSync(image: ImageLike, options?: TagOptions): Tags {
    const [answer] = taken(this.#native.tagsSync([toNative(image)], split<TagOptions & BatchOptions>(options).rest));
    return new Tags(taken(answer as Answer<NativeTags>));
  }

  /**
   * The tags of many pictures, in order. A batch of N gives what N single calls give.
   *
   * @param images any number of pictures; for more than fit into memory see {@link Tagger.tagIter}.
   */
  tagBatch(images: Iterable<ImageLike>, options?: TagOptions & BatchOptions<"throw">): Job<Tags[]>;
  tagBatch(images: Iterable<ImageLike>, options: TagOptions & BatchOptions): Job<(Tags | TagbrushError)[]>;
  tagBatch(images: Iterable<ImageLike>, options?: TagOptions & BatchOptions): Job<(Tags | TagbrushError)[]> {
    let errors: Errors;
    return Job.start(
      (listener) => {
        const given = split(options, "errors", "signal");
        errors = given.errors;
        return this.#native.tags(toNatives(images), given.rest, listener);
      },
      (answers: Answer<NativeTags>[]) => settled(answers, errors, (tags) => new Tags(tags), 0),
      options?.signal,
    );
  }

  /** {@link Tagger.tagBatch}, here and now. */
  tagBatchSync(images: Iterable<ImageLike>, options?: TagOptions & Waiting<"throw">): Tags[];
  tagBatchSync(images: Iterable<ImageLike>, options: TagOptions & Waiting): (Tags | TagbrushError)[];
  tagBatchSync(images: Iterable<ImageLike>, options?: TagOptions & Waiting): (Tags | TagbrushError)[] {
    const { errors, rest } = split(options, "errors");
    const answers = taken(this.#native.tagsSync(toNatives(images), rest));
    return settled(answers, errors, (tags) => new Tags(tags), 0);
  }

  /**
   * The tags of a stream of pictures of any length, in order, in bounded memory.
   *
   * Pictures are pulled two batches ahead at most, and are decoded while the network runs. When it has nothing to do, it
   * starts with what there is. With `errors: "throw"` the stream ends with the first failure. What `images` itself throws
   * comes out after the answers for everything before it. Leaving the loop stops the work and closes `images`.
   */
  tagIter(
    images: Iterable<ImageLike> | AsyncIterable<ImageLike>,
    options?: TagOptions & BatchOptions<"throw">,
  ): AsyncGenerator<Tags, void, undefined>;
  tagIter(
    images: Iterable<ImageLike> | AsyncIterable<ImageLike>,
    options: TagOptions & BatchOptions,
  ): AsyncGenerator<Tags | TagbrushError, void, undefined>;
  tagIter(
    images: Iterable<ImageLike> | AsyncIterable<ImageLike>,
    options?: TagOptions & BatchOptions,
  ): AsyncGenerator<Tags | TagbrushError, void, undefined> {
    const { errors, signal, rest } = split(options, "errors", "signal");
    taken(this.#native.tagsSync([], rest)); // Says now, and not with the first picture, what options are wrong.
    return stream({
      images,
      errors,
      signal,
      batchSize: this.batchSize,
      tag: (pictures: NativeInput[], signal: AbortSignal) =>
        run(
          (listener) => this.#native.tags(pictures, rest, listener),
          (answers: Answer<NativeTags>[]) => answers,
          signal,
        ),
    });
  }

  /**
   * Tags the pictures of folders and writes the tags to files: what `tagbrush tag` does.
   *
   * Runs in bounded memory, and writes each answer at once. Every output is checked before the first picture is read. A
   * run that was aborted or killed goes on with `existing: "skip"`; what it wrote stays. Runs of one tagger wait for
   * each other, so one that is started right after an abort begins when the aborted one has stopped.
   *
   * @param paths a folder or a picture, or several.
   * @param options with `errors: "throw"`, the job rejects with the first failure of a picture once everything is
   * written; with `"return"`, the summary tells. What is written is the same.
   */
  tagFolder(paths: PathLike | Iterable<PathLike>, options: FolderOptions & TagOptions & BatchOptions): Job<Summary> {
    let errors: Errors;
    return Job.start(
      (listener) => {
        const given = split(options, "errors", "signal");
        errors = given.errors;
        const { folder, tags } = splitFolder(given.rest);
        return this.#native.tagFolder(toPaths(paths), folder, tags, listener);
      },
      (summary: NativeSummary) => summed(summary, errors),
      options?.signal,
    );
  }

  /**
   * The tags that {@link Tagger.scores} give, to try options without running the network again. Here and now, without
   * `Sync` in its name: there is nothing to wait for.
   *
   * @param scores those of one picture, or rows of them.
   * @returns the tags of the one picture, or a list with those of each row.
   */
  select(scores: Float32Array | readonly number[], options?: TagOptions): Tags;
  select(scores: Rows | readonly Float32Array[], options?: TagOptions): Tags[];
  select(
    scores: Float32Array | readonly number[] | Rows | readonly Float32Array[],
    options?: TagOptions,
  ): Tags | Tags[] {
    const { rest } = split<TagOptions & BatchOptions>(options);
    const { rows, isOne } = toRows(scores);
    const all = taken(this.#native.select(rows, rest)).map((tags) => new Tags(tags));
    return isOne ? (all[0] as Tags) : all;
  }

  /** The probabilities of all labels, in the order of {@link Tagger.labels}. */
  scores(images: Iterable<ImageLike>, options?: BatchOptions<"throw">): Job<Rows>;
  scores(images: Iterable<ImageLike>, options: BatchOptions<"return">): Job<(Float32Array | TagbrushError)[]>;
  scores(images: Iterable<ImageLike>, options?: BatchOptions): Job<RowsOrEach> {
    return this.#rows("scores", images, options);
  }

  /** {@link Tagger.scores}, here and now. */
  scoresSync(images: Iterable<ImageLike>, options?: Waiting<"throw">): Rows;
  scoresSync(images: Iterable<ImageLike>, options: Waiting<"return">): (Float32Array | TagbrushError)[];
  scoresSync(images: Iterable<ImageLike>, options?: Waiting): RowsOrEach {
    return this.#rowsSync("scores", images, options);
  }

  /** The features that the network's last layer sees: neighbours in them are similar pictures. */
  embed(images: Iterable<ImageLike>, options?: BatchOptions<"throw">): Job<Rows>;
  embed(images: Iterable<ImageLike>, options: BatchOptions<"return">): Job<(Float32Array | TagbrushError)[]>;
  embed(images: Iterable<ImageLike>, options?: BatchOptions): Job<RowsOrEach> {
    return this.#rows("embed", images, options);
  }

  /** {@link Tagger.embed}, here and now. */
  embedSync(images: Iterable<ImageLike>, options?: Waiting<"throw">): Rows;
  embedSync(images: Iterable<ImageLike>, options: Waiting<"return">): (Float32Array | TagbrushError)[];
  embedSync(images: Iterable<ImageLike>, options?: Waiting): RowsOrEach {
    return this.#rowsSync("embed", images, options);
  }

  #rows(wanted: string, images: Iterable<ImageLike>, options: BatchOptions | undefined): Job<RowsOrEach> {
    let errors: Errors;
    return Job.start(
      (listener) => {
        const given = split(options, "errors", "signal");
        refuseRest(given.rest);
        errors = given.errors;
        return this.#native.rows(wanted, toNatives(images), errors === "return", listener);
      },
      (rows: NativeRows) => this.#toRows(wanted, rows, errors),
      options?.signal,
    );
  }

  #rowsSync(wanted: string, images: Iterable<ImageLike>, options: Waiting | undefined): RowsOrEach {
    const { errors, rest } = split(options, "errors");
    refuseRest(rest);
    const rows = taken(this.#native.rowsSync(wanted, toNatives(images), errors === "return"));
    return this.#toRows(wanted, rows, errors);
  }

  #toRows(wanted: string, rows: NativeRows, errors: Errors): RowsOrEach {
    if (!(rows instanceof Float32Array)) return settled(rows, errors, (row) => row, 0);
    return new Rows(rows, wanted === "embed" ? this.embeddingLength : this.#native.labelCount);
  }

  /** The same tagger, sharing the model, with another number of pictures in one batch. */
  withBatchSize(pictures: number): Tagger {
    if (typeof pictures !== "number") throw invalid("batchSize", `expected a number, got ${shown(pictures)}`);
    return new Tagger(taken(this.#native.withBatchSize(pictures)));
  }

  /** What the model is called: its id on the hub, or what was given to {@link Tagger.load}. */
  get name(): string {
    return this.#native.name;
  }

  /** What the columns of {@link Tagger.scores} mean. */
  get labels(): readonly Label[] {
    this.#labels ??= this.#native.labels.map(({ name, category, count, bestThreshold }) => ({
      name,
      category,
      count,
      bestThreshold,
    }));
    return this.#labels;
  }

  /** The thresholds by category that the model's author recommends, if the model has them. */
  get categoryThresholds(): Readonly<Record<number, number>> {
    return Object.fromEntries(this.#native.categoryThresholds);
  }

  /** Where the author of a known model measured precision and recall to be equal. */
  get recommendedThreshold(): number | undefined {
    return this.#native.recommendedThreshold ?? undefined;
  }

  /** Height and width of the network's input in pixels. */
  get inputSize(): readonly [height: number, width: number] {
    return this.#native.inputSize;
  }

  /** The number of columns of {@link Tagger.embed}. */
  get embeddingLength(): number {
    return this.#native.embeddingLength;
  }

  /** The number of pictures in one batch. */
  get batchSize(): number {
    return this.#native.batchSize;
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
    return `Tagger(${shown(this.name)}, ${this.device}, ${this.dtype}, ${this.#native.labelCount} labels)`;
  }
}
