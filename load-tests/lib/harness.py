"""What the load tests share: a folder, an origin, the daemon, the load, and a table of what came out."""

import ctypes
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
EDGE_BIN = pathlib.Path(os.environ["EDGE_BIN"]).resolve()
MB = 1_000_000
PR_SET_CHILD_SUBREAPER = 36
DIGEST_OF_TOKEN = "3c469e9d6c5875d37a43f353d4f88e61fcf812c66eee3457465a40b0da4153e0"
TOKEN = "token"

# One proxy; ORIGIN is the port of its target.
FRAGMENT = f"""proxy_credentials:
  - id: client
    type: bearer
    secret: {{ sha256: "{DIGEST_OF_TOKEN}" }}
    rate_limit: {{ requests_per_minute: 1000000 }}
target_credentials:
  - {{ id: key, type: bearer, secret: {{ env: LOAD_TARGET_SECRET }} }}
targets:
  - {{ id: origin, base_url: "http://127.0.0.1:ORIGIN/a" }}
proxies:
  - {{ id: p, target: origin, target_credential: key, proxy_credentials: [client] }}
"""

_ports = set()


def free_port():
    """A port that nobody listens on, outside of those that connections get."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in _ports:
            _ports.add(port)
            return port


def wait_for(what, condition, seconds=30.0, every=0.01):
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise SystemExit(f"gave up after {seconds:g} s: {what}")
        time.sleep(every)


def write(path, content):
    """Replaces a file in one step, as a deployment should: written beside its folder, renamed into it."""
    new = path.parent.with_name(f"{path.name}.new")
    new.write_text(content)
    new.rename(path)


def get(port, path, token=None, timeout=10.0):
    """Status and body of a GET on a new connection; status 0 when nobody answers."""
    credential = f"Authorization: Bearer {token}\r\n" if token else ""
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{credential}Connection: close\r\n\r\n"
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=timeout) as client:
            client.sendall(request.encode())
            answer = b"".join(iter(lambda: client.recv(65536), b""))
    except OSError:
        return 0, b""
    head, _, body = answer.partition(b"\r\n\r\n")
    return (int(head.split()[1]), body) if head else (0, b"")


class Bench:
    """A folder with everything in it, gone in the end, as is every process."""

    def __init__(self):
        # Processes whose parent has gone become ours: a successor is a child of its predecessor.
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="edge-load-"))
        self.folder.chmod(0o755)  # started by root, nginx reads it as somebody else
        self.processes = []
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            process.kill()
            process.wait()
        while True:  # whoever became ours
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                for child in children(os.getpid()):
                    os.kill(child, signal.SIGKILL)
                time.sleep(0.02)
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, *command, **options):
        process = subprocess.Popen([str(part) for part in command], **options)
        self.processes.append(process)
        return process

    def origin(self):
        """A target that answers at once, with the credential it got and the path; `/…/slow` takes three seconds,
        `/…/big` has 5 MB, `/a/takes` takes the whole request first."""
        port = free_port()
        folder = self.folder / "origin"
        for name in ("a", "b"):
            (folder / name).mkdir(parents=True)
            (folder / name / "slow").write_text("x" * 300_000)
            (folder / name / "big").write_text("x" * 5_000_000)
        temporary = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        (folder / "nginx.conf").write_text(
            f"""daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log warn;
            events {{ worker_connections 4096; }}
            http {{
              access_log off; default_type text/plain; keepalive_requests 1000000000; {temporary}
              server {{
                listen 127.0.0.1:{port} backlog=4096;
                location / {{ return 200 "$http_authorization $uri"; }}
                location ~ /big$ {{ root {folder}; }}
                location /a/takes {{ proxy_pass http://127.0.0.1:{port}/; }}
                location ~ /slow$ {{ root {folder}; limit_rate 100k; error_page 405 =200 $uri; }}
              }}
            }}"""
        )
        nginx = shutil.which("nginx") or "/usr/sbin/nginx"
        self.start(nginx, "-p", folder, "-c", folder / "nginx.conf", "-e", folder / "error.log", stderr=subprocess.DEVNULL)
        wait_for("the origin listens", lambda: get(port, "/")[0] == 200)
        return port


def children(pid):
    try:
        return [int(child) for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


class Edge:
    """The daemon, with a configuration folder of its own."""

    def __init__(self, bench, settings="", access_log="off"):
        self.bench = bench
        self.port, self.admin = free_port(), free_port()
        self.folder = bench.folder / f"edge-{self.port}"
        self.fragments = self.folder / "proxies.d"
        self.fragments.mkdir(parents=True)
        self.binary = self.folder / "requestrocket-edge"
        self.log = self.folder / "edge.log"
        self.install()
        # A client that waits for its proxy to appear asks with what is not yet a credential, again and again.
        write(
            self.folder / "edge.yaml",
            f"""region: load
listeners:
  - {{ address: "127.0.0.1:{self.port}", http2: cleartext }}
admin: {{ address: "127.0.0.1:{self.admin}" }}
include: proxies.d
allow_private_targets: true
limits: {{ invalid_credentials_per_minute: 0 }}
access_log: {{ path: {access_log} }}
{settings}
""",
        )
        self.pid = None

    def install(self, source=EDGE_BIN):
        """Puts a binary in place, over the one that runs."""
        new = self.binary.with_name("new")
        shutil.copy(source, new)
        new.rename(self.binary)

    def listener(self, listener):
        """One more, before the start."""
        main = self.folder / "edge.yaml"
        main.write_text(main.read_text().replace("listeners:\n", f"listeners:\n  - {listener}\n", 1))

    def fragment(self, name, text):
        write(self.fragments / f"{name}.yaml", text)

    def start(self):
        """Starts, and tells how long it took until ready."""
        environment = {**os.environ, "LOAD_TARGET_SECRET": "target-secret", "RUST_LOG": "info"}
        started = time.monotonic()
        with open(self.log, "ab") as log:
            process = self.bench.start(
                self.binary, "serve", "-c", self.folder / "edge.yaml", stdout=log, stderr=log, env=environment
            )
        self.pid = process.pid

        def ready():
            if process.poll() is not None:
                raise SystemExit(f"the daemon ended:\n{self.log.read_text()[-2000:]}")
            return get(self.admin, "/readyz")[0] == 200

        wait_for("the daemon is ready", ready, 60, every=0.005)
        return time.monotonic() - started

    def signal(self, number):
        os.kill(self.pid, number)

    def stop(self):
        self.signal(signal.SIGINT)
        wait_for("the daemon stops", lambda: not alive(self.pid))

    def metric(self, name):
        found = re.search(rf"^{name}(?:{{[^}}]*}})? (\S+)$", get(self.admin, "/metrics")[1].decode(), re.M)
        return float(found[1]) if found else None

    def generation(self):
        return int(self.metric("requestrocket_config_generation") or 0)

    def cpu(self):
        """Seconds of processor time so far: what other programs on the machine hardly change."""
        fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident(self, key="VmRSS"):
        """Bytes."""
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(rf"^{key}:\s+(\d+) kB", status, re.M)[1]) * 1024

    def descriptors(self):
        return int(self.metric("process_open_fds"))  # of a process that cannot be dumped, /proc tells root alone


def certificate(folder):
    """A throw-away certificate, as the configuration names it."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=edge.test"]
        + ["-addext", "subjectAltName=DNS:edge.test,IP:127.0.0.1", "-keyout", folder / "key.pem", "-out", folder / "chain.pem"],
        check=True, capture_output=True,
    )
    return "{ chain: chain.pem, key: key.pem }"


def listens(pid, port):
    """Whether a process has a socket open that listens on the port; none where only root may know."""
    rows = [line.split() for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]]
    sockets = {f"socket:[{row[9]}]" for row in rows if row[1].endswith(f":{port:04X}") and row[3] == "0A"}
    try:
        for entry in os.listdir(f"/proc/{pid}/fd"):
            try:
                if os.readlink(f"/proc/{pid}/fd/{entry}") in sockets:
                    return True
            except FileNotFoundError:
                pass  # a connection that was closed meanwhile
    except FileNotFoundError:
        pass  # the process has ended
    except PermissionError:
        return None
    return False


def connections_to(port):
    """How many established connections lead to a port."""
    rows = (line.split(None, 4) for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:])
    return sum(row[2].endswith(f":{port:04X}") and row[3] == "01" for row in rows)


def alive(pid):
    """Whether a process runs; takes note of its end where it is ours."""
    try:
        if os.waitpid(pid, os.WNOHANG)[0] == pid:
            return False
    except ChildProcessError:
        pass
    return os.path.exists(f"/proc/{pid}")


class Load:
    """Clients under way, in a process of their own."""

    def __init__(self, bench, port, mix, answer, paths, until_gone=False):
        more = ["--until-gone"] if until_gone else []
        self.process = bench.start(
            sys.executable, HERE / "client.py", *more, port, json.dumps(mix), TOKEN, answer, *paths,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )

    def stop(self):
        self.process.stdin.close()
        self.process.stdin = None
        out, _ = self.process.communicate(timeout=90)
        if self.process.returncode != 0:
            raise SystemExit("the load broke off")
        return json.loads(out)


class Steady:
    """Requests at a steady rate in a process of their own; what became of each, by when it was due."""

    def __init__(self, bench, port, rate, connections, target):
        command = [sys.executable, HERE / "steady.py", port, rate, connections, target]
        self.process = bench.start(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.results = []  # due, status, seconds, told when to come again
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            due, status, seconds, told = line.split()
            self.results.append((float(due), int(status), float(seconds), told == "1"))

    def stop(self):
        self.process.stdin.close()
        self.process.wait(60)
        self.reader.join(10)

    def due(self, since, until):
        return [result for result in self.results if since <= result[0] < until]


def percentile(values, part):
    values = sorted(values)
    return values[min(len(values) - 1, int(part * len(values)))]


def usual_p99(requests, width):
    """The median of the 99th percentiles of windows of so many seconds: what others do on the machine comes and goes."""
    windows = {}
    for due, _, seconds, _ in requests:
        windows.setdefault(due // width, []).append(seconds)
    return statistics.median(percentile(window, 0.99) for window in windows.values()) if windows else 0.0


def print_failures(results):
    """The kinds of failures, with when they came after `told`, where that is known."""
    kinds = {}
    for result in results:
        for at, name, failure in result["failures"]:
            kinds.setdefault((name, failure), []).append(at - result.get("told", at))
    for (name, failure), times in sorted(kinds.items()):
        print(f"  {name}: {failure}: {len(times)} times, {min(times):.3f} to {max(times):.3f} s after the signal")


def print_load(result):
    """What the clients did, a line a kind."""
    print(f"\n{'clients':<16}{'answered':>9}{'conn.':>8}{'replaced':>9}{'again':>6}{'failed':>7}{'median':>9}{'p99':>9}{'max':>9}  ms")
    plain = ("answered", "connections", "idle closed", "sent again")
    for name, counts in sorted(result["counts"].items()):
        failed = sum(number for kind, number in counts.items() if kind not in plain)
        latency = result["latency_ms"].get(name, {})
        cells = [counts.get(kind, 0) for kind in plain]
        times = "".join(f"{latency.get(part, 0):9.1f}" for part in ("median", "p99", "max"))
        print(f"{name:<16}{cells[0]:9}{cells[1]:8}{cells[2]:9}{cells[3]:6}{failed:7}{times}")
    print(f"{answered(result)} requests in {result['seconds']:.0f} s")


def answered(result):
    return sum(counts.get("answered", 0) for counts in result["counts"].values())


def failures(result):
    return len(result["failures"]) + result["unfinished"]


class Table:
    """Measured values, each with its bound."""

    def __init__(self, title):
        self.title, self.rows, self.missed = title, [], False
        self.others = os.getloadavg()[0]

    def row(self, what, measured, bound=None, met=True):
        self.rows.append((what, str(measured), bound or "", "" if bound is None else "met" if met else "MISSED"))
        self.missed |= not met

    def most(self, what, value, bound, unit, digits=0):
        self.row(what, f"{value:.{digits}f} {unit}".strip(), f"at most {bound:g} {unit}".strip(), value <= bound)

    def end(self):
        print(f"\n{self.title}\n  on {os.cpu_count()} cores, load average before the start: {self.others:.1f}")
        for what, measured, bound, verdict in self.rows:
            print(f"  {what:<58}{measured:>18}   {bound:<22}{verdict}")
        sys.exit(1 if self.missed else 0)
