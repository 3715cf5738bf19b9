# Sourced by demo.sh and test.sh: makes sure that what a build and a private PostgreSQL need is installed, and for the tests
# what a Kafka broker, HDFS, a local S3 server, other readers of the lake and a measurement beside PgBouncer need.
# Does nothing where it is. Works as root or not (then through sudo), without a terminal, any number of times.

# Oldest PostgreSQL that works.
WATERSHED_OLDEST_POSTGRES=15

say() { printf '%s\n' "$*" >&2; }

die() {
    say "$1"
    exit 3
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1; then
        sudo -- "$@"
    else
        die "This needs root: run it as root, install sudo, or run yourself: $*"
    fi
}

# Major versions of the PostgreSQL servers here, one a line.
postgres_versions() {
    local program
    for program in ${WATERSHED_PG_BIN:+"$WATERSHED_PG_BIN/postgres"} /usr/lib/postgresql/*/bin/postgres \
        /usr/pgsql-*/bin/postgres "$(command -v postgres || true)"; do
        if [ -n "$program" ] && [ -x "$program" ]; then
            "$program" --version | sed -n 's/.*(PostgreSQL) \([0-9]*\).*/\1/p'
        fi
    done
}

has_postgres() {
    local version
    for version in $(postgres_versions); do
        if [ "$version" -ge "$WATERSHED_OLDEST_POSTGRES" ]; then return 0; fi
    done
    return 1
}

apt_updated=
install_packages() {
    command -v apt-get >/dev/null 2>&1 || die "Please install: $* (this script knows Debian's apt-get only)."
    if [ -z "$apt_updated" ]; then
        say "Updating the list of packages"
        as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq </dev/null >&2
        apt_updated=yes
    fi
    say "Installing $*"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" </dev/null >&2
}

setup() {
    local missing=()
    command -v cc >/dev/null 2>&1 || missing+=(gcc libc6-dev)
    command -v make >/dev/null 2>&1 || missing+=(make)
    command -v cmake >/dev/null 2>&1 || missing+=(cmake)
    # librdkafka: TLS, SASL and zlib of the system.
    [ -e /usr/include/openssl/ssl.h ] || missing+=(libssl-dev)
    [ -e /usr/include/sasl/sasl.h ] || missing+=(libsasl2-dev)
    [ -e /usr/include/zlib.h ] || missing+=(zlib1g-dev)
    command -v pkg-config >/dev/null 2>&1 || missing+=(pkg-config)
    if [ "${#missing[@]}" -gt 0 ]; then install_packages "${missing[@]}"; fi

    if ! has_postgres; then
        install_packages postgresql
        has_postgres || die "PostgreSQL $WATERSHED_OLDEST_POSTGRES or newer is needed; this system's packages give $(postgres_versions | sort -rn | head -n 1)."
    fi

    if ! command -v cargo >/dev/null 2>&1 && [ -x "$HOME/.cargo/bin/cargo" ]; then
        PATH="$HOME/.cargo/bin:$PATH"
    fi
    if ! command -v cargo >/dev/null 2>&1; then
        install_packages rustup || die "Please install Rust as https://rust-lang.org/tools/install says, then run this again."
        rustup default stable >&2
    fi
    export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$HOME/.cache/watershed/target}"
}

# True if a Java program of version 17 or newer is here.
has_java() {
    local program version
    for program in ${JAVA_HOME:+"$JAVA_HOME/bin/java"} "$(command -v java || true)" /usr/lib/jvm/*/bin/java; do
        if [ -n "$program" ] && [ -x "$program" ]; then
            version=$("$program" -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p' | head -n 1)
            if [ "${version:-0}" -ge 17 ]; then return 0; fi
        fi
    done
    return 1
}

setup_java() {
    local missing=()
    has_java || missing+=(default-jre-headless)
    command -v mvn >/dev/null 2>&1 || missing+=(maven)
    if [ "${#missing[@]}" -gt 0 ]; then install_packages "${missing[@]}"; fi
    has_java || die "Java 17 or newer is needed to run $1; this system's packages give an older one."
}

# What deploy/local/kafka needs, and its jars, so that no test waits for them.
setup_kafka() {
    setup_java Kafka
    "$(dirname -- "${BASH_SOURCE[0]}")/../deploy/local/kafka/kafka.sh" setup >/dev/null
}

# The same for deploy/local/hdfs: the download takes a while, once.
setup_hdfs() {
    setup_java HDFS
    "$(dirname -- "${BASH_SOURCE[0]}")/../deploy/local/hdfs/hdfs.sh" setup >/dev/null
}

setup_python() {
    if ! python3 -c 'import venv, ensurepip' >/dev/null 2>&1; then install_packages python3 python3-venv; fi
}

# The same for deploy/local/s3.
setup_s3() {
    setup_python
    "$(dirname -- "${BASH_SOURCE[0]}")/../deploy/local/s3/s3.sh" setup >/dev/null
}

# Packages without which some tests are skipped, with the reason printed; in CI that is a failure.
try_packages() {
    (install_packages "$@") || if [ "${CI:-}" = true ]; then die "CI needs $*"; fi
}

# True if a Java program here runs source files, which takes a JDK.
has_java_compiler() {
    local program
    for program in ${JAVA_HOME:+"$JAVA_HOME/bin/java"} "$(command -v java || true)" /usr/lib/jvm/*/bin/java; do
        if [ -n "$program" ] && [ -x "$program" ] && "$program" --describe-module jdk.compiler >/dev/null 2>&1; then return 0; fi
    done
    return 1
}

# The same for deploy/local/drivers, each with its own language; certificates of tests are made by the openssl program.
setup_drivers() {
    setup_python
    command -v openssl >/dev/null 2>&1 || install_packages openssl
    has_java_compiler || try_packages default-jdk-headless
    command -v mvn >/dev/null 2>&1 || try_packages maven
    command -v node >/dev/null 2>&1 || try_packages nodejs
    command -v npm >/dev/null 2>&1 || try_packages npm
    command -v go >/dev/null 2>&1 || [ -x /usr/local/go/bin/go ] || try_packages golang-go
    # psql comes with the server's package, but not where that is no Debian's.
    command -v psql >/dev/null 2>&1 || try_packages postgresql-client
    "$(dirname -- "${BASH_SOURCE[0]}")/../deploy/local/drivers/drivers.sh" setup >/dev/null
}

# What `watershed bench relay` measures beside the gateway, and what counts system calls. The package's own service is not
# needed, and its port is the one that `watershed up` takes: it is stopped where this script brought it.
setup_relay() {
    if ! command -v pgbouncer >/dev/null 2>&1 && [ ! -x /usr/sbin/pgbouncer ]; then
        install_packages pgbouncer
        if [ -d /run/systemd/system ]; then
            as_root systemctl disable --quiet --now pgbouncer >&2
        elif [ -x /etc/init.d/pgbouncer ]; then
            as_root /etc/init.d/pgbouncer stop </dev/null >&2 || say "PgBouncer's own service could not be stopped."
        fi
    fi
    command -v strace >/dev/null 2>&1 || install_packages strace
}

# promtool, which the tests check rules and metrics with.
setup_promtool() {
    apt_lists prometheus
    "$(dirname -- "${BASH_SOURCE[0]}")/../deploy/prometheus/promtool.sh" setup >/dev/null
}

# A Chromium that the tests open the status page with.
setup_browser() {
    apt_lists chromium-headless-shell
    "$(dirname -- "${BASH_SOURCE[0]}")/../deploy/local/browser/browser.sh" setup >/dev/null
}

# What is downloaded and not installed: apt must know where from.
apt_lists() {
    if [ -z "$apt_updated" ] && [ -z "$(apt-cache show --no-all-versions "$1" 2>/dev/null)" ]; then
        say "Updating the list of packages"
        as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq </dev/null >&2
        apt_updated=yes
    fi
}

# The same for deploy/local/readers: the largest download of all.
setup_readers() {
    setup_python
    setup_java Spark
    "$(dirname -- "${BASH_SOURCE[0]}")/../deploy/local/readers/readers.sh" setup >/dev/null
}
