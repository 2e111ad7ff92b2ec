"""Before anything is measured: does each peer do the job that it is said to do?"""

import json
import socket
import ssl

from harness import wait_for
from peers import NAME, SECRET, World, request

CODE, MESSAGE = "requestrocket-proxy-code", "requestrocket-proxy-message"


def ask(port, sent, tls=None):
    """Status, header fields, body of the answer to a request that closes its connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        if tls:
            client = tls.wrap_socket(client, server_hostname=NAME)
        client.sendall(sent)
        answer = b""
        while more := client.recv(65536):
            answer += more
        client.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    if fields.get("transfer-encoding") == "chunked":
        whole = b""
        while body and (size := int(body.split(b"\r\n", 1)[0], 16)):
            start = body.index(b"\r\n") + 2
            whole, body = whole + body[start : start + size], body[start + size + 2 :]
        body = whole
    return int(lines[0].split()[1]), fields, body


def check(peer):
    """Ends the run, with what is wrong, unless the peer does its job."""
    world, problems = peer.world, []

    def expect(what, condition, seen):
        if not condition:
            problems.append(f"{what}: {seen}")

    tls = ssl.create_default_context(cafile=peer.certificates.ca)
    for id in (world.plain()[-1], world.tls()[-1]):
        token = world.token(id)
        for port, context in ((peer.port, None), (peer.tls_port, tls)):
            through = f"{id} over {'TLS' if context else 'plain TCP'}"
            status, fields, body = ask(port, request(id, "/echo?page=2", token, close=True), context)
            seen = body.decode()
            expect(f"{through} is answered", status == 200, f"{status} {seen[:200]}")
            if not peer.job:
                expect(f"{through} arrives", token in seen, seen)
                continue
            expect(f"{through} is labelled", (fields.get(CODE), fields.get(MESSAGE)) ==
                   ("proxy-access-granted", "Proxy authentication successful"), fields)
            expect(f"{through} has a request id and Via", "x-request-id" in fields and "via" in fields, fields)
            expect(f"{through} keeps the client's credential", token not in seen, seen)
            port = peer.origin.tls if id[0] == "s" else peer.origin.plain
            arrived = [line.lower() for line in seen.split("\r\n")]
            expect(f"{through} arrives under its path", seen.startswith("GET /v1/echo?page=2 HTTP/1.1"), seen)
            for name, value in (
                ("authorization", f"Bearer {SECRET}"), ("host", f"127.0.0.1:{port}"), ("x-forwarded-for", "127.0.0.1"),
                ("x-forwarded-proto", "https" if context else "http"), ("x-forwarded-host", NAME), (CODE, "proxy-access-granted"),
                (MESSAGE, "Proxy authentication successful"), ("accept", "application/json"), ("user-agent", "bench/1.0"),
            ):
                expect(f"{through} has {name}", arrived.count(f"{name}: {value}".lower()) == 1, seen)
            for name in ("x-request-id", "via"):
                expect(f"{through} has {name}", sum(line.startswith(f"{name}:") for line in arrived) == 1, seen)
    for size, length in peer.origin.BODIES.items():
        for kind in ("sized", "chunked"):
            id = world.plain()[0]
            status, _, body = ask(peer.port, request(id, f"/{kind}/{size}", world.token(id), close=True))
            expect(f"{kind} {size}", (status, len(body)) == (200, length), (status, len(body)))
    if peer.job:
        refusals(peer, expect)
        log(peer, expect)
    if problems:
        raise SystemExit(f"\nbench: {peer.title} does not do its job:\n  " + "\n  ".join(problems))


def refusals(peer, expect):
    world = peer.world
    id, other = world.plain()[0], world.plain()[-1]
    for what, sent in (
        ("a wrong token", request(id, "/echo", "wrong", close=True)),
        ("the token of another client", request(id, "/echo", world.token(other), close=True)),
        ("no token", request(id, "/echo", "", close=True).replace(b"Authorization: Bearer \r\n", b"")),
        ("an unknown proxy", request("p999999", "/echo", world.token(id), close=True)),
    ):
        status, fields, body = ask(peer.port, sent)
        expect(f"{what} is refused", status == 403 and b"Invalid proxy credential" in body, f"{status} {body[:200]}")
        labels = fields.get(CODE), fields.get(MESSAGE), fields.get("content-type")
        expect(f"{what} is labelled", labels == ("proxy-access-denied", "Invalid proxy credential", "application/problem+json"), fields)
    limited, _, token = world.LIMITED
    answers = [ask(peer.port, request(limited, "/small", token, close=True)) for _ in range(3)]
    statuses = [status for status, *_ in answers]
    expect("one a minute is admitted, and no more", statuses == [200, 429, 429], statuses)
    expect("429 is labelled", answers[2][1].get(CODE) == "proxy-access-granted" and "limit" in answers[2][1].get(MESSAGE, ""), answers[2])


def log(peer, expect):
    """Each request is a line of JSON that names the proxy, and no credential."""
    ids = [peer.world.plain()[-1], peer.world.tls()[-1]]
    told = lambda: [json.loads(line) for line in peer.log.read_text().splitlines() if line.startswith("{")]
    forwarded = lambda: [line for line in told() if line["status"] == 200 and line["proxy"] in ids]
    refused = lambda: {line["status"] for line in told()} & {403, 429}
    try:
        # Most write their lines a little later, many at a time.
        wait_for("the access log", lambda: len(forwarded()) >= 4 and len(refused()) == 2, 5)
    except SystemExit:
        expect("every kind of request is in the access log", False, peer.log.read_text()[-1000:])
    text = peer.log.read_text()
    secrets = [SECRET, *(peer.world.token(id) for id in ids)]
    expect("no credential is in the access log", not any(secret in text for secret in secrets), "there is one")
