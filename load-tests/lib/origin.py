"""A target that does as the path says, good and bad: origin.py PORT.

    /{base}/sized/{n}  /{base}/chunked/{n}    n bytes, announced or not
    /{base}/echo                              method, length and CRC of what came, as JSON
    /{base}/delay/{ms}                        an answer after a while
    /{base}/events/{n}  /{base}/socket        events, 20 ms apart; a tunnel that echoes
    /{base}/fault/{kind}                      reset, close, cut, cut_sized, garbage, silent, drip

Every good answer has `X-Seen: {Authorization as received} {base}`.
"""

import asyncio
import json
import socket
import struct
import sys
import zlib

PATTERN = bytes(range(251)) * ((12 << 20) // 251 + 1)
PIECE = 65536


class Request:
    def __init__(self, method, target, headers):
        self.method, self.target, self.headers = method, target, headers
        _, self.base, self.verb, *rest = (target.partition("?")[0] + "//").split("/")
        self.what = rest[0]
        self.length = self.crc = 0

    def took(self, piece):
        self.length += len(piece)
        self.crc = zlib.crc32(piece, self.crc)


async def request(reader, writer):
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head[:-4].split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    asked = Request(*first.split(" ")[:2], headers)
    if headers.get("expect") == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    if headers.get("transfer-encoding") == "chunked":
        while size := int(await reader.readuntil(b"\r\n"), 16):
            asked.took(await reader.readexactly(size))
            await reader.readexactly(2)
        await reader.readexactly(2)
    left = int(headers.get("content-length", 0))
    while left:
        piece = await reader.read(min(left, PIECE))
        if not piece:
            raise EOFError
        asked.took(piece)
        left -= len(piece)
    return asked


async def answer(asked, writer, body, chunked=False, kind="application/octet-stream"):
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
    seen = f"{asked.headers.get('authorization')} {asked.base}"
    writer.write(f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nX-Seen: {seen}\r\n{framing}\r\n\r\n".encode())
    if asked.method != "HEAD":
        for at in range(0, len(body), PIECE):
            piece = body[at : at + PIECE]
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            await writer.drain()
        if chunked:
            writer.write(b"0\r\n\r\n")
    await writer.drain()


async def fail(kind, reader, writer):
    if kind == "reset":
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    elif kind == "cut":
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
    elif kind == "cut_sized":
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
    elif kind == "garbage":
        writer.write(b"\0\1\2 what? \xff\r\n\r\n")
    elif kind == "silent":
        await reader.read(1)  # until the edge gives up
    elif kind == "drip":
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not reader.at_eof():
            writer.write(b"1\r\nx\r\n")
            await writer.drain()
            await asyncio.sleep(0.1)


async def serve(asked, reader, writer):
    """Whether the connection stays."""
    if asked.verb == "sized":
        await answer(asked, writer, memoryview(PATTERN)[: int(asked.what)])
    elif asked.verb == "chunked":
        await answer(asked, writer, memoryview(PATTERN)[: int(asked.what)], chunked=True)
    elif asked.verb == "echo":
        came = {"method": asked.method, "length": asked.length, "crc": asked.crc}
        await answer(asked, writer, json.dumps(came).encode(), kind="application/json")
    elif asked.verb == "delay":
        await asyncio.sleep(int(asked.what) / 1000)
        await answer(asked, writer, b"ok")
    elif asked.verb == "events":
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(int(asked.what)):
            event = b"data: %d\n\n" % number
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            await writer.drain()
            await asyncio.sleep(0.02)
        writer.write(b"0\r\n\r\n")
    elif asked.verb == "socket":
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n")
        writer.write(b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
        while piece := await reader.read(PIECE):
            writer.write(piece)
            await writer.drain()
        return False
    else:
        await fail(asked.what, reader, writer)
        return False
    return True


async def connection(reader, writer):
    try:
        while True:
            asked = await request(reader, writer)
            if not await serve(asked, reader, writer) or asked.headers.get("connection") == "close":
                return
    except (OSError, EOFError, asyncio.IncompleteReadError):
        pass  # the edge has closed it
    finally:
        writer.close()


async def main():
    server = await asyncio.start_server(connection, "127.0.0.1", int(sys.argv[1]), limit=1 << 20, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
