"""Reloads without pause under load: no request fails, every answer is of one generation, memory and descriptors stay."""

import os
import pathlib
import signal
import statistics
import time

from harness import DIGEST_OF_TOKEN, MB, Bench, Edge, Load, Table, answered, failures, print_load

RELOADS = int(os.environ.get("RELOADS", "1000"))
SECONDS = 600
PROXIES, SAMPLE_EVERY = 100, 10
MIX = {"h1": 6, "h1_new": 4, "h2": 2, "h2_new": 2, "h1_idle": 4, "h2_idle": 2}
# What one generation that is never given back would cost is about a hundred times this.
MOST_GROWTH = 1.0  # KiB a reload


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


def slope(points):
    """Least squares."""
    xs, ys = zip(*points)
    x, y = statistics.fmean(xs), statistics.fmean(ys)
    return sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a in xs)


with Bench() as bench:
    table = Table(f"{RELOADS:,} reloads in a row under load, {PROXIES} proxies")
    origin = bench.origin()
    access_log = bench.folder / "access.log"
    edge = Edge(bench, access_log=access_log)
    edge.fragment("f", fragment("a", origin))
    edge.start()
    paths = [f"/api/p{number}/x" for number in range(PROXIES)]
    load = Load(bench, edge.port, MIX, r"Bearer (a|b) /\1/x", paths)
    time.sleep(3)

    started, first = time.monotonic(), edge.generation()
    resident, others, missing = [], [], 0
    for reload in range(1, RELOADS + 1):
        before = edge.generation()
        edge.fragment("f", fragment("ab"[reload % 2], origin))
        edge.signal(signal.SIGHUP)
        until = time.monotonic() + 10
        while edge.generation() == before and time.monotonic() < until:
            time.sleep(0.002)
        missing += edge.generation() == before
        if reload % SAMPLE_EVERY == 0:
            resident.append((reload, edge.resident() / 1024))
            others.append((reload, sum(edge.descriptors())))
            # As log rotation does; the next HUP opens it anew.
            access_log.rename(access_log.with_suffix(".old"))
        if time.monotonic() - started > SECONDS:
            raise SystemExit(f"only {reload} reloads in {SECONDS} s")
    seconds = time.monotonic() - started
    time.sleep(1)
    generations, failed = edge.generation() - first, edge.metric("requestrocket_config_last_reload_successful")
    result = load.stop()
    print_load(result)

    series = pathlib.Path(os.environ.get("SAMPLES", os.devnull))
    series.write_text("".join(f"{reload} {kib:.0f} {fds}\n" for (reload, kib), (_, fds) in zip(resident, others)))
    second_half = [point for point in resident if point[0] > RELOADS / 2]
    quarter = len(resident) // 4
    third, fourth = (statistics.median(kib for _, kib in resident[at * quarter :][:quarter]) for at in (2, 3))
    table.row("requests answered", answered(result))
    table.most("failed, or never answered", failures(result), 0, "")
    table.row("reloads asked for with HUP, each with a changed fragment", RELOADS)
    table.row("  in", f"{seconds:.0f} s")
    table.most("  that changed nothing within 10 s", missing, 0, "")
    table.row("generations taken, those of the file watch included", generations, f"at least {RELOADS}", generations >= RELOADS)
    table.row("the last one succeeded", "yes" if failed == 1 else "no", "yes", failed == 1)
    table.row("resident memory at the start", f"{resident[0][1] * 1024 / MB:.1f} MB")
    table.row("  at half time, median of a quarter", f"{third * 1024 / MB:.1f} MB")
    table.row("  in the end, median of a quarter", f"{fourth * 1024 / MB:.1f} MB")
    table.most("  growth, slope over the second half", slope(second_half), MOST_GROWTH, "KiB a reload", 2)
    by_quarter = [statistics.median(fds for _, fds in others[at * quarter :][:quarter]) for at in range(4)]
    table.row("open descriptors, median of each quarter", " ".join(f"{fds:g}" for fds in by_quarter))
    table.most("  growth, slope over the second half", slope([o for o in others if o[0] > RELOADS / 2]) * 1000, 10, "a 1,000 reloads", 1)
    table.end()
