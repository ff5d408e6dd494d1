// What people write as a prompt, made into requests.

import { invalid, shown, taken } from "./errors";
import type { GenerateRequest } from "./generate";
import { type PathLike, refuseUnknown, toPath } from "./image";
import type { Lora } from "./lora";
import { type NativePrompter, native } from "./native";

/** The folders that prompts are prepared with. */
export interface PrompterOptions {
  /** A folder of styles, as `sdxl_styles` of Fooocus is one; a few of our own unless set. */
  styles?: PathLike | null | undefined;
  /** The folder of wildcards. */
  wildcards?: PathLike | null | undefined;
  /** Folders of LoRA files that prompts may name. */
  loras?: Iterable<PathLike> | null | undefined;
}

/** What is made of one prompt, beside the prompt itself. */
export interface PrepareOptions {
  /** What is not to be seen. */
  negativePrompt?: string | null | undefined;
  /** Pictures; 1 unless set. Each is a request of its own, as its wildcards and arrays may differ. */
  n?: number | null | undefined;
  /** Styles by their names, in order; `Random Style` stands for any of them. */
  styles?: readonly string[] | null | undefined;
  /** The seed of the first picture, below 2^63; drawn unless set. */
  seed?: number | bigint | null | undefined;
  /** All pictures have that seed, and not the next ones. */
  sameSeed?: boolean | null | undefined;
  /** Wildcards take the lines of their files in order, a line for a picture, and not by chance. */
  wildcardsInOrder?: boolean | null | undefined;
}

/** Requests made of a prompt. */
export interface Prepared {
  /** One for each picture, with its seed. */
  readonly requests: GenerateRequest[];
  /** The LoRA files that the prompt names, which the model must have: see `GeneratePipeline.setLoras`. */
  readonly loras: Lora[];
}

/**
 * Prepares prompts as Fooocus does, with what lies in the user's folders. No model is needed for it, and a seed always
 * makes the same of a prompt.
 *
 * - Each line of a prompt is a text of its own; the first one is what styles are around.
 * - `<lora:name:0.8>` in the first line is a LoRA file by its name.
 * - `__name__` is a line of `name.txt`.
 * - `[[red, green, blue]]` is another one for each picture.
 */
export class Prompter {
  readonly #native: NativePrompter;

  /** Reads the styles. */
  constructor(options?: PrompterOptions) {
    const given = options ?? {};
    refuseUnknown(given, ["styles", "wildcards", "loras"]);
    const { styles, wildcards, loras } = given;
    if (typeof loras === "string") throw invalid("loras", `expected a list of folders, got ${shown(loras)}`);
    const path = (folder: PathLike | null | undefined, name: string) =>
      folder == null ? undefined : toPath(folder, name);
    const folders = Array.from(loras ?? [], (folder) => toPath(folder, "loras"));
    this.#native = taken(native.Prompter.open(path(styles, "styles"), path(wildcards, "wildcards"), folders));
  }

  /** The names of all styles, and `Random Style`. */
  get styleNames(): string[] {
    return this.#native.styleNames;
  }

  /** The requests for a prompt. */
  prepare(prompt: string, options?: PrepareOptions): Prepared {
    const { negativePrompt, ...rest } = options ?? {};
    for (const [field, text] of Object.entries({ prompt, negativePrompt: negativePrompt ?? "" })) {
      if (typeof text !== "string") throw invalid(field, `expected a string, got ${shown(text)}`);
    }
    const { requests, loras } = taken(this.#native.prepare(prompt, negativePrompt ?? "", rest));
    return {
      requests: requests.map(({ prompt, negative, seed, unstyled }) => ({
        prompt,
        negativePrompt: negative,
        seed,
        asIs: true,
        unstyled: { prompt: unstyled.prompt, negativePrompt: unstyled.negative, styles: unstyled.styles },
      })),
      loras,
    };
  }
}
