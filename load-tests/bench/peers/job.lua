-- The edge's job: proxy by id, credential by digest, limit by credential, and the target's credential in place of the client's.
local ffi = require("ffi")
require("resty.core")

ffi.cdef([[
unsigned char *SHA256(const unsigned char *data, size_t length, unsigned char *digest);
int CRYPTO_memcmp(const void *a, const void *b, size_t length);
]])

local C, floor, var = ffi.C, math.floor, ngx.var
local limits = ngx.shared.limits
local digest = ffi.new("unsigned char[32]")
local nobody = string.rep("\0", 32)

local job, proxies = {}, {}

-- Lines of: id, base URL, host, target's Authorization, client id, digest of its token in hexadecimal, requests a minute.
function job.load(path)
  local clients = {}
  for line in io.lines(path) do
    local id, base, host, authorization, client, hex, limit = line:match("^(.-)\t(.-)\t(.-)\t(.-)\t(.-)\t(.-)\t(.-)$")
    clients[client] = clients[client] or {
      id = client,
      limit = tonumber(limit),
      digest = hex:gsub("..", function(byte) return string.char(tonumber(byte, 16)) end),
    }
    proxies[id] = { base = base, host = host, authorization = authorization, client = clients[client] }
  end
end

local function refuse(status, title, code, message)
  local body = '{"type":"about:blank","title":"' .. title .. '","status":' .. status .. ',"detail":"' .. message
    .. '","code":"' .. code .. '","request_id":"' .. var.request_id .. '"}'
  var.proxy_code, var.proxy_message = code, message
  ngx.status = status
  ngx.header.content_type = "application/problem+json"
  ngx.header.cache_control = "no-store"
  ngx.header.content_length = #body
  ngx.print(body)
  return ngx.exit(status)
end

-- The window that slides: this minute's count, and as much of the last one's as still lies within 60 seconds.
local function admitted(client)
  local now = ngx.now()
  local minute = floor(now / 60)
  if client.minute ~= minute then
    client.minute = minute
    client.key, client.last = client.id .. ":" .. minute, client.id .. ":" .. (minute - 1)
  end
  local count = limits:incr(client.key, 1, 0, 120)
  local before = limits:get(client.last) or 0
  if count and before * (1 - (now / 60 - minute)) + count <= client.limit then
    return true
  end
  limits:incr(client.key, -1)
  return false
end

function job.admit()
  local id, rest = var.request_uri:match("^/api/([^/?]+)(.*)$")
  local proxy = id and proxies[id]
  local token = (var.http_authorization or ""):match("^[Bb]earer +(.+)$") or ""
  C.SHA256(token, #token, digest)
  local right = C.CRYPTO_memcmp(digest, proxy and proxy.client.digest or nobody, 32) == 0
  if not (proxy and right) then
    return refuse(403, "Forbidden", "proxy-access-denied", "Invalid proxy credential")
  end
  local client = proxy.client
  var.proxy_id, var.client_id, var.logged_path = id, client.id, rest:match("^[^?]*")
  if not admitted(client) then
    ngx.header.retry_after = 60 - floor(ngx.now() % 60)
    local message = "Rate limit exceeded: " .. client.limit .. " requests per minute"
    return refuse(429, "Too Many Requests", "proxy-access-granted", message)
  end
  var.target_url, var.target_host, var.target_authorization = proxy.base .. rest, proxy.host, proxy.authorization
end

return job
