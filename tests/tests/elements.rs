//! The agent changes maps under running programs: none of them finds another key's element where it
//! found its own.

use std::{
    io,
    mem::size_of_val,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use aya::maps::MapData;
use router_agent::dataplane::{DEFAULT_BPFFS, Dataplane, Former, Pins};
use router_common::map::{Interface, name};
use router_tests::lab::with_a_bpffs_of_its_own;

/// Interfaces: one whose element is replaced again and again, one that comes and goes, and others that
/// would take the place of either.
const CHANGING: u32 = 11;
const PASSING: u32 = 12;
const OTHERS: [u32; 2] = [13, 14];
/// What the programs know of the first two is told from the others' by this.
const OURS: u32 = 1;
const NOT_OURS: u32 = 2;
/// How often each is found.
const RUNS: usize = 200;

fn interface(flags: u32, protected_by: u16) -> Interface {
    Interface {
        flags,
        mac: [0; 6],
        protected_by,
    }
}

#[test]
fn a_program_goes_on_with_the_element_that_it_found() {
    let found = thread::spawn(|| {
        with_a_bpffs_of_its_own();
        change_under_lookups()
    })
    .join()
    .unwrap();
    for (key, flags) in [CHANGING, PASSING].into_iter().zip(found) {
        // Zero: it was not there.
        let wrong = flags.iter().filter(|flags| **flags == NOT_OURS).count();
        assert_eq!(wrong, 0, "of {} look-ups of {key}", flags.len());
        assert!(flags.contains(&OURS), "{key} was never found");
    }
}

/// What programs read of the first two keys while the elements change.
fn change_under_lookups() -> [Vec<u32>; 2] {
    let bpffs = Path::new(DEFAULT_BPFFS);
    let mut dataplane = Dataplane::load(Former::find(bpffs).unwrap()).unwrap();
    let map = MapData::from_pin(Pins::below(bpffs).map(name::INTERFACES)).unwrap();
    let programs = [CHANGING, PASSING].map(|key| SlowLookup::load(map.fd().as_fd(), key));
    for key in [CHANGING, PASSING] {
        dataplane.set_interface(key, interface(OURS, 0)).unwrap();
    }
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let readers = programs.map(|program| {
            scope.spawn(move || (0..RUNS).map(|_| program.run()).collect::<Vec<_>>())
        });
        let writer = scope.spawn(|| {
            let mut round = 0_u16;
            while !done.load(Ordering::Relaxed) {
                round ^= 1;
                dataplane
                    .set_interface(CHANGING, interface(OURS, round))
                    .unwrap();
                dataplane
                    .set_interface(OTHERS[0], interface(NOT_OURS, round))
                    .unwrap();
                dataplane
                    .set_interface(PASSING, interface(OURS, round))
                    .unwrap();
                dataplane.forget_interface(PASSING).unwrap();
                dataplane
                    .set_interface(OTHERS[1], interface(NOT_OURS, round))
                    .unwrap();
                dataplane.forget_interface(OTHERS[1]).unwrap();
            }
        });
        let found = readers.map(thread::ScopedJoinHandle::join);
        done.store(true, Ordering::Relaxed);
        writer.join().unwrap();
        found.map(Result::unwrap)
    })
}

/// An XDP program that looks an element up, takes its time, and then returns the first word of what it
/// found; zero if it found nothing.
struct SlowLookup(OwnedFd);

/// An instruction of BPF (RFC 9669 §3).
fn insn(code: u8, registers: u8, offset: i16, immediate: i32) -> u64 {
    u64::from(code)
        | u64::from(registers) << 8
        | u64::from(offset.cast_unsigned()) << 16
        | u64::from(immediate.cast_unsigned()) << 32
}

impl SlowLookup {
    /// Some milliseconds.
    const TURNS: i32 = 60_000;

    fn load(map: BorrowedFd<'_>, key: u32) -> Self {
        const LOOKUP: i32 = 1;
        const KTIME: i32 = 5;
        #[repr(C)]
        struct Load {
            kind: u32,
            insn_count: u32,
            insns: u64,
            license: u64,
        }
        const PROG_LOAD: libc::c_long = 5;
        const XDP: u32 = 6;
        let program = [
            // *(u32 *)(r10 - 4) = key; r2 = r10 - 4; r1 = map
            insn(0x62, 0x0a, -4, key.cast_signed()),
            insn(0xbf, 0xa2, 0, 0),
            insn(0x07, 0x02, 0, -4),
            insn(0x18, 0x11, 0, map.as_raw_fd()),
            0,
            insn(0x85, 0, 0, LOOKUP),
            // if r0 == 0: exit; r6 = r0; r7 = turns
            insn(0x55, 0x00, 1, 0),
            insn(0x95, 0, 0, 0),
            insn(0xbf, 0x06, 0, 0),
            insn(0xb7, 0x07, 0, Self::TURNS),
            // do { ktime(); r7 -= 1 } while r7 != 0
            insn(0x85, 0, 0, KTIME),
            insn(0x17, 0x07, 0, 1),
            insn(0x55, 0x07, -3, 0),
            // r0 = *(u32 *)r6
            insn(0x61, 0x60, 0, 0),
            insn(0x95, 0, 0, 0),
        ];
        let fd = bpf(
            PROG_LOAD,
            &mut Load {
                kind: XDP,
                insn_count: u32::try_from(program.len()).unwrap(),
                insns: program.as_ptr() as u64,
                license: c"GPL".as_ptr() as u64,
            },
        );
        // SAFETY: a descriptor just made and owned by nobody else.
        Self(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    fn run(&self) -> u32 {
        #[repr(C)]
        struct TestRun {
            program: i32,
            result: u32,
            size_in: u32,
            size_out: u32,
            data_in: u64,
            data_out: u64,
            repeat: u32,
            duration_ns: u32,
        }
        const PROG_TEST_RUN: libc::c_long = 10;
        let frame = [0_u8; 64];
        let mut run = TestRun {
            program: self.0.as_raw_fd(),
            result: 0,
            size_in: 64,
            size_out: 0,
            data_in: frame.as_ptr() as u64,
            data_out: 0,
            repeat: 1,
            duration_ns: 0,
        };
        bpf(PROG_TEST_RUN, &mut run);
        run.result
    }
}

/// bpf(2), which must succeed.
fn bpf<T>(command: libc::c_long, attributes: &mut T) -> i32 {
    let size = size_of_val(attributes);
    // SAFETY: the attributes of that command, which live through the call as what they point to.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size) };
    assert!(
        result >= 0,
        "bpf({command}): {}",
        io::Error::last_os_error()
    );
    i32::try_from(result).unwrap()
}
