#!/usr/bin/env node
// `npx tagbrush`: the command line tool of the Rust crate itself.

import { taken } from "./errors";
import { native } from "./native";

process.exitCode = taken(native.main(["tagbrush", ...process.argv.slice(2)]));
