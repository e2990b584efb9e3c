#!/bin/sh
# Fills the ${NAME}s of Envoy's files in from the environment: render.sh FILE, to stdout.
#
# A shell script, for it runs in Envoy's container too, which has no Python. The names, and what holds without them:
#   ENVOY_ADDRESS, ENVOY_PORT   where callers come in                          127.0.0.1, 8000
#   ENVOY_ADMIN_PORT            Envoy's own pages, on the loopback only        9901
#   ENVOY_CLUSTERS              the file with the clusters                     must be set
#   ENVOY_DESCRIPTORS           the descriptor set that `make proto` writes    must be set
#   AUTH_JWKS                   the file with the keys that sign tokens        must be set
#   AUTH_ISSUER, AUTH_AUDIENCE  what tokens must say                           must be set
#   CORS_ORIGINS                origins whose pages may call, separated by
#                               commas, such as https://ris.example.org        none
#   TAG_SERVICE_PORT, PACS_GATEWAY_PORT   for clusters/local.yaml              50051, 50052
set -eu

: "${ENVOY_ADDRESS:=127.0.0.1}" "${ENVOY_PORT:=8000}" "${ENVOY_ADMIN_PORT:=9901}" "${CORS_ORIGINS:=}"
: "${TAG_SERVICE_PORT:=50051}" "${PACS_GATEWAY_PORT:=50052}"

refuse() {
  echo "render.sh: $1" >&2
  exit 2
}

script=
for name in ENVOY_ADDRESS ENVOY_PORT ENVOY_ADMIN_PORT ENVOY_CLUSTERS ENVOY_DESCRIPTORS AUTH_JWKS AUTH_ISSUER \
  AUTH_AUDIENCE CORS_ORIGINS TAG_SERVICE_PORT PACS_GATEWAY_PORT; do
  eval "value=\${$name:-}"
  # No quote, no line break and nothing that sed minds: a value stays the value it is meant to be.
  case $value in
    *[!A-Za-z0-9_./:@,~+=\ -]*) refuse "$name holds a character that it must not: $value" ;;
    '') [ "$name" = CORS_ORIGINS ] || refuse "$name is not set" ;;
  esac
  if [ "$name" = CORS_ORIGINS ]; then
    # A list becomes one regular expression: "https://a.org,https://b.org" -> "https://a[.]org|https://b[.]org".
    value=$(printf '%s' "${value:-none}" | sed 's/[.]/[.]/g; s/,/|/g')
  fi
  script="$script
s!\${$name}!$value!g"
done
exec sed "$script" "$1"
