#!/usr/bin/env bash
# Counts instructions per operation with callgrind: a figure that a noisy machine does not move much.
# Each operation runs N and 2N times; set-up is the same in both, so the difference divided by N is the operation's.
# Usage: benches/instructions.sh [OPERATION…]        (all of them by default)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if ! command -v valgrind >/dev/null; then
    echo "SKIPPED instruction counts: valgrind is not installed (apt-get install valgrind)"
    exit 0
fi

# operation:N:what it is. N is large where the operation is small, so that what differs between runs vanishes.
operations=(
    "lease_and_return:100000:a stream leased from four connections and given back"
    "verdict_decide:96000:one decision about a replay, over all 48 cases"
    "callers_request:20000:making the request that prepare_request consumes: subtract it there"
    "prepare_request:20000:a request made, then survey, form, route, target, header fields"
    "request_http1:1000:caller (HTTP/1.1), gateway and provider, 1 KiB each way, TLS included"
    "request_h2c:1000:caller (h2c), gateway and provider, 1 KiB each way, TLS included"
    "request_direct:1000:the same caller (HTTP/2 over TLS) and provider without a gateway"
)

cargo build --quiet --profile bench -p tsh-benches --bin hot_path
hot_path="${CARGO_TARGET_DIR:-target}/release/hot_path"

instructions() { # operation count
    local log
    log=$(valgrind --tool=callgrind --callgrind-out-file=/dev/null "$hot_path" "$1" "$2" 2>&1) || {
        printf '%s\n' "$log" >&2
        echo "hot_path $1 $2 failed under valgrind" >&2
        return 1
    }
    awk '/Collected *:/ { print $NF }' <<<"$log"
}

printf '%-18s %14s  %s\n' operation instructions what
for row in "${operations[@]}"; do
    IFS=: read -r operation count what <<<"$row"
    if [ $# -gt 0 ] && [[ " $* " != *" $operation "* ]]; then continue; fi
    once=$(instructions "$operation" "$count")
    twice=$(instructions "$operation" $((2 * count)))
    printf '%-18s %14d  %s\n' "$operation" $(((twice - once) / count)) "$what"
done
