#!/usr/bin/env bash
# PostgreSQL's own regression suite, from Debian's source package of the server that is installed.
#
#   suite.sh setup     fetches and builds it, once, and prints its folder: sql, expected, data, parallel_schedule,
#                      pg_regress, and in lib the modules that the tests load
#
# WATERSHED_REGRESS_CACHE is where it stays (~/.cache/watershed/regress). The package comes from where apt got the server from.
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
cache=${WATERSHED_REGRESS_CACHE:-$HOME/.cache/watershed/regress}
. "$here/../common.sh"

# The major version of the server that `watershed up` finds: the newest.
major() {
    local program versions=
    for program in ${WATERSHED_PG_BIN:+"$WATERSHED_PG_BIN/postgres"} /usr/lib/postgresql/*/bin/postgres; do
        [ ! -x "$program" ] || versions+=$("$program" --version | sed -n 's/.*(PostgreSQL) \([0-9]*\).*/\1/p')$'\n'
        [ -z "${WATERSHED_PG_BIN:-}" ] || break
    done
    printf '%s' "$versions" | sort -rn | head -n 1 | grep . || die "no PostgreSQL server of Debian's packages is installed" 3
}

# apt-get with source packages of the archives that have the binary one, in lists of its own: changes nothing, and needs no root.
apt_source() { # FOLDER ARGS...
    local folder=$1
    shift
    apt-get -qq -o APT::Sandbox::User="$(id -un)" -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$folder/sources" \
        -o Dir::State::Lists="$folder/lists" -o Dir::Cache="$folder/cache" "$@"
}

source_lists() { # PACKAGE FOLDER
    local archives list parts file
    archives=$(apt-cache policy "$1" | sed -n 's/^ *-\{0,1\}[0-9]* \(http[^ ]*\) .*/\1/p' | sort -u)
    [ -n "$archives" ] || die "apt knows no archive of $1: run apt-get update first" 3
    eval "$(apt-config shell list Dir::Etc::sourcelist/f parts Dir::Etc::sourceparts/d)"
    mkdir -p -- "$2/sources" "$2/lists/partial" "$2/cache/archives/partial"
    for file in "$list" "$parts"/*; do
        if [ -f "$file" ] && grep -qF "$archives" "$file"; then
            case $file in
                *.list) sed -n 's/^deb /deb-src /p' "$file" | grep -F "$archives" >"$2/sources/$(basename -- "$file")" ;;
                *.sources) sed 's/^Types:.*/Types: deb-src/' "$file" >"$2/sources/$(basename -- "$file")" ;;
            esac
        fi
    done
}

fetch() { # PACKAGE VERSION FOLDER
    source_lists "$1" "$3"
    apt_source "$3" update || true # an archive that does not answer is missed below, if it is the one
    (cd -- "$3" && { apt_source "$3" source --download-only --only-source "$1=$2" ||
        apt_source "$3" source --download-only --only-source "$1"; }) || die "apt has no source package of $1" 3
    mkdir -- "$3/source"
    tar -x -f "$3"/*.orig.tar.* --strip-components 1 -C "$3/source"
}

build() { # SOURCE FOLDER
    (cd -- "$1" && ./configure --quiet --without-readline --without-zlib && make -s -j "$(nproc)" -C src/test/regress) ||
        die "the suite could not be built from $1" 3
    (cd -- "$1/src/test/regress" && mkdir -- "$2/lib" && cp -R -- sql expected data parallel_schedule resultmap pg_regress "$2" &&
        cp -- ./*.so "$2/lib")
}

setup() {
    local package version folder work
    package=postgresql-$(major)
    version=$(dpkg-query -W -f '${Version}' "$package")
    folder=$cache/$version
    if [ ! -d "$folder" ]; then
        mkdir -p -- "$cache"
        exec 9>"$cache/lock"
        flock 9
        if [ ! -d "$folder" ]; then
            printf 'Fetching and building the suite of %s %s; once\n' "$package" "$version" >&2
            work=$cache/work
            rm -rf -- "$work"
            mkdir -p -- "$work/suite"
            fetch "$package" "$version" "$work" >&2 </dev/null
            build "$work/source" "$work/suite" >"$cache/build.log" 2>&1 </dev/null || { tail -n 20 "$cache/build.log" >&2; exit 3; }
            mv -- "$work/suite" "$folder"
            rm -rf -- "$work"
        fi
        exec 9>&-
    fi
    printf '%s\n' "$folder"
}

case ${1:-} in
    setup) setup ;;
    *)
        sed -n '4,5p' "${BASH_SOURCE[0]}" >&2
        exit 2
        ;;
esac
