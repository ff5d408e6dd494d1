// Published models: which go by a name, where they are kept, and downloading them. Also threads.

import { type CallOptions, split } from "./answers";
import { invalid, shown, taken } from "./errors";
import { type PathLike, refuseUnknown, toPath } from "./image";
import { Job } from "./job";
import { type NativeKnownModel, native } from "./native";

/** A model on the hub. */
export interface KnownModel {
  /** Its repository on the hub: the id under which it is loaded. */
  readonly id: string;
  /** What it is for. */
  readonly task: "tag" | "edit";
  /** Shorter and older names of it. */
  readonly aliases: readonly string[];
  /** Where a tagger's author measured precision and recall to be equal, if known. */
  readonly recommendedThreshold: number | undefined;
  /** Why it cannot be loaded, for those that cannot. */
  readonly unsupported: string | undefined;
}

/** Where models are downloaded from and to. */
export interface PullOptions extends CallOptions {
  /** The folder for downloaded models; see {@link cacheDir}. */
  cacheDir?: PathLike | null | undefined;
  /** Another hub. */
  endpoint?: string | null | undefined;
}

function known({ id, task, aliases, recommendedThreshold, unsupported }: NativeKnownModel): KnownModel {
  return { id, task: task as KnownModel["task"], aliases, recommendedThreshold, unsupported };
}

/** The version of the package. */
export const VERSION: string = native.VERSION;

/** The general threshold unless another one is set. */
export const DEFAULT_THRESHOLD: number = native.defaultThreshold();

/** Every known model. */
export const KNOWN_MODELS: readonly KnownModel[] = native.knownModels().map(known);

/** The known model of this id or alias; case does not matter. */
export function findKnown(name: string): KnownModel | undefined {
  const found = native.findKnown(name);
  return found ? known(found) : undefined;
}

/**
 * Downloads a model, so that it can be used offline, and gives its folder.
 *
 * A download that was cut continues where it stopped, and every file is checked. Progress counts bytes.
 *
 * @param model an id on the hub (`owner/name`, `@revision` optional) or a known name.
 */
export function pull(model: string, options?: PullOptions): Job<string> {
  return Job.start(
    (listener) => {
      const { rest } = split(options, "signal");
      refuseUnknown(rest, ["cacheDir", "endpoint"]);
      const { cacheDir, endpoint } = rest;
      if (typeof model !== "string") throw invalid("model", `expected a string, got ${shown(model)}`);
      if (endpoint != null && typeof endpoint !== "string") {
        throw invalid("endpoint", `expected a string, got ${shown(endpoint)}`);
      }
      const folder = cacheDir == null ? undefined : toPath(cacheDir, "cacheDir");
      return native.pull(model, folder, endpoint ?? undefined, listener);
    },
    (folder: string) => folder,
    options?.signal,
  );
}

/** The folder that downloaded models are kept in: the variable `TAGBRUSH_CACHE`, or the user's. */
export function cacheDir(): string {
  return taken(native.cacheDir());
}

/** Which kernels compute on this machine's CPU; the variable `TAGBRUSH_ISA` caps the choice. */
export function cpuKernels(): string {
  return taken(native.cpuKernels());
}

/**
 * Sets how many threads the whole process uses for pictures and networks. Can be called once, before any work; the
 * variable `RAYON_NUM_THREADS` does the same.
 */
export function setThreads(threads: number): void {
  if (typeof threads !== "number") throw invalid("threads", `expected a number, got ${shown(threads)}`);
  taken(native.setThreads(threads));
}
