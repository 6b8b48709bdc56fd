//! The object side against a real kube-apiserver and etcd, which this binary starts and stops.

#[path = "api/server.rs"]
mod server;

#[path = "api/cel.rs"]
mod cel;

#[path = "api/loki.rs"]
mod loki;

#[path = "api/controllers.rs"]
mod controllers;
