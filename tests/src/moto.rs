//! moto, an emulator of AWS, in a node of a lab: the EC2 API and the instances' metadata service. What
//! `cargo xtask test --peers` installs is found beside the executable, as the binaries are.

use std::{
    env,
    fs::File,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;

use crate::{
    lab::{Node, Process},
    poll,
};

/// The metadata service's address, at every instance.
pub const METADATA: &str = "169.254.169.254";
pub const REGION: &str = "eu-west-1";
const SERVER: &str = include_str!("moto.py");
/// Python on a busy machine.
const START: Duration = Duration::from_mins(2);
const ANSWER: Duration = Duration::from_secs(10);

pub struct Moto(Process);

/// Identifiers of what was made.
#[derive(Clone, Debug)]
pub struct Made {
    pub route_table: String,
    pub elastic_ip: String,
    /// Of each router.
    pub interfaces: [String; 2],
}

/// To which network interface everything leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Targets {
    pub ipv4: Option<String>,
    pub ipv6: Option<String>,
    pub elastic_ip: Option<String>,
    /// moto leaves an address that is reassigned at its former interface as well.
    pub private_ip: Vec<String>,
    /// Entries of the route table that the configuration does not name.
    pub others: Vec<String>,
}

impl Targets {
    /// Whether all leads to this interface.
    pub fn all_lead_to(&self, interface: &str) -> bool {
        let Self {
            ipv4,
            ipv6,
            elastic_ip,
            private_ip,
            others: _,
        } = self;
        let mut all = [ipv4, ipv6, elastic_ip].into_iter();
        all.all(|to| to.as_deref() == Some(interface))
            && private_ip.iter().any(|owner| owner == interface)
    }
}

impl Moto {
    /// Starts it in `node`, at port 80 of all its addresses and of the metadata service's.
    pub fn start(node: &Node) -> Result<Self> {
        let python = python()?;
        node.ip_batch(&[format!("address add {METADATA}/32 dev lo")])?;
        let log = File::create(node.directory().join("moto.log"))?;
        let mut command = Command::new(&python);
        command
            .args(["-c", SERVER, "80", REGION])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let server = node.spawn("moto", &mut command)?;
        poll::until(START, || ask(node, "DescribeVpcs", &[]))?;
        Ok(Self(server))
    }

    /// The API is out of reach from now on.
    pub fn kill(mut self) -> Result<()> {
        self.0.kill()
    }

    /// The API takes requests and answers none, until [`Moto::go_on`].
    pub fn stop(&self) -> Result<()> {
        self.0.signal(Signal::STOP)
    }

    pub fn go_on(&self) -> Result<()> {
        self.0.signal(Signal::CONT)
    }

    /// Lets it outlive this process.
    pub fn keep(self) {
        self.0.keep();
    }
}

/// Makes network interfaces with these addresses, a route table with an entry that is none of the
/// routers' business, and an elastic IP.
pub fn make(node: &Node, addresses: [&str; 2]) -> Result<Made> {
    let new = |action, parameters: &[(&str, &str)], tag| {
        let answer = ask(node, action, parameters)?;
        first(&answer, tag).with_context(|| format!("{action}: {answer}"))
    };
    let vpc = new("CreateVpc", &[("CidrBlock", "10.0.0.0/16")], "vpcId")?;
    let interface = |address: &str| {
        let (network, _) = address.rsplit_once('.').context("an IPv4 address")?;
        let network = format!("{network}.0/24");
        let of = [("VpcId", &*vpc), ("CidrBlock", &network)];
        let subnet = new("CreateSubnet", &of, "subnetId")?;
        let of = [("SubnetId", &*subnet), ("PrivateIpAddress", address)];
        new("CreateNetworkInterface", &of, "networkInterfaceId")
    };
    let interfaces = [interface(addresses[0])?, interface(addresses[1])?];
    let route_table = new("CreateRouteTable", &[("VpcId", &vpc)], "routeTableId")?;
    let other = [
        ("RouteTableId", &*route_table),
        ("DestinationCidrBlock", "10.99.0.0/16"),
        ("NetworkInterfaceId", &interfaces[1]),
    ];
    ask(node, "CreateRoute", &other)?;
    Ok(Made {
        route_table,
        elastic_ip: new("AllocateAddress", &[("Domain", "vpc")], "allocationId")?,
        interfaces,
    })
}

/// What leads where now; `moving` is the private address.
pub fn targets(node: &Node, made: &Made, moving: &str) -> Result<Targets> {
    let tables = ask(
        node,
        "DescribeRouteTables",
        &[("RouteTableId.1", &made.route_table)],
    )?;
    let routes = first(&tables, "routeSet").context("a route table has routes")?;
    let leads_to = |kind: &str, destination: &str| {
        let mut routes = all(&routes, "item").into_iter();
        let route = routes.find(|route| first(route, kind).as_deref() == Some(destination));
        route.and_then(|route| first(route, "networkInterfaceId"))
    };
    let addresses = ask(
        node,
        "DescribeAddresses",
        &[("AllocationId.1", &made.elastic_ip)],
    )?;
    let mut private_ip = Vec::new();
    for interface in &made.interfaces {
        let asked = [("NetworkInterfaceId.1", &**interface)];
        let described = ask(node, "DescribeNetworkInterfaces", &asked)?;
        if all(&described, "privateIpAddress").contains(&moving) {
            private_ip.push(interface.clone());
        }
    }
    Ok(Targets {
        ipv4: leads_to("destinationCidrBlock", "0.0.0.0/0"),
        ipv6: leads_to("destinationIpv6CidrBlock", "::/0"),
        elastic_ip: first(&addresses, "networkInterfaceId").filter(|id| !id.is_empty()),
        private_ip,
        others: ["10.0.0.0/16", "10.99.0.0/16"]
            .map(|other| leads_to("destinationCidrBlock", other).unwrap_or_default())
            .to_vec(),
    })
}

/// Somebody else lets the default route lead to `interface`.
pub fn interfere(node: &Node, made: &Made, interface: &str) -> Result<()> {
    let route = [
        ("RouteTableId", &*made.route_table),
        ("DestinationCidrBlock", "0.0.0.0/0"),
        ("NetworkInterfaceId", interface),
    ];
    ask(node, "ReplaceRoute", &route).map(drop)
}

/// Whether an interface drops what is not addressed to it.
pub fn checks_destinations(node: &Node, interface: &str) -> Result<bool> {
    let asked = [("NetworkInterfaceId.1", interface)];
    let described = ask(node, "DescribeNetworkInterfaces", &asked)?;
    let checks = first(&described, "sourceDestCheck").context("an interface has a check")?;
    Ok(checks == "true")
}

/// Somebody lets an interface drop what is not addressed to it.
pub fn check_destinations(node: &Node, interface: &str) -> Result<()> {
    let check = [
        ("NetworkInterfaceId", interface),
        ("SourceDestCheck.Value", "true"),
    ];
    ask(node, "ModifyNetworkInterfaceAttribute", &check).map(drop)
}

/// Keys of a user, by which requests are signed.
#[derive(Clone, Debug)]
pub struct Keys {
    pub id: String,
    pub secret: String,
}

/// Makes a user who may do what `policy` says.
pub fn user(node: &Node, name: &str, policy: &str) -> Result<Keys> {
    let name = ("UserName", name);
    ask_of(node, &IAM, "CreateUser", &[name])?;
    let may = [name, ("PolicyName", "may"), ("PolicyDocument", policy)];
    ask_of(node, &IAM, "PutUserPolicy", &may)?;
    let answer = ask_of(node, &IAM, "CreateAccessKey", &[name])?;
    let part = |tag| first(&answer, tag).with_context(|| format!("no {tag}: {answer}"));
    Ok(Keys {
        id: part("AccessKeyId")?,
        secret: part("SecretAccessKey")?,
    })
}

/// Whether moto heeds signatures and policies. While it does, it refuses what is asked from here.
pub fn heed_policies(node: &Node, heeds: bool) -> Result<()> {
    let unheeded_requests = if heeds { "0" } else { "inf" };
    let head = "POST /moto-api/reset-auth HTTP/1.1\r\nHost: localhost\r\n";
    post(node, head, unheeded_requests).map(drop)
}

/// A service of AWS's, by its Query API.
struct Service {
    name: &'static str,
    version: &'static str,
}

const EC2: Service = Service {
    name: "ec2",
    version: "2016-11-15",
};
const IAM: Service = Service {
    name: "iam",
    version: "2010-05-08",
};

fn ask(node: &Node, action: &str, parameters: &[(&str, &str)]) -> Result<String> {
    ask_of(node, &EC2, action, parameters)
}

/// One request, not signed: moto looks only at whom it is for, unless it is told to do more.
fn ask_of(
    node: &Node,
    service: &Service,
    action: &str,
    parameters: &[(&str, &str)],
) -> Result<String> {
    let Service { name, version } = service;
    let mut fields = vec![format!("Action={action}"), format!("Version={version}")];
    fields.extend(
        parameters
            .iter()
            .map(|(name, value)| format!("{name}={}", encoded(value))),
    );
    let head = format!(
        "POST / HTTP/1.1\r\nHost: {name}.{REGION}.amazonaws.com\r\n\
         Authorization: AWS4-HMAC-SHA256 Credential=a/20260101/{REGION}/{name}/aws4_request, \
         SignedHeaders=host, Signature=0\r\n\
         Content-Type: application/x-www-form-urlencoded\r\n"
    );
    post(node, &head, &fields.join("&")).with_context(|| action.to_owned())
}

/// As in a form.
fn encoded(value: &str) -> String {
    let bytes = value.bytes().map(|byte| match byte {
        b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    });
    bytes.collect()
}

fn post(node: &Node, head: &str, body: &str) -> Result<String> {
    let request = format!(
        "{head}Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = node.run(|| {
        let mut stream = TcpStream::connect(("127.0.0.1", 80))?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        std::io::Result::Ok(answer)
    })??;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    Ok(answer)
}

/// The contents of all elements `tag`, which do not lie within each other.
fn all<'a>(text: &'a str, tag: &str) -> Vec<&'a str> {
    let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
    let parts = text.split(&*open).skip(1);
    parts
        .filter_map(|part| part.split_once(&*close).map(|(content, _)| content))
        .collect()
}

fn first(text: &str, tag: &str) -> Option<String> {
    all(text, tag).first().map(|content| (*content).to_owned())
}

fn python() -> Result<PathBuf> {
    let executable = env::current_exe().context("cannot find this executable")?;
    let above = executable.ancestors().skip(1);
    let found = above
        .map(|directory| directory.join("moto/bin/python"))
        .find(|path| path.exists());
    match found {
        Some(path) => Ok(path),
        None => bail!("moto is not installed: `cargo xtask setup --peers` does"),
    }
}
