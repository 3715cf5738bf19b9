#!/usr/bin/env bash
# A single-node Apache Kafka broker (KRaft: broker and controller in one JVM) for tests, demonstrations and measurements.
# It keeps everything in one folder, runs as anybody, and several can run beside each other.
#
#   kafka.sh setup                 fetches the jars through Maven, once; prints the folder that holds them
#   kafka.sh start DIR [OPTIONS]   formats DIR if it is new, starts the broker in the background, waits until it serves
#   kafka.sh run DIR [OPTIONS]     the same in the foreground: the process becomes the broker
#   kafka.sh stop DIR              SIGTERM, and SIGKILL after 20 seconds
#   kafka.sh status DIR            says whether it runs; exit code 0 or 3
#   kafka.sh env DIR               prints KAFKA_BOOTSTRAP=host:port
#
# Options, remembered in DIR for later starts:
#   --port N              where clients connect; a free one if not given
#   --controller-port N   where the broker meets its own controller; a free one if not given
#   --heap SIZE           the JVM's heap (768m)
#   --proxied LISTEN:ADVERTISED
#                         a second listener on port LISTEN that tells its clients to come back to port ADVERTISED, where
#                         something between them and the broker listens
#   --set KEY=VALUE       a broker setting (any number of times)
#
# WATERSHED_KAFKA_CACHE is the folder for jars (~/.cache/watershed/kafka).
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
cache=${WATERSHED_KAFKA_CACHE:-$HOME/.cache/watershed/kafka}
. "$here/../common.sh"
# Seconds for a start or a stop; only a hang or a very busy machine comes near.
patience=240

usage() {
    sed -n '5,10p' "${BASH_SOURCE[0]}" >&2
    exit 2
}

# Prints the folder of jars.
setup() { fetched "$here/pom.xml" fetch_jars "Kafka"; }

# Writes the broker's settings and formats its folder.
prepare() {
    local dir=$1 jars=$2 java=$3 listeners advertised
    listeners=DIRECT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller_port
    advertised=DIRECT://127.0.0.1:$port
    if [ -n "$proxied" ]; then
        listeners=$listeners,PROXIED://127.0.0.1:${proxied%%:*}
        advertised=$advertised,PROXIED://127.0.0.1:${proxied##*:}
    fi
    {
        cat <<SETTINGS
node.id=1
process.roles=broker,controller
controller.quorum.voters=1@127.0.0.1:$controller_port
controller.listener.names=CONTROLLER
inter.broker.listener.name=DIRECT
listeners=$listeners
advertised.listeners=$advertised
listener.security.protocol.map=CONTROLLER:PLAINTEXT,DIRECT:PLAINTEXT,PROXIED:PLAINTEXT
log.dirs=$dir/log
# One broker: everything has one replica.
default.replication.factor=1
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
# Topics are made by who needs them; a misspelt name is an error.
auto.create.topics.enable=false
delete.topic.enable=true
# Small and quick to start, to rebalance, and to come back after kill -9.
offsets.topic.num.partitions=4
transaction.state.log.num.partitions=4
num.network.threads=2
num.io.threads=4
num.recovery.threads.per.data.dir=2
log.cleaner.dedupe.buffer.size=16777216
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
group.consumer.min.session.timeout.ms=1000
group.consumer.min.heartbeat.interval.ms=200
broker.heartbeat.interval.ms=1000
broker.session.timeout.ms=6000
SETTINGS
        cat -- "$dir/set"
    } >"$dir/server.properties.new"
    mv -- "$dir/server.properties.new" "$dir/server.properties"
    if [ ! -f "$dir/log/meta.properties" ]; then
        "$java" -Xmx128m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$jars/*" kafka.tools.StorageTool \
            format --cluster-id "$(head -c 16 /dev/urandom | base64 | tr '+/' 'ab' | tr -d '=')" --config "$dir/server.properties" \
            >"$dir/format.log" 2>&1 || die "the folder could not be formatted: $(cat "$dir/format.log")"
    fi
}

alive() { # DIR: the broker's process, if it runs
    local pid
    pid=$(cat -- "$1/pid" 2>/dev/null) || return 1
    # The number may belong to another process by now; that one was not started on this folder.
    tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF -- "$1/server.properties" && printf '%s\n' "$pid"
}

# Reads the options, makes the folder ready, and sets `command` to the broker's command line.
ready_to_run() {
    local dir=$1 jars java
    shift
    port=$(setting "$dir/options" port)
    controller_port=$(setting "$dir/options" controller_port)
    heap=$(setting "$dir/options" heap)
    proxied=$(setting "$dir/options" proxied)
    mkdir -p -- "$dir"
    touch -- "$dir/set"
    while [ "$#" -gt 0 ]; do
        [ "$#" -ge 2 ] || usage
        case $1 in
            --port) port=$2 ;;
            --controller-port) controller_port=$2 ;;
            --heap) heap=$2 ;;
            --proxied) proxied=$2 ;;
            --set) printf '%s\n' "$2" >>"$dir/set" ;;
            *) usage ;;
        esac
        shift 2
    done
    port=${port:-$(free_port)}
    controller_port=${controller_port:-$(free_port)}
    heap=${heap:-768m}
    printf '%s\n' "port=$port" "controller_port=$controller_port" "heap=$heap" "proxied=$proxied" >"$dir/options"
    jars=$(setup)
    java=$(java_program) || die "Java 17 or newer is needed: apt-get install default-jre-headless" 3
    prepare "$dir" "$jars" "$java"
    # The line that tells that the broker serves is logged at level info by this one class.
    command=("$java" "-Xmx$heap" -Xms64m -XX:+UseSerialGC -XX:MaxDirectMemorySize=256m -Djava.awt.headless=true
        -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -Dorg.slf4j.simpleLogger.showDateTime=true
        "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS"
        -Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info
        -cp "$jars/*" kafka.Kafka "$dir/server.properties")
}

start() {
    local dir=$1 pid
    if alive "$dir" >/dev/null; then return 0; fi
    ready_to_run "$@"
    : >"$dir/broker.log"
    setsid "${command[@]}" >>"$dir/broker.log" 2>&1 </dev/null &
    pid=$!
    printf '%s\n' "$pid" >"$dir/pid"
    for _ in $(seq $((patience * 10))); do
        if grep -q 'Kafka Server started' "$dir/broker.log"; then return 0; fi
        kill -0 "$pid" 2>/dev/null || die "the broker ended: $(tail -n 20 "$dir/broker.log")"
        sleep 0.1
    done
    kill -KILL "$pid" 2>/dev/null || true
    die "the broker did not serve within $patience seconds: $(tail -n 20 "$dir/broker.log")"
}

stop() {
    local pid
    pid=$(alive "$1") || return 0
    kill -TERM "$pid" 2>/dev/null || true
    for _ in $(seq 200); do
        alive "$1" >/dev/null || return 0
        sleep 0.1
    done
    kill -KILL "$pid" 2>/dev/null || true
    while alive "$1" >/dev/null; do sleep 0.1; done
}

verb=${1:-}
[ "$#" -eq 0 ] || shift
if [ "$verb" = setup ]; then
    setup
    exit
fi
[ "$#" -ge 1 ] || usage
dir=$(realpath -m -- "$1")
shift
case $verb in
    start) start "$dir" "$@" ;;
    run)
        ready_to_run "$dir" "$@"
        printf '%s\n' "$$" >"$dir/pid"
        exec "${command[@]}"
        ;;
    stop) stop "$dir" ;;
    status)
        if pid=$(alive "$dir"); then
            printf 'runs as process %s on 127.0.0.1:%s\n' "$pid" "$(setting "$dir/options" port)"
        else
            printf 'does not run\n'
            exit 3
        fi
        ;;
    env) printf 'KAFKA_BOOTSTRAP=127.0.0.1:%s\n' "$(setting "$dir/options" port)" ;;
    *) usage ;;
esac
