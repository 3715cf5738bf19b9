#!/usr/bin/env bash
# promtool, which checks what is here: from PATH, or from Debian's package, unpacked into a folder of ours.
#
#   promtool.sh setup       fetches it, once (20 MB)
#   promtool.sh ARGS...     becomes promtool
#
# WATERSHED_PROMETHEUS_CACHE is the folder for it (~/.cache/watershed/prometheus).
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
cache=${WATERSHED_PROMETHEUS_CACHE:-$HOME/.cache/watershed/prometheus}
. "$here/../local/common.sh"

# The package alone: its programs need nothing but the C library.
fetch_prometheus() { # FILE FOLDER
    (cd -- "$2" && apt-get download -q prometheus) || die "apt-get could not download prometheus" 3
    dpkg -x "$2"/prometheus_*.deb "$2"
    rm -f -- "$2"/*.deb
}

program=$(command -v promtool || true)
if [ -z "$program" ]; then program=$(fetched "$here/packages" fetch_prometheus "promtool")/usr/bin/promtool; fi
if [ "${1:-}" = setup ]; then exit 0; fi
exec "$program" "$@"
