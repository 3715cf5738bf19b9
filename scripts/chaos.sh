#!/usr/bin/env bash
# The proof of exactly once at length: many rounds of cli/tests/exactly_once.rs, one line a round.
# Usage: scripts/chaos.sh [ROUNDS] [SEED]     (200 rounds, a seed of its own, if not given)
# A round that fails says what differs, and keeps the data directory and the broker's folder.
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
. "$here/setup.sh"
setup
setup_kafka
export WATERSHED_CHAOS_ROUNDS=${1:-200}
if [ "$#" -ge 2 ]; then export WATERSHED_CHAOS_SEED=$2; fi
cd -- "$here/.."
exec cargo test --locked -p cli --test exactly_once -- --nocapture nothing_is_lost_and_nothing_counts_twice
