# Sourced by the scripts beside it: how jars and Python libraries are fetched, once, and what servers on free ports need.
# Each script sets `here` (its own folder) and `cache` (where what is fetched stays) before it calls these.

die() { # MESSAGE [EXIT CODE]
    printf '%s: %s\n' "$(basename -- "$0")" "$1" >&2
    exit "${2:-1}"
}

# The Java program, 17 or newer.
java_program() {
    local program version
    for program in ${JAVA_HOME:+"$JAVA_HOME/bin/java"} "$(command -v java || true)" /usr/lib/jvm/*/bin/java; do
        if [ -n "$program" ] && [ -x "$program" ]; then
            version=$("$program" -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p' | head -n 1)
            if [ "${version:-0}" -ge 17 ]; then
                printf '%s\n' "$program"
                return 0
            fi
        fi
    done
    return 1
}

# Prints the folder in $cache that is named after the content of a file, so that another version is another folder. If it is not
# there, FETCH fills a new one, which then takes that name: one that is there is complete.
fetched() { # FILE FETCH WHAT
    local folder
    folder=$cache/$(sha256sum <"$1" | cut -c 1-16)
    if [ ! -d "$folder" ]; then
        mkdir -p -- "$cache"
        # One at a time: Maven's own repository takes no two writers.
        exec 9>"$cache/lock"
        flock 9
        if [ ! -d "$folder" ]; then
            printf 'Fetching %s; once\n' "$3" >&2
            # What fetches that did not end have left.
            rm -rf -- "$cache"/*.new "$cache"/*.pom
            mkdir -- "$folder.new"
            "$2" "$1" "$folder.new" >&2 </dev/null
            mv -- "$folder.new" "$folder"
        fi
        exec 9>&-
    fi
    printf '%s\n' "$folder"
}

# The jars that a pom.xml names, and all that they depend on.
fetch_jars() { # POM FOLDER
    command -v mvn >/dev/null 2>&1 || die "Maven is needed: apt-get install maven" 3
    # From a copy: Maven may write beside the pom it works on.
    mkdir -p -- "$2.pom"
    cp -- "$1" "$2.pom/pom.xml"
    mvn -B -q -f "$2.pom/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$2" ||
        die "Maven could not fetch what $1 names" 3
    rm -rf -- "$2.pom"
}

# A virtual environment with what a requirements.txt names. Its programs are called as `bin/python -m NAME`, since scripts in it
# know the folder's name of before.
fetch_python() { # REQUIREMENTS FOLDER
    command -v python3 >/dev/null 2>&1 || die "Python is needed: apt-get install python3-venv" 3
    python3 -m venv "$2" || die "Python cannot make virtual environments: apt-get install python3-venv" 3
    "$2/bin/python" -m pip install -q --disable-pip-version-check -r "$1" || die "pip could not install what $1 names" 3
}

# A port that nobody listens on, below those that the system gives to outgoing connections, so that it stays ours over a restart.
free_port() {
    local port
    for _ in $(seq 200); do
        port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            printf '%s\n' "$port"
            return 0
        fi
    done
    die "no free port found"
}

setting() { # FILE KEY: the value in a file of KEY=VALUE lines
    [ ! -f "$1" ] || sed -n "s/^$2=//p" "$1" | tail -n 1
}

# Debian's packages with what they depend on and this machine lacks, unpacked: nobody has to be root, and nothing is installed.
fetch_debs() { # FILE FOLDER: the file has the names, one a line
    command -v apt-get >/dev/null 2>&1 || die "apt-get is needed to fetch what $1 names" 3
    local wanted packages
    mapfile -t wanted < <(sed 's/#.*//; s/[[:space:]]//g; /^$/d' "$1")
    [ -n "$(apt-cache show --no-all-versions "${wanted[0]}" 2>/dev/null)" ] ||
        die "apt does not know ${wanted[0]}: run apt-get update" 3
    mapfile -t packages < <(
        {
            printf '%s\n' "${wanted[@]}"
            apt-get -s -q -o Debug::NoLocking=1 -o APT::Get::Show-User-Simulation-Note=0 --no-install-recommends install "${wanted[@]}" |
                sed -n 's/^Inst \([^ ]*\) .*/\1/p'
        } | sort -u
    )
    (cd -- "$2" && apt-get download -q "${packages[@]}") || die "apt-get could not download what $1 names" 3
    local deb
    for deb in "$2"/*.deb; do
        dpkg -x "$deb" "$2" || die "$deb cannot be unpacked" 3
    done
    rm -f -- "$2"/*.deb
}
