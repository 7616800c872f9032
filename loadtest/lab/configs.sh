# The longer configuration files of the peers, written from the variables of start_subject (peers.sh). Sourced.

# write_envoy_config FILE OPTIONS_FIELD ALPN
write_envoy_config() {
    cat >"$1" <<-EOF
	static_resources:
	  listeners:
	  - name: callers
	    address: { socket_address: { address: 127.0.0.1, port_value: ${http1_port[envoy]} } }
	    filter_chains:
	    - filters:
	      - name: envoy.filters.network.http_connection_manager
	        typed_config:
	          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
	          stat_prefix: callers
	          codec_type: AUTO
	          route_config:
	            virtual_hosts:
	            - name: all
	              domains: ["*"]
	              routes:
	              - match: { prefix: "/" }
	                route: { cluster: provider }
	          http_filters:
	          - name: envoy.filters.http.router
	            typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }
	  clusters:
	  - name: provider
	    type: STATIC
	    connect_timeout: 5s
	    load_assignment:
	      cluster_name: provider
	      endpoints:
	      - lb_endpoints:
	        - endpoint: { address: { socket_address: { address: 127.0.0.1, port_value: $to } } }
	    typed_extension_protocol_options:
	      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
	        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
	        explicit_http_config: { $2: {} }
	    transport_socket:
	      name: envoy.transport_sockets.tls
	      typed_config:
	        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
	        sni: localhost
	        common_tls_context:
	          alpn_protocols: ["$3"]
	          tls_params: { tls_minimum_protocol_version: TLSv1_2, tls_maximum_protocol_version: TLSv1_3 }
	          tls_certificates:
	          - certificate_chain: { filename: $certificate }
	            private_key: { filename: $key }
	          validation_context:
	            trusted_ca: { filename: $ca }
	            trust_chain_verification: $chain
	            match_typed_subject_alt_names:
	            - { san_type: DNS, matcher: { exact: localhost } }
	EOF
}

# write_traefik_config STEM DISABLE_HTTP2: STEM.static.yaml and STEM.dynamic.yaml.
write_traefik_config() {
    cat >"$1.static.yaml" <<-EOF
	global: { checkNewVersion: false, sendAnonymousUsage: false }
	log: { level: ERROR }
	entryPoints:
	  callers:
	    address: "127.0.0.1:${http1_port[traefik]}"
	providers:
	  file: { filename: "$1.dynamic.yaml", watch: false }
	EOF
    cat >"$1.dynamic.yaml" <<-EOF
	http:
	  routers:
	    all: { rule: "PathPrefix(\`/\`)", service: provider, entryPoints: [callers] }
	  services:
	    provider:
	      loadBalancer:
	        servers: [{ url: "https://127.0.0.1:$to" }]
	        serversTransport: provider
	  serversTransports:
	    provider:
	      serverName: localhost
	      rootCAs: ["$ca"]
	      certificates: [{ certFile: "$certificate", keyFile: "$key" }]
	      maxIdleConnsPerHost: 256
	      disableHTTP2: $2
	EOF
}
