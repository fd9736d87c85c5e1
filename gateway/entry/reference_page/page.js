// Shows the OpenAPI document beside this page. Everything it writes is text: no document can become markup.
"use strict";

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) element.setAttribute(name, value);
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

// One line that says what a schema allows.
function sketch(schema) {
  if (schema === true || schema === undefined || Object.keys(schema).length === 0) return "any";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(sketch).join(" | ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (schema.type === "array") return `[${sketch(schema.items)}]`;
  if (schema.type === "object" && schema.additionalProperties) return `{string: ${sketch(schema.additionalProperties)}}`;
  const bounds = [];
  for (const [word, sign] of [["minimum", "≥ "], ["exclusiveMinimum", "> "], ["maximum", "≤ "],
    ["minLength", "at least "], ["maxLength", "at most "], ["format", ""], ["pattern", ""]]) {
    if (schema[word] !== undefined) bounds.push(sign + schema[word] + (word.endsWith("Length") ? " characters" : ""));
  }
  return (schema.type ?? "any") + (bounds.length ? ` (${bounds.join(", ")})` : "");
}

function table(heads, rows) {
  const head = make("tr", null, ...heads.map((text) => make("th", null, text)));
  const body = rows.map((cells) => make("tr", null, ...cells.map((cell) => make("td", null, cell))));
  return make("table", null, make("thead", null, head), make("tbody", null, ...body));
}

function code(text) {
  return make("code", null, text);
}

function typeLink(schema) {
  const name = schema?.$ref?.split("/").pop() ?? schema?.items?.$ref?.split("/").pop();
  return name ? make("a", { href: `#type-${name}` }, code(sketch(schema))) : code(sketch(schema));
}

function showContent(content) {
  const item = content["x-itemSchema"];
  if (!item) return typeLink(content.schema);
  const shown = make("span", null, "stream of ");
  for (const frame of item.oneOf ?? [item]) {
    const name = frame.properties.event.const;
    shown.append(name === "message" ? "" : ` ${name}: `, typeLink(frame.properties.data.contentSchema), " ");
  }
  return shown;
}

function showOperation(path, method, operation, server) {
  const section = make("section", { id: operation.operationId });
  section.append(make("h2", null, make("span", { class: "method" }, method.toUpperCase()), code(server + path)));
  section.append(make("p", null, operation.summary));
  if (operation.parameters?.length) {
    section.append(make("h3", null, "Parameters"));
    section.append(table(["name", "in", "type", ""], operation.parameters.map((each) => [
      code(each.name + (each.required ? "" : "?")), each.in, code(sketch(each.schema)), each.description ?? ""])));
  }
  for (const [media, content] of Object.entries(operation.requestBody?.content ?? {})) {
    section.append(make("h3", null, `Body, ${media}`), typeLink(content.schema));
  }
  section.append(make("h3", null, "Answers"));
  const answers = Object.entries(operation.responses).flatMap(([status, response]) => {
    const contents = Object.entries(response.content ?? { "": null });
    return contents.map(([media, content]) => [
      code(status), response.description, media, content ? showContent(content) : ""]);
  });
  section.append(table(["status", "", "", "type"], answers));
  return section;
}

function showType(name, schema) {
  const section = make("section", { id: `type-${name}` }, make("h2", null, code(name)));
  if (schema.description) section.append(make("p", null, schema.description));
  const required = new Set(schema.required ?? []);
  const fields = Object.entries(schema.properties ?? {});
  if (fields.length) {
    section.append(table(["field", "type", ""], fields.map(([field, each]) => [
      code(field + (required.has(field) ? "" : "?")), typeLink(each), each.description ?? ""])));
  } else section.append(code(sketch(schema)));
  return section;
}

async function show() {
  const contents = document.getElementById("contents");
  const reference = document.getElementById("reference");
  const answer = await fetch("openapi.json");
  if (!answer.ok) throw new Error(`openapi.json: ${answer.status}`);
  const api = await answer.json();
  document.title = `${api.info.title}: API reference`;
  reference.replaceChildren(make("h1", null, api.info.title), make("p", null, api.info.description));
  const source = make("a", { href: "openapi.json" }, "openapi.json");
  reference.append(make("p", { class: "dim" }, `Version ${api.info.version}. For tools: `, source, "."));
  contents.append(make("strong", null, api.info.title));
  const server = api.servers[0].url === "/" ? "" : api.servers[0].url;
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      reference.append(showOperation(path, method, operation, server));
      const label = make("span", { class: "method" }, method.toUpperCase());
      contents.append(make("a", { href: `#${operation.operationId}` }, label, path));
    }
  }
  contents.append(make("p", null, make("strong", null, "Types")));
  for (const [name, schema] of Object.entries(api.components.schemas)) {
    reference.append(showType(name, schema));
    contents.append(make("a", { href: `#type-${name}` }, name));
  }
}

show().catch((error) => {
  document.getElementById("reference").replaceChildren(make("p", { role: "alert" }, String(error)));
});
