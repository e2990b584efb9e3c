#!/bin/sh
# Installs the Debian package `orthanc` where there is no Orthanc yet, nothing says where one runs, and it is allowed.
set -eu

if [ -n "${ORTHANC_URL:-}" ] || command -v Orthanc >/dev/null || [ -x /usr/sbin/Orthanc ]; then
  exit 0
fi
give_up() {
  echo "There is no Orthanc here, and $1." >&2
  echo "Install it (Debian and Ubuntu: apt-get install orthanc; systemctl disable --now orthanc stops the server that" >&2
  echo "comes with it, on a port that make up uses), or set ORTHANC_URL, ORTHANC_USERNAME and ORTHANC_PASSWORD to one" >&2
  echo "that runs." >&2
  exit 1
}
command -v apt-get >/dev/null || give_up "this machine has no apt-get to install it with"
if [ "$(id -u)" -eq 0 ]; then
  as_root=
elif sudo -n true 2>/dev/null; then
  as_root="sudo -n"
else
  give_up "installing it needs root or sudo without a password"
fi

echo "Installing Orthanc ..."
export DEBIAN_FRONTEND=noninteractive
# The package starts a server of its own on ports 8042 and 4242; the stack brings its own, so keep that one from it.
policy=/usr/sbin/policy-rc.d
made=
# One left behind would keep every server of this machine from starting: it goes, whatever ends this script.
trap '[ -z "$made" ] || $as_root rm -f "$policy"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
if [ ! -e "$policy" ]; then
  made=yes
  printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
  $as_root chmod 755 "$policy"
fi
$as_root apt-get update -qq || give_up "apt-get update failed"
$as_root apt-get install -y -qq --no-install-recommends orthanc || give_up "apt-get could not install it"
