"""What the edge costs beside its peers: CPU for each request, throughput of one core, latency, memory."""

import datetime
import json
import os
import pathlib
import random
import statistics
import threading
import time
from contextlib import suppress

from harness import MB, Bench, Table

import report
from check import check
from measure import Broken, h2load, handshakes, idle_clients, paced, proportional, spent, status, wrk
from peers import PEERS, Certificates, EdgePeer, Origin, World, on, request, version_of

SECONDS = int(os.environ.get("BENCH_SECONDS", "3"))  # whole ones: wrk and h2load know no others
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
WANTED = [name for name in os.environ.get("BENCH_SCENARIOS", "").replace(" ", "").split(",") if name]
OUT = pathlib.Path(os.environ.get("BENCH_OUT", pathlib.Path(__file__).resolve().parent / "results"))
PROXIES = 10_000
CONNECTIONS = 64
SERVE, LOAD = {0}, {1}  # the core of the peer, and that of the load and the target
IDLE, PER_ADDRESS = 10_000, 500
HANDSHAKES = 10_000
AT = 0.6  # of the edge's capacity on one core

JOBS = [kind for kind in PEERS if kind.job]


class Run:
    """All that is under way, and all that was measured: by scenario, peer and round."""

    def __init__(self, bench):
        self.bench = bench
        self.certificates = Certificates(bench.folder / "tls")
        with on(LOAD):
            self.origin = Origin(bench, self.certificates)
        self.world = World(PROXIES)
        self.fleet, self.checked = {}, set()
        self.results = {}
        self.random = random.Random(4711)

    def peer(self, kind):
        """The one that most scenarios share: 10,000 proxies, one thread, one core."""
        if kind.name not in self.fleet:
            self.fleet[kind.name] = self.started(kind)
        return self.fleet[kind.name]

    def started(self, kind, world=None, threads=1, cores=SERVE):
        """One more, of a kind that has been seen to do its job; nobody has spoken to it yet."""
        make = lambda *more: kind(self.bench, self.origin, self.certificates, *more)
        if kind not in self.checked:
            first = make(self.world)
            check(first)
            first.stop()
            self.checked.add(kind)
        return make(world or self.world, threads, cores)

    def requests(self, ids, path="/small", most=5000, **more):
        """A file of requests for proxies picked at random, each with the credential of its client."""
        picked = [self.random.choice(ids) for _ in range(most)]
        return self.write(request(id, path, World.token(id), **more) for id in picked)

    def write(self, requests):
        file = self.bench.folder / f"requests-{time.monotonic_ns()}"
        file.write_bytes(b"\0".join(requests))
        return file

    def rounds(self, scenario, subjects, measure, rounds=ROUNDS, warm=True):
        """Every subject once a round, each round beginning with another; once before, unmeasured, to warm up."""
        names = list(subjects)
        if not names:
            return  # nobody who was asked for has what this takes
        results = self.results.setdefault(scenario, {})
        for name in names if warm else ():
            measure(subjects[name], 1)
        for number in range(rounds):
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                measured = measure(subjects[name], SECONDS)
                results.setdefault(name, []).append(measured)
                print(f"  {scenario:<17} round {number + 1}  {name:<22}" + report.brief(measured), flush=True)

    def by_wrk(self, scenario, requests, kinds=PEERS, connections=CONNECTIONS, tls=False, rounds=ROUNDS, **more):
        def measure(peer, seconds):
            url = f"https://127.0.0.1:{peer.tls_port}/" if tls else f"http://127.0.0.1:{peer.port}/"
            return spent(peer, lambda: wrk(url, requests, seconds, connections, LOAD), **more)

        self.rounds(scenario, {kind.name: self.peer(kind) for kind in kinds}, measure, rounds)


def small_get(run):
    run.by_wrk("small_get", run.requests(run.world.plain()), rounds=max(ROUNDS, 2 * ROUNDS - 1))
    for name, peer in run.fleet.items():
        last = run.results["small_get"][name][-1]
        last["peak_mb"] = status(peer.pids(), "VmHWM") / MB
        last["pss_mb"] = (proportional(peer.pids()) or status(peer.pids(), "VmRSS")) / MB


def latency(run):
    requests = run.requests(run.world.plain())
    if "small_get" in run.results:
        capacity = statistics.median(one["rps"] for one in run.results["small_get"]["edge"])
    else:
        edge = run.peer(EdgePeer)
        url = f"http://127.0.0.1:{edge.port}/"
        capacity = max(spent(edge, lambda: wrk(url, requests, 1, CONNECTIONS, LOAD))["rps"] for _ in range(2))
    rate = AT * capacity

    def measure(peer, seconds):
        return {**spent(peer, lambda: paced(peer.port, requests, rate, seconds, CONNECTIONS, LOAD)), "rate": rate}

    run.rounds("latency", {kind.name: run.peer(kind) for kind in PEERS}, measure, max(ROUNDS, 2 * ROUNDS - 1))


def post_16k(run):
    run.by_wrk("post_16k", run.requests(run.world.plain(), most=500, method="POST", body=b"x" * (16 << 10)))


def bodies(name, path, connections):
    def scenario(run):
        run.by_wrk(name, run.requests(run.world.plain(), path=path), connections=connections)

    return scenario


def https_in(run):
    run.by_wrk("https_in", run.requests(run.world.plain()), tls=True)


def https_both(run):
    run.by_wrk("https_both", run.requests(run.world.tls()), tls=True)


def https_new(run):
    requests = run.requests(run.world.tls(), close=True)

    def measure(peer, seconds):
        return spent(peer, lambda: handshakes(peer.tls_port, requests, seconds, 16, run.certificates.ca, LOAD))

    run.rounds("https_new", {kind.name: run.peer(kind) for kind in PEERS}, measure)


def of_one_client(ids):
    """Paths of the proxies of one client, and its token: h2load sends the same headers everywhere."""
    client = World.client(ids[len(ids) // 2])
    return [f"/api/{id}/small" for id in ids if World.client(id) == client], World.token(ids[len(ids) // 2])


def http2_in(run):
    paths, token = of_one_client(run.world.plain())

    def measure(peer, seconds):
        return spent(peer, lambda: h2load(peer.tls_port, paths, token, LOAD, 16, streams=4, seconds=seconds))

    run.rounds("http2_in", {kind.name: run.peer(kind) for kind in PEERS}, measure)


def refused_403(run):
    ids = [run.random.choice(run.world.plain()) for _ in range(5000)]
    requests = run.write(request(id, "/small", World.token(id)[::-1]) for id in ids)
    run.by_wrk("refused_403", requests, JOBS, refused=0)


def refused_429(run):
    id, _, token = World.LIMITED
    # One a minute is admitted: at most two while this runs.
    run.by_wrk("refused_429", run.write([request(id, "/small", token)]), JOBS, refused=2)


def proxies(run):
    worlds = {f"edge, {count:,} proxies": World(count) for count in (100, 100_000)}
    subjects = {name: run.started(EdgePeer, world) for name, world in worlds.items()}
    requests = {id(subjects[name]): run.requests(worlds[name].plain()) for name in worlds}

    def measure(peer, seconds):
        url = f"http://127.0.0.1:{peer.port}/"
        return spent(peer, lambda: wrk(url, requests[id(peer)], seconds, CONNECTIONS, LOAD))

    run.rounds("proxies", subjects, measure, max(ROUNDS, 2 * ROUNDS - 1))
    for peer in subjects.values():
        peer.stop()


def reloads(run):
    requests = run.requests(run.world.plain())
    subjects = {kind.name: run.started(kind) for kind in JOBS}

    def measure(peer, seconds):
        url, seconds = f"http://127.0.0.1:{peer.port}/", max(3, seconds)

        def load():
            def reload():
                for number in range(seconds - 1):
                    time.sleep(1)
                    peer.reload(number + 1)

            thread = threading.Thread(target=reload)
            thread.start()
            result = wrk(url, requests, seconds, CONNECTIONS, LOAD)
            thread.join()
            return result

        before = peer.edge.generation() if peer.name == "edge" else None
        # Connections that a server closes while a request is on its way count as failed here, and are told.
        measured = spent(peer, load, ticks=True, tolerated=10 * CONNECTIONS * seconds)
        if before is not None and peer.edge.generation() < before + seconds - 1:
            raise Broken(f"{seconds - 1} reloads, and {peer.edge.generation() - before} generations")
        return measured

    run.rounds("reloads", subjects, measure, warm=False)
    for peer in subjects.values():
        peer.stop()


def two_threads(run):
    requests = run.requests(run.world.plain())
    cores = SERVE | LOAD
    subjects = {kind.name: run.started(kind, threads=2, cores=cores) for kind in PEERS}

    def measure(peer, seconds):
        url = f"http://127.0.0.1:{peer.port}/"
        return spent(peer, lambda: wrk(url, requests, seconds, CONNECTIONS, cores))

    run.rounds("two_threads", subjects, measure)
    for peer in subjects.values():
        peer.stop()


def target_handshakes(run):
    paths, token = of_one_client(run.world.tls())
    results = run.results.setdefault("target_handshakes", {})
    for number in range(ROUNDS):
        for kind in PEERS:
            peer = run.started(kind, threads=2, cores=SERVE | LOAD)
            before = run.origin.accepted()
            measured = spent(
                peer, lambda: h2load(peer.port, paths, token, SERVE | LOAD, CONNECTIONS, count=HANDSHAKES, tls=False)
            )
            measured["handshakes"] = (run.origin.accepted() - before) * HANDSHAKES / measured["requests"]
            results.setdefault(kind.name, []).append(measured)
            print(f"  target_handshakes round {number + 1}  {kind.name:<22}" + report.brief(measured), flush=True)
            peer.stop()


def idle(run):
    results = run.results.setdefault("idle", {})
    id = run.world.plain()[0]
    requests = [request(id, "/small", World.token(id)) for id in run.world.plain()[:1000]]
    for kind in PEERS:
        peer = run.started(kind)
        for client in idle_clients(peer.port, requests, 100, PER_ADDRESS):
            client.close()
        time.sleep(1)
        memory = lambda: status(peer.pids(), "RssAnon") + status(peer.pids(), "RssShmem")
        before = memory()
        clients = idle_clients(peer.port, requests, min(IDLE, peer.clients), PER_ADDRESS)
        time.sleep(1)
        each = (memory() - before) / len(clients) / 1024
        for client in clients:
            client.close()
        results[kind.name] = [{"idle_kib": each}]
        print(f"  idle                       {kind.name:<22}" + report.brief({"idle_kib": each}), flush=True)
        peer.stop()


SCENARIOS = {
    "small_get": ("small GET", small_get),
    "latency": (f"small GET at {AT:.0%} of the edge's capacity", latency),
    "post_16k": ("POST of 16 KiB", post_16k),
    "1m_sized": ("answers of 1 MiB, length known", bodies("1m_sized", "/sized/1m", 16)),
    "1m_chunked": ("answers of 1 MiB, chunked (the edge holds them)", bodies("1m_chunked", "/chunked/1m", 16)),
    "6m_sized": ("answers of 6 MiB, length known", bodies("6m_sized", "/sized/6m", 16)),
    "6m_chunked": ("answers of 6 MiB, chunked (the edge holds them)", bodies("6m_chunked", "/chunked/6m", 16)),
    "https_in": ("HTTPS in, connections kept", https_in),
    "https_both": ("HTTPS in and out, connections kept", https_both),
    "https_new": ("HTTPS in and out, a new connection from the client for each request", https_new),
    "http2_in": ("HTTP/2 in, over TLS", http2_in),
    "refused_403": ("refused: bad credential", refused_403),
    "refused_429": ("refused: over the limit", refused_429),
    "proxies": ("100 and 100,000 proxies", proxies),
    "reloads": ("a reload each second", reloads),
    "two_threads": ("two threads, or workers, on both cores beside the load", two_threads),
    "target_handshakes": (f"handshakes with a TLS target in the first {HANDSHAKES:,} requests, two threads", target_handshakes),
    "idle": (f"{IDLE:,} idle clients", idle),
}


def ratio(results, over, under, key="cpu_us"):
    """The median over the rounds of one value divided by another; `over` and `under` are scenario and peer."""
    pairs = zip(results[over[0]][over[1]], results[under[0]][under[1]])
    return statistics.median(a[key] / b[key] for a, b in pairs)


def budgets(results, table):
    """Each promise with what was measured; what was not measured is not judged."""
    edge = lambda scenario, peer, key="cpu_us": ratio(results, (scenario, "edge"), (scenario, peer), key)
    own = lambda over, under, peer=("edge", "edge"): ratio(results, (over, peer[0]), (under, peer[1]))
    many_few = ("edge, 100,000 proxies", "edge, 100 proxies")
    for what, bound, value in (
        ("small GET: CPU beside bare Pingora", 1.10, lambda: edge("small_get", "pingora")),
        ("small GET: CPU beside nginx + Lua", 1.00, lambda: edge("small_get", "nginx-lua")),
        (f"small GET at {AT:.0%}: p99 beside bare Pingora", 1.2, lambda: edge("latency", "pingora", "p99_us")),
        ("HTTPS in and out, kept: CPU beside nginx + Lua", 1.00, lambda: edge("https_both", "nginx-lua")),
        ("HTTPS, new connections: CPU beside nginx + Lua", 1.25, lambda: edge("https_new", "nginx-lua")),
        ("HTTP/2 in: CPU beside nginx + Lua", 0.85, lambda: edge("http2_in", "nginx-lua")),
        ("100,000 proxies: CPU beside 100", 1.05, lambda: own("proxies", "proxies", many_few)),
        ("6 MiB held: CPU beside sized", 1.5, lambda: own("6m_chunked", "6m_sized")),
        ("403 for a bad credential: CPU beside admitted", 1.00, lambda: own("refused_403", "small_get")),
    ):
        with suppress(KeyError):  # a scenario or a peer that was not asked for
            table.most(what, value(), bound, "x", 2)
    if "edge" in results.get("idle", {}):
        table.most("memory of an idle client", results["idle"]["edge"][0]["idle_kib"], 20, "KiB", 1)


def main():
    unknown = [name for name in WANTED if name not in SCENARIOS]
    if unknown:
        raise SystemExit(f"no scenario is called {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    if os.cpu_count() < 2:
        raise SystemExit("two cores are needed: one for the peer, one for the load")
    with Bench() as bench:
        table = Table("budgets")
        started = time.monotonic()
        run = Run(bench)
        for name, (title, scenario) in SCENARIOS.items():
            if WANTED and name not in WANTED:
                continue
            print(f"\n{title}", flush=True)
            try:
                scenario(run)
            except Broken as broken:
                print(f"  BROKEN: {broken}", flush=True)
                run.results.pop(name, None)
                table.row(title, "broken", "measured", False)
        for peer in run.fleet.values():
            peer.stop()  # in good order: a build that is being trained writes what it has learned
        budgets(run.results, table)
        facts = {
            "date": datetime.date.today().isoformat(),
            "machine": report.machine(),
            "load_before": table.others,
            "seconds": SECONDS,
            "rounds": ROUNDS,
            "versions": {kind.name: version_of(kind.name) for kind in PEERS},
            "titles": {name: title for name, (title, _) in SCENARIOS.items()},
            "peers": {kind.name: kind.title for kind in PEERS},
            "label": os.environ.get("BENCH_LABEL", ""),
            "jobless": [kind.name for kind in PEERS if not kind.job],
            "took": time.monotonic() - started,
        }
        report.write(OUT, facts, run.results, table.rows)
        table.end()


main()
