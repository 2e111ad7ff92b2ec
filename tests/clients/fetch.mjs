// GET and POST through the edge with fetch: Node 18 or newer, Deno, Bun, or a browser's module.
const base = globalThis.process?.env.BASE_URL ?? "http://127.0.0.1:8080";

async function call(path, options = {}) {
  const headers = { ...options.headers, Authorization: "Bearer demo-token" };
  const response = await fetch(`${base}/api/hello${path}`, { ...options, headers });
  const code = response.headers.get("requestrocket-proxy-code");
  const body = await response.text();
  console.log(response.status, code, body);
  if (!response.ok || code !== "proxy-access-granted") throw new Error(`${path}: ${response.status}`);
}

await call("/users?page=2");
await call("/users", {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify({ name: "Ada" }),
});
