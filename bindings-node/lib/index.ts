/**
 * Tags, edits and generates pictures, in batches, without Python.
 *
 * - {@link Tagger} gives {@link Tags}, raw scores or embeddings, of single pictures, batches and streams.
 * - {@link EditPipeline} changes pictures by instruction: {@link EditRequest} in, {@link Edited} out.
 * - {@link GeneratePipeline} makes pictures of prompts: {@link GenerateRequest} in, {@link Generated} out.
 * - {@link Image} is what comes out. {@link ImageLike} is what goes in.
 * - {@link Job} is a promise that tells how far its work is.
 * - Everything that fails is a {@link TagbrushError} with a `code`.
 *
 * @packageDocumentation
 */

export type { BatchOptions, CallOptions, Errors } from "./answers";
export { Edited, EditPipeline, EditRequest } from "./edit";
export { AbortError, type ErrorCode, type ErrorContext, TagbrushError } from "./errors";
export type { Summary } from "./folder";
export {
  ASPECT_RATIOS,
  Generated,
  GeneratePipeline,
  type GenerateRequest,
  type MetadataOptions,
  type Unstyled,
} from "./generate";
export { type EncodeOptions, Image, type ImageLike, type PathLike, type RawPixels } from "./image";
export { Job, type Preview, type Progress } from "./job";
export { type Lora, performanceLora } from "./lora";
export {
  cacheDir,
  cpuKernels,
  DEFAULT_THRESHOLD,
  findKnown,
  KNOWN_MODELS,
  type KnownModel,
  type PullOptions,
  pull,
  setThreads,
  VERSION,
} from "./models";
export type {
  CaptionOptions,
  Dtype,
  EditLoadOptions,
  EditOptions,
  Existing,
  FolderFormat,
  FolderOptions,
  FreeU,
  GenerateLoadOptions,
  GenerateOptions,
  LoadOptions,
  MetadataScheme,
  Performance,
  Sampler,
  Scheduler,
  SizeGuidance,
  TagOptions,
} from "./options";
export type { PreviewOptions } from "./pipeline";
export { type Prepared, type PrepareOptions, Prompter, type PrompterOptions } from "./prompter";
export { type Label, Rows, Tagger } from "./tagger";
export { type Tag, Tags } from "./tags";
