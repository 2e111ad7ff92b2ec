"""100,000 proxies in 1,000 fragments: cold start, memory, and one changed fragment."""

import hashlib
import random
import re
import signal
import statistics
import time

from harness import MB, Bench, Edge, Table, get, wait_for

FRAGMENTS, EACH = 1000, 100
STARTS, CHANGES, RELOADS = 3, 5, 20


def token(name):
    return f"client-token-{name}"


def fragment(number, origin, proxies):
    names = [f"{number:04}-{index:03}" for index in range(proxies)]
    digest = lambda name: hashlib.sha256(token(name).encode()).hexdigest()
    limit = "rate_limit: { requests_per_minute: 1000000 }"
    lines = ["proxy_credentials:"]
    lines += [f'  - {{ id: client-{name}, type: bearer, secret: {{ sha256: "{digest(name)}" }}, {limit} }}' for name in names]
    lines += ["targets:"]
    lines += [f'  - {{ id: target-{name}, base_url: "http://127.0.0.1:{origin}/{name}" }}' for name in names]
    lines += ["target_credentials:", f"  - {{ id: key-{number:04}, type: bearer, secret: {{ env: LOAD_TARGET_SECRET }} }}"]
    lines += ["proxies:"]
    lines += [
        f"  - {{ id: proxy-{name}, target: target-{name}, target_credential: key-{number:04}, "
        f"proxy_credentials: [client-{name}] }}"
        for name in names
    ]
    return "\n".join(lines) + "\n"


def ask(edge, name):
    return get(edge.port, f"/api/proxy-{name}/x", token(name))


with Bench() as bench:
    table = Table(f"{FRAGMENTS * EACH:,} proxies in {FRAGMENTS:,} fragments")
    origin = bench.origin()
    edge = Edge(bench)
    for number in range(FRAGMENTS):
        (edge.fragments / f"{number:04}.yaml").write_text(fragment(number, origin, EACH))
    size = sum(path.stat().st_size for path in edge.fragments.iterdir())
    table.row("size of the configuration", f"{size / MB:.0f} MB")

    starts, cpu, memory, peaks = [], [], [], []
    for _ in range(STARTS):
        if edge.pid:
            edge.stop()
        starts.append(edge.start())
        cpu.append(edge.cpu())
        memory.append(edge.resident() / MB)
        peaks.append(edge.resident("VmHWM") / MB)
    table.most(f"start until /readyz says 200, median of {STARTS}", statistics.median(starts), 4, "s", 2)
    table.row("  the longest", f"{max(starts):.2f} s")
    table.row("  processor time, median", f"{statistics.median(cpu):.2f} s")
    table.most("resident memory then, the most of all starts", max(memory), 400, "MB")
    table.row("  at most during the start (VmHWM)", f"{max(peaks):.0f} MB")

    names = [f"{random.randrange(FRAGMENTS):04}-{random.randrange(EACH):03}" for _ in range(100)]
    right = sum(ask(edge, name) == (200, f"Bearer target-secret /{name}/x".encode()) for name in names)
    table.row("requests through proxies picked at random, answered", f"{right} of {len(names)}", "all", right == len(names))

    times = []
    for change in range(CHANGES):
        number, proxies = 500 + change, EACH + 1
        name = f"{number:04}-{EACH:03}"
        text = fragment(number, origin, proxies)
        assert ask(edge, name)[0] == 403
        started = time.monotonic()
        edge.fragment(f"{number:04}", text)
        wait_for("the new proxy answers", lambda: ask(edge, name)[0] == 200, every=0.005)
        times.append(1000 * (time.monotonic() - started))
        time.sleep(0.3)
    table.most(f"one fragment changed until it serves, median of {CHANGES}", statistics.median(times), 500, "ms")
    table.most("  the longest", max(times), 500, "ms")
    own = [int(ms) for ms in re.findall(r"1 fragments parsed, .* (\d+) ms", edge.log.read_text())]
    table.row("  of it reading, checking and building, median", f"{statistics.median(own):.0f} ms")

    times, used = [], edge.cpu()
    for _ in range(RELOADS):
        generation, started = edge.generation(), time.monotonic()
        edge.signal(signal.SIGHUP)
        wait_for("the reload is taken", lambda: edge.generation() > generation)
        times.append(1000 * (time.monotonic() - started))
    table.row(f"a reload by HUP with nothing changed, median of {RELOADS}", f"{statistics.median(times):.0f} ms")
    table.row("  processor time, mean", f"{1000 * (edge.cpu() - used) / RELOADS:.0f} ms")
    table.most(f"resident memory after {CHANGES + RELOADS} reloads", edge.resident() / MB, 400, "MB")
    table.row("  at most until here (VmHWM)", f"{edge.resident('VmHWM') / MB:.0f} MB")
    table.end()
