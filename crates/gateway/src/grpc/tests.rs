//! Tests of the gRPC API over a real HTTP/2 connection.
