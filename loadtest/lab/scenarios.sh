# The scenarios of the laboratory: which subjects, which load, what is measured. Sourced by lab.sh.
#
# Each scenario starts its subjects afresh, so that memory is that of the scenario alone, and ends them after it. Rounds
# alternate over the subjects.

lost=no
peers_lost=no
broken=no

# subjects_of SCENARIO: in $subjects.
subjects_of() {
    subjects=(gateway "${peers[@]}")
    case $1 in
    a | b) [ "$with_floor" = no ] || subjects+=(floor) ;;
    d) subjects=(gateway) ;;
    j) subjects=() ;;
    g) [ "$provider" = sim ] || subjects+=(direct) ;;
    k) subjects=(gateway-1-worker gateway-2-workers) ;;
    esac
}

# rounds_of SCENARIO: how often; the long ones less.
rounds_of() {
    case $1 in
    f | h | i) printf '%s' $(((rounds + 2) / 3)) ;;
    *) printf '%s' "$rounds" ;;
    esac
}

# flags_of SCENARIO: loadgen's, in $flags.
flags_of() {
    local closed=(--closed --body-bytes 1KiB --duration "${seconds}s")
    local far=(--protocol h2c --connections 4 --streams 32 --rate 300 --body-bytes 1KiB --warmup 0s)
    case $1 in
    a | k | l) flags=(--protocol http1 --connections 64 "${closed[@]}") ;;
    b) flags=(--protocol h2c --connections 4 --streams 32 "${closed[@]}") ;;
    c) flags=(--protocol http1 --connections 4 "${closed[@]}") ;;
    d) flags=(--protocol grpc --connections 4 --streams 32 "${closed[@]}") ;;
    e) flags=(--protocol http1 --connections 16 --closed --duration "${seconds}s" --method GET --expect-body-bytes "$big_bytes") ;;
    g) flags=(--protocol h2c --connections 4 --streams 32 --rate 2000 --body-bytes 1KiB --duration "${seconds}s") ;;
    h-learn) flags=("${far[@]}" --duration "${learn_seconds}s") ;;
    h) flags=("${far[@]}" --duration "${long_seconds}s") ;;
    i) flags=("${far[@]}" --duration 6s) ;;
    esac
}

# port_for SUBJECT: the one that $flags speak to.
port_for() {
    case " ${flags[*]} " in
    *" --protocol http1 "*) printf '%s' "${http1_port[$1]}" ;;
    *) printf '%s' "${h2c_port[$1]}" ;;
    esac
}

# measure SCENARIO SUBJECT ROUND: one run of $flags, with its report.
measure() {
    local scenario=$1 subject=$2 round=$3 process=() code=0
    [ -z "${pid_of[$subject]}" ] || process=(--pid "${pid_of[$subject]}")
    "$loadgen" --target "http://127.0.0.1:$(port_for "$subject")/load" --scenario "$scenario" --subject "$subject" \
        "${process[@]}" --json "$out/$scenario-$round-$subject.json" "${flags[@]}" >>"$out/reports.txt" || code=$?
    case $code in
    0) return 0 ;;
    130 | 143) exit "$code" ;;
    esac
    [ -f "$out/$scenario-$round-$subject.json" ] || did_not_run "$scenario, $subject, round $round: loadgen gave up"
    # While the provider is away nobody can answer: what is lost then is shown, and judged by nobody.
    [ "$scenario" != i ] || return 0
    case $subject in
    gateway*) lost=yes && say "   a request was lost" ;;
    *) peers_lost=yes && say "   a request was lost (by a peer: shown, no failure of the run)" ;;
    esac
}

did_not_run() {
    say "   $*"
    broken=yes
}

# figure SCENARIO ROUND SUBJECT NAME VALUE [UNIT]: something that no report holds.
figure() {
    printf '{"scenario":"%s","subject":"%s","name":"%s","value":%s,"unit":"%s"}\n' "$1" "$3" "$4" "$5" "${6:-}" \
        >"$out/figures/$1-$2-$3-${4// /-}.json"
    say "   $3: $4 $5 ${6:-}"
}

# step WHAT: a line of progress with the time that is left, by the time that the steps so far took.
step() {
    local left=
    [ "$steps_done" -eq 0 ] || left=$(((SECONDS - started_at) * (steps - steps_done) / steps_done))
    steps_done=$((steps_done + 1))
    say "[$steps_done/$steps${left:+, about $((left / 60)) min $((left % 60)) s left}] $*"
}

# count_steps: into $steps, before anything runs.
count_steps() {
    local scenario
    steps=0 steps_done=0 started_at=$SECONDS
    for scenario in ${scenarios//,/ }; do
        subjects_of "$scenario"
        steps=$((steps + ${#subjects[@]} * $(rounds_of "$scenario")))
        [ "$scenario" != j ] || steps=$((steps + 1))
        [ "$scenario" != h ] || steps=$((steps + ${#subjects[@]} * $(rounds_of h)))
        case $scenario in a | b | c) [ "$with_syscalls" = no ] || steps=$((steps + ${#subjects[@]})) ;; esac
    done
}

# start_subjects PROVIDER UPSTREAM: those of $subjects; who does not start is left out of this scenario, by name.
start_subjects() {
    local subject lines kept=()
    for subject in "${subjects[@]}"; do
        lines=
        case $subject in
        gateway-1-worker) lines=$'[runtime]\nworkers = 1' ;;
        gateway-2-workers) lines=$'[runtime]\nworkers = 2' ;;
        esac
        if start_subject "$subject" "$1" "$2" "$lines"; then
            kept+=("$subject")
        else
            did_not_run "$subject did not start: left out of this scenario"
        fi
    done
    subjects=("${kept[@]}")
}

stop_subjects() {
    local subject
    for subject in "${subjects[@]}"; do stop_subject "$subject"; done
}

# run_rounds SCENARIO PROVIDER UPSTREAM
run_rounds() {
    local scenario=$1 round subject
    subjects_of "$scenario"
    start_subjects "$2" "$3"
    flags_of "$scenario"
    for ((round = 1; round <= $(rounds_of "$scenario"); round++)); do
        for subject in "${subjects[@]}"; do
            step "$scenario, $subject, round $round"
            measure "$scenario" "$subject" "$round"
        done
    done
    stop_subjects
}

# The long way: the same two parts for everybody, the first to learn when connections end.
run_long_way() {
    local round subject part
    subjects_of h
    for ((round = 1; round <= $(rounds_of h); round++)); do
        subjects_of h
        start_subjects far h2
        for subject in "${subjects[@]}"; do
            for part in h-learn h; do
                step "$part, $subject, round $round"
                flags_of "$part"
                measure "$part" "$subject" "$round"
            done
        done
        stop_subjects
    done
}

# Memory of callers that do nothing: a fresh subject each time, alone.
run_idle() {
    local round subject
    for ((round = 1; round <= $(rounds_of f); round++)); do
        subjects_of f
        for subject in "${subjects[@]}"; do
            step "f, $subject, round $round"
            start_subject "$subject" steady h2 || { did_not_run "$subject did not start" && continue; }
            "$loadgen" idle --target "http://127.0.0.1:${http1_port[$subject]}/load" --pid "${pid_of[$subject]}" \
                --connections "$idle_callers" --hold "${hold_seconds}s" --scenario f --subject "$subject" \
                --json "$out/figures/f-$round-$subject.json" >&2 || did_not_run "f, $subject: not all callers could be held"
            stop_subject "$subject"
        done
    done
}

# The provider goes away and comes back under load: from its first accepted connection until a request through the
# subject is answered, and until the gateway's floor serves again. Looked at every few milliseconds.
run_comeback() {
    local round subject
    for ((round = 1; round <= $(rounds_of i); round++)); do
        subjects_of i
        for subject in "${subjects[@]}"; do
            step "i, $subject, round $round"
            start_comeback
            wait_for_port comeback "$comeback_pid" "${provider_port[comeback]}"
            if start_subject "$subject" comeback h2; then
                comeback_of "$subject" "$round"
                stop_subject "$subject"
            else
                did_not_run "$subject did not start"
            fi
            stop "$comeback_pid"
        done
    done
}

comeback_of() {
    local subject=$1 round=$2 load back answers='' floor='' left=3000
    flags_of i
    measure i "$subject" "$round" &
    load=$!
    sleep 1.5
    stop "$comeback_pid"
    sleep 1
    case $subject in gateway*) [ "$(floor_met "$subject")" = 0 ] || did_not_run "$subject missed nothing while the provider was away" ;; *) floor=none ;; esac
    start_comeback
    until (exec 3<>"/dev/tcp/127.0.0.1/${provider_port[comeback]}") 2>/dev/null; do still_running comeback "$comeback_pid"; done
    back=${EPOCHREALTIME/[.,]/}
    while [ -z "$answers" ] || [ -z "$floor" ]; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || break
        [ -n "$answers" ] || [ "$(status_of "${http1_port[$subject]}" 2>/dev/null)" != 200 ] || answers=${EPOCHREALTIME/[.,]/}
        [ -n "$floor" ] || [ "$(floor_met "$subject")" != 1 ] || floor=${EPOCHREALTIME/[.,]/}
    done
    wait "$load" || true
    took "$subject" "$round" "until it answers" "$back" "$answers"
    [ "$floor" = none ] || took "$subject" "$round" "until its floor serves" "$back" "$floor"
}

# took SUBJECT ROUND NAME FROM TO: a figure of i, from two times in µs.
took() {
    if [ -n "$5" ]; then figure i "$2" "$1" "$3" "$((($5 - $4) / 1000))" ms; else did_not_run "$1 never came back ($3)"; fi
}

# floor_met SUBJECT: 1 while the connections that the gateway always keeps serve, else 0.
floor_met() { scrape "${admin_of[$1]}" /metrics 2>/dev/null | awk '/^tsh_floor_met/ { print $2 + 0 }'; }

# Full and resumed handshakes in one process: nobody's provider, no subject.
run_handshakes() {
    step "j, handshakes per CPU second"
    "$loadgen" handshakes --rounds "$rounds" --json "$out/j.json" | tee -a "$out/reports.txt" >&2 || did_not_run "j: a bound was broken"
}

run_scenario() {
    case $1 in
    a | b | c | d | g | k) run_rounds "$1" steady h2 ;;
    e) run_rounds e big h2 ;;
    l) run_rounds l http1 http1 ;;
    f) run_idle ;;
    h) run_long_way ;;
    i) run_comeback ;;
    j) run_handshakes ;;
    esac
    case $1 in a | b | c) [ "$with_syscalls" = no ] || count_system_calls "$1" ;; esac
}
