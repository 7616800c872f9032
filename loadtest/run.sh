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
answered and every bound kept, 1 a request was lost, a bound was broken or something did not start, 2 wrong usage.

  --provider sim|nginx   who plays Thales (default: sim, built into tsh-gateway)
  --peer nghttpx         run a, b, c against nghttpx too, in alternating rounds; needs --provider nginx
  --rounds N             rounds of a, b, c with a peer (default 5)
  --scenarios LIST       of a,b,c,d,g,h,i,k,l,m,n,r (default: all)
  --short                2 s per scenario instead of 8, 12 s instead of 30 for l, and wider bounds on times, for
                         machines that do other work too; bounds on counts are the same
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
m memory of an idle warm connection of either HTTP version, before and after a burst over all of them;
n a provider that speaks HTTP/1.1 alone and ends connections after 200 requests: h2c 1500/s, and nginx reloads
meanwhile; r share of re-dials that resume (k and r with --provider sim only).

Example, the comparison of CPU per request:
  loadtest/run.sh --provider nginx --peer nghttpx --scenarios a,b,c --rounds 5
EOF
}

provider=sim
peer=
rounds=5
scenarios=a,b,c,d,g,h,i,k,l,m,n,r
seconds=8
learn_seconds=10
long_seconds=30
kills=5
ends=50
reloads=5
# Bounds on times, ms. Those of --short leave room for a machine with two cores that somebody else uses too.
long_p99=55 long_max=110 redial_slack=20
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
    --short)
        seconds=2 learn_seconds=6 long_seconds=12 kills=2 ends=30 reloads=2
        long_p99=110 long_max=250 redial_slack=50
        ;;
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
    case $scenario in a | b | c | d | g | h | i | k | l | m | n | r) ;; *) usage_error "no scenario $scenario" ;; esac
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
free_port && http1_port=$free_port
free_port && http1_ending_port=$free_port

start_nginx() {
    make_certificates "$assets"
    write_nginx_config "$work/nginx.conf" "$assets" "$steady_port" "$goaway_port" "$http1_port" "$http1_ending_port"
    start nginx nginx -e "$work/nginx.error.log" -p "$work" -c "$work/nginx.conf" -g 'daemon off;'
    nginx_pid=$last_pid
    wait_for_port nginx "$nginx_pid" "$steady_port"
}

# reload_nginx TIMES SECONDS: reads its configuration anew, so often in that time, after the warm-up of a second.
reload_nginx() {
    local left=$1 pause
    pause=$(awk -v seconds="$2" -v times="$1" 'BEGIN { print seconds / (times + 1) }')
    sleep 1
    while [ "$left" -gt 0 ]; do
        sleep "$pause"
        kill -HUP "$nginx_pid"
        left=$((left - 1))
    done
}

# workers_of_nginx: the ids of its workers, on one line.
workers_of_nginx() { cat "/proc/$nginx_pid/task/$nginx_pid/children"; }

# start_sim NAME PORT ASSETS FLAGS...: each simulator has its own PKI, so its own assets.
start_sim() {
    local name=$1 port=$2 dir=$3
    shift 3
    start "$name" "$gateway" sim --listen "127.0.0.1:$port" --out "$dir" --common-name "$common_name" "$@"
    wait_for_port "$name" "$last_pid" "$port"
}

# start_gateway NAME ASSETS PROVIDER_PORT [POOL [ROUTE]]: sets $egress_port, $admin_port and $last_pid; POOL is the
# lines of the pool's section, ROUTE further lines of the one route.
start_gateway() {
    local name=$1
    free_port && egress_port=$free_port
    free_port && admin_port=$free_port
    write_gateway_config "$work/$name.toml" "$2" "$egress_port" "$admin_port" "$3" "${4:-}" "${5:-}"
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
    # PUT: a request that meets a connection which is just being closed may have been processed. Over HTTP/1.1 nothing
    # tells, so only a method that may be repeated is sent again, where the route allows it.
    n) flags=(--protocol h2c --connections 4 --streams 32 --rate 1500 --method PUT --body-bytes 1KiB --duration "${seconds}s" --correlation) ;;
    i) flags=(--protocol h2c --upload-bytes 1GiB --expect-body-bytes 1GiB) ;;
    esac
}

# figure TEXT...: a line that no report holds; all of them are printed after the table.
figure() { printf '%s\n' "$*" | tee -a "$out/figures.txt" >&2; }

# judge SCENARIO TEXT LEFT OPERATOR RIGHT: a figure with its bound; a run whose bound is broken fails.
judge() {
    if awk -v left="$3" -v operator="$4" -v right="$5" 'BEGIN {
        exit !((operator == "below" && left < right) || (operator == "is" && left == right))
    }'; then
        figure "$1: $2 $3 (bound: $4 $5): good"
    else
        figure "$1: $2 $3 (bound: $4 $5): FAILED"
        lost=yes
    fi
}

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
    judge l "p99 in ms" "$(milliseconds "$report" p99)" below "$long_p99"
    judge l "maximum in ms" "$(milliseconds "$report" max)" below "$long_max"
    figure "l: in the ${learn_seconds} s of l-learn: failed attempts ${retries[0]}, requests that waited for a dial ${waited[0]}, GOAWAYs ${goaways[0]}"
    # Counts do not depend on the machine's speed.
    judge l "failed attempts in the ${long_seconds} s after it" "${retries[1]}" is 0
    judge l "requests that waited for a dial in them" "${waited[1]}" is 0
    figure "l: GOAWAYs in them ${goaways[1]}"
    figure "l: failed attempts of both parts by verdict: $(scrape "$2" /metrics | verdicts)"
}

# measure_http1 ASSETS PORT: a provider of HTTP/1.1 alone that ends connections after 200 requests.
measure_http1() {
    local before workers reloader= text=
    start_gateway gateway-http1 "$1" "$2" "" 'retry = "idempotent"'
    read -r -a before <<<"$(counts "$admin_port")"
    if [ "$provider" = nginx ]; then
        workers=$(workers_of_nginx)
        reload_nginx "$reloads" "$seconds" &
        reloader=$!
        started_pids+=("$reloader")
    fi
    flags_of n
    measure n gateway 1 "$egress_port" "$last_pid" "${flags[@]}"
    if [ -n "$reloader" ]; then
        wait "$reloader" || lost=yes
        text="; nginx was reloaded $reloads times"
        [ "$workers" != "$(workers_of_nginx)" ] || { figure "n: nginx has the workers of before: FAILED" && lost=yes; }
    fi
    figure "n: $(served_by "$admin_port")$text"
    figure "n: failed attempts by verdict: $(scrape "$admin_port" /metrics | verdicts)"
    judge n "HTTP of its connections" "$(versions_of "$admin_port")" is http/1.1
    # Announced ends are no surprise. In a reload nginx closes idle connections without a word.
    [ -n "$reloader" ] || judge n "failed attempts" "$(counts "$admin_port" | awk -v before="${before[0]}" '{ print $1 - before }')" is 0
}

# versions_of ADMIN_PORT: which HTTP its connections speak now, each version once.
versions_of() { scrape "$1" /api/v1/pools | grep -o '"protocol":"[^"]*"' | cut -d'"' -f4 | sort -u | paste -sd' '; }

# served_by ADMIN_PORT: connections that came to serve so far, in words.
served_by() {
    scrape "$1" /metrics | awk '
        /^tsh_handshakes_total/ && /result="ok"/ { made += $2; if (/kind="resumed"/) resumed += $2 }
        END { printf "%d connections, %d of them resumed", made, resumed }'
}

# What a connection may cost, KiB: idle before it carried anything, and after a burst, when h2 and hyper keep some of
# their buffers, and the allocator some pages. Then connections between which the slope is taken.
idle_limit=60
after_burst_limit=200
idle_many=201

# measure_idle_memory: Pss of two gateways that differ in their floor, idle and after the same burst and a rest; for
# either HTTP version. All four at once: what shared pages count is the same for all.
measure_idle_memory() {
    local version floor index pids=() ports=() admins=() names=() idle=() after=() used
    say "-- m"
    for version in h2 http1; do
        for floor in 1 "$idle_many"; do
            local assets=$steady_assets port=$steady_port
            [ "$version" = h2 ] || assets=$http1_assets port=$http1_port
            start_gateway "gateway-$version-$floor" "$assets" "$port" \
                "min_connections = $floor"$'\n'"max_connections = $floor"$'\n'"http1_max_connections = $floor"
            pids+=("$last_pid") ports+=("$egress_port") admins+=("$admin_port") names+=("$version, floor $floor")
        done
    done
    read -r -a idle <<<"$(pss_at_rest "${pids[@]}")"
    for index in "${!pids[@]}"; do
        # More streams than connections, bodies larger than any buffer of a connection at rest.
        "$loadgen" --target "http://127.0.0.1:${ports[index]}/load" --protocol h2c --connections 8 --streams 64 --closed \
            --body-bytes 16KiB --duration "${seconds}s" --quiet || lost=yes
    done
    read -r -a after <<<"$(pss_at_rest "${pids[@]}")"
    for index in "${!pids[@]}"; do
        used=$(scrape "${admins[index]}" /api/v1/pools | grep -o '"requests":"\?[0-9]*' | grep -vc '[^0-9]0$' || true)
        figure "m: ${names[index]}: ${idle[index]} KiB Pss idle, ${after[index]} KiB after a burst that used $((used - 1)) connections"
        stop "${pids[index]}"
    done
    for index in 0 2; do
        version=${names[index]%%,*}
        judge m "$version, KiB per connection, idle" "$(slope "${idle[index]}" "${idle[index + 1]}")" below "$idle_limit"
        judge m "$version, KiB per connection, after the burst" "$(slope "${after[index]}" "${after[index + 1]}")" below "$after_burst_limit"
    done
}

# pss_at_rest PID...: of each the smallest of three looks, seconds apart, on one line: buffers shrink and freed pages go
# back with a delay.
pss_at_rest() {
    local look pid index least=()
    for look in 1 2 3; do
        sleep 3
        index=0
        for pid in "$@"; do
            look=$(awk '$1 == "Pss:" { print $2 }' "/proc/$pid/smaps_rollup")
            [ -n "${least[index]:-}" ] && [ "${least[index]}" -le "$look" ] || least[index]=$look
            index=$((index + 1))
        done
    done
    printf '%s\n' "${least[*]}"
}

# slope PSS_OF_ONE PSS_OF_MANY: KiB per connection.
slope() { awk -v one="$1" -v many="$2" -v n="$((idle_many - 1))" 'BEGIN { printf "%.1f", (many - one) / n }'; }

if [ "$provider" = nginx ]; then
    start_nginx
    steady_assets=$assets
    goaway_assets=$assets
    http1_assets=$assets
    http1_ending_assets=$assets
elif [ "$with_gateway" = yes ]; then
    steady_assets=$work/assets-steady
    goaway_assets=$work/assets-goaway
    http1_assets=$work/assets-http1
    http1_ending_assets=$work/assets-http1-ending
    start_sim sim "$steady_port" "$steady_assets"
    { ! wants h && ! wants l; } || start_sim sim-goaway "$goaway_port" "$goaway_assets" --goaway-after-requests 200
    ! wants m || start_sim sim-http1 "$http1_port" "$http1_assets" --http http/1.1
    ! wants n || start_sim sim-http1-ending "$http1_ending_port" "$http1_ending_assets" --http http/1.1 --goaway-after-requests 200
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
    ! wants n || measure_http1 "$http1_ending_assets" "$http1_ending_port"
    ! wants m || measure_idle_memory
    # These bring the simulator with them, whoever is the provider of the others.
    if [ "$provider" = sim ]; then
        ! wants k || own_figures k redial --times "$kills" --slack "${redial_slack}ms"
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
