//! A headless Chromium, driven by its own protocol (Chrome DevTools Protocol) over a pipe: no port, no
//! library between.
//!
//! Contract: one page at a time; every wait is for a message of the browser's. The browser and its profile
//! are gone when this is dropped.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// The names under which systems install it.
const NAMES: &[&str] = &["chromium", "chromium-browser", "google-chrome"];

pub struct Browser {
    process: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    session: Option<String>,
    last: u64,
    /// What the page complained of since it was opened: exceptions, and what its policy refused.
    pub complaints: Vec<String>,
    loaded: bool,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// A browser with an empty page; none where none is installed.
    pub fn start() -> Option<Self> {
        let installed = |name: &&&str| {
            Command::new("sh")
                .args(["-c", "command -v \"$0\" >/dev/null", name])
                .status()
                .is_ok_and(|s| s.success())
        };
        let program = NAMES.iter().find(installed)?;
        let profile = tempfile::tempdir().unwrap();
        // It reads commands from descriptor 3 and answers on 4.
        let line = "exec \"$0\" --headless=new --no-sandbox --disable-gpu --no-first-run --window-size=1300,900 \
                    --disable-background-networking --remote-debugging-pipe --user-data-dir=\"$1\" about:blank \
                    3<&0 4>&1 0</dev/null 1>/dev/null 2>/dev/null";
        let mut process = Command::new("sh")
            .args(["-c", line, program])
            .arg(profile.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (to, from) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let mut browser = Browser {
            process,
            to,
            from: BufReader::new(from),
            session: None,
            last: 0,
            complaints: Vec::new(),
            loaded: false,
            _profile: profile,
        };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", attach);
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page.enable", "Log.enable", "Runtime.enable"] {
            browser.call(domain, json!({}));
        }
        Some(browser)
    }

    /// Sends a command and waits for its answer.
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        self.last += 1;
        let mut message = json!({ "id": self.last, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        self.to.write_all(format!("{message}\0").as_bytes()).unwrap();
        loop {
            let mut message = self.next();
            if message["id"] == self.last {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].take();
            }
        }
    }

    fn next(&mut self) -> Value {
        let mut bytes = Vec::new();
        self.from.read_until(0, &mut bytes).unwrap();
        assert_eq!(bytes.pop(), Some(0), "the browser ended");
        let message: Value = serde_json::from_slice(&bytes).unwrap();
        match message["method"].as_str() {
            Some("Page.loadEventFired") => self.loaded = true,
            Some("Runtime.exceptionThrown" | "Log.entryAdded" | "Page.javascriptDialogOpening") => {
                self.complaints.push(message.to_string());
            }
            _ => {}
        }
        message
    }

    /// Opens an address and waits until it is loaded, and drawn once.
    pub fn open(&mut self, address: &str) {
        // Else an address that differs in its fragment only would load nothing.
        for address in ["about:blank", address] {
            self.loaded = false;
            self.complaints.clear();
            self.call("Page.navigate", json!({ "url": address }));
            while !self.loaded {
                self.next();
            }
        }
        self.drawn();
    }

    /// Waits until what was changed is on the screen.
    pub fn drawn(&mut self) {
        self.value(
            "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))",
        );
    }

    /// The value of an expression in the page.
    pub fn value(&mut self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let mut result = self.call("Runtime.evaluate", params);
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        result["result"]["value"].take()
    }

    /// The same, as text.
    pub fn text(&mut self, expression: &str) -> String {
        let value = self.value(expression);
        value.as_str().map_or_else(|| value.to_string(), str::to_owned)
    }

    /// Presses a key where the focus is.
    pub fn press(&mut self, key: &str) {
        let code = match key {
            "Enter" => 13,
            "Escape" => 27,
            "End" => 35,
            "Home" => 36,
            "ArrowLeft" => 37,
            "ArrowUp" => 38,
            "ArrowRight" => 39,
            "ArrowDown" => 40,
            other => panic!("{other}: not a key of these tests"),
        };
        for way in ["keyDown", "keyUp"] {
            let mut params = json!({ "type": way, "key": key, "code": key, "windowsVirtualKeyCode": code });
            if (key, way) == ("Enter", "keyDown") {
                params["text"] = "\r".into();
            }
            self.call("Input.dispatchKeyEvent", params);
        }
        self.drawn();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.session = None;
        let close = format!("{}\0", json!({ "id": self.last + 1, "method": "Browser.close" }));
        if self.to.write_all(close.as_bytes()).is_err() {
            let _ = self.process.kill();
        }
        let _ = self.process.wait();
    }
}
