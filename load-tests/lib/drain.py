"""TERM under load: every request that was sent is answered, and the process ends with the last of them."""

import os
import signal
import statistics
import time

from harness import FRAGMENT, Bench, Edge, Load, Table, alive, answered, print_failures, print_load, wait_for

REPEATS = int(os.environ.get("REPEATS", "5"))
MIX = {"h1": 6, "h1_new": 6, "h2": 2, "h2_new": 2, "h1_idle": 12, "h2_idle": 6, "h1_slow": 6, "h2_slow": 3}
LEADS = (0, 1)  # seconds


def drain(bench, lead, origin):
    edge = Edge(bench, settings=f"shutdown: {{ lead: {lead}s, drain: 30s }}")
    edge.fragment("p", FRAGMENT.replace("ORIGIN", str(origin)))
    edge.start()
    load = Load(bench, edge.port, MIX, r"Bearer target-secret /a/x|x{300000}", ["/api/p/x"], until_gone=True)
    time.sleep(3.5)
    told = time.monotonic()
    edge.signal(signal.SIGTERM)
    wait_for("the daemon ends", lambda: not alive(edge.pid), 60, every=0.002)
    ended = time.monotonic()
    time.sleep(0.2)
    result = load.stop()
    result.update(told=told, ended=ended)
    return result


with Bench() as bench:
    table = Table("TERM under load")
    origin = bench.origin()
    for lead in LEADS:
        results = [drain(bench, lead, origin) for _ in range(REPEATS)]
        print_load(results[-1])
        lost = [failure for result in results for failure in result["failures"]]
        early = [result for result in results if (result["first_refused"] or result["ended"]) < result["told"] + lead]
        after = [result["ended"] - result["last_answer"] for result in results]
        table.row(f"lead time {lead} s, {REPEATS} times: requests answered", sum(map(answered, results)))
        table.most("  failed, or never answered", len(lost) + sum(result["unfinished"] for result in results), 0, "")
        table.most("  times that a connection was refused before it should", len(early), 0, "")
        table.row("  from TERM to the last answer, median", f"{statistics.median(r['last_answer'] - r['told'] for r in results):.2f} s")
        table.most("  from the last answer to the end, the longest", max(after), 1, "s", 2)
        print_failures(results)
    table.end()
