# Where the programs of the laboratory are, and which they are. Sourced by lab.sh and by lab/install.sh; needs $root.

# What install.sh makes lies here: a Python environment of its own, and Pingora's build.
lab_home=${TSH_LAB_HOME:-$root/target/lab}

all_peers=(nghttpx haproxy nginx envoy traefik pingora)

# tool NAME: its path in $tool, empty if the machine does not have it. Wheels start their program through Python;
# what is measured is the program alone, so it is looked for inside the wheel.
tool() {
    tool=
    case $1 in
    envoy) first_in_python 'import envoy, os; print(os.path.join(os.path.dirname(envoy.__file__), "_bin", "envoy"))' ;;
    traefik) first_in_python 'import sysconfig, os; print(os.path.join(sysconfig.get_path("scripts"), "traefik"))' ;;
    pingora) tool=$lab_home/pingora/release/lab-pingora ;;
    esac
    [ -n "$tool" ] || tool=$(command -v "$1" || true)
    # Debian keeps servers where only root looks.
    [ -n "$tool" ] || tool=/usr/sbin/$1
    [ -x "$tool" ] || tool=
}

# first_in_python CODE: the path that CODE prints in our environment, or in the machine's Python.
first_in_python() {
    local python path
    for python in "$lab_home/venv/bin/python3" python3; do
        path=$("$python" -c "$1" 2>/dev/null || true)
        if [ -n "$path" ] && [ -x "$path" ]; then
            tool=$path
            return
        fi
    done
}

# has NAME: whether the machine has it.
has() {
    local tool
    tool "$1"
    [ -n "$tool" ]
}

# version NAME: one line.
version() {
    local tool
    tool "$1"
    [ -n "$tool" ] || { printf 'missing' && return; }
    case $1 in
    nginx) "$tool" -v 2>&1 | sed 's/^nginx version: //' ;;
    nghttpx) "$tool" --version | head -n 1 ;;
    haproxy) "$tool" -v | head -n 1 | sed 's/ - http.*//' ;;
    envoy) "$tool" --version | sed -n 's/.*version: *[0-9a-f]*\//envoy\//p' ;;
    traefik) "$tool" version | awk '$1 == "Version:" { v = $2 } $1 == "Go" { go = $3 } END { print "traefik/" v, go }' ;;
    pingora)
        awk '$1 == "name" { name = $3 } $1 == "version" && name == "\"pingora\"" { gsub("\"", "", $3); print "pingora/" $3 }' \
            "$root/loadtest/pingora/Cargo.lock"
        ;;
    strace) "$tool" -V | head -n 1 ;;
    esac
}

# print_versions: every program of the laboratory, on a line each.
print_versions() {
    local name
    for name in "${all_peers[@]}" strace; do printf '%-8s %s\n' "$name" "$(version "$name")"; done
}
