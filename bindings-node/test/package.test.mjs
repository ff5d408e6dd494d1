// The package: both module systems, the command, the README, and names that agree with the Python package.

import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "node:test";
import * as esm from "tagbrush";
import { failure, owl, ROOT } from "./common.mjs";

const require = createRequire(import.meta.url);
const folder = dirname(require.resolve("tagbrush/package.json"));
const manifest = JSON.parse(readFileSync(join(folder, "package.json")));
const addon = readdirSync(folder).find((name) => name.endsWith(".node"));

test("both module systems have the same classes", async () => {
  const cjs = require("tagbrush");
  assert.deepEqual(Object.keys(esm).sort(), Object.keys(cjs).sort());
  for (const name of Object.keys(esm)) assert.equal(esm[name], cjs[name], name);
  const error = await failure(cjs.Tagger.load("no such model"));
  assert(error instanceof esm.TagbrushError);
  assert(await (await cjs.Tagger.load("demo")).tag(await esm.Image.open(owl)));
});

test("the package has what it needs and no more", () => {
  assert.deepEqual(Object.keys(manifest.dependencies ?? {}), []);
  const names = readdirSync(folder).sort();
  assert.deepEqual(names, ["LICENSE-APACHE", "LICENSE-MIT", "README.md", "dist", "package.json", addon].sort());
  assert.equal(manifest.version, esm.VERSION);
});

test("a missing compiled file says what to do", () => {
  const copy = join(mkdtempSync(join(tmpdir(), "tagbrush-")), "tagbrush");
  cpSync(folder, copy, { recursive: true });
  const load = () =>
    spawnSync(process.execPath, ["-e", `require(${JSON.stringify(copy)})`], { encoding: "utf8" }).stderr;
  const triple = addon.slice("tagbrush.".length, -".node".length);
  writeFileSync(join(copy, addon), "not a library");
  assert.match(load(), /cannot load .*npm run build/);
  rmSync(join(copy, addon));
  assert.match(load(), new RegExp(`no working compiled file for ${triple}\\..*npm run build`));
});

test("the command line tool", () => {
  const line = execFileSync("npx", ["tagbrush", "tag", owl, "--format", "jsonl"], { encoding: "utf8" });
  assert.equal(JSON.parse(line).ratings.general > 0.9, true);
  const wrong = spawnSync("npx", ["tagbrush", "tag", "nowhere.png"], { encoding: "utf8" });
  assert.notEqual(wrong.status, 0);
});

test("the first lines of the README run as they are", () => {
  const readme = readFileSync(join(folder, "README.md"), "utf8");
  const [, code] = /```js\n(.*?)```/s.exec(readme);
  const out = execFileSync(process.execPath, ["--input-type=module", "--eval", code], { encoding: "utf8" });
  assert.match(out, /^\w+ \| .*circle/);
});

test("codes of errors are those of the core", () => {
  const types = readFileSync(join(folder, "dist/errors.d.ts"), "utf8");
  const [, union] = /type ErrorCode =(.*?);/s.exec(types);
  const codes = [...union.matchAll(/"(\w+)"/g)].map(([, code]) => code);
  assert.deepEqual(codes, require(join(folder, addon)).errorCodes());
});

test("models are listed and found", async () => {
  const known = esm.findKnown("WD-ViT-Tagger-v3");
  assert(esm.KNOWN_MODELS.some(({ id }) => id === known.id));
  assert.equal(known.task, "tag");
  assert.equal(esm.findKnown("nothing"), undefined);
  assert.match(esm.cpuKernels(), /\w/);
  assert.equal(typeof esm.cacheDir(), "string");
  const nowhere = { endpoint: "http://127.0.0.1:9", cacheDir: mkdtempSync(join(tmpdir(), "tagbrush-")) };
  assert.equal((await failure(esm.pull("wd-vit-tagger-v3", nowhere))).code, "download");
  assert.equal((await failure(esm.pull("wd-vit-tagger-v3", { cachedir: "" }))).context.field, "cachedir");
  assert.equal((await failure(esm.pull("wd-vit-tagger-v3", { signal: AbortSignal.abort() }))).name, "AbortError");
  assert.throws(() => esm.setThreads(-1), { context: { field: "threads" } });
  assert.throws(() => esm.setThreads("2"), { context: { field: "threads" } });
});

// Names of the Python package that are something else here, and why.
const ELSEWHERE = {
  // One class with a `code`, as Node's own errors have it.
  CancelledError: "AbortError",
  ...Object.fromEntries(
    "DeviceUnavailable Download ImageDecode ImageTooLarge InputOutput Internal InvalidInput ModelInvalid ModelNotFound OutOfMemory Unsupported"
      .split(" ")
      .map((kind) => [`${kind}Error`, "TagbrushError"]),
  ),
  __version__: "VERSION",
  // Members.
  "EditRequest.for_each": "EditRequest.forEach",
  // An aborted run rejects.
  "Summary.cancelled": "CallOptions.signal",
  "Image.size": "Image.width",
  "Image.shape": "Image.channels",
  "Image.mode": "Image.channels",
  "Image.tobytes": "Image.data",
  "Image.to_numpy": "Image.data",
  "Image.to_pil": "Image.data",
  "Tags.to_dict": "Tags.toJSON",
  "Tags.to_json": "Tags.toJSON",
};

/** What the core's API has that is something else in both packages, and why. */
const OTHERWISE = {
  // Two texts here.
  "Tagger.placement": ["Tagger.device", "Tagger.dtype"],
  "EditPipeline.placement": ["EditPipeline.device", "EditPipeline.dtype"],
  "GeneratePipeline.placement": ["GeneratePipeline.device", "GeneratePipeline.dtype"],
  // An iterator in place of a function that is called.
  "EditPipeline.edit_each": ["EditPipeline.edit_iter"],
  "GeneratePipeline.generate_each": ["GeneratePipeline.generate_iter"],
  // Precisions have the names of torch's dtypes.
  "LoadOptions.precision": ["LoadOptions.dtype"],
  // Options in options, which are flat here.
  "LoadOptions.decode": ["max_pixels", "max_side", "max_encoded_bytes", "tolerate_truncated", "apply_orientation"].map(
    (name) => `LoadOptions.${name}`,
  ),
  // Taggers have no other networks.
  "LoadOptions.vae": ["EditLoadOptions.vae", "GenerateLoadOptions.vae"],
  // Only edit models have these.
  ...Object.fromEntries(
    ["max_memory", "transformer", "text_encoder"].map((name) => [
      `LoadOptions.${name}`,
      [`EditLoadOptions.${name}`],
    ]),
  ),
  // Only models that generate have these.
  "LoadOptions.refiner": ["GenerateLoadOptions.refiner"],
  "LoadOptions.upscaler": ["GenerateLoadOptions.upscaler"],
  "LoadOptions.inpaint_head": ["GenerateLoadOptions.inpaint_head"],
  "LoadOptions.inpaint_patch": ["GenerateLoadOptions.inpaint_patch"],
  // Two files at once, which have names here.
  "LoadOptions.inpaint_engine": ["GenerateLoadOptions.inpaint_head", "GenerateLoadOptions.inpaint_patch"],
  // Two values at once, which have names here.
  "GenerateOptions.refiner": ["GenerateOptions.refiner_switch", "GenerateOptions.refiner_swap"],
  "GenerateOptions.inpaint": ["GenerateOptions.inpaint_strength", "GenerateOptions.inpaint_field"],
  // They add one to a map, which is given whole here.
  "TagOptions.category_threshold": ["TagOptions.category_thresholds"],
  "TagOptions.tag_threshold": ["TagOptions.tag_thresholds"],
  // Warnings.
  "EditOptions.notes": [],
  // Options are checked by the calls that take them.
  "GenerateOptions.check": [],
  // A request is made by its class, or is an object.
  "GenerateRequest.new": [],
};

const camel = (name) => (/^[A-Z_]+$/.test(name) ? name : name.replace(/_(\w)/g, (_, letter) => letter.toUpperCase()));

/** Public names of a Python file's classes, options and what they inherit among them: `Class.name`. */
function pythonMembers(source, classes) {
  const known = new Map();
  for (const [, name, base, body] of source.matchAll(
    /^class (\w+)(?:\((\w+)[^\n]*\))?:\n((?:[ \t]+[^\n]*\n|\n)*)/gm,
  )) {
    const own = [...body.matchAll(/^ {4}(?:def )?([a-z]\w*)(?:\(|: (?!ClassVar))/gm)].map(([, member]) => member);
    known.set(name, { base, own });
  }
  const all = (name) => (known.has(name) ? [...known.get(name).own, ...all(known.get(name).base)] : []);
  return classes.flatMap((name) => all(name).map((member) => `${name}.${member}`));
}

/** Public methods and options of a type of the core: `Type.name`. */
function rustMembers(file, type) {
  const source = readFileSync(join(ROOT, "core/src", file), "utf8");
  const bodies = (head) => [...source.matchAll(new RegExp(`^${head} ${type} {\n(.*?)^}`, "gms"))].map(([, body]) => body);
  const names = (text, pattern) => [...text.matchAll(pattern)].map(([, name]) => `${type}.${name}`);
  return [
    ...bodies("impl").flatMap((body) => names(body, /^ {4}pub fn (\w+)/gm)),
    ...bodies("pub struct").flatMap((body) => names(body, /^ {4}pub (\w+):/gm)),
  ];
}

const python = join(ROOT, "bindings-python/python/tagbrush");
const [, list] = /__all__ = \[(.*?)\]/s.exec(readFileSync(join(python, "__init__.py"), "utf8"));
const names = [...list.matchAll(/"(\w+)"/g)].map(([, name]) => name);
const classes = names.filter((name) => /^[A-Z][a-z]/.test(name) && !name.endsWith("Error"));
const members = [
  ...pythonMembers(
    ["_tagger.py", "_pipeline.py", "_edit.py", "_generate.py", "_options.py", "_models.py"]
      .map((file) => readFileSync(join(python, file), "utf8"))
      .join("\n"),
    classes,
  ),
  // Of the compiled half only the classes that are public.
  ...pythonMembers(readFileSync(join(python, "_core.pyi"), "utf8"), ["Image", "Tag", "Tags", "Preview"]),
];
const types = readdirSync(join(folder, "dist"))
  .filter((file) => file.endsWith(".d.ts"))
  .map((file) => readFileSync(join(folder, "dist", file), "utf8"))
  .join("\n");

/** Whether a member of the Python package is here. */
function isHere(member) {
  const [type, name] = (ELSEWHERE[member] ?? member).split(".");
  const body = new RegExp(`^export (?:declare )?(?:class|interface|const) ${type}\\b.*?^}`, "gms");
  const own = [...types.matchAll(body)].map(([text]) => text).join("\n");
  if (new RegExp(`^\\s+(?:static |readonly |get )*${camel(name)}\\b[?(:<]`, "m").test(own)) return true;
  const [, base] = /^[^{]* extends (\w+)/.exec(own) ?? [];
  return base !== undefined && isHere(`${base}.${name}`);
}

test("names are those of the Python package, in camelCase", () => {
  const exported = readFileSync(join(folder, "dist/index.d.ts"), "utf8");
  const missing = names.filter((name) => !new RegExp(`\\b${ELSEWHERE[name] ?? camel(name)}\\b`).test(exported));
  assert.deepEqual(missing, []);
  assert(members.length > 100, `${members.length} names were found`);
  assert.deepEqual(
    members.filter((member) => !isHere(member)),
    [],
  );
});

test("both packages have what the core has", () => {
  const core = [
    ...rustMembers("tagger/mod.rs", "Tagger"),
    ...rustMembers("edit/mod.rs", "EditPipeline"),
    ...rustMembers("tagger/options.rs", "TagOptions"),
    ...rustMembers("edit/request.rs", "EditOptions"),
    ...rustMembers("options.rs", "LoadOptions"),
    ...rustMembers("generate/mod.rs", "GeneratePipeline"),
    ...rustMembers("generate/mod.rs", "Generated"),
    ...rustMembers("generate/metadata/mod.rs", "Generated"),
    ...["GenerateOptions", "GenerateRequest", "SizeGuidance"].flatMap((type) =>
      rustMembers("generate/options.rs", type),
    ),
  ];
  assert(core.length > 100, `${core.length} names were found`);
  const some = ["Tagger.select", "EditPipeline.check", "EditOptions.preset"];
  some.push("Generated.seed", "GenerateOptions.denoise", "GenerateRequest.image", "SizeGuidance.end");
  some.push("Generated.metadata", "Generated.encode", "Generated.save");
  for (const name of [...Object.keys(OTHERWISE), ...some]) {
    assert(core.includes(name), `${name} is not in the core`);
  }
  const wanted = core.flatMap((name) => OTHERWISE[name] ?? [name]);
  assert.deepEqual(
    wanted.filter((name) => !members.includes(name)),
    [],
    "in Python",
  );
  assert.deepEqual(
    wanted.filter((name) => !isHere(name)),
    [],
    "in TypeScript",
  );
});
