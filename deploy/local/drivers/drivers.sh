#!/usr/bin/env bash
# PostgreSQL drivers of other languages, for tests of the gateway, at pinned versions.
#
#   drivers.sh setup                 fetches them, once; says which cannot be had, and why
#   drivers.sh has KIND              python, java, node, go, psql, pgbench, flight, flight-jdbc: nothing, or the reason why not and exit code 3
#   drivers.sh python ARGS...        becomes the Python that has psycopg 3, psycopg2, asyncpg, SQLAlchemy
#   drivers.sh java FILE ARGS...     runs a Java source file with pgjdbc
#   drivers.sh node FILE ARGS...     runs a program for Node.js with pg and pg-cursor
#   drivers.sh go FOLDER ARGS...     builds and runs a Go program with pgx
#   drivers.sh psql|pgbench ARGS...  becomes PostgreSQL's own clients
#   drivers.sh flight ARGS...        becomes the Python that has ADBC's Flight SQL driver, pyarrow, pandas and Polars
#   drivers.sh flight-jdbc FILE ARGS runs a Java source file with the JDBC driver of Flight SQL
#
# WATERSHED_DRIVERS_CACHE is the folder for them (~/.cache/watershed/drivers). With CI=true what cannot be had is a failure.
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
cache=${WATERSHED_DRIVERS_CACHE:-$HOME/.cache/watershed/drivers}
. "$here/../common.sh"
kinds="python java node go psql pgbench flight flight-jdbc"
# The Go program of the tests names the version of pgx.
go_module=$here/../../../cli/tests/drivers/go

# Prints a Java program that runs source files: a JDK's, 17 or newer.
java_compiler() {
    local program
    for program in ${JAVA_HOME:+"$JAVA_HOME/bin/java"} "$(command -v java || true)" /usr/lib/jvm/*/bin/java; do
        if [ -n "$program" ] && [ -x "$program" ] && "$program" --describe-module jdk.compiler >/dev/null 2>&1 &&
            JAVA_HOME=$(dirname -- "$(dirname -- "$program")") java_program >/dev/null; then
            printf '%s\n' "$program"
            return 0
        fi
    done
    return 1
}

# Prints a Go of version 1.19 or newer.
go_program() {
    local program minor
    for program in "$(command -v go || true)" /usr/local/go/bin/go /usr/lib/go*/bin/go; do
        if [ -n "$program" ] && [ -x "$program" ]; then
            minor=$(GOTOOLCHAIN=local "$program" version | sed -n 's/.* go1\.\([0-9]*\).*/\1/p')
            if [ "${minor:-0}" -ge 19 ]; then
                printf '%s\n' "$program"
                return 0
            fi
        fi
    done
    return 1
}

# Debian's server package has pgbench, not on PATH.
client_program() { # NAME
    local program
    for program in ${WATERSHED_PG_BIN:+"$WATERSHED_PG_BIN/$1"} $(printf '%s\n' /usr/lib/postgresql/*/bin/"$1" | sort -rV) "$(command -v "$1" || true)"; do
        if [ -n "$program" ] && [ -x "$program" ]; then
            printf '%s\n' "$program"
            return 0
        fi
    done
    die "$1 is needed: apt-get install postgresql" 3
}

fetch_node() { # LOCK FOLDER
    command -v node >/dev/null 2>&1 || die "Node.js is needed: apt-get install nodejs" 3
    command -v npm >/dev/null 2>&1 || die "npm is needed: apt-get install npm" 3
    cp -- "$here/node/package.json" "$here/node/package-lock.json" "$2/"
    npm ci --prefix "$2" --omit=optional --ignore-scripts --no-audit --no-fund --loglevel=error ||
        die "npm could not install what $1 names" 3
}

# Go with modules and builds in a folder of ours, and no other Go than the one at hand.
go_in() { # FOLDER ARGS...
    local folder=$1 program
    program=$(go_program) || die "Go 1.19 or newer is needed: apt-get install golang-go" 3
    shift
    env GOTOOLCHAIN=local GOFLAGS=-modcacherw GOWORK=off CGO_ENABLED=0 GOPATH="$folder/path" GOCACHE="$folder/build" "$program" "$@"
}

fetch_go() { # SUMS FOLDER
    cd -- "$go_module"
    go_in "$2" mod download || die "Go could not fetch what $1 names" 3
    go_in "$2" build -o /dev/null . || die "Go could not build the driver" 3
}

# Prints where a kind is, after fetching it if need be.
place() { # KIND
    case $1 in
        python) fetched "$here/requirements.txt" fetch_python "PostgreSQL drivers for Python" ;;
        java)
            java_compiler >/dev/null || die "A JDK 17 or newer is needed: apt-get install default-jdk-headless" 3
            fetched "$here/pom.xml" fetch_jars "pgjdbc"
            ;;
        node)
            command -v node >/dev/null 2>&1 || die "Node.js is needed: apt-get install nodejs" 3
            fetched "$here/node/package-lock.json" fetch_node "node-postgres"
            ;;
        go) fetched "$go_module/go.sum" fetch_go "pgx" ;;
        psql | pgbench) client_program "$1" ;;
        flight) fetched "$here/flight.txt" fetch_python "clients of Arrow Flight SQL for Python" ;;
        flight-jdbc)
            java_compiler >/dev/null || die "A JDK 17 or newer is needed: apt-get install default-jdk-headless" 3
            fetched "$here/flight-jdbc/pom.xml" fetch_jars "the JDBC driver of Flight SQL"
            ;;
        *) die "no such kind of driver: $1" 2 ;;
    esac
}

case ${1:-} in
    setup)
        missing=0
        for kind in $kinds; do
            if ! reason=$("${BASH_SOURCE[0]}" has "$kind"); then
                printf 'skipped: tests with %s: %s\n' "$kind" "$reason" >&2
                missing=1
            fi
        done
        if [ "$missing" -ne 0 ] && [ "${CI:-}" = true ]; then exit 3; fi
        ;;
    has)
        # The reason alone on standard output; all that is said on standard error.
        if ! said=$( (place "${2:?a kind}" >/dev/null) 2>&1 | tee /dev/stderr); then
            printf '%s\n' "$said" | tail -n 1
            exit 3
        fi
        ;;
    python)
        shift
        folder=$(place python)
        exec "$folder/bin/python" "$@"
        ;;
    java)
        shift
        folder=$(place java)
        # Small programs, many at once.
        exec "$(java_compiler)" -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "$(printf '%s:' "$folder"/*.jar)" "$@"
        ;;
    node)
        shift
        folder=$(place node)
        NODE_PATH=$folder/node_modules exec node "$@"
        ;;
    go)
        shift
        folder=$(place go)
        cd -- "${1:?a folder}"
        shift
        # A name of its own for each content: several may build at once.
        program=$folder/$(cat -- *.go go.sum | sha256sum | cut -c 1-16)
        if [ ! -x "$program" ]; then
            GOPROXY=off go_in "$folder" build -o "$program.$$" .
            mv -- "$program.$$" "$program"
        fi
        exec "$program" "$@"
        ;;
    flight)
        shift
        folder=$(place flight)
        exec "$folder/bin/python" "$@"
        ;;
    flight-jdbc)
        shift
        folder=$(place flight-jdbc)
        # What the driver's Arrow needs of the virtual machine.
        exec "$(java_compiler)" --add-opens=java.base/java.nio=ALL-UNNAMED -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 \
            -cp "$(printf '%s:' "$folder"/*.jar)" "$@"
        ;;
    psql | pgbench)
        program=$(place "$1")
        shift
        exec "$program" "$@"
        ;;
    *)
        sed -n '4,12p' "${BASH_SOURCE[0]}" >&2
        exit 2
        ;;
esac
