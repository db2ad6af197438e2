#!/bin/sh
# Runs the steps of docs/adopt.md against a running backend and gateway, and prints the status of each.
set -eu
gateway=${GATEWAY:-http://127.0.0.1:8080}
jar=$(mktemp)
trap 'rm -f "$jar"' EXIT

step() { # NAME [ARGUMENT OF CURL]...
    printf '%s: ' "$1"
    shift
    curl -sS -o /dev/null -w '%{http_code}\n' -b "$jar" -c "$jar" "$@"
}

step "orders without a session" "$gateway/orders"
step "a wrong password" -H 'Content-Type: application/json' \
    -d '{"email":"ann@example.com","password":"a guess"}' "$gateway/api/v1/auth/login"
step "the correct password" -H 'Content-Type: application/json' \
    -d '{"email":"ann@example.com","password":"ann-knows-this"}' "$gateway/api/v1/auth/login"
printf 'orders with the session: '
curl -sS -b "$jar" "$gateway/orders"
echo
step "the list of sessions" "$gateway/api/v1/sessions"
step "sign out" -X POST -H "Origin: $gateway" "$gateway/api/v1/auth/logout"
step "orders afterwards" "$gateway/orders"
