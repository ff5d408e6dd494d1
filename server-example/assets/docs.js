// Lists what /openapi.json describes.
"use strict";

const make = (tag, text, className) => {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  return element;
};

const resolve = (api, schema) => {
  const name = schema && schema.$ref && schema.$ref.split("/").pop();
  return name ? api.components.schemas[name] : schema;
};

const typeOf = (schema) => {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (Array.isArray(schema.type)) return schema.type.join(" or ");
  if (schema.oneOf) return schema.oneOf.map(typeOf).join(" or ");
  return schema.type === "array" ? `list of ${typeOf(schema.items)}` : schema.type || "";
};

// What stands between backticks is code.
const written = (tag, text) => {
  const element = make(tag);
  element.append(...(text || "").split("`").map((part, i) => (i % 2 ? make("code", part) : part)));
  return element;
};

// Rows of a name, sometimes a type, and a text.
const fieldTable = (rows) => {
  const table = make("table");
  for (const [name, ...rest] of rows) {
    table.insertRow().append(make("td", name, "name"), ...rest.map((text) => written("td", text)));
  }
  return table;
};

const show = (api) => {
  const main = document.getElementById("endpoints");
  main.replaceChildren();
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const section = make("section");
      const title = make("h2");
      title.append(make("span", method.toUpperCase(), "method"), ` ${path}`);
      section.append(title, written("p", operation.summary || operation.description));
      const parameters = (operation.parameters || []).map((p) => [p.name, typeOf(p.schema), p.description]);
      if (parameters.length) section.append(make("h3", "Parameters"), fieldTable(parameters));
      for (const [kind, content] of Object.entries((operation.requestBody || {}).content || {})) {
        const schema = resolve(api, content.schema) || {};
        const rows = Object.entries(schema.properties || {}).map(([name, p]) => [
          (schema.required || []).includes(name) ? `${name} *` : name, typeOf(p), p.description,
        ]);
        section.append(make("h3", `Body: ${kind}`), fieldTable(rows));
      }
      const answers = Object.entries(operation.responses || {}).map(([status, r]) => [status, r.description]);
      section.append(make("h3", "Answers"), fieldTable(answers));
      main.append(section);
    }
  }
};

fetch("/openapi.json").then((answer) => answer.json()).then(show).catch((error) => {
  document.getElementById("endpoints").textContent = `The description could not be read: ${error}`;
});
