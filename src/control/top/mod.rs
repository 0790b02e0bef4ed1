//! `sealane top`: a running engine live in a terminal, over its API. It only looks.
//!
//! | part | what |
//! | --- | --- |
//! | `app` | what is known, and what keys do |
//! | `rates`, `words` | numbers out of two answers, and how they are written |
//! | `sheet` | tables, for `draw` and `once` |
//! | `draw` | the picture |
//! | `once` | the same as plain text |
//!
//! One thread asks the engine; the other hears keys and draws. They share a channel of one answer.

mod app;
mod draw;
mod once;
mod rates;
mod sheet;
mod words;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};

use anyhow::Context;
use hyper::Method;
use ratatui::crossterm::event::{self, Event};

use crate::base::Duration;
use crate::control::api::shapes::Overview;
use crate::control::clock;
use crate::control::ctl::client::{Question, Target};
use crate::control::ctl::{EngineArgs, show};
use app::{App, Wish};

/// What `sealane top` is told.
#[derive(Clone, Debug, clap::Args)]
pub struct TopArgs {
    #[command(flatten)]
    engine: EngineArgs,
    /// Seconds between two looks, 0.2 to 60
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    interval: std::time::Duration,
    /// Print one snapshot as plain text, with rates of one interval, and end
    #[arg(long)]
    once: bool,
}

fn interval(text: &str) -> Result<std::time::Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.2..=60.0).contains(seconds));
    seconds.map(std::time::Duration::from_secs_f64).ok_or_else(|| "write a number from 0.2 to 60".to_owned())
}

/// How long a key, a signal or an answer waits at most until it is seen.
const LOOK: Duration = Duration::from_millis(50);

/// An answer, or why there is none.
type Answer = Result<Box<Overview>, String>;

/// Shows an engine until the user has seen enough.
///
/// # Errors
/// When there is no terminal, or with `--once` no engine.
pub fn run(args: &TopArgs) -> anyhow::Result<ExitCode> {
    let target = args.engine.target()?;
    if args.once {
        return print_once(&target, args.interval);
    }
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        anyhow::bail!(
            "sealane top draws on a terminal and hears its keys, and there is none; --once prints one snapshot as plain text"
        );
    }
    let is_ended = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&is_ended))?;
    }
    // See https://no-color.org
    let is_coloured = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let app = App::new(target.to_string(), is_coloured);
    let (answers, answered) = mpsc::sync_channel(1);
    // The asker ends when this end is dropped, or with the process if the engine is silent then.
    let (go_on, stop) = mpsc::channel::<()>();
    let every = args.interval;
    std::thread::Builder::new().name("asker".to_owned()).spawn(move || ask_on(&target, &answers, &stop, every))?;
    let shown = {
        // Puts the terminal back on a panic, too.
        let mut terminal = ratatui::try_init().context("the terminal cannot be drawn on")?;
        let shown = show(&mut terminal, app, &answered, &is_ended);
        let restored = ratatui::try_restore().context("the terminal cannot be put back; `reset` does it");
        shown.and(restored)
    };
    drop(go_on);
    shown.map(|()| ExitCode::SUCCESS)
}

fn ask(target: &Target) -> Answer {
    let answer = target.ask(Question::new(Method::GET, "/v1/overview")).map_err(|error| format!("{error:#}"))?;
    if !answer.status.is_success() {
        return Err(show::problem(answer.status, &answer.body));
    }
    serde_json::from_slice(&answer.body)
        .map(Box::new)
        .map_err(|error| format!("the engine answers in another form: {error}"))
}

/// Asks again and again until nobody listens any more.
fn ask_on(target: &Target, answers: &SyncSender<Answer>, stop: &Receiver<()>, every: std::time::Duration) {
    loop {
        if answers.send(ask(target)).is_err() {
            return;
        }
        match stop.recv_timeout(every) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Draws whenever there is something new, and hears keys meanwhile.
fn show(
    terminal: &mut ratatui::DefaultTerminal,
    mut app: App,
    answered: &Receiver<Answer>,
    is_ended: &AtomicBool,
) -> anyhow::Result<()> {
    while !is_ended.load(Ordering::Relaxed) {
        let now = clock::now();
        match answered.try_recv() {
            Ok(Ok(overview)) => app.on_answer(*overview, now),
            Ok(Err(why)) => app.on_silence(why, now),
            Err(_) => {}
        }
        terminal.draw(|frame| draw::draw(frame, &mut app, now))?;
        // A size that has changed is seen by the next drawing.
        while event::poll(LOOK)? {
            match event::read()? {
                Event::Key(key) => {
                    if app.on_key(key) == Wish::Quit {
                        return Ok(());
                    }
                    break;
                }
                Event::Resize(..) => break,
                Event::FocusGained | Event::FocusLost | Event::Mouse(_) | Event::Paste(_) => {}
            }
        }
    }
    Ok(())
}

fn print_once(target: &Target, every: std::time::Duration) -> anyhow::Result<ExitCode> {
    let mut app = App::new(target.to_string(), false);
    app.on_answer(*ask(target).map_err(anyhow::Error::msg)?, clock::now());
    // Nobody sends: this is a pause.
    let (_sender, pause) = mpsc::channel::<()>();
    let _ = pause.recv_timeout(every);
    app.on_answer(*ask(target).map_err(anyhow::Error::msg)?, clock::now());
    std::io::stdout().lock().write_all(once::text(&app).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests;
