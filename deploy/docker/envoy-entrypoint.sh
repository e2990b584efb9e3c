#!/bin/bash
# Starts Envoy in its container, and stops it without cutting off what is under way.
#
# Fills the configuration in (render.sh says from which variables), runs Envoy, and on SIGTERM first lets /healthz fail
# and new connections go elsewhere, waits until no request is left, ENVOY_DRAIN_SECONDS at most, and then ends it: Envoy
# by itself would end at once, in the middle of uploads. It is bash, for its /dev/tcp: the image has no HTTP client.
#
# Besides what render.sh reads, and what holds without:
#   ENVOY_DRAIN_SECONDS   how long requests under way may take to end       30
#   ENVOY_CONCURRENCY     threads that serve                                2
#   ENVOY_CONFIG          where the configuration, filled in, is put        /run/envoy/envoy.yaml
set -euo pipefail

here=$(dirname "$0")
config=${ENVOY_CONFIG:-/run/envoy/envoy.yaml}
drain_seconds=${ENVOY_DRAIN_SECONDS:-30}

# admin METHOD PATH: what Envoy's admin answers, its headers included.
admin() {
  local answer
  exec {answer}<>"/dev/tcp/127.0.0.1/${ENVOY_ADMIN_PORT:-9901}" || return
  printf '%s %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n' "$1" "$2" >&"$answer"
  cat <&"$answer"
  exec {answer}>&-
}

busy() {
  admin GET '/stats?filter=^http[.]public[.]downstream_rq_active$' | grep -q 'downstream_rq_active: [1-9]'
}

stop() {
  trap '' TERM INT
  {
    admin POST /healthcheck/fail
    admin POST '/drain_listeners?graceful&skip_exit'
  } >/dev/null 2>&1 || true
  local end=$((SECONDS + drain_seconds))
  while [ "$SECONDS" -lt "$end" ] && busy 2>/dev/null; do
    sleep 0.5
  done
  kill -TERM "$envoy"
}

sh "$here/render.sh" "$here/envoy.yaml" >"$config"
envoy -c "$config" --disable-hot-restart --log-level warning --concurrency "${ENVOY_CONCURRENCY:-2}" "$@" &
envoy=$!
trap stop TERM INT
status=0
wait "$envoy" || status=$?
# A signal ends the first `wait` before Envoy has ended.
if kill -0 "$envoy" 2>/dev/null; then
  status=0
  wait "$envoy" || status=$?
fi
exit "$status"
