// A browser, a server on the demo models, and pages that are watched: what each asked for, and what it complained about.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import puppeteer from "puppeteer-core";

const HERE = import.meta.dirname;

/** The browser that `CHROME` names; else the one of the package, which is for Linux on x86-64. */
export const launch = async () => {
  const args = ["--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"];
  return puppeteer.launch({ executablePath: process.env.CHROME || await unpacked(), headless: "shell", args });
};

const unpacked = async () => {
  if (process.platform !== "linux" || process.arch !== "x64") {
    throw new Error("the packaged browser is for Linux on x86-64: name another one in CHROME");
  }
  // The package unpacks into the folder for temporary files and takes what lies there: so it gets one beside itself.
  const folder = join(HERE, "node_modules/.browser");
  mkdirSync(folder, { recursive: true });
  const before = process.env.TMPDIR;
  process.env.TMPDIR = folder;
  try {
    const { default: chromium } = await import("@sparticuz/chromium");
    chromium.setGraphicsMode = false;
    return await chromium.executablePath();
  } finally {
    if (before === undefined) delete process.env.TMPDIR;
    else process.env.TMPDIR = before;
  }
};

const freePort = async () => {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
};

/** The server that `SERVER` names, in a folder of its own, when its models are ready. */
export const serve = async () => {
  const folder = mkdtempSync(join(tmpdir(), "tagbrush-page-"));
  const port = await freePort();
  const env = { PATH: process.env.PATH, PORT: String(port), LOG_LEVEL: "warn" };
  const server = spawn(process.env.SERVER, { cwd: folder, env, stdio: ["ignore", "inherit", "inherit"] });
  const url = `http://127.0.0.1:${port}`;
  for (const until = Date.now() + 60_000; ; await sleep(50)) {
    if (server.exitCode !== null) throw new Error(`the server ended with ${server.exitCode}`);
    const isReady = await fetch(`${url}/ready`).then((answer) => answer.ok, () => false);
    if (isReady) break;
    if (Date.now() > until) throw new Error("the server is not ready");
  }
  const stop = async () => {
    server.kill("SIGTERM");
    if (server.exitCode === null) await once(server, "exit");
    rmSync(folder, { recursive: true });
    return server.exitCode;
  };
  return { url, stop };
};

/** A page of its own, with lists of what it asked for and of what went wrong. */
export const open = async (browser, url, { width, height, scheme }) => {
  const context = await browser.createBrowserContext();
  const page = await context.newPage();
  const seen = { requests: [], troubles: [] };
  page.on("request", (request) => seen.requests.push(request.url()));
  page.on("requestfailed", (request) => {
    const why = request.failure()?.errorText;
    // Chromium at times says so of a stream of events that the page read to its end.
    const isStream = request.response()?.headers()["content-type"]?.startsWith("text/event-stream");
    if (!(isStream && why === "net::ERR_ABORTED")) seen.troubles.push(`${request.url()}: ${why}`);
  });
  page.on("pageerror", (error) => seen.troubles.push(String(error)));
  page.on("console", (message) => {
    // The browser itself notes every answer that is an error; those of the interface are shown on the page.
    if (["error", "warn"].includes(message.type())) seen.troubles.push(message.text());
  });
  await page.setViewport({ width, height, isMobile: width < 600, hasTouch: width < 600 });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  await page.goto(url, { waitUntil: "load" });
  return { page, seen, close: () => context.close() };
};
