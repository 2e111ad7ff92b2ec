"""Clients that are slow on purpose: when does the daemon end them, what do they cost, does a bystander notice?"""

import asyncio
import os
import re
import resource
import socket
import ssl
import statistics
import subprocess
import threading
import time

from exchange import Http1, Line, head
from harness import FRAGMENT, Bench, Edge, Steady, Table, certificate, free_port, percentile, wait_for
from wire import END_HEADERS, END_STREAM, HEADERS, NO_TABLE, PREFACE, block, frame, settings

CLIENTS = int(os.environ.get("CLIENTS", "400"))
READERS = CLIENTS // 8  # of answers of 5 MB: more would be a matter of how fast those come from the target
IDLE = int(os.environ.get("IDLE", "10000"))
HEADER, BODY, WRITE, KEEPALIVE = 3, 3, 3, 60  # seconds: what the configuration allows
SLACK = 2.0  # from a limit to the end of the last of so many
SPREAD = 4.0  # seconds in which the clients of an attack come: it is their slowness that is looked at
WINDOW = 3.0  # seconds, for a percentile of some 300 requests
RATE = 100
TIMES, FLOOR = 2, 0.005  # a bystander may be this much slower; below the floor nothing is compared
MOST_IDLE = 20  # KiB for an idle connection
BEARER = [("Authorization", "Bearer token")]
BIG = 5 << 20


class Wrong(Exception):
    """Not how an attack should end."""


def source(number):
    """Connections of one client address are bounded: they come from many."""
    return f"127.0.0.{2 + number % 200}"


TLS = ssl.create_default_context()
TLS.check_hostname, TLS.verify_mode = False, ssl.CERT_NONE


# ---- Attacks. Each goes on until the daemon ends it.


async def drip(line, text, every):
    for byte in text:
        await asyncio.sleep(every)
        await line.send(bytes([byte]))


async def silence(line):
    while await line.more():
        line.received.clear()


async def slow_header(number, port, _tls):
    line = await Line.to(port, source=source(number))
    await line.send(b"GET /api/p/x HTTP/1.1\r\nHost: edge.test\r\nX-Slow: ")
    dripping = asyncio.ensure_future(drip(line, b"x" * 1000, 0.5))
    try:
        await silence(line)
    finally:
        dripping.cancel()
        line.close()


async def no_header(number, port, _tls):
    line = await Line.to(port, source=source(number))
    await silence(line)
    line.close()


async def stalled_body(number, port, _tls):
    line = await Http1.to(port, source=source(number))
    await line.send(head("POST", "/api/p/takes", BEARER, b"x" * 100_000) + b"x" * 1000)
    answer = await line.answer("POST")
    line.close()
    if answer.status != 408:
        raise Wrong(f"status {answer.status}")


async def slow_read(number, port, _tls):
    """A byte a second. The daemon may have gone long before that arrives here, behind all that was sent."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    sock.setblocking(False)
    sock.bind((source(number), 0))
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", port))
    await loop.sock_sendall(sock, head("GET", "/api/p/big", BEARER))
    while await loop.sock_recv(sock, 1):
        await asyncio.sleep(1)
    sock.close()


async def silent_after_handshake(number, port, tls):
    line = await Line.to(tls, TLS, source(number))
    await silence(line)
    line.close()


async def silent_after_preface(number, port, _tls):
    line = await Line.to(port, source=source(number))
    await line.send(PREFACE + settings(NO_TABLE))
    await silence(line)
    line.close()


async def no_window(number, port, _tls):
    """Streams whose answers may not be sent: a window of nothing."""
    line = await Line.to(port, source=source(number))
    asked = [(":method", "GET"), (":scheme", "http"), (":path", "/api/p/big"), (":authority", "edge.test")]
    request = block([*asked, ("authorization", "Bearer token")])
    streams = b"".join(frame(HEADERS, END_HEADERS | END_STREAM, 1 + 2 * at, request) for at in range(4))
    await line.send(PREFACE + settings(NO_TABLE, (4, 0)) + streams)
    ended = 0
    while ended < 4:
        if len(line.received) < 9:
            if not await line.more():
                break
            continue
        length, kind = int.from_bytes(line.received[:3], "big"), line.received[3]
        await line.exactly(9 + length)
        ended += kind == 3  # RST_STREAM
    line.close()


ATTACKS = {
    "says nothing": (no_header, CLIENTS, HEADER),
    "a header that drips": (slow_header, CLIENTS, HEADER),
    "silent after the TLS handshake": (silent_after_handshake, CLIENTS, HEADER),
    "silent after the HTTP/2 preface": (silent_after_preface, CLIENTS, HEADER),
    "a body that stops": (stalled_body, CLIENTS, BODY),
    # The header of an answer is waited for, and then its body.
    "reads a byte a second": (slow_read, READERS, 2 * WRITE),
    "an HTTP/2 window of nothing": (no_window, READERS, 2 * WRITE),
}


async def run(attack, number, edge, tls):
    """From the last client's coming to the end of them all, as the daemon sees it; and the most memory on the way."""
    before = edge.metric("requestrocket_client_connections")

    async def one(at):
        await asyncio.sleep(at * SPREAD / number)
        await attack(at, edge.port, tls)

    clients = [asyncio.ensure_future(one(at)) for at in range(number)]
    last, peak, took = time.monotonic() + SPREAD, 0, -SPREAD
    while took < 60:
        await asyncio.sleep(0.1)
        connected = edge.metric("requestrocket_client_connections") - before
        peak, took = max(peak, edge.resident()), time.monotonic() - last
        if took > 0 and connected <= 0:
            break
    for client in clients:
        client.cancel()
    wrong = [ended for ended in await asyncio.gather(*clients, return_exceptions=True) if isinstance(ended, Wrong)]
    if wrong:
        raise wrong[0]
    return took, peak


# ---- The bystander

FAILED = []


def windows(steady, since, until):
    """The 99th percentile of each window."""
    found = []
    while since + WINDOW <= until:
        requests = steady.due(since, since + WINDOW)
        FAILED.extend((round(due - since, 2), status, round(seconds, 3)) for due, status, seconds, _ in requests if status != 200)
        if len(requests) < RATE * WINDOW / 2:
            FAILED.append(f"only {len(requests)} ended in {WINDOW:g} s")
        if requests:
            found.append(percentile([seconds for _, _, seconds, _ in requests], 0.99))
        since += WINDOW
    return found


def calm(steady, seconds):
    started = time.monotonic()
    time.sleep(seconds + 1)  # an answer may come after its window
    return statistics.median(windows(steady, started, started + seconds))


def bystander(table, before, during):
    allowed = TIMES * max(before, FLOOR)
    measured = statistics.median(during or [60.0])
    table.most(f"  p99 of a bystander, {before * 1000:.1f} ms before, meanwhile", measured * 1000, allowed * 1000, "ms", 1)
    if FAILED:
        table.most(f"  of its requests failed, such as {FAILED[0]}", len(FAILED), 0, "")
        FAILED.clear()


def megabytes(number):
    return f"{number / 1e6:.1f} MB"


# ---- slowhttptest, an attacker of others' making


def slowhttptest(mode, edge):
    """One of its four modes, for 15 seconds at most: whether it found the service available, and when it was rid of."""
    more = {"-H": [], "-B": ["-t", "POST"], "-R": ["-t", "HEAD"], "-X": ["-w", "10", "-y", "20", "-n", "1", "-z", "8", "-k", "1"]}[mode]
    path = {"-X": "big", "-B": "takes"}.get(mode, "x")
    url = f"http://127.0.0.1:{edge.port}/api/p/{path}?Authorization=Bearer%20token"
    command = ["slowhttptest", mode, "-c", str(CLIENTS), "-r", "200", "-i", "1", "-l", "15", "-p", "3", "-u", url, *more]
    before, started, begun, rid = edge.metric("requestrocket_client_connections"), time.monotonic(), False, None
    attacker = bench.start(*command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    reading = threading.Thread(target=lambda: said.append(attacker.stdout.read()), daemon=True)
    said = []
    reading.start()
    while attacker.poll() is None and time.monotonic() < started + 30:
        connected = edge.metric("requestrocket_client_connections") - before
        begun = begun or connected > 1
        if begun and connected <= 1 and rid is None and time.monotonic() > started + CLIENTS / 200:
            rid = time.monotonic() - started
        time.sleep(0.1)
    reading.join(10)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", "".join(said))
    if rid is None and "No open connections left" in plain:
        rid = time.monotonic() - started
    available = re.findall(r"service available:\s+(\S+)", plain)
    return (available or ["?"])[-1], rid


def open_idle(port, number):
    """Connections that have had an answer each, and stay."""
    request, opened = head("GET", "/api/p/x", BEARER), []
    for first in range(0, number, 50):
        some = [socket.socket() for _ in range(min(50, number - first))]
        for at, sock in enumerate(some):
            sock.bind((source(first + at), 0))
            sock.connect(("127.0.0.1", port))
            sock.sendall(request)
        for sock in some:
            if not sock.recv(4096).startswith(b"HTTP/1.1 200"):
                raise SystemExit("an idle connection was not served first")
        opened += some
        time.sleep(0.02)
    return opened


with Bench() as bench:
    # As many descriptors as idle clients, here and in the daemon; without the right to, there are fewer.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    IDLE = min(IDLE, hard - 500)
    table = Table(f"clients that are slow on purpose, then {IDLE:,} that are idle")
    origin = bench.origin()

    def daemon(limits):
        edge = Edge(bench, settings="")
        main = edge.folder / "edge.yaml"
        main.write_text(main.read_text().replace("invalid_credentials_per_minute: 0", f"invalid_credentials_per_minute: 0, {limits}"))
        tls = free_port()
        edge.listener(f'{{ address: "127.0.0.1:{tls}", tls: {{ certificates: [ {certificate(edge.folder)} ] }} }}')
        edge.fragment("p", FRAGMENT.replace("ORIGIN", str(origin)))
        edge.start()
        steady = Steady(bench, edge.port, RATE, 8, "/api/p/x")
        time.sleep(2)
        return edge, tls, steady

    edge, tls, steady = daemon(f"header_timeout: {HEADER}s, body_timeout: {BODY}s, write_timeout: {WRITE}s, max_connections_per_client: 1000")
    for name, (attack, number, limit) in ATTACKS.items():
        before, resident = calm(steady, 3 * WINDOW), edge.resident()
        started = time.monotonic()
        took, peak = asyncio.run(run(attack, number, edge, tls))
        until = max(time.monotonic(), started + WINDOW)
        time.sleep(until + 1 - time.monotonic())
        table.most(f"{number} x {name}: until all are ended, limit {limit} s", took, limit + SLACK, "s", 1)
        table.row("  resident memory before, most, after", f"{megabytes(resident)[:-3]}, {megabytes(peak)[:-3]}, {megabytes(edge.resident())}")
        bystander(table, before, windows(steady, started, until))
    wait_for("the last is gone", lambda: edge.metric("requestrocket_requests_in_flight") <= 1)

    for mode, name in (("-H", "slow headers"), ("-B", "slow bodies"), ("-R", "ranges"), ("-X", "slow reading")):
        before, started = calm(steady, 2 * WINDOW), time.monotonic()
        available, rid = slowhttptest(mode, edge)
        until = max(time.monotonic(), started + 2 * WINDOW)
        time.sleep(until + 1 - time.monotonic())
        table.row(f"slowhttptest, {name}: service available", available, "YES", available == "YES")
        limit = CLIENTS / 200 + max(HEADER, BODY, WRITE) + SLACK
        if mode == "-B":
            # A byte a second: every piece of a body renews its time, and nothing else ends it.
            table.row("  until it is rid of", f"{rid:.1f} s" if rid else "not in 15 s")
        else:
            table.row("  until it is rid of, its beginning included", f"{rid or 99:.1f} s", f"at most {limit:g} s", (rid or 99) <= limit)
        bystander(table, before, windows(steady, started, until))
    steady.stop()
    edge.stop()

    edge, tls, steady = daemon(f"keepalive_timeout: {KEEPALIVE}s")
    few = open_idle(edge.port, 200)  # what comes with the first of them is no matter of how many there are
    before, resident = calm(steady, 3 * WINDOW), edge.resident()
    started = time.monotonic()
    idle = open_idle(edge.port, IDLE)
    opened = time.monotonic()
    time.sleep(2)
    during = percentile([seconds for _, _, seconds, _ in steady.due(started, opened)], 0.99)
    each = (edge.resident() - resident) / IDLE / 1024
    connected = edge.metric("requestrocket_client_connections")
    quiet = calm(steady, 3 * WINDOW)
    table.row("idle connections that have had an answer", f"{connected:.0f}", f"at least {IDLE}", connected >= IDLE)
    table.most("  resident memory for each", each, MOST_IDLE, "KiB", 1)
    bystander(table, before, [quiet])
    table.row(f"  the same while they come, {IDLE / (opened - started):.0f} a second", f"{1000 * during:.1f} ms")
    wait_for("the idle are ended", lambda: edge.metric("requestrocket_client_connections") <= 20, 90)
    over = time.monotonic() - opened
    table.most(f"  until the last is ended, limit {KEEPALIVE} s", over, KEEPALIVE + SLACK, "s", 1)
    table.row("  resident memory then", megabytes(edge.resident()))
    steady.stop()
    table.end()
