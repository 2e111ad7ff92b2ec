"""Loads, and what a peer spends on them."""

import json
import os
import pathlib
import re
import resource
import socket
import subprocess
import time

from peers import EXAMPLES, HERE, NAME, on, tree

TICK = os.sysconf("SC_CLK_TCK")


class Broken(Exception):
    """What was measured is not what was meant to be."""


def cpu_ns(pids):
    """Time on a processor of all threads of these processes, to the nanosecond."""
    total = 0
    for pid in pids:
        for schedstat in pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat"):
            try:
                total += int(schedstat.read_text().split()[0])
            except (FileNotFoundError, ProcessLookupError):
                pass  # a thread that has just ended
    return total


def cpu_ticks_ns(root, pids):
    """The same in clock ticks, with children that are gone: for who replaces its processes."""
    total = 0
    for pid in pids:
        try:
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += sum(map(int, fields[11:15] if pid == root else fields[11:13]))
    return total * 1_000_000_000 // TICK


def status(pids, key):
    """Bytes, summed over processes."""
    total = 0
    for pid in pids:
        text = pathlib.Path(f"/proc/{pid}/status").read_text()
        total += int(re.search(rf"^{key}:\s+(\d+) kB", text, re.M)[1]) * 1024
    return total


def proportional(pids):
    """Proportional set size of all: what is shared counts once. None where only root may know."""
    try:
        texts = [pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in pids]
    except PermissionError:
        return None
    return sum(int(re.search(r"^Pss:\s+(\d+) kB", text, re.M)[1]) for text in texts) * 1024


class Machine:
    """Processor time of the whole machine: to see whether others use it, too."""

    def __init__(self, ours):
        self.ours, self.started = ours, time.monotonic()
        self.before = self.busy() - self.own()

    @staticmethod
    def busy():
        fields = [int(field) for field in pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        return (sum(fields) - fields[3] - fields[4]) / TICK  # all but idle and waiting; stolen time counts

    def own(self):
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)  # generators that have ended
        return cpu_ns(self.ours()) / 1e9 + time.process_time() + usage.ru_utime + usage.ru_stime

    def foreign(self):
        """Cores that others had, on average."""
        return max(0.0, (self.busy() - self.own() - self.before) / (time.monotonic() - self.started))


def generate(command, cores, given=None, timeout=120):
    path = os.environ["PATH"] + ":/usr/sbin"
    with on(cores):
        ran = subprocess.run(
            [str(part) for part in command], input=given, capture_output=True, timeout=timeout, env={**os.environ, "PATH": path}
        )
    if ran.returncode != 0:
        raise Broken(f"{command[0]} ended with {ran.returncode}: {(ran.stdout + ran.stderr).decode()[-600:]}")
    return ran.stdout.decode()


def wrk(url, requests, seconds, connections, cores):
    """Kept connections, or new ones where the requests say so; all of them always busy."""
    script = [HERE / "wrk.lua", url, "--", requests]
    out = generate(["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", *script], cores)
    return json.loads(re.search(r"^RESULT (.*)$", out, re.M)[1])


def h2load(port, paths, token, cores, clients, streams=1, seconds=None, count=None, tls=True):
    """HTTP/2 over TLS, or HTTP/1.1 in the clear for a given count."""
    scheme = "https" if tls else "http"
    many = ["-D", seconds] if count is None else ["-n", count]
    protocol = ["-m", streams, "--npn-list", "h2"] if tls else ["--h1"]
    uris = [f"{scheme}://{NAME}:{port}{path}" for path in paths]
    connect = ["--connect-to", f"127.0.0.1:{port}"] if tls else []
    if not tls:
        uris = [f"http://127.0.0.1:{port}{path}" for path in paths]
    headers = ["-H", f"authorization: Bearer {token}", "-H", "user-agent: bench/1.0", "-H", "accept: application/json"]
    started = time.monotonic()
    out = generate(["h2load", "-t1", "-c", clients, *many, *protocol, *connect, *headers, *uris], cores)
    done = {name: int(number) for number, name in re.findall(r"(\d+) (succeeded|failed|errored|timeout|2xx|3xx|4xx|5xx)", out)}
    finished = re.search(r"finished in ([\d.]+)(m?s|us)", out)
    span = float(finished[1]) * {"s": 1, "ms": 1e-3, "us": 1e-6}[finished[2]] if finished else time.monotonic() - started
    failed = done["failed"] + done["errored"] + done["timeout"]
    return {"requests": done["2xx"], "seconds": span, "read": failed, "status": done["3xx"] + done["4xx"] + done["5xx"]}


def paced(port, requests, rate, seconds, connections, cores):
    """At times fixed before, over kept connections: latency without coordinated omission."""
    command = [EXAMPLES / "bench-client", "rate", f"127.0.0.1:{port}", connections, f"{rate:.1f}", seconds]
    return json.loads(generate(command, cores, requests.read_bytes()))


def handshakes(port, requests, seconds, clients, ca, cores):
    """A new TLS connection for each request, always a full handshake."""
    command = [EXAMPLES / "bench-client", "new", f"127.0.0.1:{port}", clients, seconds, NAME, ca]
    return json.loads(generate(command, cores, requests.read_bytes()))


def spent(peer, load, refused=None, ticks=False, tolerated=0):
    """Runs a load, and says what the peer spent on a request of it. `refused`: every answer but a few is meant to be one."""
    root = peer.process.pid
    in_ns, in_ticks = lambda: cpu_ns(peer.pids()), lambda: cpu_ticks_ns(root, peer.pids())
    of_target = lambda: cpu_ns(tree(peer.origin.process.pid))
    machine = Machine(lambda: peer.pids() + tree(peer.origin.process.pid))
    before, ticks_before, target_before, started = in_ns(), in_ticks(), of_target(), time.monotonic()
    result = load()
    elapsed, own, own_ticks = time.monotonic() - started, in_ns() - before, in_ticks() - ticks_before
    target, foreign = of_target() - target_before, machine.foreign()
    if ticks:
        own = own_ticks
    requests = result["requests"]
    if requests == 0:
        raise Broken(f"{peer.title}: no request was answered: {result}")
    failed = sum(result.get(kind, 0) for kind in ("connect", "read", "write", "timeout", "failed"))
    wrong = result.get("status", 0)
    if refused is not None:
        wrong = requests - wrong
    if failed > tolerated or wrong > (refused or 0):
        raise Broken(f"{peer.title}: {failed} failed, {wrong} with another status than meant, of {requests}: {result}")
    return {
        **result,
        "cpu_us": own / 1000 / requests,
        "cpu_in_ticks_us": own_ticks / 1000 / requests,
        "target_us": target / 1000 / requests,
        "rps": requests / result.get("seconds", elapsed),
        "busy": own / 1e9 / elapsed,
        "foreign": foreign,
        "failed": failed,
    }


def idle_clients(port, requests, count, each):
    """Opens connections, one request on each, and keeps them. `each`: how many come from one address."""
    sockets = []
    for number in range(count):
        client = socket.socket()
        client.bind((f"127.0.1.{1 + number // each}", 0))
        client.connect(("127.0.0.1", port))
        client.settimeout(10)
        client.sendall(requests[number % len(requests)])
        answer = client.recv(65536)
        while b"\r\n\r\n" not in answer or not answer.rstrip().endswith(b"}"):
            more = client.recv(65536)
            if not more:
                raise Broken(f"the connection was closed within an answer, after {number} connections")
            answer += more
        if not answer.startswith(b"HTTP/1.1 200"):
            raise Broken(f"connection {number + 1} got {answer[:60]!r}")
        sockets.append(client)
    return sockets
