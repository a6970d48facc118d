//! What `routerctl` shows again and again, until it is stopped or its reader has had enough.

use std::{
    io::{self, IsTerminal as _, Write as _},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyCode, KeyModifiers},
};

use crate::{
    control::{
        client::{Client, ClientError},
        protocol::LogWanted,
    },
    terminal::{complain, fitted, print},
    views::{
        self,
        events::Seen,
        top::{Picture, Top},
    },
};

/// Between two looks for what happened.
const MONITOR_INTERVAL: Duration = Duration::from_millis(200);
/// Between two pictures.
const TOP_INTERVAL: Duration = Duration::from_secs(1);

/// Prints what happens in the cluster from now on. An agent that goes is waited for.
pub fn monitor(client: &Client, json: bool) -> Result<()> {
    let mut seen = Seen::default();
    // What was before is for `show cluster history`.
    seen.new_in(&client.status()?);
    let mut gone = false;
    loop {
        sleep(MONITOR_INTERVAL);
        let status = match client.status() {
            Ok(status) => status,
            Err(error) => {
                if !gone {
                    complain(&format!("{error}; waiting for it\n"));
                }
                gone = true;
                continue;
            }
        };
        gone = false;
        for event in seen.new_in(&status) {
            let line = if json {
                serde_json::to_string(&event)?
            } else {
                event.painted()
            };
            if !print(&(line + "\n"))? {
                return Ok(());
            }
        }
    }
}

/// Prints what `text` is, every `interval`; on a terminal each in the place of the one before.
pub fn repeat(interval: Duration, mut text: impl FnMut() -> Result<String>) -> Result<()> {
    /// ECMA-48: cursor to the upper left corner, erase to the end.
    const ANEW: &str = "\x1b[H\x1b[2J";
    loop {
        let text = text()?;
        if io::stdout().is_terminal() {
            write!(io::stdout(), "{ANEW}").context("cannot write to the terminal")?;
        }
        if !print(&text)? {
            return Ok(());
        }
        sleep(interval);
    }
}

/// Prints what the agent logged, and what it logs from now on. An agent that goes is waited for.
pub fn follow_log(client: &Client, mut wanted: LogWanted, json: bool) -> Result<()> {
    let mut lines = client.log(wanted)?;
    wanted.lines = None;
    let mut gone = false;
    loop {
        if let Some(last) = lines.last() {
            wanted.after_ns = last.at_ns;
        }
        let text = if json {
            let lines = lines.iter().map(serde_json::to_string);
            lines.map(|line| Ok(line? + "\n")).collect::<Result<_>>()?
        } else {
            fitted(views::log(&lines))
        };
        if !print(&text)? {
            return Ok(());
        }
        sleep(MONITOR_INTERVAL);
        let answer = client.log(wanted);
        if let Err(error) = &answer
            && !gone
        {
            complain(&format!("{error}; waiting for it\n"));
        }
        gone = answer.is_err();
        lines = answer.unwrap_or_default();
    }
}

/// Fills the terminal with the router, until `q`.
pub fn top(client: &Client) -> Result<()> {
    ensure!(
        io::stdout().is_terminal(),
        "top needs a terminal: use `show` with --json, or `monitor cluster`"
    );
    let mut top = Top::default();
    top.take(picture(client)?);
    let mut terminal = ratatui::try_init().context("cannot use this terminal")?;
    let outcome = run(&mut terminal, client, &mut top);
    ratatui::restore();
    outcome
}

fn run(terminal: &mut DefaultTerminal, client: &Client, top: &mut Top) -> Result<()> {
    loop {
        terminal.draw(|frame| top.draw(frame))?;
        if event::poll(TOP_INTERVAL)? {
            if let Event::Key(key) = event::read()? {
                let is_interrupt = key.modifiers.contains(KeyModifiers::CONTROL);
                match key.code {
                    KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                    KeyCode::Char('c') if is_interrupt => return Ok(()),
                    _ => {}
                }
            }
        } else {
            match picture(client) {
                Ok(picture) => top.take(picture),
                Err(error) => top.fail(error.to_string()),
            }
        }
    }
}

fn picture(client: &Client) -> Result<Picture, ClientError> {
    Ok(Picture {
        status: client.status()?,
        sessions: client.heartbeat()?,
        tunnels: client.tunnels()?,
    })
}
