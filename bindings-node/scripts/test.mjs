// Tests the package as people get it: packed, installed into an empty folder, and used from there.
//
// The first argument is the folder for it (`target/node` unless given). Other arguments are names of tests.

import { execFileSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const here = resolve(dirname(fileURLToPath(import.meta.url)), "..");
const root = dirname(here);
const [folder = join(root, "target/node"), ...only] = process.argv.slice(2);
const app = join(resolve(folder), "app");
const run = (program, args, cwd) =>
  execFileSync(program, args, { cwd, stdio: "inherit", env: { ...process.env, TAGBRUSH_REPOSITORY: root } });

rmSync(resolve(folder), { recursive: true, force: true });
mkdirSync(app, { recursive: true });
run("npm", ["pack", "--silent", "--pack-destination", resolve(folder)], here);
const tarball = join(
  resolve(folder),
  readdirSync(resolve(folder)).find((name) => name.endsWith(".tgz")),
);
writeFileSync(join(app, "package.json"), '{ "name": "app", "private": true }\n');
run("npm", ["install", "--silent", "--offline", "--no-audit", "--no-fund", tarball], app);
for (const part of ["test", "examples"]) cpSync(join(here, part), join(app, part), { recursive: true });

// What a program in TypeScript sees, in both module systems.
const compiler = join(here, "node_modules/typescript/bin/tsc");
const typeRoots = join(here, "node_modules/@types");
for (const module of ["node20", "nodenext"]) {
  const options = [
    "--noEmit",
    "--strict",
    "--target",
    "es2022",
    "--module",
    module,
    "--types",
    "node",
    "--typeRoots",
    typeRoots,
  ];
  run(process.execPath, [compiler, ...options, "test/typed.mts", "test/typed.cts"], app);
}

const tests = readdirSync(join(app, "test")).filter((name) => /\.test\.[mc]js$/.test(name));
const chosen = only.length > 0 ? tests.filter((name) => only.some((part) => name.includes(part))) : tests;
if (!existsSync(join(app, "node_modules/tagbrush"))) throw new Error("the package was not installed");
run(process.execPath, ["--test", "--test-concurrency=1", ...chosen.map((name) => join("test", name))], app);
