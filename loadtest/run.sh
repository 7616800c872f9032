#!/usr/bin/env bash
# Runs the standard load scenarios against the gateway, and on demand against nghttpx, and prints one table.
# What each number means: loadtest/README.md.

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
# shellcheck source=loadtest/lib.sh
. "$here/lib.sh"

help() {
    cat <<'EOF'
Usage: loadtest/run.sh [flags]

Starts a provider and the gateway, runs the standard scenarios, prints one table. Exit code: 0 every request
answered, 1 a request was lost or something did not start, 2 wrong usage.

  --provider sim|nginx   who plays Thales (default: sim, built into tsh-gateway)
  --peer nghttpx         run a, b, c against nghttpx too, in alternating rounds; needs --provider nginx
  --rounds N             rounds of a, b, c with a peer (default 5)
  --scenarios LIST       of a,b,c,d,g,h,i,k,l,m,r (default: all)
  --short                2 s per scenario instead of 8; 12 s instead of 30 for l
  --access-log VALUE     [log] access of the gateway (default: off, as the peer's)
  --no-gateway           the peer alone
  --profile NAME         cargo profile (default: release)
  --no-build             use what is built
  --out DIR              reports (default: loadtest/results/<timestamp>)
  --keep                 keep configuration and logs of the run beside the reports

Scenarios: a HTTP/1.1 64 callers, b h2c 4x32, c HTTP/1.1 4 callers, d gRPC Send 4x32 (closed loop, 1 KiB POST);
g h2c 1000/s, h h2c 1500/s with GOAWAY every 200 requests (open loop); i 1 GiB up and down, streamed;
l the long way: h2c 300/s over a round trip of 40 ms, GOAWAY every 200 requests: first a learning part, reported
as l-learn, then the measured part;
k all connections ended at once over the long way: round trips until one serves, dials made;
m memory of an idle warm connection, before and after a burst over all of them; r share of re-dials that resume
(k and r with --provider sim only).

Example, the comparison of CPU per request:
  loadtest/run.sh --provider nginx --peer nghttpx --scenarios a,b,c --rounds 5
EOF
}

provider=sim
peer=
rounds=5
scenarios=a,b,c,d,g,h,i,k,l,m,r
seconds=8
learn_seconds=10
long_seconds=30
kills=5
ends=50
access_log=off
with_gateway=yes
profile=release
build=yes
out=
keep=no
common_name=CUSTOMER-0001-PRD

needs_value() { [ $# -ge 2 ] || usage_error "$1 needs a value"; }

while [ $# -gt 0 ]; do
    case $1 in
    --provider) needs_value "$@"; provider=$2; shift ;;
    --peer) needs_value "$@"; peer=$2; shift ;;
    --rounds) needs_value "$@"; rounds=$2; shift ;;
    --scenarios) needs_value "$@"; scenarios=$2; shift ;;
    --short) seconds=2 learn_seconds=6 long_seconds=12 kills=2 ends=10 ;;
    --access-log) needs_value "$@"; access_log=$2; shift ;;
    --no-gateway) with_gateway=no ;;
    --profile) needs_value "$@"; profile=$2; shift ;;
    --no-build) build=no ;;
    --out) needs_value "$@"; out=$2; shift ;;
    --keep) keep=yes ;;
    -h | --help) help; exit 0 ;;
    *) usage_error "unknown flag $1" ;;
    esac
    shift
done

case $provider in sim | nginx) ;; *) usage_error "--provider is sim or nginx, not $provider" ;; esac
case $peer in '' | nghttpx) ;; *) usage_error "--peer is nghttpx, not $peer" ;; esac
case $rounds in '' | *[!0-9]* | 0) usage_error "--rounds is a number from 1, not $rounds" ;; esac
[ -z "$peer" ] || [ "$provider" = nginx ] || usage_error "--peer needs --provider nginx: both stand before one provider"
[ "$with_gateway" = yes ] || [ -n "$peer" ] || usage_error "--no-gateway without --peer leaves nothing to measure"
for scenario in ${scenarios//,/ }; do
    case $scenario in a | b | c | d | g | h | i | k | l | m | r) ;; *) usage_error "no scenario $scenario" ;; esac
done
[ "$provider" = sim ] || command -v nginx >/dev/null || die "nginx is not installed; use --provider sim"
[ -z "$peer" ] || command -v "$peer" >/dev/null || die "$peer is not installed; leave --peer out"
[ "$provider" = sim ] || command -v openssl >/dev/null || die "openssl is not installed; use --provider sim"

if [ "$build" = yes ]; then
    packages=(-p tsh-loadtest)
    [ "$with_gateway" = no ] || packages+=(-p gateway)
    (cd "$root" && cargo build --profile "$profile" "${packages[@]}")
fi
# Profiles that inherit from release or bench land in their own folder, except these two pairs.
case $profile in dev | test) folder=debug ;; release | bench) folder=release ;; *) folder=$profile ;; esac
bin=${CARGO_TARGET_DIR:-$root/target}/$folder
loadgen=$bin/loadgen
gateway=$bin/tsh-gateway
[ -x "$loadgen" ] || die "$loadgen is not built; leave --no-build out"
[ "$with_gateway" = no ] || [ -x "$gateway" ] || die "$gateway is not built; leave --no-build out"

out=${out:-$here/results/$(date +%Y%m%d-%H%M%S)}
mkdir -p "$out"
out=$(cd "$out" && pwd)
[ -z "$(find "$out" -maxdepth 1 -name '*.json' -print -quit)" ] || die "$out already holds reports; name another --out"
work=$(mktemp -d "${TMPDIR:-/tmp}/tsh-loadtest.XXXXXX")
# Keys lie in it; nginx workers may run as another user only when root says so.
chmod 700 "$work"

finish() {
    local code=$?
    trap - EXIT INT TERM
    stop_all
    if [ "$keep" = yes ]; then
        mkdir -p "$out/files"
        find "$work" -maxdepth 1 -type f \( -name '*.log' -o -name '*.toml' -o -name '*.conf' \) -exec cp {} "$out/files/" \;
    fi
    rm -rf "$work"
    exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

wants() { case ",$scenarios," in *",$1,"*) return 0 ;; *) return 1 ;; esac; }

assets=$work/assets
free_port && steady_port=$free_port
free_port && goaway_port=$free_port

start_nginx() {
    make_certificates "$assets"
    write_nginx_config "$work/nginx.conf" "$assets" "$steady_port" "$goaway_port"
    start nginx nginx -e "$work/nginx.error.log" -p "$work" -c "$work/nginx.conf" -g 'daemon off;'
    wait_for_port nginx "$last_pid" "$steady_port"
}

# start_sim NAME PORT ASSETS FLAGS...: each simulator has its own PKI, so its own assets.
start_sim() {
    local name=$1 port=$2 dir=$3
    shift 3
    start "$name" "$gateway" sim --listen "127.0.0.1:$port" --out "$dir" --common-name "$common_name" "$@"
    wait_for_port "$name" "$last_pid" "$port"
}

# start_gateway NAME ASSETS PROVIDER_PORT [POOL]: sets $egress_port, $admin_port and $last_pid; POOL is the lines of
# the pool's section.
start_gateway() {
    local name=$1
    free_port && egress_port=$free_port
    free_port && admin_port=$free_port
    write_gateway_config "$work/$name.toml" "$2" "$egress_port" "$admin_port" "$3" "${4:-}"
    start "$name" "$gateway" run --config "$work/$name.toml"
    wait_until_ready "$name" "$last_pid" "$admin_port"
}

# One worker, as the gateway has on two cores: what is compared is work per request, not threads.
start_nghttpx() {
    free_port && peer_port=$free_port
    start nghttpx nghttpx --conf=/dev/null --workers=1 --frontend="127.0.0.1,$peer_port;no-tls" \
        --backend="127.0.0.1,$steady_port;;proto=h2;tls;sni=localhost" \
        --cacert="$assets/TSH_TLS_SERVER_CERTIFICATE_CHAIN.pem" \
        --client-cert-file="$assets/CUSTOMER_TLS_CLIENT_CERTIFICATE.pem" \
        --client-private-key-file="$assets/CUSTOMER_TLS_CLIENT_CERTIFICATE.key" \
        --errorlog-file="$work/nghttpx.error.log"
    peer_pid=$last_pid
    wait_for_port nghttpx "$peer_pid" "$peer_port"
}

lost=no

# measure SCENARIO SUBJECT ROUND PORT PID FLAGS...
measure() {
    local scenario=$1 subject=$2 round=$3 port=$4 pid=$5
    shift 5
    say "-- $scenario, $subject, round $round"
    "$loadgen" --target "http://127.0.0.1:$port/load" --scenario "$scenario" --subject "$subject" --pid "$pid" \
        --json "$out/$scenario-$round-$subject.json" "$@" >&2 || lost=yes
}

closed=(--closed --body-bytes 1KiB --duration "${seconds}s")
long_way=(--protocol h2c --connections 4 --streams 32 --rate 300 --body-bytes 1KiB --correlation)
flags_of() {
    case $1 in
    a) flags=(--protocol http1 --connections 64 "${closed[@]}") ;;
    b) flags=(--protocol h2c --connections 4 --streams 32 "${closed[@]}") ;;
    c) flags=(--protocol http1 --connections 4 "${closed[@]}") ;;
    d) flags=(--protocol grpc --connections 4 --streams 32 "${closed[@]}") ;;
    g) flags=(--protocol h2c --connections 4 --streams 32 --rate 1000 --body-bytes 1KiB --duration "${seconds}s") ;;
    h) flags=(--protocol h2c --connections 4 --streams 32 --rate 1500 --body-bytes 1KiB --duration "${seconds}s" --correlation) ;;
    l-learn) flags=("${long_way[@]}" --warmup 0s --duration "${learn_seconds}s") ;;
    l) flags=("${long_way[@]}" --warmup 0s --duration "${long_seconds}s") ;;
    i) flags=(--protocol h2c --upload-bytes 1GiB --expect-body-bytes 1GiB) ;;
    esac
}

# figure TEXT...: a line that no report holds; all of them are printed after the table.
figure() { printf '%s\n' "$*" | tee -a "$out/figures.txt" >&2; }

# own_figures SCENARIO COMMAND FLAGS...: a command of loadgen that brings its own gateway and provider.
own_figures() {
    local scenario=$1 text failed=no
    shift
    say "-- $scenario"
    mkdir -p "$out/figures"
    text=$("$loadgen" "$@" --json "$out/figures/$scenario.json") || failed=yes
    figure "$text"
    [ "$failed" = no ] || lost=yes
}

# counts ADMIN_PORT: replays, waits for a dial and GOAWAYs so far, on one line.
counts() {
    scrape "$1" /metrics | awk '
        /^tsh_retries_total/ { retries += $2 }
        /^tsh_waited_for_dial_total/ { waited += $2 }
        /^tsh_goaways_total/ { goaways += $2 }
        END { print retries + 0, waited + 0, goaways + 0 }'
}

# verdicts: reads metrics; the verdicts that occurred, with their counts, on one line.
verdicts() {
    awk '/^tsh_retries_total/ && $2 > 0 { match($1, /verdict="[^"]*"/); printf "%s %s  ", substr($1, RSTART + 9, RLENGTH - 10), $2 }'
}

# measure_long_way EGRESS_PORT ADMIN_PORT PID: the part in which the gateway can learn, then the part that counts.
measure_long_way() {
    local part report before=() after=() retries=() waited=() goaways=()
    read -r -a before <<<"$(counts "$2")"
    for part in l-learn l; do
        flags_of "$part"
        measure "$part" gateway 1 "$1" "$3" "${flags[@]}"
        read -r -a after <<<"$(counts "$2")"
        retries+=($((after[0] - before[0])))
        waited+=($((after[1] - before[1])))
        goaways+=($((after[2] - before[2])))
        before=("${after[@]}")
    done
    report=$out/l-1-gateway.json
    figure "l: p99 $(milliseconds "$report" p99) ms (wanted: below 55), max $(milliseconds "$report" max) ms (wanted: below 110)"
    figure "l: failed attempts ${retries[0]} in the ${learn_seconds} s of l-learn, ${retries[1]} in the ${long_seconds} s after it (wanted: 0);" \
        "requests that waited for a dial ${waited[0]}, then ${waited[1]}; GOAWAYs ${goaways[0]}, then ${goaways[1]}"
    figure "l: failed attempts of both parts by verdict: $(scrape "$2" /metrics | verdicts)"
}

# What an idle connection may cost, KiB; connections between which the slope is taken.
idle_limit=60
# After a burst h2 keeps its read and write buffers, and the allocator some pages: more, but bounded.
after_burst_limit=200
idle_many=201

# measure_idle_memory: Pss of two gateways that differ in their floor, idle and after the same burst and a rest.
measure_idle_memory() {
    local floor idle=() after=() used pid port admin
    say "-- m"
    for floor in 1 "$idle_many"; do
        start_gateway "gateway-floor-$floor" "$steady_assets" "$steady_port" \
            "min_connections = $floor"$'\n'"max_connections = $floor"$'\n'"http1_max_connections = $floor"
        pid=$last_pid port=$egress_port admin=$admin_port
        idle+=("$(pss_at_rest "$pid")")
        # More streams than connections, bodies larger than any buffer of a connection at rest.
        "$loadgen" --target "http://127.0.0.1:$port/load" --protocol h2c --connections 8 --streams 64 --closed \
            --body-bytes 16KiB --duration "${seconds}s" --quiet || lost=yes
        used=$(scrape "$admin" /api/v1/pools | grep -o '"requests":"\?[0-9]*' | grep -vc '[^0-9]0$' || true)
        after+=("$(pss_at_rest "$pid")")
        figure "m: floor $floor: $((idle[${#idle[@]} - 1])) KiB Pss idle, $((after[${#after[@]} - 1])) KiB after a burst that used $((used - 1)) connections"
        stop "$pid"
    done
    per_connection "idle" "$idle_limit" "${idle[@]}"
    per_connection "after the burst" "$after_burst_limit" "${after[@]}"
}

# pss_at_rest PID: the smallest of three looks, seconds apart: buffers shrink and freed pages go back with a delay.
pss_at_rest() {
    local look least=
    for look in 1 2 3; do
        sleep 3
        look=$(awk '$1 == "Pss:" { print $2 }' "/proc/$1/smaps_rollup")
        if [ -z "$least" ] || [ "$look" -lt "$least" ]; then least=$look; fi
    done
    printf '%s' "$least"
}

# per_connection WHEN LIMIT PSS_OF_ONE PSS_OF_MANY
per_connection() {
    local slope limit=$2
    slope=$(awk -v one="$3" -v many="$4" -v n="$((idle_many - 1))" 'BEGIN { printf "%.1f", (many - one) / n }')
    if awk -v slope="$slope" -v limit="$limit" 'BEGIN { exit !(slope < limit) }'; then
        figure "m: $slope KiB per connection, $1 (limit $limit): good"
    else
        figure "m: $slope KiB per connection, $1 (limit $limit): FAILED"
        lost=yes
    fi
}

if [ "$provider" = nginx ]; then
    start_nginx
    steady_assets=$assets
    goaway_assets=$assets
elif [ "$with_gateway" = yes ]; then
    steady_assets=$work/assets-steady
    goaway_assets=$work/assets-goaway
    start_sim sim "$steady_port" "$steady_assets"
    { ! wants h && ! wants l; } || start_sim sim-goaway "$goaway_port" "$goaway_assets" --goaway-after-requests 200
fi
[ -z "$peer" ] || start_nghttpx
if [ "$with_gateway" = yes ]; then
    start_gateway gateway "$steady_assets" "$steady_port"
    gateway_pid=$last_pid gateway_port=$egress_port
fi

[ -n "$peer" ] || rounds=1
for scenario in a b c; do
    wants "$scenario" || continue
    flags_of "$scenario"
    for ((round = 1; round <= rounds; round++)); do
        [ "$with_gateway" = no ] || measure "$scenario" gateway "$round" "$gateway_port" "$gateway_pid" "${flags[@]}"
        [ -z "$peer" ] || measure "$scenario" nghttpx "$round" "$peer_port" "$peer_pid" "${flags[@]}"
    done
done

if [ "$with_gateway" = yes ]; then
    for scenario in d g; do
        wants "$scenario" || continue
        flags_of "$scenario"
        measure "$scenario" gateway 1 "$gateway_port" "$gateway_pid" "${flags[@]}"
    done
    if wants h; then
        start_gateway gateway-goaway "$goaway_assets" "$goaway_port"
        flags_of h
        measure h gateway 1 "$egress_port" "$last_pid" "${flags[@]}"
    fi
    if wants l; then
        free_port
        relay_port=$free_port
        start relay "$loadgen" relay --listen "127.0.0.1:$relay_port" --to "127.0.0.1:$goaway_port" --round-trip 40ms
        wait_for_port relay "$last_pid" "$relay_port"
        start_gateway gateway-long "$goaway_assets" "$relay_port"
        measure_long_way "$egress_port" "$admin_port" "$last_pid"
    fi
    ! wants m || measure_idle_memory
    # These bring the simulator with them, whoever is the provider of the others.
    if [ "$provider" = sim ]; then
        ! wants k || own_figures k redial --times "$kills"
        ! wants r || own_figures r resumption --times "$ends"
    fi
    if wants i; then
        # nginx cannot echo; the simulator does. A gateway of its own, so that its peak is of this alone.
        if [ "$provider" = nginx ]; then
            free_port
            echo_port=$free_port echo_assets=$work/assets-echo
            start_sim sim-echo "$echo_port" "$echo_assets"
        else
            echo_port=$steady_port echo_assets=$steady_assets
        fi
        start_gateway gateway-echo "$echo_assets" "$echo_port"
        flags_of i
        measure i gateway 1 "$egress_port" "$last_pid" "${flags[@]}"
    fi
fi

say
"$loadgen" table "$out" | tee "$out/table.txt" || lost=yes
[ ! -f "$out/figures.txt" ] || { say && cat "$out/figures.txt"; }
say "reports: $out"
[ "$lost" = no ] || die "a request was lost or a bound was broken; the reports say how"
