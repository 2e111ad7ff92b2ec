"""A TLS listener with a throw-away certificate, and what sslscan finds there."""

import re
import subprocess
import xml.etree.ElementTree as ElementTree

from harness import FRAGMENT, Bench, Edge, Table, certificate, free_port

STRONG = re.compile(r"TLS_(AES|CHACHA20)_.*|ECDHE-(RSA|ECDSA)-(AES\d+-GCM|CHACHA20)-.*")  # the rest is CBC, or gives the past away with the key

with Bench() as bench:
    table = Table("what a TLS listener offers")
    edge = Edge(bench)
    port = free_port()
    edge.listener(f'{{ address: "127.0.0.1:{port}", tls: {{ certificates: [ {certificate(edge.folder)} ] }} }}')
    edge.fragment("p", FRAGMENT.replace("ORIGIN", str(bench.origin())))
    edge.start()
    report = bench.folder / "report.xml"
    scan = subprocess.run(
        ["sslscan", "--no-colour", "--no-check-certificate", f"--xml={report}", f"127.0.0.1:{port}"],
        capture_output=True, text=True, timeout=120,
    )
    print(scan.stdout.strip())
    found = ElementTree.parse(report).getroot().find("ssltest")

    protocols = {f"{one.get('type').upper()}v{one.get('version')}": one.get("enabled") == "1" for one in found.iter("protocol")}
    on = sorted(name for name, enabled in protocols.items() if enabled)
    table.row("protocols that sslscan tried", len(protocols), "6", len(protocols) == 6)
    table.row("  that are on", " ".join(on), "TLSv1.2 TLSv1.3", on == ["TLSv1.2", "TLSv1.3"])
    ciphers = [(one.get("sslversion"), one.get("cipher"), int(one.get("bits"))) for one in found.iter("cipher")]
    weak = [cipher for _, cipher, bits in ciphers if bits < 128 or not STRONG.fullmatch(cipher)]
    table.row("cipher suites", len(ciphers), "some", bool(ciphers))
    table.row("  weak ones: below 128 bits, CBC, no forward secrecy", " ".join(weak) or "none", "none", not weak)
    renegotiation = found.find("renegotiation")
    insecure = renegotiation.get("supported") == "1" and renegotiation.get("secure") != "1"
    table.row("insecure renegotiation", "yes" if insecure else "no", "no", not insecure)
    compression = found.find("compression")
    if compression is not None:  # sslscan looks only where its own OpenSSL can compress
        off = compression.get("supported") == "0"
        table.row("compression (CRIME)", "off" if off else "on", "off", off)
    heartbleed = [one.get("sslversion") for one in found.iter("heartbleed") if one.get("vulnerable") != "0"]
    table.row("heartbleed", " ".join(heartbleed) or "no", "no", not heartbleed)
    fallback = found.find("fallback")
    if fallback is not None:
        # Against a fall back to a version below; there is only one such step, from 1.3, which has a guard of its own.
        table.row("TLS_FALLBACK_SCSV", "respected" if fallback.get("supported") == "1" else "not known")
    groups = sorted({one.get("name") for one in found.iter("group")})
    table.row("key exchange groups", " ".join(groups))
    table.end()
