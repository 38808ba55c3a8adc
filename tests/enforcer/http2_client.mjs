// A client of HTTP/2: `node http2_client.mjs URL TRUST ADDRESS`: many requests over one connection; prints what came of them.
import http2 from "node:http2";
import fs from "node:fs";

const [url, trust, host] = process.argv.slice(2);
const session = http2.connect(url, { ca: fs.readFileSync(trust), host });
const problems = [];
session.on("error", (error) => problems.push(String(error)));

function ask(path, { method = "GET", body, abort = false } = {}) {
  return new Promise((resolve) => {
    const stream = session.request({ ":path": path, ":method": method }, { endStream: body === undefined });
    const seen = { status: 0, bytes: 0, text: "", trailers: {}, code: 0 };
    stream.on("response", (headers) => { seen.status = headers[":status"]; seen.rule = headers["x-capd-rule"]; });
    stream.on("trailers", (trailers) => { seen.trailers = { ...trailers }; });
    stream.on("data", (data) => {
      seen.bytes += data.length;
      if (seen.text.length < 4096) seen.text += data;
      if (abort) stream.close(http2.constants.NGHTTP2_CANCEL);
    });
    stream.on("error", () => {});
    stream.on("close", () => { seen.code = stream.rstCode; resolve(seen); });
    if (body !== undefined) stream.end(body);
  });
}

const upload = Buffer.alloc(3 << 20, "y");
const plain = Array.from({ length: 30 }, (_, number) => ask(`/n/${number}`));
const [large, echo, trailers, denied, ...many] = await Promise.all([
  ask("/large"), ask("/echo", { method: "POST", body: upload }), ask("/trailers"),
  ask("/denied", { method: "POST", body: upload }), ...plain]);
const aborted = await ask("/slow", { abort: true });
let cancelled = 0;
for (let turn = 0; turn < 100 && !cancelled; turn += 1) cancelled = JSON.parse((await ask("/again")).text).cancelled;
session.close();
console.log(JSON.stringify({ large, echo, trailers, denied, many: many.map((one) => one.status), aborted, cancelled, problems,
  protocol: session.alpnProtocol }, (name, value) => name === "text" && value.length > 300 ? value.slice(0, 300) : value));
