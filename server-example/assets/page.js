// The page: pictures by drag and drop, tags as bars, edits as jobs with progress and preview. generate.js has the rest.
"use strict";

const $ = (id) => document.getElementById(id);
const pictures = []; // {file, url}
let job = null; // the id of the job that is shown
let canEdit = false;

const make = (tag, text, className) => {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  return element;
};

// The JSON of an answer, or an error with the server's own words.
const ask = async (path, options) => {
  const answer = await fetch(path, options);
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error((body.error && body.error.message) || `The server answered ${answer.status}`);
  return body;
};

const update = () => {
  $("tag-button").disabled = pictures.length === 0;
  $("edit-button").disabled = pictures.length === 0 || !canEdit || job !== null;
  $("cancel-button").hidden = job === null;
};

const noPicture = (file) => {
  const before = $("picture-error").textContent;
  $("picture-error").textContent = `${before}${before && " "}${file.name} is not a picture.`;
};

const add = (files) => {
  if (files.length) $("picture-error").textContent = "";
  for (const file of files) {
    if (!file.type.startsWith("image/")) {
      noPicture(file);
      continue;
    }
    const picture = { file, url: URL.createObjectURL(file) };
    pictures.push(picture);
    const item = make("li");
    const image = make("img");
    image.src = picture.url;
    image.alt = file.name;
    const drop = () => {
      pictures.splice(pictures.indexOf(picture), 1);
      item.remove();
      update();
    };
    image.addEventListener("error", () => {
      drop();
      noPicture(file);
    });
    const remove = make("button", "×");
    remove.title = remove.ariaLabel = `Remove ${file.name}`;
    remove.addEventListener("click", drop);
    item.append(image, remove);
    $("pictures").append(item);
  }
  update();
};

const toBase64 = (file) => new Promise((resolve, reject) => {
  const reader = new FileReader();
  reader.onload = () => resolve(reader.result);
  reader.onerror = () => reject(new Error(`${file.name} cannot be read`));
  reader.readAsDataURL(file);
});

// Underscores are spaces in words, and eyes' neighbours in faces such as `>_<`.
const spoken = (name) => (/\p{L}{2}/u.test(name) ? name.replaceAll("_", " ") : name);

const bars = (title, scores, most) => {
  const group = make("div", undefined, "bars");
  const sorted = Object.entries(scores).sort((a, b) => b[1] - a[1]);
  if (sorted.length) group.append(make("h3", title));
  for (const [name, score] of sorted.slice(0, most)) {
    const row = make("div", undefined, "bar");
    const meter = make("meter");
    meter.max = 1;
    meter.value = score;
    row.append(make("span", spoken(name), "name"), meter, make("span", score.toFixed(2), "score"));
    group.append(row);
  }
  return group;
};

$("tag-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  $("tag-error").textContent = "";
  $("tag-button").disabled = true;
  const shown = [...pictures];
  try {
    const images = await Promise.all(shown.map(({ file }) => toBase64(file)));
    const body = { images, model: $("model").value, threshold: Number($("threshold").value), on_error: "skip" };
    const headers = { "content-type": "application/json" };
    const answer = await ask("/tagger/v1/interrogate-batch", { method: "POST", headers, body: JSON.stringify(body) });
    const failed = new Map((answer.errors || []).map((error) => [error.index, error.detail]));
    $("tags").replaceChildren(...answer.captions.map((caption, i) => {
      const card = make("article");
      const image = make("img");
      image.src = shown[i].url;
      image.alt = shown[i].file.name;
      const figure = make("figure");
      figure.append(image, make("figcaption", image.alt));
      const found = make("div");
      if (failed.has(i)) found.append(make("p", failed.get(i), "error"));
      card.append(figure, found);
      found.append(bars("Rating", caption.ratings, 4), bars("Characters", caption.characters, 10), bars("Tags", caption.tags, 40));
      return card;
    }));
  } catch (error) {
    $("tag-error").textContent = error.message;
  }
  update();
});

const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const follow = async (id) => {
  for (;;) {
    const task = await ask(`/tasks/${id}`);
    if (task.finish_mills > 0) return task;
    const isRunning = task.task_status === "running";
    $("bar").value = isRunning ? task.progress : 0;
    $("progress-text").textContent = isRunning ? `${task.progress} %` : "waiting";
    if (isRunning && task.preview) {
      $("preview").src = `data:image/png;base64,${task.preview}`;
      $("preview").hidden = false;
    }
    await wait(300);
  }
};

const showResults = (task, before) => {
  $("results").replaceChildren(...task.result.map((link, i) => {
    // The server's name in the link may be another one than the page's.
    const path = new URL(link).pathname;
    const card = make("article", undefined, "pair");
    const frame = make("div", undefined, "compare");
    const [was, is] = [make("img"), make("img")];
    [was.src, was.alt] = [before[i].url, "Before"];
    [is.src, is.alt] = [path, "After"];
    const slider = make("input");
    [slider.type, slider.min, slider.max, slider.value] = ["range", 0, 100, 50];
    slider.ariaLabel = "Before and after";
    const cut = () => { is.style.clipPath = `inset(0 0 0 ${slider.value}%)`; };
    slider.addEventListener("input", cut);
    cut();
    frame.append(was, is);
    const save = make("a", "Save");
    [save.href, save.download] = [path, path.split("/").pop()];
    card.append(frame, slider, save);
    return card;
  }));
};

$("edit-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  $("edit-error").textContent = $("edit-note").textContent = "";
  const shown = [...pictures];
  const form = new FormData();
  form.append("prompt", $("prompt").value);
  shown.forEach(({ file }) => form.append("images", file));
  form.append("size", $("size").value || "auto");
  if ($("steps").value) form.append("num_inference_steps", $("steps").value);
  if ($("seed").value) form.append("seed", $("seed").value);
  form.append("async_process", "true");
  try {
    const accepted = await ask("/v1/images/edits", { method: "POST", body: form });
    job = accepted.task_id;
    [$("preview").hidden, $("bar").value, $("progress-text").textContent] = [true, 0, "waiting"];
    $("progress").hidden = false;
    update();
    const task = await follow(job);
    if (task.task_status === "finished") showResults(task, shown);
    else if (task.task_status === "failed") throw new Error(task.message);
    else $("edit-note").textContent = "Cancelled.";
  } catch (error) {
    $("edit-error").textContent = error.message;
  }
  job = null;
  $("progress").hidden = true;
  update();
});

$("cancel-button").addEventListener("click", () => {
  if (job) ask(`/tasks/${job}/cancel`, { method: "POST" }).catch((error) => { $("edit-error").textContent = error.message; });
});

$("files").addEventListener("change", (event) => { add(event.target.files); event.target.value = ""; });
$("threshold").addEventListener("input", () => { $("threshold-value").textContent = Number($("threshold").value).toFixed(2); });
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", name === "dragover");
    if (name === "drop") add(event.dataTransfer.files);
  });
}
document.addEventListener("paste", (event) => add(event.clipboardData.files));

const start = async () => {
  const { models } = await ask("/tagger/v1/interrogators");
  $("model").replaceChildren(...models.map((name) => new Option(name)));
  for (;;) {
    const answer = await fetch("/ready");
    const { tagger, edit, generate } = await answer.json();
    canEdit = edit.status === "ready";
    canGenerate = generate.status === "ready";
    const word = (name, { status, reason }) => `${name}: ${status}${reason ? ` (${reason})` : ""}`;
    $("state").textContent = [word("tags", tagger), word("edits", edit), word("generation", generate)].join(" · ");
    update();
    updateGenerate();
    if ([tagger, edit, generate].every(({ status }) => status !== "loading")) return;
    await wait(1000);
  }
};
// When the other script is there, too.
document.addEventListener("DOMContentLoaded", () => {
  start().catch((error) => { $("state").textContent = `No server: ${error.message}`; });
});
