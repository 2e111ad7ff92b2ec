"""A client that counts every way in which a request can go wrong.

    client.py PORT MIX TOKEN ANSWER [--until-gone] [PATH ...]

MIX is a JSON object: how many workers of each kind. Runs until its standard input ends, then prints what happened, as JSON.
Each answer must be a 200 that matches the regular expression ANSWER, as a whole. With --until-gone a refused connection ends
its worker and is no failure: the server was told to leave.

A connection that turns out to be closed before a request was written to it is replaced by a new one: that is HTTP. So is
a stream sent again that a GOAWAY names as not looked at; both are counted. A request that was written and gets no answer is a
failure, whatever the reason.

All sockets are driven by one thread, so that nothing comes between the look whether a connection is open and the write.
"""

import asyncio
import collections
import errno
import json
import random
import re
import socket
import struct
import sys
import time

from wire import (
    ACK, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, NO_PUSH, NO_TABLE, PADDED, PING, PREFACE, PRIORITY, REFUSED_STREAM,
    RST_STREAM, SETTINGS, STATUS, WINDOW, frame, settings, split, text, window_update,
)

TIMEOUT = 15.0
BODY = b"x" * 700

# Kind of worker: protocol, whether the connection is kept, pause between requests in seconds (from, to).
KINDS = {
    "h1": ("HTTP/1.1, kept", True, (0.0, 0.02)),
    "h1_new": ("HTTP/1.1, new", False, (0.0, 0.05)),
    "h1_slow": ("HTTP/1.1, slow", True, (0.0, 0.5)),
    "h1_idle": ("HTTP/1.1, idle", True, (0.5, 4.0)),
    "h2": ("HTTP/2", True, (0.0, 0.02)),
    "h2_new": ("HTTP/2, new", False, (0.0, 0.1)),
    "h2_slow": ("HTTP/2, slow", True, (0.0, 0.5)),
    "h2_idle": ("HTTP/2, idle", True, (0.5, 4.0)),
}
STREAMS = 6  # side by side on each connection of kind h2


class Failure(Exception):
    """A request failed; the text is the kind of failure."""


class Gone(Exception):
    """Nobody listens any more, as expected."""


class Again(Exception):
    """The server says that it did not look at this request."""


class Load:
    def __init__(self, port, token, answer, paths, until_gone):
        self.port, self.token, self.paths, self.until_gone = port, token, paths, until_gone
        self.answer = re.compile(answer.encode())
        self.loop = asyncio.get_running_loop()
        self.stopping = False
        self.pending = {}  # socket: when it has waited too long
        self.expired = set()
        self.counts = collections.defaultdict(collections.Counter)
        self.failures = []
        self.latencies = collections.defaultdict(list)
        self.last_answer = 0.0
        self.first_refused = None

    async def connect(self):
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.await_on(sock)
        try:
            await self.loop.sock_connect(sock, ("127.0.0.1", self.port))
        except OSError as error:
            self.close(sock)
            if error.errno == errno.ECONNREFUSED:
                self.first_refused = self.first_refused or time.monotonic()
                if self.until_gone:
                    raise Gone from error
                raise Failure("refused") from error
            raise Failure(f"connect: {errno.errorcode.get(error.errno, error)}") from error
        self.pending.pop(sock, None)
        return sock

    def await_on(self, sock):
        self.pending[sock] = time.monotonic() + TIMEOUT

    def close(self, sock):
        self.pending.pop(sock, None)
        self.expired.discard(sock)
        sock.close()

    async def sweep(self):
        """Ends the wait on sockets that have been silent for too long."""
        while True:
            await asyncio.sleep(0.5)
            now = time.monotonic()
            for sock in [sock for sock, until in self.pending.items() if until < now]:
                self.expired.add(sock)
                self.pending.pop(sock)
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def path(self, name):
        path = random.choice(self.paths)
        return path.rpartition("/")[0] + "/slow" if name.endswith("slow") else path

    def answered(self, name, started, status, body):
        now = time.monotonic()
        self.last_answer = now
        if status != 200:
            raise Failure(f"status {status}")
        if not self.answer.fullmatch(body):
            raise Failure(f"another answer: {body[:60]!r}")
        self.counts[name]["answered"] += 1
        self.latencies[name].append(now - started)

    def failed(self, name, failure):
        self.counts[name][str(failure)] += 1
        self.failures.append((time.monotonic(), name, str(failure)))


# ---- HTTP/1.1


def is_closed(sock):
    try:
        return sock.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def request_h1(load, name, keep):
    body = BODY if random.random() < 0.1 else b""
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    close = "" if keep else "Connection: close\r\n"
    head = (
        f"{'POST' if body else 'GET'} {load.path(name)} HTTP/1.1\r\nHost: edge.test\r\n"
        f"Authorization: Bearer {load.token}\r\n{length}{close}\r\n"
    )
    return head.encode() + body


async def exchange_h1(load, sock, request):
    """Status, body, and whether the connection stays."""
    received = b""
    head = None
    try:
        load.await_on(sock)
        await load.loop.sock_sendall(sock, request)
        while True:
            piece = await load.loop.sock_recv(sock, 65536)
            if not piece:
                raise Failure("timeout" if sock in load.expired else "cut in the answer" if received else "closed unanswered")
            received += piece
            if head is None:
                end = received.find(b"\r\n\r\n")
                if end < 0:
                    continue
                lines = received[:end].decode("latin-1").split("\r\n")
                head = dict((name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines[1:]))
                status = int(lines[0].split()[1])
                whole = end + 4 + int(head.get("content-length", 0))
                if "transfer-encoding" in head:
                    raise Failure("no length")
            if len(received) >= whole:
                load.pending.pop(sock, None)
                return status, received[end + 4 : whole], head.get("connection", "").lower() != "close"
    except (ConnectionResetError, BrokenPipeError) as error:
        raise Failure("reset in the answer" if received else "reset unanswered") from error


async def worker_h1(load, name, keep, pause):
    sock = None
    while not load.stopping:
        await asyncio.sleep(random.uniform(*pause))
        started = time.monotonic()
        try:
            request = request_h1(load, name, keep)
            if sock is None:
                sock = await load.connect()
                load.counts[name]["connections"] += 1
            elif is_closed(sock):
                load.close(sock)
                load.counts[name]["idle closed"] += 1
                sock = None
                continue
            status, body, stays = await exchange_h1(load, sock, request)
            load.answered(name, started, status, body)
        except Gone:
            return
        except Failure as failure:
            load.failed(name, failure)
            stays = False
        if not (stays and keep) and sock is not None:
            load.close(sock)
            sock = None
    if sock is not None:
        load.close(sock)


# ---- HTTP/2


class Connection:
    """One HTTP/2 connection, with prior knowledge."""

    def __init__(self, load, sock):
        self.load, self.sock = load, sock
        self.next_stream = 1
        self.streams = {}  # id: [future, status, body]
        self.received = b""
        self.usable = True
        self.consumed = 0
        self.out = b""
        self.write(PREFACE + settings(NO_TABLE, NO_PUSH, WINDOW) + window_update(0, 1 << 30))
        self.reader = asyncio.ensure_future(self.read())

    def write(self, data):
        self.out += data
        try:
            while self.out:
                self.out = self.out[self.sock.send(self.out) :]
            self.load.loop.remove_writer(self.sock)
        except BlockingIOError:
            self.load.loop.add_writer(self.sock, self.write, b"")
        except OSError:
            self.out = b""  # the reader learns of it

    async def read(self):
        reason = "closed unanswered"
        try:
            while True:
                piece = await self.load.loop.sock_recv(self.sock, 65536)
                if not piece:
                    break
                self.take(piece)
        except OSError:
            reason = "reset unanswered"
        if self.sock in self.load.expired:
            reason = "timeout"
        self.end(reason)

    def end(self, reason):
        self.usable = False
        self.load.loop.remove_reader(self.sock)
        for future, status, _ in self.streams.values():
            if not future.done():
                future.set_exception(Failure(reason if status is None else reason.replace("unanswered", "in the answer")))
        self.streams.clear()
        self.load.loop.remove_writer(self.sock)
        self.load.close(self.sock)

    def take(self, piece):
        self.received += piece
        while first := split(self.received):
            *received, self.received = first
            self.frame(*received)

    def frame(self, kind, flags, stream, payload):
        if kind == SETTINGS and not flags & ACK:
            self.write(frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            self.write(frame(PING, ACK, 0, payload))
        elif kind == GOAWAY:
            self.usable = False
            last = struct.unpack(">I", payload[:4])[0] & 0x7FFFFFFF
            for unseen in [stream for stream in self.streams if stream > last]:
                self.streams.pop(unseen)[0].set_exception(Again())
        elif kind == RST_STREAM and stream in self.streams:
            code = struct.unpack(">I", payload)[0]
            future, status, body = self.streams.pop(stream)
            future.set_exception(Again() if code == REFUSED_STREAM else Failure(f"stream reset, code {code}"))
        elif kind == HEADERS and stream in self.streams:
            assert flags & END_HEADERS and not flags & (PADDED | PRIORITY)
            if self.streams[stream][1] is None:
                self.streams[stream][1] = first_status(payload)
        elif kind == DATA:
            self.consumed += len(payload)
            if self.consumed > 1 << 20:
                self.write(window_update(0, self.consumed))
                self.consumed = 0
            if stream in self.streams:
                assert not flags & PADDED
                self.streams[stream][2] += payload
        if kind in (HEADERS, DATA) and flags & END_STREAM and stream in self.streams:
            future, status, body = self.streams.pop(stream)
            future.set_result((status, body))
        self.done_waiting()

    def done_waiting(self):
        if not self.streams:
            self.load.pending.pop(self.sock, None)

    async def exchange(self, name):
        body = BODY if random.random() < 0.1 else b""
        head = b"\x83" if body else b"\x82"
        head += b"\x86\x04" + text(self.load.path(name)) + b"\x01" + text("edge.test")
        head += b"\x0f\x08" + text(f"Bearer {self.load.token}")
        stream, self.next_stream = self.next_stream, self.next_stream + 2
        future = self.load.loop.create_future()
        self.streams[stream] = [future, None, b""]
        self.load.await_on(self.sock)
        if body:
            self.write(frame(HEADERS, END_HEADERS, stream, head) + frame(DATA, END_STREAM, stream, body))
        else:
            self.write(frame(HEADERS, END_HEADERS | END_STREAM, stream, head))
        return await future

    def is_open(self):
        """Takes what has arrived, and tells whether another stream may be sent."""
        if self.usable and is_closed(self.sock):
            self.usable = False
        return self.usable and self.next_stream < 1 << 30

    async def close(self):
        self.usable = False
        while self.streams:
            await asyncio.sleep(0.01)
        if self.sock.fileno() >= 0:
            self.reader.cancel()
            self.load.loop.remove_reader(self.sock)
            self.load.loop.remove_writer(self.sock)
            self.load.close(self.sock)


def first_status(block):
    while block and block[0] & 0xE0 == 0x20:
        block = block[1:]  # the size of the table that we do not allow
    return STATUS.get(block[0] & 0x7F, 0) if block and block[0] & 0x80 else "other than the usual"


class Shared:
    """The connection that some workers share, replaced when it is used up."""

    def __init__(self, load, name):
        self.load, self.name = load, name
        self.connection = None
        self.lock = asyncio.Lock()

    async def get(self):
        async with self.lock:
            if self.connection is not None and not self.connection.is_open():
                self.load.counts[self.name]["idle closed"] += 1
                self.connection = None
            if self.connection is None:
                self.connection = Connection(self.load, await self.load.connect())
                self.load.counts[self.name]["connections"] += 1
            return self.connection


async def worker_h2(load, name, keep, pause, shared):
    while not load.stopping:
        await asyncio.sleep(random.uniform(*pause))
        started = time.monotonic()
        try:
            connection = await shared.get()
            load.answered(name, started, *await connection.exchange(name))
            if not keep:
                await connection.close()
                shared.connection = None
        except Gone:
            return
        except Again:
            load.counts[name]["sent again"] += 1
        except Failure as failure:
            load.failed(name, failure)


async def main():
    arguments = [argument for argument in sys.argv[1:] if argument != "--until-gone"]
    port, mix, token, answer, *paths = arguments
    load = Load(int(port), token, answer, paths, len(arguments) < len(sys.argv) - 1)
    sweeper = asyncio.ensure_future(load.sweep())
    workers = []
    for kind, number in json.loads(mix).items():
        name, keep, pause = KINDS[kind]
        for _ in range(number):
            if name.startswith("HTTP/1.1"):
                workers.append(worker_h1(load, name, keep, pause))
                continue
            shared = Shared(load, name)
            streams = STREAMS if kind == "h2" else 1
            workers.extend(worker_h2(load, name, keep, pause, shared) for _ in range(streams))
    workers = [asyncio.ensure_future(worker) for worker in workers]
    started = time.monotonic()
    all_done = asyncio.gather(*workers)
    told = load.loop.run_in_executor(None, sys.stdin.read)
    await asyncio.wait([all_done, told], return_when=asyncio.FIRST_COMPLETED)
    load.stopping = True
    seconds = time.monotonic() - started
    await asyncio.wait([all_done], timeout=TIMEOUT + 5)
    sweeper.cancel()
    if all_done.done() and all_done.exception() is not None:
        raise all_done.exception()
    result = {
        "seconds": seconds,
        "counts": load.counts,
        "failures": load.failures,
        "last_answer": load.last_answer,
        "first_refused": load.first_refused,
        "unfinished": sum(not worker.done() for worker in workers),
        "latency_ms": {name: summary(all) for name, all in load.latencies.items()},
    }
    json.dump(result, sys.stdout)


def summary(latencies):
    latencies.sort()
    at = lambda part: round(1000 * latencies[min(len(latencies) - 1, int(part * len(latencies)))], 2)
    return {"median": at(0.5), "p99": at(0.99), "max": at(1)}


asyncio.run(main())
