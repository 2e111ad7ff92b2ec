"""What was measured: in lines, in tables, as JSON, and as a picture."""

import json
import pathlib
import platform
import re
import statistics
from html import escape

# Cores that others may have: more than this, and what is measured is the noise.
MOST_FOREIGN = 0.1


def median(rounds, key):
    values = [one[key] for one in rounds if key in one]
    return statistics.median(values) if values else None


def brief(measured):
    """One measurement in a line."""
    parts = []
    for key, unit, digits in (
        ("cpu_us", "us of CPU a request", 1), ("rps", "requests/s", 0), ("p50_us", "us p50", 0), ("p99_us", "us p99", 0),
        ("busy", "cores busy", 2), ("foreign", "cores taken by others", 2), ("handshakes", "handshakes", 0), ("idle_kib", "KiB", 1),
    ):
        if key in measured:
            parts.append(f"{measured[key]:,.{digits}f} {unit}")
    if measured.get("failed"):
        parts.append(f"{measured['failed']} FAILED")
    return ", ".join(parts)


def machine():
    info = pathlib.Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*: (.*)$", info, re.M)
    memory = int(re.search(r"MemTotal:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text())[1]) / 1024 / 1024
    cores = len(re.findall(r"^processor\s*:", info, re.M))
    return f"{cores} cores ({model[1] if model else platform.machine()}), {memory:.0f} GiB, Linux {platform.release().split('-')[0]}"


COLUMNS = (
    ("cpu_us", "CPU, us", 1), ("rps", "requests/s", 0), ("p50_us", "p50, us", 0), ("p99_us", "p99, us", 0), ("busy", "busy", 2),
    ("peak_mb", "peak, MB", 0), ("pss_mb", "PSS, MB", 0), ("handshakes", "handshakes", 0), ("idle_kib", "KiB a client", 1),
    ("failed", "failed", 0), ("foreign", "others", 2),
)


def rows(scenario, results, peers):
    """A header, and a row for each peer: medians, and the median of the edge's ratio to it."""
    measured = [name for name in results]
    columns = [column for column in COLUMNS if any(median(results[name], column[0]) is not None for name in measured)]
    if not any(median(results[name], "failed") for name in measured):
        columns = [column for column in columns if column[0] != "failed"]
    yield ["", *(title for _, title, _ in columns), "edge is"]
    key = next((key for key in ("cpu_us", "idle_kib") if "edge" in results and key in results["edge"][0]), None)
    for name in measured:
        cells = [peers.get(name, name)]
        for column, _, digits in columns:
            value = median(results[name], column)
            cells.append("" if value is None else f"{value:,.{digits}f}")
        if key and name != "edge":
            times = statistics.median(edge[key] / other[key] for edge, other in zip(results["edge"], results[name]))
            cells.append(f"{times:.2f} x")
        else:
            cells.append("")
        yield cells


def table(rows):
    rows = list(rows)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  " + row[0].ljust(widths[0]) + "".join(cell.rjust(width + 3) for cell, width in zip(row[1:], widths[1:]))


def markdown(rows):
    rows = list(rows)
    yield "| " + " | ".join(rows[0]) + " |"
    yield "|---" + "|--:" * (len(rows[0]) - 1) + "|"
    for row in rows[1:]:
        yield "| " + " | ".join(row) + " |"


def write(folder, facts, results, verdicts):
    """Prints the tables, and writes the result files of today."""
    folder.mkdir(parents=True, exist_ok=True)
    name = "-".join(filter(None, (facts["date"], facts["label"])))
    lines = [f"# {name}", "", f"{facts['machine']}; load average before the start {facts['load_before']:.1f}."]
    lines += [f"{facts['rounds']} rounds of {facts['seconds']:g} s; the whole run took {facts['took'] / 60:.0f} minutes.", ""]
    lines += [f"- {facts['peers'][peer]}: {version}" for peer, version in facts["versions"].items()]
    foreign = [one["foreign"] for measured in results.values() for rounds in measured.values() for one in rounds if "foreign" in one]
    quiet = ""
    if foreign:
        others = statistics.median(foreign)
        quiet = f"Others on the machine took {others:.2f} cores (median), {max(foreign):.2f} at most."
        if others > MOST_FOREIGN:
            quiet += " That is too much for these figures to be worth anything."
    spent = median(results.get("small_get", {}).get("edge", []), "target_us")
    if spent:
        quiet += f" The target spent {spent:.1f} us of CPU on a small GET."
    lines += ["", quiet]
    if any(values for values in results.values()):
        lines += ["", f"![CPU for each request]({name}.svg)"]
    for scenario, measured in results.items():
        title = facts["titles"][scenario]
        print(f"\n{title}")
        print("\n".join(table(rows(scenario, measured, facts["peers"]))))
        lines += ["", f"## {title}", "", *markdown(rows(scenario, measured, facts["peers"]))]
    if verdicts:
        cells = [["", "measured", "budget", ""], *([what, value, bound, verdict] for what, value, bound, verdict in verdicts)]
        lines += ["", "## Budgets", "", *markdown(cells)]
    print(f"\n{quiet}")
    (folder / f"{name}.md").write_text("\n".join(lines) + "\n")
    rounded = json.loads(json.dumps(results), parse_float=lambda text: round(float(text), 3))
    (folder / f"{name}.json").write_text(json.dumps({**facts, "budgets": verdicts, "results": rounded}, indent=1) + "\n")
    (folder / f"{name}.svg").write_text(picture(facts, results))
    print(f"\nwritten to {folder}/{name}.md, .json and .svg")


def picture(facts, results):
    """Horizontal bars of CPU for each request; the longest of each scenario has the whole width."""
    left, width, bar, gap = 130, 420, 14, 4
    y, parts = 44, []
    for scenario, measured in results.items():
        costs = {name: median(rounds, "cpu_us") for name, rounds in measured.items()}
        costs = {name: cost for name, cost in costs.items() if cost is not None}
        if not costs:
            continue
        parts.append(f'<text class="title" x="12" y="{y}">{escape(facts["titles"][scenario])}</text>')
        y += 10
        for name, cost in costs.items():
            length = width * cost / max(costs.values())
            own = " own" if name.startswith("edge") else " jobless" if name in facts["jobless"] else ""
            label = escape(facts["peers"].get(name, name).removeprefix("edge, ").removeprefix("requestrocket-"))
            parts.append(f'<text x="{left - 8}" y="{y + bar - 3}" text-anchor="end">{label}</text>')
            parts.append(f'<rect class="bar{own}" x="{left}" y="{y}" width="{length:.1f}" height="{bar}" rx="2"/>')
            parts.append(f'<text x="{left + length + 6:.1f}" y="{y + bar - 3}">{cost:,.1f}</text>')
            y += bar + gap
        y += 24
    style = """
    text { font: 12px system-ui, sans-serif; fill: #1f2328; }
    .title { font-weight: 600; }
    .bar { fill: #8b949e; }
    .own { fill: #2f81f7; }
    .jobless { fill-opacity: 0.45; }
    @media (prefers-color-scheme: dark) { text { fill: #e6edf3; } }
    """
    head = f"Microseconds of CPU for each request, {facts['date']}; pale: without the job"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 {y}" width="640" height="{y}" role="img" aria-label="{head}">\n'
        f"<style>{style}</style>\n" + f'<text class="title" x="12" y="20">{head}</text>\n' + "\n".join(parts) + "\n</svg>\n"
    )
