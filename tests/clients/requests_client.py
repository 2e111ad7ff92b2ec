"""GET and POST through the edge with requests."""

import os

import requests

base = os.environ.get("BASE_URL", "http://127.0.0.1:8080")

with requests.Session() as session:
    session.headers["Authorization"] = "Bearer demo-token"
    for response in (
        session.get(f"{base}/api/hello/users", params={"page": 2}, timeout=60),
        session.post(f"{base}/api/hello/users", json={"name": "Ada"}, timeout=60),
    ):
        code = response.headers.get("requestrocket-proxy-code")
        print(response.status_code, code, response.text)
        response.raise_for_status()
        assert code == "proxy-access-granted", code
