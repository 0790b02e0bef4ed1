//! What `sealane top` knows and what keys do to it: the last answer, rates over the last minutes, the view that is chosen.

use std::collections::VecDeque;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::rates::{Lane, Rates};
use crate::base::Instant;
use crate::control::api::shapes::Overview;

/// Most points that are kept of each rate: as wide as a sparkline gets.
pub(super) const POINTS_MAX: usize = 300;

/// What is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    Overview,
    Lanes,
    Servers,
    Services,
    Keys,
}

impl View {
    pub(super) const ALL: [Self; 5] = [Self::Overview, Self::Lanes, Self::Servers, Self::Services, Self::Keys];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Overview => "Overview",
            Self::Lanes => "Lanes",
            Self::Servers => "Servers",
            Self::Services => "Services",
            Self::Keys => "Keys",
        }
    }

    /// By what its rows can stand in order, in the order in which `s` goes through them.
    pub(super) fn orders(self) -> &'static [&'static str] {
        match self {
            Self::Overview | Self::Keys => &["as they are"],
            Self::Lanes => &["lane", "busy", "handshakes", "connections", "drops"],
            Self::Servers => &["pool", "state", "connections", "answers", "first byte", "failed"],
            Self::Services => &["as written", "usable", "certificate"],
        }
    }

    fn at(self) -> usize {
        Self::ALL.iter().position(|view| *view == self).unwrap_or(0)
    }

    fn moved(self, by: usize) -> Self {
        Self::ALL.iter().copied().cycle().nth(self.at() + by).unwrap_or(self)
    }
}

/// Rates of all lanes at one time.
#[derive(Clone, Debug)]
pub(super) struct Point {
    pub(super) total: Lane,
    pub(super) busy: Vec<f64>,
    pub(super) connections: u64,
}

/// Whether the engine answers.
#[derive(Clone, Debug)]
pub(super) enum Link {
    /// Nobody has answered yet.
    New,
    /// It does.
    Up,
    /// It does not, since when and why.
    Lost(Instant, String),
}

/// The state.
#[derive(Clone, Debug)]
pub(super) struct App {
    /// Where the engine is, for whoever looks.
    pub(super) target: String,
    pub(super) link: Link,
    pub(super) latest: Option<Overview>,
    pub(super) rates: Option<Rates>,
    pub(super) history: VecDeque<Point>,
    /// Something that has happened, and until when it is told.
    notice: Option<(String, Instant)>,
    pub(super) view: View,
    orders: [usize; View::ALL.len()],
    pub(super) is_reversed: bool,
    /// Rows of the view that are above its first line.
    pub(super) scroll: usize,
    /// The most that it can be scrolled, as it was drawn last.
    pub(super) scroll_max: usize,
    /// Rows that were drawn last.
    pub(super) page: usize,
    pub(super) is_help: bool,
    /// Colours; without, words alone say how things are.
    pub(super) is_coloured: bool,
}

/// What a key asks for beyond another picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Stay,
    Quit,
}

/// How long something that has happened is told.
const NOTICE: crate::base::Duration = crate::base::Duration::from_secs(10);

impl App {
    pub(super) fn new(target: String, is_coloured: bool) -> Self {
        Self {
            target,
            link: Link::New,
            latest: None,
            rates: None,
            history: VecDeque::new(),
            notice: None,
            view: View::Overview,
            orders: [0; View::ALL.len()],
            is_reversed: false,
            scroll: 0,
            scroll_max: 0,
            page: 1,
            is_help: false,
            is_coloured,
        }
    }

    /// Takes what the engine has answered.
    pub(super) fn on_answer(&mut self, overview: Overview, now: Instant) {
        if let Some(before) = &self.latest {
            self.rates = Rates::between(before, &overview);
            if self.rates.is_none() && overview.uptime_milliseconds < before.uptime_milliseconds {
                self.history.clear();
                self.notice = Some(("the engine has started again".to_owned(), now + NOTICE));
            } else if matches!(self.link, Link::Lost(..)) {
                self.notice = Some(("the engine answers again".to_owned(), now + NOTICE));
            }
        }
        if let Some(rates) = &self.rates {
            let busy = rates.lanes.iter().map(|lane| lane.busy).collect();
            self.history.push_back(Point { total: rates.total(), busy, connections: overview.engine.connections });
            self.history.drain(..self.history.len().saturating_sub(POINTS_MAX));
        }
        self.latest = Some(overview);
        self.link = Link::Up;
    }

    /// Notes that it has not answered.
    pub(super) fn on_silence(&mut self, why: String, now: Instant) {
        match &mut self.link {
            Link::Lost(_, old) => *old = why,
            Link::New | Link::Up => self.link = Link::Lost(now, why),
        }
    }

    pub(super) fn notice(&self, now: Instant) -> Option<&str> {
        self.notice.as_ref().filter(|(_, until)| now < *until).map(|(notice, _)| notice.as_str())
    }

    /// By what the rows stand in order.
    pub(super) fn order(&self) -> &'static str {
        let chosen = self.orders.get(self.view.at()).copied().unwrap_or(0);
        self.view.orders().get(chosen).copied().unwrap_or_default()
    }

    pub(super) fn on_key(&mut self, key: KeyEvent) -> Wish {
        if key.kind == KeyEventKind::Release {
            return Wish::Stay;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if key.code == KeyCode::Char('c') { Wish::Quit } else { Wish::Stay };
        }
        if self.is_help && key.code != KeyCode::Char('q') {
            self.is_help = false;
            return Wish::Stay;
        }
        self.on_plain_key(key.code)
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "a keyboard has more keys than this program")]
    fn on_plain_key(&mut self, code: KeyCode) -> Wish {
        match code {
            KeyCode::Char('q') | KeyCode::Esc => return Wish::Quit,
            KeyCode::Char('?' | 'h') => self.is_help = true,
            KeyCode::Char(digit @ '1'..='5') => {
                let at = digit.to_digit(10).and_then(|digit| usize::try_from(digit).ok()).unwrap_or(1);
                self.choose(View::ALL.get(at - 1).copied().unwrap_or(self.view));
            }
            KeyCode::Tab | KeyCode::Right => self.choose(self.view.moved(1)),
            KeyCode::BackTab | KeyCode::Left => self.choose(self.view.moved(View::ALL.len() - 1)),
            KeyCode::Char('s') => {
                let orders = self.view.orders().len();
                if let Some(order) = self.orders.get_mut(self.view.at()) {
                    *order = (*order + 1) % orders;
                }
            }
            KeyCode::Char('r') => self.is_reversed = !self.is_reversed,
            KeyCode::Down | KeyCode::Char('j') => self.scroll_to(self.scroll.saturating_add(1)),
            KeyCode::Up | KeyCode::Char('k') => self.scroll_to(self.scroll.saturating_sub(1)),
            KeyCode::PageDown | KeyCode::Char(' ') => self.scroll_to(self.scroll.saturating_add(self.page)),
            KeyCode::PageUp => self.scroll_to(self.scroll.saturating_sub(self.page)),
            KeyCode::Home => self.scroll_to(0),
            KeyCode::End => self.scroll_to(usize::MAX),
            _ => {}
        }
        Wish::Stay
    }

    fn choose(&mut self, view: View) {
        self.view = view;
        self.scroll = 0;
    }

    fn scroll_to(&mut self, row: usize) {
        self.scroll = row.min(self.scroll_max);
    }
}
