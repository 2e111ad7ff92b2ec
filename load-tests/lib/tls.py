"""A TLS listener with a throw-away certificate, and what sslscan finds there."""

import re
import subprocess
import xml.etree.ElementTree as ElementTree

from harness import FRAGMENT, Bench, Edge, Table, free_port

WEAK = re.compile(r"RC4|3DES|DES-|NULL|EXP|anon|ADH|AECDH|MD5|CBC|IDEA|SEED|^AES\d+-(SHA|GCM)|^DHE", re.I)
PLAIN = {"http2": "h2", "http1": "http/1.1"}

with Bench() as bench:
    table = Table("what a TLS listener offers")
    edge = Edge(bench)
    port = free_port()
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=edge.test"]
        + ["-addext", "subjectAltName=DNS:edge.test,IP:127.0.0.1", "-keyout", edge.folder / "key.pem", "-out", edge.folder / "chain.pem"],
        check=True, capture_output=True,
    )
    main = edge.folder / "edge.yaml"
    listener = f'  - {{ address: "127.0.0.1:{port}", tls: {{ certificates: [ {{ chain: chain.pem, key: key.pem }} ] }} }}\n'
    main.write_text(main.read_text().replace("listeners:\n", "listeners:\n" + listener))
    edge.fragment("p", FRAGMENT.replace("ORIGIN", str(bench.origin())))
    edge.start()
    report = bench.folder / "report.xml"
    scan = subprocess.run(
        ["sslscan", "--no-colour", "--show-certificate", "--show-times", f"--xml={report}", f"127.0.0.1:{port}"],
        capture_output=True, text=True, timeout=120,
    )
    print(scan.stdout.strip())
    found = ElementTree.parse(report).getroot().find("ssltest")

    protocols = {f"{one.get('type').upper()}v{one.get('version')}": one.get("enabled") == "1" for one in found.iter("protocol")}
    on = sorted(name for name, enabled in protocols.items() if enabled)
    table.row("protocols that sslscan tried", len(protocols), "6", len(protocols) == 6)
    table.row("  that are on", " ".join(on), "TLSv1.2 TLSv1.3", on == ["TLSv1.2", "TLSv1.3"])
    ciphers = [(one.get("sslversion"), one.get("cipher"), int(one.get("bits"))) for one in found.iter("cipher")]
    weak = [cipher for _, cipher, bits in ciphers if bits < 128 or WEAK.search(cipher)]
    table.row("cipher suites", len(ciphers), "some", bool(ciphers))
    table.row("  weak ones: below 128 bits, CBC, no forward secrecy", " ".join(weak) or "none", "none", not weak)
    renegotiation = found.find("renegotiation")
    table.row("insecure renegotiation", "yes" if renegotiation.get("supported") == "1" and renegotiation.get("secure") != "1" else "no", "no",
              renegotiation.get("supported") != "1" or renegotiation.get("secure") == "1")
    compression = found.find("compression").get("supported")
    table.row("compression (CRIME)", "on" if compression == "1" else "off", "off", compression == "0")
    heartbleed = [one.get("sslversion") for one in found.iter("heartbleed") if one.get("vulnerable") != "0"]
    table.row("heartbleed", " ".join(heartbleed) or "no", "no", not heartbleed)
    fallback = found.find("fallback")
    if fallback is not None:
        table.row("TLS_FALLBACK_SCSV", "respected" if fallback.get("supported") == "1" else "not", None)
    groups = sorted({one.get("name") for one in found.iter("group")})
    table.row("key exchange groups", " ".join(groups))
    table.end()
