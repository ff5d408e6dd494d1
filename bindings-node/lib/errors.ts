// What can go wrong.

import type { Answer, Failure } from "./native";

/** The stable name of a kind of error, the same as in Python, in the command line's JSON and over HTTP. */
export type ErrorCode =
  /** An option, argument or field has a value that cannot be used. */
  | "invalid_input"
  /** The bytes are not an image that can be decoded. */
  | "image_decode"
  /** The image is larger than the limits in force. */
  | "image_too_large"
  /** No model of that name, or its files are missing. */
  | "model_not_found"
  /** The model's files contradict each other, are damaged, or are not of a known form. */
  | "model_invalid"
  /** A download failed. */
  | "download"
  /** The request is valid but not supported by this build, model or device. */
  | "unsupported"
  /** The device that was asked for cannot be used. */
  | "device_unavailable"
  /** The device or the machine has not enough memory. */
  | "out_of_memory"
  /** The work was cancelled: see {@link AbortError}. */
  | "cancelled"
  /** A file could not be read or written. */
  | "io"
  /** A fault of this package. */
  | "internal";

/** Where something went wrong. */
export interface ErrorContext {
  /** The option or argument that cannot be used. */
  readonly field?: string;
  /** The file that cannot be used. */
  readonly file?: string;
  /** The number of the picture in a batch or stream. */
  readonly index?: number;
  /** The number of the request in a batch of a pipeline. */
  readonly request?: number;
  readonly [name: string]: string | number | undefined;
}

/** The error of everything in this package that can fail. */
export class TagbrushError extends Error {
  static {
    TagbrushError.prototype.name = "TagbrushError";
  }

  /** What kind of error it is. */
  readonly code: ErrorCode;
  /** Where it went wrong. */
  readonly context: ErrorContext;

  constructor(code: ErrorCode, message: string, context: ErrorContext = {}, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
    this.context = context;
  }
}

/** The work was aborted through its `signal`, whose reason is the `cause`. */
export class AbortError extends TagbrushError {
  static {
    AbortError.prototype.name = "AbortError";
  }

  constructor(reason: unknown) {
    super("cancelled", "the operation was aborted", {}, { cause: reason });
  }
}

const NUMBERS = new Set(["index", "request"]);

/** The error for a failure. */
export function toError({ code, message, context: pairs, causes }: Failure): TagbrushError {
  const context: Record<string, string | number> = {};
  for (const [name, value] of pairs) {
    // Innermost first: the place closest to the fault is the one to keep.
    context[name] ??= NUMBERS.has(name) ? Number(value) : value;
  }
  let cause: Error | undefined;
  for (const text of causes.reverse()) cause = new Error(text, cause && { cause });
  return new TagbrushError(code as ErrorCode, message, context, cause && { cause });
}

export function isFailure(answer: unknown): answer is Failure {
  return typeof answer === "object" && answer !== null && "causes" in answer;
}

/** The value, or the error thrown. */
export function taken<T>(answer: Answer<T>): T {
  if (isFailure(answer)) throw toError(answer);
  return answer;
}

/** The error for a wrong option or argument. */
export function invalid(field: string, message: string, context: ErrorContext = {}): TagbrushError {
  const all = { field, ...context };
  const place = Object.entries(all).map(([name, value]) => `${name}=${value}`);
  return new TagbrushError("invalid_input", `${message} (${place.join(", ")})`, all);
}

/** What a value is, in messages. */
export function shown(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  if (typeof value === "string") return JSON.stringify(value);
  if (typeof value === "object") return `an instance of ${value.constructor?.name ?? "nothing"}`;
  return typeof value === "number" || typeof value === "boolean" ? String(value) : `a ${typeof value}`;
}
