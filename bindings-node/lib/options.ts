// The options of the package, each kind of them once. `undefined` and `null` mean that an option is not set.

import type { PathLike } from "./image";

/** Number formats; which of them a device can compute is checked when a model is loaded. */
export type Dtype = "auto" | "f32" | "bf16" | "f16";

/** How a model is loaded. */
export interface LoadOptions {
  /** `"auto"`, `"cpu"`, `"cuda"`, `"cuda:1"`, `"metal"`. A device that is named is never replaced by another one. */
  device?: string | null | undefined;
  dtype?: Dtype | null | undefined;
  /** Never use the network: an id must be in a local cache already. */
  offline?: boolean | null | undefined;
  /** Where downloaded models are kept; the user's cache folder unless set. */
  cacheDir?: PathLike | null | undefined;
  /** Pictures in one batch; chosen by the size of the input unless set. */
  batchSize?: number | null | undefined;
  /** Refuse pictures of more pixels; 128,000,000 unless set. */
  maxPixels?: number | null | undefined;
  /** Refuse pictures with a longer side; 65,535 unless set. */
  maxSide?: number | null | undefined;
  /** Refuse longer files; 256 MiB unless set. */
  maxEncodedBytes?: number | null | undefined;
  /** Accept JPEG files whose end is missing, as far as they go. */
  tolerateTruncated?: boolean | null | undefined;
  /**
   * Turn pictures as their EXIF orientation says. Unless set, pictures to edit or to start from are turned and pictures
   * to tag are not, as in the taggers' reference. Never done to pixels.
   */
  applyOrientation?: boolean | null | undefined;
}

/** How an edit model is loaded. */
export interface EditLoadOptions extends LoadOptions {
  /** Most bytes of memory that the model may take. What does not fit is read again in every step. */
  maxMemory?: number | null | undefined;
  /** Another file for the denoising transformer: safetensors (diffusers, ComfyUI) or GGUF. */
  transformer?: PathLike | null | undefined;
  /** Another file for the text encoder: safetensors. */
  textEncoder?: PathLike | null | undefined;
  /** Another file for the autoencoder: safetensors. */
  vae?: PathLike | null | undefined;
}

/** Which tags of a picture are kept: those with a probability **greater** than their threshold. */
export interface TagOptions {
  /** The general threshold, 0 to 1; more than 1 keeps nothing. {@link DEFAULT_THRESHOLD} unless set. */
  threshold?: number | null | undefined;
  /** The threshold of characters; the general one unless set. */
  characterThreshold?: number | null | undefined;
  /** Thresholds of categories: `{ general: 0.3, 4: 0.8 }`. */
  categoryThresholds?: Readonly<Record<string | number, number>> | null | undefined;
  /** Thresholds of single tags; spaces, underscores and case do not matter. */
  tagThresholds?: Readonly<Record<string, number>> | null | undefined;
  /** Use the thresholds that the model's author recommends, where the model has them. */
  bestThresholds?: boolean | null | undefined;
  /** Find the threshold of each category in the scores: the middle of their largest gap. */
  mcut?: boolean | null | undefined;
  /** Keep at most so many characters, and at most so many other tags. */
  topK?: number | null | undefined;
  /** Tags that are never given. */
  exclude?: readonly string[] | null | undefined;
  /** Drop tags that say less than another one that is there. */
  dropRedundant?: boolean | null | undefined;
  /** Which tags imply others, as pairs (`very_long_hair`, `long_hair`), for `dropRedundant`. */
  implications?: readonly (readonly [string, string])[] | null | undefined;
  /** The order of each list; that of the labels unless set. */
  order?: "labels" | "score" | "name" | null | undefined;
}

/** How tags are written as one line. */
export interface CaptionOptions {
  /** What stands between tags; `", "` unless set. */
  separator?: string | null | undefined;
  /** Keep underscores; otherwise they become spaces, except in smileys such as `>_<`. */
  keepUnderscores?: boolean | null | undefined;
  /** Put a backslash before parentheses and backslashes, as prompts want it. */
  escape?: boolean | null | undefined;
  /** Write `(tag:0.997)`. */
  weights?: boolean | null | undefined;
  /** Whether and where the most probable rating stands; `"none"` unless set. */
  rating?: "none" | "first" | "last" | null | undefined;
  /** Put characters behind the other tags. */
  charactersLast?: boolean | null | undefined;
  /** Tags that stand first when they are there, in this order. */
  alwaysFirst?: readonly string[] | null | undefined;
  /** Tags that are written as something else; an empty text leaves the tag out. */
  replace?: Readonly<Record<string, string>> | null | undefined;
  /** What stands before the tags. */
  prepend?: readonly string[] | null | undefined;
  /** What stands behind the tags. */
  append?: readonly string[] | null | undefined;
}

/** How a folder run writes tags. */
export type FolderFormat = "sidecar" | "json" | "jsonl" | "csv";

/** What a folder run does with tags that are there already. */
export type Existing = "overwrite" | "skip" | "append";

/** Which pictures of folders are tagged, and how their tags are written. */
export interface FolderOptions {
  /**
   * `"sidecar"` for a .txt with the caption beside every picture, `"json"` for a .json with all scores there, `"jsonl"`
   * or `"csv"` for one file, `tags.jsonl` or `tags.csv`.
   */
  format: FolderFormat;
  /** The folder to write into, where files beside pictures mirror the tree; needed for `"jsonl"` and `"csv"`. */
  output?: PathLike | null | undefined;
  /** Go into folders below. */
  recursive?: boolean | null | undefined;
  /**
   * What to do with tags that are there already; `"overwrite"` unless set. With `"skip"` their pictures are left alone,
   * and those that failed are tried again; with `"append"` a .txt gets the new ones.
   */
  existing?: Existing | null | undefined;
  /** Name files beside pictures `a.png.txt` rather than `a.txt`. */
  fullNames?: boolean | null | undefined;
  /** How captions are written, for `"sidecar"` and `"csv"`. */
  caption?: CaptionOptions | null | undefined;
}

/** How edits are made. */
export interface EditOptions {
  /** Variants of every request, 1 to 10; 1 unless set. */
  n?: number | null | undefined;
  /** `"auto"`, `"1024x768"` or `[1024, 768]`: width and height. */
  size?: "auto" | `${number}x${number}` | readonly [width: number, height: number] | null | undefined;
  /**
   * The seed of the first variant, 0 to 2^64 - 1; variant `j` has `seed + j`. A seed gives the same noise as
   * `torch.Generator("cpu").manual_seed(seed)`. Drawn unless set.
   */
  seed?: number | bigint | null | undefined;
  /** Steps of denoising, 1 to 1000; the model's own number unless set. */
  numInferenceSteps?: number | null | undefined;
  /** Scale of guidance; the model's own unless set. 1 or less switches it off, which halves the time. */
  trueCfgScale?: number | null | undefined;
  /** Accepted, and of no effect on these models: gives a warning of the process. */
  guidanceScale?: number | null | undefined;
  /** Accepted, and of no effect on these models: gives a warning of the process. */
  maxSequenceLength?: number | null | undefined;
  /** Pixels of each reference picture for the model, and of outputs of automatic size. */
  referenceArea?: number | null | undefined;
  /** What sides of references and automatic outputs are multiples of; itself a multiple of 16. */
  referenceMultiple?: number | null | undefined;
  /** A step-distilled way to use a model; its LoRA must be loaded too. */
  preset?: "lightning-4" | "lightning-8" | null | undefined;
  /** Keep the values of outputs before they are rounded to 8 bits, as `Edited.values`. */
  keepValues?: boolean | null | undefined;
}

/** Ways of sampling by their speed. The last three need a LoRA file, which `performanceLora` names. */
export type Performance = "Quality" | "Speed" | "Extreme Speed" | "Lightning" | "Hyper-SD";

/**
 * How a file says what its picture was made with: JSON as Fooocus has it, or lines as the web UI of AUTOMATIC1111 has them.
 * Both are read by Fooocus.
 */
export type MetadataScheme = "fooocus" | "a1111";

/** How steps of denoising are made. */
export type Sampler =
  | "euler"
  | "euler_ancestral"
  | "heun"
  | "heunpp2"
  | "dpm_2"
  | "dpm_2_ancestral"
  | "lms"
  | "dpm_fast"
  | "dpm_adaptive"
  | "dpmpp_2s_ancestral"
  | "dpmpp_sde"
  | "dpmpp_sde_gpu"
  | "dpmpp_2m"
  | "dpmpp_2m_sde"
  | "dpmpp_2m_sde_gpu"
  | "dpmpp_3m_sde"
  | "dpmpp_3m_sde_gpu"
  | "ddpm"
  | "lcm"
  | "tcd"
  | "restart"
  | "ddim"
  | "uni_pc"
  | "uni_pc_bh2";

/** Which noise levels steps of denoising go through. */
export type Scheduler =
  | "normal"
  | "karras"
  | "exponential"
  | "sgm_uniform"
  | "simple"
  | "ddim_uniform"
  | "lcm"
  | "turbo"
  | "align_your_steps"
  | "tcd"
  | "edm_playground_v2.5";

/**
 * Other sizes than the real one, which the network is told of the picture while most of it is noise: a large one for
 * what is asked for and a small one for what is not sharpen it.
 */
export interface SizeGuidance {
  /** The size that goes with the prompt is so many times the real one; 1.5 unless set. */
  readonly positive?: number | undefined;
  /** As `positive`, for the negative prompt; 0.8 unless set. */
  readonly negative?: number | undefined;
  /** The part of the way after which the real size is told; 0.3 unless set. */
  readonly end?: number | undefined;
}

/** How a model that generates is loaded. */
export interface GenerateLoadOptions extends LoadOptions {
  /** Most bytes of memory that the model may take. What does not fit is read again in every step. */
  maxMemory?: number | null | undefined;
  /** A second model that goes on where the first one stops: SDXL's refiner, or another SDXL. */
  refiner?: PathLike | null | undefined;
  /**
   * A file with another autoencoder, in place of the model's own: safetensors in the names of diffusers or of Stability's
   * code, or a whole checkpoint.
   */
  vae?: PathLike | null | undefined;
  /**
   * A network that makes pictures larger (ESRGAN's RRDBNet): safetensors, or a checkpoint of PyTorch, which is read
   * without running it.
   */
  upscaler?: PathLike | null | undefined;
  /** The head of Fooocus' inpaint engine (`fooocus_inpaint_head.pth`); with `inpaintPatch` only. */
  inpaintHead?: PathLike | null | undefined;
  /**
   * The patch of Fooocus' inpaint engine (`inpaint_v26.fooocus.patch`, or of another version); with `inpaintHead` only.
   */
  inpaintPatch?: PathLike | null | undefined;
}

/** How the network's parts are weighed on its way up ("FreeU"); 1 changes nothing. */
export interface FreeU {
  /**
   * How much the strong parts of what comes from below count where there are four times as many channels as at the
   * largest size; 1.01 unless set.
   */
  b1?: number | undefined;
  /** As `b1`, where there are twice as many; 1.02 unless set. */
  b2?: number | undefined;
  /** How much the coarse parts of what is kept from the way down count, in the places of `b1`; 0.99 unless set. */
  s1?: number | undefined;
  /** As `s1`, in the places of `b2`; 0.95 unless set. */
  s2?: number | undefined;
}

/** How pictures are generated. The defaults are those of Fooocus' "Speed". */
export interface GenerateOptions {
  /** Variants of every request, 1 to 1024; 1 unless set. */
  n?: number | null | undefined;
  /**
   * `"1152x896"` or `[1152, 896]`: width and height, multiples of 8. The model's own unless set, which for published
   * ones is this.
   */
  size?: `${number}x${number}` | readonly [width: number, height: number] | null | undefined;
  /**
   * 60, 30, 8, 4 and 4 steps; with the last three also their sampler and scheduler and no guidance. What is set beside it
   * is as it is set. The LoRA file that it needs must be applied.
   */
  performance?: Performance | null | undefined;
  /** Steps of denoising, 1 to 1000; 30 unless set. */
  steps?: number | null | undefined;
  /**
   * How far to go away from the negative prompt; 4 unless set. At 1 it is not looked at, and a step takes half of the
   * time.
   */
  guidanceScale?: number | null | undefined;
  /** `"dpmpp_2m_sde_gpu"` unless set. */
  sampler?: Sampler | null | undefined;
  /** `"karras"` unless set. */
  scheduler?: Scheduler | null | undefined;
  /** The layer of the text encoders whose states are used, counted from the end: 1 is the last. 2 unless set. */
  clipSkip?: number | null | undefined;
  /**
   * The seed of the first variant of every request, 0 to 2^64 - 1; the next variants have the next seeds. A seed gives
   * the same noise as `torch.Generator("cpu").manual_seed(seed)`. Drawn unless set.
   */
  seed?: number | bigint | null | undefined;
  /** Which sizes the network is told; `false` for the real one always. */
  sizeGuidance?: SizeGuidance | false | null | undefined;
  /**
   * Where guidance is stronger than this, it starts from here and grows to its scale as the noise goes; 7 unless set.
   */
  adaptiveGuidance?: number | null | undefined;
  /** How much of its grain a picture keeps that the network would smooth, 0 to 30; 2 unless set; only with guidance. */
  sharpness?: number | null | undefined;
  /**
   * The part of the steps after which a refiner goes on; 0.5 unless set. Only where the model was loaded with one.
   */
  refinerSwitch?: number | null | undefined;
  /** Whether samplers know of the steps before the refiner, which is `"joint"` and the default, or begin anew. */
  refinerSwap?: "joint" | "separate" | null | undefined;
  /** How the network's parts are weighed; not at all unless set, and `true` as Fooocus does. */
  freeu?: FreeU | boolean | null | undefined;
  /**
   * How much of a request's picture is made anew, above 0 and up to 1; 0.5 unless set. Of no effect on requests without
   * a picture.
   */
  denoise?: number | null | undefined;
  /** As `denoise`, for pictures that are made larger; 0.382 unless set. */
  upscaleStrength?: number | null | undefined;
  /** As `denoise`, for the parts of pictures that are made anew; 1, which it is unless set, forgets what was there. */
  inpaintStrength?: number | null | undefined;
  /**
   * How much of a picture the network sees at least beside the part that is made anew: 0 for little, 1 for the whole
   * picture, which it always sees with `outpaint`. 0.618 unless set.
   */
  inpaintField?: number | null | undefined;
  /** Pixels that masks are made wider by, or narrower below 0; -64 to 64, 0 unless set. */
  maskGrowth?: number | null | undefined;
  /** Keep the values of outputs before they are rounded to 8 bits, as `Generated.values`. */
  keepValues?: boolean | null | undefined;
}
