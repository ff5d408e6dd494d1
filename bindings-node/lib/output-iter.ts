// `editIter` and `generateIter`: the outputs of a batch one by one, each as soon as it and all before it are made.

import { type Errors, settled } from "./answers";
import { AbortError, type TagbrushError } from "./errors";
import { run } from "./job";
import type { Answer, NativeMade, NativeOutputs } from "./native";

/** The work begins with the first output that is asked for. Leaving the loop stops it. */
export async function* outputs<T>(
  work: NativeOutputs,
  errors: Errors,
  signal: AbortSignal | null | undefined,
  convert: (made: NativeMade) => T,
): AsyncGenerator<T | TagbrushError, void, undefined> {
  const made: Answer<NativeMade>[] = [];
  let end: { error?: unknown } | undefined;
  let wake = () => {};
  const over = (how: { error?: unknown }) => {
    end = how;
    wake();
  };
  const stop = new AbortController();
  const abort = () => stop.abort(signal?.reason);
  signal?.addEventListener("abort", abort, { once: true });
  if (signal?.aborted) abort();
  try {
    const running = run(
      (listener) =>
        work.start(({ item, ...event }) => {
          if (!item) return listener(event);
          made.push(item);
          wake();
        }),
      () => {},
      stop.signal,
    );
    running.then(
      () => over({}),
      (error) => over({ error }),
    );
    for (;;) {
      // Also when outputs are there.
      if (stop.signal.aborted) throw new AbortError(stop.signal.reason);
      const next = made.shift();
      if (next) {
        yield settled([next], errors, convert)[0] as T | TagbrushError;
      } else if (end) {
        if (end.error) throw end.error;
        return;
      } else {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    }
  } finally {
    signal?.removeEventListener("abort", abort);
    stop.abort();
  }
}
