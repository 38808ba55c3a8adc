// A target that speaks HTTP/2: `node http2_target.mjs CERTIFICATE KEY PORT`; without a certificate in clear.
// /echo gives back what comes, as it comes; /large 16 MiB; /trailers ends with some; /slow never ends; /drop cuts the connection.
import http2 from "node:http2";
import fs from "node:fs";

const [certificate, key, port] = process.argv.slice(2);
const server = certificate === "-" ? http2.createServer({ maxSessionMemory: 200 })
  : http2.createSecureServer({ maxSessionMemory: 200, cert: fs.readFileSync(certificate), key: fs.readFileSync(key) });
let cancelled = 0;
server.on("stream", (stream, headers) => {
  stream.on("error", () => {});
  const path = headers[":path"];
  if (path === "/echo") {
    stream.respond({ ":status": 200 });
    stream.pipe(stream);
  } else if (path === "/large") {
    stream.respond({ ":status": 200, "content-length": 16 << 20 });
    stream.end(Buffer.alloc(16 << 20, "x"));
  } else if (path === "/trailers") {
    stream.respond({ ":status": 200 }, { waitForTrailers: true });
    stream.on("wantTrailers", () => stream.sendTrailers({ "x-sum": "7" }));
    stream.end("body");
  } else if (path === "/slow") {
    stream.on("close", () => { cancelled += 1; });
    stream.respond({ ":status": 200 });
    stream.write("begun");
  } else if (path === "/drop") {
    stream.session.socket.destroy();
  } else {
    stream.respond({ ":status": 200, "content-type": "application/json" });
    stream.end(JSON.stringify({ path, method: headers[":method"], authority: headers[":authority"], cancelled }));
  }
});
server.listen(Number(port), "127.0.0.1", () => console.log(`ready ${server.address().port}`));
