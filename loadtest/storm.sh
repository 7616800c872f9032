#!/usr/bin/env bash
# Builds loadgen and runs a storm: gateway, provider and callers in one process. What is checked: loadtest/README.md.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

help() {
    cat <<'EOF'
Usage: loadtest/storm.sh [flags]

  --short          30 s, as in CI, instead of 10 min
  --for TIME       another length, as in 90s or 20m
  --rate N         requests per second (default 1000)
  --seed N         repeat a storm (default: random, printed)
  --out FILE       everything as JSON (default: loadtest/results/storm-<timestamp>.json)
  --profile NAME   cargo profile (default: release)
  --no-build       use what is built

Exit code: 0 the ledger is clean, 1 it is not, or something did not start; 2 wrong usage.
EOF
}

profile=release
build=yes
out=
flags=()
while [ $# -gt 0 ]; do
    case $1 in
    --short) flags+=("$1") ;;
    --for | --rate | --seed | --out | --profile)
        [ $# -ge 2 ] || { echo "storm.sh: $1 needs a value (see --help)" >&2; exit 2; }
        case $1 in
        --out) out=$2 ;;
        --profile) profile=$2 ;;
        *) flags+=("$1" "$2") ;;
        esac
        shift
        ;;
    --no-build) build=no ;;
    -h | --help) help; exit 0 ;;
    *) echo "storm.sh: unknown flag $1 (see --help)" >&2; exit 2 ;;
    esac
    shift
done

[ "$build" = no ] || (cd "$root" && cargo build --profile "$profile" -p tsh-loadtest)
# Profiles that inherit from release or bench land in their own folder, except these two pairs.
case $profile in dev | test) folder=debug ;; release | bench) folder=release ;; *) folder=$profile ;; esac
loadgen=${CARGO_TARGET_DIR:-$root/target}/$folder/loadgen
[ -x "$loadgen" ] || { echo "storm.sh: $loadgen is not built; leave --no-build out" >&2; exit 1; }

if [ -z "$out" ]; then
    mkdir -p "$root/loadtest/results"
    out=$root/loadtest/results/storm-$(date +%Y%m%d-%H%M%S).json
fi
echo "report: $out" >&2
exec "$loadgen" storm "${flags[@]}" --out "$out"
