//! `replay --hold STEP`, and what `up` says of processes as well: the scenario waits before a step until somebody says go on.

use crate::terminal::{notice, one_line};
use faultbox_engine::runner::hold::{HeldService, Hold};
use faultbox_engine::step::StepCall;
use std::sync::atomic::{AtomicBool, Ordering};

/// A process, and how a debugger gets hold of it.
pub fn attachable(pid: u32) -> String {
    format!("process {pid}; gdb -p {pid}, or for Go: dlv attach {pid}")
}

/// Waits before one step for a line, or the end, of standard input.
pub struct AtStep {
    step: u32,
    reached: AtomicBool,
}

impl AtStep {
    /// Before this step, counted from 0.
    pub fn new(step: u32) -> Self {
        AtStep { step, reached: AtomicBool::new(false) }
    }

    /// Says so, if the scenario ended without that step.
    pub fn end(&self) {
        if !self.reached.load(Ordering::SeqCst) {
            notice(&format!("faultbox: --hold: the scenario ended without a step {}", self.step));
        }
    }
}

impl Hold for AtStep {
    fn before_step(&self, number: u32, call: &StepCall, services: &[HeldService]) {
        if number != self.step {
            return;
        }
        self.reached.store(true, Ordering::SeqCst);
        let (service, interface) = (one_line(&call.service), one_line(&call.interface));
        notice(&format!(
            "held before step {number}: {} {service}.{interface} ({})",
            one_line(&call.verb),
            one_line(&call.location)
        ));
        for HeldService { name, pid } in services {
            notice(&format!("  {}: {}", one_line(name), attachable(*pid)));
        }
        notice("Everything it asks for is answered meanwhile. Enter goes on, Ctrl-C ends the replay.");
        // Whatever comes, an error too, goes on.
        let _ = std::io::stdin().read_line(&mut String::new());
    }
}
