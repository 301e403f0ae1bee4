//! The filter program: which syscalls go to the supervisor.
//!
//! Contract: a pure function from the trapped calls to instructions, which libseccomp writes.
//! Calls of another architecture pass. `io_uring_setup` answers ENOSYS: its operations would go
//! past the filter, and programs fall back; so does `io_setup` where reads or writes at a place
//! are trapped. The kernel finds out by itself which calls always pass and does not run the
//! program for them.
//! Not done by libseccomp: the loading ([`super::sys::install_filter`]). Its 2.5 knows neither
//! `WAIT_KILLABLE_RECV` nor how to hand the program to another process.

use super::features::{Feature, refuse};
use super::sys::{self, Instruction};
use libseccomp::error::SeccompError;
use libseccomp::{ScmpAction, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::OwnedFd;

/// What the filter traps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Trap {
    /// The syscall's number.
    pub number: u32,
    /// Only then, where it is not always.
    pub when: Option<When>,
    /// And not then.
    pub unless: Option<Unless>,
}

impl Trap {
    /// Every call with this number.
    pub(super) fn always(number: u32) -> Self {
        Trap { number, when: None, unless: None }
    }

    /// Those of which an argument is so.
    pub(super) fn when(number: u32, when: When) -> Self {
        Trap { number, when: Some(when), unless: None }
    }
}

/// What another argument, all of its bits, has to be for a call not to be trapped after all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Unless {
    /// Which argument, from 0; not the one of a [`When`].
    pub argument: u32,
    /// What it has to be.
    pub value: u64,
}

/// What an argument has to be for its call to be trapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct When {
    /// Which argument, from 0.
    pub argument: u32,
    /// The bits that count.
    pub mask: u64,
    /// What they have to be.
    pub value: u64,
}

impl When {
    /// The argument, an `int`, has this value.
    pub(super) fn is(argument: u32, value: u32) -> Self {
        When { argument, mask: u64::from(u32::MAX), value: u64::from(value) }
    }
}

/// Puts a filter that traps these syscalls on this thread. Gives its listener, and whether trapped
/// calls wait on when signals arrive.
///
/// # Errors
/// When the program cannot be written, or the kernel refuses it.
pub(super) fn install(trap: &[Trap]) -> nix::Result<(OwnedFd, bool)> {
    refuse(Feature::Notify)?;
    sys::install_filter(&program(trap)?, refuse(Feature::WaitKillable).is_ok())
}

/// The program that traps these syscalls.
///
/// # Errors
/// When libseccomp cannot write it.
pub(super) fn program(trap: &[Trap]) -> nix::Result<Vec<Instruction>> {
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

fn rules(trap: &[Trap]) -> Result<ScmpFilterContext, SeccompError> {
    let mut filter = ScmpFilterContext::new(ScmpAction::Allow)?;
    filter.set_act_badarch(ScmpAction::Allow)?;
    let always = |number: u32| trap.contains(&Trap::always(number));
    for Trap { number, when, unless } in trap {
        let call = ScmpSyscall::from(number.cast_signed());
        let when = when.map(|w| ScmpArgCompare::new(w.argument, ScmpCompareOp::MaskedEqual(w.mask), w.value));
        let unless = unless.map(|u| ScmpArgCompare::new(u.argument, ScmpCompareOp::NotEqual, u.value));
        let held: Vec<ScmpArgCompare> = when.into_iter().chain(unless).collect();
        if held.is_empty() {
            filter.add_rule(ScmpAction::Notify, call)?;
        } else if !always(*number) {
            filter.add_rule_conditional(ScmpAction::Notify, call, &held)?;
        }
    }
    let mut refused = vec![libc::SYS_io_uring_setup as i32];
    // Databases write their pages by this one; without it they use the calls that are trapped.
    let at_a_place = [libc::SYS_pwrite64, libc::SYS_pread64].iter().any(|number| always(*number as u32));
    if at_a_place && !always(libc::SYS_io_setup as u32) {
        refused.push(libc::SYS_io_setup as i32);
    }
    for number in refused {
        filter.add_rule(ScmpAction::Errno(libc::ENOSYS), ScmpSyscall::from(number))?;
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
    const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
    #[cfg(target_arch = "x86_64")]
    const ARCHITECTURE: u32 = 0xC000_003E;
    #[cfg(target_arch = "aarch64")]
    const ARCHITECTURE: u32 = 0xC000_00B7;

    /// What the program returns for a call.
    fn run(program: &[Instruction], number: u32, architecture: u32) -> u32 {
        run_with(program, number, architecture, [0; 6])
    }

    fn run_with(program: &[Instruction], number: u32, architecture: u32, arguments: [u64; 6]) -> u32 {
        let (mut at, mut word) = (0, 0);
        loop {
            let i = program[at];
            let held = match i.code {
                JUMP_EQUAL => word == i.operand,
                JUMP_ABOVE => word > i.operand,
                JUMP_AT_LEAST => word >= i.operand,
                LOAD_WORD => {
                    // The offsets in struct seccomp_data.
                    word = match i.operand {
                        0 => number,
                        4 => architecture,
                        // The arguments begin at 16, each with its low half first.
                        at => (arguments[(at as usize - 16) / 8] >> ((at % 8) * 8)) as u32,
                    };
                    true
                }
                AND => {
                    word &= i.operand;
                    true
                }
                JUMP_ALWAYS => true,
                RETURN => return i.operand,
                other => panic!("unknown instruction {other}"),
            };
            let jump = match i.code {
                LOAD_WORD | AND => 0,
                JUMP_ALWAYS => i.operand as usize,
                _ => usize::from(if held { i.if_true } else { i.if_false }),
            };
            at += 1 + jump;
        }
    }

    #[test]
    fn traps_what_is_planned_and_nothing_else() {
        let calls = super::super::calls::all();
        let trap: Vec<Trap> = calls.iter().map(|call| Trap::always(call.number)).collect();
        let program = program(&trap).unwrap();
        for number in 0..600 {
            let wanted = if trap.contains(&Trap::always(number)) {
                libc::SECCOMP_RET_USER_NOTIF
            } else if number == libc::SYS_io_uring_setup as u32 {
                libc::SECCOMP_RET_ERRNO | 38
            } else {
                libc::SECCOMP_RET_ALLOW
            };
            assert_eq!(run(&program, number, ARCHITECTURE), wanted, "{number}");
            assert_eq!(run(&program, number, 0x4000_0003), libc::SECCOMP_RET_ALLOW, "i386 {number}");
        }
    }

    #[test]
    fn traps_by_an_argument_where_that_is_planned() {
        let clock = libc::SYS_clock_gettime as u32;
        let futex = libc::SYS_futex as u32;
        let trap = [
            Trap::when(clock, When::is(0, 0)),
            Trap::when(clock, When::is(0, 5)),
            Trap::when(futex, When { argument: 1, mask: 256, value: 256 }),
            Trap {
                unless: Some(Unless { argument: 3, value: 0 }),
                ..Trap::when(futex, When { argument: 1, mask: 127, value: 9 })
            },
            Trap::when(1, When::is(0, 7)),
            Trap::always(1),
        ];
        let program = program(&trap).unwrap();
        let trapped = |number, arguments| {
            run_with(&program, number, ARCHITECTURE, arguments) == libc::SECCOMP_RET_USER_NOTIF
        };
        // The upper half of an `int` argument's register is anything.
        for (first, wanted) in [(0, true), (5, true), (1, false), (0xF_0000_0005, true)] {
            assert_eq!(trapped(clock, [first, 0, 0, 0, 0, 0]), wanted, "{first}");
        }
        for (operation, wanted) in [(393, true), (137, false), (256, true), (128, false)] {
            assert_eq!(trapped(futex, [0, operation, 0, 0, 0, 0]), wanted, "{operation}");
        }
        for (until, wanted) in [(0, false), (1, true), (1 << 40, true)] {
            assert_eq!(trapped(futex, [0, 137, 0, until, 0, 0]), wanted, "{until}");
        }
        assert!(trapped(1, [0; 6]));
    }
}
