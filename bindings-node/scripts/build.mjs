// Builds the package in place: the compiled half with Cargo, `dist/` with tsc.
//
// The profile and the target folder are those of everything else in the repository. `--library FOLDER` takes what was
// compiled there already.

import { execFileSync } from "node:child_process";
import { chmodSync, copyFileSync, existsSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const here = resolve(dirname(fileURLToPath(import.meta.url)), "..");
const { values } = parseArgs({ options: { library: { type: "string" } } });
const run = (program, args, options = {}) =>
  execFileSync(program, args, { cwd: here, stdio: ["ignore", "inherit", "inherit"], ...options });

/** Compiles, and gives the path of the library. */
function compile() {
  const args = [
    "build",
    "--release",
    "--locked",
    "--package",
    "tagbrush-node",
    "--message-format",
    "json-render-diagnostics",
  ];
  const stdout = run(process.env.CARGO ?? "cargo", args, { stdio: ["ignore", "pipe", "inherit"], maxBuffer: 1 << 28 });
  const messages = String(stdout)
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  const built = messages.find(
    ({ reason, target }) => reason === "compiler-artifact" && target.name === "tagbrush_node",
  );
  return built.filenames[0];
}

if (!existsSync(join(here, "node_modules"))) run("npm", ["ci", "--no-audit", "--no-fund"]);
rmSync(join(here, "dist"), { recursive: true, force: true });
run(process.execPath, [join(here, "node_modules/typescript/bin/tsc"), "--project", here]);

/** The file that Cargo makes, by platform. */
const names = { darwin: "libtagbrush_node.dylib", win32: "tagbrush_node.dll" };
const library = values.library ? resolve(values.library, names[process.platform] ?? "libtagbrush_node.so") : compile();
const triple = createRequire(import.meta.url)("../dist/triple.js").platformTriple();
const addon = join(here, `tagbrush.${triple}.node`);
// Not over the old one: processes may have it mapped.
rmSync(addon, { force: true });
copyFileSync(library, addon);

// One copy of the code and its state, whoever loads it: the ESM side only names what the CommonJS side has.
const exported = Object.keys(createRequire(import.meta.url)("../dist/index.js")).filter(
  (name) => name !== "__esModule",
);
writeFileSync(
  join(here, "dist/index.mjs"),
  `import tagbrush from "./index.js";\n\nexport const { ${exported.sort().join(", ")} } = tagbrush;\n`,
);
writeFileSync(join(here, "dist/index.d.mts"), 'export * from "./index.js";\n');
chmodSync(join(here, "dist/cli.js"), 0o755);
for (const licence of ["LICENSE-APACHE", "LICENSE-MIT"]) copyFileSync(join(here, "..", licence), join(here, licence));
