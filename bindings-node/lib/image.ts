// Pictures: what goes in, and what comes out.

import { fileURLToPath } from "node:url";
import { inspect } from "node:util";
import { type ErrorContext, invalid, shown, taken } from "./errors";
import { run } from "./job";
import { type NativeImage, type NativeInput, native } from "./native";

/** Pixels in memory, row by row, 8 bits for a channel, alpha not premultiplied: what sharp's `raw()` gives. */
export interface RawPixels {
  /** `width * height * channels` bytes. */
  readonly data: Uint8Array | Uint8ClampedArray;
  readonly width: number;
  readonly height: number;
  /** 1 is grey, 2 grey and alpha, 3 RGB, 4 RGBA. */
  readonly channels: 1 | 2 | 3 | 4;
}

/**
 * What is taken for a picture:
 *
 * - a path, as a string or a `file:` URL: a JPEG, PNG, WebP, BMP or GIF file,
 * - the bytes of such a file, as a `Buffer` or another `Uint8Array`,
 * - pixels: `{ data, width, height, channels }`,
 * - an {@link Image}.
 *
 * Bytes are copied before the call returns; they may be changed right after.
 */
export type ImageLike = string | URL | Uint8Array | RawPixels | Image;

/** A path. */
export type PathLike = string | URL;

/** How a picture is written. */
export interface EncodeOptions {
  /** Of JPEG, 1 to 100; 95 unless set. */
  quality?: number | undefined;
}

const kinds = "a path, a file: URL, the bytes of an image file, { data, width, height, channels } or an Image";

/** @internal */
export let wrapImage: (image: NativeImage) => Image;
/** @internal */
export let toNativeImage: (image: Image) => NativeImage;
let nativeOf: (value: unknown) => NativeImage | undefined;

/** An 8-bit RGB or RGBA picture. Never changes. */
export class Image {
  static {
    wrapImage = (image) => new Image(image);
    toNativeImage = (image) => image.#native;
    nativeOf = (value) => (typeof value === "object" && value && #native in value ? value.#native : undefined);
  }

  readonly #native: NativeImage;
  #data: Uint8Array | undefined;

  private constructor(image: NativeImage) {
    if (!(image instanceof (native.Image as never))) {
      throw new TypeError("make an Image with Image.open, decode, from, fromRgb8 or fromRgba8");
    }
    image.count();
    this.#native = image;
  }

  /** A picture out of anything that the package takes as one, decoded now. */
  static from(source: ImageLike): Promise<Image> {
    return run((listener) => native.Image.load(toNative(source), listener), wrapImage);
  }

  /** Reads and decodes a file; its format is told by its bytes, not its name. */
  static open(path: PathLike): Promise<Image> {
    return run((listener) => native.Image.load(toPath(path, "path"), listener), wrapImage);
  }

  /** Decodes the bytes of a JPEG, PNG, WebP, BMP or GIF file (of animations the first frame). */
  static decode(data: Uint8Array): Promise<Image> {
    return run((listener) => native.Image.load(toBytes(data), listener), wrapImage);
  }

  /** A picture of `width * height` pixels of three bytes, row by row. */
  static fromRgb8(width: number, height: number, data: Uint8Array | Uint8ClampedArray): Image {
    return wrapImage(taken(native.Image.fromPixels(toNative({ data, width, height, channels: 3 }))));
  }

  /** A picture of `width * height` pixels of four bytes, row by row, alpha not premultiplied. */
  static fromRgba8(width: number, height: number, data: Uint8Array | Uint8ClampedArray): Image {
    return wrapImage(taken(native.Image.fromPixels(toNative({ data, width, height, channels: 4 }))));
  }

  /** The width in pixels. */
  get width(): number {
    return this.#native.width;
  }

  /** The height in pixels. */
  get height(): number {
    return this.#native.height;
  }

  /** Bytes of a pixel: 3 is RGB, 4 RGBA. */
  get channels(): 3 | 4 {
    return this.#native.hasAlpha ? 4 : 3;
  }

  /** The pixels, row by row: a copy, made when it is first asked for. Writing to it does not change the picture. */
  get data(): Uint8Array {
    this.#data ??= this.#native.pixels();
    return this.#data;
  }

  /** The bytes of a file of this format. PNG and WebP are lossless. JPEG has no alpha: it is laid over white. */
  encode(format: "png" | "jpeg" | "jpg" | "webp" = "png", options: EncodeOptions = {}): Promise<Buffer> {
    return run(
      (listener) => {
        refuseUnknown(options, ["quality"]);
        const { quality } = options;
        checkEncoding(format, quality);
        return this.#native.encode(format, quality, listener);
      },
      (bytes: Buffer) => bytes,
    );
  }

  /**
   * Writes a file in the format that its name ends with: .png, .jpg, .jpeg or .webp. It appears under its name only
   * when it is whole.
   */
  save(path: PathLike): Promise<void> {
    return run(
      (listener) => this.#native.save(toPath(path, "path"), listener),
      () => {},
    );
  }

  /** Whether another picture has the same pixels. */
  equals(other: Image): boolean {
    const image = nativeOf(other);
    return image !== undefined && this.#native.equals(image);
  }

  /** @internal */
  [inspect.custom](): string {
    return `Image(${this.width} x ${this.height}, ${this.channels === 4 ? "RGBA" : "RGB"})`;
  }
}

/** Refuses what cannot be how a picture is written. */
export function checkEncoding(format: unknown, quality: unknown): void {
  if (typeof format !== "string") throw invalid("format", `expected a string, got ${shown(format)}`);
  if (quality !== undefined && typeof quality !== "number") {
    throw invalid("quality", `expected a number, got ${shown(quality)}`);
  }
}

/** Refuses names that an object of options must not have. */
export function refuseUnknown(options: object, known: readonly string[]): void {
  if (typeof options !== "object" || options === null) {
    throw invalid("options", `expected an object, got ${shown(options)}`);
  }
  const unknown = Object.keys(options).find((name) => !known.includes(name));
  if (unknown !== undefined) throw invalid(unknown, `unknown option \`${unknown}\`; known: ${known.join(", ")}`);
}

export function toPath(path: unknown, field: string, place: ErrorContext = {}): string {
  if (typeof path === "string") return path;
  if (path instanceof URL) {
    if (path.protocol === "file:") return fileURLToPath(path);
    throw invalid(field, `expected a file: URL, got ${path.protocol}`, place);
  }
  throw invalid(field, `expected a path, got ${shown(path)}`);
}

function toBytes(data: unknown): Uint8Array {
  if (data instanceof Uint8Array) return data;
  throw invalid("data", `expected the bytes of an image file, got ${shown(data)}`);
}

/** A picture for the compiled half. `place` is where it was given. */
export function toNative(source: unknown, place: ErrorContext = {}): NativeInput {
  if (typeof source === "string" || source instanceof URL) return toPath(source, "image", place);
  if (source instanceof Uint8Array) return source;
  const image = nativeOf(source);
  if (image) return image;
  const wrong = (what: string) => invalid("image", what, place);
  if (typeof source !== "object" || source === null || !("data" in source)) {
    throw wrong(`an image is ${kinds}; got ${shown(source)}`);
  }
  const { data, width, height, channels } = source as Record<string, unknown>;
  if (!(data instanceof Uint8Array || data instanceof Uint8ClampedArray)) {
    throw wrong(`the data of pixels is a Uint8Array of values from 0 to 255, not ${shown(data)}`);
  }
  const sides = { width, height, channels };
  for (const [name, value] of Object.entries(sides)) {
    if (!Number.isInteger(value) || (value as number) < 1 || (value as number) > 0xffff_ffff) {
      throw wrong(`the ${name} of pixels is a whole number from 1 on, not ${shown(value)}`);
    }
  }
  if ((channels as number) > 4) throw wrong(`pixels have 1 to 4 channels, not ${channels}`);
  const bytes = data instanceof Uint8Array ? data : new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  return { data: bytes, ...(sides as { width: number; height: number; channels: number }) };
}

/** Pictures for the compiled half. One picture where many are expected is refused. */
export function toNatives(images: Iterable<ImageLike>): NativeInput[] {
  refuseSingle(images);
  return Array.from(images, (image, index) => toNative(image, { index }));
}

export function refuseSingle(images: unknown, isEndless = false): void {
  const many = images as { [Symbol.iterator]?: unknown; [Symbol.asyncIterator]?: unknown } | null | undefined;
  const isMany = many?.[Symbol.iterator] || (isEndless && many?.[Symbol.asyncIterator]);
  if (typeof images === "string" || images instanceof Uint8Array || !isMany) {
    throw invalid("images", `expected a list of images, got ${shown(images)}`);
  }
}
