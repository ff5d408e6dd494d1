// Pictures out of prompts: events with progress and preview while they are made. What page.js has is used here.
"use strict";

let generating = null; // the id of the task that is followed
let canGenerate = false;

const updateGenerate = () => {
  $("generate-button").disabled = !canGenerate || generating !== null;
  $("stop-button").hidden = generating === null;
};

// Gives every event of a task to `hear`: progress, preview, message, images.
const listen = async (body, hear) => {
  const answer = await fetch("/v1/engine/generate/", { method: "POST", body: JSON.stringify({ ...body, stream_output: true }) });
  if (!answer.ok) throw new Error((await answer.json()).error.message);
  generating = answer.headers.get("x-task-id");
  updateGenerate();
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let left = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const frames = (left + value).split("\r\n\r\n");
    left = frames.pop();
    for (const frame of frames) {
      const line = frame.split("\r\n")[0];
      if (line.startsWith("data: {")) hear(JSON.parse(line.slice(6)));
    }
  }
};

const showGenerated = (links) => $("generated").replaceChildren(...links.map((link) => {
  // The server's name in the link may be another one than the page's.
  const path = new URL(link).pathname;
  const card = make("figure");
  const image = make("img");
  [image.src, image.alt] = [path, "Generated picture"];
  const save = make("a", "Save");
  [save.href, save.download] = [path, path.split("/").pop()];
  card.append(image, save);
  return card;
}));

const hearEvent = ({ progress, preview, message, images }) => {
  if (message.startsWith("Note: ")) {
    $("generate-note").textContent = message;
    return;
  }
  $("generate-bar").value = progress;
  $("generate-text").textContent = message;
  if (preview) {
    $("generate-preview").src = preview;
    $("generate-preview").hidden = false;
  }
  if (message.startsWith("Failed: ")) throw new Error(message.slice(8));
  if (message === "Cancelled") $("generate-note").textContent = "Cancelled.";
  if (images.length) showGenerated(images);
};

$("generate-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  $("generate-error").textContent = $("generate-note").textContent = "";
  [$("generate-preview").hidden, $("generate-bar").value, $("generate-text").textContent] = [true, 0, "waiting"];
  $("generate-progress").hidden = false;
  $("generate-button").disabled = true;
  const body = { prompt: $("generate-prompt").value, performance_selection: $("performance").value };
  body.image_number = Number($("number").value);
  if ($("generate-seed").value) body.image_seed = Number($("generate-seed").value);
  try {
    await listen(body, hearEvent);
  } catch (error) {
    $("generate-error").textContent = error.message;
  }
  generating = null;
  $("generate-progress").hidden = true;
  updateGenerate();
});

$("stop-button").addEventListener("click", () => {
  ask(`/tasks/${generating}/cancel`, { method: "POST" }).catch((error) => { $("generate-error").textContent = error.message; });
});
