//! The filter program: which syscalls go to the supervisor.
//!
//! Contract: a pure function from the trapped numbers to instructions. Calls of another
//! architecture pass. `io_uring_setup` answers ENOSYS: its operations would go past the filter,
//! and programs fall back; so does `io_setup` where reads or writes at a place are trapped. The kernel finds out by itself which calls always pass and does not
//! run the program for them.

use super::sys::Instruction;

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xC000_00B7;

const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K
const NUMBER_AT: u32 = 0; // offsets in struct seccomp_data
const ARCHITECTURE_AT: u32 = 4;

/// The program that traps these syscalls.
pub(super) fn program(trap: &[u32]) -> Vec<Instruction> {
    let step = |code, if_true, if_false, operand| Instruction { code, if_true, if_false, operand };
    let mut program = vec![
        step(LOAD_WORD, 0, 0, ARCHITECTURE_AT),
        step(JUMP_EQUAL, 1, 0, ARCHITECTURE),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
        step(LOAD_WORD, 0, 0, NUMBER_AT),
    ];
    let mut on = |number: u32, action: u32| {
        program.push(step(JUMP_EQUAL, 0, 1, number));
        program.push(step(RETURN, 0, 0, action));
    };
    for number in trap {
        on(*number, libc::SECCOMP_RET_USER_NOTIF);
    }
    let missing = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();
    on(libc::SYS_io_uring_setup as u32, missing);
    // Databases write their pages by this one; without it they use the calls that are trapped.
    if [libc::SYS_pwrite64, libc::SYS_pread64].iter().any(|number| trap.contains(&(*number as u32))) {
        on(libc::SYS_io_setup as u32, missing);
    }
    program.push(step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW));
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the program returns for a call.
    fn run(program: &[Instruction], number: u32, architecture: u32) -> u32 {
        let (mut at, mut word) = (0, 0);
        loop {
            let i = program[at];
            at += 1;
            match i.code {
                LOAD_WORD => word = if i.operand == NUMBER_AT { number } else { architecture },
                JUMP_EQUAL => at += usize::from(if word == i.operand { i.if_true } else { i.if_false }),
                RETURN => return i.operand,
                other => panic!("unknown instruction {other}"),
            }
        }
    }

    #[test]
    fn traps_what_is_planned_and_nothing_else() {
        let trap: Vec<u32> = super::super::calls::CALLS.iter().map(|call| call.number).collect();
        let program = program(&trap);
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
