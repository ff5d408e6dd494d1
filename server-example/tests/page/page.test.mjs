// The page as people use it: in a browser, on the demo models, wide and narrow, light and dark.
//
// `SERVER` is the server's program. Pictures of the page are written to the folder `SCREENSHOTS`, if it is given.
import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { launch, open, serve } from "./browser.mjs";

const DEMO = join(import.meta.dirname, "../../../core/demo");
const image = (name) => join(DEMO, "images", name);
const VIEWS = [
  { name: "wide-light", width: 1280, height: 800, scheme: "light" },
  { name: "wide-dark", width: 1280, height: 800, scheme: "dark" },
  { name: "narrow-light", width: 360, height: 740, scheme: "light" },
  { name: "narrow-dark", width: 360, height: 740, scheme: "dark" },
];

let server;
let browser;
const scratch = mkdtempSync(join(tmpdir(), "tagbrush-page-files-"));
const file = (name, text) => {
  writeFileSync(join(scratch, name), text);
  return join(scratch, name);
};

before(async () => {
  server = await serve();
  browser = await launch();
});

after(async () => {
  await browser?.close();
  const code = await server?.stop();
  rmSync(scratch, { recursive: true });
  assert.equal(code, 0, "the server stopped well");
});

/** Opens a page of the server, and ends with what holds for all of them. */
const on = async (path, view, use, expected = []) => {
  const { page, seen, close } = await open(browser, server.url + path, view);
  try {
    page.setDefaultTimeout(30_000);
    await use(page);
    const [wanted, has] = await page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
    assert(wanted <= has, `nothing sticks out to the side: ${wanted} of ${has} pixels`);
    assert.deepEqual(seen.troubles.filter((text) => !expected.some((part) => text.includes(part))), []);
    const elsewhere = seen.requests.filter((url) => !url.startsWith(`${server.url}/`) && !/^(data|blob):/.test(url));
    assert.deepEqual(elsewhere, [], "nothing is asked of anybody else");
  } finally {
    await close();
  }
};

const shoot = async (page, view, what) => {
  if (!process.env.SCREENSHOTS) return;
  mkdirSync(process.env.SCREENSHOTS, { recursive: true });
  await page.screenshot({ path: join(process.env.SCREENSHOTS, `${view.name}-${what}.png`), fullPage: true });
};

const choose = async (page, ...paths) => (await page.$("#files")).uploadFile(...paths);

/** A drop as the browser itself sends it. */
const drop = async (page, ...paths) => {
  const { x, y, width, height } = await (await page.$("#drop")).boundingBox();
  const session = await page.createCDPSession();
  const data = { items: [], files: paths, dragOperationsMask: 1 };
  for (const type of ["dragEnter", "dragOver", "drop"]) {
    await session.send("Input.dispatchDragEvent", { type, x: x + width / 2, y: y + height / 2, data });
  }
  await session.detach();
};

const text = (page, selector) => page.$eval(selector, (element) => element.textContent);
const texts = (page, selector) => page.$$eval(selector, (all) => all.map((element) => element.textContent));
const until = (page, is, ...values) => page.waitForFunction(is, { polling: 20 }, ...values);
const count = (page, selector, number) =>
  until(page, (selector, number) => document.querySelectorAll(selector).length === number, selector, number);

/** Tags what is chosen, and gives each card's title of its groups, names and scores. */
const tag = async (page, pictures) => {
  await page.click("#tag-button");
  await count(page, "#tags article", pictures);
  return page.$$eval("#tags article", (cards) => cards.map((card) => ({
    titles: [...card.querySelectorAll("h3")].map((title) => title.textContent),
    error: card.querySelector(".error")?.textContent,
    scores: Object.fromEntries([...card.querySelectorAll(".bar")].map((bar) => [
      bar.querySelector(".name").textContent,
      [bar.querySelector("meter").value, Number(bar.querySelector(".score").textContent)],
    ])),
  })));
};

const removeAll = async (page) => {
  while (await page.$("#pictures button")) await page.click("#pictures button");
};

/** The colour of a corner of a picture of the page, as it is on the disk. */
const corner = (page, selector) => page.$eval(selector, async (element) => {
  await element.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [element.naturalWidth, element.naturalHeight];
  const context = canvas.getContext("2d");
  context.drawImage(element, 0, 0);
  return [...context.getImageData(2, 2, 1, 1).data].slice(0, 3);
});

/** Fills in the form, starts an edit, and waits until its progress and its preview show. */
const startEdit = async (page, prompt, steps) => {
  await page.$eval("#prompt", (field) => { field.value = ""; });
  await page.type("#prompt", prompt);
  await page.$eval("#steps", (field, steps) => { field.value = steps; }, steps);
  await page.click("#edit-button");
  await until(page, () => {
    const [progress, bar, preview] = ["progress", "bar", "preview"].map((id) => document.getElementById(id));
    return !progress.hidden && bar.value > 0 && bar.value < 100 && !preview.hidden && preview.naturalWidth > 0;
  });
};

for (const view of VIEWS) {
  test(`pictures are tagged, ${view.name}`, () => on("/", view, async (page) => {
    await until(page, () => document.getElementById("state").textContent.includes("tags: ready"));
    assert(await page.$eval("#tag-button", (button) => button.disabled), "there is nothing to tag yet");
    await choose(page, image("owl.png"));
    const [owl] = await tag(page, 1);
    assert.deepEqual(owl.titles, ["Rating", "Characters", "Tags"]);
    for (const name of ["owl", "closed eyes", ">_<", "hoot (tagbrush)", "general"]) {
      const [bar, score] = owl.scores[name];
      assert(bar > 0.35 && Math.abs(bar - score) < 0.006, `${name}: ${bar} and ${score}`);
    }
    await drop(page, image("mochi.png"), image("robot.jpg"));
    await count(page, "#pictures li", 3);
    const cards = await tag(page, 3);
    assert(cards[0].scores.owl && cards[1].scores.cat && cards[2].scores.robot && !cards[1].scores.owl);
    await shoot(page, view, "tags");
  }));

  test(`a picture is edited, another edit is cancelled, ${view.name}`, () => on("/", view, async (page) => {
    await until(page, () => document.getElementById("state").textContent.includes("edits: ready"));
    await choose(page, join(DEMO, "edit/samples/circle.png"));
    await startEdit(page, "make the background red", 1000);
    await shoot(page, view, "editing");
    await count(page, "#results .pair", 1);
    assert(await page.$eval("#progress", (progress) => progress.hidden));
    // With as many steps as the model is made for, which are over before they can be watched.
    await page.$eval("#steps", (field) => { field.value = ""; });
    const watched = await page.$eval(".compare img:nth-of-type(2)", (element) => element.src);
    await page.click("#edit-button");
    await until(page, (watched) => document.querySelector(".compare img:nth-of-type(2)").src !== watched, watched);
    const [before_, after_] = [await corner(page, ".compare img:nth-of-type(1)"), await corner(page, ".compare img:nth-of-type(2)")];
    const isRed = ([red, green, blue]) => red > green + 80 && red > blue + 80;
    assert(isRed(after_) && !isRed(before_), `${before_} became ${after_}`);
    const shown = () => page.$eval(".compare img:nth-of-type(2)", (element) => element.style.clipPath);
    assert.match(await shown(), /50%/);
    await page.focus(".pair input");
    await page.keyboard.press("End");
    assert.match(await shown(), /100%/, "the slider shows the picture before");
    await page.keyboard.press("Home");
    const type = await page.$eval(".pair a", async (link) => (await fetch(link.href)).headers.get("content-type"));
    assert.equal(type, "image/png", "what is saved");
    await page.$eval(".pair input", (slider) => { slider.value = 50; slider.dispatchEvent(new Event("input")); });
    await shoot(page, view, "edited");

    // Of several pictures, so that it is not over before it is cancelled, however fast the machine.
    await choose(page, ...["square", "triangle", "pair"].map((name) => join(DEMO, `edit/samples/${name}.png`)));
    await count(page, "#pictures li", 4);
    await startEdit(page, "make it greyscale", 1000);
    await page.click("#cancel-button");
    await until(page, () => document.getElementById("progress").hidden);
    assert.match(await text(page, "#edit-note"), /cancelled/i);
    assert.equal(await text(page, "#edit-error"), "");
    assert(await page.$eval("#edit-button", (button) => !button.disabled), "the next edit can begin");
    const { history } = await (await fetch(`${server.url}/tasks?query=history&page_size=1`)).json();
    assert.equal(history[0].task_status, "canceled");
  }));

  test(`a picture is generated, others are cancelled, ${view.name}`, () => on("/", view, async (page) => {
    await until(page, () => document.getElementById("state").textContent.includes("generation: ready"));
    await page.type("#generate-prompt", "a red circle on blue");
    await page.select("#performance", "Quality");
    await page.type("#generate-seed", "3");
    await page.click("#generate-button");
    await until(page, () => {
      const [bar, preview] = ["generate-bar", "generate-preview"].map((id) => document.getElementById(id));
      return bar.value > 13 && bar.value < 100 && !preview.hidden && preview.naturalWidth > 0;
    });
    await shoot(page, view, "generating");
    await count(page, "#generated img", 1);
    const [red, green, blue] = await corner(page, "#generated img");
    assert(blue > red + 80 && blue > green + 50, `the ground is ${red} ${green} ${blue}`);
    assert(await page.$eval("#generate-progress", (progress) => progress.hidden));
    assert.match(await text(page, "#generate-note"), /Note: .*demo model.*styles?.*own/i, "what was done in another way is said");
    const type = await page.$eval("#generated a", async (link) => (await fetch(link.href)).headers.get("content-type"));
    assert.equal(type, "image/png", "what is saved");
    await shoot(page, view, "generated");
    await page.$eval("#number", (field) => { field.value = 32; });
    await page.click("#generate-button");
    await until(page, () => document.getElementById("generate-bar").value > 13);
    await page.click("#stop-button");
    await until(page, () => document.getElementById("generate-progress").hidden);
    assert.equal(await text(page, "#generate-note"), "Cancelled.");
    assert(await page.$eval("#generate-button", (button) => !button.disabled), "the next one can begin");
    const { history } = await (await fetch(`${server.url}/tasks?query=history&page_size=1`)).json();
    assert.equal(history[0].task_status, "canceled");
  }));

  test(`files that are no pictures are named, ${view.name}`, () => on("/", view, async (page) => {
    await choose(page, file("notes.txt", "no picture"), image("owl.png"));
    await count(page, "#pictures li", 1);
    assert.match(await text(page, "#picture-error"), /notes\.txt/);
    await drop(page, file("broken.png", "no picture either"));
    await until(page, () => document.getElementById("picture-error").textContent.includes("broken.png"));
    await count(page, "#pictures li", 1);
    // The browser shows it; the server does not take it, and tags the other.
    await drop(page, file("drawing.svg", '<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"/>'));
    await count(page, "#pictures li", 2);
    assert.equal(await text(page, "#picture-error"), "");
    const [owl, drawing] = await tag(page, 2);
    assert(owl.scores.owl && !owl.error);
    assert.match(drawing.error, /SVG/);
    assert.deepEqual(await texts(page, "#tags figcaption"), ["owl.png", "drawing.svg"]);
    await shoot(page, view, "errors");
    await removeAll(page);
    await count(page, "#pictures li", 0);
    assert(await page.$eval("#tag-button", (button) => button.disabled));
  }));

  test(`the endpoints are listed, ${view.name}`, () => on("/docs", view, async (page) => {
    await until(page, () => document.querySelectorAll("#endpoints section").length > 10);
    const titles = await texts(page, "#endpoints h2");
    assert(titles.some((title) => title.includes("/v1/images/edits")), titles.join());
    await shoot(page, view, "endpoints");
  }));

  test(`every text stands out from its ground, ${view.name}`, () => on("/", view, async (page) => {
    await choose(page, image("owl.png"), file("a.txt", "x"));
    await tag(page, 1);
    const ratios = await page.evaluate(() => {
      const parts = (colour) => colour.match(/[\d.]+/g).map(Number);
      const ground = (element) => {
        const colour = parts(getComputedStyle(element).backgroundColor);
        return colour.length === 4 && colour[3] === 0 ? ground(element.parentElement) : colour;
      };
      const light = (colour) => {
        const [red, green, blue] = colour.slice(0, 3).map((part) => part / 255)
          .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
      };
      return ["body", "header p", "header a", ".link", "h2", "label", "select", "#tag-button", "#picture-error", ".bar .name", ".score"]
        .map((selector) => {
          const element = document.querySelector(selector);
          const [one, other] = [parts(getComputedStyle(element).color), ground(element)].map(light).sort((a, b) => b - a);
          return [selector, (one + 0.05) / (other + 0.05)];
        });
    });
    // The web's guidelines for text (WCAG 2.2, 1.4.3).
    for (const [selector, ratio] of ratios) assert(ratio >= 4.5, `${selector}: ${ratio}`);
  }));
}

test("what the server refuses is shown in its own words", () => on("/", VIEWS[0], async (page) => {
  await choose(page, image("owl.png"));
  await page.type("#prompt", "make the background blue");
  await page.$eval("#size", (field) => { field.value = "7x7"; });
  await page.click("#edit-button");
  await until(page, () => document.getElementById("edit-error").textContent.includes("size"));
  assert(await page.$eval("#edit-button", (button) => !button.disabled));
}, ["status of 400"]));

test("a tag cannot bring markup into the page", async () => {
  // Names of files, tags and messages are the only foreign texts: they go in as text.
  for (const name of ["page.js", "generate.js"]) {
    const script = readFileSync(join(import.meta.dirname, "../../assets", name), "utf8");
    assert(!/innerHTML|insertAdjacentHTML|document\.write/.test(script));
  }
});
