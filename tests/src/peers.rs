//! Foreign programs as callers and providers. A test that needs one that is not installed says so by name and is
//! skipped; with `TSH_REQUIRE_PEERS=1` it fails instead.

use std::{
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use provider_sim::{ClientCredentials, Pki};

use crate::wait::eventually;

/// Whether every tool is there. If not, says which test is skipped for want of what.
///
/// # Panics
/// When one is missing although `TSH_REQUIRE_PEERS=1` is set.
pub fn have(test: &str, tools: &[&str]) -> bool {
    let missing: Vec<_> = tools.iter().copied().filter(|tool| find(tool).is_none()).collect();
    settle(test, &missing.join(", "))
}

/// Whether Python with this module is there; as [`have`].
///
/// # Panics
/// As [`have`].
pub fn have_python_module(test: &str, module: &str) -> bool {
    let probe = Command::new("python3")
        .args(["-c", &format!("import {module}")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let missing = if probe.is_ok_and(|status| status.success()) {
        String::new()
    } else {
        format!("python3 with the module {module}")
    };
    settle(test, &missing)
}

fn settle(test: &str, missing: &str) -> bool {
    if missing.is_empty() {
        return true;
    }
    let required = std::env::var_os("TSH_REQUIRE_PEERS").is_some_and(|value| value == "1");
    assert!(!required, "{test} needs {missing}, and TSH_REQUIRE_PEERS=1 forbids to skip it");
    // Past the capture of the test harness: a skipped test must be seen.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {missing} is not installed");
    false
}

/// Where a program is, in `PATH` or where Debian keeps daemons.
pub fn find(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(tool))
        .find(|file| file.is_file())
}

/// nginx as the provider: HTTP/2, `ssl_verify_client on`.
pub struct Nginx {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Nginx {
    /// Starts it in `folder`; `more` stands in its `server` block.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn start(folder: &Path, pki: &Pki, client: &ClientCredentials, more: &str) -> Self {
        // Between here and nginx's own bind another process may take the port; nginx then fails to start, loudly.
        let address = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port");
        std::fs::write(folder.join("server.pem"), pki.server_chain_pem()).expect("a file");
        std::fs::write(folder.join("server.key"), pki.server_key_pem()).expect("a file");
        std::fs::write(folder.join("client.pem"), &client.certificate_pem).expect("a file");
        std::fs::write(folder.join("nginx.conf"), nginx_conf(folder, address, more)).expect("a file");
        let child = Command::new(find("nginx").expect("asked for before"))
            .arg("-e")
            .arg(folder.join("nginx.error.log"))
            .arg("-p")
            .arg(folder)
            .arg("-c")
            .arg(folder.join("nginx.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx starts");
        let nginx = Self { child, address };
        eventually("nginx listens", async || tokio::net::TcpStream::connect(address).await.ok()).await;
        nginx
    }

    /// `nginx -s reload`, by its signal.
    pub fn reload(&self) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::HUP).expect("nginx runs");
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let id = rustix::process::Pid::from_child(&self.child);
        // TERM: the master takes its workers with it, which KILL would not.
        let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

fn nginx_conf(folder: &Path, address: SocketAddr, more: &str) -> String {
    let folder = folder.display();
    format!(
        "daemon off;\nworker_processes 1;\npid {folder}/nginx.pid;\nerror_log {folder}/nginx.error.log;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n access_log off;\n client_body_temp_path {folder}/body;\n proxy_temp_path {folder}/proxy;\n\
         fastcgi_temp_path {folder}/fcgi;\n uwsgi_temp_path {folder}/uwsgi;\n scgi_temp_path {folder}/scgi;\n\
         server {{\n  listen {address} ssl http2;\n  ssl_certificate {folder}/server.pem;\n\
         ssl_certificate_key {folder}/server.key;\n  ssl_client_certificate {folder}/client.pem;\n\
         ssl_verify_client on;\n  {more}\n\
         location / {{ return 200 \"nginx $request_method $http_x_correlation_id\\n\"; }}\n }}\n}}\n"
    )
}
