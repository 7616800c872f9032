# System calls per request. Sourced by lab.sh.
#
# A run of its own with a fresh subject started under strace: strace slows what it watches, so nothing of this run is in
# any other figure. Counted twice, once with no request and once with many; the difference is the requests'.

# Requests of the counted run: enough that the dials of the first ones vanish.
counted_requests=4000

count_system_calls() {
    local scenario=$1 subject idle loaded
    subjects_of "$scenario"
    for subject in "${subjects[@]}"; do
        step "$scenario, $subject, system calls"
        idle=$(calls_of "$scenario" "$subject" 0) && loaded=$(calls_of "$scenario" "$subject" "$counted_requests") || {
            say "   $subject cannot be watched"
            continue
        }
        figure "$scenario" 1 "$subject" "system calls per request" \
            "$(awk -v i="$idle" -v l="$loaded" -v n="$counted_requests" 'BEGIN { printf "%.3f", (l - i) / n }')"
    done
}

# calls_of SCENARIO SUBJECT REQUESTS: in a subshell of its own, which ends what it starts.
calls_of() {
    local scenario=$1 subject=$2 requests=$3 counts=$work/strace.$2.$3
    (
        started_pids=()
        # strace lets go of what it watches when it is ended itself.
        trap 'end_watched "$last_pid"; stop_all' EXIT
        under=("$strace" -f -c -S calls -o "$counts")
        start_subject "$subject" steady h2 >&2 || exit 1
        if [ "$requests" -gt 0 ]; then
            flags_of "$scenario"
            load_with "$requests"
            "$loadgen" --target "http://127.0.0.1:$(port_for "$subject")/load" --quiet "${flags[@]}" >/dev/null
        fi
    ) || return 1
    awk '$NF == "total" { print $(NF == 5 ? 3 : 4); found = 1; exit } END { exit !found }' "$counts"
}

# load_with REQUESTS: $flags with this many requests instead of a time.
load_with() {
    local flag kept=() skip=no
    for flag in "${flags[@]}"; do
        if [ "$skip" = yes ]; then skip=no && continue; fi
        case $flag in --duration | --warmup) skip=yes ;; *) kept+=("$flag") ;; esac
    done
    flags=("${kept[@]}" --warmup 0s --requests "$1" --timeout 60s)
}

# end_watched STRACE_PID: asks the watched program itself, so that strace writes its counts at that program's end.
end_watched() {
    local watched
    # The kernel's list has no end of line, which `read` takes for a failure.
    read -r watched _ 2>/dev/null <"/proc/$1/task/$1/children" || [ -n "${watched:-}" ] || return 0
    kill -TERM "$watched"
    local left=100
    while kill -0 "$1" 2>/dev/null && [ "$left" -gt 0 ]; do
        left=$((left - 1))
        sleep 0.1
    done
    stop "$1"
}
