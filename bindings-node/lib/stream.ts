// `tagIter`: an endless stream of pictures through a tagger.

import { type Errors, settled } from "./answers";
import { AbortError, type TagbrushError } from "./errors";
import { type ImageLike, refuseSingle, toNative } from "./image";
import type { Answer, NativeInput, NativeTags } from "./native";
import { Tags } from "./tags";

interface Stream {
  images: Iterable<ImageLike> | AsyncIterable<ImageLike>;
  errors: Errors;
  signal: AbortSignal | null | undefined;
  batchSize: number;
  /** Tags pictures that were pulled. */
  tag(pictures: NativeInput[], signal: AbortSignal): Promise<Answer<NativeTags>[]>;
}

/** A batch that is with the tagger. */
interface Flight {
  answers?: Answer<NativeTags>[];
  failure?: unknown;
}

/** How many batches the tagger has at once: one is decoded while another goes through the network. */
const FLIGHTS = 2;

export function stream(given: Stream): AsyncGenerator<Tags | TagbrushError, void, undefined> {
  refuseSingle(given.images, true);
  return flow(given);
}

async function* flow({ images, errors, signal, batchSize, tag }: Stream) {
  const source = Symbol.asyncIterator in images ? images[Symbol.asyncIterator]() : images[Symbol.iterator]();
  const stop = new AbortController();
  const abort = () => {
    stop.abort(signal?.reason);
    wake();
  };
  const flights: Flight[] = [];
  let pulled: NativeInput[] = []; // Not with the tagger yet.
  let index = 0;
  let ahead = 0; // Pulled, and not answered yet.
  let isPulling = false;
  let hasEnded = false;
  let failure: { error: unknown } | undefined;
  let wake = () => {};

  /** Pulls and sends what there is room for. Called whenever something has changed. */
  const pump = () => {
    if (!isPulling && !hasEnded && ahead < FLIGHTS * batchSize) {
      isPulling = true;
      void pull();
    }
    const isIdle = flights.every((flight) => flight.answers || flight.failure);
    const isFull = pulled.length >= batchSize || hasEnded;
    if (pulled.length > 0 && (isIdle || (isFull && flights.length < FLIGHTS))) {
      flights.push(send(pulled.splice(0, batchSize)));
    }
  };
  const pull = async () => {
    try {
      const next = await source.next();
      if (next.done) hasEnded = true;
      else {
        pulled.push(toNative(next.value, { index }));
        index++;
        ahead++;
      }
    } catch (error) {
      // Comes out behind the answers for everything before it.
      hasEnded = true;
      failure = { error };
    }
    isPulling = false;
    pump();
    wake();
  };
  const send = (pictures: NativeInput[]): Flight => {
    const flight: Flight = {};
    const landed = () => {
      pump();
      wake();
    };
    tag(pictures, stop.signal).then(
      (answers) => {
        flight.answers = answers;
        landed();
      },
      (error) => {
        flight.failure = error;
        landed();
      },
    );
    return flight;
  };

  signal?.addEventListener("abort", abort, { once: true });
  if (signal?.aborted) abort();
  let answered = 0;
  try {
    for (;;) {
      if (stop.signal.aborted) throw new AbortError(stop.signal.reason);
      pump();
      const [first] = flights;
      if (first?.failure) throw first.failure;
      if (first?.answers) {
        flights.shift();
        for (const answer of first.answers) {
          ahead--;
          const [tags] = settled([answer], errors, (tags) => new Tags(tags), answered++);
          pump();
          yield tags as Tags | TagbrushError;
          if (stop.signal.aborted) throw new AbortError(stop.signal.reason);
        }
      } else if (hasEnded && flights.length === 0 && pulled.length === 0) {
        if (failure) throw failure.error;
        return;
      } else {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    }
  } finally {
    signal?.removeEventListener("abort", abort);
    const isOpen = !hasEnded;
    hasEnded = true;
    pulled = [];
    stop.abort();
    if (isOpen) {
      const closing = Promise.resolve(source.return?.());
      // A source that is waiting for something closes when that comes, and nobody wants it any more.
      if (isPulling) closing.catch(() => {});
      else await closing;
    }
  }
}
