//! A browser under test: a Chromium without a window, spoken to by the DevTools protocol over two pipes (deploy/local/browser).
//!
//! It knows how to open a page, run a script in it, and take a picture. What a page said to nobody (exceptions, refused loads, dialogs)
//! is kept for a test to look at.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use base64::Engine;
use serde_json::{Value, json};

use super::PATIENCE;

pub struct Browser {
    child: Child,
    input: ChildStdin,
    answers: Receiver<Value>,
    session: String,
    next: u64,
    /// Exceptions, entries of the browser's log and dialogs.
    pub said: Vec<String>,
}

impl Browser {
    /// Starts one with an empty profile in `home`, and one page.
    pub fn start(home: &Path) -> Browser {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy/local/browser/browser.sh");
        let mut child = Command::new(script)
            .arg("pipe")
            .arg(format!("--user-data-dir={}", home.join("browser").display()))
            .env("HOME", std::env::var_os("HOME").unwrap_or_default())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the browser starts");
        let input = child.stdin.take().expect("piped");
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        let (send, answers) = channel();
        std::thread::spawn(move || {
            let mut message = Vec::new();
            while output.read_until(0, &mut message).is_ok_and(|n| n > 0) {
                message.pop();
                if let Ok(value) = serde_json::from_slice(&message) {
                    if send.send(value).is_err() {
                        return;
                    }
                }
                message.clear();
            }
        });
        let mut browser = Browser { child, input, answers, session: String::new(), next: 0, said: Vec::new() };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }))["targetId"].clone();
        let attached = browser.call("Target.attachToTarget", json!({ "targetId": target, "flatten": true }));
        browser.session = attached["sessionId"].as_str().expect("a session").to_owned();
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// One command and its result.
    #[track_caller]
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        self.next += 1;
        let id = self.next;
        let mut message = json!({ "id": id, "method": method, "params": params });
        if !self.session.is_empty() {
            message["sessionId"] = self.session.as_str().into();
        }
        self.input.write_all(format!("{message}\0").as_bytes()).expect("the browser reads");
        let started = Instant::now();
        loop {
            let left = PATIENCE.saturating_sub(started.elapsed());
            let answer = self.answers.recv_timeout(left).unwrap_or_else(|e| panic!("{method}: {e}"));
            if answer["id"] == id {
                assert!(answer.get("error").is_none(), "{method}: {}", answer["error"]);
                return answer["result"].clone();
            }
            self.heard(&answer);
        }
    }

    fn heard(&mut self, event: &Value) {
        let params = &event["params"];
        match event["method"].as_str().unwrap_or_default() {
            "Runtime.exceptionThrown" => self.said.push(format!("exception: {}", params["exceptionDetails"])),
            "Log.entryAdded" => self.said.push(format!("log: {} {}", params["entry"]["text"], params["entry"]["url"])),
            "Page.javascriptDialogOpening" => {
                self.said.push(format!("dialog: {}", params["message"]));
                self.next += 1;
                let message = json!({ "id": self.next, "method": "Page.handleJavaScriptDialog", "params": { "accept": true }, "sessionId": self.session });
                self.input.write_all(format!("{message}\0").as_bytes()).expect("the browser reads");
            }
            _ => {}
        }
    }

    /// The value of an expression in the page; promises are awaited.
    #[track_caller]
    pub fn eval(&mut self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let result = self.call("Runtime.evaluate", params);
        assert!(result.get("exceptionDetails").is_none(), "{expression}: {}", result["exceptionDetails"]);
        result["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    #[track_caller]
    pub fn until(&mut self, what: &str, expression: &str) {
        let started = Instant::now();
        while self.eval(expression) != Value::Bool(true) {
            if started.elapsed() > Duration::from_secs(60) {
                let body = self.eval("document.body.innerText");
                panic!("still waiting for {what}; the page says:\n{}\nand besides: {:#?}", body.as_str().unwrap_or_default(), self.said);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({ "url": url }));
        self.until("the page", "document.readyState === 'complete'");
    }

    /// A size and colours as a device has them.
    pub fn look(&mut self, width: u32, height: u32, mobile: bool, scheme: &str) {
        self.call("Emulation.setDeviceMetricsOverride", json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile }));
        self.call("Emulation.setEmulatedMedia", json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] }));
    }

    /// A picture of the whole page.
    pub fn picture(&mut self, file: &Path) {
        let shot = self.call("Page.captureScreenshot", json!({ "format": "png", "captureBeyondViewport": true }));
        let bytes = base64::engine::general_purpose::STANDARD.decode(shot["data"].as_str().expect("a picture")).expect("base64");
        std::fs::write(file, bytes).expect("the picture is kept");
    }

    /// Types into a field and tells the page.
    pub fn fill(&mut self, selector: &str, text: &str) {
        let (selector, text) = (Value::from(selector), Value::from(text));
        self.eval(&format!("(() => {{ const f = document.querySelector({selector}); f.value = {text}; f.dispatchEvent(new Event('input')); }})()"));
    }

    pub fn click(&mut self, selector: &str) {
        self.eval(&format!("document.querySelector({}).click()", Value::from(selector)));
    }

    /// The text of an element, as it is shown.
    pub fn text(&mut self, selector: &str) -> String {
        let found = self.eval(&format!("document.querySelector({})?.innerText ?? ''", Value::from(selector)));
        found.as_str().unwrap_or_default().to_owned()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
