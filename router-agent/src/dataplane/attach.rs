//! Puts programs on interfaces and pins their links.

use std::{ffi::CString, fmt, io, path::Path};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::{
    Ebpf,
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType, TcHandle, Xdp, XdpMode,
        links::{FdLink, Link, PinnedLink},
        tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions},
        xdp::XdpLink,
    },
    sys::SyscallError,
    util::KernelVersion,
};

use super::{OBJECT, pins::Pins, program};

/// Which XDP mode is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ModeChoice {
    /// Native where the driver can, else generic, and say why.
    #[default]
    Auto,
    Native,
    Generic,
}

/// Which XDP mode an interface got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver.
    Native,
    /// In the stack, behind the allocation of an sk_buff; the reason why not native.
    Generic(String),
}

impl Mode {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic(_) => "generic",
        }
    }

    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Native => None,
            Self::Generic(reason) => Some(reason),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Native => f.write_str("native"),
            Self::Generic(reason) => write!(f, "generic ({reason})"),
        }
    }
}

/// Attaches XDP program `name` to `interface` and pins the link.
pub(super) fn xdp(
    programs: &mut Ebpf,
    name: &str,
    interface: &str,
    choice: ModeChoice,
    pins: &Pins,
) -> Result<Mode> {
    let program: &mut Xdp = loaded(programs, name)?;
    let path = pins.link(name, index_of(interface)?);
    end_link(&path)?;
    let (link, mode) = match choice {
        ModeChoice::Native => (
            attach_xdp(program, interface, XdpMode::Driver)
                .map_err(|error| refused(interface, "native", &error))?,
            Mode::Native,
        ),
        ModeChoice::Generic => (
            attach_xdp(program, interface, XdpMode::Skb)
                .map_err(|error| refused(interface, "generic", &error))?,
            Mode::Generic("as chosen".to_owned()),
        ),
        ModeChoice::Auto => match attach_xdp(program, interface, XdpMode::Driver) {
            Ok(link) => (link, Mode::Native),
            Err(native) => (
                attach_xdp(program, interface, XdpMode::Skb).map_err(|error| {
                    refused(interface, "generic", &error)
                        .context(refused(interface, "native", &native))
                })?,
                Mode::Generic(explain(&native)),
            ),
        },
    };
    pin(link, &path)?;
    Ok(mode)
}

fn attach_xdp(program: &mut Xdp, interface: &str, mode: XdpMode) -> Result<XdpLink, ProgramError> {
    let id = program.attach(interface, mode)?;
    program.take_link(id)
}

fn refused(interface: &str, mode: &str, error: &ProgramError) -> anyhow::Error {
    anyhow!(
        "{interface} takes no XDP program in {mode} mode: {}",
        explain(error)
    )
}

/// The kernel's errors at attaching, as the drivers mean them.
fn explain(error: &ProgramError) -> String {
    let io_error = match error {
        ProgramError::SyscallError(SyscallError { io_error, .. }) => Some(io_error),
        _ => None,
    };
    match io_error.and_then(io::Error::raw_os_error) {
        Some(code) if code == rustix::io::Errno::OPNOTSUPP.raw_os_error() => {
            "the driver has no native XDP".to_owned()
        }
        Some(code) if code == rustix::io::Errno::RANGE.raw_os_error() => {
            "the MTU is too large for XDP in this driver; lower it".to_owned()
        }
        Some(code) if code == rustix::io::Errno::BUSY.raw_os_error() => {
            "another XDP program is attached; `ip link show` names it".to_owned()
        }
        Some(code) if code == rustix::io::Errno::NOSPC.raw_os_error() => {
            "the device has too few queues for XDP on every CPU".to_owned()
        }
        Some(code) if code == rustix::io::Errno::EXIST.raw_os_error() => {
            "a program is attached in another mode; `ip link show` names it".to_owned()
        }
        _ => chain(error),
    }
}

/// An error with its sources.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// Attaches TC program `name` at the ingress of `interface`, before others: a TCX link, pinned, where the kernel
/// has it (6.6), else a filter at the clsact qdisc, which stays by itself.
pub(super) fn tc(programs: &mut Ebpf, name: &str, interface: &str, pins: &Pins) -> Result<()> {
    let program: &mut SchedClassifier = loaded(programs, name)?;
    let path = pins.link(name, index_of(interface)?);
    end_link(&path)?;
    let has_tcx = has_tcx()?;
    let options = if has_tcx {
        TcAttachOptions::TcxOrder(LinkOrder::first())
    } else {
        // A filter that an agent left when it died.
        detach_filter(interface, TcAttachType::Ingress, name);
        add_clsact(interface)?;
        TcAttachOptions::Netlink(NlOptions::default())
    };
    let id = program
        .attach_with_options(interface, TcAttachType::Ingress, options)
        .with_context(|| format!("cannot attach {name} to {interface} by TC"))?;
    let link: SchedClassifierLink = program.take_link(id)?;
    if has_tcx {
        pin(link, &path)
    } else {
        // Dropping the link would remove the filter.
        std::mem::forget(link);
        Ok(())
    }
}

/// Attaches a fence's program `name` to `interface`, behind all others, in place of the one that an
/// agent before this one left, without a moment in which there is none.
pub(super) fn fence(
    programs: &mut Ebpf,
    (name, direction): (&str, TcAttachType),
    interface: &str,
    pins: &Pins,
) -> Result<()> {
    /// Behind what the kernel numbers by itself, from 0xc000 downwards (`tcf_auto_prio`).
    const PRIORITY: u16 = 0xc001;
    const HANDLE: TcHandle = TcHandle::new(0, 1);
    let program: &mut SchedClassifier = loaded(programs, name)?;
    let cannot = || format!("cannot attach {name} to {interface} by TC");
    if !has_tcx()? {
        add_clsact(interface)?;
        let filter = SchedClassifierLink::attached(interface, direction, PRIORITY, HANDLE, None)?;
        let id = match program.attach_to_link(filter) {
            Ok(id) => id,
            // There is none to replace.
            Err(_) => program
                .attach_with_options(
                    interface,
                    direction,
                    TcAttachOptions::Netlink(NlOptions {
                        priority: PRIORITY,
                        handle: HANDLE,
                        classid: None,
                    }),
                )
                .with_context(cannot)?,
        };
        // Dropping the link would remove the filter.
        std::mem::forget(program.take_link(id)?);
        return Ok(());
    }
    let path = pins.fence(name, index_of(interface)?);
    let former = path
        .exists()
        .then(|| PinnedLink::from_pin(&path))
        .transpose()
        .with_context(|| format!("cannot open the link at {}", path.display()))?;
    let order = TcAttachOptions::TcxOrder(LinkOrder::last());
    let id = program
        .attach_with_options(interface, direction, order)
        .with_context(cannot)?;
    let link: SchedClassifierLink = program.take_link(id)?;
    // The former one ends when this is over, beside the new one till then.
    let _former = former
        .map(PinnedLink::unpin)
        .transpose()
        .with_context(|| format!("cannot remove the link at {}", path.display()))?;
    pin(link, &path)
}

/// The qdisc that filters hang on before TCX.
fn add_clsact(interface: &str) -> Result<()> {
    match tc::qdisc_add_clsact(interface) {
        Err(error) if !is_there_already(&error) => {
            Err(error).with_context(|| format!("cannot add clsact to {interface}"))
        }
        Err(_) | Ok(()) => Ok(()),
    }
}

/// Takes program `name` off the interface that has, or had, index `ifindex` and is, or was, called
/// `interface`.
pub(super) fn detach(name: &str, ifindex: u32, interface: &str, pins: &Pins) -> Result<()> {
    end_link(&pins.link(name, ifindex))?;
    if !has_tcx()? && index_of(interface).is_ok_and(|index| index == ifindex) {
        detach_filter(interface, TcAttachType::Ingress, name);
    }
    Ok(())
}

/// Ends the link that is pinned at `path`, if there is one.
pub(super) fn end_link(path: &Path) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    // The last to let go of an open link ends it at once; the kernel ends one that was only pinned
    // at some later time, and until then its place is taken.
    let link = PinnedLink::from_pin(path)
        .with_context(|| format!("cannot open the link at {}", path.display()))?;
    link.unpin()
        .with_context(|| format!("cannot remove the link at {}", path.display()))?;
    Ok(())
}

pub(super) fn index_of(interface: &str) -> Result<u32> {
    let name = CString::new(interface).context("an interface's name has no zero byte")?;
    // SAFETY: the string ends with a zero byte and lives through the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error())
            .with_context(|| format!("there is no interface {interface}")),
        index => Ok(index),
    }
}

/// Whether `interface` has TC program `name`. Before TCX it is taken for granted.
pub(super) fn has_tc(
    programs: &Ebpf,
    name: &str,
    interface: &str,
    direction: TcAttachType,
) -> Result<bool> {
    if !has_tcx()? {
        return Ok(true);
    }
    let program: &SchedClassifier = programs
        .program(name)
        .ok_or_else(|| anyhow!("the object has no program {name}"))?
        .try_into()?;
    let id = program.info()?.id();
    let (_, attached) = SchedClassifier::query_tcx(interface, direction)
        .with_context(|| format!("cannot ask which TC programs {interface} has"))?;
    Ok(attached.iter().any(|program| program.id() == id))
}

/// The kernel's number for XDP program `name`, which is loaded.
pub(super) fn xdp_id(programs: &Ebpf, name: &str) -> Result<u32> {
    let program: &Xdp = programs
        .program(name)
        .ok_or_else(|| anyhow!("the object has no program {name}"))?
        .try_into()?;
    Ok(program.info()?.id())
}

/// The qdisc outlives the agent that added it, and others use it too.
fn is_there_already(error: &tc::TcError) -> bool {
    match error {
        tc::TcError::NetlinkError(error) => {
            error.raw_os_error() == Some(rustix::io::Errno::EXIST.raw_os_error())
        }
        other => matches!(other, tc::TcError::AlreadyAttached),
    }
}

fn has_tcx() -> Result<bool> {
    let version = KernelVersion::current().context("cannot read the kernel's version")?;
    Ok(version >= KernelVersion::new(6, 6, 0))
}

/// Removes the filters of `programs` from every interface, where TC has no links that would end with
/// their pins (before 6.6).
pub(super) fn detach_filters(programs: &[(&str, TcAttachType)]) -> Result<()> {
    if has_tcx()? {
        return Ok(());
    }
    let interfaces = std::fs::read_dir("/sys/class/net").context("cannot list the interfaces")?;
    for interface in interfaces {
        let interface = interface.context("cannot list the interfaces")?.file_name();
        for (program, direction) in programs {
            detach_filter(&interface.to_string_lossy(), *direction, program);
        }
    }
    Ok(())
}

pub(super) fn detach_filter(interface: &str, direction: TcAttachType, program: &str) {
    match tc::qdisc_detach_program(interface, direction, program) {
        Ok(()) => tracing::debug!(interface, program, "filter removed"),
        // There is none: no clsact, or other people's filters only.
        Err(error) => tracing::trace!(interface, program, %error, "no filter removed"),
    }
}

fn pin<L>(link: L, path: &Path) -> Result<()>
where
    L: Link,
    FdLink: TryFrom<L>,
{
    let Ok(link) = FdLink::try_from(link) else {
        bail!("the kernel gave no link that can be pinned; Linux 6.1 or newer is needed");
    };
    link.pin(path)
        .with_context(|| format!("cannot pin a link at {}", path.display()))?;
    Ok(())
}

pub(super) fn loaded<'a, P>(programs: &'a mut Ebpf, name: &str) -> Result<&'a mut P>
where
    P: LoadOnce,
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    let program: &mut P = programs
        .program_mut(name)
        .ok_or_else(|| anyhow!("the object has no program {name}"))?
        .try_into()?;
    program
        .load_once()
        .with_context(|| format!("the kernel refused program {name}"))?;
    Ok(program)
}

/// Loading a program that may be loaded already.
pub(super) trait LoadOnce {
    fn load_once(&mut self) -> Result<(), ProgramError>;
}

impl LoadOnce for Xdp {
    fn load_once(&mut self) -> Result<(), ProgramError> {
        already_is_fine(self.load())
    }
}

impl LoadOnce for SchedClassifier {
    fn load_once(&mut self) -> Result<(), ProgramError> {
        already_is_fine(self.load())
    }
}

fn already_is_fine(result: Result<(), ProgramError>) -> Result<(), ProgramError> {
    match result {
        Err(ProgramError::AlreadyLoaded) => Ok(()),
        other => other,
    }
}

/// Attaches the pass program natively to `interface` of the calling thread's network namespace
/// and pins the link at `pin`. For the far end of a veth pair, see [`program::PASS`].
pub fn attach_pass(interface: &str, pin_at: &Path) -> Result<()> {
    let mut programs = Ebpf::load(OBJECT)?;
    let program: &mut Xdp = loaded(&mut programs, program::PASS)?;
    let link = attach_xdp(program, interface, XdpMode::Driver)
        .map_err(|error| refused(interface, "native", &error))?;
    pin(link, pin_at)
}
