#!/usr/bin/env bash
# Programs of others that read Delta tables, for tests and measurements: deltalake, Polars, DuckDB, PySpark with delta-spark.
#
#   readers.sh setup            installs them into a virtual environment and fetches delta-spark's jars, once (about 650 MB)
#   readers.sh python ARGS...   becomes the Python that has them; WATERSHED_DELTA_JARS names the folder of the jars
#
# WATERSHED_READERS_CACHE is the folder for both (~/.cache/watershed/readers).
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
cache=${WATERSHED_READERS_CACHE:-$HOME/.cache/watershed/readers}
. "$here/../common.sh"

# DuckDB's own extension for Delta tables comes from a server of its own, which not every network reaches.
fetch_readers() { # REQUIREMENTS FOLDER
    fetch_python "$1" "$2"
    timeout 60 "$2/bin/python" -c '
import duckdb, sys
try:
    duckdb.connect(config={"extension_directory": sys.argv[1]}).execute("INSTALL delta")
except duckdb.Error as error:
    sys.exit(str(error).splitlines()[0])' "$2/duckdb" || printf 'DuckDB goes without its extension for Delta tables, by the list of files\n'
}

libraries() { fetched "$here/requirements.txt" fetch_readers "readers of Delta tables (PySpark among them)"; }
jars() { fetched "$here/pom.xml" fetch_jars "delta-spark"; }

case ${1:-} in
    setup)
        libraries
        jars
        ;;
    python)
        shift
        folder=$(libraries)
        WATERSHED_DELTA_JARS=$(jars)
        java=$(java_program) || die "Java 17 or newer is needed: apt-get install default-jre-headless" 3
        JAVA_HOME=$(dirname -- "$(dirname -- "$(realpath -- "$java")")")
        WATERSHED_DUCKDB_EXTENSIONS=$folder/duckdb
        export WATERSHED_DELTA_JARS WATERSHED_DUCKDB_EXTENSIONS JAVA_HOME
        exec "$folder/bin/python" "$@"
        ;;
    *)
        sed -n '4,5p' "${BASH_SOURCE[0]}" >&2
        exit 2
        ;;
esac
