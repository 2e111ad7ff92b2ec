// A target whose parser is nobody's of ours: Node's, which is llhttp, in its strict mode. It prints a line of JSON for all it
// meets: `listening` (its port), then requests (whole or `cut`), and an `error` for every byte that it could not read as HTTP.
// Text is Latin-1, one character a byte. It ends when its input does.
import http from "node:http";
import path from "node:path/posix";
import querystring from "node:querystring";

const print = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

function meet(request, response) {
  const pieces = [];
  const seen = (how) => {
    print({
      ...how,
      method: request.method,
      target: request.url,
      headers: pairs(request.rawHeaders),
      trailers: pairs(request.rawTrailers),
      body: Buffer.concat(pieces).toString("latin1"),
      readings: readings(request.url.split("?", 1)[0]),
    });
  };
  request.on("data", (piece) => pieces.push(piece));
  request.on("end", () => {
    seen({});
    response?.writeHead(200, { "Content-Length": "2" }).end(request.method === "HEAD" ? "" : "ok");
  });
  request.on("close", () => request.complete || seen({ cut: true }));
  request.on("error", () => {}); // that it was cut is told on close
}

// What this path is to some who read it: decoded; the same tidied up; resolved as browsers do, then decoded; that tidied up, too.
function readings(raw) {
  const decode = (path_) => querystring.unescapeBuffer(path_).toString("latin1");
  const [plain, resolved] = [decode(raw), decode(new URL(`http://target${raw}`).pathname)];
  return [plain, path.normalize(plain), resolved, path.normalize(resolved)];
}

function pairs(raw) {
  return Array.from({ length: raw.length / 2 }, (_, at) => [raw[2 * at], raw[2 * at + 1]]);
}

const server = http.createServer({ insecureHTTPParser: false, maxHeaderSize: 1 << 20, keepAliveTimeout: 60_000 }, meet);
server.maxHeadersCount = 0; // all of them
server.on("checkExpectation", meet);
server.on("connect", (request, socket) => {
  meet(request);
  socket.destroy();
});
server.on("clientError", (error, socket) => {
  // A connection that ends within a request is no error of framing: that request is reported as cut.
  const cut = ["ECONNRESET", "EPIPE", "HPE_INVALID_EOF_STATE"].includes(error.code);
  if (!cut) print({ error: error.code ?? String(error), packet: error.rawPacket?.toString("latin1") ?? "" });
  if (socket.writable) socket.end("HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
});
server.listen(0, "127.0.0.1", () => print({ listening: server.address().port }));
// Whoever has read the answer to a line of input has read all that was met before it.
process.stdin.on("data", () => print({ asked: true })).on("end", () => process.exit());
