// LoRA files, for pipelines that take them.

import { invalid, shown, taken } from "./errors";
import { type PathLike, refuseUnknown, toPath } from "./image";
import { native } from "./native";
import type { Performance } from "./options";

/** A LoRA file and how strongly it is applied. */
export interface Lora {
  /** Safetensors, in the key formats of peft, kohya, diffusers or ComfyUI. */
  readonly file: PathLike;
  /** 1 is as it was trained, 0 not at all; negative values turn it around. 1 unless set. */
  readonly scale?: number | undefined;
}

/**
 * The LoRA file that a performance needs, by its name in Fooocus' folder of LoRA files, and its scale; `undefined` for
 * the slow ones.
 */
export function performanceLora(performance: Performance): { readonly file: string; readonly scale: number } | undefined {
  if (typeof performance !== "string") throw invalid("performance", `expected a string, got ${shown(performance)}`);
  return taken(native.performanceLora(performance)) ?? undefined;
}

/** The files as the native part takes them. */
export function loraFiles(loras: Iterable<PathLike | Lora>): { file: string; scale: number }[] {
  if (typeof loras === "string" || !loras?.[Symbol.iterator]) {
    throw invalid("loras", `expected a list of LoRA files, got ${shown(loras)}`);
  }
  return Array.from(loras, toLora);
}

function toLora(lora: PathLike | Lora): { file: string; scale: number } {
  if (typeof lora === "string" || lora instanceof URL) return { file: toPath(lora, "loras"), scale: 1 };
  if (typeof lora !== "object" || lora === null) throw invalid("loras", `expected { file, scale }, got ${shown(lora)}`);
  refuseUnknown(lora, ["file", "scale"]);
  const { file, scale = 1 } = lora;
  if (typeof scale !== "number") throw invalid("scale", `expected a number, got ${shown(scale)}`);
  return { file: toPath(file, "file"), scale };
}
