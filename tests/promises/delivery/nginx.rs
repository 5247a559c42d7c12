//! A TLS proxy before the collector, as many stand before theirs: nginx, which offers HTTP/2.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;
use crate::common::{Authority, PATIENCE, Process, free_port, skip};

/// Where it is, if it is.
fn nginx() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    places.push("/usr/sbin".into());
    places.into_iter().map(|place| place.join("nginx")).find(|nginx| nginx.is_file())
}

/// Starts it in the scene on this port, before `upstream`; its access log says which protocol was spoken.
fn start(scene: &Scene, nginx: &Path, port: u16, upstream: &str) -> Process {
    let here = |file: &str| scene.path(file).display().to_string();
    // Without `daemon` and with one process, which is ours.
    let config = format!(
        "daemon off; master_process off; pid {pid}; error_log {errors} info;\n\
         events {{ worker_connections 64; }}\n\
         http {{\n\
           log_format spoken '$server_protocol $status $request_length $connection';\n\
           access_log {access} spoken;\n\
           client_body_temp_path {temp}; proxy_temp_path {temp}; fastcgi_temp_path {temp};\n\
           uwsgi_temp_path {temp}; scgi_temp_path {temp};\n\
           client_max_body_size 8m;\n\
           server {{\n\
             listen 127.0.0.1:{port} ssl http2;\n\
             ssl_certificate {chain}; ssl_certificate_key {key};\n\
             location / {{ proxy_pass {upstream}; }}\n\
           }}\n\
         }}\n",
        pid = here("nginx.pid"),
        errors = here("nginx.errors"),
        access = here("access.log"),
        temp = here("nginx-temp"),
        chain = here("nginx.pem"),
        key = here("nginx.key"),
    );
    std::fs::create_dir_all(scene.path("nginx-temp")).unwrap();
    std::fs::write(scene.path("nginx.conf"), config).unwrap();
    let mut command = Command::new(nginx);
    command.arg("-p").arg(scene.path(".")).arg("-c").arg(scene.path("nginx.conf"));
    command.arg("-e").arg(scene.path("nginx.errors"));
    let process = Process::start("nginx", command, &scene.path("nginx.stderr"));
    wait_for(PATIENCE, "nginx listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    process
}

#[test]
fn a_tls_proxy_that_offers_http_2_is_spoken_to_in_it_and_every_line_arrives_once() {
    const TEST: &str = "a_tls_proxy_that_offers_http_2_is_spoken_to_in_it_and_every_line_arrives_once";
    let Some(nginx) = nginx() else { return skip(TEST, "there is no nginx") };
    let scene = Scene::new(TEST);
    let collector = Collector::start(&scene);
    // Behind nginx the server breaks off and is overloaded, which nginx says in its own words.
    let proxy = FaultProxy::before(&collector);
    let authority = Authority::new("private");
    authority.write_server(&scene, "nginx", &["127.0.0.1"]);
    let port = free_port();
    let mut server = start(&scene, &nginx, port, &proxy.url());
    let ca_file = authority.write_certificate(&scene, "ca.pem");
    let config = quick(&scene, format!("https://127.0.0.1:{port}/")).global("compression", "zstd").table(
        "tls",
        "ca_file",
        ca_file.to_str().unwrap(),
    );
    config.write();
    let mut writer = Writer::new(&scene, "app", "logs/app.log");
    writer.append(200);
    proxy.next_n(3, Fault::LoseReply);
    proxy.next(Fault::UNAVAILABLE);
    let agent = Agent::start(&scene);
    await_delivery(&[&writer], &collector);

    // The proxy is restarted while lines are written; meanwhile whoever comes to its port is turned away.
    assert_eq!(server.stop(), Some(0), "{}", server.messages());
    let door = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    writer.append(100);
    drop(door.accept().unwrap());
    drop(door);
    let mut server = start(&scene, &nginx, port, &proxy.url());
    await_delivery(&[&writer], &collector);
    assert_eq!(agent.stop(), Some(0));
    assert_eq!(server.stop(), Some(0), "{}", server.messages());
    assert_resends_identical(&proxy.requests());
    assert_delivered_exactly_once(&[&writer], &collector);

    let access = std::fs::read_to_string(scene.path("access.log")).unwrap();
    let spoken = |version: &str| access.lines().filter(|line| line.starts_with(version)).count();
    assert!(spoken("HTTP/2.0 200") >= 30, "{access}");
    assert_eq!(spoken("HTTP/1"), 0, "{access}");
    let connections: BTreeSet<_> = access.lines().filter_map(|line| line.split(' ').nth(3)).collect();
    assert!(connections.len() < 10, "requests share connections: {access}");
}
