// Runs the script of an exported page against the least document that it needs, and prints what it shows.
// Usage: node page_driver.js PAGE ACTION...   (an action: ID=VALUE fires what that element listens to)
"use strict";
const fs = require("fs");
const vm = require("vm");

class Node {
  constructor(tag) { Object.assign(this, { tag, className: "", text: "", children: [], listeners: {}, value: "", hidden: false, max: "" }); }
  get textContent() { return this.text + this.children.map((one) => one.textContent).join(""); }
  set textContent(text) { this.text = text; this.children = []; }
  set innerHTML(text) { throw new Error("markup was made of text"); }
  appendChild(one) { this.children.push(one); return one; }
  replaceChildren(...given) { this.text = ""; this.children = given; }
  addEventListener(name, act) { this.listeners[name] = act; }
}

const [page, ...actions] = process.argv.slice(2);
const source = fs.readFileSync(page, "utf-8");
const parts = [...source.matchAll(/<script([^>]*)>([\s\S]*?)<\/script>/g)];
const found = new Map();
const element = (id) => {
  if (!found.has(id)) found.set(id, new Node(id));
  return found.get(id);
};
element("recording").textContent = parts.find((part) => part[1].includes("application/json"))[2];
element("speed").value = "1";
let ticking = null;
const seen = { tags: new Set() };
const document = {
  getElementById: element,
  createElement: (tag) => { seen.tags.add(tag); return new Node(tag); },
};
const setInterval = (act) => { ticking = act; return 1; };
const clearInterval = () => { ticking = null; };
vm.runInNewContext(parts.find((part) => !part[1])[2], { document, setInterval, clearInterval, Math, Number, String, JSON });
for (const action of actions) {
  const [id, value] = action.split("=");
  if (value !== undefined) element(id).value = value;
  const listeners = element(id).listeners;
  (listeners.click || listeners.input || listeners.change)();
  for (let round = 0; ticking !== null && round < 100000; round++) ticking();
}
const rows = element("blocks").children;
process.stdout.write(JSON.stringify({
  head: element("head").textContent,
  verdict: element("verdict").textContent,
  blocks: rows.map((row) => row.textContent),
  later: rows.filter((row) => row.className.includes("later")).length,
  marks: element("marks").children.map((one) => one.textContent),
  now: element("now").textContent,
  max: element("slider").max,
  playing: ticking !== null,
  tags: [...seen.tags].sort(),
  sessions: element("session").children.map((one) => one.textContent),
}));
