#!/bin/sh
# GET and POST through the edge with curl.
set -eu
base=${BASE_URL:-http://127.0.0.1:8080}

# Prints the answer. Fails unless it is a success that the target gave.
call() {
  answer=$(curl --silent --show-error --fail-with-body --include -H 'Authorization: Bearer demo-token' "$@")
  printf '%s\n\n' "$answer"
  printf '%s\n' "$answer" | grep -qi '^requestrocket-proxy-code: proxy-access-granted'
}

call "$base/api/hello/users?page=2"
call "$base/api/hello/users" -H 'Content-Type: application/json' --data '{"name":"Ada"}'
