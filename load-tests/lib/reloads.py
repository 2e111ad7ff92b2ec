"""Reloads without pause under load: no request fails, every answer is of one generation, memory and descriptors stay."""

import itertools
import os
import signal
import statistics
import time

from harness import DIGEST_OF_TOKEN, MB, Bench, Edge, Load, Table, answered, connections_to, failures, print_load

RELOADS = int(os.environ.get("RELOADS", "1000"))
SECONDS = max(60, RELOADS * 0.6)  # at most
# Until the admissions of a whole minute are remembered and the connections to the origin are all there.
WARM_UP = int(os.environ.get("WARM_UP", "70"))
PROXIES, ROTATE_EVERY = 100, 10
POOL_IDLE = 5  # seconds
MIX = {"h1": 6, "h1_new": 4, "h2": 2, "h2_new": 2, "h1_idle": 4, "h2_idle": 2}
# A generation of this many proxies that were never given back would cost about a hundred times this.
MOST_GROWTH = 2.0  # KiB a reload


def fragment(version, origin):
    """Target and target credential change together: an answer of half a generation would show."""
    numbers = range(PROXIES)
    lines = ["targets:"]
    lines += [f'  - {{ id: t{number}, base_url: "http://127.0.0.1:{origin}/{version}" }}' for number in numbers]
    lines += ["target_credentials:", f"  - {{ id: key, type: bearer, secret: {{ value: {version} }} }}"]
    lines += ["proxy_credentials:"]
    lines += [
        f'  - {{ id: c{number}, type: bearer, secret: {{ sha256: "{DIGEST_OF_TOKEN}" }}, '
        "rate_limit: { requests_per_minute: 1000000 } }"
        for number in numbers
    ]
    lines += ["proxies:"]
    lines += [
        f"  - {{ id: p{number}, target: t{number}, target_credential: key, proxy_credentials: [c{number}], "
        f'rules: [ {{ id: no-{version}, effect: deny, path: "^/{version}{number}/" }} ] }}'
        for number in numbers
    ]
    return "\n".join(lines) + "\n"


def by_quarter(points):
    """Medians: load comes and goes, and with it buffers."""
    quarter = len(points) // 4
    return [statistics.median(y for _, y in points[at * quarter :][:quarter]) for at in range(4)]


def slope(points):
    """The median of the slopes between any two points (Theil-Sen): a sample taken in a bad moment does not bend it."""
    return statistics.median((b[1] - a[1]) / (b[0] - a[0]) for a, b in itertools.combinations(points, 2))


with Bench() as bench:
    table = Table(f"{RELOADS:,} reloads in a row under load, {PROXIES} proxies")
    origin = bench.origin()
    access_log = bench.folder / "access.log"
    edge = Edge(bench, settings=f"pool: {{ idle_timeout: {POOL_IDLE}s }}", access_log=access_log)
    edge.fragment("f", fragment("a", origin))
    edge.start()
    paths = [f"/api/p{number}/x" for number in range(PROXIES)]
    idle = edge.descriptors()
    load = Load(bench, edge.port, MIX, r"Bearer (a|b) /\1/x", paths)
    time.sleep(WARM_UP)

    started, first = time.monotonic(), edge.generation()
    resident, descriptors, kept, missing = [], [], [], 0
    for reload in range(1, RELOADS + 1):
        before = edge.generation()
        edge.fragment("f", fragment("ab"[reload % 2], origin))
        edge.signal(signal.SIGHUP)
        until = time.monotonic() + 10
        while edge.generation() == before and time.monotonic() < until:
            time.sleep(0.002)
        missing += edge.generation() == before
        resident.append((reload, edge.resident() / 1024))
        if reload % ROTATE_EVERY == 0:
            # Connections to the target stay for the next request; how many is a matter of the load (`pool` bounds them).
            to_target = connections_to(origin)
            kept.append((reload, to_target))
            descriptors.append((reload, edge.descriptors() - to_target))
            # As log rotation does; the next HUP opens it anew.
            access_log.rename(access_log.with_suffix(".old"))
        if time.monotonic() - started > SECONDS:
            raise SystemExit(f"only {reload} reloads in {SECONDS} s")
    seconds = time.monotonic() - started
    time.sleep(1)
    generations = edge.generation() - first
    succeeded = edge.metric("requestrocket_config_last_reload_successful") == 1
    result = load.stop()
    print_load(result)
    # Clients are gone now, and soon the connections to the origin; what is still open then was forgotten.
    time.sleep(POOL_IDLE + 5)
    left = edge.descriptors()

    half = len(resident) // 2
    memory = " ".join(f"{kib * 1024 / MB:.1f}" for kib in by_quarter(resident))
    table.row("requests answered", answered(result))
    table.most("failed, or never answered", failures(result), 0, "")
    table.row("reloads asked for with HUP, each with a changed fragment", RELOADS)
    table.row("  in", f"{seconds:.0f} s")
    table.most("  that changed nothing within 10 s", missing, 0, "")
    table.row("generations taken, those of the file watch included", generations, f"at least {RELOADS}", generations >= RELOADS)
    table.row("the last one succeeded", "yes" if succeeded else "no", "yes", succeeded)
    table.row("resident memory, median of each quarter", f"{memory} MB")
    table.most("  growth, slope over the second half", slope(resident[half:]), MOST_GROWTH, "KiB a reload", 2)
    table.row("connections to the target, median of each quarter", " ".join(f"{count:g}" for count in by_quarter(kept)))
    table.row("all other open descriptors, median of each quarter", " ".join(f"{fds:g}" for fds in by_quarter(descriptors)))
    table.most("  growth, slope over the second half", slope(descriptors[len(descriptors) // 2 :]) * 1000, 10, "a 1,000 reloads", 1)
    table.most(f"  without clients: {idle} before the load, after it", left, idle + 1, "")
    table.end()
