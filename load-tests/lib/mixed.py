"""Clients of every kind, good and bad, each of whose answers is verified: mixed.py PORTS.

PORTS is a JSON object: `plain` and `tls`. Runs until its standard input ends, then prints what happened, as JSON.
The proxies, credentials and targets that it expects are those of soak.py.
"""

import asyncio
import collections
import json
import random
import ssl
import sys
import time
import zlib

from exchange import Again, Answer, Broken, Http1, Http2, head
from origin import PATTERN

TIMEOUT = 30.0
MIB = 1 << 20
MOST, MOST_UPLOAD = 6 * MIB, 10 * MIB
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD")
SIZES = (0, 1, 1000, 1000, 4096, 16_384, 65_535, 65_536, 65_537, 300_000)
LARGE = (MIB, 3 * MIB, MOST - 1, MOST)
BEYOND = (MOST + 1, MOST + 70_000, 8 * MIB)
UPGRADE = [
    ("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
]  # fmt: skip
GRANTED = "proxy-access-granted"
OF_TARGET = (GRANTED, "Proxy authentication successful", None)
# Status: what the answer says of itself: code, message, error of RFC 9209.
DENIED = (403, ("proxy-access-denied", "Invalid proxy credential", "http_request_denied"))
SUSPENDED = (402, ("billing-suspended", "Payment Required - Account suspended due to insufficient budget", "http_request_denied"))
RULE = (403, (GRANTED, "Denied by authorization rule no-secrets", "http_request_denied"))
LIMITED = (429, (GRANTED, "Rate limit exceeded: 30 requests per minute", "http_request_denied"))
NO_API = (404, ("proxy-access-denied", "Path must be /api/{proxyId}/{target path}", "http_request_error"))
TOO_LARGE = (413, ("response-too-large", "Response payload exceeds 6MB limit", "http_response_body_size"))
TOO_MUCH = (413, (GRANTED, "Request payload exceeds 10MB limit", "http_request_error"))
LATE = (504, (GRANTED, "Target did not respond within 1 seconds", "http_response_timeout"))
DOWN = (502, (GRANTED, "Target could not be reached: connect", "connection_refused"))


def told(answer):
    error = answer.header("proxy-status")
    error = error.partition("error=")[2].partition(";")[0] if error is not None else None
    return answer.header("requestrocket-proxy-code"), answer.header("requestrocket-proxy-message"), error


def expect(condition, what):
    if not condition:
        raise Broken(what)


def granted(answer, body=None):
    """The target's own answer, all of one generation."""
    expect(answer.status == 200, f"status {answer.status}, {told(answer)}")
    expect(told(answer) == OF_TARGET, f"labels {told(answer)}")
    expect(answer.header("x-seen") in ("Bearer a a", "Bearer b b"), f"seen by the target: {answer.header('x-seen')}")
    if body is not None:
        expect(answer.body == body, f"a body of {len(answer.body)} bytes, other than the {len(body)} expected")


def refused(answer, status, labels, method="GET"):
    expect((answer.status, told(answer)) == (status, labels), f"status {answer.status}, {told(answer)}")
    if method != "HEAD":
        problem = json.loads(answer.body)
        expect(problem["status"] == status and problem["detail"] == labels[1], f"the problem is {problem}")
        expect(problem["request_id"] == answer.header("x-request-id"), "another request id in the body")


def bearer(token="token"):
    return [("Authorization", f"Bearer {token}")]


def pattern(size):
    return memoryview(PATTERN)[:size]


# ---- What a client does. Each gets a connection of either protocol.


async def small(line):
    size, kind = random.choice(SIZES), random.choice(("sized", "chunked"))
    answer = await line.exchange("GET", f"/api/p/{kind}/{size}", bearer())
    granted(answer, pattern(size))
    expect(answer.header("content-length") == str(size), "no exact length")
    return answer


async def large(line):
    size, kind = random.choice(LARGE), random.choice(("sized", "chunked"))
    answer = await line.exchange("GET", f"/api/p/{kind}/{size}", bearer())
    granted(answer, pattern(size))
    expect(answer.header("content-length") == str(size), "no exact length")
    return answer


async def beyond(line):
    answer = await line.exchange("GET", f"/api/p/{random.choice(('sized', 'chunked'))}/{random.choice(BEYOND)}", bearer())
    refused(answer, *TOO_LARGE)
    return answer


async def streamed(line):
    size = random.choice(SIZES + LARGE)
    answer = await line.exchange("GET", f"/api/streamed/chunked/{size}", bearer())
    granted(answer, pattern(size))
    return answer


async def method(line):
    method = random.choice(METHODS)
    body = pattern(random.choice(SIZES)) if method in ("POST", "PUT", "PATCH") else None
    return await echo(line, method, body, random.random() < 0.5)


async def upload(line):
    return await echo(line, "POST", pattern(random.choice((MIB, 5 * MIB, MOST_UPLOAD))), random.random() < 0.5)


async def echo(line, method, body, chunked):
    answer = await line.exchange(method, "/api/p/echo", bearer(), body, chunked)
    granted(answer)
    if method == "HEAD":
        expect(answer.body == b"", "HEAD has a body")
        return answer
    came = json.loads(answer.body)
    body = body or b""
    expect(came == {"method": method, "length": len(body), "crc": zlib.crc32(body)}, f"{method}, {len(body)} bytes: the target got {came}")
    return answer


async def too_much(line):
    answer = await line.exchange("POST", "/api/p/echo", bearer(), pattern(MOST_UPLOAD + random.choice((1, 100_000))), random.random() < 0.5)
    refused(answer, *TOO_MUCH)
    return answer


async def refusal(line):
    target, token, expected = random.choice((
        ("/api/p/echo", "wrong", DENIED), ("/api/nobody/echo", "token", DENIED), ("/api/p/secret/x", "token", RULE),
        ("/api/p/echo", "suspended", SUSPENDED), ("/other", "token", NO_API), ("/api", "token", NO_API),
    ))  # fmt: skip
    method = random.choice(METHODS)
    body = pattern(random.choice((0, 700, 60_000))) if method in ("POST", "PUT", "PATCH") else None
    answer = await line.exchange(method, target, bearer(token), body)
    refused(answer, *expected, method)
    return answer


async def malformed(line):
    path = random.choice(("/api/p/../x", "/api/p/%2e%2E/x", "/api/p/a\\b", "/api/p/a%00b", "/api/p/%zz"))
    answer = await line.exchange("GET", path, bearer())
    expect(answer.status == 400, f"status {answer.status}")
    expect(told(answer)[::2] == ("proxy-access-denied", "http_request_error"), f"labels {told(answer)}")
    return answer


async def limited(line):
    started = time.monotonic()
    answer = await line.exchange("GET", "/api/p/sized/10", bearer("limited"))
    if answer.status == 200:
        granted(answer, pattern(10))
        ADMITTED.append((started, time.monotonic()))
    else:
        refused(answer, *LIMITED)
        expect(0 < int(answer.header("retry-after")) <= 60, f"retry-after {answer.header('retry-after')}")
    return answer


async def fault(line):
    kind = random.choice(("reset", "close", "cut", "garbage"))
    answer = await line.exchange("GET", f"/api/p/fault/{kind}", bearer())
    expect(answer.status == 502, f"{kind}: status {answer.status}")
    expect(told(answer)[:2] == (GRANTED, "Target could not be reached: protocol"), f"{kind}: labels {told(answer)}")
    return answer


async def late(line):
    answer = await line.exchange("GET", f"/api/impatient/fault/{random.choice(('silent', 'drip'))}", bearer())
    refused(answer, *LATE)
    return answer


async def down(line):
    answer = await line.exchange("GET", "/api/down/x", bearer())
    refused(answer, *DOWN)
    return answer


async def cut(line):
    """An answer whose length was announced, and was not kept: whole and a 502, or seen to be cut."""
    try:
        answer = await line.exchange("GET", "/api/p/fault/cut_sized", bearer())
    except Broken as broken:
        expect(str(broken) in ("cut", "reset"), str(broken))
        return None
    expect(answer.status == 502, f"status {answer.status}")
    return answer


async def slow(line):
    answer = await line.exchange("GET", f"/api/p/delay/{random.randrange(500)}", bearer())
    granted(answer, b"ok")
    return answer


async def events(line):
    answer = await line.exchange("GET", "/api/p/events/10", bearer())
    expect(answer.status == 200 and told(answer) == OF_TARGET, f"status {answer.status}, {told(answer)}")
    expect(answer.body == b"".join(b"data: %d\n\n" % number for number in range(10)), "other events")
    return answer


async def leaves_upload(line):
    """Goes away in the middle of an upload."""
    if isinstance(line, Http2):
        number, stream = await line.begin("POST", "/api/p/echo", bearer() + [("content-length", "300000")], ends=False)
        await line.upload(number, stream, PATTERN[:50_000])
        await line.cancel(number)
        return Answer(0, [])
    await line.send(b"".join([head("POST", "/api/p/echo", bearer(), pattern(300_000)), pattern(random.choice((0, 1, 70_000)))]))
    await asyncio.sleep(random.uniform(0, 0.1))
    return None


async def leaves_answer(line):
    """Goes away before the answer, or within it."""
    target = random.choice(("/api/p/delay/400", f"/api/p/chunked/{MOST}", f"/api/p/sized/{MOST}", "/api/p/events/50"))
    if isinstance(line, Http2):
        number, stream = await line.begin("GET", target, bearer())
        await asyncio.sleep(random.uniform(0, 0.2))
        await line.cancel(number)
        return Answer(0, [])
    await line.send(head("GET", target, bearer()))
    if random.random() < 0.5:
        await asyncio.sleep(random.uniform(0, 0.2))
        return None
    line.received.clear()
    await line.more()
    return None


async def expects(line):
    """Waits to be told to go on before it sends its body."""
    if isinstance(line, Http2):
        return await small(line)
    await line.send(head("POST", "/api/p/echo", bearer() + [("Expect", "100-continue")], pattern(5000)))
    expect((await line.head()).status == 100, "not told to go on")
    await line.send(pattern(5000))
    answer = await line.answer("POST")
    granted(answer)
    expect(json.loads(answer.body)["crc"] == zlib.crc32(pattern(5000)), "another body")
    return answer


async def tunnel(line):
    if isinstance(line, Http2):
        return await events(line)
    await line.send(head("GET", "/api/p/socket", bearer() + UPGRADE))
    answer = await line.answer("GET")
    expect(answer.status == 101 and told(answer) == OF_TARGET, f"status {answer.status}, {told(answer)}")
    for size in (1, 1000, 100_000):
        await line.send(pattern(size))
        expect(await line.exactly(size) == pattern(size), "another echo")
        await asyncio.sleep(random.uniform(0, 0.2))
    return None


# How often each of them is done.
WEIGHTS = {
    small: 300, method: 150, refusal: 150, slow: 40, malformed: 40, limited: 40, streamed: 30, fault: 30, leaves_answer: 20,
    leaves_upload: 20, large: 12, down: 10, cut: 10, late: 10, events: 8, tunnel: 8, expects: 8, upload: 6, beyond: 6, too_much: 4,
}  # fmt: skip
# Kinds of clients: protocol, port, whether the connection is kept; how many of them; on HTTP/2 they share one.
KINDS = {
    "HTTP/1.1": (Http1, "plain", True, 6),
    "HTTP/1.1, new": (Http1, "plain", False, 3),
    "HTTP/1.1, TLS": (Http1, "tls", True, 3),
    "HTTP/2": (Http2, "plain", True, 6),
    "HTTP/2, TLS": (Http2, "tls", True, 3),
}
PAUSE = (0.02, 0.18)
ADMITTED = []  # from when to when each request was under way that the limited credential had admitted


class Clients:
    """One kind of client; on HTTP/2 they share a connection."""

    def __init__(self, name, ports, results):
        self.name, self.results = name, results
        self.kind, port, self.keeps, self.number = KINDS[name]
        self.port, self.tls = ports[port], context(self.kind) if port == "tls" else None
        self.shared, self.lock = None, asyncio.Lock()

    async def line(self, own):
        """A connection that is open: the client's own, or that of all."""
        if self.kind is Http2:
            async with self.lock:
                if self.shared is None or self.shared.is_closed() or random.random() < 0.002:
                    self.shared = await self.kind.to(self.port, self.tls)
                return self.shared
        if own is not None and not own.is_closed():
            return own
        return await self.kind.to(self.port, self.tls)

    async def client(self, stopping):
        line = None
        while not stopping.is_set():
            await asyncio.sleep(random.uniform(*PAUSE))
            (what,) = random.choices(list(WEIGHTS), WEIGHTS.values())
            answer = None
            try:
                line = await self.line(line)
                answer = await asyncio.wait_for(what(line), TIMEOUT)
                self.results.count(self.name, what.__name__)
            except Again:
                self.results.count(self.name, "sent again")
                continue
            except asyncio.TimeoutError:
                self.results.fail(self.name, what.__name__, f"nothing for {TIMEOUT:g} s")
            except Exception as failure:  # whatever went wrong is a wrong answer until it is looked at
                self.results.fail(self.name, what.__name__, f"{type(failure).__name__}: {failure}")
            if self.kind is not Http2 and (answer is None or not answer.stays or not self.keeps):
                if line is not None:
                    line.reset() if random.random() < 0.5 else line.close()
                line = None
        if line is not None and self.kind is not Http2:
            line.close()


def context(kind):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2" if kind is Http2 else "http/1.1"])
    return context


class Results:
    def __init__(self):
        self.counts = collections.defaultdict(collections.Counter)
        self.failures = []
        self.started = time.monotonic()

    def count(self, client, what):
        self.counts[client][what] += 1

    def fail(self, client, what, failure):
        self.count(client, "failed")
        self.failures.append((round(time.monotonic() - self.started, 3), client, what, failure))
        print(f"{time.monotonic() - self.started:9.3f} {client}: {what}: {failure}", file=sys.stderr, flush=True)


def most_in_a_minute(admitted):
    """The most in any 60 seconds, of requests that began and ended within: no others are certain to have been admitted there."""
    return max((sum(start >= first and end < first + 60 for start, end in admitted) for first, _ in admitted), default=0)


async def main():
    ports, results, stopping = json.loads(sys.argv[1]), Results(), asyncio.Event()
    kinds = [Clients(name, ports, results) for name in KINDS]
    clients = [asyncio.ensure_future(kind.client(stopping)) for kind in kinds for _ in range(kind.number)]
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    stopping.set()
    _, unfinished = await asyncio.wait(clients, timeout=TIMEOUT + 5)
    for kind in kinds:
        if kind.shared is not None:
            kind.shared.close()
    print(json.dumps({
        "seconds": time.monotonic() - results.started,
        "counts": results.counts,
        "failures": results.failures,
        "unfinished": len(unfinished),
        "most_in_a_minute": most_in_a_minute(ADMITTED),
    }))  # fmt: skip


asyncio.run(main())
