#!/usr/bin/env bash
# A small HDFS (one NameNode, two DataNodes, two replicas) for tests, demonstrations and measurements.
# It keeps everything in one folder, runs as anybody, and several can run beside each other.
#
#   hdfs.sh setup                  fetches the jars through Maven, once (about 80 MB); prints the folder that holds them
#   hdfs.sh start DIR [OPTIONS]    formats DIR if it is new, starts what does not run, waits until all serve
#   hdfs.sh stop DIR               SIGTERM, and SIGKILL after 20 seconds
#   hdfs.sh kill DIR               SIGKILL to all of it
#   hdfs.sh status DIR             says what runs; exit code 0, or 3 if something does not
#   hdfs.sh env DIR                prints HDFS_URL=hdfs://host:port and HADOOP_CONF_DIR=...
#   hdfs.sh signal DIR WHO NAME    sends a signal (KILL, STOP, CONT, TERM) to WHO: namenode, datanode1, datanode2, ...
#   hdfs.sh launch DIR WHO         starts WHO again, without waiting
#   hdfs.sh pid DIR WHO            prints its process
#   hdfs.sh admin DIR ARGS...      hdfs dfsadmin
#   hdfs.sh dfs DIR ARGS...        hdfs dfs
#   hdfs.sh fsck DIR ARGS...       hdfs fsck
#
# Options, remembered in DIR for later starts:
#   --port N              of the NameNode; a free one if not given
#   --datanodes N         how many (2)
#   --replication N       replicas of a block (2)
#   --heap SIZE           the heap of each JVM (256m)
#   --set KEY=VALUE       a property of hdfs-site.xml (any number of times)
#
# WATERSHED_HDFS_CACHE is the folder for jars (~/.cache/watershed/hdfs).
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
cache=${WATERSHED_HDFS_CACHE:-$HOME/.cache/watershed/hdfs}
. "$here/../common.sh"
# Seconds for a start or a stop; only a hang or a very busy machine comes near.
patience=240

usage() {
    sed -n '5,16p' "${BASH_SOURCE[0]}" >&2
    exit 2
}

# Prints the folder of jars.
setup() { fetched "$here/pom.xml" fetch_jars "Hadoop (HDFS), about 80 MB"; }

property() { # KEY VALUE
    printf '  <property><name>%s</name><value>%s</value></property>\n' "$1" "$2"
}

configuration() { # the properties on standard input, as a file of Hadoop's
    printf '<?xml version="1.0"?>\n<configuration>\n'
    cat
    printf '</configuration>\n'
}

# Writes a configuration directory: conf for the NameNode and for clients, conf.datanodeN for each DataNode.
configure() {
    local who n port http ipc
    for who in namenode $(seq -f 'datanode%g' "$datanodes"); do
        n=$dir/conf
        [ "$who" = namenode ] || n=$dir/conf.$who
        # Pages that the jars do not have; without a folder of that name nothing starts.
        mkdir -p -- "$n/webapps/hdfs" "$n/webapps/datanode" "$n/webapps/static"
        {
            property fs.defaultFS "hdfs://127.0.0.1:$port_namenode"
            property hadoop.tmp.dir "$dir/tmp"
            property ipc.client.connect.max.retries 1
        } | configuration >"$n/core-site.xml"
        {
            property dfs.namenode.rpc-address "127.0.0.1:$port_namenode"
            property dfs.namenode.http-address "127.0.0.1:$(setting "$dir/options" namenode_http)"
            property dfs.namenode.name.dir "file://$dir/namenode"
            property dfs.replication "$replication"
            property dfs.namenode.datanode.registration.ip-hostname-check false
            property dfs.namenode.safemode.extension 0
            property dfs.namenode.safemode.min.datanodes 1
            # A DataNode that is gone is noticed within seconds, not within ten minutes.
            property dfs.heartbeat.interval 1
            property dfs.namenode.heartbeat.recheck-interval 2000
            property dfs.namenode.stale.datanode.interval 4000
            property dfs.namenode.avoid.read.stale.datanode true
            property dfs.namenode.avoid.write.stale.datanode true
            property dfs.namenode.redundancy.interval.seconds 1
            property dfs.namenode.resource.du.reserved 1048576
            property dfs.namenode.handler.count 6
            property dfs.namenode.service.handler.count 3
            property dfs.datanode.handler.count 4
            property dfs.datanode.hostname 127.0.0.1
            property dfs.datanode.data.dir "file://$dir/$who/data"
            property dfs.datanode.max.transfer.threads 256
            property dfs.blockreport.initialDelay 0
            if [ "$who" != namenode ]; then
                port=$(setting "$dir/options" "$who")
                http=$(setting "$dir/options" "${who}_http")
                ipc=$(setting "$dir/options" "${who}_ipc")
                property dfs.datanode.address "127.0.0.1:$port"
                property dfs.datanode.http.address "127.0.0.1:$http"
                property dfs.datanode.ipc.address "127.0.0.1:$ipc"
            fi
            while IFS='=' read -r key value; do
                [ -z "$key" ] || property "$key" "$value"
            done <"$dir/set"
        } | configuration >"$n/hdfs-site.xml"
        cat >"$n/log4j.properties" <<'LOGGING'
log4j.rootLogger=WARN, console
log4j.logger.org.apache.hadoop.hdfs.StateChange=ERROR
log4j.logger.org.apache.hadoop.hdfs.server.blockmanagement=ERROR
log4j.logger.org.apache.hadoop.util.NativeCodeLoader=ERROR
log4j.appender.console=org.apache.log4j.ConsoleAppender
log4j.appender.console.target=System.err
log4j.appender.console.layout=org.apache.log4j.PatternLayout
log4j.appender.console.layout.ConversionPattern=%d{HH:mm:ss.SSS} %p %c{1}: %m%n
LOGGING
    done
}

# Sets `command` to that of a class of Hadoop with a configuration directory.
java_command() { # CONF HEAP CLASS ARGS...
    local conf=$1 heap=$2
    shift 2
    # Hadoop reaches into Java's own classes where 17 asks for permission.
    command=("$java" "-Xmx$heap" -Xms32m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Djava.awt.headless=true
        -Djava.net.preferIPv4Stack=true --add-opens=java.base/java.lang=ALL-UNNAMED
        --add-opens=java.base/java.util=ALL-UNNAMED --add-opens=java.base/java.nio=ALL-UNNAMED
        -Dhadoop.security.logger=ERROR,console -cp "$conf:$jars/*" "$@")
}

tools() {
    jars=$(setup)
    java=$(java_program) || die "Java 17 or newer is needed: apt-get install default-jre-headless" 3
    # The processes run as whoever runs this; nobody else's name may come in from the environment.
    unset HADOOP_USER_NAME HADOOP_PROXY_USER HADOOP_CONF_DIR HADOOP_HOME HADOOP_CLASSPATH
}

alive() { # WHO: its process, if it runs
    local pid
    pid=$(cat -- "$dir/$1.pid" 2>/dev/null) || return 1
    # The number may belong to another process by now; that one was not started on this folder. One that has ended and was not
    # looked after has no command line.
    { tr '\0' ' ' <"/proc/$pid/cmdline"; } 2>/dev/null | grep -qF -- "-Dwatershed.part=$dir/$1 " && printf '%s\n' "$pid"
}

launch() { # WHO
    local who=$1 conf class
    if alive "$who" >/dev/null; then return 0; fi
    case $who in
        namenode) conf=$dir/conf class=org.apache.hadoop.hdfs.server.namenode.NameNode ;;
        *) conf=$dir/conf.$who class=org.apache.hadoop.hdfs.server.datanode.DataNode ;;
    esac
    [ -d "$conf" ] || die "there is no $who here"
    java_command "$conf" "$(setting "$dir/options" heap)" "-Dwatershed.part=$dir/$who" "$class"
    mkdir -p -- "$dir/$who"
    setsid "${command[@]}" >>"$dir/$who.log" 2>&1 </dev/null &
    printf '%s\n' "$!" >"$dir/$who.pid"
}

# What the NameNode says of itself at its web address.
asked() { # BEAN
    local line
    exec 3<>"/dev/tcp/127.0.0.1/$(setting "$dir/options" namenode_http)" || return 1
    printf 'GET /jmx?qry=Hadoop:service=NameNode,name=%s HTTP/1.0\r\n\r\n' "$1" >&3
    while IFS= read -r line <&3; do printf '%s\n' "$line"; done
    exec 3>&-
} 2>/dev/null

live_datanodes() { (asked FSNamesystemState || true) | sed -n 's/.*"NumLiveDataNodes" *: *\([0-9]*\).*/\1/p'; }

# A NameNode that does not answer, or does not know yet, serves nobody.
out_of_safe_mode() { (asked NameNodeInfo || true) | grep -q '"Safemode" *: *""'; }

parts() { printf 'namenode\n'; seq -f 'datanode%g' "$(setting "$dir/options" datanodes)"; }

read_options() {
    local who
    mkdir -p -- "$dir"
    touch -- "$dir/set" "$dir/options"
    port_namenode=$(setting "$dir/options" namenode)
    datanodes=$(setting "$dir/options" datanodes)
    replication=$(setting "$dir/options" replication)
    heap=$(setting "$dir/options" heap)
    while [ "$#" -gt 0 ]; do
        [ "$#" -ge 2 ] || usage
        case $1 in
            --port) port_namenode=$2 ;;
            --datanodes) datanodes=$2 ;;
            --replication) replication=$2 ;;
            --heap) heap=$2 ;;
            --set) printf '%s\n' "$2" >>"$dir/set" ;;
            *) usage ;;
        esac
        shift 2
    done
    port_namenode=${port_namenode:-$(free_port)}
    datanodes=${datanodes:-2}
    replication=${replication:-2}
    heap=${heap:-256m}
    {
        printf '%s\n' "namenode=$port_namenode" "datanodes=$datanodes" "replication=$replication" "heap=$heap"
        for who in namenode_http $(seq -f 'datanode%g' "$datanodes") $(seq -f 'datanode%g_http' "$datanodes") \
            $(seq -f 'datanode%g_ipc' "$datanodes"); do
            port=$(setting "$dir/options" "$who")
            printf '%s=%s\n' "$who" "${port:-$(free_port)}"
        done
    } >"$dir/options.new"
    mv -- "$dir/options.new" "$dir/options"
}

start() {
    local who
    read_options "$@"
    tools
    configure
    if [ ! -f "$dir/namenode/current/VERSION" ]; then
        java_command "$dir/conf" 128m org.apache.hadoop.hdfs.server.namenode.NameNode -format -nonInteractive -force
        "${command[@]}" >"$dir/format.log" 2>&1 </dev/null || die "the NameNode could not be formatted: $(tail -n 20 "$dir/format.log")"
    fi
    for who in $(parts); do launch "$who"; done
    for _ in $(seq $((patience * 5))); do
        if [ "$(live_datanodes)" = "$datanodes" ] && out_of_safe_mode; then return 0; fi
        for who in $(parts); do
            alive "$who" >/dev/null || die "the $who ended: $(tail -n 20 "$dir/$who.log")"
        done
        sleep 0.2
    done
    die "HDFS did not serve within $patience seconds: $(tail -n 20 "$dir/namenode.log")"
}

send() { # NAME: a signal to all that runs
    local who pid
    for who in $(parts); do
        if pid=$(alive "$who"); then kill -s "$1" "$pid" 2>/dev/null || true; fi
    done
}

none_alive() {
    local who
    for who in $(parts); do
        if alive "$who" >/dev/null; then return 1; fi
    done
}

stop() {
    [ -f "$dir/options" ] || return 0
    # One that stands still hears nothing.
    send CONT
    send TERM
    for _ in $(seq 200); do
        if none_alive; then return 0; fi
        sleep 0.1
    done
    kill_all
}

kill_all() {
    [ -f "$dir/options" ] || return 0
    send KILL
    until none_alive; do sleep 0.1; done
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
    start) start "$@" ;;
    stop) stop ;;
    kill) kill_all ;;
    status)
        missing=0
        for who in $(parts); do
            if pid=$(alive "$who"); then
                printf '%s runs as process %s on 127.0.0.1:%s\n' "$who" "$pid" "$(setting "$dir/options" "$who")"
            else
                printf '%s does not run\n' "$who"
                missing=3
            fi
        done
        exit "$missing"
        ;;
    env)
        printf 'HDFS_URL=hdfs://127.0.0.1:%s\n' "$(setting "$dir/options" namenode)"
        printf 'HADOOP_CONF_DIR=%s\n' "$dir/conf"
        ;;
    signal)
        [ "$#" -eq 2 ] || usage
        pid=$(alive "$1") || die "$1 does not run"
        kill -s "$2" "$pid"
        if [ "$2" = KILL ]; then
            while alive "$1" >/dev/null; do sleep 0.05; done
        fi
        ;;
    launch)
        [ "$#" -eq 1 ] || usage
        tools
        launch "$1"
        ;;
    pid)
        [ "$#" -eq 1 ] || usage
        alive "$1" || die "$1 does not run"
        ;;
    admin | dfs | fsck)
        tools
        case $verb in
            admin) class=org.apache.hadoop.hdfs.tools.DFSAdmin ;;
            dfs) class=org.apache.hadoop.fs.FsShell ;;
            fsck) class=org.apache.hadoop.hdfs.tools.DFSck ;;
        esac
        java_command "$dir/conf" 128m "$class" "$@"
        exec "${command[@]}"
        ;;
    *) usage ;;
esac
