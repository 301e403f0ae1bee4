//! The filter program: which syscalls go to the supervisor.
//!
//! Contract: a pure function from the trapped numbers to instructions, which libseccomp writes.
//! Calls of another architecture pass. `io_uring_setup` answers ENOSYS: its operations would go
//! past the filter, and programs fall back; so does `io_setup` where reads or writes at a place
//! are trapped. The kernel finds out by itself which calls always pass and does not run the
//! program for them.
//! Not done by libseccomp: the loading ([`super::sys::install_filter`]). Its 2.5 knows neither
//! `WAIT_KILLABLE_RECV` nor how to hand the program to another process.

use super::features::{Feature, refuse};
use super::sys::{self, Instruction};
use libseccomp::error::SeccompError;
use libseccomp::{ScmpAction, ScmpFilterContext, ScmpSyscall};
use nix::errno::Errno;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::OwnedFd;

/// Puts a filter that traps these syscalls on this thread. Gives its listener, and whether trapped
/// calls wait on when signals arrive.
///
/// # Errors
/// When the program cannot be written, or the kernel refuses it.
pub(super) fn install(trap: &[u32]) -> nix::Result<(OwnedFd, bool)> {
    refuse(Feature::Notify)?;
    sys::install_filter(&program(trap)?, refuse(Feature::WaitKillable).is_ok())
}

/// The program that traps these syscalls.
///
/// # Errors
/// When libseccomp cannot write it.
pub(super) fn program(trap: &[u32]) -> nix::Result<Vec<Instruction>> {
    let filter = rules(trap)
        .map_err(|error| error.sysrawrc().map_or(Errno::EINVAL, |errno| Errno::from_raw(errno.abs())))?;
    let memory = nix::sys::memfd::memfd_create(c"filter", nix::sys::memfd::MFdFlags::MFD_CLOEXEC)?;
    let mut memory = File::from(memory);
    filter.export_bpf(&memory).map_err(|_| Errno::EIO)?;
    let mut bytes = Vec::new();
    let read = memory.rewind().and_then(|()| memory.read_to_end(&mut bytes));
    read.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
    Ok(bytes.chunks_exact(8).filter_map(Instruction::of).collect())
}

fn rules(trap: &[u32]) -> Result<ScmpFilterContext, SeccompError> {
    let mut filter = ScmpFilterContext::new(ScmpAction::Allow)?;
    filter.set_act_badarch(ScmpAction::Allow)?;
    let calls = trap.iter().map(|number| (ScmpAction::Notify, number.cast_signed()));
    let mut refused = vec![libc::SYS_io_uring_setup as i32];
    // Databases write their pages by this one; without it they use the calls that are trapped.
    if [libc::SYS_pwrite64, libc::SYS_pread64].iter().any(|number| trap.contains(&(*number as u32))) {
        refused.push(libc::SYS_io_setup as i32);
    }
    let refused = refused.into_iter().map(|number| (ScmpAction::Errno(libc::ENOSYS), number));
    for (action, number) in calls.chain(refused) {
        filter.add_rule(action, ScmpSyscall::from(number))?;
    }
    Ok(filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const JUMP_ALWAYS: u16 = 0x05; // BPF_JMP | BPF_JA
    const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const JUMP_ABOVE: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
    const JUMP_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    #[cfg(target_arch = "x86_64")]
    const ARCHITECTURE: u32 = 0xC000_003E;
    #[cfg(target_arch = "aarch64")]
    const ARCHITECTURE: u32 = 0xC000_00B7;

    /// What the program returns for a call.
    fn run(program: &[Instruction], number: u32, architecture: u32) -> u32 {
        let (mut at, mut word) = (0, 0);
        loop {
            let i = program[at];
            let held = match i.code {
                JUMP_EQUAL => word == i.operand,
                JUMP_ABOVE => word > i.operand,
                JUMP_AT_LEAST => word >= i.operand,
                LOAD_WORD => {
                    // The offsets in struct seccomp_data.
                    word = if i.operand == 0 { number } else { architecture };
                    true
                }
                JUMP_ALWAYS => true,
                RETURN => return i.operand,
                other => panic!("unknown instruction {other}"),
            };
            let jump = match i.code {
                LOAD_WORD => 0,
                JUMP_ALWAYS => i.operand as usize,
                _ => usize::from(if held { i.if_true } else { i.if_false }),
            };
            at += 1 + jump;
        }
    }

    #[test]
    fn traps_what_is_planned_and_nothing_else() {
        let trap: Vec<u32> = super::super::calls::CALLS.iter().map(|call| call.number).collect();
        let program = program(&trap).unwrap();
        for number in 0..600 {
            let wanted = if trap.contains(&number) {
                libc::SECCOMP_RET_USER_NOTIF
            } else if [libc::SYS_io_uring_setup, libc::SYS_io_setup].contains(&i64::from(number)) {
                libc::SECCOMP_RET_ERRNO | 38
            } else {
                libc::SECCOMP_RET_ALLOW
            };
            assert_eq!(run(&program, number, ARCHITECTURE), wanted, "{number}");
            assert_eq!(run(&program, number, 0x4000_0003), libc::SECCOMP_RET_ALLOW, "i386 {number}");
        }
    }
}
