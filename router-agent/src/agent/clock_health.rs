//! Whether the boottime clock can be relied upon: what drives it, and whether it stood still.
//!
//! A lease ends by this clock. One that stands still while its machine does not run, and goes on where
//! it was, lets a router forward after its lease has ended for everybody else.

use std::{fs, path::Path, time::Duration};

use router_common::time::BootTime;
use rustix::time::{ClockId, clock_gettime};

use crate::clock;

/// Clock sources that their hypervisor stops together with the machine, and lets go on where they
/// were: KVM's (Documentation/virt/kvm/api.rst, `KVM_GET_CLOCK` and `KVM_SET_CLOCK`), Xen's, and
/// Hyper-V's.
const STOPPED_BY_HYPERVISOR: [&str; 4] = [
    "kvm-clock",
    "xen",
    "hyperv_clocksource_tsc_page",
    "hyperv_clocksource_msr",
];
/// A jump is worth an operator's attention from here on.
const NOTABLE_JUMP: Duration = Duration::from_millis(100);
/// Two clocks read no closer together than this say nothing of each other.
const CLOSE: Duration = Duration::from_millis(20);

/// What drives the kernel's clocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClockHealth {
    /// As in `/sys/devices/system/clocksource/clocksource0/current_clocksource`.
    pub source: String,
    pub virtual_machine: bool,
}

impl ClockHealth {
    /// Of this system.
    pub fn read() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let told = ["/sys/hypervisor/type", "/proc/device-tree/hypervisor"]
            .iter()
            .any(|path| Path::new(path).exists());
        let firmware = |name| {
            let path = format!("/sys/class/dmi/id/{name}");
            fs::read_to_string(path).unwrap_or_default()
        };
        let made_by_hypervisor = is_of_a_hypervisor(
            firmware("sys_vendor").trim(),
            firmware("product_name").trim(),
        );
        Self {
            source: source(),
            virtual_machine: told || has_hypervisor(&cpuinfo) || made_by_hypervisor,
        }
    }

    /// The kernel leaves a clock source that proves unstable for another; what changed it tells.
    #[must_use]
    pub fn looked_at_again(&self) -> Self {
        Self {
            source: source(),
            virtual_machine: self.virtual_machine,
        }
    }

    /// What an operator who relies on leases should know.
    pub fn warning(&self) -> Option<String> {
        let Self {
            source,
            virtual_machine,
        } = self;
        let why = if STOPPED_BY_HYPERVISOR.contains(&&**source) {
            format!(
                "the clock source {source} stands still while the hypervisor has this machine paused"
            )
        } else if *virtual_machine {
            format!(
                "this is a virtual machine (clock source {source}): its clock may stand still while the hypervisor has it paused"
            )
        } else {
            return None;
        };
        Some(format!(
            "{why}, and leases with it: use `parameters ip key cluster-epoch` where packets leave by a tunnel, see docs/operations.md"
        ))
    }
}

fn source() -> String {
    fs::read_to_string("/sys/devices/system/clocksource/clocksource0/current_clocksource")
        .map_or_else(|_| "unknown".to_owned(), |name| name.trim().to_owned())
}

/// What the firmware of a machine calls its maker and its model (SMBIOS 3.8 §7.2), where there is neither
/// a flag of the CPU nor a device tree, as on arm64 with ACPI.
fn is_of_a_hypervisor(vendor: &str, product: &str) -> bool {
    /// Makers of nothing but virtual machines.
    const VENDORS: [&str; 8] = [
        "QEMU",
        "KVM",
        "Xen",
        "VMware, Inc.",
        "innotek GmbH",
        "OpenStack Foundation",
        "Alibaba Cloud",
        "Apple Virtualization",
    ];
    const PRODUCTS: [&str; 4] = [
        "KVM Virtual Machine",
        "Virtual Machine",
        "Google Compute Engine",
        "Apple Virtualization Generic Platform",
    ];
    // Whole machines are to be had there as well, and are called so.
    let is_rented = vendor == "Amazon EC2" && !product.contains(".metal");
    is_rented || VENDORS.contains(&vendor) || PRODUCTS.contains(&product)
}

/// The flag that every hypervisor on x86 sets for its guests (CPUID leaf 1, ECX bit 31).
fn has_hypervisor(cpuinfo: &str) -> bool {
    cpuinfo
        .lines()
        .filter(|line| line.starts_with("flags"))
        .any(|line| line.split_whitespace().any(|flag| flag == "hypervisor"))
}

/// Both clocks at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// The boottime clock before the other was read, and after.
    pub before: BootTime,
    /// `CLOCK_REALTIME`, in ns.
    pub real_ns: i128,
    pub after: BootTime,
}

impl Reading {
    pub fn now() -> Self {
        let before = clock::now();
        let real = clock_gettime(ClockId::Realtime);
        Self {
            before,
            real_ns: i128::from(real.tv_sec) * 1_000_000_000 + i128::from(real.tv_nsec),
            after: clock::now(),
        }
    }
}

/// Watches the time of day gain on the boottime clock.
#[derive(Debug, Default)]
pub struct ClockWatch {
    /// The time of day less the boottime clock, in ns.
    offset_ns: Option<i128>,
}

impl ClockWatch {
    /// By how much the time of day has jumped ahead since the last reading. Either the boottime clock stood
    /// still, and somebody has put the time of day right since, or somebody has just set it.
    pub fn observe(&mut self, reading: Reading) -> Option<Duration> {
        if reading.after.since(reading.before) > CLOSE {
            return None;
        }
        let offset_ns = reading.real_ns - i128::from(reading.before.as_ns());
        let gained_ns = offset_ns - self.offset_ns.replace(offset_ns)?;
        let gained = Duration::from_nanos(u64::try_from(gained_ns).ok()?);
        (gained > NOTABLE_JUMP).then_some(gained)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i128 = 1_000_000;

    fn reading(boot_ms: u64, real_ms: i128) -> Reading {
        let before = BootTime::from_ns(boot_ms * 1_000_000);
        Reading {
            before,
            real_ns: real_ms * MS,
            after: before.after(Duration::from_micros(1)),
        }
    }

    #[test]
    fn a_clock_that_stood_still_is_found_once() {
        let mut watch = ClockWatch::default();
        assert_eq!(watch.observe(reading(1_000, 500_000)), None, "the first");
        assert_eq!(watch.observe(reading(1_010, 500_010)), None);
        assert_eq!(watch.observe(reading(61_010, 560_010)), None, "a late tick");
        assert_eq!(watch.observe(reading(61_020, 560_120)), None, "100 ms");
        let paused = watch.observe(reading(61_030, 590_130));
        assert_eq!(paused, Some(Duration::from_secs(30)));
        assert_eq!(watch.observe(reading(61_040, 590_140)), None);
    }

    #[test]
    fn a_time_that_was_set_back_is_no_stop() {
        let mut watch = ClockWatch::default();
        assert_eq!(watch.observe(reading(1_000, 500_000)), None);
        assert_eq!(watch.observe(reading(1_010, 100)), None);
        assert_eq!(watch.observe(reading(1_020, 110)), None);
    }

    #[test]
    fn a_reading_that_was_interrupted_says_nothing() {
        let mut watch = ClockWatch::default();
        assert_eq!(watch.observe(reading(1_000, 500_000)), None);
        let stopped_between = Reading {
            after: BootTime::from_ns(9_000_000_000),
            ..reading(1_010, 508_010)
        };
        assert_eq!(watch.observe(stopped_between), None);
        assert_eq!(watch.observe(reading(9_010, 508_010)), None);
    }

    #[test]
    fn guests_and_their_clocks_are_warned_of() {
        let health = |source: &str, virtual_machine| ClockHealth {
            source: source.to_owned(),
            virtual_machine,
        };
        assert_eq!(health("tsc", false).warning(), None);
        let guest = health("tsc", true).warning().unwrap();
        assert!(
            guest.contains("virtual machine (clock source tsc)"),
            "{guest}"
        );
        let stops = health("kvm-clock", true).warning().unwrap();
        assert!(
            stops.starts_with("the clock source kvm-clock stands still"),
            "{stops}"
        );
    }

    #[test]
    fn the_hypervisors_flag_is_found_among_the_cpus() {
        assert!(has_hypervisor(
            "processor: 0\nflags\t\t: fpu hypervisor lahf_lm\n"
        ));
        assert!(!has_hypervisor(
            "model name: hypervisor\nflags\t\t: fpu tsc\n"
        ));
    }

    #[test]
    fn firmware_tells_guests_from_machines() {
        for (vendor, product, is_guest) in [
            ("Amazon EC2", "m7g.large", true),
            ("Amazon EC2", "m7g.metal", false),
            ("Microsoft Corporation", "Virtual Machine", true),
            ("Microsoft Corporation", "Surface Pro", false),
            ("QEMU", "KVM Virtual Machine", true),
            ("Dell Inc.", "PowerEdge R750", false),
            ("", "", false),
        ] {
            assert_eq!(
                is_of_a_hypervisor(vendor, product),
                is_guest,
                "{vendor} {product}"
            );
        }
    }

    #[test]
    fn this_system_tells_its_clock_source() {
        assert!(!ClockHealth::read().source.is_empty());
    }
}
