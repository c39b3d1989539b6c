//! The page of the host in a real browser, through a forwarded port as a person would open it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use napa_api::control::MemoryReport;
use napa_api::host::VmState;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};

use crate::daemon::{Daemon, IDLE};
use crate::support::{Host, PATIENCE, wait_until};

/// A port of the loopback that leads to a Unix socket, as `ssh -L` makes one. It is open until the test ends.
fn forward(socket: PathBuf) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for browser in listener.incoming().flatten() {
            let Ok(daemon) = UnixStream::connect(&socket) else { continue };
            let (to_daemon, from_browser) = (daemon.try_clone().unwrap(), browser.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = io::copy(&mut &from_browser, &mut &to_daemon);
                let _ = to_daemon.shutdown(Shutdown::Write);
            });
            std::thread::spawn(move || {
                let _ = io::copy(&mut &daemon, &mut &browser);
                let _ = browser.shutdown(Shutdown::Both);
            });
        }
    });
    port
}

/// Chromium, driven by WebDriver (W3C). It ends with the test.
struct Browser {
    driver: Child,
    port: u16,
    session: String,
}

impl Browser {
    /// `None`, with a word about it: there is none.
    fn start() -> Option<Self> {
        let mut command = Command::new("chromedriver");
        // Its browser is in its process group, and ends with it.
        command.arg("--port=0").process_group(0);
        let driver = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut driver = match driver {
            Ok(driver) => driver,
            Err(error) => {
                println!("skipped: chromedriver cannot be started: {error}");
                return None;
            }
        };
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines.find_map(|line| {
            let line = line.ok()?;
            line.split_once("successfully on port ")?.1.trim_end_matches('.').parse().ok()
        });
        std::thread::spawn(move || lines.for_each(drop));
        let mut browser = Self { driver, port: port.unwrap(), session: String::new() };
        let words = ["--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1400,1300"];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {"args": words}, "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let session = browser.call("POST", "/session", &wanted);
        browser.session = session["sessionId"].as_str().unwrap().to_owned();
        Some(browser)
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let body = if method == "POST" { body.to_string() } else { String::new() };
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: localhost:{}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.port,
            body.len()
        )
        .unwrap();
        // The driver leaves the connection open: the length says where the answer ends.
        let mut answer = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(answer.read_line(&mut head).unwrap() > 0, "{method} {path}: {head}");
        }
        let length = head
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
        let mut body = vec![0; length.unwrap()];
        answer.read_exact(&mut body).unwrap();
        let body = String::from_utf8(body).unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{method} {path}: {body}");
        serde_json::from_str::<Value>(&body).unwrap()["value"].clone()
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        self.call(method, &format!("/session/{}{path}", self.session), body)
    }

    fn open(&self, url: &str) {
        self.ask("POST", "/url", &json!({ "url": url }));
    }

    /// What an expression of the page is.
    fn value(&self, expression: &str) -> Value {
        let script = format!("return ({expression});");
        self.ask("POST", "/execute/sync", &json!({ "script": script, "args": [] }))
    }

    fn wait(&self, expression: &str) {
        wait_until(expression, || self.value(expression) == json!(true));
    }

    /// Clicks as a person does: what is hidden or off cannot be clicked.
    fn click(&self, selector: &str) {
        let found = self.element(selector);
        self.ask("POST", &format!("/element/{found}/click"), &json!({}));
    }

    fn write(&self, selector: &str, text: &str) {
        let found = self.element(selector);
        self.ask("POST", &format!("/element/{found}/value"), &json!({ "text": text }));
    }

    fn element(&self, selector: &str) -> String {
        let found = self.ask("POST", "/element", &json!({ "using": "css selector", "value": selector }));
        found.as_object().unwrap().values().next().unwrap().as_str().unwrap().to_owned()
    }

    fn complaints(&self) -> Vec<Value> {
        let log = self.ask("POST", "/se/log", &json!({ "type": "browser" }));
        log.as_array().unwrap().iter().filter(|entry| entry["level"] == "SEVERE").cloned().collect()
    }

    /// A PNG of what is seen.
    fn screenshot(&self) -> String {
        self.ask("GET", "/screenshot", &json!({})).as_str().unwrap().to_owned()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() && !std::thread::panicking() {
            self.ask("DELETE", "", &json!({}));
        }
        let group = Pid::from_child(&self.driver);
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.driver.wait();
    }
}

#[test]
fn a_person_sees_the_vms_in_a_browser_and_orders_what_they_do() {
    let Some(host) = Host::new() else { return };
    let Some(browser) = Browser::start() else { return };
    let daemon = Daemon::start(&host);
    daemon.create("web", &["--memory", "64M", "--cmdline", "workload=hold:24M,random balloon=on"]);
    daemon.napa(&[&["create", "other"], &IDLE[..]].concat());
    browser.open(&format!("http://localhost:{}/", forward(host.socket("host"))));
    browser.wait("document.getElementById('link').textContent === 'live'");
    browser.wait("document.querySelectorAll('#vms tbody tr').length === 2");
    browser.wait("state.samples.length >= 3 && state.rows.get('web').pss > 16 * 2 ** 20");
    // The picture has a colour where memory in RAM is.
    let drawn = "(canvas => [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]\
                 .some(value => value > 0))(document.getElementById('chart'))";
    assert_eq!(browser.value(drawn), json!(true));
    assert!(
        browser
            .value("document.getElementById('figures').textContent")
            .as_str()
            .unwrap()
            .contains("VMs hold")
    );

    browser.click("[data-order='web balloon']");
    browser.write("#size", "8M");
    browser.click("#ask button[value=order]");
    wait_until("that the guest gave up 8 MiB", || {
        let memory: MemoryReport = daemon.client().get("/v1/vms/web/memory").unwrap();
        memory.balloon.is_some_and(|balloon| balloon.held.0 == 8 << 20)
    });
    browser.wait("state.rows.get('web').ballooned === 8 * 2 ** 20");

    browser.click("[data-order='other start']");
    daemon.wait_state("other", VmState::Running);
    browser.wait("state.vms.get('other').state === 'running'");
    browser.click("[data-order='web stop']");
    daemon.wait_state("web", VmState::Stopped);
    browser.wait("state.vms.get('web').state === 'stopped' && !state.rows.has('web')");

    let picture = browser.screenshot();
    assert!(
        picture.starts_with("iVBORw0KGgo") && picture.len() > 20_000,
        "a PNG of {} characters",
        picture.len()
    );
    assert_eq!(browser.value("document.getElementById('problem').hidden"), json!(true));
    assert_eq!(browser.complaints(), [json!(null); 0]);
}

#[test]
fn a_page_from_elsewhere_cannot_order_anything() {
    let Some(host) = Host::new() else { return };
    let daemon = Daemon::start(&host);
    daemon.napa(&[&["create", "vm"], &IDLE[..]].concat());
    for fields in [
        "Host: localhost:80\r\nOrigin: http://evil.example",
        "Host: evil.example\r\nOrigin: http://evil.example",
    ] {
        let answer = post(&host.socket("host"), "/v1/vms/vm/start", fields);
        assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("/problems/other-origin"), "{answer}");
    }
    assert_eq!(daemon.vm("vm").state, VmState::Created);
    let answer =
        post(&host.socket("host"), "/v1/vms/vm/start", "Host: localhost:80\r\nOrigin: http://localhost:80");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

fn post(socket: &Path, path: &str, fields: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    write!(stream, "POST {path} HTTP/1.1\r\n{fields}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
