#!/usr/bin/env bash
# Counts instructions per operation with callgrind: figures that a noisy machine does not move.
# Counted is the thread that does the work, after set-up and warm-up; the access log's threads are not.
# A count above its limit in instructions.limits is a regression, and a failure.
# Usage: benches/instructions.sh [OPERATION…]        (all of them by default)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if ! command -v valgrind >/dev/null; then
    echo "SKIPPED instruction counts: valgrind is not installed (apt-get install valgrind)"
    exit 0
fi

# operation:times:what it is
operations=(
    "lease_and_return:20000:a stream leased from four connections and given back"
    "verdict_decide_48_cases:1000:48 decisions about a replay"
    "callers_request:5000:making the request that prepare_request consumes: subtract it there"
    "prepare_request:5000:a request made, then survey, form, route, target, header fields"
    "handshake_full:50:both ends of a full handshake, P-256, and the check after it"
    "handshake_resumed:50:both ends of a resumed handshake, P-256, and the check after it"
    "request_http1:1000:caller (HTTP/1.1), gateway and provider, 1 KiB each way, TLS included"
    "request_h2c:1000:caller (h2c), gateway and provider, 1 KiB each way, TLS included"
    "request_direct:1000:caller (HTTP/2 over TLS) and provider without a gateway, 1 KiB each way"
)

cargo build --quiet --profile bench -p tsh-benches --bin hot_path
hot_path="${CARGO_TARGET_DIR:-target}/release/hot_path"

instructions() { # operation times
    local log
    log=$(valgrind --tool=callgrind --callgrind-out-file=/dev/null --collect-atstart=no \
        --toggle-collect='hot_path::measured*' "$hot_path" "$1" "$2" 2>&1) || {
        printf '%s\n' "$log" >&2
        echo "hot_path $1 $2 failed under valgrind" >&2
        return 1
    }
    awk '/Collected *:/ { print $NF }' <<<"$log"
}

limit_of() { awk -v operation="$1" '$1 == operation { print $2 }' benches/instructions.limits; }

grown=
printf '%-24s %14s %14s  %s\n' operation instructions limit what
for row in "${operations[@]}"; do
    IFS=: read -r operation times what <<<"$row"
    if [ $# -gt 0 ] && [[ " $* " != *" $operation "* ]]; then continue; fi
    counted=$(instructions "$operation" "$times")
    if [ "${counted:-0}" -lt "$times" ]; then
        echo "callgrind counted nothing in hot_path::measured: is the symbol gone?" >&2
        exit 1
    fi
    each=$((counted / times))
    limit=$(limit_of "$operation")
    printf '%-24s %14d %14d  %s\n' "$operation" "$each" "${limit:?no limit for $operation in instructions.limits}" "$what"
    [ "$each" -le "$limit" ] || grown="$grown $operation"
done
if [ -n "$grown" ]; then
    echo "more instructions than allowed:$grown (benches/instructions.limits says why each limit is where it is)" >&2
    exit 1
fi
