//! Puts programs on interfaces and pins their links.

use std::{collections::HashSet, ffi::CString, fmt, fs, io, path::Path};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::{
    Ebpf,
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode,
        links::{FdLink, Link, PinnedLink},
        tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle},
        xdp::XdpLink,
    },
    sys::SyscallError,
    util::KernelVersion,
};

use super::{OBJECT, Programs, former, pins::Pins, program, programs::Programs as Loaded, query};

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

/// Why in generic mode.
const AS_CHOSEN: &str = "as chosen";

/// Attaches XDP program `name` to `interface` and pins the link. One that is pinned already gets
/// the program in place of the one it had, between two packets. Where the mode is not
/// chosen, generic mode stays as long as something is known `against_native`.
pub(super) fn xdp(
    programs: &mut Loaded,
    name: &'static str,
    interface: &str,
    choice: ModeChoice,
    against_native: Option<&str>,
    pins: &Pins,
) -> Result<Mode> {
    let program = programs.xdp(name)?;
    let index = index_of(interface)?;
    if let Some(mode) = adopt_xdp(program, name, index, choice, against_native, pins)? {
        return Ok(mode);
    }
    let (link, mode) = match choice {
        ModeChoice::Native => (
            attach_xdp(program, interface, XdpMode::Driver)
                .map_err(|error| refused(interface, "native", &error))?,
            Mode::Native,
        ),
        ModeChoice::Generic => (
            attach_xdp(program, interface, XdpMode::Skb)
                .map_err(|error| refused(interface, "generic", &error))?,
            Mode::Generic(AS_CHOSEN.to_owned()),
        ),
        ModeChoice::Auto => match attach_xdp(program, interface, XdpMode::Driver) {
            Ok(link) => (link, Mode::Native),
            Err(native) => (
                attach_xdp(program, interface, XdpMode::Skb).map_err(|error| {
                    refused(interface, "generic", &error)
                        .context(refused(interface, "native", &native))
                })?,
                Mode::Generic(explain(interface, &native)),
            ),
        },
    };
    pin(link, &pins.xdp_link(name, mode == Mode::Native, index))?;
    Ok(mode)
}

/// Takes over the link that some program of ours has on the interface, if its mode will do. Any
/// other is ended.
fn adopt_xdp(
    program: &mut Xdp,
    name: &str,
    index: u32,
    choice: ModeChoice,
    against_native: Option<&str>,
    pins: &Pins,
) -> Result<Option<Mode>> {
    for of in [program::UNDERLAY, program::LAN] {
        for native in [true, false] {
            let former = pins.xdp_link(of, native, index);
            if !former.exists() {
                continue;
            }
            let mode = match (choice, native, against_native) {
                (ModeChoice::Auto | ModeChoice::Native, true, _) => Mode::Native,
                (ModeChoice::Auto, false, Some(against)) => Mode::Generic(against.to_owned()),
                (ModeChoice::Generic, false, _) => Mode::Generic(AS_CHOSEN.to_owned()),
                // Beside one in generic mode, an interface takes no program in native mode.
                (ModeChoice::Generic, true, _)
                | (ModeChoice::Native, false, _)
                | (ModeChoice::Auto, false, None) => {
                    end_link(&former)?;
                    continue;
                }
            };
            match replace_xdp(program, &former) {
                Ok(()) => {
                    let now = pins.xdp_link(name, native, index);
                    fs::rename(&former, &now)
                        .with_context(|| format!("cannot rename {}", former.display()))?;
                    return Ok(Some(mode));
                }
                Err(error) => give_up(&former, &error)?,
            }
        }
    }
    Ok(None)
}

fn replace_xdp(program: &mut Xdp, pin: &Path) -> Result<()> {
    let link: XdpLink = FdLink::from(PinnedLink::from_pin(pin)?).try_into()?;
    let id = program.attach_to_link(link)?;
    // Closed here, it goes on by its pin.
    program.take_link(id)?;
    Ok(())
}

/// Ends a link that cannot be taken over: its interface has gone, or somebody has detached it.
fn give_up(pin: &Path, error: &anyhow::Error) -> Result<()> {
    tracing::info!("{} is made anew: {error:#}", pin.display());
    end_link(pin)
}

fn attach_xdp(program: &mut Xdp, interface: &str, mode: XdpMode) -> Result<XdpLink, ProgramError> {
    let id = program.attach(interface, mode)?;
    program.take_link(id)
}

fn refused(interface: &str, mode: &str, error: &ProgramError) -> anyhow::Error {
    anyhow!(
        "{interface} takes no XDP program in {mode} mode: {}",
        explain(interface, error)
    )
}

/// The kernel's errors at attaching, as the drivers mean them. They do not agree on the code for an MTU
/// that is too large: `ERANGE` by most, `EINVAL` by ena, ixgbe, i40e and virtio_net, `EOPNOTSUPP` by bnxt.
fn explain(interface: &str, error: &ProgramError) -> String {
    let io_error = match error {
        ProgramError::SyscallError(SyscallError { io_error, .. }) => Some(io_error),
        _ => None,
    };
    match io_error.and_then(io::Error::raw_os_error) {
        Some(code) if code == rustix::io::Errno::OPNOTSUPP.raw_os_error() => {
            format!(
                "{} has no native XDP, or not with the present MTU and offloads; the kernel's log may \
                 say which",
                driver(interface)
            )
        }
        Some(code) if code == rustix::io::Errno::RANGE.raw_os_error() => {
            format!(
                "the MTU is too large for XDP in {}; lower it",
                driver(interface)
            )
        }
        Some(code) if code == rustix::io::Errno::INVAL.raw_os_error() => {
            format!(
                "{} refuses it: mostly for its MTU, which is to be lowered, or an offload such as LRO; \
                 the kernel's log may say which",
                driver(interface)
            )
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

/// An interface's driver and MTU, as far as sysfs has them: "driver ena at MTU 9001".
fn driver(interface: &str) -> String {
    let directory = Path::new("/sys/class/net").join(interface);
    let driver = fs::read_link(directory.join("device/driver"));
    let driver = driver.ok().and_then(|path| {
        let name = path.file_name()?.to_str()?;
        Some(format!("driver {name}"))
    });
    let mtu = fs::read_to_string(directory.join("mtu"));
    let mtu = mtu.map_or_else(|_| String::new(), |mtu| format!(" at MTU {}", mtu.trim()));
    driver.unwrap_or_else(|| "the driver".to_owned()) + &mtu
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

/// A TC program and where it is put on an interface.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hook {
    pub program: &'static str,
    pub direction: TcAttachType,
    /// Of a clsact filter, by which a later agent finds it, too. Numbers such as people do not choose.
    pub priority: u16,
}

/// Of our clsact filters.
pub(super) const FILTER_HANDLE: TcHandle = TcHandle::new(0, 1);

/// What an underlay has beside its XDP program.
pub(super) const HANDOVER: Hook = Hook {
    program: program::UNDERLAY_HANDOVER,
    direction: TcAttachType::Ingress,
    priority: 0x5254,
};

/// Attaches `hook` to `interface`: a TCX link, pinned at `path`, where the kernel has it (6.6), else a
/// filter at the clsact qdisc, which stays by itself. What is there already gets the program in place
/// of the one it had; there is no moment in which there is none. Else it is put before all that are
/// there, for one that lets a packet pass for good ends the row; but behind our own whose link is pinned
/// at `ahead`, if there is that.
pub(super) fn tc(
    programs: &mut Loaded,
    hook: Hook,
    interface: &str,
    path: &Path,
    ahead: Option<&Path>,
) -> Result<()> {
    let Hook {
        program: name,
        direction,
        priority: _,
    } = hook;
    let program = programs.tc(name)?;
    let cannot = || format!("cannot attach {name} to {interface} by TC");
    if !has_tcx()? {
        return filter(program, hook, interface).with_context(cannot);
    }
    let former = if path.exists() {
        match replace_tcx(program, path) {
            Ok(()) => return Ok(()),
            Err(error) => Some(error),
        }
    } else {
        None
    };
    let ahead = ahead.filter(|pin| pin.exists()).map(tc_link).transpose()?;
    let mut attach =
        |order| program.attach_with_options(interface, direction, TcAttachOptions::TcxOrder(order));
    let id = match &ahead {
        // Somebody may have detached that one; its next comes first again.
        Some(link) => attach(LinkOrder::after_link(link)?).or_else(|_| attach(LinkOrder::first())),
        None => attach(LinkOrder::first()),
    }
    .with_context(cannot)?;
    let link = program.take_link(id)?;
    if let Some(error) = former {
        give_up(path, &error)?;
    }
    pin(link, path)
}

/// The link that is pinned at `pin`, which goes on when this is dropped.
fn tc_link(pin: &Path) -> Result<SchedClassifierLink> {
    Ok(FdLink::from(PinnedLink::from_pin(pin)?).try_into()?)
}

fn replace_tcx(program: &mut SchedClassifier, pin: &Path) -> Result<()> {
    let id = program.attach_to_link(tc_link(pin)?)?;
    // Closed here, it goes on by its pin.
    program.take_link(id)?;
    Ok(())
}

/// Without TCX: the filter of a former agent is replaced, or one is added.
fn filter(program: &mut SchedClassifier, hook: Hook, interface: &str) -> Result<()> {
    let Hook {
        program: _,
        direction,
        priority,
    } = hook;
    match tc::qdisc_add_clsact(interface) {
        Err(error) if !is_there_already(&error) => return Err(error.into()),
        Err(_) | Ok(()) => {}
    }
    let former =
        SchedClassifierLink::attached(interface, direction, priority, FILTER_HANDLE, None)?;
    let id = program.attach_to_link(former).or_else(|_| {
        let options = TcAttachOptions::Netlink(NlOptions {
            priority,
            handle: FILTER_HANDLE,
            classid: None,
        });
        program.attach_with_options(interface, direction, options)
    })?;
    // Dropping the link would remove the filter.
    std::mem::forget(program.take_link(id)?);
    Ok(())
}

/// Takes our programs off every interface that is not one of `interfaces`, or has others there.
pub(super) fn end_others(interfaces: &[(u32, String, Programs)], pins: &Pins) -> Result<()> {
    let mut ours = HashSet::new();
    let mut filtered = HashSet::new();
    for (index, name, programs) in interfaces {
        ours.extend([true, false].map(|native| pins.xdp_link(programs.xdp(), native, *index)));
        if let Some(tc) = programs.tc() {
            ours.insert(pins.tc_link(tc.program, *index));
            filtered.insert(name.as_str());
        }
    }
    for path in former::files(&pins.links()) {
        if !ours.contains(&path) {
            tracing::info!("{} is of no use any more", path.display());
            end_link(&path)?;
        }
    }
    detach_filters(&[HANDOVER], &filtered)
}

/// Takes XDP program `name` off the interface that has, or had, index `ifindex`.
pub(super) fn end_xdp(name: &str, ifindex: u32, pins: &Pins) -> Result<()> {
    [true, false]
        .iter()
        .try_for_each(|native| end_link(&pins.xdp_link(name, *native, ifindex)))
}

/// Takes `hook` off the interface that has, or had, index `ifindex` and is, or was, called
/// `interface`.
pub(super) fn end_tc(hook: Hook, ifindex: u32, interface: &str, pins: &Pins) -> Result<()> {
    end_link(&pins.tc_link(hook.program, ifindex))?;
    if !has_tcx()? && index_of(interface).is_ok_and(|index| index == ifindex) {
        detach_filter(interface, hook);
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

/// Whether `interface` has `hook`.
pub(super) fn has_tc(programs: &Loaded, hook: Hook, interface: &str) -> Result<bool> {
    let id = programs.tc_id(hook.program)?;
    let ifindex = index_of(interface)?;
    let cannot = || format!("cannot ask which TC programs {interface} has");
    if has_tcx()? {
        let attached = query::tcx_programs(ifindex, hook.direction).with_context(cannot)?;
        return Ok(attached.contains(&id));
    }
    let attached = query::filter_program(ifindex, hook).with_context(cannot)?;
    Ok(attached == Some(id))
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

/// Removes the filters of `hooks` from every interface but those of `names`, where TC has no links
/// that would end with their pins (before 6.6).
pub(super) fn detach_filters(hooks: &[Hook], names: &HashSet<&str>) -> Result<()> {
    if has_tcx()? {
        return Ok(());
    }
    let interfaces = fs::read_dir("/sys/class/net").context("cannot list the interfaces")?;
    for interface in interfaces {
        let name = interface.context("cannot list the interfaces")?.file_name();
        let name = name.to_string_lossy();
        if names.contains(&*name) {
            continue;
        }
        for hook in hooks {
            detach_filter(&name, *hook);
        }
    }
    Ok(())
}

fn detach_filter(interface: &str, hook: Hook) {
    let Hook {
        program,
        direction,
        priority: _,
    } = hook;
    for name in [program, kernels_name(program)] {
        match tc::qdisc_detach_program(interface, direction, name) {
            Ok(()) => tracing::debug!(interface, name, "filter removed"),
            // There is none: no clsact, or other people's filters only.
            Err(error) => tracing::trace!(interface, name, %error, "no filter removed"),
        }
    }
}

/// A filter is called after its program: by the whole name, or by as much of it as the kernel keeps if the
/// program was opened by its pin.
fn kernels_name(program: &str) -> &str {
    /// `BPF_OBJ_NAME_LEN` without the zero at the end, include/uapi/linux/bpf.h.
    const LENGTH: usize = 15;
    program.get(..LENGTH).unwrap_or(program)
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

/// Attaches the pass program natively to `interface` of the calling thread's network namespace
/// and pins the link at `pin`. For the far end of a veth pair, see [`program::PASS`].
pub fn attach_pass(interface: &str, pin_at: &Path) -> Result<()> {
    let mut programs = Ebpf::load(OBJECT)?;
    let program: &mut Xdp = programs
        .program_mut(program::PASS)
        .ok_or_else(|| anyhow!("the object has no program {}", program::PASS))?
        .try_into()?;
    program.load()?;
    let link = attach_xdp(program, interface, XdpMode::Driver)
        .map_err(|error| refused(interface, "native", &error))?;
    pin(link, pin_at)
}
