# Who plays Thales in the laboratory, in the forms that the scenarios need. Sourced by lab.sh after lib.sh.
#
#   steady     HTTP/2, keeps its connections          big      HTTP/2, replies of 100 KiB
#   goaway     ends a connection after 200 requests   http1    HTTP/1.1 alone
#   far        goaway, behind a round trip of 40 ms   comeback HTTP/2, is ended and started again (nginx only)
#   direct     cleartext, the same reply: what loadgen reaches with no proxy between (nginx only)

declare -A provider_port=() provider_assets=()
# Reply of the big provider.
big_bytes=$((100 * 1024))

# start_providers: whatever can run all the time.
start_providers() {
    local kind
    for kind in steady goaway big http1 comeback direct direct_http1; do
        free_port
        provider_port[$kind]=$free_port
        provider_assets[$kind]=$work/assets
    done
    if [ "$provider" = nginx ]; then start_nginx_providers; else start_sim_providers; fi
    # Only now: what reaches the relay is what reaches `goaway`.
    free_port
    provider_port[far]=$free_port
    provider_assets[far]=${provider_assets[goaway]}
    start relay "$loadgen" relay --listen "127.0.0.1:$free_port" --to "127.0.0.1:${provider_port[goaway]}" --round-trip 40ms
    wait_for_port relay "$last_pid" "$free_port"
}

start_nginx_providers() {
    make_certificates "$work/assets"
    cat "$work/assets/CUSTOMER_TLS_CLIENT_CERTIFICATE.pem" "$work/assets/CUSTOMER_TLS_CLIENT_CERTIFICATE.key" \
        >"$work/client.pem"
    mkdir -p "$work/www"
    head -c "$big_bytes" /dev/zero | tr '\0' x >"$work/www/load"
    free_port && local unused=$free_port
    write_nginx_config "$work/provider.conf" "$work/assets" "${provider_port[steady]}" "${provider_port[goaway]}" \
        "${provider_port[http1]}" "$unused"
    add_servers "$work/provider.conf"
    start provider "$nginx" -e "$work/provider.error.log" -p "$work" -c "$work/provider.conf" -g 'daemon off;'
    wait_for_port provider "$last_pid" "${provider_port[steady]}"
    # Ports of its own, so that it can go away alone.
    local away=()
    for _ in 1 2 3; do free_port && away+=("$free_port"); done
    write_nginx_config "$work/comeback.conf" "$work/assets" "${provider_port[comeback]}" "${away[@]}"
    sed -i "s#nginx\.pid#comeback.pid#; s#worker_processes auto#worker_processes 1#" "$work/comeback.conf"
}

# add_servers FILE: what lib.sh's configuration lacks, inside its `http`.
add_servers() {
    local body missing_http1=
    body=$(printf '%1024s' '' | tr ' ' x)
    grep -q "127.0.0.1:${provider_port[http1]} " "$1" || missing_http1=yes
    sed -i '$d' "$1"
    {
        [ -z "$missing_http1" ] || cat <<-EOF_HTTP1
	    server {
	        listen 127.0.0.1:${provider_port[http1]} ssl;
	        keepalive_requests 1000000000;
	        keepalive_time 1h;
	        location / { return 200 "$body"; }
	    }
	EOF_HTTP1
        cat <<-EOF_SERVERS
	    server {
	        listen 127.0.0.1:${provider_port[big]} ssl http2;
	        keepalive_requests 1000000000;
	        keepalive_time 1h;
	        open_file_cache max=4;
	        root $work/www;
	    }
	    server {
	        listen 127.0.0.1:${provider_port[direct]} http2;
	        keepalive_requests 1000000000;
	        keepalive_time 1h;
	        location / { return 200 "$body"; }
	    }
	    server {
	        listen 127.0.0.1:${provider_port[direct_http1]};
	        keepalive_requests 1000000000;
	        keepalive_time 1h;
	        location / { return 200 "$body"; }
	    }
	}
	EOF_SERVERS
    } >>"$1"
}

# Each simulator has its own PKI, so its own assets.
start_sim_providers() {
    start_sim steady --respond echo
    start_sim goaway --goaway-after-requests 200
    start_sim big --respond "fixed:200:$big_bytes"
    start_sim http1 --http http/1.1
}

# start_sim KIND FLAGS...
start_sim() {
    local kind=$1
    shift
    provider_assets[$kind]=$work/assets-$kind
    start "sim-$kind" "$gateway" sim --listen "127.0.0.1:${provider_port[$kind]}" --out "${provider_assets[$kind]}" \
        --common-name "$common_name" "$@"
    wait_for_port "sim-$kind" "$last_pid" "${provider_port[$kind]}"
}

# start_comeback: sets $comeback_pid.
start_comeback() {
    start comeback "$nginx" -e "$work/comeback.error.log" -p "$work" -c "$work/comeback.conf" -g 'daemon off;'
    comeback_pid=$last_pid
}
