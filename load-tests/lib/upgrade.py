"""The binary replaced ten times under load: no request fails, no connection is refused, a successor that fails changes nothing."""

import os
import re
import shutil
import signal
import statistics
import time

from harness import FRAGMENT, Bench, Edge, Load, Table, alive, answered, children, failures, get, listens, print_load, wait_for

UPGRADES = int(os.environ.get("UPGRADES", "10"))
MIX = {"h1": 6, "h1_new": 6, "h2": 2, "h2_new": 2, "h1_idle": 12, "h2_idle": 6, "h1_slow": 4, "h2_slow": 2}

BROKEN = "proxies:\n  - { id: broken, target: there-is-none, proxy_credentials: [client] }\n"


def successor(edge):
    """Asks for one, and waits until it serves or has failed. Whether there is one."""
    seen = edge.log.stat().st_size
    edge.signal(signal.SIGQUIT)
    log = lambda: edge.log.read_text()[seen:]
    outcome = re.compile(r"process (\d+) serves, leaving|no successor: ")
    wait_for("a successor serves or fails", lambda: outcome.search(log()), 60)
    pid = outcome.search(log())[1]
    if pid:
        edge.pid = int(pid)
    return pid is not None


with Bench() as bench:
    table = Table(f"{UPGRADES} upgrades of the binary under load")
    edge = Edge(bench)
    edge.fragment("p", FRAGMENT.replace("ORIGIN", str(bench.origin())))
    edge.start()
    load = Load(bench, edge.port, MIX, r"Bearer target-secret /a/x|x{300000}", ["/api/p/x"])
    time.sleep(3)

    gone, serving, overlap, refused, stayed = [], [], [], [], []
    for upgrade in range(UPGRADES):
        before, started = edge.pid, time.monotonic()
        edge.install()
        if not successor(edge):
            raise SystemExit(f"upgrade {upgrade + 1} failed:\n{edge.log.read_text()[-2000:]}")
        told = time.monotonic()
        serving.append(told - started)
        if listens(before, edge.port) is not None:
            wait_for("the predecessor takes no more connections", lambda: not listens(before, edge.port))
            overlap.append(time.monotonic() - told)
        wait_for("the predecessor is gone", lambda: not alive(before), 60)
        gone.append(time.monotonic() - started)

        if upgrade == UPGRADES // 3:  # the new configuration does not hold
            edge.fragment("q", BROKEN)
            refused.append(not successor(edge))
            (edge.fragments / "q.yaml").unlink()
        if upgrade == 2 * UPGRADES // 3:  # the new binary ends at once
            edge.install(shutil.which("false"))
            refused.append(not successor(edge))
            edge.install()
        stayed.append(alive(edge.pid) and get(edge.admin, "/readyz")[0] == 200 and not children(edge.pid))
        time.sleep(1)
    # With the clients gone, nothing holds the last one.
    result = load.stop()
    print_load(result)
    started = time.monotonic()
    edge.signal(signal.SIGTERM)
    wait_for("the last one ends", lambda: not alive(edge.pid))

    table.row("requests answered", answered(result))
    table.most("failed, or never answered", failures(result), 0, "")
    table.most("  connections refused among them", sum(kind == "refused" for *_, kind in result["failures"]), 0, "")
    table.row("upgrades, each with a predecessor that was gone afterwards", len(gone), f"{UPGRADES}", len(gone) == UPGRADES)
    table.row("successors that could not serve, and did not", sum(refused), "2", sum(refused) == 2)
    table.row("times that exactly one process was left, and ready", sum(stayed), f"{UPGRADES}", sum(stayed) == UPGRADES)
    table.row("from QUIT until the successor serves, median", f"{1000 * statistics.median(serving):.0f} ms")
    if overlap:  # two seconds, less what it takes to learn that they have begun
        table.row("both take connections for, the shortest", f"{min(overlap):.2f} s", "at least 1.9 s", min(overlap) >= 1.9)
    table.row("from QUIT until the predecessor is gone, median", f"{statistics.median(gone):.1f} s")
    table.row("  the longest", f"{max(gone):.1f} s")
    table.end()
