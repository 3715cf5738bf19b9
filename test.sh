#!/usr/bin/env bash
# Installs what is missing and runs all tests. Arguments go to `cargo test`, e.g. ./test.sh -p lake
# WATERSHED_SAMPLE_DATA may name a folder of real logs to load besides generated ones.
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
. "$here/scripts/setup.sh"
setup
setup_kafka
setup_hdfs
setup_s3
setup_drivers
setup_relay
setup_readers
setup_promtool
setup_browser
cd -- "$here"
if [ "$#" -eq 0 ]; then exec python3 scripts/run-tests.py; fi
exec cargo test --locked --no-fail-fast "$@"
