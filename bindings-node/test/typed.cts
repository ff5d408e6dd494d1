// The types from CommonJS.

import tagbrush = require("tagbrush");

async function main(): Promise<string> {
  const tagger: tagbrush.Tagger = await tagbrush.Tagger.load();
  const [tags] = tagger.tagBatchSync(["a.png"]);
  // @ts-expect-error no such method
  tagger.retag(tags);
  return tags?.caption() ?? "";
}

module.exports = main;
