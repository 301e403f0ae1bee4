//! What to write over a process's vDSO, so that its wall clock is read from a slot there.
//!
//! Contract: pure; from the image of a vDSO to the bytes that change and their places. A program reads the
//! clock through these functions without a syscall, so that no filter sees it. The new code of
//! `clock_gettime`, `gettimeofday` and `time` reads the time since the Unix epoch from one of two slots
//! beside it; a byte says which one, so that whoever moves the clock writes the other one first and no
//! reader sees half a time. A slot is one word, seconds above nanoseconds, so that nobody has to divide. Two more slots hold the clocks that run from the host's start, where those are ours
//! too. Other clocks become real syscalls, which pass.
//! `getrandom` says that it is not there, after which libraries make the syscall.
//! Not modelled: other architectures than x86-64, the 32-bit vDSO, `rdtsc`, the vsyscall page.
//!
//! Source: vdso(7); the calling convention is that of the System V ABI, x86-64, section 3.2.

use object::read::elf::ElfFile64;
use object::{LittleEndian, Object, ObjectSymbol};

/// In front of the slots: this image was changed by us.
const MARK: [u8; 8] = *b"\xf4FBclock";

/// From the mark to the byte that says which slot counts, and to the two slots.
const WALL: Slots = Slots { which: 8, at: 16 };
/// The same for the clocks that run from the host's start.
const MONOTONIC: Slots = Slots { which: 9, at: 32 };
const DATA: usize = 48;

/// Bits of a slot's word that are nanoseconds; the seconds are above them, which is enough until the year 2514.
const NANOS_BITS: u8 = 30;

/// The word of a slot; the last time that there is where it is beyond that.
fn word(ns: u64) -> [u8; 8] {
    let (seconds, nanos) = (ns / 1_000_000_000, ns % 1_000_000_000);
    (seconds.min((1 << (64 - NANOS_BITS)) - 1) << NANOS_BITS | nanos).to_le_bytes()
}

#[derive(Clone, Copy)]
struct Slots {
    which: usize,
    at: usize,
}

/// The clocks that tell the wall clock.
pub(super) const WALL_CLOCKS: [libc::clockid_t; 3] =
    [libc::CLOCK_REALTIME, libc::CLOCK_REALTIME_COARSE, libc::CLOCK_TAI];

/// Clocks that run while a service waits and are not the wall clock.
pub(super) const MONOTONIC_CLOCKS: [libc::clockid_t; 4] =
    [libc::CLOCK_MONOTONIC, libc::CLOCK_MONOTONIC_RAW, libc::CLOCK_MONOTONIC_COARSE, libc::CLOCK_BOOTTIME];

/// What a service's clocks show, where they are not the host's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Clocks {
    /// The wall clock, nanoseconds since the Unix epoch.
    pub wall_ns: Option<u64>,
    /// The others, nanoseconds. Only beside a wall clock.
    pub monotonic_ns: Option<u64>,
}

impl Clocks {
    /// The clocks that read each pair of slots.
    fn kinds(self) -> Vec<(&'static [libc::clockid_t], Slots)> {
        let wall = self.wall_ns.map(|_| (&WALL_CLOCKS[..], WALL));
        let monotonic = self.monotonic_ns.map(|_| (&MONOTONIC_CLOCKS[..], MONOTONIC));
        [wall, monotonic].into_iter().flatten().collect()
    }
}

/// Why an image cannot be changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unknown {
    /// It is no ELF image.
    #[error("its vDSO cannot be read: {0}")]
    Image(String),
    /// A function is missing.
    #[error("its vDSO has no {0}")]
    Missing(&'static str),
    /// There is no room.
    #[error("its vDSO has {has} bytes for clock_gettime, and {needs} are needed")]
    Room {
        /// Bytes that are there.
        has: usize,
        /// Bytes that it takes.
        needs: usize,
    },
}

/// Bytes to write, by offset in the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Patch {
    /// Where, and what.
    pub writes: Vec<(usize, Vec<u8>)>,
}

/// What to change in this image; `None` where that was done. `clocks` is what they show at first; where none is
/// ours, their functions become syscalls. With `dice`, `getrandom` is one.
pub(super) fn patch(image: &[u8], clocks: Clocks, dice: bool) -> Result<Option<Patch>, Unknown> {
    let functions = Functions::of(image)?;
    let (at, size) = functions.clock_gettime;
    let code = Code::at(at, clocks);
    if code.end - at > size {
        return Err(Unknown::Room { has: size, needs: code.end - at });
    }
    if image.get(code.data..code.data + MARK.len()) == Some(&MARK[..]) {
        return Ok(None);
    }
    let mut data = vec![0; DATA];
    data[..MARK.len()].copy_from_slice(&MARK);
    for (slots, shows) in [(WALL, clocks.wall_ns), (MONOTONIC, clocks.monotonic_ns)] {
        data[slots.at..slots.at + 8].copy_from_slice(&word(shows.unwrap_or_default()));
    }
    let mut writes = Vec::new();
    if clocks.wall_ns.is_none() {
        let calls = [
            (Some(at), libc::SYS_clock_gettime),
            (functions.gettimeofday, libc::SYS_gettimeofday),
            (functions.time, libc::SYS_time),
        ];
        writes.extend(calls.into_iter().filter_map(|(from, number)| Some((from?, syscall(number)))));
    } else {
        writes.push((code.gettimeofday, gettimeofday(code.gettimeofday, code.data)));
        writes.push((code.time, time(code.time, code.data)));
        for (from, to) in [(functions.gettimeofday, code.gettimeofday), (functions.time, code.time)] {
            writes.extend(from.map(|from| (from, jump(from, to))));
        }
        writes.push((at, clock_gettime(at, code.data, clocks)));
    }
    if dice {
        writes.extend(functions.getrandom.map(|from| (from, refuse())));
    }
    writes.push((code.data, data));
    Ok(Some(Patch { writes }))
}

/// What to write, in this order, for the wall clock to show this time; `None` where the image was not changed.
pub(super) fn show(image: &[u8], now_ns: u64) -> Option<[(usize, Vec<u8>); 2]> {
    set(image, WALL, now_ns)
}

/// What to write, in this order, for the other clocks to show this; `None` where the image was not changed.
pub(super) fn show_monotonic(image: &[u8], now_ns: u64) -> Option<[(usize, Vec<u8>); 2]> {
    set(image, MONOTONIC, now_ns)
}

fn set(image: &[u8], slots: Slots, now_ns: u64) -> Option<[(usize, Vec<u8>); 2]> {
    let data = data_of(image)?;
    let next = (image.get(data + slots.which)? ^ 1) & 1;
    let slot = data + slots.at + 8 * usize::from(next);
    Some([(slot, word(now_ns).to_vec()), (data + slots.which, vec![next])])
}

/// Where the slots are, in an image that was changed: right behind the code of `clock_gettime`, of which there
/// is more than one kind.
fn data_of(image: &[u8]) -> Option<usize> {
    let at = Functions::of(image).ok()?.clock_gettime.0;
    let wall_ns = Some(0);
    let kinds = [Clocks { wall_ns, monotonic_ns: None }, Clocks { wall_ns, monotonic_ns: Some(0) }];
    let mut places = kinds.into_iter().map(|clocks| Code::at(at, clocks).data);
    places.find(|data| image.get(*data..data + DATA).is_some_and(|held| held.starts_with(&MARK)))
}

struct Functions {
    clock_gettime: (usize, usize),
    gettimeofday: Option<usize>,
    time: Option<usize>,
    getrandom: Option<usize>,
}

impl Functions {
    fn of(image: &[u8]) -> Result<Self, Unknown> {
        let file = ElfFile64::<LittleEndian>::parse(image);
        let file = file.map_err(|error| Unknown::Image(error.to_string()))?;
        let find = |name: &str| {
            let symbol = file.dynamic_symbols().find(|symbol| symbol.name() == Ok(name))?;
            let (at, size) = (usize::try_from(symbol.address()).ok()?, usize::try_from(symbol.size()).ok()?);
            (at.checked_add(size)? <= image.len()).then_some((at, size))
        };
        let place = |name| find(name).map(|(at, _)| at);
        Ok(Functions {
            clock_gettime: find("__vdso_clock_gettime").ok_or(Unknown::Missing("clock_gettime"))?,
            gettimeofday: place("__vdso_gettimeofday"),
            time: place("__vdso_time"),
            getrandom: place("__vdso_getrandom"),
        })
    }
}

/// Where everything stands in the room of `clock_gettime`.
struct Code {
    data: usize,
    gettimeofday: usize,
    time: usize,
    end: usize,
}

impl Code {
    fn at(clock_gettime_at: usize, clocks: Clocks) -> Self {
        let data = (clock_gettime_at + clock_gettime(0, 0, clocks).len()).next_multiple_of(8);
        let gettimeofday_at = data + DATA;
        let time_at = gettimeofday_at + gettimeofday(0, 0).len();
        Code { data, gettimeofday: gettimeofday_at, time: time_at, end: time_at + time(0, 0).len() }
    }
}

/// A distance in the image, which is a few pages long, as an instruction holds it.
fn distance(from: usize, to: usize) -> [u8; 4] {
    (to as i32).wrapping_sub(from as i32).to_le_bytes()
}

/// To rax: the seconds that a slot holds; to rdx: the nanoseconds beyond. Uses rcx. Begins at `at`.
fn seconds(at: usize, data: usize, slots: Slots) -> Vec<u8> {
    let mut code = vec![0x48, 0x8D, 0x0D]; // lea rcx, [rip + data]
    code.extend(distance(at + 7, data));
    code.extend([0x0F, 0xB6, 0x41, slots.which as u8]); // movzx eax, byte [rcx + which]
    code.extend([0x48, 0x8B, 0x44, 0xC1, slots.at as u8]); // mov rax, [rcx + rax * 8 + slots]
    code.extend([0x89, 0xC2]); // mov edx, eax
    code.extend([0x81, 0xE2]); // and edx, the bits of nanoseconds
    code.extend(((1_u32 << NANOS_BITS) - 1).to_le_bytes());
    code.extend([0x48, 0xC1, 0xE8, NANOS_BITS]); // shr rax, to the seconds
    code
}

/// `int clock_gettime(edi clock, rsi *timespec)`.
fn clock_gettime(at: usize, data: usize, clocks: Clocks) -> Vec<u8> {
    const COMPARES: usize = 5;
    let told = |at: usize, slots: Slots| {
        let mut told = seconds(at, data, slots);
        told.extend([0x48, 0x89, 0x06]); // mov [rsi], rax
        told.extend([0x48, 0x89, 0x56, 0x08]); // mov [rsi + 8], rdx
        told.extend([0x31, 0xC0, 0xC3]); // xor eax, eax; ret
        told
    };
    let others = syscall(libc::SYS_clock_gettime);
    let kinds = clocks.kinds();
    let compared: usize = kinds.iter().map(|(clocks, _)| clocks.len() * COMPARES).sum();
    let mut starts = compared + others.len();
    let (mut compares, mut tells) = (Vec::new(), Vec::new());
    for (clocks, slots) in kinds {
        for clock in clocks {
            let left = starts - compares.len() - COMPARES;
            compares.extend([0x83, 0xFF, *clock as u8, 0x74, left as u8]); // cmp edi, clock; je to what it is told
        }
        let told = told(at + starts, slots);
        starts += told.len();
        tells.extend(told);
    }
    [compares, others, tells].concat()
}

/// `int gettimeofday(rdi *timeval, rsi *timezone)`; either may be null.
fn gettimeofday(at: usize, data: usize) -> Vec<u8> {
    let mut told = seconds(at + 5, data, WALL);
    told.extend([0x48, 0x89, 0x07]); // mov [rdi], rax
    told.extend([0x89, 0xD0]); // mov eax, edx
    told.extend([0x31, 0xD2]); // xor edx, edx
    told.push(0xB9); // mov ecx, 1000
    told.extend(1000_u32.to_le_bytes());
    told.extend([0xF7, 0xF1]); // div ecx
    told.extend([0x48, 0x89, 0x47, 0x08]); // mov [rdi + 8], rax
    let mut code = vec![0x48, 0x85, 0xFF, 0x74, told.len() as u8]; // test rdi, rdi; je over it
    code.extend(told);
    code.extend([0x48, 0x85, 0xF6, 0x74, 0x07]); // test rsi, rsi; je over it
    code.extend([0x48, 0xC7, 0x06, 0, 0, 0, 0]); // mov qword [rsi], 0
    code.extend([0x31, 0xC0, 0xC3]); // xor eax, eax; ret
    code
}

/// `time_t time(rdi *time_t)`; it may be null.
fn time(at: usize, data: usize) -> Vec<u8> {
    let mut code = seconds(at, data, WALL);
    code.extend([0x48, 0x85, 0xFF, 0x74, 0x03]); // test rdi, rdi; je over it
    code.extend([0x48, 0x89, 0x07]); // mov [rdi], rax
    code.push(0xC3); // ret
    code
}

/// Makes this syscall, its arguments where they are.
fn syscall(number: libc::c_long) -> Vec<u8> {
    let mut code = vec![0xB8]; // mov eax, number
    code.extend((number as u32).to_le_bytes());
    code.extend([0x0F, 0x05, 0xC3]); // syscall; ret
    code
}

/// Returns -ENOSYS.
fn refuse() -> Vec<u8> {
    let mut code = vec![0x48, 0xC7, 0xC0]; // mov rax, -ENOSYS
    code.extend((-libc::ENOSYS).to_le_bytes());
    code.push(0xC3); // ret
    code
}

fn jump(from: usize, to: usize) -> Vec<u8> {
    let mut code = vec![0xE9]; // jmp to
    code.extend(distance(from + 5, to));
    code
}

#[cfg(test)]
mod tests {
    //! Goal: what is written stays inside the functions that it replaces, is found again, and no image makes
    //! this panic. That the code does what it says is shown by programs (`tests/supervisor.rs`).

    use super::super::mediate::vdso_of_this_process;
    use super::*;

    const WALL_ONLY: Clocks = Clocks { wall_ns: Some(7), monotonic_ns: None };
    const BOTH: Clocks = Clocks { monotonic_ns: Some(8), ..WALL_ONLY };

    fn changed(image: &[u8], patch: &Patch) -> Vec<u8> {
        let mut image = image.to_vec();
        for (at, bytes) in &patch.writes {
            image[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        image
    }

    #[test]
    fn an_image_is_changed_once_and_inside_its_functions() {
        let image = vdso_of_this_process();
        for (clocks, dice) in [Clocks::default(), WALL_ONLY, BOTH]
            .into_iter()
            .flat_map(|clocks| [(clocks, true), (clocks, false)])
        {
            let patch = patch(&image, clocks, dice).unwrap().unwrap();
            let file = ElfFile64::<LittleEndian>::parse(&*image).unwrap();
            for (at, bytes) in &patch.writes {
                let (at, end) = (*at as u64, (at + bytes.len()) as u64);
                let mut functions = file.dynamic_symbols().filter(|symbol| symbol.size() > 0);
                assert!(functions.any(|f| f.address() <= at && end <= f.address() + f.size()), "{at}..{end}");
            }
            let image = changed(&image, &patch);
            assert_eq!(super::patch(&image, clocks, dice), Ok(None));
        }
    }

    #[test]
    fn pushes_take_turns_with_the_slots() {
        let mut image = vdso_of_this_process();
        assert_eq!(show(&image, 1), None, "not changed yet");
        image = changed(&image, &patch(&image, WALL_ONLY, false).unwrap().unwrap());
        let [(first, _), (which, one)] = show(&image, 8).unwrap();
        image[which] = one[0];
        let [(second, time), (_, zero)] = show(&image, 9).unwrap();
        assert_eq!((one, zero, time), (vec![1], vec![0], word(9).to_vec()));
        assert_eq!(first, second + 8);
    }

    #[test]
    fn the_other_clocks_have_slots_of_their_own() {
        let image = vdso_of_this_process();
        let image = changed(&image, &patch(&image, BOTH, false).unwrap().unwrap());
        let [(wall, _), (wall_which, _)] = show(&image, 1).unwrap();
        let [(monotonic, value), (which, _)] = show_monotonic(&image, 4).unwrap();
        assert_eq!((monotonic - wall, which - wall_which), (16, 1));
        assert_eq!(value, word(4));
    }

    #[test]
    fn a_vdso_without_room_is_refused() {
        assert!(matches!(patch(b"no image", WALL_ONLY, true), Err(Unknown::Image(_))));
        assert_eq!(Functions::of(&[]).err().map(|e| matches!(e, Unknown::Image(_))), Some(true));
    }

    proptest::proptest! {
        #[test]
        fn no_image_makes_it_panic(at in 0_usize..8192, byte: u8, cut in 0_usize..8192) {
            let mut image = vdso_of_this_process();
            if let Some(place) = image.get_mut(at) {
                *place = byte;
            }
            image.truncate(cut.max(at));
            let _ = patch(&image, WALL_ONLY, true);
            let _ = show(&image, 1);
            let _ = show_monotonic(&image, 0);
        }
    }
}
