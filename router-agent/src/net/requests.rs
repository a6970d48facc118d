//! Many requests at once, over a netlink socket of its own.
//!
//! The kernel carries a request out before the call that sent it returns, so nothing is gained by
//! sending a second one meanwhile. What is gained is the way through the event loop for each.

use std::{
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, Result};
use rtnetlink::{
    packet_core::{
        NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload, NlasIterator, parse_string,
    },
    packet_route::RouteNetlinkMessage,
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};

/// The answers to so many requests fit a socket's receive buffer of the usual size.
const AT_ONCE: usize = 64;
/// Bytes; the kernel's answers are much shorter.
pub(super) const LONGEST_ANSWER: usize = 32 * 1024;

/// NLM_F_ACK_TLVS: attributes follow the header that the kernel sends back.
const HAS_ATTRIBUTES: u16 = 0x200;
/// NLMSGERR_ATTR_MSG: what went wrong, in words.
const WORDS: u16 = 1;
/// Bytes of a netlink message's header.
const HEADER_LENGTH: usize = 16;

/// One request, and what it is for: "create interface tun0".
pub struct Request {
    purpose: String,
    message: NetlinkMessage<RouteNetlinkMessage>,
}

impl Request {
    /// `flags` are added to those that every request has.
    pub fn new(purpose: String, message: RouteNetlinkMessage, flags: u16) -> Self {
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        Self { purpose, message }
    }
}

/// The kernel has refused a request.
#[derive(Debug)]
pub struct Refusal {
    purpose: String,
    pub error: io::Error,
    /// What some parts of the kernel say of it.
    words: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            purpose,
            error,
            words,
        } = self;
        write!(f, "cannot {purpose}: {error}")?;
        match words {
            Some(words) => write!(f, "; the kernel says: {words}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Refusal {}

pub type Answer = Result<(), Refusal>;

/// Carries requests out, in the network namespace of the thread that opened it.
#[derive(Clone)]
pub struct Requests {
    connection: Arc<Mutex<Connection>>,
}

struct Connection {
    socket: Socket,
    sequence: u32,
}

impl Requests {
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_cap_ack(true)?;
        socket.set_ext_ack(true)?;
        Ok(Self {
            connection: Arc::new(Mutex::new(Connection {
                socket,
                sequence: 0,
            })),
        })
    }

    /// Carries out all of them in order, also those behind one that is refused. The answers are in
    /// the order of the requests.
    ///
    /// Takes long; other tasks run meanwhile. It goes on to the end although nobody waits any more.
    pub async fn execute(&self, requests: Vec<Request>) -> Result<Vec<Answer>> {
        let connection = Arc::clone(&self.connection);
        let all = move || {
            let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            let mut answers = Vec::with_capacity(requests.len());
            let mut requests = requests.into_iter().peekable();
            while requests.peek().is_some() {
                let some: Vec<_> = requests.by_ref().take(AT_ONCE).collect();
                answers.extend(connection.execute(some)?);
            }
            io::Result::Ok(answers)
        };
        tokio::task::spawn_blocking(all)
            .await
            .context("requests to the kernel were broken off")?
            .context("the netlink socket failed")
    }
}

impl Connection {
    fn execute(&mut self, mut requests: Vec<Request>) -> io::Result<Vec<Answer>> {
        let first = self.sequence.wrapping_add(1);
        let mut datagram = Vec::new();
        for request in &mut requests {
            self.sequence = self.sequence.wrapping_add(1);
            request.message.header.sequence_number = self.sequence;
            request.message.finalize();
            let start = datagram.len();
            datagram.resize(start + request.message.buffer_len().next_multiple_of(4), 0);
            request.message.serialize(&mut datagram[start..]);
        }
        self.socket.send(&datagram, 0)?;

        let mut answers: Vec<Option<Answer>> = Vec::new();
        answers.resize_with(requests.len(), || None);
        let mut missing = requests.len();
        let mut buffer = Vec::with_capacity(LONGEST_ANSWER);
        while missing > 0 {
            buffer.clear();
            self.socket.recv(&mut buffer, 0)?;
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&buffer)
                .map_err(|error| io::Error::other(error.to_string()))?;
            // An answer to a request of before, when the socket failed.
            let number = message.header.sequence_number.wrapping_sub(first) as usize;
            let Some(answer @ None) = answers.get_mut(number) else {
                continue;
            };
            *answer = Some(answer_of(&message, &requests[number]));
            missing -= 1;
        }
        Ok(answers.into_iter().flatten().collect())
    }
}

fn answer_of(message: &NetlinkMessage<RouteNetlinkMessage>, request: &Request) -> Answer {
    let refusal = |error, words| {
        Err(Refusal {
            purpose: request.purpose.clone(),
            error,
            words,
        })
    };
    match &message.payload {
        NetlinkPayload::Error(error) if error.code.is_none() => Ok(()),
        NetlinkPayload::Error(error) => {
            let has_words = message.header.flags & HAS_ATTRIBUTES != 0;
            let words = has_words.then(|| words_in(&error.header)).flatten();
            refusal(error.to_io(), words)
        }
        other => refusal(
            io::Error::other(format!("unexpected answer {other:?}")),
            None,
        ),
    }
}

/// `answer`: the request's header, then attributes.
fn words_in(answer: &[u8]) -> Option<String> {
    let attributes = NlasIterator::new(answer.get(HEADER_LENGTH..)?);
    let words = attributes.flatten().find(|nla| nla.kind() == WORDS)?;
    parse_string(words.value()).ok()
}
