// `tagFolder`: folders of pictures to files of tags.

import type { Errors } from "./answers";
import { invalid, shown, type TagbrushError, toError } from "./errors";
import { type PathLike, toPath } from "./image";
import type { NativeSummary } from "./native";
import type { FolderOptions } from "./options";

/** What a folder run did. */
export interface Summary {
  /** Pictures whose tags were written. */
  readonly tagged: number;
  /** Pictures that had tags already and were left alone. */
  readonly skipped: number;
  /** Pictures that failed, in order, with the reason. */
  readonly failures: readonly { readonly path: string; readonly error: TagbrushError }[];
}

/** Paths for the compiled half. */
export function toPaths(paths: PathLike | Iterable<PathLike>): string[] {
  if (typeof paths === "string" || paths instanceof URL) return [toPath(paths, "paths")];
  if (!paths?.[Symbol.iterator]) throw invalid("paths", `expected a path or a list of paths, got ${shown(paths)}`);
  return Array.from(paths, (path, index) => toPath(path, "paths", { index }));
}

/** Splits options of the run, of its captions and of tags. */
export function splitFolder<O extends FolderOptions>(options: O) {
  const { format, output, recursive, existing, fullNames, caption, ...tags } = options;
  if (caption != null && (typeof caption !== "object" || Array.isArray(caption))) {
    throw invalid("caption", `expected an object, got ${shown(caption)}`);
  }
  const folder = output == null ? undefined : toPath(output, "output");
  const run = { format, output: folder, recursive, existing, fullNames };
  return { folder: { run, caption: caption ?? {} }, tags };
}

/** What a run did, or its first failure thrown. */
export function summed({ tagged, skipped, failures }: NativeSummary, errors: Errors): Summary {
  const all = failures.map(({ path, failure }) => ({ path, error: toError(failure) }));
  if (errors === "throw" && all[0]) throw all[0].error;
  return { tagged, skipped, failures: all };
}
