"""A strict client: one connection, its exchanges, and exactly what came back. What a lenient client repairs, it reports."""

import asyncio
import socket
import ssl
import struct

from wire import (
    ACK, CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, NO_PUSH, NO_TABLE, PADDED, PING, PREFACE,
    RST_STREAM, SETTINGS, WINDOW, WINDOW_UPDATE, block, fields, frame, settings, split, window_update,
)

PIECE = 65536


class Broken(Exception):
    """The exchange did not end as it should; the text is the kind of failure."""


class Again(Exception):
    """The server says that it did not look at this request."""


class Answer:
    def __init__(self, status, headers, body=b"", stays=True):
        self.status, self.headers, self.body, self.stays = status, headers, body, stays

    def header(self, name):
        """The value of a header that must not be there twice."""
        values = [value for key, value in self.headers if key == name]
        if len(values) > 1:
            raise Broken(f"`{name}` {len(values)} times")
        return values[0] if values else None


class Line:
    """A TCP connection, or TLS over one. Sends and receives side by side."""

    def __init__(self, sock, tls):
        self.sock, self.tls = sock, tls
        self.loop = asyncio.get_running_loop()
        self.received = bytearray()
        self.sending = asyncio.Lock()  # streams share the connection

    @classmethod
    async def to(cls, port, tls=None, source="127.0.0.1"):
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if source != "127.0.0.1":
            sock.bind((source, 0))
        line = cls(sock, None)
        try:
            await line.loop.sock_connect(sock, ("127.0.0.1", port))
            if tls is not None:
                line.into, line.out = ssl.MemoryBIO(), ssl.MemoryBIO()
                line.tls = tls.wrap_bio(line.into, line.out, server_hostname="edge.test")
                await line.over_tls(line.tls.do_handshake)
        except (OSError, Broken) as error:
            sock.close()
            raise Broken(f"not connected: {error}") from error
        return line

    async def over_tls(self, step):
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                await self.flush()
                piece = await self.loop.sock_recv(self.sock, PIECE)
                if not piece:
                    raise Broken("cut") from None
                self.into.write(piece)
            finally:
                await self.flush()

    async def flush(self):
        if self.out.pending:
            await self.loop.sock_sendall(self.sock, self.out.read())

    async def send(self, data):
        try:
            async with self.sending:
                if self.tls is None:
                    await self.loop.sock_sendall(self.sock, data)
                else:
                    self.tls.write(data)
                    await self.flush()
        except OSError as error:
            raise Broken("reset while sending") from error

    async def more(self):
        """Receives. False: the other side has ended it."""
        try:
            if self.tls is None:
                piece = await self.loop.sock_recv(self.sock, PIECE)
            else:
                piece = await self.over_tls(lambda: self.tls.read(PIECE))
        except ssl.SSLZeroReturnError:
            return False
        except OSError as error:
            raise Broken("reset") from error
        self.received += piece
        return bool(piece)

    async def exactly(self, count):
        while len(self.received) < count:
            if not await self.more():
                raise Broken("cut")
        taken = bytes(self.received[:count])
        del self.received[:count]
        return taken

    async def until(self, end):
        """What comes up to `end`, without it."""
        at = -1
        while at < 0:
            before = max(0, len(self.received) - len(end))
            if not await self.more():
                raise Broken("cut" if self.received else "closed unanswered")
            at = self.received.find(end, before)
        taken = bytes(self.received[:at])
        del self.received[: at + len(end)]
        return taken

    async def line(self, end=b"\r\n"):
        at = self.received.find(end)
        if at < 0:
            return await self.until(end)
        taken = bytes(self.received[:at])
        del self.received[: at + len(end)]
        return taken

    def is_closed(self):
        try:
            return self.sock.recv(1, socket.MSG_PEEK) == b"" and self.tls is None
        except BlockingIOError:
            return False
        except OSError:
            return True

    def reset(self):
        """Closes without a word."""
        if self.sock.fileno() >= 0:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self):
        self.sock.close()


class Http1(Line):
    version = "HTTP/1.1"

    async def exchange(self, method, target, headers, body=None, chunked=False):
        await self.send(head(method, target, headers, body, chunked))
        upload = asyncio.ensure_future(self.upload(body, chunked)) if body or chunked and body is not None else None
        try:
            answer = await self.answer(method)
            # Answered before all of it was sent: the rest is not wanted.
            answer.stays &= upload is None or upload.done() and upload.exception() is None
            return answer
        finally:
            if upload is not None and not upload.cancel():
                upload.exception()  # known already: there was an answer, or none

    async def upload(self, body, chunked):
        for at in range(0, len(body), PIECE):
            piece = body[at : at + PIECE]
            await self.send(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        if chunked:
            await self.send(b"0\r\n\r\n")

    async def head(self):
        """Status line and headers."""
        first, *lines = (await self.line(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        if not first.startswith("HTTP/1.1 "):
            raise Broken(f"no status line: {first[:40]!r}")
        headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        return Answer(int(first.split()[1]), headers)

    async def answer(self, method):
        answer = await self.head()
        while answer.status in (100, 102, 103):
            answer = await self.head()
        length, coding = answer.header("content-length"), answer.header("transfer-encoding")
        answer.stays = "close" not in (answer.header("connection") or "")
        if answer.status in (101, 204, 304) or method == "HEAD":
            return answer
        if coding is not None:
            if length is not None or coding != "chunked":
                raise Broken(f"framed twice: {length}, {coding}")
            answer.body = b"".join([piece async for piece in self.chunks()])
        elif length is not None:
            answer.body = await self.exactly(int(length))
        else:
            raise Broken("no length")
        return answer

    async def chunks(self):
        while True:
            size = int(await self.line(), 16)
            if size:
                yield await self.exactly(size)
            if await self.line() != b"":
                raise Broken("no end of a chunk")
            if not size:
                return


def head(method, target, headers, body=None, chunked=False):
    lines = [f"{method} {target} HTTP/1.1", "Host: edge.test", *(f"{name}: {value}" for name, value in headers)]
    if body is not None:
        lines.append("Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


class Stream:
    def __init__(self, window):
        self.ended = asyncio.get_running_loop().create_future()
        self.answer, self.pieces, self.window = None, [], window
        self.arrived = asyncio.Event()  # a header, or a piece

    def fail(self, error):
        if not self.ended.done():
            self.ended.set_exception(error)
            self.ended.exception()  # whoever waits is told; who does not need not
        self.arrived.set()


class Http2(Line):
    version = "HTTP/2"

    @classmethod
    async def to(cls, port, tls=None, source="127.0.0.1"):
        line = await super().to(port, tls, source)
        line.streams, line.next, line.usable = {}, 1, True
        line.window, line.initial, line.room = 65535, 65535, asyncio.Event()
        line.open = None  # the header block that goes on
        await line.send(PREFACE + settings(NO_TABLE, NO_PUSH, WINDOW) + window_update(0, 1 << 30))
        line.reader = asyncio.ensure_future(line.read())
        return line

    async def read(self):
        reason = "closed unanswered"
        try:
            while await self.more():
                data = bytes(self.received)
                while first := split(data):
                    *received, data = first
                    await self.frame(*received)
                self.received = bytearray(data)
        except Broken as error:
            reason = str(error)
        self.usable = False
        for stream in self.streams.values():
            stream.fail(Broken("cut" if stream.answer else reason))
        self.streams.clear()
        self.room.set()

    async def frame(self, kind, flags, number, payload):
        stream = self.streams.get(number)
        if kind == SETTINGS and not flags & ACK:
            for at in range(0, len(payload), 6):
                key, value = struct.unpack(">HI", payload[at : at + 6])
                if key == 4:
                    for each in self.streams.values():
                        each.window += value - self.initial
                    self.initial = value
            await self.send(frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            await self.send(frame(PING, ACK, 0, payload))
        elif kind == WINDOW_UPDATE:
            by = struct.unpack(">I", payload)[0]
            if number == 0:
                self.window += by
            elif stream:
                stream.window += by
            self.room.set()
        elif kind == GOAWAY:
            self.usable = False
            last = struct.unpack(">I", payload[:4])[0] & 0x7FFFFFFF
            for unseen in [unseen for unseen in self.streams if unseen > last]:
                self.streams.pop(unseen).fail(Again())
        elif kind == RST_STREAM and stream:
            code = struct.unpack(">I", payload)[0]
            self.streams.pop(number).fail(Again() if code == 7 else Broken("cut" if stream.answer else f"stream reset, code {code}"))
            self.room.set()
        elif kind in (HEADERS, CONTINUATION) and stream:
            self.open = (self.open or b"") + payload
            if flags & END_HEADERS:
                found, self.open = fields(self.open), None
                if stream.answer is None and found[0][1][0] != "1":
                    stream.answer = Answer(int(found[0][1]), found[1:])
                stream.arrived.set()
        elif kind == DATA:
            if payload:
                await self.send(window_update(0, len(payload)) + (window_update(number, len(payload)) if stream else b""))
            if stream:
                if flags & PADDED:
                    raise Broken("padded")
                stream.pieces.append(payload)
                stream.arrived.set()
        if kind in (HEADERS, DATA) and flags & END_STREAM and stream:
            self.streams.pop(number, None)
            stream.answer.body = b"".join(stream.pieces)
            if not stream.ended.done():
                stream.ended.set_result(stream.answer)
            stream.arrived.set()
            self.room.set()

    async def begin(self, method, target, headers, ends=True):
        """Opens a stream: its number, and the stream."""
        if not self.usable:
            raise Again()
        number, self.next = self.next, self.next + 2
        stream = self.streams[number] = Stream(self.initial)
        start = [(":method", method), (":scheme", "http"), (":path", target), (":authority", "edge.test")]
        flags = END_HEADERS | (END_STREAM if ends else 0)
        await self.send(frame(HEADERS, flags, number, block(start + [(name.lower(), value) for name, value in headers])))
        return number, stream

    async def exchange(self, method, target, headers, body=None, chunked=False):
        if body is not None and not chunked:
            headers = [*headers, ("content-length", str(len(body)))]
        number, stream = await self.begin(method, target, headers, ends=not body)
        upload = asyncio.ensure_future(self.upload(number, stream, body)) if body else None
        try:
            return await stream.ended
        finally:
            if upload is not None and not upload.cancel():
                upload.exception()
            if not stream.ended.done() or self.streams.pop(number, None):
                await self.cancel(number)

    async def upload(self, number, stream, body):
        at = 0
        while at < len(body) and number in self.streams:
            size = min(len(body) - at, 16384, self.window, stream.window)
            if size <= 0:
                self.room.clear()
                await self.room.wait()
                continue
            self.window -= size
            stream.window -= size
            end = END_STREAM if at + size == len(body) else 0
            await self.send(frame(DATA, end, number, bytes(body[at : at + size])))
            at += size

    async def cancel(self, number):
        self.streams.pop(number, None)
        if self.sock.fileno() >= 0 and not self.reader.done():
            await self.send(frame(RST_STREAM, 0, number, struct.pack(">I", CANCEL)))

    def is_closed(self):
        return not self.usable or self.reader.done()

    def close(self):
        if hasattr(self, "reader"):
            self.reader.cancel()
        super().close()
