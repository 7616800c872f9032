//! Compiles the protos without `protoc`: protox parses them, tonic-prost-build writes the Rust.

use std::{
    error::Error,
    fs,
    io::{Write, stdout},
    path::PathBuf,
};

const PROTOS: [&str; 2] = ["tsh/gateway/v1/egress.proto", "tsh/gateway/v1/pools.proto"];

/// The messages of `pools.proto` are also the JSON of `/api/v1/pools`.
const JSON_MESSAGES: [&str; 14] = [
    "ListPoolsResponse",
    "Pool",
    "Quarantine",
    "DialFailure",
    "Tickets",
    "Breaker",
    "Learned",
    "Limits",
    "Resolution",
    "Address",
    "PoolTotals",
    "Connection",
    "Handshake",
    "DialPhases",
];

fn main() -> Result<(), Box<dyn Error>> {
    // Cargo reads its instructions from standard output.
    writeln!(stdout(), "cargo:rerun-if-changed=proto")?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set; run by cargo it is")?);

    // One descriptor set per listener's service: reflection must not advertise what a listener does not serve.
    for (proto, name) in PROTOS.iter().zip(["egress", "pools"]) {
        let mut compiler = protox::Compiler::new(["proto"])?;
        compiler.include_imports(true).include_source_info(false).open_file(proto)?;
        fs::write(out.join(format!("{name}.bin")), compiler.encode_file_descriptor_set())?;
    }

    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true).open_files(PROTOS)?;
    let mut builder = tonic_prost_build::configure().bytes(".tsh.gateway.v1").build_transport(false);
    for message in JSON_MESSAGES {
        builder =
            builder.message_attribute(format!(".tsh.gateway.v1.{message}"), "#[derive(serde::Serialize)]");
    }
    builder.compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
