# Shared by run.sh: processes, ports, certificates and configuration files. Sourced, not run.
#
# Owns every process it starts: each is remembered by its id and ended by that id, nothing else is touched.

started_pids=()

say() { printf '%s\n' "$*" >&2; }

die() {
    say "run.sh: $*"
    exit 1
}

usage_error() {
    say "run.sh: $* (see --help)"
    exit 2
}

# start NAME COMMAND...: runs it in the background with its output in $work/NAME.log; its id is in $last_pid.
start() {
    local name=$1
    shift
    "$@" >"$work/$name.log" 2>&1 &
    last_pid=$!
    started_pids+=("$last_pid")
}

# stop PID: asks, waits up to 5 s, then ends it by force.
stop() {
    local pid=$1 left=50
    kill -TERM "$pid" 2>/dev/null || return 0
    while kill -0 "$pid" 2>/dev/null; do
        if [ "$left" -eq 0 ]; then
            kill -KILL "$pid" 2>/dev/null || true
            break
        fi
        left=$((left - 1))
        sleep 0.1
    done
    wait "$pid" 2>/dev/null || true
}

stop_all() {
    local index
    for ((index = ${#started_pids[@]} - 1; index >= 0; index--)); do
        stop "${started_pids[index]}"
    done
    started_pids=()
}

# free_port: a port of loopback that nobody listens on, below the range the kernel gives to clients.
free_port() {
    local port
    while :; do
        port=$((10000 + RANDOM % 20000))
        case " ${taken_ports:-} " in *" $port "*) continue ;; esac
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            taken_ports="${taken_ports:-} $port"
            free_port=$port
            return
        fi
    done
}

# wait_for_port NAME PID PORT: until it accepts, its process ends, or 10 s are over.
wait_for_port() {
    local name=$1 pid=$2 port=$3 left=100
    until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
        still_running "$name" "$pid"
        left=$((left - 1))
        [ "$left" -gt 0 ] || die "$name does not listen on port $port after 10 s; its log: $work/$name.log"
        sleep 0.1
    done
}

# wait_until_ready NAME PID PORT: until GET /readyz answers 200, its process ends, or 20 s are over.
wait_until_ready() {
    local name=$1 pid=$2 port=$3 left=200 status
    while :; do
        status=$(readyz "$port" 2>/dev/null || true)
        [ "$status" != 200 ] || return 0
        still_running "$name" "$pid"
        left=$((left - 1))
        [ "$left" -gt 0 ] || {
            tail -n 20 "$work/$name.log" >&2
            die "$name is not ready after 20 s (last status: ${status:-none})"
        }
        sleep 0.1
    done
}

readyz() {
    local _version status _rest
    exec 3<>"/dev/tcp/127.0.0.1/$1" || return 1
    printf 'GET /readyz HTTP/1.1\r\nHost: 127.0.0.1:%s\r\nConnection: close\r\n\r\n' "$1" >&3
    read -r _version status _rest <&3
    exec 3>&-
    printf '%s' "$status"
}

# scrape PORT PATH: what the admin listener answers, header included.
scrape() {
    exec 3<>"/dev/tcp/127.0.0.1/$1" || return 1
    printf 'GET %s HTTP/1.1\r\nHost: 127.0.0.1:%s\r\nConnection: close\r\n\r\n' "$2" "$1" >&3
    cat <&3
    exec 3>&-
}

# milliseconds REPORT PERCENTILE: of the measured latency.
milliseconds() {
    awk -v key="\"$2\":" '/"latency_us"/ { inside = 1 } inside && $1 == key { printf "%.1f", $2 / 1000; exit }' "$1"
}

still_running() {
    kill -0 "$2" 2>/dev/null || {
        tail -n 20 "$work/$1.log" >&2
        die "$1 ended; its log is above"
    }
}

# make_certificates DIR: a CA with a server leaf for localhost, and a self-signed client that obeys the rules
# (S10-S14: P-256, below 2 years, exact common name, CA:FALSE), under the asset names of the seed.
make_certificates() {
    local dir=$1 key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
    mkdir -p "$dir"
    cat >"$dir/openssl.cnf" <<-'EOF'
	[req]
	distinguished_name = name
	prompt = no
	[name]
	CN = overridden by -subj
	[ca]
	basicConstraints = critical, CA:TRUE
	keyUsage = critical, keyCertSign, cRLSign
	subjectKeyIdentifier = hash
	[server]
	basicConstraints = critical, CA:FALSE
	keyUsage = critical, digitalSignature
	extendedKeyUsage = serverAuth
	subjectAltName = DNS:localhost, IP:127.0.0.1
	authorityKeyIdentifier = keyid
	[client]
	basicConstraints = critical, CA:FALSE
	keyUsage = critical, digitalSignature
	extendedKeyUsage = clientAuth
	subjectKeyIdentifier = hash
	EOF
    (
        cd "$dir"
        umask 077
        openssl req -x509 "${key[@]}" -sha256 -days 365 -config openssl.cnf -extensions ca \
            -subj "/CN=Load test server CA" -keyout ca.key -out TSH_TLS_SERVER_CERTIFICATE_CHAIN.pem
        openssl req "${key[@]}" -config openssl.cnf -subj "/CN=localhost" -keyout server.key -out server.csr
        openssl x509 -req -in server.csr -CA TSH_TLS_SERVER_CERTIFICATE_CHAIN.pem -CAkey ca.key \
            -CAcreateserial -sha256 -days 365 -extfile openssl.cnf -extensions server -out server.pem
        openssl req -x509 "${key[@]}" -sha256 -days 365 -config openssl.cnf -extensions client \
            -subj "/CN=$common_name" -keyout CUSTOMER_TLS_CLIENT_CERTIFICATE.key \
            -out CUSTOMER_TLS_CLIENT_CERTIFICATE.pem
    ) >"$dir/openssl.log" 2>&1 || {
        cat "$dir/openssl.log" >&2
        die "openssl could not make the certificates"
    }
}

# write_nginx_config FILE ASSETS STEADY_PORT GOAWAY_PORT HTTP1_PORT HTTP1_ENDING_PORT: four servers that demand the one
# client certificate; two speak HTTP/2, two HTTP/1.1 alone; the second of each ends every connection after 200 requests.
write_nginx_config() {
    local file=$1 assets=$2 steady=$3 goaway=$4 http1=$5 http1_ending=$6 body
    body=$(printf '%1024s' '' | tr ' ' 'x')
    cat >"$file" <<-EOF
	user $(id -un) $(id -gn);
	worker_processes auto;
	pid $work/nginx.pid;
	error_log $work/nginx.error.log warn;
	worker_rlimit_nofile 16384;
	events { worker_connections 8192; }
	http {
	    access_log off;
	    client_body_temp_path $work/nginx-body;
	    proxy_temp_path $work/nginx-proxy;
	    fastcgi_temp_path $work/nginx-fastcgi;
	    uwsgi_temp_path $work/nginx-uwsgi;
	    scgi_temp_path $work/nginx-scgi;
	    ssl_certificate $assets/server.pem;
	    ssl_certificate_key $assets/server.key;
	    ssl_protocols TLSv1.2 TLSv1.3;
	    ssl_session_cache shared:tls:1m;
	    ssl_client_certificate $assets/CUSTOMER_TLS_CLIENT_CERTIFICATE.pem;
	    ssl_verify_client on;
	    client_max_body_size 0;
	    server {
	        listen 127.0.0.1:$steady ssl http2;
	        keepalive_requests 1000000000;
	        keepalive_time 1h;
	        location / { return 200 "$body"; }
	    }
	    server {
	        listen 127.0.0.1:$goaway ssl http2;
	        keepalive_requests 200;
	        location / { return 200 "$body"; }
	    }
	    server {
	        listen 127.0.0.1:$http1 ssl;
	        keepalive_requests 1000000000;
	        keepalive_time 1h;
	        location / { return 200 "$body"; }
	    }
	    server {
	        listen 127.0.0.1:$http1_ending ssl;
	        keepalive_requests 200;
	        location / { return 200 "$body"; }
	    }
	}
	EOF
}

# write_gateway_config FILE ASSETS EGRESS_PORT ADMIN_PORT PROVIDER_PORT POOL ROUTE
write_gateway_config() {
    cat >"$1" <<-EOF
	[egress]
	listen = ["127.0.0.1:$3"]
	[admin]
	listen = "127.0.0.1:$4"
	[log]
	access = "$access_log"
	[environments.production]
	stage = "production"
	customer = "CUSTOMER-0001"
	assets = "$2"
	endpoint = "https://localhost/"
	connect = "127.0.0.1:$5"
	[environments.production.identity]
	common_name = "$common_name"
	[environments.production.pool]
	$6
	[[routes]]
	path_prefix = "/"
	environment = "production"
	$7
	EOF
}
