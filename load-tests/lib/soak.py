"""Everything at once, for a long time: every answer is verified, nothing is left behind."""

import hashlib
import itertools
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time

from harness import HERE, MB, Bench, Edge, Table, certificate, connections_to, free_port, get, wait_for

MINUTES = float(os.environ.get("SOAK_MINUTES", "30"))
RELOAD_EVERY, SAMPLE_EVERY, POOL_IDLE = 1.0, 2.0, 5
MOST_GROWTH = 64  # KiB a minute, with 60 reloads in it
SETTLED = 10  # minutes: a shorter run sees buffers fill and connections come, not whether that ends
TOKENS = {"client": "token", "suspended": "suspended", "limited": "limited"}


def fragment(version, origin, nobody):
    """Target and target credential change together: an answer of half a generation would show."""
    credentials = {
        "client": "rate_limit: { requests_per_minute: 1000000 }",
        "suspended": "account: suspended",
        "limited": "rate_limit: { requests_per_minute: 30 }",
    }
    lines = ["accounts:", "  - { id: suspended, plan: team, billing: suspended }", "proxy_credentials:"]
    for name, more in credentials.items():
        digest = hashlib.sha256(TOKENS[name].encode()).hexdigest()
        lines.append(f'  - {{ id: {name}, type: bearer, secret: {{ sha256: "{digest}" }}, {more} }}')
    lines += ["target_credentials:", f"  - {{ id: key, type: bearer, secret: {{ value: {version} }} }}", "targets:"]
    for name, port in (("origin", origin), ("nobody", nobody)):
        lines.append(f'  - {{ id: {name}, base_url: "http://127.0.0.1:{port}/{version}" }}')
    lines.append("proxies:")
    rule = 'rules: [ { id: no-secrets, effect: deny, path: "^/secret" } ]'
    for name, target, more in (
        ("p", "origin", rule), ("streamed", "origin", "response: streamed"), ("impatient", "origin", "timeout: 1s"), ("down", "nobody", rule),
    ):  # fmt: skip
        lines.append(
            f"  - {{ id: {name}, target: {target}, target_credential: key, proxy_credentials: [{', '.join(TOKENS)}], {more} }}"
        )
    return "\n".join(lines) + "\n"


def floors(samples, windows=20):
    """The least of each window: load comes and goes, and with it buffers."""
    size = max(1, len(samples) // windows)
    return [min(samples[at : at + size], key=lambda sample: sample[1]) for at in range(0, len(samples) - size + 1, size)]


def slope(points):
    """The median of the slopes between any two points (Theil-Sen)."""
    return statistics.median((b[1] - a[1]) / (b[0] - a[0]) for a, b in itertools.combinations(points, 2))


def by_quarter(samples):
    quarter = max(1, len(samples) // 4)
    return [statistics.median(value for _, value in samples[at * quarter :][:quarter]) for at in range(4)]


def second_half(samples):
    return samples[len(samples) // 2 :]


with Bench() as bench:
    table = Table(f"everything at once for {MINUTES:g} minutes")
    origin, nobody, tls = free_port(), free_port(), free_port()
    bench.start(sys.executable, HERE / "origin.py", origin)
    wait_for("the origin listens", lambda: get(origin, "/a/sized/2", "x")[0] == 200)
    access_log = bench.folder / "access.log"
    edge = Edge(bench, settings=f"pool: {{ idle_timeout: {POOL_IDLE}s }}", access_log=access_log)
    edge.listener(f'{{ address: "127.0.0.1:{tls}", tls: {{ certificates: [ {certificate(edge.folder)} ] }} }}')
    edge.fragment("f", fragment("a", origin, nobody))
    edge.start()
    before = edge.descriptors()
    clients = bench.start(
        sys.executable, HERE / "mixed.py", json.dumps({"plain": edge.port, "tls": tls}), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )

    started, cpu, first = time.monotonic(), edge.cpu(), edge.generation()
    reloads, resident, descriptors, threads = 0, [], [], []
    while (elapsed := time.monotonic() - started) < MINUTES * 60:
        if clients.poll() is not None:
            raise SystemExit("the clients broke off")
        if elapsed >= (reloads + 1) * RELOAD_EVERY:
            reloads += 1
            edge.fragment("f", fragment("ab"[reloads % 2], origin, nobody))
            if reloads % 2:  # the others are noticed by the watch
                edge.signal(signal.SIGHUP)
            if reloads % 60 == 0:
                access_log.rename(access_log.with_suffix(".old"))
        if elapsed >= len(resident) * SAMPLE_EVERY:
            resident.append((elapsed / 60, edge.resident() / 1024))
            descriptors.append((elapsed / 60, edge.descriptors() - connections_to(origin)))
            threads.append((elapsed / 60, edge.metric("process_threads")))
        time.sleep(0.05)
    seconds, cpu = time.monotonic() - started, edge.cpu() - cpu
    generations = edge.generation() - first
    succeeded = edge.metric("requestrocket_config_last_reload_successful") == 1
    clients.stdin.close()
    clients.stdin = None
    result = json.loads(clients.communicate(timeout=120)[0])
    answered = sum(count for counts in result["counts"].values() for count in counts.values())
    # What requests were held by is gone with them, and soon the connections to the origin.
    wait_for("nobody is connected", lambda: edge.metric("requestrocket_client_connections") == 0)
    time.sleep(POOL_IDLE + 5)
    left = {name: edge.metric(f"requestrocket_{name}") for name in ("requests_in_flight", "held_bytes", "client_connections")}
    log = edge.log.read_text()

    print(f"\n{'':<16}" + "".join(f"{name:>16}" for name in result["counts"]))
    for what in sorted({what for counts in result["counts"].values() for what in counts}):
        print(f"{what:<16}" + "".join(f"{counts.get(what, 0):>16}" for counts in result["counts"].values()))
    kinds = {}
    for at, client, what, failure in result["failures"]:
        kinds.setdefault((client, what, failure), []).append(at)
    for (client, what, failure), times in sorted(kinds.items()):
        print(f"  {client}: {what}: {failure}: {len(times)} times, first after {times[0]:.0f} s")
    alarms = [line for line in log.splitlines() if re.search(r"\bERROR\b|panic", line)]
    for line in alarms[:20]:
        print(f"  log: {line[:200]}")
    print("resident memory, the least of each window: " + " ".join(f"{kib * 1024 / MB:.1f}" for _, kib in floors(resident)) + " MB")

    def growth(what, value, bound, unit, digits):
        if MINUTES >= SETTLED:
            table.most(what, value, bound, unit, digits)
        else:
            table.row(what, f"{value:.{digits}f} {unit}")

    memory = " ".join(f"{kib * 1024 / MB:.1f}" for kib in by_quarter(resident))
    table.row("exchanges", answered)
    table.most("  wrong, or never ended", len(result["failures"]) + result["unfinished"], 0, "")
    table.row("processor time of the daemon", f"{100 * cpu / seconds:.0f} % of a core")
    table.most("most requests in a minute of who may send 30", result["most_in_a_minute"], 30, "")
    table.row("changed fragments", reloads)
    table.row("  generations taken", generations, f"at least {reloads * 9 // 10}", generations >= reloads * 9 // 10)
    table.row("  the last one succeeded", "yes" if succeeded else "no", "yes", succeeded)
    table.most("lines of level ERROR in the log", len(alarms), 0, "")
    table.row("resident memory, median of each quarter", f"{memory} MB")
    growth("  growth of its floor, slope over the second half", slope(second_half(floors(resident))), MOST_GROWTH, "KiB a minute", 1)
    table.row("open descriptors, those to the target apart, by quarter", " ".join(f"{fds:g}" for fds in by_quarter(descriptors)))
    growth("  growth, slope over the second half", slope(second_half(descriptors)) * 60, 10, "an hour", 1)
    table.row("threads, by quarter", " ".join(f"{number:g}" for number in by_quarter(threads)))
    growth("  growth, slope over the second half", slope(second_half(threads)) * 60, 0, "an hour", 1)
    for name, value in left.items():
        table.most(f"left when all clients have gone: {name}", value, 0, "")
    table.most(f"  descriptors, of which there were {before} before", edge.descriptors(), before + 1, "")
    table.end()
