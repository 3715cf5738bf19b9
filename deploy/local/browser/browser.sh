#!/usr/bin/env bash
# A Chromium without a window, for tests of the status page: Debian's packages, unpacked into a folder of ours.
#
#   browser.sh setup           fetches it, once (120 MB); prints its folder
#   browser.sh run ARGS...     becomes the browser
#   browser.sh pipe ARGS...    the same, spoken to by the DevTools protocol: messages on standard input and output, each ended by a NUL
#
# WATERSHED_BROWSER_CACHE is the folder for it (~/.cache/watershed/browser).
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
cache=${WATERSHED_BROWSER_CACHE:-$HOME/.cache/watershed/browser}
. "$here/../common.sh"

setup() { fetched "$here/packages" fetch_debs "a browser"; }

# Sets `browser` to the program with the arguments that every run needs, and where it finds libraries and letters.
prepare() {
    local folder libraries
    folder=$(setup)
    libraries=$(find "$folder/usr/lib" -mindepth 1 -maxdepth 1 -type d -name '*-linux-gnu*' -print -quit)
    # PulseAudio's library has a folder of its own below.
    export LD_LIBRARY_PATH=$libraries:$libraries/pulseaudio${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    export FONTCONFIG_FILE=$folder/fonts.conf
    if [ ! -f "$FONTCONFIG_FILE" ]; then
        printf '<?xml version="1.0"?><fontconfig><dir>%s/usr/share/fonts</dir><cachedir>%s/font-cache</cachedir></fontconfig>\n' \
            "$folder" "$folder" >"$FONTCONFIG_FILE"
    fi
    browser=("$folder/usr/lib/chromium/chromium-headless-shell" --no-sandbox --disable-gpu --disable-dev-shm-usage
        --disable-extensions --no-first-run --disable-background-networking --hide-scrollbars --force-color-profile=srgb)
}

case ${1:-} in
setup) setup ;;
run)
    prepare
    shift
    exec "${browser[@]}" "$@"
    ;;
pipe)
    prepare
    shift
    exec "${browser[@]}" --remote-debugging-pipe "$@" about:blank 3<&0 4>&1 </dev/null 1>&2
    ;;
*)
    sed -n '4,6p' "${BASH_SOURCE[0]}" >&2
    exit 2
    ;;
esac
