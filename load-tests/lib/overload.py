"""Three times as many requests as the daemon may have under way: what is refused, how soon, and what becomes of the rest."""

import os
import statistics
import sys
import threading
import time

from harness import FRAGMENT, HERE, Bench, Edge, Steady, Table, free_port, get, percentile, usual_p99, wait_for

IN_FLIGHT, DELAY = 50, 0.25  # what the daemon may have under way, and how long the target takes for each: 200 requests a second
CAPACITY = IN_FLIGHT / DELAY
TIMES = 3
SECONDS = float(os.environ.get("SECONDS_OF_LOAD", "20"))
REFUSED_WITHIN, ADMITTED_WITHIN, ADMIN_WITHIN = 0.05, DELAY + 0.1, 0.1
FEWEST = 0.9  # of the capacity is used
WINDOW = 2.0  # seconds


class Watch:
    """Asks the admin listener, again and again."""

    PATHS = ("/livez", "/readyz", "/metrics")

    def __init__(self, port):
        self.port, self.going, self.times, self.failed = port, True, {path: [] for path in self.PATHS}, 0
        self.thread = threading.Thread(target=self.ask, daemon=True)
        self.thread.start()

    def ask(self):
        while self.going:
            for path in self.PATHS:
                started = time.monotonic()
                self.failed += get(self.port, path)[0] != 200
                self.times[path].append(time.monotonic() - started)
            time.sleep(0.05)

    def stop(self):
        self.going = False
        self.thread.join(10)


def with_status(requests, status):
    return [request for request in requests if request[1] == status]


def median(requests):
    return statistics.median(seconds for _, _, seconds, _ in requests) if requests else 0.0


with Bench() as bench:
    table = Table(f"{TIMES} times what it takes, for {SECONDS:g} s")
    origin = free_port()
    bench.start(sys.executable, HERE / "origin.py", origin)
    wait_for("the origin listens", lambda: get(origin, "/a/sized/2", "x")[0] == 200)
    edge = Edge(bench)
    main = edge.folder / "edge.yaml"
    main.write_text(main.read_text().replace("limits: {", f"limits: {{ max_requests_in_flight: {IN_FLIGHT},").replace("region", "threads: 1\nregion", 1))
    edge.fragment("p", FRAGMENT.replace("ORIGIN", str(origin)))
    edge.start()
    target = f"/api/p/delay/{DELAY * 1000:g}"

    # Half of what it takes, all the time; for a while much more beside it.
    steady = Steady(bench, edge.port, CAPACITY / 2, IN_FLIGHT, target)
    time.sleep(2)
    calm_from = time.monotonic()
    time.sleep(5)
    calm_until = time.monotonic()
    watch, cpu = Watch(edge.admin), edge.cpu()
    crowd = Steady(bench, edge.port, CAPACITY * (TIMES - 0.5), 400, target)
    time.sleep(1.5)
    started = time.monotonic()
    time.sleep(SECONDS)
    ended = time.monotonic()
    cpu = edge.cpu() - cpu
    crowd.process.stdin.close()
    wait_for("the crowd has left", lambda: crowd.process.poll() is not None, 30)
    crowd.reader.join(10)
    # The crowd's last request goes out at about the time it is told; what it has under way then takes its time.
    last = max(due for due, *_ in crowd.results)
    time.sleep(max(0, last + 6 - time.monotonic()))
    watch.stop()
    steady.stop()

    calm = steady.due(calm_from, calm_until)
    during = steady.due(started, ended) + crowd.due(started, ended)
    after = steady.due(last + 1, last + 4)
    admitted, refused = with_status(during, 200), with_status(during, 503)
    other = [status for _, status, _, _ in during if status not in (200, 503)]
    untold = sum(status == 503 and not told for _, status, _, told in during)
    table.row("before: requests, answered with 200", f"{len(calm)}, {sum(status == 200 for _, status, _, _ in calm)}", "all", all(s == 200 for _, s, _, _ in calm))
    table.row("  p99", f"{1000 * usual_p99(calm, WINDOW):.0f} ms")
    table.row("offered, in requests a second", f"{len(during) / SECONDS:.0f}", f"{TIMES * CAPACITY * 0.95:.0f}, {TIMES} x {CAPACITY:.0f}", len(during) / SECONDS >= TIMES * CAPACITY * 0.95)
    table.row("admitted, a second", f"{len(admitted) / SECONDS:.0f}", f"at least {FEWEST * CAPACITY:.0f}", len(admitted) / SECONDS >= FEWEST * CAPACITY)
    table.row("  median", f"{1000 * median(admitted):.0f} ms")
    table.most("  p99", 1000 * usual_p99(admitted, WINDOW), 1000 * ADMITTED_WITHIN, "ms")
    table.row("refused with 503, a second", f"{len(refused) / SECONDS:.0f}")
    table.row("  median", f"{1000 * median(refused):.1f} ms")
    table.most("  p99", 1000 * usual_p99(refused, WINDOW), 1000 * REFUSED_WITHIN, "ms", 1)
    table.most("  without Retry-After", untold, 0, "")
    table.most("neither admitted nor refused", len(other), 0, "")
    for path, times in watch.times.items():
        table.most(f"{path}, p99 of {len(times)}", 1000 * percentile(times, 0.99), 1000 * ADMIN_WITHIN, "ms", 1)
    table.most("  failed", watch.failed, 0, "")
    table.most("from a second after the crowd's last request on: refused", sum(status != 200 for _, status, _, _ in after), 0, "")
    table.row("  answered with 200", sum(status == 200 for _, status, _, _ in after), "some", bool(after))
    table.row("processor time of the daemon meanwhile", f"{100 * cpu / (ended - started + 1.5):.0f} % of a core")
    table.end()
