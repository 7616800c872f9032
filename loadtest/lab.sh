#!/usr/bin/env bash
# The laboratory: the gateway and its peers in front of one provider, in alternating rounds, every figure from one run.
# What is measured and how to read it: loadtest/README.md, "Laboratory".

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
for part in lib.sh lab/tools.sh lab/provider.sh lab/peers.sh lab/configs.sh lab/scenarios.sh lab/syscalls.sh; do
    # shellcheck source=/dev/null
    . "$here/$part"
done

# Those of lib.sh, under this script's name.
die() {
    say "lab.sh: $*"
    exit 1
}

usage_error() {
    say "lab.sh: $* (see --help)"
    exit 2
}

help() {
    cat <<'HELP'
Usage: loadtest/lab.sh [flags]

Runs the gateway with its default configuration and the peers that this machine has (loadtest/lab/install.sh installs
them) before the same mTLS provider, in alternating rounds; prints medians, spreads and ratios to the best peer. Exit
code: 0 the gateway answered every request, 1 it lost one or something did not start, 2 wrong usage. What peers lose is
counted and shown.

  --peers LIST           of nghttpx,haproxy,nginx,envoy,traefik,pingora (default: those that are here)
  --scenarios LIST       of a,b,c,d,e,f,g,h,i,j,k,l (default: all)
  --rounds N             rounds of each scenario (default 5); of f, h and i a third of it
  --provider nginx|sim   who plays Thales (default: nginx); i needs nginx
  --short                as in CI: gateway and nghttpx, a and b, one round of 2 s, no system calls
  --no-syscalls          without the extra runs under strace
  --out DIR              reports (default: loadtest/results/lab-<timestamp>)
  --profile NAME         cargo profile (default: release)
  --no-build             use what is built
  --keep                 keep configurations and logs of the run beside the reports

TSH_BIN_DIR names a folder with tsh-gateway and loadgen to use; nothing is built then.
HELP
}

provider=nginx
peer_list=
scenarios=a,b,c,d,e,f,g,h,i,j,k,l
rounds=5
seconds=8
learn_seconds=10
long_seconds=30
idle_callers=2000
hold_seconds=5
with_syscalls=yes
profile=release
build=yes
out=
keep=no
common_name=CUSTOMER-0001-PRD

# skip_scenario NAME WHY
skip_scenario() {
    say "skipped: scenario $1, $2"
    scenarios=$(tr , '\n' <<<"$scenarios" | grep -vx "$1" | paste -sd, -)
}

needs_value() { [ $# -ge 2 ] || usage_error "$1 needs a value"; }

while [ $# -gt 0 ]; do
    case $1 in
    --provider) needs_value "$@"; provider=$2; shift ;;
    --peers) needs_value "$@"; peer_list=$2; shift ;;
    --scenarios) needs_value "$@"; scenarios=$2; shift ;;
    --rounds) needs_value "$@"; rounds=$2; shift ;;
    --short) with_floor=no peer_list=nghttpx scenarios=a,b rounds=1 seconds=2 learn_seconds=4 long_seconds=6 hold_seconds=2 with_syscalls=no ;;
    --no-syscalls) with_syscalls=no ;;
    --out) needs_value "$@"; out=$2; shift ;;
    --profile) needs_value "$@"; profile=$2; shift ;;
    --no-build) build=no ;;
    --keep) keep=yes ;;
    -h | --help) help; exit 0 ;;
    *) usage_error "unknown flag $1" ;;
    esac
    shift
done

case $provider in sim | nginx) ;; *) usage_error "--provider is nginx or sim, not $provider" ;; esac
case $rounds in '' | *[!0-9]* | 0) usage_error "--rounds is a number from 1, not $rounds" ;; esac
for scenario in ${scenarios//,/ }; do
    case $scenario in
    a | b | c | d | e | f | g | h | j | k | l) ;;
    i) [ "$provider" = nginx ] || skip_scenario i "it needs --provider nginx" ;;
    *) usage_error "no scenario $scenario" ;;
    esac
done

# A peer that is not known is a mistake; one that is missing is skipped by name.
peers=()
[ -n "$peer_list" ] || peer_list=$(IFS=, && printf '%s' "${all_peers[*]}")
for peer in ${peer_list//,/ }; do
    case " ${all_peers[*]} " in *" $peer "*) ;; *) usage_error "no peer $peer" ;; esac
    if has "$peer"; then peers+=("$peer"); else say "skipped: $peer is not here; loadtest/lab/install.sh installs it"; fi
done
tool nginx && nginx=$tool
[ "$provider" = sim ] || [ -n "$nginx" ] || die "nginx is not installed; run loadtest/lab/install.sh, or use --provider sim"
[ "$provider" = sim ] || command -v openssl >/dev/null || die "openssl is not installed; use --provider sim"
tool strace && strace=$tool
[ -n "$strace" ] || [ "$with_syscalls" = no ] || { say "skipped: system calls, strace is not here" && with_syscalls=no; }

if [ -n "${TSH_BIN_DIR:-}" ]; then
    bin=$TSH_BIN_DIR
else
    # One package at a time: together their features would unify to another gateway than the one that ships.
    if [ "$build" = yes ]; then
        (cd "$root" && cargo build --profile "$profile" -p gateway && cargo build --profile "$profile" -p tsh-loadtest)
    fi
    # Profiles that inherit from release or bench land in their own folder, except these two pairs.
    case $profile in dev | test) folder=debug ;; release | bench) folder=release ;; *) folder=$profile ;; esac
    bin=${CARGO_TARGET_DIR:-$root/target}/$folder
fi
loadgen=$bin/loadgen
gateway=$bin/tsh-gateway
for program in "$loadgen" "$gateway"; do [ -x "$program" ] || die "$program is not built; leave --no-build out"; done

knows() { "$loadgen" "$1" --help >/dev/null 2>&1; }
case ,$scenarios, in *,j,*) knows handshakes || skip_scenario j "loadgen has no command handshakes" ;; esac
# A short run shows that the laboratory works, with the gateway and nghttpx alone.
if [ "${with_floor:-yes}" = yes ] && knows floor; then with_floor=yes; else with_floor=no; fi

out=${out:-$here/results/lab-$(date +%Y%m%d-%H%M%S)}
mkdir -p "$out/figures"
out=$(cd "$out" && pwd)
[ -z "$(find "$out" -maxdepth 1 -name '*.json' -print -quit)" ] || die "$out already holds reports; name another --out"
work=$(mktemp -d "${TMPDIR:-/tmp}/tsh-lab.XXXXXX")
# Keys lie in it.
chmod 700 "$work"
# Two thousand callers, here and in each subject.
ulimit -n "$(ulimit -Hn)"

finish() {
    local code=$?
    trap - EXIT INT TERM
    stop_all
    if [ "$keep" = yes ]; then
        mkdir -p "$out/files"
        find "$work" -maxdepth 1 -type f \( -name '*.log' -o -name '*.toml' -o -name '*.conf' -o -name '*.cfg' \
            -o -name '*.yaml' -o -name 'strace.*' \) -exec cp {} "$out/files/" \;
    fi
    rm -rf "$work"
    exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

{
    printf 'machine  %s, %s cores, Linux %s\n' "$(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1)" "$(nproc)" "$(uname -r)"
    printf 'gateway  %s\nprovider %s\n' "$("$gateway" --version)" "$provider"
    print_versions
    printf 'subjects gateway %s\n' "${peers[*]}"
} | tee "$out/used.txt" >&2

start_providers
count_steps
for scenario in ${scenarios//,/ }; do run_scenario "$scenario"; done

say
"$loadgen" table "$out" >"$out/table.txt" || true
"$loadgen" summary "$out" | tee "$out/summary.txt"
! knows html || "$loadgen" html "$out" >&2 || broken=yes
say "reports: $out"
[ "$peers_lost" = no ] || say "a peer lost requests; the table counts them"
[ "$broken" = no ] || die "something did not run or broke a bound; it is named above"
[ "$lost" = no ] || die "the gateway lost a request; the reports say how"
