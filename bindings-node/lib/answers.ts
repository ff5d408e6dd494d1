// Options that are not for the model, and `errors: "throw"` or `"return"`: answers that are results or errors.

import { invalid, isFailure, shown, type TagbrushError, toError } from "./errors";
import type { Answer, Failure } from "./native";

/** What every call takes besides options of the model. */
export interface CallOptions {
  /**
   * Aborts the call: it rejects at once with an `AbortError`, and work that runs stops at its next item or step.
   */
  signal?: AbortSignal | null | undefined;
}

/** What calls with many items take. */
export interface BatchOptions<E extends Errors = Errors> extends CallOptions {
  /**
   * With `"return"`, an item that fails has its `TagbrushError` in its place and costs no other one its answer; with
   * `"throw"`, the first failure is thrown once all items were tried. `"throw"` unless set.
   */
  errors?: E | null | undefined;
}

/** Whether a failed item rejects the call, or has its error in its place. */
export type Errors = "throw" | "return";

/** Why a call does not take one of these. */
const UNFIT = {
  errors: "`errors` is for calls with many items",
  signal: "nothing can be aborted while a function waits",
};

/** Splits off what is not for the model, checked. `fit` says what the call takes of it. */
export function split<O extends BatchOptions>(options: O | null | undefined, ...fit: (keyof BatchOptions)[]) {
  if (options != null && (typeof options !== "object" || Array.isArray(options))) {
    throw invalid("options", `expected an object, got ${shown(options)}`);
  }
  const { errors, signal, ...rest } = (options ?? {}) as O;
  for (const name of ["errors", "signal"] as const) {
    if (options && name in options && !fit.includes(name)) throw invalid(name, UNFIT[name]);
  }
  if (errors != null && errors !== "throw" && errors !== "return") {
    throw invalid("errors", `expected "throw" or "return", got ${shown(errors)}`);
  }
  return { errors: (errors ?? "throw") as Errors, signal, rest };
}

/**
 * Answers, converted. The first failure is thrown, if that is asked for. `first` is the number of the first one, which
 * errors tell; without it they say themselves which one it was.
 */
export function settled<N, T>(
  answers: readonly Answer<N>[],
  errors: Errors,
  convert: (answer: N) => T,
  first?: number,
): (T | TagbrushError)[] {
  return answers.map((answer, i) => {
    if (!isFailure(answer)) return convert(answer);
    const error = toError(first === undefined ? answer : at(answer, first + i));
    if (errors === "throw") throw error;
    return error;
  });
}

/** Says which item it was. */
function at(failure: Failure, index: number): Failure {
  const { message, context } = failure;
  const place = context.length > 0 ? `${message.slice(0, -1)}, index=${index})` : `${message} (index=${index})`;
  return { ...failure, message: place, context: [...context, ["index", `${index}`]] };
}

/** Refuses options where the model has none. */
export function refuseRest(rest: object): void {
  const [name] = Object.keys(rest);
  if (name !== undefined) throw invalid(name, `unknown option \`${name}\`; known: errors, signal`);
}
