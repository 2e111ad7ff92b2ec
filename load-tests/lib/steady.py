"""Requests at a steady rate, however slow the answers are: steady.py PORT RATE CONNECTIONS TARGET.

A request goes out when its time has come, on a connection that is free, and its latency counts from that time: waiting for a
connection is waiting. Runs until its standard input ends. Prints a line for each request as it ends: when it should have gone
out (monotonic clock), status (0: none), seconds, and whether it came with Retry-After.
"""

import asyncio
import collections
import random
import socket
import sys
import time

PORT, RATE, CONNECTIONS, TARGET = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
REQUEST = f"GET {TARGET} HTTP/1.1\r\nHost: edge.test\r\nAuthorization: Bearer token\r\n\r\n".encode()
PATIENCE = 15.0


class Client(asyncio.Protocol):
    """One kept connection: one request at a time."""

    def __init__(self):
        self.transport, self.due, self.received = None, None, b""

    def connection_made(self, transport):
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, due):
        self.due, self.received = due, b""
        self.transport.write(REQUEST)

    def data_received(self, data):
        self.received += data
        head, end, body = self.received.partition(b"\r\n\r\n")
        lower = head.lower()
        if end and len(body) >= int(lower.partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0] or 0):
            self.done(int(head[9:12]), b"\r\nretry-after: " in lower)
            if b"\r\nconnection: close" in lower:
                self.transport.abort()
            else:
                FREE.append(self)
                next_due()

    def connection_lost(self, _):
        if self in FREE:
            FREE.remove(self)
        if self.due is not None:
            self.done(0, False)
        asyncio.ensure_future(connect())

    def done(self, status, told):
        RESULTS.append(f"{self.due:.6f} {status} {time.monotonic() - self.due:.6f} {told:d}")
        self.due = None


FREE, WAITING, RESULTS, OPEN = collections.deque(), collections.deque(), [], set()
STOPPING = asyncio.Event()


async def connect():
    while not STOPPING.is_set():
        try:
            _, client = await asyncio.get_running_loop().create_connection(Client, "127.0.0.1", PORT)
        except OSError:
            await asyncio.sleep(0.1)
            continue
        OPEN.add(client)
        FREE.append(client)
        return next_due()


def next_due():
    while WAITING and FREE:
        FREE.popleft().send(WAITING.popleft())


async def flush():
    while True:
        await asyncio.sleep(0.1)
        now = time.monotonic()
        for client in [client for client in OPEN if client.due is not None and client.due < now - PATIENCE]:
            client.transport.abort()
        OPEN.difference_update([client for client in OPEN if client.transport.is_closing()])
        if RESULTS:
            print("\n".join(RESULTS), flush=True)
            RESULTS.clear()


async def main():
    await asyncio.gather(*(connect() for _ in range(CONNECTIONS)))
    told = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    flushing = asyncio.ensure_future(flush())
    due = time.monotonic()
    while not told.done():
        # Neither in step with anything nor in bursts: half to one and a half times the usual distance.
        due += random.uniform(0.5, 1.5) / RATE
        late = due - time.monotonic()
        if late > 0:
            await asyncio.sleep(late)
        WAITING.append(due)
        next_due()
    until = time.monotonic() + PATIENCE
    while (WAITING or any(client.due is not None for client in OPEN)) and time.monotonic() < until:
        await asyncio.sleep(0.05)
    STOPPING.set()
    await asyncio.sleep(0.25)
    flushing.cancel()
    for due in WAITING:
        print(f"{due:.6f} 0 {PATIENCE} 0")


asyncio.run(main())
