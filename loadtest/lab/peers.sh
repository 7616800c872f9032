# The programs under test: the gateway as it comes, its peers with one worker or thread each, all with the same client
# certificate, trust and server name in front of one provider. Sourced by lab.sh after lib.sh and tools.sh.
#
# What is not written here is each program's default. Access logs of the peers are off; the gateway's is on. The
# simulator hands out an intermediate as the anchor, as the real provider does; most peers want a root, so in front of
# the simulator they do not verify it. That is work of handshakes, not of requests.

declare -A pid_of=() http1_port=() h2c_port=() admin_of=()
# A command before each program: nothing, or strace.
under=()

# start_subject SUBJECT PROVIDER h2|http1 [LINES]: a fresh one; LINES go to the end of the gateway's configuration.
# Fails with a word on standard error if it does not answer.
start_subject() {
    local subject=$1 kind=$2 upstream=$3 lines=${4:-} name=$1-$2-$RANDOM
    local assets=${provider_assets[$kind]} to=${provider_port[$kind]} ca certificate key
    ca=$assets/TSH_TLS_SERVER_CERTIFICATE_CHAIN.pem
    certificate=$assets/CUSTOMER_TLS_CLIENT_CERTIFICATE.pem
    key=$assets/CUSTOMER_TLS_CLIENT_CERTIFICATE.key
    free_port
    http1_port[$subject]=$free_port
    h2c_port[$subject]=$free_port
    case $subject in
    gateway*) start_gateway ;;
    direct)
        http1_port[direct]=${provider_port[direct_http1]}
        h2c_port[direct]=${provider_port[direct]}
        pid_of[direct]=
        return 0
        ;;
    *) tool "$subject" && "start_$subject" ;;
    esac
    pid_of[$subject]=$last_pid
    wait_until_answers "$name" "$last_pid" "${http1_port[$subject]}" || {
        say "$subject does not answer; the end of $name.log:"
        tail -n 15 "$work/$name.log" >&2
        return 1
    }
}

stop_subject() {
    [ -z "${pid_of[$1]:-}" ] || stop "${pid_of[$1]}"
    rm -f "$work/$1.access.jsonl"
}

# wait_until_answers NAME PID PORT: until a request through it succeeds, up to 20 s.
wait_until_answers() {
    local until=$((SECONDS + 20))
    until [ "$(status_of "$3" 2>/dev/null)" = 200 ]; do
        { kill -0 "$2" 2>/dev/null && [ "$SECONDS" -lt "$until" ]; } || return 1
        sleep 0.1
    done
}

# status_of PORT [PATH]: of a GET over HTTP/1.1.
status_of() {
    local _version status _rest
    exec 3<>"/dev/tcp/127.0.0.1/$1" || return 1
    printf 'GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "${2:-/load}" >&3
    read -r -t 2 _version status _rest <&3 || true
    exec 3>&-
    printf '%s' "${status:-}"
}

# From here on: the variables of start_subject. Each leaves its process in $last_pid.

start_gateway() {
    local access_log=file:$work/$subject.access.jsonl
    free_port
    admin_of[$subject]=$free_port
    write_gateway_config "$work/$name.toml" "$assets" "${http1_port[$subject]}" "$free_port" "$to" "" ""
    printf '%s\n' "$lines" >>"$work/$name.toml"
    start "$name" "${under[@]}" "$gateway" run --config "$work/$name.toml"
    wait_until_ready "$name" "$last_pid" "$free_port"
}

# Another part of the project owns this command: its flags are the contract.
start_floor() {
    start "$name" "${under[@]}" "$loadgen" floor --listen "127.0.0.1:${http1_port[floor]}" --to "127.0.0.1:$to" --assets "$assets"
}

start_nghttpx() {
    local protocol=h2
    [ "$upstream" = h2 ] || protocol=http/1.1
    local trust=(--cacert="$ca")
    [ "$provider" = nginx ] || trust=(--insecure)
    start "$name" "${under[@]}" "$tool" --conf=/dev/null --workers=1 --frontend="127.0.0.1,${http1_port[nghttpx]};no-tls" \
        --backend="127.0.0.1,$to;;proto=$protocol;tls;sni=localhost" "${trust[@]}" \
        --client-cert-file="$certificate" --client-private-key-file="$key" \
        --errorlog-file="$work/$name.error.log"
}

start_haproxy() {
    local alpn=h2 trust="verify required verifyhost localhost ca-file $ca"
    [ "$provider" = nginx ] || trust="verify none"
    [ "$upstream" = h2 ] || alpn=http/1.1
    cat "$certificate" "$key" >"$work/haproxy.pem"
    # It refuses to start if the limit of open files is below twice its connections and some.
    local most=$((($(ulimit -n) - 100) / 2))
    [ "$most" -le 8000 ] || most=8000
    cat >"$work/$name.cfg" <<-EOF
	global
	    nbthread 1
	    maxconn $most
	defaults
	    mode http
	    timeout connect 5s
	    timeout client 10m
	    timeout server 1m
	    timeout http-keep-alive 10m
	frontend callers
	    bind 127.0.0.1:${http1_port[haproxy]}
	    default_backend provider
	backend provider
	    http-reuse always
	    server provider 127.0.0.1:$to ssl $trust crt $work/haproxy.pem sni str(localhost) alpn $alpn
	EOF
    start "$name" "${under[@]}" "$tool" -db -f "$work/$name.cfg"
}

# HTTP/1.1 to the provider whatever it offers: nginx speaks nothing else upstream. Two ports: this version tells
# HTTP/1.1 and cleartext HTTP/2 apart by port.
start_nginx() {
    local verify=on
    [ "$provider" = nginx ] || verify=off
    free_port
    h2c_port[nginx]=$free_port
    cat >"$work/$name.conf" <<-EOF
	user $(id -un) $(id -gn);
	worker_processes 1;
	pid $work/$name.pid;
	worker_rlimit_nofile 16384;
	events { worker_connections 8192; }
	http {
	    access_log off;
	    client_body_temp_path $work/$name-body;
	    proxy_temp_path $work/$name-proxy;
	    fastcgi_temp_path $work/$name-fastcgi;
	    uwsgi_temp_path $work/$name-uwsgi;
	    scgi_temp_path $work/$name-scgi;
	    keepalive_requests 1000000000;
	    keepalive_timeout 1h;
	    keepalive_time 1h;
	    client_max_body_size 0;
	    upstream provider {
	        server 127.0.0.1:$to;
	        keepalive 256;
	        keepalive_requests 1000000000;
	        keepalive_time 1h;
	    }
	    server {
	        listen 127.0.0.1:${http1_port[nginx]};
	        listen 127.0.0.1:${h2c_port[nginx]} http2;
	        location / {
	            proxy_pass https://provider;
	            proxy_http_version 1.1;
	            proxy_set_header Connection "";
	            proxy_ssl_certificate $certificate;
	            proxy_ssl_certificate_key $key;
	            proxy_ssl_trusted_certificate $ca;
	            proxy_ssl_verify $verify;
	            proxy_ssl_name localhost;
	            proxy_ssl_server_name on;
	            proxy_ssl_protocols TLSv1.2 TLSv1.3;
	        }
	    }
	}
	EOF
    start "$name" "${under[@]}" "$tool" -e "$work/$name.error.log" -p "$work" -c "$work/$name.conf" -g 'daemon off;'
}

start_envoy() {
    local chain=VERIFY_TRUST_CHAIN
    [ "$provider" = nginx ] || chain=ACCEPT_UNTRUSTED
    local protocol=http2_protocol_options alpn=h2
    [ "$upstream" = h2 ] || { protocol=http_protocol_options && alpn=http/1.1; }
    write_envoy_config "$work/$name.yaml" "$protocol" "$alpn"
    start "$name" "${under[@]}" "$tool" -c "$work/$name.yaml" --concurrency 1 --disable-hot-restart --log-level error
}

# The entry point takes cleartext HTTP/2 by prior knowledge. One processor for Go, and no question to the outside.
start_traefik() {
    local no_h2=false
    [ "$upstream" = h2 ] || no_h2=true
    write_traefik_config "$work/$name" "$no_h2"
    start "$name" "${under[@]}" env GOMAXPROCS=1 "$tool" --configFile="$work/$name.static.yaml"
}

start_pingora() {
    [ "$provider" = nginx ] || ca=-
    start "$name" "${under[@]}" "$tool" "127.0.0.1:${http1_port[pingora]}" "127.0.0.1:$to" "$ca" "$certificate" "$key" "$upstream"
}
