"""The proxies that are measured, the target behind them, and what all of them are told to do."""

import hashlib
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager

from harness import Bench, Edge, alive, children, free_port, get, wait_for, write

HERE = pathlib.Path(__file__).resolve().parent
EXAMPLES = pathlib.Path(os.environ["BENCH_BIN"]).resolve()
MODULES = "/usr/lib/nginx/modules"
NAME = "origin.test"
SECRET = "target-secret"  # as the harness gives it to the daemon
ENOUGH = 1_000_000  # requests a minute: the most that may be configured, and more than any run reaches
CLIENT_PROXIES = 10  # proxies for each client's credential
DESCRIPTORS = resource.getrlimit(resource.RLIMIT_NOFILE)[1]


@contextmanager
def on(cores):
    """Whatever is started within runs on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def digest(token):
    return hashlib.sha256(token.encode()).hexdigest()


class World:
    """Proxies, their clients, and the requests for them. Every tenth proxy leads to the target with TLS."""

    LIMITED = ("limited", "client-limited", digest("limited")[:40])

    def __init__(self, proxies):
        self.ids = [f"{'s' if number % 10 == 9 else 'p'}{number:06}" for number in range(proxies)]

    @staticmethod
    def client(id):
        return f"client-{int(id[1:]) // CLIENT_PROXIES:05}"

    @staticmethod
    def token(id):
        """As long as such tokens are."""
        return digest(World.client(id))[:40]

    def plain(self):
        return [id for id in self.ids if id[0] == "p"]

    def tls(self):
        return [id for id in self.ids if id[0] == "s"]

    def all(self):
        """Id, client, token, limit of each proxy."""
        for id in self.ids:
            yield id, self.client(id), self.token(id), ENOUGH
        yield *self.LIMITED, 1


def request(id, path, token, method="GET", body=b"", close=False):
    """As a client sends it: what curl, and a program's client, would say."""
    head = f"{method} /api/{id}{path} HTTP/1.1\r\nHost: {NAME}\r\nAuthorization: Bearer {token}\r\n"
    head += "User-Agent: bench/1.0\r\nAccept: application/json\r\n"
    if body:
        head += f"Content-Type: application/octet-stream\r\nContent-Length: {len(body)}\r\n"
    if close:
        head += "Connection: close\r\n"
    return head.encode() + b"\r\n" + body


class Certificates:
    """A CA, and a certificate of it with a key on P-256."""

    def __init__(self, folder):
        folder.mkdir()
        self.ca, self.chain, self.key, self.pair = (folder / name for name in ("ca.pem", "chain.pem", "key.pem", "pair.pem"))
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        (folder / "leaf").write_text(f"subjectAltName=DNS:{NAME},IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
        for command in (
            ["req", "-x509", *curve, "-days", "2", "-subj", "/CN=bench CA", "-keyout", folder / "ca.key", "-out", self.ca],
            ["req", *curve, "-subj", f"/CN={NAME}", "-keyout", self.key, "-out", folder / "leaf.csr"],
            ["x509", "-req", "-in", folder / "leaf.csr", "-CA", self.ca, "-CAkey", folder / "ca.key", "-CAcreateserial"]
            + ["-days", "2", "-extfile", folder / "leaf", "-out", self.chain],
        ):
            subprocess.run(["openssl", *map(str, command)], check=True, capture_output=True)
        self.pair.write_text(self.chain.read_text() + self.key.read_text())
        # Targets are checked against the system's CAs, by the edge and by the passthrough alike: this is the only one.
        os.environ["SSL_CERT_FILE"] = str(self.ca)


def fill(template, folder, **values):
    """Writes a template of peers/ into `folder`, each @NAME@ replaced."""
    values = {"FOLDER": folder, "MODULES": MODULES, "NAME": NAME, "SECRET": SECRET, **values}
    text = re.sub(r"@([A-Z_]+)@", lambda name: str(values[name[1]]), (HERE / "peers" / template).read_text())
    path = folder / template
    path.write_text(text)
    return path


def nginx(bench, folder, config):
    binary = shutil.which("nginx") or "/usr/sbin/nginx"
    return bench.start(binary, "-p", folder, "-c", config, "-e", folder / "error.log", stderr=open(folder / "stderr", "w"))


class Origin:
    """The target, with and without TLS."""

    BODIES = {"1m": 1 << 20, "6m": 6 << 20}

    def __init__(self, bench, certificates):
        folder = bench.folder / "target"
        (folder / "bodies").mkdir(parents=True)
        for name, size in self.BODIES.items():
            (folder / "bodies" / name).write_bytes(b"x" * size)
        self.plain, self.tls, self.status = free_port(), free_port(), free_port()
        ports = {"PLAIN": self.plain, "TLS": self.tls, "STATUS": self.status}
        config = fill("origin.conf", folder, CHAIN=certificates.chain, KEY=certificates.key, **ports)
        self.process = nginx(bench, folder, config)
        wait_for("the target listens", lambda: get(self.plain, "/")[0] == 200)

    def accepted(self):
        """Connections so far, without the ones that ask for this."""
        self.asked = getattr(self, "asked", 0) + 1
        return int(get(self.status, "/")[1].split()[7]) - self.asked


class Peer:
    """One proxy under test. `job`: whether it does what the edge does."""

    name = title = ""
    job = True
    clients = min(10_000, DESCRIPTORS - 500)  # how many it can have at once
    ends_with = signal.SIGTERM

    def __init__(self, bench, origin, certificates, world, threads=1, cores=(0,)):
        self.bench, self.origin, self.certificates, self.world, self.threads = bench, origin, certificates, world, threads
        self.port, self.tls_port = free_port(), free_port()
        self.folder = bench.folder / f"{self.name}-{self.port}"
        self.folder.mkdir()
        self.log = self.folder / "access.log"
        with on(cores):
            self.process = self.start()
        wait_for(f"{self.title} listens", lambda: self.running() and get(self.port, "/api/x")[0] > 0, 60)

    def running(self):
        if self.process.poll() is not None:
            raise SystemExit(f"{self.title} ended:\n{self.words()}")
        return True

    def words(self):
        files = [path for name in ("stderr", "error.log", "edge.log") for path in self.folder.rglob(name)]
        return "".join(path.read_text()[-2000:] for path in files)

    def values(self):
        return {
            "PORT": self.port, "TLS_PORT": self.tls_port, "THREADS": self.threads, "TARGET": self.origin.plain,
            "TLS_TARGET": self.origin.tls, "CHAIN": self.certificates.chain, "KEY": self.certificates.key,
            "PAIR": self.certificates.pair, "CA": self.certificates.ca, "LIMITED": World.LIMITED[2],
        }

    def stderr(self):
        return open(self.folder / "stderr", "w")

    def pids(self):
        return tree(self.process.pid)

    def stop(self):
        pids = self.pids()
        self.process.send_signal(self.ends_with)
        wait_for(f"{self.title} stops", lambda: not any(map(alive, pids)))


def tree(pid):
    return [pid] + [below for child in children(pid) for below in tree(child)]


class EdgePeer(Peer):
    name, title = "edge", "requestrocket-edge"
    ends_with = signal.SIGINT  # at once: with TERM it would wait for those who are connected
    EACH = 100  # proxies in a fragment
    binary = os.environ["EDGE_BIN"]

    def start(self):
        self.edge = edge = Edge(self.bench, access_log=self.log)
        edge.install(self.binary)
        edge.folder.rename(self.folder / "edge")
        edge.folder = self.folder / "edge"
        edge.fragments, edge.binary, edge.log = edge.folder / "proxies.d", edge.folder / edge.binary.name, edge.folder / "edge.log"
        tls = f"tls: {{ certificates: [ {{ chain: {self.certificates.chain}, key: {self.certificates.key} }} ] }}"
        write(
            edge.folder / "edge.yaml",
            f"""region: bench
threads: {self.threads}
listeners:
  - {{ address: "127.0.0.1:{self.port}" }}
  - {{ address: "127.0.0.1:{self.tls_port}", {tls} }}
admin: {{ address: "127.0.0.1:{edge.admin}" }}
include: proxies.d
allow_private_targets: true
# Bad credentials are counted as ever, and refused as such to the end of the run.
limits: {{ invalid_credentials_per_minute: 1000000 }}
access_log: {{ path: {self.log} }}
""",
        )
        edge.fragment("targets", self.targets())
        proxies = list(self.world.all())
        for first in range(0, len(proxies), self.EACH):
            edge.fragment(f"p{first:06}", fragment(proxies[first : first + self.EACH]))
        edge.start()
        return next(process for process in self.bench.processes if process.pid == edge.pid)

    def targets(self):
        return f"""targets:
  - {{ id: plain, base_url: "http://127.0.0.1:{self.origin.plain}/v1" }}
  - {{ id: tls, base_url: "https://127.0.0.1:{self.origin.tls}/v1" }}
target_credentials:
  - {{ id: key, type: bearer, secret: {{ env: LOAD_TARGET_SECRET }} }}
"""

    def reload(self, number):
        """A fragment that says something new, as a deployment would put it there."""
        self.edge.fragment("targets", self.targets() + f"  - {{ id: key-{number}, type: none }}\n")
        self.edge.signal(signal.SIGHUP)


def fragment(proxies):
    """One file: the proxies, and their clients."""
    clients = {client: (token, limit) for _, client, token, limit in proxies}
    lines = ["accounts:"]
    for client, (_, limit) in clients.items():
        lines += [f"  - {{ id: of-{client}, plan: business, rate_limit: {{ requests_per_minute: {limit} }} }}"]
    lines += ["proxy_credentials:"]
    for client, (token, _) in clients.items():
        lines += [f'  - {{ id: {client}, account: of-{client}, type: bearer, secret: {{ sha256: "{digest(token)}" }} }}']
    lines += ["proxies:"]
    for id, client, _, _ in proxies:
        target = "tls" if id[0] == "s" else "plain"
        lines += [f"  - {{ id: {id}, target: {target}, target_credential: key, proxy_credentials: [{client}] }}"]
    return "\n".join(lines) + "\n"


class Passthrough(Peer):
    name, title, job = "pingora", "bare Pingora", False
    ends_with = signal.SIGINT

    def start(self):
        addresses = [f"127.0.0.1:{port}" for port in (self.port, self.tls_port)]
        targets = [f"127.0.0.1:{port}" for port in (self.origin.plain, self.origin.tls)]
        files = [self.certificates.chain, self.certificates.key]
        command = [EXAMPLES / "passthrough", *addresses, *files, *targets, "127.0.0.1", self.threads]
        return self.bench.start(*command, stdout=self.stderr(), stderr=subprocess.STDOUT)


class Nginx(Peer):
    name, title = "nginx", "nginx"

    def start(self):
        authorization = f"Bearer {SECRET}"
        lines = [f'"{id} Bearer {token}" "{authorization}";\n' for id, _, token, _ in self.world.all()]
        (self.folder / "credentials.map").write_text("".join(lines))
        return nginx(self.bench, self.folder, fill("nginx.conf", self.folder, **self.values()))

    def reload(self, _):
        self.process.send_signal(signal.SIGHUP)


class NginxLua(Peer):
    name, title = "nginx-lua", "nginx + Lua"

    def start(self):
        shutil.copy(HERE / "peers" / "job.lua", self.folder)
        bases = {"p": ("plain", self.origin.plain, "http"), "s": ("tls", self.origin.tls, "https")}
        with open(self.folder / "proxies.tsv", "w") as out:
            for id, client, token, limit in self.world.all():
                upstream, port, scheme = bases["s" if id[0] == "s" else "p"]
                parts = (id, f"{scheme}://{upstream}/v1", f"127.0.0.1:{port}", f"Bearer {SECRET}", client, digest(token), limit)
                print(*parts, sep="\t", file=out)
        return nginx(self.bench, self.folder, fill("nginx-lua.conf", self.folder, **self.values()))

    def reload(self, _):
        self.process.send_signal(signal.SIGHUP)


class Haproxy(Peer):
    name, title = "haproxy", "HAProxy"
    # It does not start without two descriptors for each client that it may have.
    clients = min(Peer.clients, (DESCRIPTORS - 100) // 2)

    def start(self):
        lines = [f"{id} {digest(token)}\n" for id, _, token, _ in self.world.all()]
        (self.folder / "proxies.map").write_text("".join(lines))
        (self.folder / "limits.map").write_text(f"{digest(World.LIMITED[2])} 1\n")
        config = fill("haproxy.cfg", self.folder, **self.values(), MAXCONN=self.clients)
        binary = shutil.which("haproxy") or "/usr/sbin/haproxy"
        return self.bench.start(binary, "-W", "-db", "-f", config, stdout=open(self.log, "w"), stderr=self.stderr())

    def reload(self, _):
        self.process.send_signal(signal.SIGUSR2)


class Caddy(Peer):
    name, title, job = "caddy", "Caddy", False

    def start(self):
        config = fill("Caddyfile", self.folder, **self.values())
        environment = {**os.environ, "HOME": str(self.folder), "XDG_DATA_HOME": str(self.folder), "GOMAXPROCS": str(self.threads)}
        command = ["caddy", "run", "--config", config, "--adapter", "caddyfile"]
        return self.bench.start(*command, stdout=self.stderr(), stderr=subprocess.STDOUT, env=environment)


class OtherEdge(EdgePeer):
    """Another build of the edge, to see what its build is worth."""

    name, title = "edge-other", "the edge, other build"
    binary = os.environ.get("EDGE_OTHER_BIN")


ALL = [EdgePeer, *([OtherEdge] if OtherEdge.binary else []), Passthrough, Nginx, NginxLua, Haproxy, Caddy]
WANTED = os.environ.get("BENCH_PEERS", "").replace(" ", "").split(",")
PEERS = [kind for kind in ALL if WANTED == [""] or kind.name in WANTED]


def version_of(peer):
    commands = {
        "edge": [EdgePeer.binary, "--version"], "edge-other": [OtherEdge.binary, "--version"], "nginx": ["nginx", "-v"],
        "haproxy": ["haproxy", "-v"], "caddy": ["caddy", "version"],
    }
    if peer == "pingora":
        lock = (HERE.parent.parent / "Cargo.lock").read_text()
        return "pingora " + re.search(r'name = "pingora"\nversion = "(.*?)"', lock)[1]
    path = os.environ["PATH"] + ":/usr/sbin"
    ran = subprocess.run(commands.get(peer, commands["nginx"]), capture_output=True, text=True, env={**os.environ, "PATH": path})
    return (ran.stdout + ran.stderr).splitlines()[0].strip()
