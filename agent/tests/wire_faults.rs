//! Requests in, a connection or server that breaks in every way we know: nothing is lost, nothing counts as
//! acknowledged that is not, other tenants' requests get through meanwhile.
#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::panic,
    reason = "tests"
)]

use std::time::Duration;

use sluice_agent::config::TenantInForce;
use sluice_agent::push::Timing;
use sluice_engine::credentials::Credentials;
use sluice_engine::report::ProblemReason;

#[path = "support/broken.rs"]
mod broken;
#[allow(dead_code, reason = "shared with other tests")]
#[path = "support/double.rs"]
mod double;
#[path = "support/proto.rs"]
mod proto;
#[allow(dead_code, reason = "shared with other tests")]
#[path = "support/rig.rs"]
mod rig;

use broken::{Broken, Fault};
use double::Double;
use rig::{A, B, Rig, changed, in_force, key};

/// Short waits between attempts: there are many.
const SHORT: Timing = Timing {
    first: Duration::from_millis(2),
    most: Duration::from_millis(8),
    refused: (Duration::from_millis(2), Duration::from_millis(8)),
    blocked: (Duration::from_millis(2), Duration::from_millis(8)),
};
/// So long a request waits for an answer where none comes, and where one does on the busiest machine.
const SOON: Duration = Duration::from_millis(300);
const LATE: Duration = Duration::from_secs(10);
/// What a client may take from a server that never ends: its own limits and the kernel's buffers.
const BOUNDED: u64 = 16 << 20;

/// Tenant `broken` behind a broken server, tenant `good` behind a good one.
struct Scene {
    double: Double,
    broken: Broken,
    rig: Rig,
    number: usize,
}

impl Scene {
    async fn new(timeout: Duration) -> Self {
        let double = Double::scripted([]).await;
        let broken = Broken::before(&double).await;
        let good = Double::scripted([]).await;
        let rig = Rig::new(SHORT, true);
        let url = format!("http://{}/loki/api/v1/push", broken.address);
        rig.pushers
            .set_tenant(&waiting(&in_force("broken", url), timeout));
        rig.pushers.set_tenant(&in_force("good", rig::url(&good)));
        Self {
            double,
            broken,
            rig,
            number: 0,
        }
    }

    /// Sends lines that no other request has; returns them and the request's bytes.
    fn send(&mut self) -> (Vec<String>, Vec<u8>) {
        self.number += 1;
        let lines: Vec<String> = (1..=3).map(|n| format!("{:04}-{n}", self.number)).collect();
        let body = self.rig.send(
            &key("broken"),
            &[(A, &[lines[0].as_str(), &lines[1]]), (B, &[lines[2].as_str()])],
        );
        (lines, body)
    }

    /// The next outcome, which has to be the broken tenant's: everything is stored, and nothing was refused.
    async fn arrives(&mut self, sent: &(Vec<String>, Vec<u8>), context: &str) {
        let outcome = self.rig.outcome().await;
        assert_eq!(*outcome.tenant, key("broken"), "{context}");
        assert_eq!(outcome.rejected, [], "{context}");
        let stored = self.double.lines();
        for line in &sent.0 {
            assert!(stored.contains(line), "{context}: {line} is lost");
        }
    }
}

fn waiting(tenant: &TenantInForce, timeout: Duration) -> TenantInForce {
    changed(tenant, |tenant| {
        tenant.delivery.request_timeout_ms = u64::try_from(timeout.as_millis()).unwrap();
    })
}

fn bytes(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

/// An answer with a right `Content-Length`.
fn whole(head: &str, body: &str) -> Vec<u8> {
    bytes(&format!(
        "HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ))
}

#[tokio::test]
async fn what_is_not_lokis_acknowledgement_holds_the_lines() {
    use Fault::{Closes, Drips, Endless, ReadsSlowly, Refuses, Stays};
    use ProblemReason::{ServerError, UnexpectedAnswer, Unreachable, WrongPath};

    let page = "<html><body>Sign in</body></html>";
    let no_content = "HTTP/1.1 204 No Content\r\n\r\n";
    let refused = "max entry size '10' bytes exceeded for stream '{a=\"b\"}' while adding an entry with length '11' bytes\n";
    let slowly = Duration::from_millis(50);
    let ok = |rest: &str| bytes(&format!("HTTP/1.1 200 OK\r\n{rest}"));
    let rows = [
        // No answer, or half of one.
        ("closed at once", Refuses, Unreachable),
        ("closed without an answer", Closes(vec![]), Unreachable),
        ("silence", Stays(vec![]), Unreachable),
        (
            "half a head",
            Closes(bytes("HTTP/1.1 204 No Content\r\n")),
            Unreachable,
        ),
        (
            "half a head, then silence",
            Stays(bytes("HTTP/1.1 204 No Content\r\nx: y\r\n")),
            Unreachable,
        ),
        (
            "a byte now and then",
            Drips(bytes(no_content), slowly),
            Unreachable,
        ),
        ("reads a byte now and then", ReadsSlowly(slowly), Unreachable),
        // Lengths that are not true.
        (
            "200, shorter than it says",
            Closes(ok("content-length: 9\r\n\r\nok")),
            Unreachable,
        ),
        (
            "200, shorter and silent",
            Stays(ok("content-length: 9\r\n\r\nok")),
            Unreachable,
        ),
        (
            "200, nothing of its page",
            Closes(ok("content-length: 9\r\n\r\n")),
            Unreachable,
        ),
        (
            "200, longer than it says",
            Stays(ok(&format!("content-length: 1\r\n\r\n{page}"))),
            UnexpectedAnswer,
        ),
        (
            "200, two lengths",
            Closes(ok("content-length: 2\r\ncontent-length: 3\r\n\r\nok")),
            Unreachable,
        ),
        (
            "200, a negative length",
            Closes(ok("content-length: -1\r\n\r\nok")),
            Unreachable,
        ),
        (
            "200, a huge length",
            Closes(ok("content-length: 99999999999999999999\r\n\r\nok")),
            Unreachable,
        ),
        (
            "400 in Loki's words, cut off",
            Closes(bytes(&format!(
                "HTTP/1.1 400 B\r\ncontent-length: 999\r\n\r\n{refused}"
            ))),
            Unreachable,
        ),
        (
            "503 with a 204 behind its end",
            Stays(bytes(&format!(
                "HTTP/1.1 503 S\r\ncontent-length: 1\r\n\r\nx{no_content}{no_content}"
            ))),
            ServerError,
        ),
        // Chunks.
        (
            "chunks without a size",
            Closes(ok("transfer-encoding: chunked\r\n\r\nzz\r\nok\r\n")),
            Unreachable,
        ),
        (
            "chunks without an end",
            Closes(ok("transfer-encoding: chunked\r\n\r\n2\r\nok\r\n")),
            Unreachable,
        ),
        (
            "chunks, then silence",
            Stays(ok("transfer-encoding: chunked\r\n\r\n2\r\nok\r\n")),
            Unreachable,
        ),
        (
            "a chunk of a huge size",
            Closes(ok("transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\nok")),
            Unreachable,
        ),
        (
            "a chunk longer than it says",
            Closes(ok("transfer-encoding: chunked\r\n\r\n1\r\nok\r\n0\r\n\r\n")),
            Unreachable,
        ),
        // Not HTTP.
        (
            "another protocol",
            Closes(bytes("SSH-2.0-OpenSSH_9.2\r\n")),
            Unreachable,
        ),
        (
            "HTTP/2",
            Closes(b"\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0".to_vec()),
            Unreachable,
        ),
        ("TLS", Closes(b"\x15\x03\x01\0\x02\x02\x46".to_vec()), Unreachable),
        ("zeros", Closes(vec![0; 512]), Unreachable),
        (
            "a status of two digits",
            Closes(bytes("HTTP/1.1 20 OK\r\n\r\n")),
            Unreachable,
        ),
        (
            "a head with a zero",
            Closes(bytes("HTTP/1.1 204 No Content\r\nx: \0\r\n\r\n")),
            Unreachable,
        ),
        // Without an end.
        (
            "a head without an end",
            Endless(
                bytes("HTTP/1.1 204 No Content\r\n"),
                bytes(&format!("x: {}\r\n", "y".repeat(1024))),
            ),
            Unreachable,
        ),
        (
            "a name without an end",
            Endless(bytes("HTTP/1.1 204 No Content\r\n"), vec![b'x'; 4096]),
            Unreachable,
        ),
        (
            "1xx without an end",
            Endless(vec![], bytes("HTTP/1.1 102 Processing\r\n\r\n")),
            Unreachable,
        ),
        (
            "a page without an end",
            Endless(ok("\r\n<html>"), vec![b'x'; 65_536]),
            UnexpectedAnswer,
        ),
        (
            "an error without an end",
            Endless(bytes("HTTP/1.1 500 E\r\n\r\n"), vec![b'x'; 65_536]),
            ServerError,
        ),
        (
            "a 400 without an end",
            Endless(bytes("HTTP/1.1 400 B\r\n\r\n"), vec![b'x'; 65_536]),
            UnexpectedAnswer,
        ),
        // Somebody else's answers.
        (
            "only 100",
            Closes(bytes("HTTP/1.1 100 Continue\r\n\r\n")),
            Unreachable,
        ),
        (
            "101",
            Stays(bytes(
                "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
            )),
            UnexpectedAnswer,
        ),
        ("a page", Stays(whole("200 OK", page)), UnexpectedAnswer),
        (
            "a page with a byte order mark",
            Stays(whole("200 OK", &format!("\u{feff}{page}"))),
            UnexpectedAnswer,
        ),
        (
            "a page of text",
            Stays(whole("200 OK", "Please sign in.")),
            UnexpectedAnswer,
        ),
        (
            "an error as JSON",
            Stays(whole("200 OK", r#"{"error":"no"}"#)),
            UnexpectedAnswer,
        ),
        (
            "a packed page",
            Stays(
                [
                    &ok("content-encoding: gzip\r\ncontent-length: 3\r\n\r\n")[..],
                    b"\x1f\x8b\x08",
                ]
                .concat(),
            ),
            UnexpectedAnswer,
        ),
        ("201", Stays(whole("201 Created", "")), UnexpectedAnswer),
        ("206", Stays(whole("206 Partial Content", "")), UnexpectedAnswer),
        (
            "304",
            Stays(bytes("HTTP/1.1 304 Not Modified\r\n\r\n")),
            WrongPath,
        ),
        (
            "422 of a request with lines",
            Stays(whole(
                "422 U",
                "error at least one valid stream is required for ingestion",
            )),
            UnexpectedAnswer,
        ),
        (
            "a status of nobody",
            Stays(whole("999 Denied", "")),
            UnexpectedAnswer,
        ),
    ];
    let mut scene = Scene::new(SOON).await;
    for (name, fault, reason) in rows {
        scene.broken.breaks(fault);
        let before = scene.broken.broken();
        let sent = scene.send();
        let message = scene.rig.problem(&key("broken"), reason).await;
        assert!(
            message.contains(&scene.broken.address.to_string()),
            "{name}: {message}"
        );
        assert!(
            !message.contains("Sign") && !message.contains("sign in"),
            "{name}: {message}"
        );
        // The other tenant's requests get through, and of this one nothing is acknowledged.
        for _ in 0..2 {
            scene.rig.send(&key("good"), &[(A, &["other"])]);
            assert_eq!(*scene.rig.outcome().await.tenant, key("good"), "{name}");
        }
        assert!(scene.broken.broken() > before, "{name}");
        assert!(
            scene.broken.most_written() < BOUNDED,
            "{name}: {}",
            scene.broken.most_written()
        );
        assert!(!scene.double.lines().contains(&sent.0[0]), "{name}");
        scene.broken.mend();
        scene.arrives(&sent, name).await;
        assert_eq!(scene.double.asked().pop().unwrap().body, sent.1, "{name}");
    }
    assert!(scene.rig.pushers.problems().is_empty());
}

#[tokio::test]
async fn odd_forms_of_an_acknowledgement_are_understood() {
    let mut scene = Scene::new(LATE).await;
    let header = |len: usize| format!("HTTP/1.1 204 No Content\r\nx: {}\r\n\r\n", "y".repeat(len));
    let continues = |status: &str| format!("HTTP/1.1 {status}\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n");
    for answer in [
        "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
        "HTTP/1.0 204 No Content\r\n\r\n".to_owned(),
        "HTTP/1.1 204\r\n\r\n".to_owned(),
        "HTTP/1.1 204 No Content\nserver: n\n\n".to_owned(),
        "HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n".to_owned(),
        // It has no body, whatever is said of one.
        "HTTP/1.1 204 No Content\r\ncontent-length: 99\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n".to_owned(),
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n".to_owned(),
        continues("100 Continue"),
        continues("102 Processing"),
        continues("103 Early Hints\r\nlink: </x>"),
        header(64 << 10),
        header(200 << 10),
    ] {
        let context = &answer[..answer.len().min(60)];
        scene.broken.breaks(Fault::Stays(bytes(&answer)));
        scene.send();
        let outcome = scene.rig.outcome().await;
        assert_eq!(outcome.rejected, [], "{context}");
        assert_eq!(*outcome.tenant, key("broken"), "{context}");
        assert!(scene.rig.pushers.problems().is_empty(), "{context}");
    }
    assert!(scene.double.asked().is_empty());
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let mut scene = Scene::new(LATE).await;
    for status in [300, 301, 302, 303, 305, 307, 308] {
        let location = format!("location: http://{}/loki/api/v1/push", scene.double.address);
        scene.broken.breaks(Fault::Stays(bytes(&format!(
            "HTTP/1.1 {status} R\r\n{location}\r\ncontent-length: 0\r\n\r\n"
        ))));
        let asked = scene.double.asked().len();
        let sent = scene.send();
        scene.rig.problem(&key("broken"), ProblemReason::WrongPath).await;
        assert_eq!(scene.double.asked().len(), asked, "{status}");
        scene.broken.mend();
        scene.arrives(&sent, &status.to_string()).await;
    }
}

/// A proxy's page, whatever its status, is not Loki's word on a line.
#[tokio::test]
async fn a_proxys_page_of_any_status_costs_no_line() {
    let mut scene = Scene::new(LATE).await;
    for status in (200..600).filter(|status| *status != 204) {
        let page = format!("<html><head><title>{status}</title></head><body>nginx</body></html>");
        let head = format!("{status} S\r\ncontent-type: text/html");
        scene.broken.breaks_once(Fault::Closes(whole(&head, &page)));
        let broken = scene.broken.broken();
        let sent = scene.send();
        scene.arrives(&sent, &head).await;
        assert_eq!(scene.broken.broken(), broken + 1, "{head}");
    }
    assert!(scene.rig.pushers.problems().is_empty());
}

impl Scene {
    fn retries(&self) -> u64 {
        let figures = self.rig.pushers.figures();
        figures
            .tenants
            .get(&key("broken"))
            .map_or(0, |figures| figures.retries)
    }
}

/// Cuts the connection behind every `step`th byte of a small exchange, until the exchange is over before the
/// cut; says where that is.
async fn cut_everywhere(
    scene: &mut Scene,
    step: usize,
    fault: fn(usize) -> Fault,
    tls: Option<&TenantInForce>,
) -> usize {
    for at in (0..).step_by(step) {
        // A client of its own for each, so that no handshake is cut short by what an earlier one left.
        if let Some(tenant) = tls {
            scene.rig.pushers.set_tenant(&TenantInForce {
                version: at.to_string(),
                ..tenant.clone()
            });
        }
        let context = format!("{:?}", fault(at));
        let (broken, retries, asked) = (
            scene.broken.broken(),
            scene.retries(),
            scene.double.memory(|memory| memory.asked.len()),
        );
        scene.broken.breaks_once(fault(at));
        // The client sees that the connection it kept is closed.
        tokio::time::sleep(Duration::from_millis(2)).await;
        let sent = scene.send();
        scene.arrives(&sent, &context).await;
        assert_eq!(scene.broken.broken(), broken + 1, "{context}");
        // What the double saw once or twice was the same request.
        let seen = scene.double.memory(|memory| memory.asked.split_off(asked));
        assert!(
            !seen.is_empty() && seen.iter().all(|asked| asked.body == sent.1),
            "{context}"
        );
        let over = scene.retries() == retries;
        scene.double.memory(|memory| memory.asked.extend(seen));
        if over {
            return at;
        }
    }
    unreachable!("an exchange is over some time")
}

#[tokio::test]
async fn a_connection_cut_at_any_byte_of_the_request_loses_nothing() {
    let mut scene = Scene::new(LATE).await;
    let whole = cut_everywhere(&mut scene, 1, Fault::CutsRequest, None).await;
    let asked = scene.double.asked();
    let body = asked[0].body.len();
    println!("{whole} cuts in a request with {body} bytes of body");
    assert!(whole > body + 100, "{whole}");
    // One attempt of each was whole; of the one cut behind its last byte two were.
    assert!((whole + 1..=whole + 2).contains(&asked.len()), "{}", asked.len());
}

#[tokio::test]
async fn a_connection_cut_at_any_byte_of_the_answer_loses_nothing() {
    let mut scene = Scene::new(LATE).await;
    let whole = cut_everywhere(&mut scene, 1, Fault::CutsAnswer, None).await;
    assert_eq!(whole, "HTTP/1.1 204 No Content\r\n\r\n".len());
    // Loki has each twice, but the first, which was cut before it was read, and the last.
    let asked = scene.double.asked().len();
    assert!((2 * whole..=2 * whole + 1).contains(&asked), "{asked}");
}

#[tokio::test]
async fn tls_cut_at_any_place_loses_nothing() {
    for direction in [Fault::CutsRequest as fn(usize) -> Fault, Fault::CutsAnswer] {
        let double = Double::with_tls(false).await;
        let broken = Broken::before(&double).await;
        let rig = Rig::new(SHORT, true);
        let url = format!("https://localhost:{}/loki/api/v1/push", broken.address.port());
        let tenant = changed(&waiting(&in_force("broken", url), LATE), |tenant| {
            tenant.tls.ca = true;
            tenant.tls.server_name = Some("loki.test".to_owned());
        });
        let credentials = Credentials {
            ca: Some(include_str!("support/tls/ca.pem").to_owned()),
            ..Credentials::default()
        };
        let tenant = TenantInForce {
            credentials: Some(std::sync::Arc::new(credentials)),
            ..tenant
        };
        let mut scene = Scene {
            double,
            broken,
            rig,
            number: 0,
        };
        let whole = cut_everywhere(&mut scene, 29, direction, Some(&tenant)).await;
        println!("{whole} bytes of TLS");
        assert!(whole > 500, "{whole}");
    }
}

#[tokio::test]
async fn a_connection_closed_while_idle_loses_nothing() {
    const ROUNDS: usize = 60;
    let mut scene = Scene::new(LATE).await;
    for round in 0..ROUNDS as u64 {
        let sent = scene.send();
        scene.arrives(&sent, "kept").await;
        // Before, while and after the next request is written.
        let closing = scene.broken.clone();
        let close = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_micros(round * 20)).await;
            closing.close();
        });
        let sent = scene.send();
        scene.arrives(&sent, "closed").await;
        close.await.unwrap();
    }
    let (asked, connections) = scene
        .double
        .memory(|memory| (memory.asked.len(), memory.connections));
    println!(
        "{} requests, {asked} attempts seen, {connections} connections",
        scene.number
    );
    assert!(asked >= scene.number);
    // One at first, and one behind each that was closed; only behind the last one nothing may have been sent.
    assert!(connections >= ROUNDS, "{connections} connections");
}
